"""Feature inversion: what a layer remembers of a photograph.

    x* = argmin_x ||Phi(x) - Phi_0||^2 / ||Phi_0||^2 + lambda_V R_{V^beta}(x) + lambda_alpha R_alpha(x)

Of all images that look alike to the layer, the one that is most like a photograph.

Mahendran & Vedaldi, "Understanding Deep Image Representations by Inverting Them", CVPR 2015.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, relay, shifted
from phosphene.synthesize import priors
from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import ColourSpace, FourierCanvas, PixelCanvas
from phosphene.synthesize.objectives import Objective
from phosphene.synthesize.pace import Restart
from phosphene.synthesize.settings import CanvasName


@dataclass(frozen=True)
class InversionSettings:
    """How a layer is inverted. What is None is chosen by the depth of the layer (`at_depth`).

    Attributes:
        canvas: `fourier` (a spectrum) or `pixel`.
        steps: how many, at most, over all scales.
        rate: Adam's learning rate at the beginning; it falls to 0 along a cosine.
        tv: lambda_V per pixel. Deep layers leave more open, so they need more of it.
        beta: exponent of total variation.
        lp: lambda_alpha per pixel.
        p: alpha.
        scales: sizes of the picture, each twice the one before, the last its own; one of them for `fourier`, which has all
            scales at once.
        noise: strength of the noise that it begins with; 0: the mean colour.
        patience: end when nothing has risen over so many steps (see `ascend`); 0: never.
    """

    canvas: CanvasName = "fourier"
    steps: int = 300
    rate: float | None = None
    tv: float | None = None
    beta: float = 2.0
    lp: float | None = None
    p: float = 6.0
    scales: int | None = None
    noise: float = 0.0
    patience: int = 0

    def at_depth(self, depth: float) -> InversionSettings:
        """The same with nothing left open; `depth` is 0 for the first layer and 1 for the last."""
        fourier = self.canvas == "fourier"
        return replace(
            self,
            rate=self.rate if self.rate is not None else (0.05 if fourier else 0.1) * 10 ** (-0.7 * depth),
            tv=self.tv if self.tv is not None else 10 ** (-4 + 3.7 * depth),
            lp=self.lp if self.lp is not None else 10 ** (-5 + 2 * depth),
            scales=self.scales if self.scales is not None else (1 if fourier else 3),
        )


class SilentLayerError(LayerError):
    """A layer that says nothing (or nothing finite) about an image."""


@dataclass(frozen=True)
class Inversion:
    """What a layer remembers.

    Attributes:
        images: `[N, 3, H, W]` in [0, 1].
        errors: `[N]`, `||Phi(x) - Phi_0||^2 / ||Phi_0||^2` of the final images.
        settings: with what the depth decided filled in.
        steps: how many.
        restarts: where an image diverged and went on with half the step.
        halted: whether the job was ended early.
    """

    images: Tensor
    errors: Tensor
    settings: InversionSettings
    steps: int
    restarts: tuple[Restart, ...] = ()
    halted: bool = False


def invert(
    network: Network,
    images: Tensor,
    layer: str,
    *,
    settings: InversionSettings | None = None,
    seed: int = 0,
) -> Job[Inversion]:
    """Reconstruct images from what `layer` makes of them. A `Halt` ends it with what there is.

    Args:
        network: any network.
        images: `[N, 3, H, W]` in [0, 1]; each is inverted by itself.
        layer: a layer that gives a map or a vector.
        settings: see `InversionSettings`.
        seed: of the noise.

    Raises:
        LayerError: no such layer; a `SilentLayerError` for one that is silent for an image: there is nothing to invert.
        PhospheneError: settings out of range.
    """
    chosen = (settings or InversionSettings()).at_depth(depth_of(network, layer))
    _check(chosen, images)
    target = network.record(images, [layer])[layer]
    norms = target.flatten(1).square().sum(1)
    if not bool(torch.isfinite(norms).all()) or bool((norms == 0).any()):
        raise SilentLayerError(f"layer '{layer}' is silent for this image (or not finite): there is nothing to invert")
    yield Started(f"invert {layer}", len(images) * chosen.steps, keeps=True)
    made: list[Tensor] = []
    restarts: list[Restart] = []
    steps, halted = 0, False
    batch = network.batch_size(images.shape[-2:])
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        job = _by_scales(network, layer, target[part], norms[part], images[part], chosen, seed)
        count = len(target[part])
        ascents = yield from relay(job, lambda event, b=start * chosen.steps, c=count: shifted(event, b, c))
        made.append(ascents[-1].images)
        restarts += [replace(r, image=r.image + start) for ascent in ascents for r in ascent.restarts]
        steps = max(steps, sum(len(ascent.values) for ascent in ascents))
        halted = ascents[-1].halted
        if halted:
            break
    found = torch.cat(made)
    errors = relative_errors(network, found, layer, target[: len(found)])
    return Inversion(found, errors, chosen, steps, tuple(restarts), halted)


def relative_errors(network: Network, images: Tensor, layer: str, target: Tensor) -> Tensor:
    """`||Phi(x) - Phi_0||^2 / ||Phi_0||^2` of each image, `[N]`."""
    found = network.record(images, [layer])[layer]
    return (found - target).flatten(1).square().sum(1) / target.flatten(1).square().sum(1)


def depth_of(network: Network, layer: str) -> float:
    """Where a layer lies among those that run: 0 the first, 1 the last."""
    names = [known.name for known in network.layers()]
    here = network.tap(layer).name
    return names.index(here) / max(1, len(names) - 1)


def _by_scales(
    network: Network, layer: str, target: Tensor, norms: Tensor, images: Tensor, chosen: InversionSettings, seed: int
) -> Job[list[Ascent]]:
    """From coarse to fine: each scale begins with the picture of the one before."""
    size = (images.shape[2], images.shape[3])
    scales = chosen.scales or 1
    assert chosen.rate is not None
    generator = torch.Generator().manual_seed(seed)
    ascents: list[Ascent] = []
    for number in range(scales):
        here = tuple(max(1, round(side / 2 ** (scales - 1 - number))) for side in size)
        steps = chosen.steps // scales + (chosen.steps % scales if number == scales - 1 else 0)
        if not steps:
            continue
        job = ascend(
            _canvas(network, len(target), (here[0], here[1]), ascents, chosen, generator),
            _objective(network, layer, target, norms, size),
            steps=steps,
            rate=chosen.rate,
            penalties=_penalties(chosen, here[0] * here[1]),
            generator=generator,
            schedule=lambda share: 0.5 + 0.5 * math.cos(math.pi * share),
            patience=chosen.patience,
        )
        before = sum(len(ascent.values) for ascent in ascents)
        ascents.append((yield from relay(job, lambda event, b=before: shifted(event, b))))
        if ascents[-1].halted:
            break
    if ascents[-1].images.shape[-2:] != size:
        ascents[-1] = replace(ascents[-1], images=_enlarged(ascents[-1].images, size))
    return ascents


def _canvas(
    network: Network,
    count: int,
    size: tuple[int, int],
    before: Sequence[Ascent],
    chosen: InversionSettings,
    generator: torch.Generator,
) -> PixelCanvas | FourierCanvas:
    colours: ColourSpace = "decorrelated" if chosen.canvas == "fourier" else "rgb"
    start = noise = None
    if before:
        start = _enlarged(before[-1].images, size)
    elif chosen.noise:
        # The same for all pictures of a batch, so that each begins as it would alone.
        noise = chosen.noise * torch.randn((1, 3, *size), generator=generator).to(network.device)
    kind = FourierCanvas if chosen.canvas == "fourier" else PixelCanvas
    return kind(network, count, size, start=start, noise=noise, colours=colours)


def _objective(network: Network, layer: str, target: Tensor, norms: Tensor, size: tuple[int, int]) -> Objective:
    """`-||Phi(x) - Phi_0||^2 / ||Phi_0||^2` of each image; smaller ones are enlarged to `size` first."""
    through = network.reader([layer])

    def objective(images: Tensor) -> Tensor:
        features = through(_enlarged(images, size))[layer]
        return -(features - target).flatten(1).square().sum(1) / norms

    return objective


def _enlarged(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", align_corners=False)


def _penalties(chosen: InversionSettings, pixels: int) -> list[priors.Penalty]:
    found = [priors.total_variation(chosen.tv / pixels, chosen.beta)] if chosen.tv else []
    return found + ([priors.lp(chosen.lp / pixels, chosen.p)] if chosen.lp else [])


def _check(settings: InversionSettings, images: Tensor) -> None:
    if images.ndim != 4 or not len(images):
        raise PhospheneError(f"expected images [N, 3, H, W], got {list(images.shape)}")
    if settings.steps < 1:
        raise PhospheneError(f"steps start at 1, got {settings.steps}")
    if settings.scales is not None and not 1 <= settings.scales <= 8:
        raise PhospheneError(f"an inversion has 1 to 8 scales, got {settings.scales}")
    if min(images.shape[-2:]) < 2 ** ((settings.scales or 1) - 1):
        raise PhospheneError(f"a picture of {list(images.shape[-2:])} pixels can't be halved {settings.scales} times")
    for name, least, most in (
        ("rate", 0, 1e3), ("tv", 0, 1e6), ("lp", 0, 1e6), ("noise", 0, 1e3), ("patience", 0, 1e6),
    ):  # fmt: skip
        if not least <= (getattr(settings, name) or 0) <= most:
            raise PhospheneError(f"{name} lies between {least} and {most:g}, got {getattr(settings, name)}")
    if settings.rate == 0:
        raise PhospheneError("a rate is positive, got 0")
    if not (settings.beta > 0 and settings.p >= 1):
        raise PhospheneError(f"beta is positive and p at least 1, got {settings.beta} and {settings.p}")
