"""Activations: what the channels of a layer make of one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network


@dataclass(frozen=True)
class Activations:
    """One layer's answer to one image.

    Attributes:
        layer: its name.
        maps: `[k, h, w]`, the chosen channels' outputs, most distinct first.
        channels: `[k]`, which channels they are.
        total: how many channels the layer has.
        silent: the share of all its channels that are zero everywhere for this image.
    """

    layer: str
    maps: Tensor
    channels: tuple[int, ...]
    total: int
    silent: float


def activations(
    network: Network, image: Tensor, layers: Sequence[str] | None = None, *, count: int = 16
) -> list[Activations]:
    """The `count` channels of each layer that answer most distinctly (largest standard deviation over the map) to `image`.

    Args:
        network: any network.
        image: `[1, 3, H, W]` in [0, 1].
        layers: layers with a spatial output; default: `stages(network)`.
        count: channels per layer, at most.

    Raises:
        LayerError: no such layer, or one without a map.
        PhospheneError: a count below 1.
    """
    if count < 1:
        raise PhospheneError(f"channels start at 1, got {count}")
    names = list(layers) if layers else stages(network)
    for name in names:
        shape = network.layer(name).shape
        if len(shape) != 3:
            raise LayerError(
                f"layer '{name}' gives no maps (its output is {list(shape)}): the last that does is"
                f" '{network.last_spatial_layer()}'"
            )
    recorded = network.record(image[:1], names)
    return [_strongest(name, recorded[name][0], count) for name in names]


def _strongest(layer: str, maps: Tensor, count: int) -> Activations:
    flat = maps.flatten(1)
    strength = flat.std(1) if flat.shape[1] > 1 else flat.abs()[:, 0]  # a single value has no deviation
    order = strength.argsort(descending=True, stable=True)[:count]
    silent = float((maps.flatten(1).abs().amax(1) == 0).float().mean())
    return Activations(layer, maps[order], tuple(order.tolist()), maps.shape[0], silent)


def stages(network: Network, most: int = 6) -> list[str]:
    """Layers that tell the story from edges to objects: the last layer of each resolution, at most `most` of them."""
    spatial = [layer for layer in network.layers() if len(layer.shape) == 3 and min(layer.shape[1:]) > 1]
    if not spatial:
        raise LayerError(f"{network.name} has no layer with a spatial map")
    last_of: dict[tuple[int, ...], str] = {}
    for layer in spatial:
        if not (layer.leaf and layer.kind in _NOT_TO_SHOW):
            last_of[layer.shape[1:]] = layer.name
    return list(last_of.values())[-most:]


_NOT_TO_SHOW = (
    "Identity",
    "Dropout",
    "Dropout2d",
    "AdaptiveAvgPool2d",
    "Conv2d",
)  # copies of others, or not yet rectified
