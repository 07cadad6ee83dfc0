"""What makes an image natural: penalties on it, and the slide's periodic operations.

A penalty gives one value per image, to be subtracted from the objective. An operation changes the pixels of a
`PixelCanvas` now and then.

Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015, section 2.2 (total variation
and the p-norm); Yosinski et al., "Understanding Neural Networks Through Deep Visualization", ICML DL Workshop 2015,
section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import PhospheneError

Penalty: TypeAlias = Callable[[Tensor], Tensor]
"""The slide's I, images `[N, 3, H, W]` in the network's units where 0 is the mean colour, to values `[N]`."""


def l2(weight: float) -> Penalty:
    """`weight * ||I||_2^2`."""
    return lambda canvas: weight * canvas.square().sum((1, 2, 3))


def lp(weight: float, p: float = 6.0) -> Penalty:
    """`weight * sum |I|^p`: Mahendran & Vedaldi's `R_alpha`, which keeps values in their range. `p` is at least 1."""
    if not p >= 1:
        raise PhospheneError(f"a norm's p is at least 1, got {p}")
    return lambda canvas: weight * canvas.abs().pow(p).sum((1, 2, 3))


def total_variation(weight: float, beta: float = 2.0) -> Penalty:
    """`weight * sum_ij ((I_{i,j+1} - I_ij)^2 + (I_{i+1,j} - I_ij)^2)^(beta/2)`, Mahendran & Vedaldi's `R_{V^beta}`.

    `beta` 2 is the plain sum of squares; 1 allows sharp edges; more than 2 spreads them. At the last row and column the
    missing difference is 0. Raises PhospheneError for a beta that is not positive.
    """
    if not beta > 0:
        raise PhospheneError(f"the beta of total variation is positive, got {beta}")

    def penalty(canvas: Tensor) -> Tensor:
        rows = F.pad(canvas[..., 1:, :] - canvas[..., :-1, :], (0, 0, 0, 1)).square()
        columns = F.pad(canvas[..., 1:] - canvas[..., :-1], (0, 1)).square()
        if beta == 2:
            return weight * (rows + columns).sum((1, 2, 3))
        # x^(beta/2) has no finite slope at 0 for beta < 2: a little is added, and what it adds taken away.
        return weight * ((rows + columns + _TINY).pow(beta / 2) - _TINY ** (beta / 2)).sum((1, 2, 3))

    return penalty


_TINY = 1e-6


@dataclass(frozen=True)
class Periodic:
    """One of the slide's operations, done each `every` steps: `apply(pixels, gradient) -> pixels`, all `[N, 3, H, W]`."""

    every: int
    apply: Callable[[Tensor, Tensor], Tensor]


def gaussian_blur(every: int, sigma: float) -> Periodic:
    """(1) Blur the image with a Gaussian of `sigma` pixels."""
    return Periodic(every, lambda pixels, _: blur(pixels, sigma))


def clip_small_norm(every: int, share: float) -> Periodic:
    """(2) Set to 0 the `share` of the pixels whose norm over the colours is smallest."""
    return Periodic(every, lambda pixels, _: pixels * _largest(pixels.norm(dim=1), share))


def clip_small_gradient(every: int, share: float) -> Periodic:
    """(3) Set to 0 the `share` of the pixels that matter least to the score: |sum over colours of value x gradient|."""
    return Periodic(every, lambda pixels, gradient: pixels * _largest((pixels * gradient).sum(1).abs(), share))


def _largest(values: Tensor, share: float) -> Tensor:
    """0 at the `share` of the pixels (rounded down) where `values [N, H, W]` are smallest, else 1, as `[N, 1, H, W]`."""
    flat = values.flatten(1)
    smallest = flat.argsort(dim=1, stable=True)[:, : int(share * flat.shape[1])]
    return torch.ones_like(flat).scatter(1, smallest, 0).view_as(values)[:, None]


def blur(images: Tensor, sigma: float) -> Tensor:
    """`[N, C, H, W]` convolved with a Gaussian of `sigma` pixels, edges reflected."""
    radius = min(max(1, math.ceil(3 * sigma)), min(images.shape[-2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(images.shape[1], 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="reflect")
    rows = F.conv2d(padded, kernel[..., None, :], groups=images.shape[1])
    return F.conv2d(rows, kernel[..., None], groups=images.shape[1])
