"""`judge-explanations` and `randomise`: which explanations can be trusted."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Output, Said, Source, split
from phosphene.errors import ImageError, OutputError

if TYPE_CHECKING:
    from phosphene.explain.judge import Record
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

RECORDS, TABLE, PAGE = "records.jsonl", "table.csv", "index.html"


def judge_explanations(
    folder: Annotated[Path, Parameter(help="A folder of photographs of several classes.")],
    *,
    net: Net = "efficientnet_lite0",
    method: Annotated[
        list[str] | None,
        Parameter(negative="", help="Methods, by comma, or all; default: those that take seconds an image."),
    ] = None,
    check: Annotated[
        list[str] | None,
        Parameter(
            negative="", help="insertion, deletion, drop, increase, completeness, focus, randomisation; default: all."
        ),
    ] = None,
    images: Annotated[int, Parameter(help="Images to explain, evenly spread over the folder.")] = 20,
    mosaics: Annotated[int, Parameter(help="Mosaics of the Focus game.")] = 20,
    steps: Annotated[int, Parameter(help="Networks of the randomisation.")] = 8,
    seed: Annotated[int, Parameter(help="Of mosaics, noise and weights.")] = 0,
    score: Annotated[
        Literal["logit", "log-probability"],
        Parameter(help="What is explained: the class's own score, or what sets it apart from all other classes."),
    ] = "logit",
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the table, the plots and the page.")] = Path(
        "phosphene-judge"
    ),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace what was measured another way.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Judge explanation methods on a folder of photographs, beside maps that know nothing of the network.

    Each measurement is kept as soon as it is made: run again after an interruption, it goes on from there.
    """
    source, said = source or Source(), said or Said()
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: explanations are judged on a folder of photographs")
    if out.exists() and not out.is_dir():
        raise OutputError(f"'{out}' is a file: --out needs a folder")
    from phosphene.jobs.judge_explanations import judge_explanations as job
    from phosphene.jobs.workshop import Workshop

    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "methods": split(method), "checks": split(check),
        "images": images, "mosaics": mosaics, "steps": steps, "seed": seed, "score": score,
    }  # fmt: skip
    with write.reserved([out / "any.png"], overwrite=True):
        workshop = Workshop(source.device)
        journal = _Journal(out / RECORDS, _fingerprint(workshop, parameters), overwrite)
        made = job(workshop, **parameters, known=journal.known, keep=journal.keep)
        outcome: Outcome = terminal.run(made, said, workshop)
        written = _write(out, outcome, workshop, parameters)
    for name, why in {**outcome.facts["refused"], **outcome.facts["skipped"]}.items():
        terminal.warn(f"left out {name}: {why}", said)
    _print(outcome.facts, said)
    terminal.say(f"{len(journal.known)} of these measurements were made before" if journal.known else "", said)
    terminal.say(f"wrote {', '.join(str(path) for path in written)}", said)
    terminal.facts({"command": "judge-explanations", "written": [str(path) for path in written], **outcome.facts}, said)


def randomise(
    image: Annotated[Path, Parameter(help="The picture: JPEG, PNG, WebP, TIFF, ...")],
    *,
    net: Net = "efficientnet_lite0",
    method: Annotated[
        list[str] | None,
        Parameter(negative="", help="Methods, by comma; default: saliency, grad-cam, guided-backprop."),
    ] = None,
    class_: Annotated[
        str | None, Parameter(name="--class", help="Name, index or synset; default: the predicted class.")
    ] = None,
    steps: Annotated[int, Parameter(help="How many networks, each with more of its layers drawn anew.")] = 5,
    seed: Annotated[int, Parameter(help="Of the weights.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Show what becomes of explanations while the network forgets what it has learned: which of them can be trusted?"""
    source, output, said = source or Source(), output or Output(), said or Said()
    parameters = {
        "image": str(image), "net": net, **source.parameters(), "methods": split(method), "class_name": class_,
        "steps": steps, "seed": seed,
    }  # fmt: skip
    outcome = write.make("randomise", parameters, source, output, said, stem=image.stem)
    for name, why in outcome.facts["refused"].items():
        terminal.warn(f"left out {name}: {why}", said)


class _Journal:
    """The measurements so far, appended as they are made; the first line says what was measured, and how."""

    def __init__(self, path: Path, fingerprint: str, overwrite: bool) -> None:
        from phosphene.explain.judge import Record

        self.path, self.fingerprint = path, fingerprint
        self.begun = False
        self.known: list[Record] = []
        lines = _lines(path)
        if lines and lines[0].get("plan") == fingerprint:
            for line in lines[1:]:
                with suppress(TypeError):
                    self.known.append(Record(**line))
        elif path.exists() and not overwrite:
            raise OutputError(
                f"'{path}' holds measurements of another kind, which are kept: give --overwrite, or another --out"
            )

    def keep(self, records: Sequence[Record]) -> None:
        """Append them. What lies there of another plan is replaced only now, by the first measurement of this one."""
        if not self.begun:
            self._begin()
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(asdict(record)) + "\n" for record in records))

    def _begin(self) -> None:
        from phosphene.images.save import write_whole

        kept = [{"plan": self.fingerprint}, *(asdict(record) for record in self.known)]
        write_whole(self.path, "".join(json.dumps(line) + "\n" for line in kept).encode(), overwrite=True)
        self.begun = True


def _lines(path: Path) -> list[dict[str, Any]]:
    found = []
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # the last one may be cut short
                found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def _fingerprint(workshop: Workshop, parameters: dict[str, Any]) -> str:
    """What decides every number: the network, the images, the seed, and how many of what; not which methods and checks."""
    network = workshop.network(parameters["net"], parameters["weights"], parameters["labels"])
    workshop.images(parameters["folder"], network)
    deciding = {key: value for key, value in parameters.items() if key not in ("methods", "checks", "folder")}
    recipe = workshop.recipe("judge-explanations", deciding, "")
    text = json.dumps([deciding, sorted(recipe.inputs.values()), recipe.networks, recipe.versions, recipe.device])
    return hashlib.sha256(text.encode()).hexdigest()


def _write(out: Path, outcome: Outcome, workshop: Workshop, parameters: dict[str, Any]) -> list[Path]:
    from phosphene.images.save import write_whole
    from phosphene.report.judging import page

    pictures = [
        (
            out / f"{picture.name}.png",
            picture.image,
            workshop.recipe("judge-explanations", parameters, picture.name).to_json(),
        )
        for picture in outcome.pictures
    ]
    written = write.write(pictures, overwrite=True)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "check", "mean", "low", "high", "count"])
    for method, checks in outcome.facts["methods"].items():
        for check, found in checks.items():
            rows.writerow([method, check, found["mean"], found["low"], found["high"], found["count"]])
    write_whole(out / TABLE, text.getvalue().encode(), overwrite=True)
    write_whole(out / PAGE, page(outcome, parameters).encode(), overwrite=True)
    return [*written, out / TABLE, out / PAGE]


def _print(facts: Any, said: Said) -> None:
    if said.quiet or said.json:
        return
    checks = list(dict.fromkeys(check for row in facts["methods"].values() for check in row))
    header = ["method", *(f"{check} {'+' if facts['better'][check] == 'high' else '-'}" for check in checks)]
    rows = [[name, *(cell(row.get(check)) for check in checks)] for name, row in facts["methods"].items()]
    terminal.table(header, rows)
    terminal.say("Means with half of their 95% interval; + is better high, - is better low.", said)


def cell(found: dict[str, float] | None) -> str:
    """`0.53 ±0.08`, or a dash."""
    return "-" if found is None else f"{found['mean']:.2f} ±{(found['high'] - found['low']) / 2:.2f}"
