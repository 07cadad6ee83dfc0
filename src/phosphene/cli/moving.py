"""`visualize`, `dream`, `invert`: the commands that move the image."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import Net, Output, Said, Source, split
from phosphene.cli.see import Photo
from phosphene.errors import PhospheneError
from phosphene.memory import give_back

_WHAT = Group("What to look for", sort_key=2)
_PRIOR = Group("Priors", sort_key=4)
_MOVES = Group("Random movements before each step", sort_key=5)

Canvas = Annotated[
    Literal["pixel", "fourier"],
    Parameter(help="The slide's pixels from zeros, or a spectrum with decorrelated colours."),
]


def visualize(
    *,
    class_: Annotated[
        list[str] | None,
        Parameter(
            name="--class",
            group=_WHAT,
            negative="",
            help="Classes by name, index or synset, by comma; ranges (0-99); or all.",
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        Parameter(
            name=["--layer", "--layers"],
            group=_WHAT,
            negative="",
            help="A layer, for --unit; or several, by comma, or all, for --per-layer.",
        ),
    ] = None,
    unit: Annotated[
        list[str] | None,
        Parameter(
            name=["--unit", "--units"],
            group=_WHAT,
            negative="",
            help="Channels of the layer, by comma, or all; CHANNEL:ROW:COLUMN for one neuron; 12-40 for channel 12"
            " minus channel 40.",
        ),
    ] = None,
    per_layer: Annotated[
        int | None, Parameter(group=_WHAT, help="So many channels of each layer, evenly spread; default with all: 9.")
    ] = None,
    direction: Annotated[
        Path | None, Parameter(group=_WHAT, help="A .npy file with a weight for each channel of the layer.")
    ] = None,
    several: Annotated[int, Parameter(group=_WHAT, help="Pictures of each target, as different as can be.")] = 1,
    diversity: Annotated[float, Parameter(group=_WHAT, help="How hard these are pushed apart.")] = 0.5,
    patches: Annotated[
        Path | None, Parameter(group=_WHAT, help="A folder of photographs: show what in them excites each unit most.")
    ] = None,
    net: Net = "squeezenet1_1",
    canvas: Canvas = "fourier",
    colours: Annotated[
        Literal["rgb", "decorrelated"] | None,
        Parameter(help="Colours that a step moves; default: rgb for pixels, decorrelated for fourier."),
    ] = None,
    decay: Annotated[
        float | None,
        Parameter(
            help="Fourier canvas: frequency f counts 1/f^decay; more is smoother; default: what suits the network."
        ),
    ] = None,
    steps: Annotated[int, Parameter(help="Steps of gradient ascent, at most.")] = 200,
    rate: Annotated[float | None, Parameter(help="Adam's learning rate; default: what suits the canvas.")] = None,
    schedule: Annotated[
        Literal["constant", "cosine"] | None,
        Parameter(
            help="Of the rate; cosine warms up and cools down; default: constant for pixels, cosine for fourier."
        ),
    ] = None,
    patience: Annotated[int, Parameter(help="End a picture that has not risen over so many steps; 0: never.")] = 0,
    contrast: Annotated[
        float, Parameter(help="How much the scores of all classes count against that of the class; 1: log-probability.")
    ] = 0.0,
    natural: Annotated[
        float | None,
        Parameter(
            group=_PRIOR,
            help="Classes: weight of the distance to photographs in what the channels do; default: 1.5 on the fourier"
            " canvas, 0 on pixels.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        Parameter(group=_PRIOR, help="A folder of photographs that tell it, for a network that is not a bundled one."),
    ] = None,
    l2: Annotated[
        float | None, Parameter(group=_PRIOR, help="Lambda of S - lambda ||I||^2; default: what suits the canvas.")
    ] = None,
    tv: Annotated[float, Parameter(group=_PRIOR, help="Weight of total variation.")] = 0.0,
    beta: Annotated[float, Parameter(group=_PRIOR, help="Its exponent: 2 smooth, 1 sharp edges.")] = 2.0,
    lp: Annotated[float, Parameter(group=_PRIOR, help="Weight of sum |I|^p.")] = 0.0,
    p: Annotated[float, Parameter(group=_PRIOR, help="Its exponent.")] = 6.0,
    blur: Annotated[
        float | None,
        Parameter(group=_PRIOR, help="Pixel canvas: sigma of the Gaussian blur every 2 steps; default: 0.7."),
    ] = None,
    clip_norm: Annotated[
        float | None, Parameter(group=_PRIOR, help="Pixel canvas: share of smallest pixels set to 0; default: 0.02.")
    ] = None,
    clip_gradient: Annotated[
        float | None,
        Parameter(group=_PRIOR, help="Pixel canvas: share of least useful pixels set to 0; default: 0.02."),
    ] = None,
    jitter: Annotated[
        int | None, Parameter(group=_MOVES, help="Shift, in pixels; default: what suits the network.")
    ] = None,
    rotate: Annotated[float, Parameter(group=_MOVES, help="Rotation, in degrees.")] = 15.0,
    scale: Annotated[
        float | None, Parameter(group=_MOVES, help="Zoom: 0.2 for 0.8 to 1.2; default: what suits the network.")
    ] = None,
    crop: Annotated[float, Parameter(group=_MOVES, help="Windows of at least this share of the sides; 1: none.")] = 1.0,
    grain: Annotated[float, Parameter(group=_MOVES, help="Noise of up to this standard deviation, of 0 to 1.")] = 0.0,
    noise: Annotated[
        float | None, Parameter(help="Strength of the noise to begin with; default: none for one picture of a target.")
    ] = None,
    size: Annotated[
        str | None, Parameter(help="Side of the pictures, or WIDTHxHEIGHT; default: the network's input.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of the random movements and the noise.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Make pictures of what classes, units or whole layers look for, by gradient ascent.

    Ctrl-C keeps the pictures so far.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "classes": split(class_), "layers": split(layer), "units": split(unit), "per_layer": per_layer,
        "direction": _text(direction), "patches": _text(patches), "several": several, "diversity": diversity,
        "net": net, **source.parameters(), "canvas": canvas, "colours": colours, "steps": steps, "rate": rate,
        "schedule": schedule, "patience": patience, "natural": natural, "like": _text(like), "contrast": contrast,
        "l2": l2, "tv": tv, "beta": beta, "lp": lp, "p": p, "blur": blur,
        "clip_norm": clip_norm, "clip_gradient": clip_gradient, "jitter": jitter, "rotate": rotate, "scale": scale,
        "crop": crop, "grain": grain, "decay": decay, "noise": noise, "size": size, "seed": seed,
    }  # fmt: skip
    outcome = write.make("visualize", parameters, source, output, said, stem=net)
    silent = [row["target"] for row in outcome.facts["targets"] if row.get("silent")]
    if silent:
        shown = ", ".join(silent[:5]) + (f" and {len(silent) - 5} others" if len(silent) > 5 else "")
        terminal.warn(f"silent, so there is nothing to see: {shown}; the activation never rose", said)
    _stopped(outcome.facts, said)


def dream(
    image: Photo,
    *,
    net: Net = "squeezenet1_1",
    layer: Annotated[
        list[str] | None,
        Parameter(
            name=["--layer", "--layers"],
            negative="",
            help="Layers whose activations are amplified, by comma; default: one that sees eyes.",
        ),
    ] = None,
    channel: Annotated[
        list[str] | None,
        Parameter(name=["--channel", "--channels"], negative="", help="Only these channels of the layer, by comma."),
    ] = None,
    guide: Annotated[
        Path | None, Parameter(help="Amplify what is like something in this picture instead of everything.")
    ] = None,
    octaves: Annotated[int, Parameter(help="Sizes of the photograph to dream at, small to large.")] = 5,
    ratio: Annotated[float, Parameter(help="From one to the next.")] = 1.4,
    steps: Annotated[int, Parameter(help="Steps in each octave.")] = 15,
    rate: Annotated[float, Parameter(help="Size of a step: root mean square of the change of a pixel.")] = 0.015,
    jitter: Annotated[int, Parameter(help="Random shift before each step, in pixels.")] = 32,
    smooth: Annotated[float, Parameter(help="Blur of the gradient, in pixels: less grain.")] = 1.5,
    size: Annotated[int | None, Parameter(help="Resize the photograph's longer side first; default: as it is.")] = None,
    window: Annotated[int, Parameter(help="Larger pictures are looked at in windows of this side.")] = 640,
    overlap: Annotated[int, Parameter(help="Pixels in which windows fade into each other.")] = 128,
    zoom: Annotated[int, Parameter(help="Make a film of so many frames that falls into the dream.")] = 0,
    factor: Annotated[float, Parameter(help="How much each frame is enlarged.")] = 1.04,
    film: Annotated[
        Literal["mp4", "webp"] | None, Parameter(help="The film's format; default: mp4, which needs PyAV.")
    ] = None,
    fps: Annotated[int | None, Parameter(help="The film's frames a second; default: 15.")] = None,
    seed: Annotated[int, Parameter(help="Of the random shifts.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Let the network dream: amplify whatever a layer sees in a photograph of any size (DeepDream).

    Ctrl-C keeps the dream so far.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "net": net, **source.parameters(), "layers": split(layer), "channels": split(channel),
        "guide": _text(guide), "octaves": octaves, "ratio": ratio, "steps": steps, "rate": rate, "jitter": jitter,
        "smooth": smooth, "size": size, "window": window, "overlap": overlap, "zoom": zoom, "factor": factor,
        "seed": seed,
    }  # fmt: skip
    give_back()  # photographs may be large
    if zoom:
        from phosphene.cli.films import make_film

        outcome = make_film(
            "dream",
            parameters,
            source,
            output,
            said,
            stem=image.stem,
            film=film or "mp4",
            fps=15 if fps is None else fps,
        )
    elif film is not None or fps is not None:
        raise PhospheneError("--film and --fps are for films: give --zoom FRAMES with them")
    else:
        outcome = write.make("dream", parameters, source, output, said, stem=image.stem)
    if outcome.facts.get("silent"):
        layers = " and ".join(outcome.facts["layers"])
        terminal.warn(f"{layers} is silent for this photograph, so there was nothing to amplify", said)
    _stopped(outcome.facts, said)


def invert(
    image: Photo,
    *,
    net: Net = "squeezenet1_1",
    layer: Annotated[
        list[str] | None,
        Parameter(
            name=["--layer", "--layers"],
            negative="",
            help="Layers, by comma; default: nine from the first to the last.",
        ),
    ] = None,
    canvas: Canvas = "fourier",
    steps: Annotated[int, Parameter(help="Steps for each layer, at most.")] = 300,
    rate: Annotated[float | None, Parameter(help="Adam's learning rate; default: by the layer's depth.")] = None,
    patience: Annotated[int, Parameter(help="End a layer that has not risen over so many steps; 0: never.")] = 0,
    tv: Annotated[
        float | None, Parameter(group=_PRIOR, help="Weight of total variation; default: by the layer's depth.")
    ] = None,
    beta: Annotated[float, Parameter(group=_PRIOR, help="Its exponent: 2 smooth, 1 sharp edges.")] = 2.0,
    lp: Annotated[
        float | None, Parameter(group=_PRIOR, help="Weight of sum |I|^p; default: by the layer's depth.")
    ] = None,
    p: Annotated[float, Parameter(group=_PRIOR, help="Its exponent.")] = 6.0,
    scales: Annotated[
        int | None, Parameter(help="From coarse to fine in so many sizes; default: 3 for pixels, 1 for fourier.")
    ] = None,
    noise: Annotated[float, Parameter(help="Strength of the noise to begin with.")] = 0.0,
    seed: Annotated[int, Parameter(help="Of the noise.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show the photograph as each layer remembers it: what can be reconstructed from its activations alone.

    Ctrl-C keeps the layers so far.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "net": net, **source.parameters(), "layers": split(layer), "canvas": canvas,
        "steps": steps, "rate": rate, "patience": patience, "tv": tv, "beta": beta, "lp": lp, "p": p,
        "scales": scales, "noise": noise, "seed": seed,
    }  # fmt: skip
    outcome = write.make("invert", parameters, source, output, said, stem=image.stem)
    if not (said.json or said.quiet):
        rows = [
            (row["layer"], f"{row['error']:.4f}", row["seen"]["name"], f"{row['seen']['probability']:.1%}",
             "yes" if row["recognised"] else "no")
            for row in outcome.facts["layers"]
        ]  # fmt: skip
        terminal.table(
            ("layer", "relative error", f"seen by {outcome.facts['judge']}", "probability", "as before"), rows
        )
    if outcome.facts.get("silent"):
        terminal.warn(f"silent for this photograph, so nothing to invert: {', '.join(outcome.facts['silent'])}", said)
    _stopped(outcome.facts, said)


def _stopped(facts: Mapping[str, Any], said: Said) -> None:
    """Ctrl-C kept something: say so, and end as Ctrl-C does."""
    if "stopped" in facts:
        terminal.warn(f"{facts['stopped']}; the recipe says so, too", said)
        sys.exit(130)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
