"""The page of a judgement: what was asked, the answers with their intervals, and how to read them."""

from __future__ import annotations

from typing import Any

from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Outcome
from phosphene.recipe import versions
from phosphene.report.page import Page, Section, Table, render
from phosphene.report.plots import TITLES
from phosphene.report.stage import figure

WORDS = {
    "insertion": "*Insertion* shows the pixels on a blurred canvas, the most important first: the area under the curve of"
    " the class's probability. A good map makes it rise early.",
    "deletion": "*Deletion* takes them away instead; a good map makes the probability fall early. It rewards noise, too:"
    " scattered grey pixels are a small attack on the network.",
    "drop": "*Average drop* and *increase in confidence* darken the picture where the map is low and ask again. They"
    " favour smooth maps that leave much to see.",
    "focus": "*Focus* makes mosaics of four pictures of different classes and asks for one of them. A map that knows"
    " nothing of the network gets 0.25.",
    "completeness": "*Completeness error* is by how much of the score a map misses the sum that its method promises.",
    "ssim": "*Randomisation* draws the layers anew, from the last to the first. SSIM and rank correlation say how much of"
    " the map stays: what stays was never an explanation of what the network had learned.",
}


def page(outcome: Outcome, parameters: dict[str, Any]) -> str:
    """The page as one HTML document, which needs no other file."""
    facts = outcome.facts
    command = command_line("judge-explanations", parameters)
    checks = [check for check in TITLES if any(check in row for row in facts["methods"].values())]
    words = tuple(text for check, text in WORDS.items() if check in checks)
    sections = [
        Section(
            key="judged", title="Every method, every check", slide="", command=command, seconds=0,
            figures=(figure(outcome.pictures[0], wide=True, lossless=True),), words=words,
            tables=(_table(facts, checks),),
            note="No check is the truth about an explanation, and they don't agree. The dashed line is the better of two"
            " maps that know nothing: a Gaussian in the middle, and noise.",
        )
    ]  # fmt: skip
    if len(outcome.pictures) > 1:
        sections.append(
            Section(
                key="randomised", title="Which maps forget with the network?", slide="", command=command, seconds=0,
                figures=(figure(outcome.pictures[1], wide=True, lossless=True),),
                words=(
                    "Each point is a network with more of its layers drawn anew. A map that depends on what was learned"
                    " changes at once; one that stays high shows the picture's edges whatever the network knows"
                    " (Adebayo et al. 2018).",
                ),
            )
        )  # fmt: skip
    return render(
        Page(
            title="Explanations, judged",
            lead=f"The explanation methods of `{facts['net']}` on the photographs in `{parameters['folder']}`, each for"
            " the class that the network itself sees.",
            hero=figure(list(outcome.pictures)[-1], lossless=True),
            facts=(
                ("Points at the right quarter", _best(facts, "focus")),
                ("Images", str(parameters["images"])),
                ("Mosaics", str(parameters["mosaics"])),
                ("Methods", str(len(facts["methods"]))),
            ),
            sections=tuple(sections),
            footer=tuple(versions().items()),
        )
    )


def _best(facts: Any, check: str) -> str:
    """The method with the highest mean, in words."""
    found = {name: row[check]["mean"] for name, row in facts["methods"].items() if check in row}
    if not found:
        return "not asked"
    name = max(found, key=lambda name: found[name])
    return f"{name}, {found[name]:.0%}"


def _table(facts: Any, checks: list[str]) -> Table:
    rows = []
    for name, row in facts["methods"].items():
        cells = [
            f"{row[check]['mean']:.3f} ({row[check]['low']:.3f} to {row[check]['high']:.3f})" if check in row else "–"
            for check in checks
        ]
        rows.append((name, *cells))
    header = ("method", *(TITLES[check] for check in checks))
    return Table(header, tuple(rows), "Mean and 95% interval (percentile bootstrap).")
