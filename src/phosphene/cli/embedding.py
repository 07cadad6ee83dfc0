"""`embed`: a folder of photographs as a map, with a page to look around in it."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.errors import ImageError, OutputError

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

PAGE, NUMBERS, TABLE = "index.html", "embed.npz", "points.csv"
_PICTURES = ("embed", "grid", "points", "neighbours")


def embed(
    folder: Annotated[Path, Parameter(help="A folder of photographs, thousands if you like; classes are its folders.")],
    *,
    net: Net = "efficientnet_lite0",
    layer: Annotated[
        str | None, Parameter(help="Where features come from; default: fc7, or what the classifier is given.")
    ] = None,
    method: Annotated[Literal["tsne", "pca"], Parameter(help="How the map is made.")] = "tsne",
    perplexity: Annotated[
        float, Parameter(help="t-SNE: about how many neighbours count; lowered for few images.")
    ] = 30.0,
    neighbours: Annotated[
        int | None, Parameter(help="Nearest images to show of each; default: 10, or all of fewer.")
    ] = None,
    query: Annotated[Path | None, Parameter(help="A picture: also show the images that are nearest to it.")] = None,
    seed: Annotated[int, Parameter(help="Of t-SNE's start, and of the images drawn out of very many.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the page, the pictures and the numbers.")] = Path(
        "phosphene-embed"
    ),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a map that exists.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Map a folder of photographs by what the network makes of them: t-SNE or PCA of its last features.

    Writes index.html to look around in, the map as pictures, the features and places as embed.npz, and points.csv.
    """
    source, said = source or Source(), said or Said()
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: a map is made of a folder of photographs")
    if write.is_file(out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"'{out}' is one file: --out needs a folder")
    from phosphene.jobs.embed import embed as job
    from phosphene.jobs.workshop import Workshop

    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "layer": layer, "method": method,
        "perplexity": perplexity, "neighbours": neighbours, "query": None if query is None else str(query), "seed": seed,
    }  # fmt: skip
    _keep_others(out, overwrite)
    with write.reserved([out / f"{name}.png" for name in _PICTURES], overwrite):
        workshop = Workshop(source.device)
        outcome: Outcome = terminal.run(job(workshop, **parameters), said, workshop)
        written = _write(out, outcome, workshop, parameters, overwrite)
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why}", said)
    _print(outcome.facts, said)
    terminal.say(f"wrote {', '.join(str(path) for path in written)}", said)
    terminal.facts({"command": "embed", "written": [str(path) for path in written], **outcome.facts}, said)


def _keep_others(out: Path, overwrite: bool) -> None:
    """Refuse before the work to replace a page or numbers that exist, or a folder that one of them would need."""
    for file in (out / PAGE, out / NUMBERS, out / TABLE):
        if file.is_dir():
            raise OutputError(f"'{file}' is a folder: a file name is needed there")
        if file.exists() and not overwrite:
            raise OutputError(f"'{file}' exists and is kept: give --overwrite to replace it, or another --out")


def _write(out: Path, outcome: Outcome, workshop: Workshop, parameters: dict[str, Any], overwrite: bool) -> list[Path]:
    from phosphene.images.save import write_whole
    from phosphene.report.embedding import page

    pictures = [
        (
            out / f"{picture.name}.png",
            picture.image,
            workshop.recipe("embed", parameters, picture.name, outcome.notes).to_json(),
        )
        for picture in outcome.pictures
    ]
    written = write.write(pictures, overwrite)
    others = {
        PAGE: page(outcome, parameters).encode("utf-8", "replace"),
        NUMBERS: _numbers(outcome),
        TABLE: _table(outcome.facts),
    }
    for name, data in others.items():
        write_whole(out / name, data, overwrite=True)
    write.drop_stale([out / "neighbours.png"], written, ["embed"])  # of an earlier query, on another map
    return [out / PAGE, *written, out / NUMBERS, out / TABLE]


def _numbers(outcome: Outcome) -> bytes:
    """The arrays but for the thumbnails, and the names of the rows."""
    import numpy as np

    arrays: dict[str, Any] = {key: array.numpy() for key, array in outcome.arrays.items() if key != "thumbnails"}
    arrays["names"] = np.array([row["name"] for row in outcome.facts["points"]])
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _table(facts: Any) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["name", "class", "x", "y"])
    rows.writerows([row["name"], row["class"] or "", row["x"], row["y"]] for row in facts["points"])
    return text.getvalue().encode("utf-8", "surrogateescape")  # names as the file system has them


def _print(facts: Any, said: Said) -> None:
    if said.quiet or said.json:
        return
    from phosphene.jobs.embed import told

    for line in told(facts):
        terminal.say(line, said)
    if "query" in facts:
        rows = [(row["name"], row["class"] or "-", f"{row['distance']:.3f}") for row in facts["query"]["neighbours"]]
        terminal.table(("nearest to the query", "class", "distance"), rows)
