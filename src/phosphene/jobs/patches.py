"""`patches`: what excites some units most in a folder of photographs, and what in it excites them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene import images as pictures
from phosphene import observe, processes
from phosphene.errors import LayerError, PhospheneError, did_you_mean
from phosphene.explain import METHODS
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.painting import in_colours
from phosphene.jobs.workshop import Collection, Workshop
from phosphene.models import Network, Unit
from phosphene.observe.patches import Patch
from phosphene.progress import Job, Started, Step

TILE = 112  # pixels of one patch
EXPLAINS = ("guided-backprop", "deconvnet", "gradient")
"""Methods that have a value for each colour and take a neuron: what may stand beside a patch."""


def patches(
    workshop: Workshop,
    *,
    folder: str,
    layer: str,
    units: Sequence[str] = (),
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    count: int = 9,
    method: str = "guided-backprop",
) -> Job[Outcome]:
    """Pictures: `patches` (the sheet), and one per unit, named after it. No `units`: eight, evenly spread."""
    if method not in EXPLAINS:
        raise PhospheneError(
            f"no '{method}' beside a patch{did_you_mean(method, EXPLAINS)}: {', '.join(EXPLAINS)} are there"
        )
    network = workshop.network(net, weights, labels)
    shape = network.layer(layer).shape
    channels = _channels(units, layer, shape[0] if shape else 0)
    for channel in channels:
        Unit(layer, channel).check(network)
    collection = workshop.images(folder, network)
    found = yield from observe.patches(network, collection, layer, channels, count=count)
    processes.leave()
    yield Started(METHODS[method].title, len(channels), "unit")
    panels, parts, rows = [], [], []
    for done, channel in enumerate(channels, start=1):
        rows.append(_facts(channel, found.found[channel], collection))
        if found.found[channel]:
            photographs, explained = _pair(network, collection, layer, channel, found.found[channel], method, count)
            words = _words(found.found[channel])
            panels.append(pictures.Panel(photographs, f"unit {channel}", words))
            panels.append(pictures.Panel(explained, METHODS[method].title, "what in each excites it; grey is 0"))
            both = torch.cat([photographs, torch.ones(3, photographs.shape[1], 8), explained], 2)
            alt = (
                f"The patches that excite unit {channel} of {layer} most, and beside them their {METHODS[method].title}"
            )
            parts.append(Picture(f"unit-{channel}", both, alt, words))
        yield Step(done)
    if not parts:
        raise PhospheneError(
            f"units {', '.join(map(str, channels))} of '{layer}' are silent in all images: name others"
        )
    note = (
        f"{net}, {layer} ({' x '.join(map(str, shape))}): the patches of {len(collection) - len(found.skipped)} images that"
        " excite a unit most, one of an image at most."
    )
    sheet = pictures.sheet(panels, columns=4 if len(panels) > 2 else 2, side=340, footnote=note)
    alt = f"What {len(parts)} units of {layer} of {net} answer to"
    facts = {
        "net": net, "layer": layer, "units": rows,
        "skipped": {str(collection.paths[place]): why for place, why in found.skipped.items()},
    }  # fmt: skip
    return Outcome((Picture("patches", sheet, alt, note), *parts), facts)


def _channels(units: Sequence[str], layer: str, total: int) -> list[int]:
    if not units:
        return [place * total // min(8, max(total, 1)) for place in range(min(8, total))]
    try:
        return list(dict.fromkeys(int(unit) for unit in units))
    except ValueError:
        raise LayerError(f"units of '{layer}' are channel numbers such as 3,17, got '{','.join(units)}'") from None


def _pair(
    network: Network, collection: Collection, layer: str, channel: int, found: Sequence[Patch], method: str, count: int
) -> tuple[Tensor, Tensor]:
    """The patches, and what a method finds in them, each as a square of tiles."""
    explained = []
    for patch, window in zip(found, _windows(collection, found), strict=True):
        image = collection[patch.image][None].to(network.mean)
        gradient = METHODS[method](network, image, Unit(layer, channel, patch.position)).gradient
        assert gradient is not None
        explained.append(_tile(in_colours(gradient[0][window].cpu())))
    columns = max(1, round(count**0.5 + 0.499))
    both = (natural(collection, found), explained)
    return tuple(pictures.grid(torch.stack(tiles), columns=columns, gap=4) for tiles in both)  # type: ignore[return-value]


def natural(collection: Collection, found: Sequence[Patch]) -> list[Tensor]:
    """The patches as tiles `[3, TILE, TILE]`, all of them at the same scale."""
    windows = _windows(collection, found)
    return [_tile(collection[patch.image][window].cpu()) for patch, window in zip(found, windows, strict=True)]


def _windows(collection: Collection, found: Sequence[Patch]) -> list[Any]:
    high = max(patch.box[2] - patch.box[0] for patch in found)
    wide = max(patch.box[3] - patch.box[1] for patch in found)
    size = collection[found[0].image].shape[-2:]
    return [_window(patch, high, wide, (size[0], size[1])) for patch in found]


def _window(patch: Patch, high: int, wide: int, size: tuple[int, int]) -> Any:
    """`high` x `wide` pixels around what the neuron sees, moved inside where it looks over the border."""
    top, left = min(patch.box[0], size[0] - high), min(patch.box[1], size[1] - wide)
    return slice(None), slice(top, top + high), slice(left, left + wide)


def _tile(crop: Tensor) -> Tensor:
    height, width = crop.shape[1:]
    factor = TILE / max(height, width)
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    mode = "nearest" if factor >= 4 else "bilinear"
    grown = F.interpolate(crop[None], size, mode=mode, **({} if mode == "nearest" else {"antialias": True}))[0]
    padded = torch.ones(3, TILE, TILE)
    padded[:, : size[0], : size[1]] = grown.clamp(0, 1)
    return padded


def _words(found: Sequence[Patch]) -> str:
    high = max(patch.box[2] - patch.box[0] for patch in found)
    wide = max(patch.box[3] - patch.box[1] for patch in found)
    return f"activation {found[0].value:.3g} to {found[-1].value:.3g}; sees {wide} x {high} pixels"


def _facts(channel: int, found: Sequence[Patch], collection: Collection) -> dict[str, Any]:
    return {
        "unit": channel,
        "patches": [
            {"image": str(collection.paths[p.image]), "position": p.position, "value": p.value, "box": list(p.box)}
            for p in found
        ],
    }
