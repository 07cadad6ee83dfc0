"""`activations`: what the channels of several layers make of one photograph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe
from phosphene.errors import NetworkError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.strip import CHANNELS, Frame, strip
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.observe.activations import Activations
from phosphene.progress import Job, Started, Step

TILE = 112  # pixels of one channel's map


def activations(
    workshop: Workshop,
    *,
    image: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layers: Sequence[str] = (),
    channels: int = 16,
) -> Job[Outcome]:
    """Pictures: `activations` (the sheet), one grid per layer, named after the layer, and `strip`, all as a film.

    `layers`: `all` stands for every layer that does something new, see `observe.journey`.
    """
    network = workshop.network(net, weights, labels)
    photo = network.preprocess(workshop.image(image))
    names = list(dict.fromkeys(layers)) or observe.stages(network)
    names = observe.journey(network) if names == ["all"] else names
    yield Started("activations", len(names), "layer")
    found = observe.activations(network, photo, names, count=channels)
    made = []
    for done, layer in enumerate(found, start=1):
        made.append(_picture(layer))
        yield Step(done)
    panels = [pictures.Panel(photo[0].cpu(), "input", f"{photo.shape[-1]} x {photo.shape[-2]}")]
    panels += [pictures.Panel(p.image, layer.layer, _short(layer)) for p, layer in zip(made, found, strict=True)]
    sheet = pictures.sheet(panels, side=300, footnote=f"{net}. {_NOTE}")
    facts = {
        "net": net,
        "layers": [
            {
                "layer": layer.layer,
                "channels": layer.total,
                "size": list(layer.maps.shape[1:]),
                "silent": round(layer.silent, 4),
                "strongest": list(layer.channels),
            }
            for layer in found
        ],
    }
    alt = f"The strongest channels of {len(found)} layers of {net}, from edges to whole objects"
    return Outcome((Picture("activations", sheet, alt, _NOTE), *made, _strip(network, photo, found)), facts)


_NOTE = (
    "A tile is a channel, most distinct first, scaled to its own maximum; zero is black (white between blue and red)."
)


def _strip(network: Network, photo: Tensor, found: Sequence[Activations]) -> Picture:
    frames = [Frame(layer.layer, _size(layer), _painted(layer)[:CHANNELS]) for layer in found]
    classes = _classes(network, photo)
    seen = f" to {classes[0][0]}" if classes else ""
    alt = f"A photograph on its way through {network.name}: channels of {len(found)} layers, from left to right{seen}"
    return Picture("strip", strip(photo[0].cpu(), frames, classes), alt, f"{network.name}. {_NOTE}")


def _classes(network: Network, photo: Tensor) -> list[tuple[str, float]]:
    """The five most probable classes; none where the network has none, or gives NaN."""
    if not network.classifies:
        return []
    try:
        (best,) = network.predict(photo)
    except NetworkError:
        return []
    return list(zip(best.names, best.probabilities, strict=True))


def _size(layer: Activations) -> str:
    height, width = layer.maps.shape[1:]
    return f"{layer.total} {'map' if layer.total == 1 else 'maps'}\n{width} x {height}"


def _painted(layer: Activations) -> Tensor:
    """The chosen channels in colour, `[k, 3, h, w]`."""
    maps = layer.maps.cpu()
    if _signed(layer):
        return pictures.diverging(maps, percentile=100).images
    return pictures.sequential(maps.clamp(min=0), percentile=100).images


def _picture(layer: Activations) -> Picture:
    tiles = _painted(layer)
    height, width = tiles.shape[-2:]
    scale = max(1, TILE // max(height, width))
    columns = math.ceil(math.sqrt(len(tiles)))
    grid = pictures.grid(_at_most(tiles, 2 * TILE), columns=columns, gap=2, scale=scale)
    alt = f"The {len(tiles)} strongest channels of {layer.layer}"
    return Picture(layer.layer, grid, alt, _short(layer), pixelated=True)


def _signed(layer: Activations) -> bool:
    """Whether the layer gives negative values that matter: before its non-linearity, say."""
    return float(layer.maps.min()) < -0.01 * float(layer.maps.abs().max())


def _at_most(tiles: Tensor, side: int) -> Tensor:
    largest = max(tiles.shape[-2:])
    if largest <= side:
        return tiles
    factor = side / largest
    return torch.nn.functional.interpolate(tiles, scale_factor=factor, mode="area")


def _short(layer: Activations) -> str:
    height, width = layer.maps.shape[1:]
    silent = f", {layer.silent:.0%} silent" if layer.silent >= 0.005 else ""
    return f"{layer.total} channels of {width} x {height}{silent}"
