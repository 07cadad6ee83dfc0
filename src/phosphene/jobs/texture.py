"""`texture`: another picture with the texture of a sample; and the slide's figure, by deeper and deeper layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene import synthesize
from phosphene.errors import PhospheneError
from phosphene.images import Panel
from phosphene.jobs import style_parts as parts
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Halt, Job, Started
from phosphene.synthesize import StyleSettings, Stylization
from phosphene.synthesize.descent import OptimiserName
from phosphene.synthesize.style import Checkpoint
from phosphene.synthesize.style_plan import chosen_layers

USUAL = StyleSettings(steps=300, scales=1)
SAMPLE = 256  # pixels of the sample's longer side, where none is asked for


def texture(
    workshop: Workshop,
    *,
    image: str,
    size: str | None = None,
    sample: int | None = None,
    tile: bool = False,
    figure: bool = False,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    style_layers: Sequence[str] = (),
    layer_weights: Sequence[float | str] = (),
    tv: float = USUAL.tv,
    pooling: synthesize.Pooling = USUAL.pooling,
    canvas: synthesize.CanvasName | None = USUAL.canvas,
    optimiser: OptimiserName = USUAL.optimiser,
    history: int = USUAL.history,
    rate: float | None = USUAL.rate,
    steps: int = USUAL.steps,
    scales: int | None = USUAL.scales,
    block: int | None = USUAL.block,
    snapshots: int = 0,
    seed: int = 0,
    keep: parts.Frames | None = None,
    save: Callable[[Checkpoint], None] | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Job[Outcome]:
    """Pictures: `texture`, and `beside`, with the sample; with `figure` a sheet of textures by deeper and deeper layers.

    `size`: of the texture, `SIDE` or `WIDTHxHEIGHT`; default: the sample's. `sample`: longer side that the sample is brought
    to first. `keep`, `save` and `resume`: see `style`.
    """
    check_seed(seed)
    settings = StyleSettings(
        style_layers=tuple(style_layers), layer_weights=tuple(parts.numbers(layer_weights, "layer weights")), tv=tv,
        pooling=pooling, canvas=canvas, optimiser=optimiser, history=history, rate=rate, steps=steps,
        scales=scales, block=block,
    )  # fmt: skip
    settings.check()
    network = workshop.network(net, weights, labels)
    taken = parts.sized(workshop.image(image), sample, usual=SAMPLE)
    whole = _size(size) or (taken.shape[2], taken.shape[3])
    if figure:
        if snapshots or tile:
            raise PhospheneError("snapshots and seamless edges are for a single texture, not for the figure")
        return (yield from _figure(network, net, taken, whole, settings, seed))
    shown: list[tuple[int, Tensor]] = []
    job = synthesize.texture(
        network,
        taken,
        size=whole,
        tile=tile,
        settings=settings,
        seed=seed,
        checkpoint=None if resume is None else parts.unpacked(resume, network.device),
        keep=save,
        preview_every=snapshots or 5,
    )
    found = yield from parts.watched(job, whole, keep, snapshots, shown)
    return _outcome(net, taken, found, shown, tile)


def _size(text: str | None) -> tuple[int, int] | None:
    """Height and width from `SIDE` or `WIDTHxHEIGHT`."""
    if text is None:
        return None
    try:
        sides = [int(side) for side in str(text).lower().split("x")]
        width, height = sides if len(sides) == 2 else sides * 2
    except ValueError:
        raise PhospheneError(f"a size is a number of pixels or WIDTHxHEIGHT, got '{text}'") from None
    if not all(32 <= side <= 20_000 for side in (width, height)):
        raise PhospheneError(f"the sides of a texture have 32 to 20000 pixels, got {width} x {height}")
    return height, width


def _outcome(
    net: str,
    sample: Tensor,
    found: Stylization,
    shown: Sequence[tuple[int, Tensor]],
    tile: bool,
) -> Outcome:
    image = found.image[0].cpu()
    alt = "Another picture with the texture of the sample, grown from noise"
    caption = f"grown from noise by {net}" + (", edges fit" if tile else "")
    panels = [Panel(sample[0].cpu(), "sample"), Panel(image, "texture", caption)]
    if tile:
        twice = image.repeat(1, 2, 2)
        panels.append(Panel(twice, "laid two by two"))
    sheet = pictures.sheet(panels, columns=len(panels), side=420)
    facts: dict[str, Any] = {"net": net, "distance": distances(found), **parts.loss_facts(found)}
    notes = parts.notes_of(found, facts)
    steps = [Picture(f"step-{step:04d}", frame, f"{alt}, after step {step}", f"step {step}") for step, frame in shown]
    made = (Picture("texture", image, alt, caption), Picture("beside", sheet, alt, caption), *steps)
    return Outcome(made, facts, {}, notes)


def distances(found: Stylization) -> dict[str, float]:
    """E_l of each layer as a share of that of noise."""
    return {layer: value / max(found.reference.style[layer], 1e-30) for layer, value in found.end.style.items()}


def _figure(
    network: Network, net: str, sample: Tensor, size: tuple[int, int], settings: StyleSettings, seed: int
) -> Job[Outcome]:
    """Textures from the first layer alone, from the first two, ... (Gatys et al. 2015, figure 2)."""
    choice = chosen_layers(network, settings)
    layers, shares = list(choice.style), list(choice.style.values())
    each = settings.steps * len(settings.sizes(size))
    yield Started(f"{len(layers)} textures with {network.name}", each * len(layers), keeps=True)
    made: list[Stylization] = []
    halted = False
    for count in range(1, len(layers) + 1):
        own = tuple(shares[:count]) if settings.layer_weights else ()
        here = replace(settings, style_layers=tuple(layers[:count]), layer_weights=own)
        job = synthesize.texture(network, sample, size=size, settings=here, seed=seed)
        try:
            found = yield from parts.within(job, (count - 1) * each)
        except Halt:
            halted = True
            break
        made.append(found)
        halted = found.halted
        if halted:
            break
    if not made:
        raise Halt
    titles = [layer if place == 0 else f"... to {layer}" for place, layer in enumerate(layers)]
    singles = [
        Picture(f"to-{layer}", found.image[0].cpu(), f"A texture from the layers up to {layer}", title)
        for layer, title, found in zip(layers, titles, made, strict=False)
    ]
    panels = [Panel(sample[0].cpu(), "sample")]
    panels += [Panel(one.image, one.caption) for one in singles]
    foot = f"{net}: from noise, with the statistics of the first layer, of the first two, ... Deeper ones hold larger parts."
    sheet = pictures.sheet(panels, columns=len(panels), side=280, footnote=foot)
    alt = f"Textures by deeper and deeper layers of {net}"
    facts: dict[str, Any] = {
        "net": net, "layers": layers,
        "textures": [{"to": layer, **parts.loss_facts(found)} for layer, found in zip(layers, made, strict=False)],
    }  # fmt: skip
    notes: dict[str, Any] = {}
    if halted:
        facts["stopped"] = f"stopped early; {len(made)} of {len(layers)} textures, the last unfinished"
        notes["stopped_after_pictures"] = len(made)
    return Outcome((Picture("texture", sheet, alt, foot), *singles), facts, {}, notes)
