"""Colours of one picture for another: its luminance alone, or the mean and covariance of its colours.

Gatys, Bethge, Hertzmann & Shechtman, "Preserving Color in Neural Artistic Style Transfer", 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor

# NTSC's YIQ: luminance, and two directions of colour.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def luminance(image: Tensor) -> Tensor:
    """`[N, 3, H, W]` in [0, 1] as grey `[N, 3, H, W]`."""
    weights = image.new_tensor(_YIQ[0]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def with_colours_of(grey: Tensor, colours: Tensor) -> Tensor:
    """The luminance of `grey` and the colours of `colours`, both `[1, 3, H, W]` in [0, 1]; clipped to [0, 1]."""
    matrix = torch.tensor(_YIQ).to(colours)
    mixed = torch.einsum("kc,nchw->nkhw", matrix, colours)
    mixed[:, 0] = luminance(grey)[:, 0]
    return torch.einsum("ck,nkhw->nchw", torch.linalg.inv(matrix), mixed).clamp(0, 1)


def match_luminance(style: Tensor, content: Tensor) -> Tensor:
    """`style` as grey, shifted and scaled to the mean and standard deviation of `content`'s luminance."""
    mine, theirs = luminance(style.double()), luminance(content.double())
    spread = theirs.std(correction=0) / mine.std(correction=0).clamp(min=1e-6)
    return ((mine - mine.mean()) * spread + theirs.mean()).clamp(0, 1).to(style)


def match_colours(style: Tensor, content: Tensor) -> Tensor:
    """`style` with the mean and covariance of `content`'s colours, `[1, 3, H, W]` clipped to [0, 1].

    `x -> A (x - mean_s) + mean_c` with `A = C_c^(1/2) C_s^(-1/2)` (section 2.1 there), which keeps colours nearest to what
    they were among the maps that do.
    """
    pixels, others = style[0].flatten(1).double(), content[0].flatten(1).double()
    mean, wanted = pixels.mean(1, keepdim=True), others.mean(1, keepdim=True)
    matrix = _root(torch.cov(others)) @ torch.linalg.inv(_root(torch.cov(pixels)))
    return (matrix @ (pixels - mean) + wanted).to(style).view_as(style[0])[None].clamp(0, 1)


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root; a direction without any spread gets a little."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors @ torch.diag(values.clamp(min=1e-8).sqrt()) @ vectors.T
