"""What the commands that attack a folder of photographs share: what they are given, where results may lie, what they say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from phosphene import processes
from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import Said
from phosphene.errors import ImageError, OutputError

if TYPE_CHECKING:
    from phosphene.jobs.workshop import Workshop

Truth = Annotated[
    Literal["auto", "folders", "names", "predicted"],
    Parameter(
        help="Where the true classes are: names of folders, beginnings of file names (207_dog.jpg, n02099601_7.JPEG), or what"
        " the network sees; auto: folders or synsets if they fit, else predicted."
    ),
]


def need_folder(folder: Path | None, what: str) -> None:
    """Raise an ImageError unless there is a folder, or `sample:all` is meant."""
    from phosphene.images.samples import ALL

    if folder is None or not (folder.is_dir() or str(folder) == ALL):
        shown = "there is no folder" if folder is None else f"'{folder}' is no folder"
        raise ImageError(f"{shown}: give one of photographs, or of a folder of them for each class, to be {what}")


def need_place(out: Path, folder: Path | None) -> None:
    """Raise an OutputError where `--out` can't be a folder, or lies among the photographs."""
    if write.is_file(out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"'{out}' is one file: --out needs a folder")
    need_apart(out, folder)


def need_apart(out: Path, folder: Path | None) -> None:
    """Raise an OutputError where `--out` lies among the photographs."""
    if folder is not None and folder.is_dir() and folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise OutputError(f"'{out}' lies among the photographs, and would be one of them next time: give another --out")


def keep_results(out: Path, rows: str, files: Sequence[str], overwrite: bool) -> None:
    """Raise an OutputError before the work for files that can't be written after it, or that somebody else has made."""
    if not processes.first():
        return  # which writes nothing of it
    for path in (out / name for name in files):
        if path.is_dir():
            raise OutputError(f"'{path}' is a folder: a file name is needed there")
        if path.exists() and not (overwrite or (out / rows).exists()):
            raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --out")
        if path.suffix == ".png":
            write.check_writable(path, overwrite=True)


def fingerprint(verb: str, workshop: Workshop, parameters: Mapping[str, Any], free: Sequence[str]) -> str:
    """What decides every row: the network, the options but for the `free` ones, versions and device."""
    workshop.network(parameters["net"], parameters["weights"], parameters["labels"])
    deciding = {key: value for key, value in parameters.items() if key not in free}
    recipe = workshop.recipe(verb, deciding, "")
    # The inputs so far: the network's code and the names of its classes.
    made_by = [recipe.networks, recipe.versions, recipe.device, recipe.threads]
    text = json.dumps([deciding, sorted(recipe.inputs.items()), made_by])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tell_of_network(facts: Mapping[str, Any], said: Said) -> None:
    """Say what was found out about the network and the folder that one might not expect."""
    if facts["probabilities"]:
        terminal.warn(
            f"{facts['net']} gives probabilities, not logits, whose gradients vanish where it is sure: their logarithms are"
            " attacked",
            said,
        )
    if facts["truth"] == "predicted":
        terminal.warn(
            "the folder doesn't say what is true, so what the network sees counts as true (a folder for each class says more,"
            " or --truth names)",
            said,
        )


def list_attacks(said: Said) -> None:
    """The attacks by name."""
    from phosphene.attacks import ATTACKS

    rows = [
        (one.name, one.idea, " ".join(one.norms), "smallest" if one.smallest else "within eps", "yes" if one.aims else "no",
         one.paper)
        for one in ATTACKS.values()
    ]  # fmt: skip
    header = ("attack", "idea", "norms", "change", "target", "paper")
    terminal.facts({"attacks": [dict(zip(header, row, strict=True)) for row in rows]}, said)
    if not (said.json or said.quiet):
        terminal.table(header, rows)
