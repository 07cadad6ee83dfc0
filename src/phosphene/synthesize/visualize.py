"""Pictures of what the network looks for: gradient ascent on a class or on a unit.

    I* = argmax_I S_c(I) - lambda ||I||_2^2 - nu R(I)

from zeros (the mean colour), under the slide's periodic operations. R, for classes, is the distance to photographs in what
the channels do (`natural`); nu = 0 gives the slide's formula.

Simonyan, Vedaldi & Zisserman 2014, section 2; Yosinski et al. 2015, section 3 (blur, clipping by norm and by
contribution); Olah, Mordvintsev & Schubert 2017 (Fourier canvas, random transformations).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network, Unit
from phosphene.progress import Job, Started, relay, shifted
from phosphene.synthesize import priors
from phosphene.synthesize.ascent import Ascent, ascend, cosine
from phosphene.synthesize.canvas import FourierCanvas, PixelCanvas
from phosphene.synthesize.natural import Natural, shipped
from phosphene.synthesize.objectives import Objective, class_scores, different, unit_activations
from phosphene.synthesize.pace import SETTLES, Restart
from phosphene.synthesize.settings import (
    BLUR,
    CLIPPED,
    COLOURS,
    L2_WEIGHTS,
    NATURAL,
    NOISE,
    RATES,
    SCHEDULES,
    Settings,
    check_settings,
    suited,
)
from phosphene.synthesize.targets import Direction, Target
from phosphene.synthesize.transforms import Transform, affine, compose, crop, grain, jitter


@dataclass(frozen=True)
class Visualization:
    """Pictures of targets: `several` for each, one after the other.

    Attributes:
        images: `[N, 3, H, W]` in [0, 1]. A silent target has the even colour that it began with: what moved it was noise.
        scores: `[N]`, the score S_c or the activation of the final pictures.
        probabilities: `[N]`, the softmax probability of each class for its own picture; None for units.
        top: `[N]`, the class that the network sees in each picture; None for units.
        silent: `[N]`, whether the target's value never rose above what it was in the beginning.
        steps: `[N]`, how many each image was moved.
        restarts: where an image diverged and went on with half the step.
        halted: whether the job was ended early; then some targets may be missing.
        halted_at: the step of its batch after which it was.
        numbers: `[N]`, which picture each is: target times `several`, plus its number among these.
    """

    images: Tensor
    scores: Tensor
    probabilities: Tensor | None
    top: Tensor | None
    silent: Tensor
    steps: tuple[int, ...]
    restarts: tuple[Restart, ...] = ()
    halted: bool = False
    halted_at: int | None = None
    numbers: tuple[int, ...] = ()


def visualize(
    network: Network,
    targets: Sequence[int | str] | Sequence[Unit | Direction],
    *,
    settings: Settings | None = None,
    natural: Natural | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Job[Visualization]:
    """Make pictures for each target, in batches. A `Halt` ends it with what there is.

    Args:
        network: the network; classes need one that classifies.
        targets: classes (index or name), or units and directions of any layers; the pass stops at the layer.
        settings: see `Settings`.
        natural: how the network's channels behave on photographs; default: for the bundled networks what comes with them.
        size: height and width of the pictures; default: the network's input size.
        seed: of the random transformations and of the noise.

    Raises:
        LabelError, LayerError: no such class or unit.
        PhospheneError: no targets, settings out of range, or an objective that is not finite.
    """
    chosen = settings or Settings()
    check_settings(chosen, targets)
    units = not isinstance(targets[0], (int, str))
    chosen, natural = resolved(network, suited(chosen, network, units=units), targets, natural)
    size = size or network.input_size
    yield Started("visualize", len(targets) * chosen.several * chosen.steps, "step", keeps=True)
    done = 0
    found: dict[int, Visualization] = {}
    restarts: list[Restart] = []
    halted_at: int | None = None
    for places in _batches(targets, max(1, network.batch_size(size) // chosen.several)):
        part = [targets[place] for place in places for _ in range(chosen.several)]
        numbers = [place * chosen.several + number for place in places for number in range(chosen.several)]
        job = _climb(network, part, numbers, chosen, natural, size, seed)
        before, count = done * chosen.steps, len(part)
        ascent = yield from relay(job, lambda event, b=before, c=count: shifted(event, b, c))
        done += count
        restarts += [replace(restart, image=numbers[restart.image]) for restart in ascent.restarts]
        found |= dict(zip(numbers, _judge(network, part, ascent, natural is not None), strict=True))
        if ascent.halted:
            halted_at = len(ascent.values)
            break
    numbers = sorted(found)
    made = _joined([found[number] for number in numbers])
    return replace(
        made, restarts=tuple(restarts), halted=halted_at is not None, halted_at=halted_at, numbers=tuple(numbers)
    )


def _batches(targets: Sequence[Target], most: int) -> Iterator[list[int]]:
    """Places of targets that can share a pass: classes, or units of one layer."""
    layers: dict[str | None, list[int]] = {}
    for place, target in enumerate(targets):
        layers.setdefault(None if isinstance(target, (int, str)) else target.layer, []).append(place)
    for places in layers.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]


def resolved(
    network: Network, settings: Settings, targets: Sequence[object], natural: Natural | None = None
) -> tuple[Settings, Natural | None]:
    """The settings with the weight of the natural prior that counts, and what is natural; None where it doesn't count.

    Raises:
        PhospheneError: a weight for units, or for a network of which nobody knows what is natural.
    """
    units = not isinstance(targets[0], (int, str))
    weight = settings.natural
    if units and (weight or settings.contrast):
        name = "natural" if weight else "contrast"
        raise PhospheneError(f"{name} is for classes: a unit is free to show whatever it looks for")
    weight = NATURAL[settings.canvas] if weight is None else weight
    if units or not weight:
        return replace(settings, natural=0.0), None
    known = natural or shipped(network)
    if known is None and settings.natural:
        raise PhospheneError(f"what is natural for {network.name} is not known: give photographs with --like FOLDER")
    return replace(settings, natural=weight if known else 0.0), known


def _climb(
    network: Network,
    part: list[Target],
    numbers: list[int],
    chosen: Settings,
    natural: Natural | None,
    size: tuple[int, int],
    seed: int,
) -> Job[Ascent]:
    """The ascent of one batch; `numbers` tell the noise of each picture."""
    objective = _objective(network, part, chosen, natural)
    if chosen.several > 1 and chosen.diversity:
        first = part[0]
        layer = network.last_spatial_layer()
        if not isinstance(first, (int, str)):
            layer = network.nearest_spatial_layer(first.layer)
        groups = [number // chosen.several for number in numbers]
        objective = different(network, objective, layer, groups, chosen.diversity)
    colours = chosen.colours or COLOURS[chosen.canvas]
    noise = _noise(network, chosen, numbers, size, seed)
    canvas = (
        PixelCanvas(network, len(part), size, noise=noise, colours=colours)
        if chosen.canvas == "pixel"
        else FourierCanvas(network, len(part), size, noise=noise, colours=colours, decay=chosen.decay or 0.0)
    )
    return ascend(
        canvas,
        objective,
        steps=chosen.steps,
        rate=chosen.rate if chosen.rate is not None else RATES[chosen.canvas],
        penalties=_penalties(chosen),
        periodic=_periodic(chosen) if chosen.canvas == "pixel" else (),
        transform=_transform(chosen),
        schedule=cosine if (chosen.schedule or SCHEDULES[chosen.canvas]) == "cosine" else None,
        generator=torch.Generator().manual_seed(seed),
        patience=chosen.patience,
    )


def _noise(
    network: Network, chosen: Settings, numbers: Sequence[int], size: tuple[int, int], seed: int
) -> Tensor | None:
    """Noise for each picture, the same in any company; none for one picture of a target, unless it is asked for."""
    strength = chosen.noise if chosen.noise is not None else (NOISE[chosen.canvas] if chosen.several > 1 else 0.0)
    if not strength:
        return None
    drawn = []
    for number in numbers:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number % chosen.several + 1) % 2**63)
        drawn.append(torch.randn((3, *size), generator=generator))
    return strength * torch.stack(drawn).to(network.device)


def _objective(
    network: Network, targets: Sequence[Target], chosen: Settings | None = None, natural: Natural | None = None
) -> Objective:
    """What the targets are moved towards; without settings their bare scores."""
    if isinstance(targets[0], (int, str)):
        classes = network.classes(cast("Sequence[int | str]", targets))
        if chosen is None:
            return class_scores(network, classes)
        weight = chosen.natural or 0.0
        return class_scores(network, classes, contrast=chosen.contrast, natural=natural, weight=weight)
    return unit_activations(network, cast("Sequence[Unit | Direction]", targets))


def _penalties(settings: Settings) -> list[priors.Penalty]:
    usual = 0.0 if settings.natural else L2_WEIGHTS[settings.canvas]
    l2 = settings.l2 if settings.l2 is not None else usual
    found = [priors.l2(l2)] if l2 else []
    found += [priors.total_variation(settings.tv, settings.beta)] if settings.tv else []
    return found + ([priors.lp(settings.lp, settings.p)] if settings.lp else [])


def _periodic(settings: Settings) -> list[priors.Periodic]:
    sigma, norm, gradient = (
        usual if value is None else value
        for value, usual in (
            (settings.blur, BLUR), (settings.clip_norm, CLIPPED), (settings.clip_gradient, CLIPPED)
        )
    )  # fmt: skip
    operations = [priors.gaussian_blur(2, sigma)] if sigma else []
    operations += [priors.clip_small_norm(10, norm)] if norm else []
    operations += [priors.clip_small_gradient(10, gradient)] if gradient else []
    return operations


def _transform(settings: Settings) -> Transform | None:
    moves = []
    jitters, scale = settings.jitter or 0, settings.scale or 0.0
    if settings.rotate or scale:  # one resampling for all of it
        moves.append(affine(settings.rotate, (1 - scale, 1 + scale), jitters))
    elif jitters:
        moves.append(jitter(jitters))
    if settings.crop < 1:
        moves.append(crop(settings.crop))
    if settings.grain:
        moves.append(grain(settings.grain))
    return compose(*moves) if moves else None


def _judge(network: Network, targets: Sequence[Target], ascent: Ascent, natural: bool) -> list[Visualization]:
    """Each picture of one batch by itself, judged without transformations."""
    with torch.no_grad():
        scores = _scores(network, targets, ascent.images)
        silent = _silent(network, targets, ascent, scores, natural)
        images = torch.where(silent.view(-1, 1, 1, 1), network.mean.expand(1, 3, 1, 1), ascent.images)
        probabilities = top = None
        if isinstance(targets[0], (int, str)):
            logits = torch.cat([network.logits(part) for part in network.split(images)])
            classes = network.classes(cast("Sequence[int | str]", targets))
            scores = logits[range(len(classes)), classes]
            probabilities, top = logits.softmax(1)[range(len(classes)), classes], logits.argmax(1)
        elif bool(silent.any()):
            scores = _scores(network, targets, images)
    return [
        Visualization(
            images[place : place + 1],
            scores[place : place + 1],
            None if probabilities is None else probabilities[place : place + 1],
            None if top is None else top[place : place + 1],
            silent[place : place + 1],
            (ascent.ended[place],),
        )
        for place in range(len(targets))
    ]


def _silent(network: Network, targets: Sequence[Target], ascent: Ascent, scores: Tensor, natural: bool) -> Tensor:
    """`[N]`, whether a target's value never rose above what it was in the beginning, though there was time for it."""
    if natural:  # the prior moves the picture too, be it against the score: silent is what is always the same
        grey = network.mean.expand(1, 3, 1, 1).expand(len(scores), 3, *ascent.images.shape[2:])
        return torch.isclose(scores, _scores(network, targets, grey), rtol=1e-6, atol=1e-9)
    ends = torch.tensor(ascent.ended, device=ascent.values.device)
    lives = torch.arange(len(ascent.values), device=ends.device)[:, None] < ends
    first = ascent.values[0]
    highest = torch.maximum(ascent.values.where(lives, -torch.inf).max(0).values, scores)
    rigid = ((ascent.values == first) | ~lives).all(0) & (scores == first)
    fell = highest - first <= 1e-6 * first.abs().clamp(min=1e-6)
    return fell & (rigid if len(ascent.values) < SETTLES else torch.ones_like(fell))


def _scores(network: Network, targets: Sequence[Target], images: Tensor) -> Tensor:
    found, start = [], 0
    for part in network.split(images):
        found.append(_objective(network, targets[start : start + len(part)])(part))
        start += len(part)
    return torch.cat(found)


def _joined(parts: Sequence[Visualization]) -> Visualization:
    def every(name: str) -> Tensor | None:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    images, scores, silent = every("images"), every("scores"), every("silent")
    assert images is not None and scores is not None and silent is not None
    steps = tuple(part.steps[0] for part in parts)
    return Visualization(images, scores, every("probabilities"), every("top"), silent, steps)
