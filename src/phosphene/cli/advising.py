"""`advise`: which way to reuse a network for a folder of photographs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.learning import Folder, Overwrite, Size, SkipBad
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.cli.runs import keep_apart
from phosphene.errors import ImageError, OutputError

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

PAGE, RECORD = "index.html", "advice.json"
_VERIFY = Group("Verify", sort_key=3)
_NAMES = ("table", "depth", "recipes")


def advise(
    folder: Folder,
    *,
    net: Net = "efficientnet_lite0",
    verify: Annotated[
        bool, Parameter(group=_VERIFY, negative="", show_default=False, help="Run all four recipes and compare them.")
    ] = False,
    epochs: Annotated[
        int, Parameter(group=_VERIFY, help="With --verify, how often fine-tuning sees each photograph.")
    ] = 10,
    size: Size = None,
    skip_bad: SkipBad = False,
    seed: Annotated[int, Parameter(help="Of folds and samples, and of what is held out where there is no val.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the report.")] = Path("phosphene-advise"),
    overwrite: Overwrite = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Advise how to reuse a network for your photographs: a linear classifier, where, or fine-tuning, and how much.

    Measures how many photographs there are and how similar they are to ImageNet for the network, places them in the
    lecture's table, and says which recipe to take, why, how sure that is, and its command.
    """
    source, said = source or Source(), said or Said()
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: give one that holds a folder of photographs for each class")
    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "verify": verify, "epochs": epochs, "size": size,
        "skip_bad": skip_bad, "seed": seed,
    }  # fmt: skip
    keep_apart(folder, out)
    if write.is_file(out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"'{out}' is one file: --out needs a folder")
    _keep(out, overwrite)
    from phosphene.jobs import job
    from phosphene.jobs.workshop import Workshop

    with write.reserved([out / f"{name}.png" for name in _NAMES], overwrite=overwrite):
        workshop = Workshop(source.device)
        outcome: Outcome = terminal.run(job("advise", workshop, parameters), said, workshop)
        written = _write(outcome, workshop, parameters, out, overwrite)
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why.removeprefix(f'{path} ')}", said)
    terminal.facts({"command": "advise", "written": [str(path) for path in written], **_own(outcome.facts)}, said)
    _print(outcome.facts, out, said)


def _keep(out: Path, overwrite: bool) -> None:
    """Refuse before the work what would be replaced after it."""
    for name in (RECORD, PAGE):
        path = out / name
        if path.is_dir():
            raise OutputError(f"'{path}' is a folder: a file name is needed there")
        if path.exists() and not overwrite:
            raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --out")


def _own(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts, with the name of the command line kept apart from the advised one."""
    return {("advised_command" if name == "command" else name): value for name, value in facts.items()}


def _write(outcome: Outcome, workshop: Workshop, parameters: dict[str, Any], out: Path, overwrite: bool) -> list[Path]:
    """The pictures with their recipes, the page and the record."""
    from phosphene.images.save import write_whole
    from phosphene.report.advice import page

    pictures = [
        (out / f"{p.name}.png", p.image, workshop.recipe("advise", parameters, p.name, outcome.notes).to_json())
        for p in outcome.pictures
    ]
    made = write.write(pictures, overwrite)
    write.drop_stale([out / f"{name}.png" for name in _NAMES], made, ["advise"])
    record = {"verb": "advise", "parameters": parameters, "inputs": workshop.inputs, "networks": workshop.networks}
    text = json.dumps({**record, **_own(outcome.facts)}, indent=1, default=str) + "\n"
    others = {PAGE: page(outcome, parameters).encode("utf-8", "replace"), RECORD: text.encode()}
    for name, data in others.items():
        write_whole(out / name, data, overwrite=True)
    return [*made, *(out / name for name in others)]


def _print(facts: Mapping[str, Any], out: Path, said: Said) -> None:
    from phosphene.jobs.advise import told

    if "recipes" in facts and not (said.quiet or said.json):
        rows = [
            (
                row["name"] + (" *" if row["recipe"] == facts["recipe"] else ""), f"{row['accuracy']['mean']:.1%}",
                f"{row['accuracy']['low']:.1%} to {row['accuracy']['high']:.1%}", f"{row['balanced']['mean']:.1%}",
                f"{row['seconds']:,.1f}",
            )
            for row in facts["recipes"]
        ]  # fmt: skip
        header = ("recipe", "held out", "95% interval", "balanced", "seconds")
        terminal.table(header, rows, title=f"{facts['net']}: the four recipes (* the advice)")
    for line in told(facts):
        terminal.say(line, said)
    terminal.say(f"the report: {out / PAGE}", said)
