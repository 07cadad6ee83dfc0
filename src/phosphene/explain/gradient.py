"""The vanilla gradient.

    G = d S_c / d I

Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR Workshop 2014, section 3.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def gradient(network: Network, images: Tensor, target: Target) -> Attribution:
    """Gradient of the unnormalised score with respect to the pixels, with its sign.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.

    Returns:
        Attribution with the `gradient [N, 3, H, W]`; `maps [N, H, W]` is its sum over the colours: how much the score
        would change if the pixel became brighter.

    Raises:
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target)
    found, scores = input_gradient(network, images, aim)
    return attribution("gradient", aim, found.sum(2), scores, gradient=found)
