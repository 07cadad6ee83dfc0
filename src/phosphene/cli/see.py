"""`filters`, `activations`, `explain`, `patches`: the commands that look into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

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
    gabor: Annotated[
        bool, Parameter(negative="", show_default=False, help="Also fit a Gabor function to each filter.")
    ] = False,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show the filters of the first layer, the only weights that are pictures.

    Several networks (`--net alexnet,resnet18`) stand side by side; those that can't be had are left out.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {"net": net, **source.parameters(), "layer": layer, "gabor": gabor}
    found = write.make("filters", parameters, source, output, said, stem=net).facts
    for name, why in found.get("refused", {}).items():
        terminal.warn(f"left out {name}: {why}", said)
    for row in found.get("nets", [found]) if gabor and not (said.json or said.quiet) else ():
        _show_fits(row["net"], row["gabor"])


def _show_fits(net: str, fits: dict[str, Any]) -> None:
    header = ("filter", "orientation °", "cycles / pixel", "wavelength", "phase °", "explained")
    names = ("filter", "orientation", "frequency", "wavelength", "phase", "explained")
    forms = ("{}", "{:.1f}", "{:.3f}", "{:.2f}", "{:.1f}", "{:.1%}")
    rows = [[form.format(row[name]) for form, name in zip(forms, names, strict=True)] for row in fits["filters"]]
    terminal.table(header, rows, title=f"{net}: the Gabor function nearest to each filter")
    print(
        f"{net}: a Gabor function explains {fits['mean']:.1%} of a filter on average (median {fits['median']:.1%}), and"
        f" {fits['chance']:.1%} of noise of the same size and colours; {fits['above']} of {len(rows)} filters lie above 95%"
        " of the noise"
    )


def activations(
    image: Photo,
    *,
    net: Net = "efficientnet_lite0",
    layer: Annotated[
        list[str] | None, Parameter(negative="", help="Layers, by comma, or all; default: one of each resolution.")
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
