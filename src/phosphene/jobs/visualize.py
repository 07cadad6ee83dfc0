"""`visualize`: pictures of what classes or units look for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from phosphene import images as pictures
from phosphene import synthesize
from phosphene.errors import NetworkError, PhospheneError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network, Unit
from phosphene.names import file_names
from phosphene.progress import Job

USUAL = synthesize.Settings()
SMALLEST, LARGEST = 32, 2048  # sides of a picture


def visualize(
    workshop: Workshop,
    *,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    classes: Sequence[str] = (),
    layer: str | None = None,
    units: Sequence[str] = (),
    canvas: synthesize.CanvasName = USUAL.canvas,
    steps: int = USUAL.steps,
    rate: float | None = USUAL.rate,
    l2: float | None = USUAL.l2,
    blur: float | None = USUAL.blur,
    clip_norm: float | None = USUAL.clip_norm,
    clip_gradient: float | None = USUAL.clip_gradient,
    jitter: int = USUAL.jitter,
    rotate: float = USUAL.rotate,
    scale: float = USUAL.scale,
    size: int | None = None,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `visualize` (the sheet), and one per target, named after it. See `synthesize.Settings`."""
    network = workshop.network(net, weights, labels)
    check_seed(seed)
    targets, names = _targets(network, classes, layer, units)
    _check_size(network, size)
    found = yield from synthesize.visualize(
        network,
        targets,
        settings=synthesize.Settings(canvas, steps, rate, l2, blur, clip_norm, clip_gradient, jitter, rotate, scale),
        size=(size, size) if size is not None else None,
        seed=seed,
    )
    made, rows = [], []
    files = file_names(names)
    for place, (target, name) in enumerate(zip(targets, names, strict=True)):
        score = float(found.scores[place])
        row: dict[str, Any] = {"target": name, "score": score}
        caption = f"activation {score:.3g}"
        if found.probabilities is not None and found.top is not None:
            row |= {
                "index": target,
                "probability": float(found.probabilities[place]),
                "top1": int(found.top[place]) == target,
            }
            caption = f"S = {score:.0f}, p = {row['probability']:.1%}"
        rows.append(row)
        made.append(Picture(files[place], found.images[place].cpu(), f"What {net} looks for: {name}", caption))
    panels = [pictures.Panel(p.image, n, p.caption) for p, n in zip(made, names, strict=True)]
    columns = min(5, len(panels)) if len(panels) <= 5 else math.ceil(math.sqrt(len(panels) * 1.3))
    side = max(224, network.input_size[0]) if size is None else size
    sheet = pictures.sheet(panels, columns=columns, side=min(side, 320), footnote=f"{net}, gradient ascent")
    alt = f"Pictures that {net} scores highest for {', '.join(names)}"
    return Outcome((Picture("visualize", sheet, alt), *made), {"net": net, "targets": rows})


def _targets(
    network: Network, classes: Sequence[str], layer: str | None, units: Sequence[str]
) -> tuple[list[int] | list[Unit], list[str]]:
    if bool(classes) == bool(layer or units):
        raise PhospheneError("say what to visualize: either --class NAME, or --layer L with --unit U")
    if classes:
        indices = list(dict.fromkeys(network.classes(classes)))
        return indices, [network.labels[index] for index in indices]
    if not (layer and units):
        raise PhospheneError("a unit needs both: --layer L and --unit U (a channel, or channel:row:column)")
    chosen = list(dict.fromkeys(_unit(layer, text).check(network) for text in units))
    return chosen, [str(unit) for unit in chosen]


def _unit(layer: str, text: str) -> Unit:
    from phosphene.models import parse_unit

    return parse_unit(f"{layer}:{text}")


def _check_size(network: Network, size: int | None) -> None:
    if size is None:
        return
    if not SMALLEST <= size <= LARGEST:
        raise PhospheneError(f"pictures are {SMALLEST} to {LARGEST} pixels wide, got {size}")
    try:
        with torch.no_grad():
            network.output(torch.zeros((1, 3, size, size), device=network.device))
    except RuntimeError as problem:
        why = " ".join(str(problem).split())[:160]
        raise NetworkError(f"{network.name} can't look at pictures of {size} x {size} pixels: {why}") from problem
