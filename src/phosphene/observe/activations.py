"""Activations: what the channels of a layer make of one photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Layer, Network


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


def journey(network: Network, most: int = 24) -> list[str]:
    """The layers that do something new, in order of execution: what each convolution and each pooling ends in.

    A convolution's normalisation and activation belong to it, and only the last of them is taken. Where these are more than
    `most`, blocks stand for what is in them, the innermost first; where these still are, every so manyth is taken.

    Raises:
        LayerError: no layer has a map.
    """
    spatial = [layer for layer in network.layers() if len(layer.shape) == 3 and min(layer.shape[1:]) > 1]
    if not spatial:
        raise LayerError(f"{network.name} has no layer with a spatial map")
    blocks = [layer.name for layer in spatial if not layer.leaf and layer.kind != "Sequential"]
    found = _endings(spatial)
    depths = {layer.name: sum(layer.name.startswith(f"{block}.") for block in blocks) for layer in spatial}
    for depth in range(max(depths.values()), 0, -1):
        if len(found) <= most:
            break
        found = _endings([layer for layer in spatial if depths[layer.name] < depth])
    kept = min(most, len(found))
    return [found[round(place * (len(found) - 1) / max(1, kept - 1))] for place in range(kept)]


def _endings(layers: Sequence[Layer]) -> list[str]:
    """The last layer of each run that a convolution, a pooling or a block begins."""
    found: list[str] = []
    for layer in layers:
        begins = layer.leaf and ("Conv" in layer.kind or "Pool" in layer.kind)
        block = not layer.leaf and not layer.kind.startswith("BatchNorm")
        if layer.kind == "Sequential" or (layer.leaf and layer.kind in _COPIES):
            continue
        inside = bool(found) and found[-1].startswith(f"{layer.name}.")
        if begins or not found or (block and not inside):
            found.append(layer.name)
        else:
            found[-1] = layer.name
    return found


_COPIES = ("Identity", "Dropout", "Dropout2d", "AdaptiveAvgPool2d")
_NOT_TO_SHOW = (*_COPIES, "Conv2d")  # copies of others, or not yet rectified
