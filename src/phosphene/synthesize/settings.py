"""How a picture is moved up its objective: canvas, priors, random movements; and what of that is out of range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import nn

from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.synthesize.canvas import ColourSpace

CanvasName: TypeAlias = Literal["pixel", "fourier"]
ScheduleName: TypeAlias = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Settings:
    """How the image is moved. What is None is decided by the canvas and the network (see `suited`).

    Attributes:
        canvas: `pixel` (the slide's: pixels, from zeros) or `fourier` (a spectrum).
        steps: how many, at most.
        rate: Adam's learning rate; None: what suits the canvas.
        schedule: `constant`, or `cosine`: risen to over the first tenth of the steps, and falling from the beginning to
            the end; None: what suits the canvas.
        l2: lambda, the weight of `||I||^2`; None: what suits the canvas, and 0 where the natural prior counts.
        grain: noise of up to this standard deviation, of 0 to 1, added before each step.
        tv, beta: weight and exponent of total variation.
        lp, p: weight and exponent of `sum |I|^p`.
        blur: sigma in pixels of the Gaussian blur, done every 2 steps; pixel canvas only; None: 0.7; 0: none.
        clip_norm, clip_gradient: share of the pixels set to 0 every 10 steps, by smallest norm and by smallest
            contribution; pixel canvas only; None: 0.02; 0: none.
        jitter: random shift in pixels before each step; None: what suits the network.
        rotate: random rotation in degrees.
        scale: random zoom, 0.2 for 0.8 to 1.2; None: what suits the network.
        crop: random windows of at least this share of the sides; 1: none.
        colours: `rgb` or `decorrelated`; None: what suits the canvas.
        noise: strength of the noise that is added to the zeros; it differs from picture to picture.
        several: pictures of each target, pushed apart from each other.
        diversity: how hard.
        decay: Fourier canvas: frequency f is scaled by `1/f^decay`; more is smoother; None: what suits the network.
        natural: nu, for classes: how much the distance to photographs counts; None: what suits the canvas, if it is known
            what is natural for the network.
        contrast: for classes, how much the scores of all classes count against that of the class (see `class_scores`).
        patience: end an image when it has not risen over so many steps (see `ascend`); 0: never.
    """

    canvas: CanvasName = "fourier"
    steps: int = 200
    rate: float | None = None
    schedule: ScheduleName | None = None
    l2: float | None = None
    blur: float | None = None
    clip_norm: float | None = None
    clip_gradient: float | None = None
    jitter: int | None = None
    rotate: float = 15.0
    scale: float | None = None
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
    natural: float | None = None
    contrast: float = 0.0
    decay: float | None = None
    patience: int = 0


def suited(settings: Settings, network: Network, *, units: bool) -> Settings:
    """The settings with decay, jitter and scale filled in; for units also the rate and l2 of a grainy network.

    Depthwise convolutions have gradients full of grain: such networks get a smoother spectrum, which needs larger steps
    where no prior asks for contrast, and larger movements.
    """
    layers = (module for module in network.module.modules() if isinstance(module, nn.Conv2d))
    grainy = any(1 < layer.groups == layer.in_channels for layer in layers)
    decay, jitter, scale = (1.5, 32, 0.5) if grainy else (1.0, 16, 0.2)
    if grainy and units and settings.canvas == "fourier":
        settings = replace(
            settings,
            rate=0.1 if settings.rate is None else settings.rate,
            l2=3e-5 if settings.l2 is None else settings.l2,
        )
    return replace(
        settings,
        decay=decay if settings.decay is None else settings.decay,
        jitter=jitter if settings.jitter is None else settings.jitter,
        scale=scale if settings.scale is None else settings.scale,
    )


RATES: dict[str, float] = {"pixel": 0.2, "fourier": 0.03}
SCHEDULES: dict[str, ScheduleName] = {"pixel": "constant", "fourier": "cosine"}
L2_WEIGHTS: dict[str, float] = {"pixel": 1e-5, "fourier": 3e-4}
COLOURS: dict[str, ColourSpace] = {"pixel": "rgb", "fourier": "decorrelated"}
NOISE: dict[str, float] = {"pixel": 0.3, "fourier": 1.0}
"""What is added to the zeros where several pictures of a target are made."""
NATURAL: dict[str, float] = {"pixel": 0.0, "fourier": 1.5}
BLUR = 0.7
CLIPPED = 0.02
MOST: dict[str, float] = {
    "rate": 1e3, "l2": 1e6, "tv": 1e6, "lp": 1e6, "beta": 16, "p": 32, "blur": 64, "jitter": 4096, "rotate": 360,
    "noise": 1e3, "diversity": 1e3, "patience": 1e6, "contrast": 1e3, "natural": 1e6, "decay": 8, "grain": 8,
}  # fmt: skip
"""The largest values that make any sense; larger ones only overflow."""


def check_settings(settings: Settings, targets: Sequence[object]) -> None:
    """Raise a PhospheneError for what is out of range, and for no targets."""
    if not targets:
        raise PhospheneError("nothing to visualize: give a class, or a layer and a unit")
    if settings.canvas not in RATES:
        raise PhospheneError(f"unknown canvas '{settings.canvas}': choose pixel or fourier")
    if settings.steps < 1:
        raise PhospheneError(f"steps start at 1, got {settings.steps}")
    if settings.schedule not in (None, "constant", "cosine"):
        raise PhospheneError(f"unknown schedule '{settings.schedule}': choose constant or cosine")
    if settings.rate is not None and not settings.rate > 0:
        raise PhospheneError(f"a rate is positive, got {settings.rate}")
    for name in ("blur", "clip_norm", "clip_gradient"):
        if settings.canvas == "fourier" and getattr(settings, name) is not None:
            raise PhospheneError(f"{name} works on pixels: give --canvas pixel with it")
    if settings.canvas == "pixel" and settings.decay is not None:
        raise PhospheneError("decay is of a spectrum: give --canvas fourier with it")
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
    if not 0 <= (settings.scale or 0) < 1:
        raise PhospheneError(f"scale lies between 0 and 1, got {settings.scale}")
