"""`tour`: one photograph becomes the illustrated lecture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.errors import ImageError, OutputError


def tour(
    image: Annotated[Path | None, Parameter(help="A photograph; default: a cat from scikit-image.")] = None,
    *,
    net: Net = "efficientnet_lite0",
    folder: Annotated[
        Path | None, Parameter(help="A folder of photographs, for a map of what the last layer thinks of them.")
    ] = None,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder of the report.")] = Path("phosphene-tour"),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a report that exists.")
    ] = False,
    seed: Annotated[int, Parameter(help="Of everything random.")] = 0,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Tell the lecture with a photograph of yours: one page that opens anywhere, without a network."""
    source, said = source or Source(), said or Said()
    begun = time.perf_counter()
    page, pictures = out / "index.html", out / "pictures"
    if folder is not None and not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: the map is of a folder of photographs")
    if out.exists() and not out.is_dir():
        raise OutputError(f"'{out}' is a file: --out needs a folder for the report")
    if pictures.exists() and not overwrite:
        raise OutputError(f"'{pictures}' exists and is kept: give --overwrite to replace it, or another --out")

    from phosphene.cli.output import reserved, write
    from phosphene.images.save import write_whole
    from phosphene.jobs.workshop import Workshop
    from phosphene.names import file_name
    from phosphene.recipe import beside
    from phosphene.report.tour import tour as job

    with reserved([page, pictures / "any.png"], overwrite), _photograph(image, out, overwrite) as path:
        workshop = Workshop(source.device)
        parameters = source.parameters()
        there = None if folder is None else str(folder)
        made = terminal.run(job(workshop, image=path, net=net, seed=seed, folder=there, **parameters), said, workshop)
        stale = _ours(pictures)
        written = write(
            [(pictures / f"{file_name(m.name)}.png", m.picture.image, m.recipe.to_json()) for m in made.made], overwrite
        )
        write_whole(page, made.html.encode(), overwrite=True)
        for old in stale - set(written):
            old.unlink()
            beside(old).unlink()
    seconds = time.perf_counter() - begun
    terminal.say(f"the report is ready after {seconds:.0f} s: {page}", said)
    terminal.say(f"its {len(written)} pictures, each with its recipe: {pictures}", said)
    terminal.facts(
        {"command": "tour", "report": str(page), "pictures": [str(p) for p in written], "seconds": round(seconds, 2),
         "sections": {key: round(value, 2) for key, value in made.seconds.items()}},
        said,
    )  # fmt: skip


def _ours(folder: Path) -> set[Path]:
    """The pictures of an earlier tour: those with a recipe beside them."""
    from phosphene.recipe import beside

    return {path for path in folder.glob("*.png") if beside(path).exists()}


@contextmanager
def _photograph(image: Path | None, out: Path, overwrite: bool) -> Iterator[str]:
    """The photograph's path; without one, scikit-image's Chelsea the cat (CC0, Stefan van der Walt).

    The example is put beside the report, for the report's commands, and taken away again if the report fails.
    """
    if image is not None:
        yield str(image)
        return
    import shutil
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    path, example = out / "chelsea.png", Path(spec.origin).parent / "data" / "chelsea.png"
    was_there = path.exists()
    if was_there and not overwrite and path.read_bytes() != example.read_bytes():
        raise OutputError(f"'{path}' is another picture and is kept: give --overwrite to replace it, or another --out")
    shutil.copyfile(example, path)
    try:
        yield str(path)
    except BaseException:
        if not was_there:
            path.unlink(missing_ok=True)
        raise
