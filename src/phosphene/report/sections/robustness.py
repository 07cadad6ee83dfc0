"""Accuracy against eps: how little is enough, beside noise of the same size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.errors import NetworkError
from phosphene.images.samples import ALL
from phosphene.jobs.command import command_line
from phosphene.jobs.for_all import counted
from phosphene.progress import Job
from phosphene.report.attack_plots import radius_text
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "How little is enough?"

RADII = tuple(levels / 255 for levels in (0.02, 0.06, 0.25, 1, 4))
STEPS, IMAGES = 10, 12


def make(stage: Stage) -> Job[Section | None]:
    """A small curve: of the tour's folder, or of the photographs that come along."""
    if not stage.network.classifies or len(stage.network.labels) < 2:
        return None
    parameters = {
        "folder": stage.folder or ALL, **stage.source(), "eps": list(RADII), "steps": STEPS, "others": [], "checks": False,
        "truth": "predicted", "images": IMAGES, "seed": stage.seed,
    }  # fmt: skip
    try:
        outcome = yield from stage.run("robustness", parameters)
    except NetworkError:  # a network without a gradient
        return None
    facts = outcome.facts
    whose = "the folder" if stage.folder else "pictures that come along"
    return Section(
        key="robustness", title=TITLE, slide="Convolutional Networks lack Robustness",
        formula=(r"\max_{\|\delta\|_\infty \le \varepsilon} J(\theta, \mathbf{x} + \delta, y)",),
        figures=(figure(outcome.pictures[0], lossless=True),),
        words=(
            f"{counted(facts['images'])} of {whose}, attacked by {STEPS} steps of projected gradient descent at five"
            " radii; what the network says of each without an attack counts as right. A band is the 95% interval of so few.",
            _told(facts),
        ),
        command=command_line("robustness", parameters), seconds=0,
    )  # fmt: skip


def _told(facts: Mapping[str, Any]) -> str:
    """Where half has fallen, and what noise does."""
    half = next((place for place, one in enumerate(facts["curve"]) if one["mean"] <= 0.5), None)
    last = radius_text(facts["eps"][-1])
    if half is None:
        return f"More than half of them stand even at {last}. It doesn't always take little."
    eps = radius_text(facts["eps"][half])
    below = " No 8-bit file could hold a change so small." if facts["eps"][half] < 0.5 / 255 else ""
    noise = facts["noise"][half]["mean"]
    return (
        f"A change of {eps} per value is enough for half of them or more.{below} Noise of that size leaves"
        f" {noise:.0%} of them right, and at {last} still {facts['noise'][-1]['mean']:.0%}."
    )
