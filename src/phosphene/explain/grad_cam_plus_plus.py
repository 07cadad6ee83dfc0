"""Grad-CAM++.

    L_c = ReLU( sum_k w_k^c A^k ),    w_k^c = sum_ij alpha_ij^kc ReLU(g_ij^k)
    alpha_ij^kc = g^2 / (2 g^2 + sum_ab A_ab^k g^3),    g = d S_c / d A_ij^k

For the score exp(S_c), whose higher derivatives are powers of the first, where the network is linear around the layer.
Chattopadhay, Sarkar, Howlader & Balasubramanian, "Grad-CAM++", WACV 2018, equations 10 and 19.
"""

from __future__ import annotations

from torch import Tensor

from phosphene.explain.attribution import Attribution
from phosphene.explain.cam import gradient_cam
from phosphene.explain.target import Target
from phosphene.models import Network


def grad_cam_plus_plus(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Heat map of a class that counts several objects of it alike: only positive gradients, each place with its own weight.

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
    return gradient_cam("grad-cam++", _formula, network, images, target, layer)


def _formula(activation: Tensor, gradient: Tensor) -> Tensor:
    square = gradient.square()
    denominator = 2 * square + activation.sum((3, 4), keepdim=True) * square * gradient
    alpha = (square / (denominator + 1e-6)).where(gradient != 0, 0)
    weight = (alpha * gradient.relu()).sum((3, 4), keepdim=True)
    return (weight * activation).sum(2).relu()
