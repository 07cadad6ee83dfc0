"""LayerCAM.

    L_c = ReLU( sum_k ReLU(d S_c / d A_ij^k) A_ij^k )

Jiang, Zhang, Hou, Cheng & Wei, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021,
equations 6 and 7.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution
from phosphene.explain.cam import gradient_cam
from phosphene.explain.target import Target
from phosphene.models import Network


def layer_cam(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Heat map of a class with a weight for each place of each map, which makes early, fine layers useful too.

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
    return gradient_cam("layer-cam", _formula, network, images, target, layer)


def _formula(activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient.relu() * activation).sum(2).relu()
