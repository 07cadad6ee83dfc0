"""Style as second-order statistics: which features occur together, whatever the place.

    G^l_ij = sum_k F^l_ik F^l_jk          (F^l: N_l channels x M_l places)

Gatys, Ecker & Bethge, "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015, equation 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phosphene.errors import PhospheneError


def gram(features: Tensor) -> Tensor:
    """The Gram matrix `[N, C, C]` of features `[N, C, H, W]`: `F F^T` of each, with F as `[C, H * W]`. Differentiable.

    Raises:
        PhospheneError: features that are no maps.
    """
    if features.ndim != 4:
        raise PhospheneError(f"a Gram matrix is made of features [N, C, H, W], got {list(features.shape)}")
    found = _Gram.apply(features)
    assert isinstance(found, Tensor)
    return found


def moments(features: Tensor, guides: Tensor | None = None) -> Tensor:
    """`G / M`, the mean of `F_i F_j` over the places of each region, `[R, C, C]`.

    Args:
        features: `[1, C, H, W]`.
        guides: `[R, H, W]`, how much each place counts for each region (0 to 1); None: one region, the whole picture.

    The guided form is Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", CVPR 2017, equations 4 and 5.
    """
    if guides is None:
        return gram(features) / (features.shape[2] * features.shape[3])
    return weighted_sums(features, guides) / guides.sum((1, 2)).clamp(min=1e-6)[:, None, None]


def weighted_sums(features: Tensor, guides: Tensor | None) -> Tensor:
    """The sums that `moments` divides: `sum_k g_k F_ik F_jk` for each region, `[R, C, C]`."""
    if guides is None:
        return gram(features)
    return torch.cat([gram(features * guide.sqrt()) for guide in guides])


class _Gram(torch.autograd.Function):
    """F F^T with one matrix product backwards, `(D + D^T) F`, where autograd's own rule takes two and adds them.

    In channels_last memory F^T is there as it is, a matrix of places x channels: nothing is copied.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        places = _places(features)
        return places.transpose(1, 2) @ places

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        (given,) = gradients
        count, channels, height, width = features.shape
        moved = _places(features) @ (given + given.transpose(1, 2))
        return moved.view(count, height, width, channels).permute(0, 3, 1, 2)


def _places(features: Tensor) -> Tensor:
    """`[N, C, H, W]` as `[N, H * W, C]`."""
    return features.permute(0, 2, 3, 1).flatten(1, 2)
