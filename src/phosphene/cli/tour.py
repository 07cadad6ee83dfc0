"""`tour`: one photograph becomes the illustrated lecture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.errors import OutputError


def tour(
    image: Annotated[Path | None, Parameter(help="A photograph; default: a cat from scikit-image.")] = None,
    *,
    net: Net = "efficientnet_lite0",
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
    page = out / "index.html"
    _check(out, page, overwrite)

    from phosphene import images
    from phosphene.cli.output import write
    from phosphene.images.save import write_whole
    from phosphene.jobs.workshop import Workshop
    from phosphene.report.tour import tour as job

    path = str(image) if image is not None else _example(out / "chelsea.png")
    images.read(path)  # a bad picture is refused before anything is made
    made = terminal.run(job(Workshop(source.device), image=path, net=net, seed=seed, **source.parameters()), said)
    folder = out / "pictures"
    pictures = [(folder / f"{m.name}.png", m.picture.image, m.recipe.to_json()) for m in made.made]
    written = write(pictures, overwrite=True)
    write_whole(page, made.html.encode(), overwrite=True)
    seconds = time.perf_counter() - begun
    terminal.say(f"the report is ready after {seconds:.0f} s: {page}", said)
    terminal.say(f"its {len(written)} pictures, each with its recipe: {folder}", said)
    terminal.facts(
        {"command": "tour", "report": str(page), "pictures": [str(p) for p in written], "seconds": round(seconds, 2),
         "sections": {key: round(value, 2) for key, value in made.seconds.items()}},
        said,
    )  # fmt: skip


def _check(out: Path, page: Path, overwrite: bool) -> None:
    from phosphene.cli.output import check_writable

    if out.exists() and not out.is_dir():
        raise OutputError(f"'{out}' is a file: --out needs a folder for the report")
    check_writable(page, overwrite)


def _example(path: Path) -> str:
    """scikit-image's photograph of Chelsea the cat (CC0, Stefan van der Walt), saved for the report's commands."""
    import shutil
    from importlib.util import find_spec

    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    shutil.copyfile(Path(spec.origin).parent / "data" / "chelsea.png", path)
    return str(path)
