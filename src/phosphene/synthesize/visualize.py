"""Pictures of what the network looks for: gradient ascent on a class or on a unit.

    I* = argmax_I S_c(I) - lambda ||I||_2^2

from zeros (the mean colour), under the slide's periodic operations.

Simonyan, Vedaldi & Zisserman 2014, section 2; Yosinski et al. 2015, section 3 (blur, clipping by norm and by
contribution); Olah, Mordvintsev & Schubert 2017 (Fourier canvas, random transformations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network, Unit
from phosphene.progress import Job, Started, Step
from phosphene.synthesize import priors
from phosphene.synthesize.ascent import ascend
from phosphene.synthesize.canvas import FourierCanvas, PixelCanvas
from phosphene.synthesize.objectives import Objective, class_scores, unit_activations
from phosphene.synthesize.transforms import Transform, affine, compose, jitter

CanvasName: TypeAlias = Literal["pixel", "fourier"]


@dataclass(frozen=True)
class Visualization:
    """One picture per target.

    Attributes:
        images: `[N, 3, H, W]` in [0, 1].
        scores: `[N]`, the score S_c or the activation of the final pictures.
        probabilities: `[N]`, the softmax probability of each class for its own picture; None for units.
        top: `[N]`, the class that the network sees in each picture; None for units.
    """

    images: Tensor
    scores: Tensor
    probabilities: Tensor | None
    top: Tensor | None


@dataclass(frozen=True)
class Settings:
    """How the image is moved. The defaults are for `squeezenet1_1`.

    Attributes:
        canvas: `pixel` (the slide's: pixels, from zeros) or `fourier` (a decorrelated spectrum).
        steps: how many.
        rate: Adam's learning rate; None: what suits the canvas.
        l2: lambda, the weight of `||I||^2`; None: what suits the canvas.
        blur: sigma in pixels of the Gaussian blur, done every 2 steps; pixel canvas only; None: 0.7; 0: none.
        clip_norm, clip_gradient: share of the pixels set to 0 every 10 steps, by smallest norm and by smallest
            contribution; pixel canvas only; None: 0.02; 0: none.
        jitter: random shift in pixels before each step.
        rotate: random rotation in degrees.
        scale: random zoom, 0.2 for 0.8 to 1.2.
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


RATES: dict[str, float] = {"pixel": 0.2, "fourier": 0.01}
L2_WEIGHTS: dict[str, float] = {"pixel": 1e-5, "fourier": 3e-4}
BLUR = 0.7
CLIPPED = 0.02
MOST: dict[str, float] = {"rate": 1e3, "l2": 1e6, "blur": 64, "jitter": 4096, "rotate": 360}
"""The largest values that make any sense; larger ones only overflow."""


def visualize(
    network: Network,
    targets: Sequence[int | str] | Sequence[Unit],
    *,
    settings: Settings | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
) -> Job[Visualization]:
    """Make a picture for each target, in batches.

    Args:
        network: the network; classes need one that classifies.
        targets: classes (index or name), or units of one layer.
        settings: see `Settings`.
        size: height and width of the pictures; default: the network's input size.
        seed: of the random transformations.

    Raises:
        LabelError, LayerError: no such class or unit.
        PhospheneError: no targets, settings out of range, or an objective that is not finite.
    """
    chosen = settings or Settings()
    _check(chosen, targets)
    size = size or network.input_size
    yield Started("visualize", len(targets) * chosen.steps, "step")
    batch = network.batch_size(size)
    images: list[Tensor] = []
    for start in range(0, len(targets), batch):
        part = list(targets[start : start + batch])
        generator = torch.Generator().manual_seed(seed)
        kind = PixelCanvas if chosen.canvas == "pixel" else FourierCanvas
        canvas = kind(network, len(part), size)
        job = ascend(
            canvas,
            _objective(network, part),
            steps=chosen.steps,
            rate=chosen.rate if chosen.rate is not None else RATES[chosen.canvas],
            penalties=[priors.l2(chosen.l2 if chosen.l2 is not None else L2_WEIGHTS[chosen.canvas])],
            periodic=_periodic(chosen) if chosen.canvas == "pixel" else (),
            transform=_transform(chosen),
            generator=generator,
        )
        ascent = yield from _offset(job, start * chosen.steps, len(part))
        images.append(ascent.images)
    return _judge(network, targets, torch.cat(images))


def _offset(job: Job, before: int, count: int) -> Job:
    """The steps of one batch as steps of the whole: each moves `count` pictures."""
    try:
        while True:
            event = next(job)
            if isinstance(event, Step):
                event = Step(before + event.done * count, event.loss, event.preview)
            yield event
    except StopIteration as end:
        return end.value


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
    if not 0 <= settings.scale < 1:
        raise PhospheneError(f"scale lies between 0 and 1, got {settings.scale}")


def _objective(network: Network, targets: Sequence[int | str | Unit]) -> Objective:
    if isinstance(targets[0], Unit):
        return unit_activations(network, cast("Sequence[Unit]", targets))
    return class_scores(network, network.classes(cast("Sequence[int | str]", targets)))


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
    if settings.jitter:
        moves.append(jitter(settings.jitter))
    if settings.rotate or settings.scale:
        moves.append(affine(settings.rotate, (1 - settings.scale, 1 + settings.scale)))
    if settings.jitter > 1:
        moves.append(jitter(settings.jitter // 2))
    return compose(*moves) if moves else None


def _judge(network: Network, targets: Sequence[int | str] | Sequence[Unit], images: Tensor) -> Visualization:
    with torch.no_grad():
        if isinstance(targets[0], Unit):
            units = cast("Sequence[Unit]", targets)
            parts = network.split(images)
            scores, start = [], 0
            for part in parts:
                scores.append(unit_activations(network, units[start : start + len(part)])(part))
                start += len(part)
            return Visualization(images, torch.cat(scores), None, None)
        logits = torch.cat([network.logits(part) for part in network.split(images)])
        classes = torch.tensor(network.classes(cast("Sequence[int | str]", targets)), device=logits.device)[:, None]
        return Visualization(
            images,
            logits.gather(1, classes)[:, 0],
            logits.softmax(1).gather(1, classes)[:, 0],
            logits.argmax(1),
        )
