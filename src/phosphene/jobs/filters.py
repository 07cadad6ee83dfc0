"""`filters`: the first layer, as pictures."""

from __future__ import annotations

import math

import torch

from phosphene import images as pictures
from phosphene import observe
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.progress import Job, Started, Step


def filters(
    workshop: Workshop,
    *,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layer: str | None = None,
) -> Job[Outcome]:
    """One picture, `filters`: every filter as a tile, 0 is grey, each stretched to its own largest weight."""
    yield Started("filters", 1)
    network = workshop.network(net, weights, labels)
    found = observe.filters(network, layer)
    tiles = pictures.normalise_tiles(found.weights.cpu())
    # Colourful filters first: sorted by how much colour they see, then by strength, so that the eye finds the families.
    order = torch.argsort(_colourfulness(found.weights.cpu()), descending=True, stable=True)
    count, _, height, width = tiles.shape
    columns = _columns(count)
    scale = max(1, 720 // (columns * (max(height, width) + 1)))
    image = pictures.grid(tiles[order], columns=columns, gap=max(2, scale // 3), scale=scale)
    shape = " x ".join(map(str, found.weights.shape))
    yield Step(1)
    caption = f"{net}, {found.layer}: {shape}"
    alt = f"The {count} first-layer filters of {net}: edges in several directions and blobs of opposing colours"
    facts = {"net": net, "layer": found.layer, "shape": list(found.weights.shape), "order": order.tolist()}
    return Outcome((Picture("filters", image, alt, caption, pixelated=True),), facts)


def _colourfulness(weights: torch.Tensor) -> torch.Tensor:
    """Share of a filter's energy that is not grey, 0 to 1, `[filters]`."""
    grey = weights.mean(1, keepdim=True)
    return (weights - grey).square().sum((1, 2, 3)) / weights.square().sum((1, 2, 3)).clamp(min=1e-12)


def _columns(count: int) -> int:
    """The number of columns that fills even rows and is widest below 2:1."""
    best = math.ceil(math.sqrt(count))
    for columns in range(best, 2 * best + 1):
        if count % columns == 0:
            return columns
    return best
