"""`fool`: change a picture a little until the network sees another class."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import Net, Output, Said, Source, split
from phosphene.cli.radius import radius
from phosphene.cli.see import Photo

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

_GOAL = Group("What to be seen as", sort_key=2)
_ATTACK = Group("The attack", sort_key=3)
_IN_L2 = ("deepfool", "carlini-wagner")  # what measures in L2 unless told otherwise
_LISTED = 10  # of the easiest and of the hardest, where there are many


def fool(
    image: Photo,
    *,
    target: Annotated[
        str | None,
        Parameter(
            group=_GOAL,
            help="The class to be seen instead: name, index or synset; several by comma, each by itself; default: any"
            " other.",
        ),
    ] = None,
    all_targets: Annotated[
        bool, Parameter(group=_GOAL, negative="", show_default=False, help="Each of all other classes, by itself.")
    ] = False,
    net: Net = "efficientnet_lite0",
    attack: Annotated[
        str | None,
        Parameter(
            group=_ATTACK,
            help="fooling (the slides' ascent toward a class), fgsm, bim, pgd, mi-fgsm, ni-fgsm, deepfool, carlini-wagner;"
            " without a target also apgd, apgd-targeted, fab, fab-targeted, square, autoattack. Default: fooling with a"
            " target, else deepfool, or pgd with --eps.",
        ),
    ] = None,
    norm: Annotated[
        Literal["linf", "l2"] | None,
        Parameter(
            group=_ATTACK, help="How the change is measured; default: linf, or l2 where the attack knows only that."
        ),
    ] = None,
    eps: Annotated[
        str | None,
        Parameter(group=_ATTACK, help="How far it may go, such as 8/255 or 0.03; default: as far as it takes."),
    ] = None,
    confidence: Annotated[
        float, Parameter(group=_ATTACK, help="Fooling: the probability that the target has to reach.")
    ] = 0.5,
    steps: Annotated[
        int | None, Parameter(group=_ATTACK, help="Steps before giving up; default: fooling 200, others their own.")
    ] = None,
    others: Annotated[
        list[str] | None,
        Parameter(
            negative="", help="Networks, by comma, that are shown the result, too: are they fooled along with it?"
        ),
    ] = None,
    seed: Annotated[
        int, Parameter(help="Of attacks that begin at random, and of the control: noise of the same size.")
    ] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Change a picture, as little as possible, until the network sees another class."""
    source, output, said = source or Source(), output or Output(), said or Said()
    measured = norm or ("l2" if attack in _IN_L2 else "linf")
    parameters = {
        "image": str(image), "target": target, "all_targets": all_targets, "net": net, **source.parameters(),
        "attack": attack, "norm": norm, "eps": None if eps is None else radius(eps, measured),
        "confidence": confidence, "steps": steps, "others": split(others), "seed": seed,
    }  # fmt: skip

    def look(outcome: Outcome, files: dict[str, Path], workshop: Workshop) -> dict[str, Any]:
        network = workshop.network(net, **source.parameters())
        return {"files": _files(outcome, files, network)}

    outcome = write.make(
        "fool", parameters, source, output, said, stem=image.stem, single="fooled", lossless=True, look=look
    )
    for path, seen in outcome.facts["files"].items():
        if not seen["same"]:
            terminal.warn(
                f"'{path}' no longer fools {net}: it sees {_told(seen)} in the file, not {seen['expected']}", said
            )
    if "targets" in outcome.facts:
        _tell_all(outcome.facts, said)
    else:
        _tell(outcome.facts, said)
        _tell_others(outcome.facts, said)
    if not (outcome.facts["success"] and all(seen["same"] for seen in outcome.facts["files"].values())):
        sys.exit(1)


def _files(outcome: Outcome, files: Mapping[str, Path], network: Any) -> dict[str, dict[str, Any]]:
    """What the network sees in each written picture that fools it, read from the file."""
    from phosphene import images

    found = {}
    for name, path in files.items():
        expected = _expected(outcome, name)
        if expected is not None:
            (seen,) = network.predict(images.read(path), 1)
            found[str(path)] = {
                "index": seen.indices[0], "name": seen.names[0], "probability": seen.probabilities[0],
                "expected": network.labels[expected], "same": seen.indices[0] == expected,
            }  # fmt: skip
    return found


def _expected(outcome: Outcome, name: str) -> int | None:
    """The class that the network saw in a picture before it was written; None for one that doesn't fool it."""
    facts = outcome.facts
    if "targets" not in facts:
        return facts["after"]["index"] if name == "fooled" and facts["success"] else None
    rows = {row["picture"]: row for row in facts["targets"] if "picture" in row}
    return rows[name]["sees"] if name in rows and rows[name]["success"] else None


def _tell(found: Mapping[str, Any], said: Said) -> None:
    """A line about one target."""
    if not found["success"]:
        terminal.say(f"not fooled {_within(found)}: {_instead(found)}", said)
        return
    written = next(iter(found["files"].values()), found["read_back"])
    terminal.say(
        f"{found['net']} saw {_told(found['before'])} and sees {_told(found['after'])}; L2 {found['l2']:.2f},"
        f" Linf {round(found['linf'] * 255)}/255, read back from the file: {_told(written)}",
        said,
    )


def _tell_others(found: Mapping[str, Any], said: Said) -> None:
    """What the other networks see, in a table."""
    if found["others"] and not (said.quiet or said.json):
        rows = [
            (name, *(_told(seen[key]) for key in ("before", "after", "noise")))
            for name, seen in found["others"].items()
        ]
        terminal.table(("shown to", "the photograph", "the result", "noise of the same size"), rows)


def _within(found: Mapping[str, Any]) -> str:
    from phosphene.jobs.command import radius_text

    steps = f"within {found['steps']} steps" if found["steps"] is not None else f"by {found['attack']}"
    return steps if found["eps"] is None else f"{steps} and {found['norm']} {radius_text(found['eps'])}"


def _instead(found: Mapping[str, Any]) -> str:
    """How far it came, and what to try."""
    ascent = found["attack"] == "fooling"
    ways = [] if found["eps"] is None else ["a larger --eps"]
    ways += ["more --steps or less --confidence"] if ascent else ["another --attack"]
    goal = found["target"]
    came = f"{goal['name']} reached {goal['probability']:.1%}" if goal else f"it still sees {_told(found['after'])}"
    return f"{came}; give {', '.join(ways)}"


def _tell_all(found: Mapping[str, Any], said: Said) -> None:
    """The easiest and the hardest targets in tables, all of a few in one."""
    if not (said.quiet or said.json):
        rows = {row["index"]: row for row in found["targets"]}
        easy, hard = ([rows[index] for index in found[end]] for end in ("easiest", "hardest"))
        if len(rows) <= 2 * _LISTED:
            some = {row["index"]: row for row in (*easy, *reversed(hard))}
            _table(list(some.values()), "")
        else:
            _table(easy, f"the {len(easy)} easiest")
            _table(hard, f"the {len(hard)} hardest")
    within = "" if found["eps"] is None else f" {_within({**found, 'steps': None})}"
    terminal.say(
        f"{found['net']} saw {_told(found['before'])}; {found['reached']} of {len(found['targets'])} classes reached{within}",
        said,
    )


def _table(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    terminal.table(
        ("class", "index", "reached", "probability", "L2", "Linf", "effort"),
        [
            (row["name"], str(row["index"]), "yes" if row["success"] else "no", f"{row['probability']:.1%}",
             f"{row['l2']:.2f}", f"{round(row['linf'] * 255)}/255", row["effort"])
            for row in rows
        ],
        title=title,
    )  # fmt: skip


def _told(seen: Mapping[str, Any]) -> str:
    return f"{seen['name']} ({seen['probability']:.1%})"
