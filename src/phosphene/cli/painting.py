"""`style` and `texture`: the commands that paint."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Output, Said, Source, split
from phosphene.errors import PhospheneError

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome

_WHAT = Group("What to paint", sort_key=2)
_LOSS = Group("The loss", sort_key=3)
_LOOK = Group("How it looks", sort_key=4)
_DESCENT = Group("The optimiser", sort_key=5)

Layers = Annotated[
    list[str] | None,
    Parameter(
        name=["--style-layer", "--style-layers"],
        group=_LOSS,
        negative="",
        help="Layers of the style loss, by comma; default: what suits the network.",
    ),
]
LayerWeights = Annotated[
    list[str] | None,
    Parameter(
        group=_LOSS,
        negative="",
        help="w of each of them, by comma; default: such that all count the same where the picture begins.",
    ),
]
Variation = Annotated[float, Parameter(name="--tv", group=_LOOK, help="Weight of total variation: less grain.")]
Pooling = Annotated[Literal["max", "average"], Parameter(group=_LOOK, help="Average pooling is smoother.")]
Canvas = Annotated[
    Literal["pixel", "fourier"] | None,
    Parameter(
        group=_LOOK, help="Move pixels, or a spectrum with decorrelated colours; default: what suits the network."
    ),
]
Optimiser = Annotated[Literal["lbfgs", "adam"], Parameter(group=_DESCENT, help="L-BFGS as in the papers, or Adam.")]
History = Annotated[int, Parameter(group=_DESCENT, help="Steps that L-BFGS remembers.")]
Rate = Annotated[
    float | None, Parameter(group=_DESCENT, help="L-BFGS: share of its own step; Adam: its rate. Default: 1 and 0.02.")
]
Block = Annotated[
    int | None,
    Parameter(
        group=_DESCENT, help="Read large pictures in blocks of this side; 0: never; default: where memory asks for it."
    ),
]
Snapshots = Annotated[int, Parameter(group=OUTPUT, help="Also write the picture after every so many steps.")]
FilmName = Annotated[
    Literal["mp4", "webp"] | None, Parameter(group=OUTPUT, help="Make a film of the painting; mp4 needs PyAV.")
]
Fps = Annotated[int | None, Parameter(group=OUTPUT, help="The film's frames a second; default: 15.")]
Resume = Annotated[
    bool,
    Parameter(group=OUTPUT, negative="", show_default=False, help="Go on where the same command was interrupted."),
]


def style(
    content: Annotated[Path, Parameter(help="The photograph to be painted; sample:chelsea is one that comes along.")],
    *styles: Annotated[
        Path, Parameter(help="Pictures whose manner it is painted in; none: a painting that comes along.")
    ],
    share: Annotated[
        list[str] | None,
        Parameter(
            name=["--share", "--shares"],
            group=_WHAT,
            negative="",
            help="How much each style counts, by comma; default: all alike.",
        ),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        Parameter(
            name=["--mask", "--masks"],
            group=_WHAT,
            negative="",
            help="For each style a picture as large as the content, white where that style belongs.",
        ),
    ] = None,
    each: Annotated[
        bool,
        Parameter(group=_WHAT, negative="", show_default=False, help="One picture for each style, and a sheet of all."),
    ] = False,
    contents: Annotated[
        list[Path] | None,
        Parameter(group=_WHAT, negative="", help="More photographs for the sheet: each is painted in each style."),
    ] = None,
    matrix: Annotated[
        bool,
        Parameter(
            group=_WHAT,
            negative="",
            show_default=False,
            help="The slide's figure: reconstructions for content layers by style layers.",
        ),
    ] = False,
    net: Net = "squeezenet1_1",
    size: Annotated[
        int | None, Parameter(group=_WHAT, help="Longer side of the picture; default: as the content, at most 512.")
    ] = None,
    content_weight: Annotated[float, Parameter(group=_LOSS, help="Alpha, the same for every network.")] = 1.0,
    style_weight: Annotated[float, Parameter(group=_LOSS, help="Beta, the same for every network.")] = 20.0,
    content_layer: Annotated[
        list[str] | None,
        Parameter(
            name=["--content-layer", "--content-layers"],
            group=_LOSS,
            negative="",
            help="Layers of the content loss, by comma; default: what suits the network.",
        ),
    ] = None,
    style_layer: Layers = None,
    layer_weights: LayerWeights = None,
    raw: Annotated[
        bool,
        Parameter(
            group=_LOSS,
            negative="",
            show_default=False,
            help="Weights for the losses as the formulas give them, not for their shares.",
        ),
    ] = False,
    tv: Variation = 0.0,
    pooling: Pooling = "max",
    canvas: Canvas = None,
    optimiser: Optimiser = "lbfgs",
    history: History = 10,
    rate: Rate = None,
    steps: Annotated[int, Parameter(group=_DESCENT, help="At each size of the picture.")] = 150,
    scales: Annotated[
        int | None,
        Parameter(
            group=_DESCENT, help="Sizes from coarse to fine, each twice the one before; default: from 128 pixels on."
        ),
    ] = None,
    start: Annotated[
        Literal["content", "style", "random"], Parameter(group=_DESCENT, help="What the picture begins with.")
    ] = "content",
    begin: Annotated[Path | None, Parameter(group=_DESCENT, help="Begin with this picture instead.")] = None,
    style_scale: Annotated[
        float,
        Parameter(group=_LOOK, help="Longer side of the styles over that of the picture: more for broader strokes."),
    ] = 1.0,
    colours: Annotated[
        Literal["style", "luminance", "matched"],
        Parameter(
            group=_LOOK,
            help="Of the style; or of the content, by painting its luminance alone or by giving its colours to the style.",
        ),
    ] = "style",
    block: Block = None,
    snapshots: Snapshots = 0,
    film: FilmName = None,
    fps: Fps = None,
    resume: Resume = False,
    seed: Annotated[int, Parameter(group=_DESCENT, help="Of a random start.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Paint a photograph in the manner of other pictures (Gatys, Ecker & Bethge).

    Ctrl-C keeps the picture so far; --resume goes on from there.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(content), "styles": [str(path) for path in styles], "shares": split(share),
        "masks": [str(path) for path in mask or []], "each": each, "contents": [str(path) for path in contents or []],
        "matrix": matrix, "net": net, **source.parameters(), "size": size, "content_weight": content_weight,
        "style_weight": style_weight, "content_layers": split(content_layer), "style_layers": split(style_layer),
        "layer_weights": split(layer_weights), "raw": raw, "tv": tv, "pooling": pooling, "canvas": canvas,
        "optimiser": optimiser, "history": history, "rate": rate, "steps": steps, "scales": scales, "start": start,
        "begin": None if begin is None else str(begin), "style_scale": style_scale, "colours": colours, "block": block,
        "snapshots": snapshots, "seed": seed,
    }  # fmt: skip
    several = each or bool(contents) or matrix
    outcome = _made("style", parameters, source, output, said, _stem(content), film, fps, resume, several)
    if not (said.json or said.quiet or several):
        _losses(outcome.facts, "photograph")
    _told(outcome.facts, said)


def texture(
    image: Annotated[Path, Parameter(help="The sample; sample:brick, sample:grass and sample:gravel come along.")],
    *,
    size: Annotated[
        str | None, Parameter(group=_WHAT, help="Of the texture, SIDE or WIDTHxHEIGHT; default: of the sample.")
    ] = None,
    sample: Annotated[
        int | None,
        Parameter(group=_WHAT, help="Bring the sample's longer side to so many pixels; default: at most 256."),
    ] = None,
    tile: Annotated[
        bool,
        Parameter(
            group=_WHAT, negative="", show_default=False, help="Make edges fit, to be laid side by side without seams."
        ),
    ] = False,
    figure: Annotated[
        bool,
        Parameter(
            group=_WHAT, negative="", show_default=False, help="The slide's figure: by deeper and deeper layers."
        ),
    ] = False,
    net: Net = "squeezenet1_1",
    style_layer: Layers = None,
    layer_weights: LayerWeights = None,
    tv: Variation = 0.0,
    pooling: Pooling = "max",
    canvas: Canvas = None,
    optimiser: Optimiser = "lbfgs",
    history: History = 10,
    rate: Rate = None,
    steps: Annotated[int, Parameter(group=_DESCENT, help="At each size of the texture.")] = 300,
    scales: Annotated[
        int | None, Parameter(group=_DESCENT, help="Sizes from coarse to fine, each twice the one before.")
    ] = 1,
    block: Block = None,
    snapshots: Snapshots = 0,
    film: FilmName = None,
    fps: Fps = None,
    resume: Resume = False,
    seed: Annotated[int, Parameter(group=_DESCENT, help="Of the noise that it begins with.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Grow a texture like a sample, of any size, from noise (Gatys, Ecker & Bethge).

    Ctrl-C keeps the texture so far; --resume goes on from there.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "size": size, "sample": sample, "tile": tile, "figure": figure, "net": net,
        **source.parameters(), "style_layers": split(style_layer), "layer_weights": split(layer_weights), "tv": tv,
        "pooling": pooling, "canvas": canvas, "optimiser": optimiser, "history": history, "rate": rate, "steps": steps,
        "scales": scales, "block": block, "snapshots": snapshots, "seed": seed,
    }  # fmt: skip
    outcome = _made("texture", parameters, source, output, said, _stem(image), film, fps, resume, figure)
    if not (said.json or said.quiet or figure):
        _losses(outcome.facts, "noise")
    _told(outcome.facts, said)


def _made(
    verb: str,
    parameters: dict[str, Any],
    source: Source,
    output: Output,
    said: Said,
    stem: str,
    film: Literal["mp4", "webp"] | None,
    fps: int | None,
    resume: bool,
    several: bool,
) -> Outcome:
    """Run the job, as a film if one is wanted, or as something that can be resumed if it makes a single picture."""
    if film is None:
        if fps is not None:
            raise PhospheneError("--fps is for films: give --film with it")
        if several and resume:
            raise PhospheneError("a sheet of several pictures can't be resumed: leave --resume out")
        unfinished = None if several else resume
        return write.make(verb, parameters, source, output, said, stem=stem, unfinished=unfinished)
    if several or resume or parameters["snapshots"]:
        raise PhospheneError("a film is of one picture, from its beginning, without snapshots")
    from phosphene.cli.films import make_film

    rate = 15 if fps is None else fps
    return make_film(verb, parameters, source, output, said, stem=stem, film=film, fps=rate)


def _stem(path: Path) -> str:
    """The beginning of file names: of a sample its own name."""
    return path.stem.removeprefix("sample:")


def _losses(facts: Mapping[str, Any], beginning: str) -> None:
    """The losses as the formulas give them."""
    rows = [
        (f"style {layer}", f"{before:.4g}", f"{now:.4g}", f"{now / before:.2%}" if before else "-")
        for layer, (before, now) in facts["style_losses"].items()
    ]
    rows += [
        (f"content {layer}", f"{before:.4g} (of an even grey)", f"{now:.4g}", f"{now / before:.2%}" if before else "-")
        for layer, (before, now) in facts["content_losses"].items()
    ]
    terminal.table(("loss", f"of the {beginning}", "of the picture", "left"), rows)


def _told(facts: Mapping[str, Any], said: Said) -> None:
    for line in facts.get("switches", ()):
        terminal.warn(line, said)
    if "stopped" in facts:
        terminal.warn(f"{facts['stopped']}; the recipe says so, too", said)
        sys.exit(130)
