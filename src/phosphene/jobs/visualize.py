"""`visualize`: pictures of what classes, units or directions look for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe, synthesize
from phosphene.errors import LayerError, NetworkError, PhospheneError
from phosphene.images import Panel
from phosphene.jobs.looks import Look, natural_patches, photographs
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network, Unit
from phosphene.names import file_names
from phosphene.progress import Job
from phosphene.synthesize.smallest import smallest_side
from phosphene.synthesize.targets import Direction, parse_channels

USUAL = synthesize.Settings()
SMALLEST, LARGEST = 32, 2048  # sides of a picture
PER_LAYER = 9


def visualize(
    workshop: Workshop,
    *,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    classes: Sequence[str] = (),
    layers: Sequence[str] = (),
    units: Sequence[str] = (),
    per_layer: int | None = None,
    direction: str | None = None,
    patches: str | None = None,
    several: int = USUAL.several,
    diversity: float = USUAL.diversity,
    canvas: synthesize.CanvasName = USUAL.canvas,
    colours: synthesize.ColourSpace | None = USUAL.colours,
    decay: float | None = USUAL.decay,
    steps: int = USUAL.steps,
    rate: float | None = USUAL.rate,
    schedule: synthesize.ScheduleName | None = USUAL.schedule,
    natural: float | None = USUAL.natural,
    like: str | None = None,
    contrast: float = USUAL.contrast,
    l2: float | None = USUAL.l2,
    tv: float = USUAL.tv,
    beta: float = USUAL.beta,
    lp: float = USUAL.lp,
    p: float = USUAL.p,
    blur: float | None = USUAL.blur,
    clip_norm: float | None = USUAL.clip_norm,
    clip_gradient: float | None = USUAL.clip_gradient,
    jitter: int | None = USUAL.jitter,
    rotate: float = USUAL.rotate,
    scale: float | None = USUAL.scale,
    crop: float = USUAL.crop,
    grain: float = USUAL.grain,
    noise: float | None = USUAL.noise,
    patience: int = USUAL.patience,
    size: int | str | None = None,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `visualize` (the sheet), and one per target, or per layer where there are several, named after it.

    `classes`: names, indices, ranges of them (`0-99`), or `all`. `layers`: names, or `all` for the network's landmarks;
    `units` of one layer: channels, neurons, combinations (`12-40`), or `all`; `per_layer`: so many, evenly spread.
    `direction`: a .npy file of weights, one for each channel of the layer. `patches`: a folder of photographs.
    `like`: a folder of photographs that tell what is natural for the network.
    `size`: a side, or WIDTHxHEIGHT. For the rest see `synthesize.Settings`.
    """
    network = workshop.network(net, weights, labels)
    check_seed(seed)
    targets = _targets(workshop, network, classes, layers, units, per_layer, direction)
    sides = _size(network, size, targets)
    settings = synthesize.Settings(
        canvas=canvas, colours=colours, decay=decay, steps=steps, rate=rate, schedule=schedule, natural=natural,
        contrast=contrast, l2=l2, tv=tv, beta=beta, lp=lp, p=p, blur=blur, clip_norm=clip_norm,
        clip_gradient=clip_gradient, jitter=jitter, rotate=rotate, scale=scale, crop=crop, grain=grain,
        noise=noise, several=several, diversity=diversity, patience=patience,
    )  # fmt: skip
    beside = None if patches is None else photographs(workshop, network, targets, patches)
    of_photographs = None
    if like is not None:
        if not classes or natural == 0:
            raise PhospheneError("--like is for pictures of classes: give --class with it, and not --natural 0")
        of_photographs = yield from synthesize.measure(network, workshop.images(like, network))
    found = yield from synthesize.visualize(
        network, targets, settings=settings, natural=of_photographs, size=sides, seed=seed
    )
    looks = _looks(network, targets, found, several)
    complete = True
    if beside is not None and not found.halted:
        complete = yield from natural_patches(network, looks, beside)
    stopped = None if complete else "stopped early, before all of the photographs' patches were found"
    if found.halted:
        asked = len(targets) * several
        stopped = f"stopped early, after step {found.halted_at} of the last pictures; {len(looks)} of {asked}"
    return _outcome(net, network, looks, found, sides, stopped)


# -- what is asked for ------------------------------------------------------------------------------------------


def _targets(
    workshop: Workshop,
    network: Network,
    classes: Sequence[str],
    layers: Sequence[str],
    units: Sequence[str],
    per_layer: int | None,
    direction: str | None,
) -> list[int] | list[Unit | Direction]:
    if bool(classes) == bool(layers or units or direction):
        raise PhospheneError("say what to visualize: either --class NAME, or --layer L with --unit U")
    if classes:
        if per_layer is not None:
            raise PhospheneError("--per-layer is for layers: give --layer with it, not --class")
        return _classes(network, classes)
    if not layers:
        raise PhospheneError("a unit needs both: --layer L and --unit U (a channel, or channel:row:column)")
    names = observe.landmarks(network) if list(layers) == ["all"] else list(dict.fromkeys(layers))
    if direction is not None:
        if len(names) > 1 or units or per_layer is not None:
            raise PhospheneError("a direction is of one layer: give --layer L and --direction FILE.npy, and no --unit")
        return list(_directions(workshop, network, names[0], direction))
    if units and (len(names) > 1 or per_layer is not None):
        raise PhospheneError("--unit names units of one --layer; for units of several layers give --per-layer N")
    if units and list(units) != ["all"]:
        found: dict[str, Unit | Direction] = {}
        for text in units:
            unit = parse_channels(network, names[0], text)
            found.setdefault(str(unit), unit)
        return list(found.values())
    if not units and per_layer is None and list(layers) != ["all"]:
        raise PhospheneError(
            "a unit needs both: --layer L and --unit U (a channel, channel:row:column, or all); or give --per-layer N"
        )
    count = None if units else (per_layer if per_layer is not None else PER_LAYER)
    return [Unit(name, channel) for name in names for channel in _channels(network, name, count)]


def _classes(network: Network, classes: Sequence[str]) -> list[int]:
    if list(classes) == ["all"]:
        network.need_classifier("naming a class")
        return list(range(len(network.labels)))
    words: list[str] = []
    for text in classes:
        first, dash, last = text.partition("-")
        if dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < int(first) + 100_000:
            words += map(str, range(int(first), int(last) + 1))
        else:
            words.append(text)
    return list(dict.fromkeys(network.classes(words)))


def _channels(network: Network, layer: str, count: int | None) -> list[int]:
    """All channels, or `count` of them evenly spread."""
    shape = network.layer(layer).shape
    if not shape or not shape[0]:
        raise LayerError(f"layer '{layer}' has no channels, so there is nothing to visualize")
    if count is None or count >= shape[0]:
        return list(range(shape[0]))
    if count < 1:
        raise PhospheneError(f"units per layer start at 1, got {count}")
    return [place * shape[0] // count for place in range(count)]


def _directions(workshop: Workshop, network: Network, layer: str, path: str) -> list[Direction]:
    """The rows of a .npy file. Raises LayerError if they don't fit."""
    import numpy as np

    try:
        array = np.load(workshop.file(path), allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive of several arrays")
        rows = np.atleast_2d(array).astype(np.float32)
    except (OSError, ValueError, EOFError, BadZipFile) as problem:
        raise LayerError(f"'{path}' holds no direction: it needs a .npy of numbers ({problem})") from problem
    stem = Path(path).stem
    return [
        Direction(layer, torch.from_numpy(row), stem if len(rows) == 1 else f"{stem}-{place}").check(network)
        for place, row in enumerate(rows)
    ]


def _size(
    network: Network, size: int | str | None, targets: Sequence[int] | Sequence[Unit | Direction]
) -> tuple[int, int] | None:
    """(height, width), checked against what the layers need."""
    if size is None:
        return None
    width, cross, height = str(size).lower().partition("x")
    if not width.isdecimal() or (cross and not height.isdecimal()):
        raise PhospheneError(f"a size is a number of pixels, or WIDTHxHEIGHT, got '{size}'")
    sides = (int(height or width), int(width))
    if not SMALLEST <= min(sides) <= max(sides) <= LARGEST:
        raise PhospheneError(f"pictures are {SMALLEST} to {LARGEST} pixels wide, got {size}")
    layers = {None if isinstance(target, int) else target.layer for target in targets}
    for layer in layers:
        least = smallest_side(network, layer)
        if min(sides) < least:
            where = f"layer '{layer}' of {network.name}" if layer else network.name
            raise NetworkError(
                f"{where} can't look at pictures of {sides[1]} x {sides[0]} pixels: it needs at least {least}"
            )
    try:
        with torch.no_grad():
            blank = torch.zeros((1, 3, *sides), device=network.device)
            _ = network.output(blank) if None in layers else network.several(blank, [x for x in layers if x])
    except Exception as problem:  # a network may complain about a size in any way
        why = " ".join(str(problem).split())[:160]
        raise NetworkError(
            f"{network.name} can't look at pictures of {sides[1]} x {sides[0]} pixels: {why}"
        ) from problem
    return sides


# -- what came of it --------------------------------------------------------------------------------------------


def _looks(
    network: Network,
    targets: Sequence[int] | Sequence[Unit | Direction],
    found: synthesize.Visualization,
    several: int,
) -> list[Look]:
    """Each picture with its words. A job that was ended early has fewer."""
    looks = []
    for place in range(len(found.images)):
        target = targets[found.numbers[place] // several]
        name = network.labels[target] if isinstance(target, int) else str(target)
        score = float(found.scores[place])
        row: dict[str, Any] = {"target": name, "score": score, "steps": found.steps[place]}
        caption = f"activation {score:.3g}"
        if found.probabilities is not None and found.top is not None:
            row |= {
                "index": target,
                "probability": float(found.probabilities[place]),
                "top1": int(found.top[place]) == target,
            }
            caption = f"S = {score:.0f}, p = {row['probability']:.1%}"
        if bool(found.silent[place]):
            row["silent"] = True
            caption = "silent: its activation never rose"
        looks.append(Look(target, name, found.images[place].cpu(), caption, row, found.numbers[place] % several))
    return looks


def _outcome(
    net: str,
    network: Network,
    looks: list[Look],
    found: synthesize.Visualization,
    sides: tuple[int, int] | None,
    stopped: str | None,
) -> Outcome:
    layers = list(dict.fromkeys(look.layer for look in looks if look.layer is not None))
    side = max(224, network.input_size[0]) if sides is None else max(sides)
    if len(layers) > 1:
        parts, panels, columns, cell = _by_layer(network, looks, layers)
    else:
        parts, panels, columns, cell = _by_target(net, looks, min(side, 320))
    footnote = f"{net}, gradient ascent"
    silent = sum("silent" in look.facts for look in looks)
    footnote += f"; {silent} silent: the activation never rose" if silent else ""
    sheet = pictures.sheet(panels, columns=columns, side=cell, footnote=footnote)
    names = list(dict.fromkeys(look.name for look in looks))
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} others" if len(names) > 12 else "")
    facts: dict[str, Any] = {"net": net, "targets": [look.facts for look in looks]}
    if stopped is not None:
        facts["stopped"] = stopped
    notes: dict[str, Any] = {}
    if found.restarts:
        notes["restarts"] = [vars(restart) for restart in found.restarts]
    if found.halted:
        notes["stopped_at_step"] = found.halted_at
    return Outcome(
        (Picture("visualize", sheet, f"Pictures that {net} scores highest for {shown}"), *parts), facts, {}, notes
    )


Laid = tuple[list[Picture], list[Panel], int | None, int]


def _by_target(net: str, looks: list[Look], side: int) -> Laid:
    """A panel and a picture for each, with its natural patches beside it."""
    files = file_names(look.name for look in looks)
    parts, panels = [], []
    beside = any(look.natural is not None for look in looks)
    several = 1 + max(look.number for look in looks)
    for look, file in zip(looks, files, strict=True):
        parts.append(Picture(file, look.image, f"What {net} looks for: {look.name}", look.caption))
        panels.append(Panel(look.image, look.name if not look.number else "", look.caption))
        if beside and look.number == several - 1:
            blank = Panel(torch.ones_like(look.image))
            panels.append(blank if look.natural is None else Panel(look.natural, "in photographs", look.words))
    count, group = len(panels), several + beside
    columns = min(5, count) if count <= 5 else math.ceil(math.sqrt(count * 1.3))
    columns = max(1, columns // group) * group if group > 1 else columns
    return parts, panels, columns, _cell(count, side)


def _cell(count: int, side: int) -> int:
    """Side of a panel: smaller where there are many, so that the sheet can be looked at."""
    return side if count <= 40 else max(96, round(side * math.sqrt(40 / count)))


def _by_layer(network: Network, looks: list[Look], layers: list[str]) -> Laid:
    """A panel and a picture for each layer: a grid of its units (and of their patches)."""
    parts, panels = [], []
    for layer in layers:
        own = [look for look in looks if look.layer == layer]
        grid = _grid([look.image for look in own])
        shape = " x ".join(map(str, network.layer(layer).shape))
        alt = f"What {len(own)} units of {layer} of {network.name} look for"
        parts.append(Picture(layer, grid, alt, shape))
        panels.append(Panel(grid, layer, shape))
        natural = [look.natural for look in own]
        known = [image for image in natural if image is not None]
        if known:
            filler = torch.ones_like(known[0])
            patches = _grid([filler if image is None else image for image in natural])
            panels.append(Panel(patches, "the same units", "in photographs"))
            parts.append(Picture(f"{layer}-patches", patches, f"The patches that excite them most: {layer}"))
    paired = len(panels) > len(layers)
    columns = (4 if len(panels) > 2 else 2) if paired else None
    return parts, panels, columns, 340


def _grid(images: list[Tensor]) -> Tensor:
    return pictures.grid(torch.stack(images), columns=math.ceil(math.sqrt(len(images))), gap=4)
