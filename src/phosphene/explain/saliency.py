"""Saliency maps.

    M_ij = max_k | d S_c / d I_kij |

Simonyan, Vedaldi & Zisserman, "Deep Inside Convolutional Networks", ICLR Workshop 2014, section 3.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def saliency(network: Network, images: Tensor, target: Target) -> Attribution:
    """Absolute gradient of the unnormalised score with respect to the pixels, maximum over the colours.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.

    Returns:
        Attribution with `maps [N, H, W] >= 0` and the signed `gradient [N, 3, H, W]`.

    Raises:
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target)
    gradient, scores = input_gradient(network, images, aim)
    return attribution("saliency", aim, gradient.abs().amax(2), scores, gradient=gradient)
