"""The page of attacks on a folder: what came of it in numbers, and each photograph before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from phosphene import images
from phosphene.jobs.command import command_line
from phosphene.report.attack_plots import radius_text
from phosphene.report.gallery import gallery

if TYPE_CHECKING:
    from phosphene.jobs.attack import Made

_SIDE = 224


def sheet(made: Made) -> Tensor:
    """A photograph, what fools the network, and ten times their difference, side by side: `[3, H, W]` in [0, 1]."""
    row = made.row
    panels = (
        images.Panel(made.original, _said(row["before"]), "the photograph"),
        images.Panel(made.image, _said(row["after"]), f"after {row['attack']}"),
        images.Panel(images.difference(made.original, made.image, gain=10), "10x difference", size(row)),
    )
    return images.sheet(panels, columns=3, side=_SIDE)


def page(
    facts: Mapping[str, Any], parameters: Mapping[str, Any], files: Callable[[Mapping[str, Any]], tuple[str, ...]]
) -> str:
    """The page as one HTML document, with pictures in files beside it.

    Args:
        facts: of `jobs.attack`.
        parameters: that it was run with.
        files: the picture and the sheet of a row, if there are any.
    """
    cards: dict[str, dict[str, Any]] = {}
    for row in (row for row in facts["rows"] if files(row)):
        picture, shown = files(row)
        card = cards.setdefault(
            row["image"], {"image": row["image"], "target": row["label"]["name"], "pictures": [], "links": []}
        )
        caption = f"{row['attack']}: {_said(row['after'])}, {size(row)}"
        alt = f"A photograph of {row['label']['name']}, and a copy that {facts['net']} sees as {row['after']['name']}"
        card["pictures"].append({"file": shown, "name": row["attack"], "alt": alt, "caption": caption})
        card["links"].append((f"PNG ({row['attack']})", picture))
    return gallery(
        f"{facts['net']} under attack",
        list(cards.values()),
        lead=_lead(facts),
        plot=("accuracy.png", f"Accuracy of {facts['net']} before and after each attack"),
        command=command_line("attack", dict(parameters)),
        wide=True,
    )


def _lead(facts: Mapping[str, Any]) -> str:
    told = ", ".join(
        f"{one['fooled']} of {one['attacked']} by {name}"
        + ("" if one["eps"] is None else f" within {radius_text(one['eps'], one['norm'])}")
        for name, one in facts["attacks"].items()
    )
    return (
        f"{facts['images']} photographs; {facts['wrong']} are misread as they are, and were not attacked. Fooled were {told}."
        " What can't be fooled isn't shown."
    )


def size(row: Mapping[str, Any]) -> str:
    """How large a change is, in words."""
    return f"L2 {row['l2']:.2f}, at most {radius_text(round(row['linf'] * 255) / 255)} per value"


def _said(seen: Mapping[str, Any]) -> str:
    return f"{seen['name']} {seen['probability']:.1%}"
