"""`dream`: a photograph in which whatever a layer sees is amplified; or a film that falls into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene import observe, synthesize
from phosphene.errors import LayerError, PhospheneError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Job
from phosphene.synthesize.dream import resized

USUAL = synthesize.DreamSettings()
DREAMY = {"squeezenet1_1": "features.10", "efficientnet_lite0": "blocks.4.2", "vgg16": "features.22"}
"""Layers that see eyes and faces; for other networks one at two thirds of its depth."""
LARGEST_GUIDE = 512  # pixels of its longer side


def dream(
    workshop: Workshop,
    *,
    image: str,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    layers: Sequence[str] = (),
    channels: Sequence[str] = (),
    guide: str | None = None,
    octaves: int = USUAL.octaves,
    ratio: float = USUAL.ratio,
    steps: int = USUAL.steps,
    rate: float = USUAL.rate,
    jitter: int = USUAL.jitter,
    smooth: float = USUAL.smooth,
    size: int | None = None,
    window: int = USUAL.window,
    overlap: int = USUAL.overlap,
    zoom: int = 0,
    factor: float = 1.04,
    seed: int = 0,
    keep: Callable[[Tensor], None] | None = None,
) -> Job[Outcome]:
    """Pictures: `dream` (the dream itself, as large as the photograph), and `beside`, with the photograph.

    `size`: of the longer side, where the photograph is to be resized first. `zoom`: so many frames of a film, each of which
    is handed to `keep`; the picture is then the last one.
    """
    network = workshop.network(net, weights, labels)
    check_seed(seed)
    chosen = _layers(network, net, layers, channels)
    photo = _sized(workshop.image(image), size)
    like = _sized(workshop.image(guide), LARGEST_GUIDE) if guide is not None else None
    settings = synthesize.DreamSettings(octaves, ratio, steps, rate, jitter, smooth, window, overlap)
    frames = 0

    def count(frame: Tensor) -> None:
        nonlocal frames
        frames += 1
        if keep is not None:
            keep(frame)

    if zoom:
        found = yield from synthesize.zoom(
            network, photo, chosen, frames=zoom, factor=factor, settings=settings, guide=like, seed=seed, keep=count
        )
    else:
        found = yield from synthesize.dream(network, photo, chosen, settings=settings, guide=like, seed=seed)
    return _outcome(net, chosen, photo, found, guide, frames)


def _layers(network: Network, net: str, layers: Sequence[str], channels: Sequence[str]) -> dict[str, list[int]]:
    names = list(dict.fromkeys(layers)) or [DREAMY.get(net) or _deep(network)]
    if channels and len(names) > 1:
        raise PhospheneError(f"channels of one layer, please: {' and '.join(names)} are {len(names)}")
    try:
        return {name: list(dict.fromkeys(int(channel) for channel in channels)) for name in names}
    except ValueError:
        raise LayerError(f"channels of '{names[0]}' are numbers such as 3,17, got '{','.join(channels)}'") from None


def _deep(network: Network) -> str:
    found = observe.landmarks(network)
    return found[min(len(found) - 1, 2 * len(found) // 3)]


def _sized(image: Tensor, size: int | None) -> Tensor:
    """With a longer side of `size` pixels; None: as it is."""
    height, width = image.shape[-2:]
    if size is None or size == max(height, width):
        return image
    if not 32 <= size <= 20_000:
        raise PhospheneError(f"a size is 32 to 20000 pixels, got {size}")
    factor = size / max(height, width)
    return resized(image, (max(1, round(height * factor)), max(1, round(width * factor)))).clamp(0, 1)


def _outcome(
    net: str, layers: dict[str, list[int]], photo: Tensor, found: synthesize.Dream, guide: str | None, frames: int
) -> Outcome:
    named = " and ".join(f"{layer}:{','.join(map(str, own))}" if own else layer for layer, own in layers.items())
    image = found.image[0].cpu()
    gain = found.values[-1] / found.values[0] if found.values and found.values[0] else 1.0
    caption = f"{net}, {named}" + (f", guided by {guide}" if guide else "")
    alt = f"The photograph as {net} dreams it, with what {named} sees amplified"
    panels = [pictures.Panel(photo[0].cpu(), "photograph"), pictures.Panel(image, "dream", caption)]
    sheet = pictures.sheet(panels, columns=2, side=480)
    facts: dict[str, Any] = {
        "net": net,
        "layers": layers,
        "octaves": [list(size) for size in found.sizes],
        "energy": [found.values[0], found.values[-1]] if found.values else [],
    }
    if not any(found.values):
        facts["silent"] = True
    notes: dict[str, Any] = {}
    if found.halted and frames:
        facts["stopped"] = f"stopped early, after frame {frames}"
        notes["stopped_at_frame"] = frames
    elif found.halted:
        facts["stopped"] = f"stopped early, after step {len(found.values)}"
        notes["stopped_at_step"] = len(found.values)
    words = f"{caption}; the last octave's energy ended at {gain:.3g} times the first's beginning"
    return Outcome(
        (Picture("dream", image, alt, words), Picture("beside", sheet, alt, caption)), facts, {}, notes
    )  # fmt: skip
