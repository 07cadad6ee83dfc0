"""One job for many images: written image by image, resumed where it was interrupted, with a page to look at them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene import processes
from phosphene.errors import ImageError, OutputError, PhospheneError
from phosphene.names import file_name, file_names

if TYPE_CHECKING:
    from phosphene.cli.options import Output, Said, Source
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import Job

PICTURES, MAPS, PAGE = "pictures", "maps", "index.html"
PART = ".part.jsonl"


def make_many(
    verb: str,
    images: Sequence[Path],
    parameters: dict[str, Any],
    source: Source,
    output: Output,
    said: Said,
    title: str,
) -> None:
    """Run a verb on each image; into the folder `output.out` go pictures, raw numbers as `.npz`, a list, and a page.

    What an earlier run with the same recipe has made is kept. An image that can't be read is left out and told.
    """
    from phosphene.cli import terminal
    from phosphene.cli.output import is_file, reserved
    from phosphene.images.save import write_whole
    from phosphene.jobs.workshop import Workshop
    from phosphene.report.gallery import gallery

    folder = output.out if output.out != Path(".") else Path(f"phosphene-{verb}")
    if is_file(folder) or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"'{folder}' is one file, and there are {len(images)} images: give --out a folder")
    listed = folder / f"{verb}.jsonl"
    with reserved([folder / PICTURES / "any.png", folder / MAPS / "any.npz"], overwrite=True):
        workshop = Workshop(source.device)
        run = _Run(verb, workshop, parameters, folder, listed, output.overwrite)
        rows, skipped = terminal.run(run.all(images), said, workshop)
        if not rows:
            raise PhospheneError(f"none of the {len(images)} images could be used: {next(iter(skipped.values()))}")
        page = gallery(title, rows)
        write_whole(folder / PAGE, page.encode(), overwrite=True)
    for what, why in {**rows[0].get("refused", {}), **skipped}.items():
        terminal.warn(f"left out {what}: {why}", said)
    terminal.say(f"{len(rows)} images, {run.kept} of them made before: {folder / PAGE}", said)
    terminal.say(f"the raw maps: {folder / MAPS}; the list: {listed}", said)
    terminal.facts({"command": verb, "page": str(folder / PAGE), "images": rows, "skipped": skipped}, said)


class _Run:
    """The job over all images."""

    def __init__(
        self, verb: str, workshop: Workshop, parameters: dict[str, Any], folder: Path, listed: Path, overwrite: bool
    ) -> None:
        self.verb, self.workshop, self.parameters = verb, workshop, parameters
        self.folder, self.listed, self.overwrite = folder, listed, overwrite
        self.kept = 0
        self.before = {row["name"]: row for file in (listed, *self._parts()) for row in _rows(file)}
        # Each process notes what it has made in a list of its own, in case that the work is interrupted.
        self.journal = listed if processes.first() else listed.with_suffix(f".{processes.rank()}{PART}")

    def all(self, images: Sequence[Path]) -> Job[tuple[list[dict[str, Any]], dict[str, str]]]:
        """Each image in turn; returns the rows of the list and why images were left out.

        Several processes share the images. The first returns the rows of all; the others leave.
        """
        from phosphene.progress import Started, Step

        rows: dict[int, dict[str, Any]] = {}
        skipped: dict[int, str] = {}
        yield Started(self.verb, len(images), "image")
        names = file_names(path.stem for path in images)
        for place in (place for chunk in processes.mine(len(images), 1) for place in chunk):
            try:
                rows[place] = self._one(images[place], names[place])
            except ImageError as problem:
                skipped[place] = str(problem)
            yield Step(place + 1)
        rows, skipped = processes.merged(rows), processes.merged(skipped)
        self.kept = sum(processes.gather(self.kept))
        processes.leave()
        made = {row["name"] for row in rows.values()}
        _write_rows(self.listed, [*rows.values(), *(row for key, row in self.before.items() if key not in made)])
        for part in self._parts():
            part.unlink(missing_ok=True)
        return list(rows.values()), {str(images[place]): why for place, why in skipped.items()}

    def _parts(self) -> list[Path]:
        """The lists of the other processes, of this run or an interrupted one."""
        return sorted(self.folder.glob(f"{self.listed.stem}.*{PART}"))

    def _one(self, path: Path, name: str) -> dict[str, Any]:
        from phosphene.jobs import job
        from phosphene.progress import run

        parameters = {**self.parameters, "image": str(path)}
        workshop = self.workshop.fresh()
        workshop.network(parameters["net"], parameters["weights"], parameters["labels"])
        workshop.image(str(path))
        recipe = hashlib.sha256(workshop.recipe(self.verb, parameters, self.verb).to_json().encode()).hexdigest()
        old = self.before.get(name)
        same = old is not None and old["recipe"] == recipe
        if old is not None and same and all((self.folder / file).is_file() for file in _files(old)):
            self.kept += 1
            return old
        if old is not None and not (same or self.overwrite):
            raise OutputError(
                f"'{self.folder}' holds '{name}' made in another way, which is kept: give --overwrite, or another --out"
            )
        outcome: Outcome = run(job(self.verb, workshop, parameters))
        row = self._write(outcome, workshop, parameters, name) | {"image": str(path), "name": name, "recipe": recipe}
        with open(self.journal, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row

    def _write(self, outcome: Outcome, workshop: Workshop, parameters: dict[str, Any], name: str) -> dict[str, Any]:
        import numpy as np

        from phosphene.cli.output import write
        from phosphene.images.save import write_whole

        made, pictures = [], []
        for place, picture in enumerate(outcome.pictures):
            # No image's name has two hyphens: its sheet can't have the name of a part of another image's.
            file = f"{PICTURES}/{name}.png" if place == 0 else f"{PICTURES}/{name}--{file_name(picture.name)}.png"
            note = workshop.recipe(self.verb, parameters, picture.name, outcome.notes).to_json()
            made.append((self.folder / file, picture.image, note))
            pictures.append({"file": file, "name": picture.name, "alt": picture.alt, "caption": picture.caption})
        stream = BytesIO()
        arrays: dict[str, Any] = {key: array.numpy() for key, array in outcome.arrays.items()}
        np.savez(stream, **arrays)
        write_whole(self.folder / MAPS / f"{name}.npz", stream.getvalue(), overwrite=True)
        write(made, overwrite=True)
        return {"pictures": pictures, "maps": f"{MAPS}/{name}.npz", **outcome.facts}


def _files(row: dict[str, Any]) -> Iterator[str]:
    yield row["maps"]
    for picture in row["pictures"]:
        yield picture["file"]


def _rows(listed: Path) -> list[dict[str, Any]]:
    """The list of an earlier run; a last line that was cut short is left out."""
    rows = []
    with suppress(OSError, UnicodeDecodeError):
        for line in listed.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                row = json.loads(line)
                if isinstance(row, dict) and {"name", "recipe", "pictures", "maps"} <= row.keys():
                    rows.append(row)
    return rows


def _write_rows(listed: Path, rows: Sequence[dict[str, Any]]) -> None:
    from phosphene.images.save import write_whole

    if rows:
        write_whole(listed, "".join(json.dumps(row) + "\n" for row in rows).encode(), overwrite=True)
