"""Small random movements of the canvas between steps: what survives them is not noise that pleases one pixel grid."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Transform: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Images `[N, 3, H, W]` and a generator to images of the same shape."""


def jitter(pixels: int) -> Transform:
    """Shift by up to `pixels` in each direction, around the edges."""

    def transform(images: Tensor, generator: torch.Generator) -> Tensor:
        dy, dx = (torch.randint(-pixels, pixels + 1, (2,), generator=generator)).tolist()
        return images.roll((dy, dx), (2, 3))

    return transform


def affine(degrees: float, scale: tuple[float, float], shift: float = 0.0) -> Transform:
    """Rotate by up to `degrees`, zoom by a factor drawn from `scale`, shift by up to `shift` pixels, all in one resampling.

    What comes in from outside is reflected.
    """

    def transform(images: Tensor, generator: torch.Generator) -> Tensor:
        turn, zoom, right, down = torch.rand(4, generator=generator).tolist()
        angle = math.radians((2 * turn - 1) * degrees)
        factor = scale[0] + zoom * (scale[1] - scale[0])
        cos, sin = math.cos(angle) / factor, math.sin(angle) / factor
        height, width = images.shape[-2:]
        x, y = (2 * shift * (2 * share - 1) / side for share, side in ((right, width), (down, height)))
        theta = torch.tensor([[cos, -sin * height / width, x], [sin * width / height, cos, y]])
        return _resampled(images, theta)

    return transform


def _resampled(images: Tensor, theta: Tensor) -> Tensor:
    """Images seen through an affine map `[2, 3]` of their coordinates; what comes in from outside is reflected."""
    grid = F.affine_grid(theta.to(images)[None], [1, *images.shape[1:]], align_corners=False)
    if len(images) > 1 or images.shape[2] < 2:
        return F.grid_sample(
            images, grid.expand(len(images), -1, -1, -1), padding_mode="reflection", align_corners=False
        )
    # Only images share the work among processor cores, so the halves of a single one go as two.
    height = grid.shape[1]
    halves = grid[:, : height // 2 * 2].reshape(2, height // 2, -1, 2)
    found = F.grid_sample(images.expand(2, -1, -1, -1), halves, padding_mode="reflection", align_corners=False)
    parts = [*found.split(1)]
    if height % 2:
        parts.append(F.grid_sample(images, grid[:, -1:], padding_mode="reflection", align_corners=False))
    return torch.cat(parts, 2)


def crop(least: float) -> Transform:
    """Look at a window of at least this share of the sides (0 to 1), anywhere in the image, enlarged to its size."""

    def transform(images: Tensor, generator: torch.Generator) -> Tensor:
        grow, right, down = torch.rand(3, generator=generator).tolist()
        side = least + grow * (1 - least)
        room = 1 - side  # -1 to 1 are the borders of the image
        theta = torch.tensor([[side, 0.0, room * (2 * right - 1)], [0.0, side, room * (2 * down - 1)]])
        return _resampled(images, theta)

    return transform


def grain(strength: float) -> Transform:
    """Add noise of up to this standard deviation: what is faint against it can't count."""

    def transform(images: Tensor, generator: torch.Generator) -> Tensor:
        share = float(torch.rand((), generator=generator))
        noise = torch.randn(images.shape[1:], generator=generator).to(images)
        return images + share * strength * noise

    return transform


def compose(*transforms: Transform) -> Transform:
    """One after the other."""

    def transform(images: Tensor, generator: torch.Generator) -> Tensor:
        for each in transforms:
            images = each(images, generator)
        return images

    return transform
