"""`activations`: what the channels of several layers make of one photograph."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
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
    """Pictures: `activations` (the sheet), and one grid per layer, named after the layer."""
    network = workshop.network(net, weights, labels)
    photo = network.preprocess(workshop.image(image))
    names = list(dict.fromkeys(layers)) or observe.stages(network)
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
    return Outcome((Picture("activations", sheet, alt, _NOTE), *made), facts)


_NOTE = (
    "A tile is a channel, most distinct first, scaled to its own maximum; zero is black (white between blue and red)."
)


def _picture(layer: Activations) -> Picture:
    maps = layer.maps.cpu()
    paint = pictures.diverging if _signed(layer) else pictures.sequential
    tiles = paint(maps if _signed(layer) else maps.clamp(min=0), percentile=100).images
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
