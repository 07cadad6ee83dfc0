"""One photograph toward each of several classes: how much each takes, and what the easiest and the hardest look like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene.images import Panel
from phosphene.jobs import fool_parts as parts
from phosphene.jobs.command import radius_text
from phosphene.jobs.fool_parts import Changed, Plan, told
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.models import Network
from phosphene.names import file_names
from phosphene.progress import Event, Job, Started, Step, relay
from phosphene.report.fooling_plots import EASIEST, HARDEST, targets_plot

TOGETHER = 32
"""Copies of the photograph that are moved at once."""
ON_SHEET = 12
"""Targets up to which all are shown; of more, the `ENDS` easiest and hardest."""
ENDS = 4
NAMED = 10
"""How many of the easiest and of the hardest the facts name."""
_ACROSS = 6  # the most targets side by side on the sheet


def fool_targets(
    network: Network, net: str, photo: Tensor, before: dict[str, Any], goals: Sequence[int], chosen: Plan
) -> Job[Outcome]:
    """See `jobs.fool`. `photo`: `[1, 3, H, W]` on the 8-bit lattice; `goals`: the classes to reach."""
    rows: list[dict[str, Any]] = []
    kept: dict[int, Tensor] = {}  # place -> what became of the photograph, of those that may be shown
    yield Started(f"fool {net}", len(goals), "target")
    for begin in range(0, len(goals), TOGETHER):
        some = goals[begin : begin + TOGETHER]
        work = parts.change(network, photo, before["index"], some, chosen)
        found = yield from relay(work, _as_classes(begin, len(some)))
        rows += _rows(network, found, some)
        kept |= {begin + place: image for place, image in enumerate(found.images.unbind())}
        kept = {place: kept[place] for place in _shown(rows, chosen)}
        yield Step(begin + len(some))
    order = ranked(rows, chosen.measure)
    original = photo[0].float().cpu()
    for place, image in kept.items():
        rows[place]["read_back"] = parts.seen_in(network, pictures.decode(pictures.encode(image)).to(photo))
    made = _fooled(rows, kept)
    reached = sum(row["success"] for row in rows)
    facts = {
        "net": net,
        "before": before,
        **chosen.facts(),
        "measure": chosen.measure,
        "success": reached == len(rows),
        "reached": reached,
        "targets": rows,
        "easiest": [rows[place]["index"] for place in order[:NAMED]],
        "hardest": [rows[place]["index"] for place in order[::-1][:NAMED]],
    }
    plot = targets_plot([rows[place] for place in order], chosen.measure, _heading(net, before, chosen))
    alt = f"How much it takes until {net} sees each of {len(rows)} classes in a photograph of {before['name']}"
    return Outcome(
        (
            _sheet(net, original, before, rows, kept),
            Picture("targets", plot, alt, f"{reached} of {len(rows)} classes reached"),
            Picture("original", original, f"The photograph, seen as {told(before)}", told(before)),
            *made,
        ),
        facts,
    )


def ranked(rows: Sequence[dict[str, Any]], measure: str = "l2") -> list[int]:
    """Places of the rows, the easiest first, by their `measure`; what was not reached last, the least likely at the end."""

    def effort(place: int) -> tuple[bool, float, float]:
        row = rows[place]
        first = row[measure] if row["success"] and measure != "probability" else 0.0
        return not row["success"], first, -row["probability"]

    return sorted(range(len(rows)), key=effort)


def _as_classes(before: int, count: int) -> Any:
    """Events of an attack on `count` images as progress through all classes: how many are done."""
    done = before

    def change(event: Event) -> Event:
        nonlocal done
        if isinstance(event, Step) and event.loss is not None:  # how many are still moving
            done = max(done, before + count - min(count, math.ceil(event.loss)))
        return Step(done, preview=event.preview if isinstance(event, Step) else None)

    return change


def _rows(network: Network, found: Changed, goals: Sequence[int]) -> list[dict[str, Any]]:
    chances = parts.probabilities(network, found.images)
    return [
        {
            "index": goal,
            "name": network.labels[goal],
            "probability": float(chances[place, goal]),
            "sees": int(chances[place].argmax()),
            **found.facts(place),
            "effort": found.effort(place),
        }
        for place, goal in enumerate(goals)
    ]


def _shown(rows: Sequence[dict[str, Any]], chosen: Plan) -> list[int]:
    """Places of the rows that are shown, in their order, or the easiest first where there are many."""
    if len(rows) <= ON_SHEET:
        return list(range(len(rows)))
    order = ranked(rows, chosen.measure)
    return [*order[:ENDS], *order[-ENDS:]]


def _fooled(rows: Sequence[dict[str, Any]], kept: dict[int, Tensor]) -> list[Picture]:
    """The fooled pictures that are shown; their names go into the rows."""
    names = file_names(f"fooled {rows[place]['name']}" for place in kept)
    made = []
    for name, (place, image) in zip(names, kept.items(), strict=True):
        row = rows[place]
        row["picture"] = name
        made.append(Picture(name, image, f"The photograph changed toward {told(row)}", told(row)))
    return made


def _sheet(
    net: str, original: Tensor, before: dict[str, Any], rows: Sequence[dict[str, Any]], kept: dict[int, Tensor]
) -> Picture:
    """Bands of targets side by side: the fooled picture above its difference; the photograph stands at the left."""
    panels: list[Panel] = []
    places = list(kept)
    across = math.ceil(len(places) / math.ceil(len(places) / _ACROSS))  # bands of one length
    many = len(rows) > len(places)
    for begin in range(0, len(places), across):
        band = places[begin : begin + across]
        blank = [Panel(None)] * (across - len(band))
        first = Panel(None, HARDEST if many else "") if begin else Panel(original, told(before), "original")
        second = Panel(None, EASIEST if many and not begin else "")
        panels += [first, *(_above(rows[place], kept[place]) for place in band), *blank]
        panels += [second, *(_below(original, kept[place]) for place in band), *blank]
    reached = sum(row["success"] for row in rows)
    more = "" if len(places) == len(rows) else f"; the {ENDS} easiest and the {ENDS} hardest are shown"
    footnote = f"{net}: {reached} of {len(rows)} classes reached{more}"
    sheet = pictures.sheet(panels, columns=across + 1, side=240, footnote=footnote)
    alt = f"A photograph seen as {told(before)}, and copies of it seen as other classes, each with ten times its difference"
    return Picture("fool", sheet, alt, footnote)


def _above(row: dict[str, Any], image: Tensor) -> Panel:
    done = "" if row["success"] else "not reached: "
    return Panel(image, told(row), f"{done}L2 {row['l2']:.2f}, {row['effort']}")


def _below(original: Tensor, image: Tensor) -> Panel:
    return Panel(pictures.difference(original, image, gain=10), "", "10x difference")


def _heading(net: str, before: dict[str, Any], chosen: Plan) -> str:
    within = "" if chosen.eps is None else f", {chosen.norm} within {radius_text(chosen.eps)}"
    return f"{net}, from “{before['name']}”, by {chosen.attack}{within}"
