"""`style`: a photograph painted in the manner of other pictures; or sheets of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene import synthesize
from phosphene.errors import PhospheneError
from phosphene.images import Panel
from phosphene.jobs import style_parts as parts
from phosphene.jobs import style_sheets as sheets
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.progress import Job
from phosphene.synthesize import StyleSettings
from phosphene.synthesize.descent import OptimiserName
from phosphene.synthesize.style import Checkpoint

USUAL = StyleSettings()


def style(
    workshop: Workshop,
    *,
    image: str,
    styles: Sequence[str] = (),
    shares: Sequence[float | str] = (),
    masks: Sequence[str] = (),
    each: bool = False,
    contents: Sequence[str] = (),
    matrix: bool = False,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    size: int | None = None,
    content_weight: float = USUAL.content_weight,
    style_weight: float = USUAL.style_weight,
    content_layers: Sequence[str] = (),
    style_layers: Sequence[str] = (),
    layer_weights: Sequence[float | str] = (),
    raw: bool = USUAL.raw,
    tv: float = USUAL.tv,
    pooling: synthesize.Pooling = USUAL.pooling,
    canvas: synthesize.CanvasName | None = USUAL.canvas,
    optimiser: OptimiserName = USUAL.optimiser,
    history: int = USUAL.history,
    rate: float | None = USUAL.rate,
    steps: int = USUAL.steps,
    scales: int | None = USUAL.scales,
    start: synthesize.Start = USUAL.start,
    begin: str | None = None,
    style_scale: float = USUAL.style_scale,
    colours: synthesize.Colours = USUAL.colours,
    block: int | None = USUAL.block,
    snapshots: int = 0,
    seed: int = 0,
    keep: parts.Frames | None = None,
    save: Callable[[Checkpoint], None] | None = None,
    resume: Mapping[str, Any] | None = None,
) -> Job[Outcome]:
    """Pictures: `style`, and `beside`, with the content and the styles; with `each` a sheet and one picture for each pair.

    `styles`: none for the bundled painting (`sample:painting`). `each`: one picture for each style (and for each of `image`
    and `contents`) instead of one of all styles. `matrix`: the slide's figure, content layers by style layers. `snapshots`:
    also the picture after so many steps, and twice as many, ... `keep` takes the frames of a film, `save` where the job is;
    `resume` is what it was given.
    """
    check_seed(seed)
    settings = StyleSettings(
        content_weight, style_weight, tuple(content_layers), tuple(style_layers),
        tuple(parts.numbers(layer_weights, "layer weights")), raw, tv, pooling, canvas, optimiser, history,
        rate, steps, scales, start, style_scale, colours, block,
    )  # fmt: skip
    settings.check()
    _check(each, contents, matrix, styles, masks, shares, snapshots, begin)
    network = workshop.network(net, weights, labels)
    chosen = parts.numbers(shares, "weights of the styles")
    named = parts.titled(styles or (parts.PAINTING,), workshop.image)
    content = parts.sized(workshop.image(image), size)
    if each or contents:
        photos = parts.titled((image, *contents), lambda path: parts.sized(workshop.image(path), size))
        return (yield from sheets.sheet_of_pairs(network, net, photos, named, settings, seed))
    if matrix:
        return (yield from sheets.matrix(network, net, content, next(iter(named.values())), settings, seed))
    shown: list[tuple[int, Tensor]] = []
    whole = (content.shape[2], content.shape[3])
    job = synthesize.style(
        network,
        content,
        list(named.values()),
        shares=chosen,
        masks=[_mask(workshop, path, content, workshop.image(image)) for path in masks],
        settings=settings,
        begin=None if begin is None else workshop.image(begin),
        seed=seed,
        checkpoint=None if resume is None else parts.unpacked(resume, network.device),
        keep=save,
        preview_every=snapshots or 5,
    )
    found = yield from parts.watched(job, whole, keep, snapshots, shown)
    return _outcome(net, content, named, found, shown)


def _check(
    each: bool,
    contents: Sequence[str],
    matrix: bool,
    styles: Sequence[str],
    masks: Sequence[str],
    shares: Sequence[Any],
    snapshots: int,
    begin: str | None,
) -> None:
    if (each or contents) and matrix:
        raise PhospheneError("a sheet of pictures or a matrix of layers: one at a time")
    if (each or contents or matrix) and (masks or shares or snapshots or begin):
        raise PhospheneError("masks, weights of the styles, snapshots and a start of your own are for a single picture")
    if matrix and len(styles) > 1:
        raise PhospheneError(f"a matrix is of one style, got {len(styles)}")
    if snapshots < 0:
        raise PhospheneError(f"snapshots are taken every so many steps, from 1 up, got {snapshots}")


def _mask(workshop: Workshop, path: str, content: Tensor, photo: Tensor) -> Tensor:
    """A mask `[1, 1, H, W]`: the luminance of a picture as large as the content, or as the file that it comes from."""
    found = workshop.image(path)
    if found.shape[-2:] == photo.shape[-2:]:
        found = pictures.resize(found, (content.shape[2], content.shape[3]))
    return pictures.palette.luminance(found)[:, :1]


def _outcome(
    net: str,
    content: Tensor,
    named: Mapping[str, Tensor],
    found: synthesize.Stylization,
    shown: Sequence[tuple[int, Tensor]],
) -> Outcome:
    image = found.image[0].cpu()
    manner = " and ".join(named)
    caption = f"by {net}, in the manner of {manner}"
    alt = f"The photograph, painted in the manner of {manner}"
    panels = [Panel(content[0].cpu(), "content")]
    panels += [Panel(one[0].cpu(), "style" if len(named) == 1 else name) for name, one in named.items()]
    sheet = pictures.sheet([*panels, Panel(image, "painted", caption)], columns=min(4, len(panels) + 1), side=420)
    facts: dict[str, Any] = {"net": net, "styles": list(named), **parts.loss_facts(found)}
    notes = parts.notes_of(found, facts)
    steps = [Picture(f"step-{step:04d}", frame, f"{alt}, after step {step}", f"step {step}") for step, frame in shown]
    made = (Picture("style", image, alt, caption), Picture("beside", sheet, alt, caption), *steps)
    return Outcome(made, facts, {}, notes)
