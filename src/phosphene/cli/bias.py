"""`shape-bias`: does the network decide by shape or by texture?"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from csv import writer
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Output, Said, Source
from phosphene.errors import ImageError, OutputError

_COLUMNS = ("subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename")


def shape_bias(
    folder: Annotated[
        Path, Parameter(help="Cue-conflict images named as cat1-car3.png: the shape of a cat, the texture of a car.")
    ],
    *,
    net: Net = "squeezenet1_1",
    aggregate: Annotated[
        Literal["mean", "sum", "max"], Parameter(help="Of the probabilities of a category's classes.")
    ] = "mean",
    csv: Annotated[
        Path | None,
        Parameter(group=OUTPUT, help="Also write the decision for each image, in the format of Geirhos' data."),
    ] = None,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Measure whether the network decides by shape or by texture, beside people and published networks.

    For the images of Geirhos et al. (ICLR 2019), github.com/rgeirhos/texture-vs-shape, or others named like them.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: shape bias is measured on a folder of cue-conflict images")
    _keep_images(folder, output.out)
    parameters = {"folder": str(folder), "net": net, **source.parameters(), "aggregate": aggregate}
    with _table_at(csv, output.overwrite):
        outcome = write.make("shape-bias", parameters, source, output, said, stem=net)
        if csv is not None:
            from phosphene.images.save import write_whole

            write_whole(csv, _table(outcome.facts), overwrite=output.overwrite)
            terminal.say(f"wrote {csv}", said)
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why}", said)
    _print(outcome.facts, said)


def _keep_images(folder: Path, out: Path) -> None:
    """Refuse to replace one of the images, also with --overwrite."""
    if out.is_file() and folder.resolve() in out.resolve().parents:
        raise OutputError(f"'{out}' lies among the images, which are kept: give another --out")


@contextmanager
def _table_at(csv: Path | None, overwrite: bool) -> Iterator[None]:
    """Check before the work that the table can be written."""
    if csv is None:
        yield
        return
    if csv.suffix.lower() in write.SUFFIXES:
        raise OutputError(f"'{csv}' is the name of a picture, and --csv writes a table: give a name that ends in .csv")
    if csv.exists() and not csv.is_dir() and not overwrite:
        raise OutputError(f"'{csv}' exists and is kept: give --overwrite to replace it, or another --csv")
    with write.reserved([csv], overwrite):
        yield


def _table(facts: Mapping[str, Any]) -> bytes:
    """The columns and the image names of the published data, so that its analysis reads them: one session, condition 0."""
    text = io.StringIO()
    rows = writer(text, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for trial, row in enumerate(facts["decisions"], start=1):
        name = f"{trial:04d}_s5n_dnn_0_{row['shape']}_00_{row['image']}"
        rows.writerow([facts["net"], 1, trial, "NaN", row["decision"], row["shape"], 0, name])
    return text.getvalue().encode()


def _print(facts: Mapping[str, Any], said: Said) -> None:
    if said.quiet or said.json:
        return
    from phosphene.jobs.shape_bias import told

    own, categories = facts["net"], facts["categories"]
    rows = [(name, *_cells(found), _interval(found)) for name, found in categories.items()]
    header = ("by shape", "by texture", "by neither", "shape bias")
    if len(rows) > 1:
        terminal.table(("shape", *header, "95% interval"), rows, title=f"{own}, by the category of the shape")
    others = sorted(facts["published"], key=lambda one: -one["shape_bias"]["mean"])
    rows = [(f"{own}, here", *_cells(facts)), *((one["title"], *_cells(one)) for one in others)]
    terminal.table(("", *header), rows, title=f"Published, {_over(categories)}")
    people = facts["people"]
    terminal.say(f"The shape bias of ten people is {people['least']:.1%} to {people['most']:.1%}.", said)
    for line in told(facts):
        terminal.say(line, said)


def _cells(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    bias = found["shape_bias"]
    counts = (str(found["by_shape"]), str(found["by_texture"]), str(found["by_neither"]))
    return (*counts, "-" if bias is None else f"{bias['mean']:.1%}")


def _interval(found: Mapping[str, Any]) -> str:
    bias = found["shape_bias"]
    return "-" if bias is None else f"{bias['low']:.1%} to {bias['high']:.1%}"


def _over(categories: Mapping[str, Any]) -> str:
    """Which images the published figures are over: all 75 of each shape category in the folder."""
    names = list(categories)
    if len(names) == 16:
        return "all 1,200 images of 16 shapes"
    return f"the {75 * len(names):,} images of these shapes only: {', '.join(names)}"
