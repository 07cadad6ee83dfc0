"""Grad-CAM.

    L_c = ReLU( sum_k alpha_k^c A^k ),    alpha_k^c = (1/Z) sum_ij d S_c / d A_ij^k

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import LayerError
from phosphene.explain.attribution import Attribution
from phosphene.explain.target import Target, per_image
from phosphene.models import Network, Unit


def grad_cam(network: Network, images: Tensor, target: Target, layer: str | None = None) -> Attribution:
    """Heat map of a class: the maps of a layer, weighted by their mean gradients.

    What lies before `layer` runs without a graph, so this costs little more than a forward pass.

    Args:
        network: a network that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: a class for all images, or one per image.
        layer: any layer with a spatial output; default: the last one.

    Returns:
        Attribution with `layer_maps [N, h, w] >= 0` and `maps [N, H, W]`, the same, bilinear at input size.

    Raises:
        LayerError: the layer has no spatial output, the class doesn't depend on it, or the target is a unit.
        LabelError: no such class.
    """
    network.need_classifier("Grad-CAM")
    with torch.inference_mode(False):
        classes = per_image(target, images.shape[0], network)
    if isinstance(classes, Unit):
        raise LayerError("Grad-CAM explains a class; for a unit use saliency or guided-backprop")
    layer = layer or network.last_spatial_layer()
    shape = network.layer(layer).shape
    if len(shape) != 3:
        raise LayerError(
            f"layer '{layer}' has no spatial map (its output is {list(shape)}): the last that has one is"
            f" '{network.last_spatial_layer()}'"
        )
    cams, values, start = [], [], 0
    with torch.inference_mode(False), torch.enable_grad():
        for piece in network.split(images):
            activation, logits = network.cut(piece, layer)
            score = logits.gather(1, classes[start : start + len(piece), None])[:, 0]
            start += len(piece)
            gradient = (
                torch.autograd.grad(score.sum(), activation, allow_unused=True)[0] if score.requires_grad else None
            )
            if gradient is None:
                raise LayerError(f"the scores of {network.name} don't depend on layer '{layer}'")
            alpha = gradient.mean((2, 3), keepdim=True)
            cams.append((alpha * activation.detach()).sum(1).relu())
            values.append(score.detach())
    cam = torch.cat(cams)
    maps = F.interpolate(cam[:, None], images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return Attribution("grad-cam", maps, torch.cat(values), layer=layer, layer_maps=cam)
