"""`filters`, `activations`, `explain`, `patches`, `visualize`, `fool`: the commands that make pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import Net, Output, Said, Source, split
from phosphene.errors import ImageError, LabelError

Photo = Annotated[Path, Parameter(help="The picture: JPEG, PNG, WebP, TIFF, ...")]


def filters(
    *,
    net: Net = "efficientnet_lite0",
    layer: Annotated[str | None, Parameter(help="Another layer that sees the image itself.")] = None,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show the filters of the first layer, the only weights that are pictures."""
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {"net": net, **source.parameters(), "layer": layer}
    write.make("filters", parameters, source, output, said, stem=net)


def activations(
    image: Photo,
    *,
    net: Net = "efficientnet_lite0",
    layer: Annotated[
        list[str] | None, Parameter(negative="", help="Layers, by comma; default: one of each resolution.")
    ] = None,
    channels: Annotated[int, Parameter(help="Channels per layer.")] = 16,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show what the channels of several layers make of a photograph."""
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "net": net, **source.parameters(), "layers": split(layer), "channels": channels,
    }  # fmt: skip
    write.make("activations", parameters, source, output, said, stem=image.stem)


def explain(
    image: Annotated[tuple[Path, ...], Parameter(negative="", help="Pictures, or folders of them.")] = (),
    *,
    net: Net = "efficientnet_lite0",
    method: Annotated[
        list[str] | None,
        Parameter(
            negative="", help="Methods, by comma, or all; default: one of each kind. `--method list` names them."
        ),
    ] = None,
    class_: Annotated[
        list[str] | None,
        Parameter(
            name="--class", negative="", help="Names, indices or synsets, by comma; default: the predicted class."
        ),
    ] = None,
    unit: Annotated[str | None, Parameter(help="Explain a unit instead: LAYER:CHANNEL[:ROW,COLUMN].")] = None,
    layer: Annotated[str | None, Parameter(help="Layer of the CAM methods; default: the last with a map.")] = None,
    score: Annotated[
        Literal["logit", "log-probability"],
        Parameter(help="Explain the class's own score, or what sets it apart from all other classes."),
    ] = "logit",
    seed: Annotated[int, Parameter(help="Of SmoothGrad's noise and RISE's masks.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show which pixels matter for classes or for a single unit.

    One picture gives a contact sheet and a file for each method. Several, or a folder, give a page to browse and the raw
    maps as .npz in one folder (default: phosphene-explain); run again, it goes on where it was interrupted.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    methods = split(method)
    if methods == ["list"]:
        return _list_methods(said)
    if not image:
        raise ImageError("there is no picture to explain: give one, several, or a folder")
    if class_ is not None and not split(class_):
        raise LabelError(f"no class is called '{','.join(class_)}': give a name, an index or a synset")
    from phosphene import images

    parameters = {
        "net": net, **source.parameters(), "methods": methods, "classes": split(class_), "unit": unit, "layer": layer,
        "score": score, "seed": seed,
    }  # fmt: skip
    if len(image) == 1 and not image[0].is_dir():
        made = write.make("explain", {"image": str(image[0]), **parameters}, source, output, said, stem=image[0].stem)
        for name, why in made.facts["refused"].items():
            terminal.warn(f"left out {name}: {why}", said)
        return None
    from phosphene.cli.many import make_many

    title = f"What {net} looks at"
    make_many("explain", images.find(image), parameters, source, output, said, title)
    return None


def _list_methods(said: Said) -> None:
    from phosphene.explain import METHODS

    rows = [(m.name, m.idea, m.paper, "ReLU networks" if m.needs_rule else "any") for m in METHODS.values()]
    terminal.facts(
        {"methods": [dict(zip(("name", "idea", "paper", "networks"), row, strict=True)) for row in rows]}, said
    )
    if not (said.json or said.quiet):
        terminal.table(("method", "its map shows", "paper", "networks"), rows)


def patches(
    folder: Annotated[Path, Parameter(help="A folder of photographs, thousands if you like.")],
    *,
    layer: Annotated[str, Parameter(help="A layer; `phosphene layers NET` lists them.")],
    units: Annotated[
        list[str] | None,
        Parameter(name=["--units", "--unit"], negative="", help="Channels, by comma; default: eight of them."),
    ] = None,
    net: Net = "efficientnet_lite0",
    count: Annotated[int, Parameter(help="Patches for each unit.")] = 9,
    method: Annotated[
        Literal["guided-backprop", "deconvnet", "gradient"], Parameter(help="What stands beside the patches.")
    ] = "guided-backprop",
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show the patches of a folder of photographs that excite units of a layer most, and what in them does."""
    source, output, said = source or Source(), output or Output(), said or Said()
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: patches are looked for in a folder of photographs")
    parameters = {
        "folder": str(folder), "layer": layer, "units": split(units), "net": net, **source.parameters(), "count": count,
        "method": method,
    }  # fmt: skip
    outcome = write.make("patches", parameters, source, output, said, stem=net)
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why}", said)


def visualize(
    *,
    class_: Annotated[
        list[str] | None, Parameter(name="--class", negative="", help="Classes by name, index or synset.")
    ] = None,
    layer: Annotated[str | None, Parameter(help="A layer, for --unit.")] = None,
    unit: Annotated[
        list[str] | None,
        Parameter(negative="", help="Channels of the layer, by comma; CHANNEL:ROW:COLUMN for one neuron."),
    ] = None,
    net: Net = "squeezenet1_1",
    canvas: Annotated[
        Literal["pixel", "fourier"],
        Parameter(help="The slide's pixels from zeros, or a decorrelated spectrum."),
    ] = "fourier",
    steps: Annotated[int, Parameter(help="Steps of gradient ascent.")] = 200,
    rate: Annotated[float | None, Parameter(help="Adam's learning rate; default: what suits the canvas.")] = None,
    l2: Annotated[float | None, Parameter(help="Lambda of S - lambda ||I||^2; default: what suits the canvas.")] = None,
    blur: Annotated[
        float | None, Parameter(help="Pixel canvas: sigma of the Gaussian blur every 2 steps; default: 0.7.")
    ] = None,
    clip_norm: Annotated[
        float | None, Parameter(help="Pixel canvas: share of smallest pixels set to 0; default: 0.02.")
    ] = None,
    clip_gradient: Annotated[
        float | None, Parameter(help="Pixel canvas: share of least useful pixels set to 0; default: 0.02.")
    ] = None,
    jitter: Annotated[int, Parameter(help="Random shift before each step, in pixels.")] = 16,
    rotate: Annotated[float, Parameter(help="Random rotation before each step, in degrees.")] = 15.0,
    scale: Annotated[float, Parameter(help="Random zoom before each step: 0.2 for 0.8 to 1.2.")] = 0.2,
    size: Annotated[int | None, Parameter(help="Side of the pictures; default: the network's input.")] = None,
    seed: Annotated[int, Parameter(help="Of the random movements.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Make pictures of what a class or a unit looks for, by gradient ascent."""
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "classes": split(class_), "layer": layer, "units": split(unit), "net": net, **source.parameters(),
        "canvas": canvas, "steps": steps, "rate": rate, "l2": l2, "blur": blur, "clip_norm": clip_norm,
        "clip_gradient": clip_gradient, "jitter": jitter, "rotate": rotate, "scale": scale, "size": size, "seed": seed,
    }  # fmt: skip
    write.make("visualize", parameters, source, output, said, stem=net)


def fool(
    image: Photo,
    *,
    target: Annotated[str, Parameter(help="The class to be seen instead: name, index or synset.")],
    net: Net = "efficientnet_lite0",
    confidence: Annotated[float, Parameter(help="Probability that the target has to reach.")] = 0.5,
    steps: Annotated[int, Parameter(help="Steps before giving up.")] = 200,
    seed: Annotated[int, Parameter(help="Of the control: noise of the same size.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Change a photograph, as little as possible, until the network sees another class."""
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "target": target, "net": net, **source.parameters(), "confidence": confidence,
        "steps": steps, "seed": seed,
    }  # fmt: skip
    outcome = write.make("fool", parameters, source, output, said, stem=image.stem, single="fooled", lossless=True)
    found = outcome.facts
    if found["success"]:
        terminal.say(
            f"{net} saw {found['before']['name']} ({found['before']['probability']:.1%}) and sees"
            f" {found['after']['name']} ({found['after']['probability']:.1%});"
            f" L2 {found['l2']:.2f}, Linf {round(found['linf'] * 255)}/255, read back from the file:"
            f" {found['read_back']['name']} ({found['read_back']['probability']:.1%})",
            said,
        )
    else:
        terminal.say(
            f"not fooled within {steps} steps: {found['target']['name']} reached"
            f" {found['target']['probability']:.1%}; give more --steps or less --confidence",
            said,
        )
        sys.exit(1)
