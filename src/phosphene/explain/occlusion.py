"""Occlusion.

    R_ij = mean over the windows w that cover (i, j) of  S_c(I) - S_c(I with w covered)

Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.
"""

from __future__ import annotations

import math

from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.fill import Fill, filled
from phosphene.explain.target import Target, aim_at, values
from phosphene.explain.variants import pairs
from phosphene.models import Network

Side = int | tuple[int, int]


def occlusion(
    network: Network,
    images: Tensor,
    target: Target,
    *,
    window: Side | None = None,
    stride: Side | None = None,
    fill: Fill = "mean",
) -> Attribution:
    """How much the score falls when a window slides over the image and covers what is there.

    The windows begin at the top left; the last of a row or column may be cut by the border, so that all is covered.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`; a unit's most active place is the one in the image itself.
        window: side of the window in pixels, or (height, width); default: a seventh of the image's sides, 32 of 224.
        stride: pixels from one window to the next, at most its side, or (down, across); default: half a window.
        fill: what covers: the mean colour, a blurred copy, a level of grey, images; see `Fill`.

    Returns:
        Attribution with signed `maps [N, H, W]`, in units of the score; all classes of an image come from the same passes.

    Raises:
        PhospheneError: a window larger than the image or smaller than the stride, or an unknown fill.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    size = (images.shape[-2], images.shape[-1])
    window = _two(window) if window is not None else (max(1, size[0] // 7), max(1, size[1] // 7))
    stride = _two(stride) if stride is not None else (max(1, window[0] // 2), max(1, window[1] // 2))
    windows = _windows(size, window, stride)
    aim = aim_at(network, images, target, hold=True)
    images = images.to(network.mean)
    cover = filled(network, images, fill)
    whole = values(network, images, aim)
    maps = images.new_zeros((len(images), aim.width, *size))
    times = images.new_zeros(size)
    for top, bottom, left, right in windows:
        times[top:bottom, left:right] += 1
    for rows, numbers in pairs(network, images, len(windows)):
        covered = images[rows]
        for place, (row, number) in enumerate(zip(rows.tolist(), numbers.tolist(), strict=True)):
            top, bottom, left, right = windows[number]
            covered[place, :, top:bottom, left:right] = cover[row, :, top:bottom, left:right]
        fall = whole[rows] - values(network, covered, aim.of(rows))
        for place, (row, number) in enumerate(zip(rows.tolist(), numbers.tolist(), strict=True)):
            top, bottom, left, right = windows[number]
            maps[row, :, top:bottom, left:right] += fall[place, :, None, None]
    return attribution("occlusion", aim, maps / times, whole)


def _windows(
    size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """`(top, bottom, left, right)` of each window."""
    for side, length, step in zip(size, window, stride, strict=True):
        if not 1 <= step <= length <= side:
            raise PhospheneError(
                f"a window of {window[0]}x{window[1]} every {stride[0]}x{stride[1]} pixels on an image of"
                f" {size[0]}x{size[1]}: give a stride from 1 to the window, and a window that fits"
            )
    down, across = (
        [(begin, min(begin + length, side)) for begin in range(0, math.ceil((side - length) / step) * step + 1, step)]
        for side, length, step in zip(size, window, stride, strict=True)
    )
    return [(top, bottom, left, right) for top, bottom in down for left, right in across]


def _two(side: Side) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side
