"""Guided backpropagation.

At each ReLU f(x) = max(x, 0) the backward pass lets only positive gradients of active units through:

    R_i^l = 1[f_i^l > 0] 1[R_i^{l+1} > 0] R_i^{l+1}

Springenberg, Dosovitskiy, Brox & Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR Workshop 2015.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.rules import GUIDED, ruled
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def guided_backprop(network: Network, images: Tensor, target: Target) -> Attribution:
    """Gradient of a score or a single neuron with only the positive parts sent back through each ReLU.

    Knows ReLU and ReLU6 in all their forms: modules, in place, functional, methods, clamps, one module used many times.

    Args:
        network: any network whose only non-linearities are ReLUs and poolings.
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
    gradient, scores = input_gradient(network, images, aim, ruled(GUIDED))
    return attribution("guided-backprop", aim, gradient.sum(2), scores, gradient=gradient)
