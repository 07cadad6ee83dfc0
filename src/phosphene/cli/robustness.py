"""`robustness`: how much it takes to fool a network, and whether the answer can be believed."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.folders import (
    Truth,
    fingerprint,
    keep_results,
    list_attacks,
    need_folder,
    need_place,
    tell_of_network,
)
from phosphene.cli.journal import Journal
from phosphene.cli.options import OUTPUT, Net, Said, Source, split
from phosphene.cli.radius import radii, radius

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

ROWS, PAGE, TABLE = "robustness.jsonl", "index.html", "curve.csv"


def robustness(
    folder: Annotated[
        Path | None, Parameter(help="A folder of photographs, or of a folder of them for each class; or sample:all.")
    ] = None,
    *,
    net: Net = "efficientnet_lite0",
    eps: Annotated[
        str | None, Parameter(help="Radii by comma, such as 1/255,2/255,4/255; default: seven from 0.125/255 to 8/255.")
    ] = None,
    norm: Annotated[Literal["linf", "l2"], Parameter(help="How a change is measured.")] = "linf",
    attack: Annotated[
        str,
        Parameter(help="What the curve is made with: pgd, apgd, autoattack, square, ...; `--attack list` names them."),
    ] = "pgd",
    steps: Annotated[int | None, Parameter(help="Its steps (Square: queries); default: its own number.")] = None,
    others: Annotated[
        list[str] | None,
        Parameter(
            negative="",
            help="Networks for the transfer matrix, by comma, or none; default: bundled ones with the same classes.",
        ),
    ] = None,
    transfer_eps: Annotated[str | None, Parameter(help="The radius there; default: 8/255 (l2: 4).")] = None,
    checks: Annotated[bool, Parameter(help="Look for masked gradients.")] = True,
    truth: Truth = "auto",
    images: Annotated[int, Parameter(help="So many photographs, evenly spread; 0: all.")] = 100,
    seed: Annotated[int, Parameter(help="Of random starts and noise.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the page, the plots and the rows.")] = Path(
        "phosphene-robustness"
    ),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace what was made in another way.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Measure how much it takes to fool a network: accuracy against eps, with noise of the same size as the control.

    Also: who else is fooled (a matrix of networks), and signs of masked gradients, which make a network look robust that is
    not. What is measured is kept at once: run again after an interruption, it goes on from there.
    """
    source, said = source or Source(), said or Said()
    if attack == "list":
        return list_attacks(said)
    need_folder(folder, "attacked")
    need_place(out, folder)
    from phosphene.jobs.robustness import robustness as job
    from phosphene.jobs.workshop import Workshop

    named = None if others is None else [name for name in split(others) if name != "none"]
    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "eps": [] if eps is None else radii(eps, norm),
        "norm": norm, "attack": attack, "steps": steps, "others": named,
        "transfer_eps": None if transfer_eps is None else radius(transfer_eps, norm), "checks": checks, "truth": truth,
        "images": images, "seed": seed,
    }  # fmt: skip
    free = ("folder", "others", "transfer_eps", "checks", "truth", "images")
    with write.reserved([out / "any.png"], overwrite=True):
        workshop = Workshop(source.device)
        keep_results(out, ROWS, (PAGE, TABLE, "robustness.png"), overwrite)
        journal = Journal(out / ROWS, fingerprint("robustness", workshop, parameters, free), overwrite)
        made = job(workshop, **parameters, known=journal.known, keep=journal.keep)
        outcome: Outcome = terminal.run(made, said, workshop)
        journal.finish(outcome.facts["rows"])
        written = _write(out, outcome, workshop, parameters)
    _tell(outcome.facts, said)
    terminal.say(f"wrote {', '.join(str(path) for path in written)}", said)
    told = {name: value for name, value in outcome.facts.items() if name != "rows"}
    terminal.facts({"command": "robustness", "written": [str(path) for path in written], **told}, said)
    return None


def _write(out: Path, outcome: Outcome, workshop: Workshop, parameters: dict[str, Any]) -> list[Path]:
    from phosphene.images.save import write_whole
    from phosphene.report.robustness import page

    pictures = [
        (out / f"{one.name}.png", one.image, workshop.recipe("robustness", parameters, one.name).to_json())
        for one in outcome.pictures
    ]
    written = write.write(pictures, overwrite=True)
    write.drop_stale([out / "transfer.png"], written, ["robustness"])
    write_whole(out / TABLE, _table(outcome.facts), overwrite=True)
    write_whole(out / PAGE, page(outcome, parameters).encode("utf-8", "replace"), overwrite=True)
    return [out / PAGE, *written, out / TABLE]


def _table(facts: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["eps", "accuracy", "low", "high", "noise", "noise_low", "noise_high", "images"])
    for eps, one, shaken in zip(facts["eps"], facts["curve"], facts["noise"], strict=True):
        row = [one["mean"], one["low"], one["high"], shaken["mean"], shaken["low"], shaken["high"]]
        rows.writerow([eps, *row, facts["images"]])
    return text.getvalue().encode()


def _tell(facts: Mapping[str, Any], said: Said) -> None:
    from phosphene.report.attack_plots import radius_text
    from phosphene.report.robustness import doubt, half_text

    for image, why in facts["skipped"].items():
        terminal.warn(f"left out {image}: {why}", said)
    tell_of_network(facts, said)
    for one in facts["findings"]:
        if not one["passed"]:
            terminal.warn(f"GRADIENT MASKING, check {one['name']}: {one['words']}", said)
    if facts["masked"]:
        terminal.warn(doubt(facts), said)
    if said.json or said.quiet:
        return
    rows = [
        ("0" if eps == 0 else radius_text(eps, facts["norm"]), f"{one['mean']:.1%}", f"{one['low']:.1%} to {one['high']:.1%}",
         f"{shaken['mean']:.1%}")
        for eps, one, shaken in zip(facts["eps"], facts["curve"], facts["noise"], strict=True)
    ]  # fmt: skip
    terminal.table(
        ("eps", f"right under {facts['attack']}", "95% interval", "under noise"), rows,
        title=f"{facts['net']}, {facts['images']} photographs",
    )  # fmt: skip
    if facts["curve"][0]["count"]:
        terminal.say(f"Half of what it sees rightly falls by {half_text(facts)}.", said)
    if facts["findings"] and not facts["masked"]:
        terminal.say(f"No sign of masked gradients ({len(facts['findings'])} checks).", said)
    if facts["transfer"] is not None:
        _tell_transfer(facts["transfer"], facts["norm"])


def _tell_transfer(found: Mapping[str, Any], norm: str) -> None:
    from phosphene.report.attack_plots import radius_text

    rows = [
        (name, *("-" if value is None else f"{value:.0%}" for value in row))
        for name, row in zip([*found["names"], "noise"], [*found["rate"], found["control"]], strict=True)
    ]
    title = (
        f"Photographs misread after changes of {radius_text(found['eps'], norm)} made on (row) and shown to (column)"
    )
    terminal.table(("made on", *found["names"]), rows, title=title)
