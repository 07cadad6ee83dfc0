"""Class activation maps: what all of the CAM family share.

Each weighs the maps A^k of one layer and adds them up; a method is its formula for that.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import LayerError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.health import refuse_nan
from phosphene.explain.target import Aim, Target, aim_at, pieces
from phosphene.models import Network

Formula: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(A [N, 1, C, h, w], dS/dA [N, K, C, h, w]) -> L [N, K, h, w]`."""


def gradient_cam(
    method: str, formula: Formula, network: Network, images: Tensor, target: Target, layer: str | None
) -> Attribution:
    """The maps of a method whose formula needs a layer's activations and the scores' gradients there.

    What lies before the layer runs without a graph, so this costs little more than a forward pass.
    """
    aim = aim_at(network, images, target)
    layer = cam_layer(network, images, aim, layer)
    cams, values = [], []
    for piece, own in pieces(network, images, aim):
        activation, gradient, scores = _evidence(network, piece, own, layer)
        cams.append(formula(activation[:, None], gradient))
        values.append(scores)
        if not (bool(torch.isfinite(cams[-1]).all()) and bool(torch.isfinite(scores).all())):
            refuse_nan(network, images)
    cam = torch.cat(cams)
    return attribution(method, aim, at_input_size(cam, images), torch.cat(values), layer=layer, layer_maps=cam)


def cam_layer(network: Network, images: Tensor, aim: Aim, layer: str | None) -> str:
    """The layer of a CAM: as asked, or the last with a map that what is explained depends on.

    Raises:
        LayerError: it has no spatial output; the message names the nearest that has.
    """
    if layer is None:
        return network.last_spatial_layer() if aim.unit is None else _last_before(network, images, aim)
    shape = network.layer(layer).shape
    if len(shape) != 3:
        raise LayerError(
            f"layer '{layer}' has no spatial map (its output is {list(shape)}): the nearest that has one is"
            f" '{network.nearest_spatial_layer(layer)}'"
        )
    return layer


def _last_before(network: Network, images: Tensor, aim: Aim) -> str:
    """The last layer with a map that the unit reads: not a part of its own layer, nor a branch beside it."""
    assert aim.unit is not None
    read = []
    for layer in reversed(network.spatial_layers(before=aim.unit.layer)):
        with suppress(LayerError):
            _, gradient, _ = _evidence(network, images[:1], aim.of(slice(0, 1)), layer)
            read.append(layer)
            if bool(gradient.any()):
                return layer
    if not read:
        raise LayerError(
            f"no layer with a spatial map runs before '{aim.unit.layer}' that it depends on: for its units take"
            " gradient, saliency or guided-backprop"
        )
    return read[0]  # a unit that is silent here: its map is zero at any layer


def at_input_size(cam: Tensor, images: Tensor) -> Tensor:
    """`[N, K, h, w]` to `[N, K, H, W]`, bilinear."""
    return F.interpolate(cam, images.shape[-2:], mode="bilinear", align_corners=False)


def _evidence(network: Network, images: Tensor, aim: Aim, layer: str) -> tuple[Tensor, Tensor, Tensor]:
    """`A [N, C, h, w]`, `dS/dA [N, K, C, h, w]` and `S [N, K]`."""
    with torch.inference_mode(False), torch.enable_grad():
        activation, output = network.cut(images, layer, aim.unit.layer if aim.unit else None)
        scores = aim.pick(output)
        sums = scores.sum(0)
        if not sums.requires_grad:
            raise _independent(network, layer)
        last = len(sums) - 1
        found = [
            torch.autograd.grad(s, activation, retain_graph=k < last, allow_unused=True)[0] for k, s in enumerate(sums)
        ]
    if any(gradient is None for gradient in found):
        raise _independent(network, layer)
    return activation.detach(), torch.stack(found, 1), scores.detach()


def _independent(network: Network, layer: str) -> LayerError:
    return LayerError(f"the scores of {network.name} don't depend on layer '{layer}'")
