"""Gradient x input.

    R = I * d S_c / d I

The first-order share of each pixel in the score: for a network of ReLUs without biases the shares add up to it.
Shrikumar, Greenside, Shcherbina & Kundaje, "Not Just a Black Box", arXiv 1605.01713, 2016.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def gradient_x_input(network: Network, images: Tensor, target: Target) -> Attribution:
    """The gradient times the pixel's value in [0, 1]: black pixels have no share.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.

    Returns:
        Attribution with the shares `gradient [N, 3, H, W]`; `maps [N, H, W]` is their sum over the colours.

    Raises:
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target)
    gradient, scores = input_gradient(network, images, aim)
    shares = gradient * images.to(gradient)[:, None]
    return attribution("gradient-x-input", aim, shares.sum(2), scores, gradient=shares)
