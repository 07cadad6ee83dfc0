"""Guided Grad-CAM.

    R = L_c * G

Grad-CAM's heat map at input size times guided backpropagation: fine, and about the class.
Selvaraju et al., "Grad-CAM", ICCV 2017, section 3.2.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.cam import at_input_size
from phosphene.explain.grad_cam import grad_cam
from phosphene.explain.guided_backprop import guided_backprop
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def guided_grad_cam(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Guided backpropagation where Grad-CAM finds the class.

    Args:
        network: a network whose only non-linearities are ReLUs (or ReLU6) and poolings.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.
        layer: Grad-CAM's layer; default: the last with a map (of those before the unit).

    Returns:
        Attribution with the signed `gradient [N, 3, H, W]`; `maps [N, H, W]` is its sum over the colours; `layer_maps` is
        Grad-CAM's heat map.

    Raises:
        RuleError: the network has a non-linearity that guided backpropagation is not defined for.
        LayerError: the layer has no spatial output, or what is explained doesn't depend on it.
        LabelError: no such class.
        NetworkError: NaN on the way.
    """
    aim = aim_at(network, images, target)
    guided = guided_backprop(network, images, target)
    heat = grad_cam(network, images, target, layer)
    assert guided.gradient is not None and heat.layer_maps is not None
    cam = heat.layer_maps if aim.several else heat.layer_maps[:, None]
    own = guided.gradient if aim.several else guided.gradient[:, None]
    gradient = at_input_size(cam, images)[:, :, None] * own
    return attribution(
        "guided-grad-cam", aim, gradient.sum(2), guided.scores.reshape(len(images), -1), gradient=gradient,
        layer=heat.layer, layer_maps=cam,
    )  # fmt: skip
