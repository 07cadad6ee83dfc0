"""Malicious examples generalise: what one network was fooled with, shown to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.errors import NetworkError
from phosphene.jobs.command import command_line
from phosphene.models.bundled import BUNDLED
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "Does it fool others?"

ATTACK, EPS = "mi-fgsm", 8 / 255


def make(stage: Stage) -> Job[Section | None]:
    """The photograph changed against the tour's network, and shown to a bundled one that knows the same classes."""
    network = stage.network
    if not network.classifies or len(network.labels) < 2:
        return None
    others = [
        name
        for name in BUNDLED
        if name != stage.net and list(stage.workshop.network(name).labels) == list(network.labels)
    ]
    if not others:
        return None
    parameters = {
        "image": stage.image, **stage.source(), "attack": ATTACK, "eps": EPS, "others": others, "seed": stage.seed,
    }  # fmt: skip
    try:
        outcome = yield from stage.run("fool", parameters, part="transfer")
    except NetworkError:  # a network without a gradient
        return None
    found = outcome.facts
    rows = tuple(
        (what, _told(found[key]), *(_told(found["others"][name][key]) for name in others))
        for what, key in (
            ("the photograph", "before"),
            (f"changed against {stage.net}", "after"),
            ("noise of the same size instead", "noise"),
        )
    )
    shown = [outcome.picture("original"), outcome.picture("fooled")]
    captions = (f"the photograph: {found['before']['name']}", f"changed by up to {round(EPS * 255)}/255 per value")
    return Section(
        key="transfer", title=TITLE, slide="Adversarial Examples: they generalise across architectures",
        figures=tuple(figure(p, caption=c, lossless=True) for p, c in zip(shown, captions, strict=True)),
        tables=(Table(("what it sees", stage.net, *others), rows),),
        words=(
            "*Malicious examples generalise across different architectures*: networks that learned from the same photographs"
            " have learned some of the same weaknesses. An attack that stops as soon as it fools its own network stands just"
            " across one boundary; with momentum, and on after success (Dong et al. 2018), it goes where others are weak.",
            _own(stage.net, found)
            + " ".join(_verdict(name, found["others"][name]) for name in others)
            + " One photograph is an anecdote: `phosphene robustness FOLDER` measures it, for any networks, as a matrix.",
        ),
        command=command_line("fool", parameters), seconds=0,
    )  # fmt: skip


def _own(net: str, found: Mapping[str, Any]) -> str:
    """A sentence where the network that was attacked stands."""
    return "" if found["success"] else f"Here `{net}` itself is not fooled by a change of that size. "


def _verdict(name: str, seen: Mapping[str, Any]) -> str:
    """Whether another network was fooled, in a sentence."""
    before, after, noise = seen["before"], seen["after"], seen["noise"]
    if after["index"] == before["index"]:
        kept = f"{before['probability']:.0%} before and {after['probability']:.0%} after"
        return f"Here `{name}` stays with *{before['name']}*, {kept}."
    if noise["index"] != before["index"]:
        return f"Here `{name}` changes its mind to *{after['name']}*, but it does so under noise of that size, too."
    return (
        f"Here `{name}`, which nobody attacked, changes its mind from *{before['name']}* to *{after['name']}*"
        f" ({after['probability']:.0%}); noise of that size doesn't do it."
    )


def _told(seen: Mapping[str, Any]) -> str:
    return f"{seen['name']}, {seen['probability']:.1%}"
