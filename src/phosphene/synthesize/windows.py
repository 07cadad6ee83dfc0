"""Gradients of images of any size: window by window, blended where windows overlap, so that there are no seams.

Windows are cut from the image rolled around its edges by a random amount, so that their borders lie elsewhere at each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Box = tuple[int, int, int, int]
"""Top, left, bottom, right (exclusive)."""


def windows(size: tuple[int, int], side: int, overlap: int) -> list[Box]:
    """Boxes of at most `side` x `side` pixels that cover an image of `size` (height, width), `overlap` pixels in common.

    Boxes are spread evenly, so that the last one of a row is as large as the others.
    """
    return [
        (top, left, bottom, right)
        for top, bottom in _spans(size[0], side, overlap)
        for left, right in _spans(size[1], side, overlap)
    ]


def _spans(length: int, side: int, overlap: int) -> Iterator[tuple[int, int]]:
    if length <= side:
        yield 0, length
        return
    count = -(-(length - overlap) // (side - overlap))
    for place in range(count):
        start = round(place * (length - side) / (count - 1))
        yield start, start + side


def taper(box: Box, size: tuple[int, int], overlap: int) -> Tensor:
    """Weight `[height, width]` of the pixels of a window: 1 inside, falling to nearly 0 at the borders that it shares."""
    rows = _ramp(box[0], box[2], size[0], overlap)
    columns = _ramp(box[1], box[3], size[1], overlap)
    return rows[:, None] * columns[None, :]


def _ramp(start: int, end: int, length: int, overlap: int) -> Tensor:
    places = torch.arange(end - start, dtype=torch.float32)
    ramp = torch.ones(end - start)
    if start > 0:
        ramp = torch.minimum(ramp, (places + 0.5) / max(overlap, 1))
    if end < length:
        ramp = torch.minimum(ramp, (end - start - places - 0.5) / max(overlap, 1))
    return ramp.clamp(min=0)


def gradient_by_windows(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    image: Tensor,
    *,
    side: int,
    overlap: int,
    shift: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """`(value, gradient [1, 3, H, W])` of an image `[1, 3, H, W]`; the value is the mean over the windows.

    Args:
        gradient: of one window `[1, 3, h, w]`: its value and `[1, 3, h, w]`.
        image: of any size; one that fits into a window is taken whole.
        side: of a window.
        overlap: pixels that neighbouring windows have in common, in which one fades into the other.
        shift: roll the image by so many rows and columns first (and the gradient back).
    """
    height, width = image.shape[-2:]
    boxes = windows((height, width), side, overlap)
    if len(boxes) == 1:
        value, found = gradient(image.roll(shift, (2, 3)) if any(shift) else image)
        return value, found.roll((-shift[0], -shift[1]), (2, 3)) if any(shift) else found
    total, weights = torch.zeros_like(image), torch.zeros(height, width, device=image.device)
    values = []
    for box in boxes:
        # Where the window's rows and columns lie in the image: a rolled copy of 12 megapixels would be 144 MB.
        rows = ((torch.arange(box[0], box[2], device=image.device) - shift[0]) % height)[:, None]
        columns = (torch.arange(box[1], box[3], device=image.device) - shift[1]) % width
        value, found = gradient(image[..., rows, columns].contiguous())
        weight = taper(box, (height, width), overlap).to(found)
        total[..., rows, columns] += weight * found
        weights[rows, columns] += weight
        values.append(value)
    total /= weights.clamp_(min=1e-6)
    return torch.stack(values).mean(), total
