"""Grad-CAM.

    L_c = ReLU( sum_k alpha_k^c A^k ),    alpha_k^c = (1/Z) sum_ij d S_c / d A_ij^k

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution
from phosphene.explain.cam import gradient_cam
from phosphene.explain.target import Target
from phosphene.models import Network


def grad_cam(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Heat map of a class: the maps of a layer, weighted by their mean gradients.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.
        layer: any layer with a spatial output; default: the last one (of those before the unit).

    Returns:
        Attribution with `layer_maps [N, h, w] >= 0` and `maps [N, H, W]`, the same, bilinear at input size.

    Raises:
        LayerError: the layer has no spatial output, or what is explained doesn't depend on it.
        LabelError: no such class.
        NetworkError: NaN on the way.
    """
    return gradient_cam("grad-cam", _formula, network, images, target, layer)


def _formula(activation: Tensor, gradient: Tensor) -> Tensor:
    alpha = gradient.mean((3, 4), keepdim=True)
    return (alpha * activation).sum(2).relu()
