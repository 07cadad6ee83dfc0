"""The deconvnet.

At each ReLU the way back has a ReLU of its own, which looks at the gradient and not at the unit:

    R_i^l = 1[R_i^{l+1} > 0] R_i^{l+1}

Convolutions are transposed and max-poolings reversed by their switches, which is what a gradient does anyway.
Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1; as a gradient rule:
Springenberg, Dosovitskiy, Brox & Riedmiller, "Striving for Simplicity", ICLR Workshop 2015, section 3.4.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.rules import DECONVNET, ruled
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def deconvnet(network: Network, images: Tensor, target: Target) -> Attribution:
    """A score or a single neuron projected back to the pixels, through a ReLU at each ReLU.

    Args:
        network: any network whose only non-linearities are ReLUs (or ReLU6) and poolings.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.

    Returns:
        Attribution with the signed `gradient [N, 3, H, W]`; `maps [N, H, W]` is its sum over the colours.

    Raises:
        RuleError: the network has a non-linearity that the rule is not defined for; the message names it.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target)
    gradient, scores = input_gradient(network, images, aim, ruled(DECONVNET))
    return attribution("deconvnet", aim, gradient.sum(2), scores, gradient=gradient)
