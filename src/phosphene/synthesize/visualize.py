"""Pictures of what the network looks for: gradient ascent on a class or on a unit.

    I* = argmax_I S_c(I) - lambda ||I||_2^2

from zeros (the mean colour), under the slide's periodic operations.

Simonyan, Vedaldi & Zisserman 2014, section 2; Yosinski et al. 2015, section 3 (blur, clipping by norm and by
contribution); Olah, Mordvintsev & Schubert 2017 (Fourier canvas, random transformations).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network, Unit
from phosphene.progress import Event, Job, Started, Step, relay
from phosphene.synthesize import priors
from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import ColourSpace, FourierCanvas, PixelCanvas
from phosphene.synthesize.objectives import Objective, class_scores, different, unit_activations
from phosphene.synthesize.pace import Restart
from phosphene.synthesize.targets import Direction, Target
from phosphene.synthesize.transforms import Transform, affine, compose, crop, grain, jitter

CanvasName: TypeAlias = Literal["pixel", "fourier"]


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
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Settings:
    """How the image is moved. The defaults are for `squeezenet1_1`.

    Attributes:
        canvas: `pixel` (the slide's: pixels, from zeros) or `fourier` (a spectrum).
        steps: how many, at most.
        rate: Adam's learning rate; None: what suits the canvas.
        l2: lambda, the weight of `||I||^2`; None: what suits the canvas.
        grain: noise of up to this standard deviation, of 0 to 1, added before each step.
        tv, beta: weight and exponent of total variation.
        lp, p: weight and exponent of `sum |I|^p`.
        blur: sigma in pixels of the Gaussian blur, done every 2 steps; pixel canvas only; None: 0.7; 0: none.
        clip_norm, clip_gradient: share of the pixels set to 0 every 10 steps, by smallest norm and by smallest
            contribution; pixel canvas only; None: 0.02; 0: none.
        jitter: random shift in pixels before each step.
        rotate: random rotation in degrees.
        scale: random zoom, 0.2 for 0.8 to 1.2.
        crop: random windows of at least this share of the sides; 1: none.
        colours: `rgb` or `decorrelated`; None: what suits the canvas.
        noise: strength of the noise that is added to the zeros; it differs from picture to picture.
        several: pictures of each target, pushed apart from each other.
        diversity: how hard.
        decay: Fourier canvas: frequency f is scaled by `1/f^decay`; more is smoother.
        contrast: for classes, how much the scores of all classes count against that of the class (see `class_scores`).
        patience: end an image when it has not risen over so many steps (see `ascend`); 0: never.
    """

    canvas: CanvasName = "fourier"
    steps: int = 200
    rate: float | None = None
    l2: float | None = None
    blur: float | None = None
    clip_norm: float | None = None
    clip_gradient: float | None = None
    jitter: int = 16
    rotate: float = 15.0
    scale: float = 0.2
    crop: float = 1.0
    grain: float = 0.0
    tv: float = 0.0
    beta: float = 2.0
    lp: float = 0.0
    p: float = 6.0
    colours: ColourSpace | None = None
    noise: float | None = None
    several: int = 1
    diversity: float = 0.5
    contrast: float = 0.0
    decay: float = 1.0
    patience: int = 0


RATES: dict[str, float] = {"pixel": 0.2, "fourier": 0.01}
L2_WEIGHTS: dict[str, float] = {"pixel": 1e-5, "fourier": 3e-4}
COLOURS: dict[str, ColourSpace] = {"pixel": "rgb", "fourier": "decorrelated"}
NOISE: dict[str, float] = {"pixel": 0.3, "fourier": 1.0}
"""What is added to the zeros where several pictures of a target are made."""
BLUR = 0.7
CLIPPED = 0.02
MOST: dict[str, float] = {
    "rate": 1e3, "l2": 1e6, "tv": 1e6, "lp": 1e6, "beta": 16, "p": 32, "blur": 64, "jitter": 4096, "rotate": 360,
    "noise": 1e3, "diversity": 1e3, "patience": 1e6, "contrast": 1e3, "decay": 8, "grain": 8,
}  # fmt: skip
"""The largest values that make any sense; larger ones only overflow."""


def visualize(
    network: Network,
    targets: Sequence[int | str] | Sequence[Unit | Direction],
    *,
    settings: Settings | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Job[Visualization]:
    """Make pictures for each target, in batches. A `Halt` ends it with what there is.

    Args:
        network: the network; classes need one that classifies.
        targets: classes (index or name), or units and directions of any layers; the pass stops at the layer.
        settings: see `Settings`.
        size: height and width of the pictures; default: the network's input size.
        seed: of the random transformations and of the noise.

    Raises:
        LabelError, LayerError: no such class or unit.
        PhospheneError: no targets, settings out of range, or an objective that is not finite.
    """
    chosen = settings or Settings()
    _check(chosen, targets)
    size = size or network.input_size
    yield Started("visualize", len(targets) * chosen.several * chosen.steps, "step", keeps=True)
    done = 0
    found: dict[int, Visualization] = {}
    restarts: list[Restart] = []
    halted = False
    for places in _batches(targets, max(1, network.batch_size(size) // chosen.several)):
        part = [targets[place] for place in places for _ in range(chosen.several)]
        numbers = [place * chosen.several + number for place in places for number in range(chosen.several)]
        job = _climb(network, part, numbers, chosen, size, seed)
        before, count = done * chosen.steps, len(part)
        ascent = yield from relay(job, lambda event, b=before, c=count: _of_all(event, b, c))
        done += count
        restarts += [replace(restart, image=numbers[restart.image]) for restart in ascent.restarts]
        found |= dict(zip(numbers, _judge(network, part, ascent), strict=True))
        halted = ascent.halted
        if halted:
            break
    numbers = sorted(found)
    made = _joined([found[number] for number in numbers])
    return replace(made, restarts=tuple(restarts), halted=halted, numbers=tuple(numbers))


def _batches(targets: Sequence[Target], most: int) -> Iterator[list[int]]:
    """Places of targets that can share a pass: classes, or units of one layer."""
    layers: dict[str | None, list[int]] = {}
    for place, target in enumerate(targets):
        layers.setdefault(None if isinstance(target, (int, str)) else target.layer, []).append(place)
    for places in layers.values():
        for start in range(0, len(places), most):
            yield places[start : start + most]


def _climb(
    network: Network, part: list[Target], numbers: list[int], chosen: Settings, size: tuple[int, int], seed: int
) -> Job[Ascent]:
    """The ascent of one batch; `numbers` tell the noise of each picture."""
    objective = _objective(network, part, chosen.contrast)
    if chosen.several > 1 and chosen.diversity:
        layer = network.last_spatial_layer() if isinstance(part[0], (int, str)) else part[0].layer
        if len(network.layer(layer).shape) == 3:
            groups = [number // chosen.several for number in numbers]
            objective = different(network, objective, layer, groups, chosen.diversity)
    colours = chosen.colours or COLOURS[chosen.canvas]
    noise = _noise(network, chosen, numbers, size, seed)
    canvas = (
        PixelCanvas(network, len(part), size, noise=noise, colours=colours)
        if chosen.canvas == "pixel"
        else FourierCanvas(network, len(part), size, noise=noise, colours=colours, decay=chosen.decay)
    )
    return ascend(
        canvas,
        objective,
        steps=chosen.steps,
        rate=chosen.rate if chosen.rate is not None else RATES[chosen.canvas],
        penalties=_penalties(chosen),
        periodic=_periodic(chosen) if chosen.canvas == "pixel" else (),
        transform=_transform(chosen),
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


def _of_all(event: Event, before: int, count: int) -> Event:
    """A step of one batch as a step of the whole: it moves `count` pictures."""
    return Step(before + event.done * count, event.loss, event.preview) if isinstance(event, Step) else event


def _check(settings: Settings, targets: Sequence[object]) -> None:
    if not targets:
        raise PhospheneError("nothing to visualize: give a class, or a layer and a unit")
    if settings.canvas not in RATES:
        raise PhospheneError(f"unknown canvas '{settings.canvas}': choose pixel or fourier")
    if settings.steps < 1:
        raise PhospheneError(f"steps start at 1, got {settings.steps}")
    if settings.rate is not None and not settings.rate > 0:
        raise PhospheneError(f"a rate is positive, got {settings.rate}")
    for name in ("blur", "clip_norm", "clip_gradient"):
        if settings.canvas == "fourier" and getattr(settings, name) is not None:
            raise PhospheneError(f"{name} works on pixels: give --canvas pixel with it")
    for name in ("clip_norm", "clip_gradient"):
        if not 0 <= (getattr(settings, name) or 0) < 1:
            raise PhospheneError(f"{name} is a share of the pixels from 0 to below 1, got {getattr(settings, name)}")
    for name, most in MOST.items():
        if not 0 <= (getattr(settings, name) or 0) <= most:
            raise PhospheneError(f"{name} can't be negative, nor above {most:g}: got {getattr(settings, name)}")
    if settings.several < 1:
        raise PhospheneError(f"several pictures of a target are at least 1, got {settings.several}")
    if not 0 < settings.crop <= 1:
        raise PhospheneError(f"crop is a share of the sides above 0, 1 for no crops, got {settings.crop}")
    if not (settings.beta > 0 and settings.p >= 1):
        raise PhospheneError(f"beta is positive and p at least 1, got {settings.beta} and {settings.p}")
    if not 0 <= settings.scale < 1:
        raise PhospheneError(f"scale lies between 0 and 1, got {settings.scale}")


def _objective(network: Network, targets: Sequence[Target], contrast: float = 0.0) -> Objective:
    if isinstance(targets[0], (int, str)):
        return class_scores(network, network.classes(cast("Sequence[int | str]", targets)), contrast=contrast)
    return unit_activations(network, cast("Sequence[Unit | Direction]", targets))


def _penalties(settings: Settings) -> list[priors.Penalty]:
    l2 = settings.l2 if settings.l2 is not None else L2_WEIGHTS[settings.canvas]
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
    if settings.rotate or settings.scale:  # one resampling for all of it
        moves.append(affine(settings.rotate, (1 - settings.scale, 1 + settings.scale), settings.jitter))
    elif settings.jitter:
        moves.append(jitter(settings.jitter))
    if settings.crop < 1:
        moves.append(crop(settings.crop))
    if settings.grain:
        moves.append(grain(settings.grain))
    return compose(*moves) if moves else None


def _judge(network: Network, targets: Sequence[Target], ascent: Ascent) -> list[Visualization]:
    """Each picture of one batch by itself, judged without transformations."""
    ends = torch.tensor(ascent.ended, device=ascent.values.device)
    lives = torch.arange(len(ascent.values), device=ends.device)[:, None] < ends
    highest = ascent.values.where(lives, -torch.inf).max(0).values
    with torch.no_grad():
        scores = _scores(network, targets, ascent.images)
        if len(ascent.values) == 1:
            highest = torch.maximum(highest, scores)
        silent = highest - ascent.values[0] <= 1e-6 * ascent.values[0].abs().clamp(min=1e-6)
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
