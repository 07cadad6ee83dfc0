"""`recipe` and `rerun`: how a picture was made, and making it again."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Said

Made = Annotated[Path, Parameter(help="A picture that Phosphene made.")]


def recipe(picture: Made, *, said: Said | None = None) -> None:
    """Print how a picture was made."""
    said = said or Said()
    from phosphene import recipe as recipes
    from phosphene.jobs.command import command_line

    found = recipes.read(picture)
    command = command_line(found.verb, found.parameters)
    terminal.facts({"command": command, **asdict(found)}, said)
    if said.json or said.quiet:
        return
    print(command)
    rows = [("picture", found.picture), ("device", f"{found.device}, {found.threads} threads")]
    rows += [("input", f"{path}  sha256 {digest[:16]}") for path, digest in found.inputs.items()]
    rows += [("network", f"{name}  sha256 {digest[:16]}") for name, digest in found.networks.items()]
    rows += [(name, value) for name, value in found.versions.items()]
    terminal.table(("", ""), rows)


def rerun(
    picture: Made,
    *,
    out: Annotated[
        Path | None, Parameter(group=OUTPUT, help="Folder or file; default: PICTURE-again beside the picture.")
    ] = None,
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a picture that exists.")
    ] = False,
    check: Annotated[bool, Parameter(negative="", show_default=False, help="Only compare; write nothing.")] = False,
    run_code: Annotated[
        bool, Parameter(negative="", show_default=False, help="Run the recipe's own FILE.py, which you trust.")
    ] = False,
    said: Said | None = None,
) -> None:
    """Make a picture again from its recipe: the same bytes on the same machine and versions.

    Writes PICTURE-again beside it, or to --out. With --check the exit code says whether the bytes are the same.
    """
    said = said or Said()
    from phosphene import recipe as recipes
    from phosphene.cli.output import is_file, reserved
    from phosphene.errors import OutputError
    from phosphene.images.save import FORMATS, write_whole

    found = recipes.read(picture)
    if out is None:
        out = picture.with_name(f"{picture.stem}-again{picture.suffix}")
    elif not is_file(out):
        out = out / picture.name
    if FORMATS.get(out.suffix[1:].lower()) != FORMATS.get(picture.suffix[1:].lower()):
        raise OutputError(f"the same bytes need the same format: give --out a name that ends in {picture.suffix}")

    from phosphene.jobs.again import again

    if check:
        made = terminal.run(again(found, picture, run_code=run_code), said)
    else:
        with reserved([out], overwrite):
            made = terminal.run(again(found, picture, run_code=run_code), said)
            write_whole(out, made.data, overwrite=overwrite)
            write_whole(recipes.beside(out), (made.recipe.to_json() + "\n").encode(), overwrite=True)
    verdict = "the same bytes" if made.same_file else "the same pixels" if made.same_pixels else "not the same picture"
    why = f" ({'; '.join(made.changed)})" if made.changed else ""
    terminal.say((f"wrote {out}: " if not check else "") + verdict + why, said)
    terminal.facts(
        {"picture": str(picture), "out": None if check else str(out), "same_bytes": made.same_file,
         "same_pixels": made.same_pixels, "changed": list(made.changed)},
        said,
    )  # fmt: skip
    if check and not made.same_file:
        sys.exit(1)
