"""DeepDream: amplify whatever a layer sees in a photograph.

    I* = argmax_I sum_i f_i(I)^2

Repeat: (1) forward to the layer, (2) set its gradient equal to its activation, (3) backward to the image, (4) a step up that
gradient; from small octaves of the photograph to large ones, whose details are carried along.

Mordvintsev, Olah & Tyka, "Inceptionism: Going Deeper into Neural Networks", Google Research blog, 2015, and the notebook
that came with it (octaves, jitter, guide image).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network, Unit
from phosphene.progress import Halt, Job, Started, Step, relay, shifted
from phosphene.synthesize.priors import blur
from phosphene.synthesize.smallest import smallest_side
from phosphene.synthesize.windows import gradient_by_windows, windows

Layers = Mapping[str, Sequence[int]]
"""Layer -> the channels that are to be amplified; none: all of them."""

Gradient = Callable[[Tensor], tuple[Tensor, Tensor]]

AT_ONCE = 1 << 24
"""Pairs of places, one of the image and one of the guide, that are compared at once."""


@dataclass(frozen=True)
class DreamSettings:
    """How deep to dream.

    Attributes:
        octaves: sizes of the photograph, each `ratio` times the one before, the last its own.
        ratio: above 1.
        steps: in each octave.
        rate: size of a step in [0, 1]: the root mean square of the change of a pixel.
        jitter: random shift in pixels before each step, around the edges.
        smooth: the gradient is averaged with itself blurred by this sigma in pixels and by twice that; 0: not.
        window: side of the windows in which larger images are looked at.
        overlap: pixels in which windows fade into each other.
    """

    octaves: int = 5
    ratio: float = 1.4
    steps: int = 15
    rate: float = 0.015
    jitter: int = 32
    smooth: float = 1.5
    window: int = 640
    overlap: int = 128


@dataclass(frozen=True)
class Dream:
    """What became of a photograph.

    Attributes:
        image: `[1, 3, H, W]` in [0, 1].
        values: the energy per pixel at each step.
        sizes: (height, width) of each octave.
        halted: whether the job was ended early.
    """

    image: Tensor
    values: tuple[float, ...]
    sizes: tuple[tuple[int, int], ...]
    halted: bool = False


def dream(
    network: Network,
    image: Tensor,
    layers: Layers,
    *,
    settings: DreamSettings | None = None,
    guide: Tensor | None = None,
    seed: int = 0,
) -> Job[Dream]:
    """Let the network dream about a photograph. A preview goes with the end of each octave; a `Halt` ends it there.

    Args:
        network: any network.
        image: `[1, 3, H, W]` in [0, 1], of any size.
        layers: which layers, and which of their channels; the energies of several are brought to the same size first.
        settings: see `DreamSettings`.
        guide: `[1, 3, h, w]` of any size: amplify what is like something in this picture instead of everything.
        seed: of the jitter.

    Raises:
        LayerError: no such layer or channel.
        PhospheneError: settings out of range, or an image too small for the layer (the message says what would do).
    """
    chosen = settings or DreamSettings()
    _check(network, image, layers, chosen)
    sizes = octave_sizes(network, layers, (image.shape[2], image.shape[3]), chosen)
    generator = torch.Generator().manual_seed(seed)
    guides = _guides(network, layers, guide)
    values: list[float] = []
    detail = torch.zeros(1, 3, 1, 1).to(image)
    yield Started("dream", len(sizes) * chosen.steps, keeps=True)
    shares = balance(network, layers, guides, resized(image, sizes[0]), chosen)
    energy = amplified(network, layers, guides, shares)
    for octave, size in enumerate(sizes, 1):
        base = resized(image, size)
        dreamt = resized(detail, size).add_(base).clamp_(0, 1) if octave > 1 else base.clone()
        for step in range(1, chosen.steps + 1):
            values.append(_step(energy, dreamt, chosen, generator))
            preview = dreamt if step == chosen.steps else None
            try:
                yield Step(len(values), -values[-1], preview)
            except Halt:
                detail = dreamt - base
                whole = (image + resized(detail, sizes[-1])).clamp(0, 1)
                return Dream(whole, tuple(values), tuple(sizes), halted=True)
        detail = dreamt - base if octave < len(sizes) else detail
    return Dream(dreamt, tuple(values), tuple(sizes))


def octave_sizes(
    network: Network, layers: Layers, size: tuple[int, int], settings: DreamSettings
) -> list[tuple[int, int]]:
    """(height, width) of the octaves, smallest first; those that are too small for the layers are left out.

    Raises:
        PhospheneError: the image itself is too small.
    """
    least = _least(network, layers)
    names = f"{' and '.join(layers)} of {network.name}"
    if min(size) < least:
        raise PhospheneError(
            f"a picture of {size[1]} x {size[0]} pixels is too small for {names}: its shorter side needs {least} pixels;"
            " take a larger picture or an earlier layer"
        )
    if settings.window < least:
        raise PhospheneError(f"windows of {settings.window} pixels are too small for {names}, which needs {least}")
    scales = [settings.ratio ** -(settings.octaves - 1 - octave) for octave in range(settings.octaves)]
    found = [(max(1, round(size[0] * scale)), max(1, round(size[1] * scale))) for scale in scales]
    return [each for each in dict.fromkeys(found) if min(each) >= least]


def _least(network: Network, layers: Layers) -> int:
    return max(smallest_side(network, layer) for layer in layers)


def balance(
    network: Network, layers: Layers, guides: Mapping[str, Tensor], image: Tensor, settings: DreamSettings
) -> dict[str, float]:
    """The share of each layer: 1 for a single one; else such that each has the same energy in `image`."""
    if len(layers) == 1:
        return dict.fromkeys(layers, 1.0)
    boxes = windows((image.shape[2], image.shape[3]), settings.window, settings.overlap)
    parts = [image[..., top:bottom, left:right] for top, left, bottom, right in boxes]
    shares = {}
    for layer, channels in layers.items():
        alone = amplified(network, {layer: channels}, guides)
        shares[layer] = 1 / max(1e-12, abs(sum(float(alone(part)[0]) for part in parts) / len(parts)))
    return shares


def amplified(
    network: Network, layers: Layers, guides: Mapping[str, Tensor], shares: Mapping[str, float] | None = None
) -> Gradient:
    """A function of an image `[1, 3, h, w]`: `(energy per pixel, gradient of the energy)`.

    The gradient of a layer is its activation, times its share. With guides `[C, places]` it is, at each place, the guide's
    feature that is most like the image's there.
    """
    through = network.reader(list(layers))

    def gradient(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf = image.detach().requires_grad_()
            found = through(leaf)
            energies = []
            for layer, channels in layers.items():
                features = found[layer][:, list(channels)] if channels else found[layer]
                energy = _like(features, guides[layer]) if layer in guides else features.square().sum() / 2
                energies.append(energy * shares[layer] if shares else energy)
            total = torch.stack(energies).sum()
            (slope,) = torch.autograd.grad(total, leaf)
        return total.detach() / (image.shape[2] * image.shape[3]), slope

    return gradient


def _like(features: Tensor, guide: Tensor) -> Tensor:
    """The sum over places of `<f, g>`, where g is the guide's feature that is most like f."""
    flat = features.flatten(2)[0]
    with torch.no_grad():
        together = max(1, AT_ONCE // guide.shape[1])  # all pairs of places of a shallow layer would fill the memory
        best = torch.cat([(part.T @ guide).argmax(1) for part in flat.split(together, 1)])
    return (flat * guide[:, best]).sum()


def _guides(network: Network, layers: Layers, guide: Tensor | None) -> dict[str, Tensor]:
    if guide is None:
        return {}
    least = _least(network, layers)
    if min(guide.shape[-2:]) < least:
        raise PhospheneError(
            f"a guide of {guide.shape[-1]} x {guide.shape[-2]} pixels is too small for {' and '.join(layers)} of"
            f" {network.name}: its shorter side needs {least} pixels"
        )
    found = network.record(guide, list(layers))
    return {
        layer: (found[layer][:, list(channels)] if channels else found[layer]).flatten(2)[0]
        for layer, channels in layers.items()
    }


def _step(energy: Gradient, image: Tensor, settings: DreamSettings, generator: torch.Generator) -> float:
    """One step up the gradient, in place; returns the energy before it."""
    dy, dx = torch.randint(-settings.jitter, settings.jitter + 1, (2,), generator=generator).tolist()
    value, slope = gradient_by_windows(
        energy, image, side=settings.window, overlap=settings.overlap, shift=(dy, dx)
    )  # fmt: skip
    if not bool(torch.isfinite(value)):
        raise PhospheneError(f"the energy became {float(value)}: the network gives no finite numbers for this picture")
    slope = smoothed(slope, settings.smooth)
    size = float(torch.linalg.vector_norm(slope)) / math.sqrt(slope.numel())
    if size > 0:
        image.add_(slope, alpha=settings.rate / size).clamp_(0, 1)
    return float(value)


def smoothed(gradient: Tensor, sigma: float) -> Tensor:
    """The mean of a gradient `[1, 3, H, W]` and of itself blurred by sigma and by twice that, in place; 0: as it is."""
    if not sigma:
        return gradient
    for channel in range(gradient.shape[1]):  # one colour at a time, for the memory of large pictures
        plain = gradient[:, channel : channel + 1]
        once, twice = blur(plain, sigma), blur(plain, 2 * sigma)
        plain.add_(once).add_(twice).div_(3)
    return gradient


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """`[1, 3, *size]`: smooth up, antialiased down."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return F.interpolate(image, size, mode="bicubic", antialias=size[0] < image.shape[2])


def _check(network: Network, image: Tensor, layers: Layers, settings: DreamSettings) -> None:
    if image.ndim != 4 or tuple(image.shape[:2]) != (1, 3):
        raise PhospheneError(f"a dream is of one image [1, 3, H, W], got {list(image.shape)}")
    if not layers:
        raise PhospheneError("nothing to dream of: name a layer")
    for layer, channels in layers.items():
        shape = network.layer(layer).shape
        if shape and not shape[0]:
            raise LayerError(f"layer '{layer}' has no channels, so there is nothing to amplify")
        if len(shape) != 3:
            raise LayerError(
                f"layer '{layer}' gives no map, so it depends on the size of the picture: name an earlier one"
            )
        for channel in channels:
            Unit(layer, channel).check(network)
    for name, low, high in _RANGES:
        if not low <= getattr(settings, name) <= high:
            raise PhospheneError(f"{name} of a dream lies between {low} and {high}, got {getattr(settings, name)}")
    if settings.overlap * 2 > settings.window:
        raise PhospheneError(f"windows of {settings.window} pixels can't share {settings.overlap}: at most half")


_RANGES = (
    ("octaves", 1, 32), ("ratio", 1.01, 4), ("steps", 1, 100_000), ("rate", 1e-6, 1), ("jitter", 0, 4096),
    ("smooth", 0, 64), ("window", 64, 8192), ("overlap", 0, 4096),
)  # fmt: skip


def zoom(
    network: Network,
    image: Tensor,
    layers: Layers,
    *,
    frames: int,
    factor: float = 1.04,
    settings: DreamSettings | None = None,
    guide: Tensor | None = None,
    seed: int = 0,
    keep: Callable[[Tensor], None],
) -> Job[Dream]:
    """Dream, enlarge the middle by `factor`, dream on: each frame `[3, H, W]` in [0, 1] is handed to `keep`.

    The first frame is the dream of the photograph; the others take two octaves and a third of the steps. A `Halt` ends the
    film with the last whole frame. Raises as `dream`.
    """
    chosen = settings or DreamSettings()
    if frames < 2 or not 1 < factor <= 2:
        raise PhospheneError(
            f"a zoom has at least 2 frames and a factor above 1 and up to 2, got {frames} and {factor}"
        )
    later = replace(chosen, octaves=min(2, chosen.octaves), steps=max(1, chosen.steps // 3))
    _check(network, image, layers, chosen)
    size = (image.shape[2], image.shape[3])
    first, each = (len(octave_sizes(network, layers, size, kind)) * kind.steps for kind in (chosen, later))
    yield Started("zoom", first + (frames - 1) * each, keeps=True)
    found = yield from _frame(dream(network, image, layers, settings=chosen, guide=guide, seed=seed), 0)
    keep(found.image[0])
    for frame in range(1, frames):
        if found.halted:
            break
        inner = _enlarged(found.image, factor)
        job = dream(network, inner, layers, settings=later, guide=guide, seed=seed + frame)
        made = yield from _frame(job, first + (frame - 1) * each)
        if made.halted:  # half a dream would be a jolt at the end of the film
            return replace(found, halted=True)
        found = made
        keep(found.image[0])
    return found


def _enlarged(image: Tensor, factor: float) -> Tensor:
    """The middle of the image, enlarged to its size."""
    theta = torch.tensor([[1 / factor, 0.0, 0.0], [0.0, 1 / factor, 0.0]]).to(image)
    grid = F.affine_grid(theta[None], list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _frame(job: Job[Dream], before: int) -> Job[Dream]:
    """A dream's steps as steps of the film, of which `before` were done."""
    next(job)  # its beginning
    return (yield from relay(job, lambda event: shifted(event, before)))
