"""`filters`: the first layer, as pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene import images as pictures
from phosphene import observe
from phosphene.errors import NetworkError, PhospheneError
from phosphene.jobs.gabor import Fitted, facts, fitted, pairs, summary
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, code_file
from phosphene.names import file_names
from phosphene.observe import Filters
from phosphene.progress import Job, Started, Step

SIDE = 720  # pixels of one network's picture, about
SEVERAL = 480  # where several stand side by side


def filters(
    workshop: Workshop,
    *,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layer: str | None = None,
    gabor: bool = False,
) -> Job[Outcome]:
    """One picture, `filters`: every filter as a tile, 0 is grey, each stretched to its own largest weight.

    `net`: several by comma stand side by side; those that can't be had, or whose filters can't be looked at, are left out,
    with the reason in the facts.
    `gabor`: also `gabor`, each filter beside the Gabor function nearest to it (one for each network where there are several:
    `gabor-NET`), and `gabor-summary`.
    """
    names = _names(workshop, net)
    if len(names) > 1 and weights is not None:
        raise NetworkError(f"one file of weights can't be for {len(names)} networks: name one network, or no weights")
    yield Started("filters", len(names), "network" if len(names) > 1 else "step")
    found: dict[str, Filters] = {}
    fits: dict[str, Fitted] = {}
    refused: dict[str, str] = {}
    for done, name in enumerate(names, start=1):
        try:
            its = observe.filters(workshop.network(name, weights, labels), layer)
            if gabor:
                fits[name] = fitted(name, its)
            found[name] = its
        except PhospheneError as refusal:
            if len(names) == 1:
                raise
            refused[name] = str(refusal)
        yield Step(done)
    if not found:
        raise NetworkError(next(iter(refused.values())))
    outcome = _one(net, found[net]) if len(names) == 1 else _several(net, found, refused)
    return _with_gabor(outcome, fits, single=len(names) == 1) if gabor else outcome


def _names(workshop: Workshop, net: str) -> list[str]:
    """The networks of a list by comma; a file of code may have a comma in its path."""
    code = code_file(net)
    if code is not None and "," not in net.rpartition(":")[2] and workshop.find(code).exists():
        return [net]
    return list(dict.fromkeys(name.strip() for name in net.split(",") if name.strip())) or [net]


def _one(net: str, found: Filters) -> Outcome:
    image, order = _grid(found.weights.cpu(), SIDE)
    caption = f"{net}, {found.layer}: {_shape(found)}"
    return Outcome((Picture("filters", image, _alt(net, found), caption, pixelated=True),), _facts(net, found, order))


def _several(net: str, found: dict[str, Filters], refused: dict[str, str]) -> Outcome:
    """Side by side, on one sheet."""
    panels, rows = [], []
    for name, its in found.items():
        image, order = _grid(its.weights.cpu(), SEVERAL)
        panels.append(pictures.Panel(_padded(image, SEVERAL), name, f"{its.layer}: {_shape(its)}"))
        rows.append(_facts(name, its, order))
    sheet = pictures.sheet(panels, columns=min(4, len(panels)), side=SEVERAL, gap=28, footnote=_NOTE)
    alt = f"The first-layer filters of {', '.join(found)} side by side"
    return Outcome((Picture("filters", sheet, alt, _NOTE),), {"net": net, "nets": rows, "refused": refused})


_NOTE = "Grey is zero, and each filter is stretched to its own largest weight; the most colourful come first."


def _with_gabor(outcome: Outcome, fits: dict[str, Fitted], *, single: bool) -> Outcome:
    made = [
        Picture(
            "gabor" if single else f"gabor-{file}",
            pairs(fit),
            f"Each first-layer filter of {fit.net} beside the Gabor function nearest to it",
            f"{fit.net}: {fit.above} of {len(fit.order)} filters are nearer to a Gabor function than 95% of noise is",
        )
        for fit, file in zip(fits.values(), file_names(fits), strict=True)
    ]
    alt = f"Directions and frequencies of the first-layer filters of {', '.join(fits)}, and how much is explained"
    every = (*outcome.pictures, *made, Picture("gabor-summary", summary(list(fits.values())), alt))
    if single:
        return Outcome(every, {**outcome.facts, "gabor": facts(next(iter(fits.values())))})
    rows = [{**row, "gabor": facts(fits[row["net"]])} for row in outcome.facts["nets"]]
    return Outcome(every, {**outcome.facts, "nets": rows})


def _facts(net: str, found: Filters, order: Tensor) -> dict[str, Any]:
    return {"net": net, "layer": found.layer, "shape": list(found.weights.shape), "order": order.tolist()}


def _shape(found: Filters) -> str:
    return " x ".join(map(str, found.weights.shape))


def _alt(net: str, found: Filters) -> str:
    count = len(found.weights)
    return f"The {count} first-layer filters of {net}: edges in several directions and blobs of opposing colours"


def _grid(weights: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The picture, at most about `side` pixels wide, and the order of its tiles."""
    tiles = pictures.normalise_tiles(weights)
    # Colourful filters first: sorted by how much colour they see, then by strength, so that the eye finds the families.
    order = torch.argsort(_colourfulness(weights), descending=True, stable=True)
    columns = _columns(len(tiles))
    scale = max(1, side // (columns * (max(tiles.shape[-2:]) + 1)))
    return pictures.grid(tiles[order], columns=columns, gap=max(2, scale // 3), scale=scale), order


def _padded(image: Tensor, side: int) -> Tensor:
    """White to the left and right, so that the sheet has no reason to enlarge pixels to uneven sizes."""
    missing = max(0, side - image.shape[2])
    return F.pad(image, (missing // 2, missing - missing // 2), value=1.0)


def _colourfulness(weights: Tensor) -> Tensor:
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
