"""Which of these pictures can be trusted? The randomisation check."""

from __future__ import annotations

from typing import Any

from phosphene.explain import METHODS
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "Which of these pictures can be trusted?"


def make(stage: Stage) -> Job[Section | None]:
    """Saliency, Grad-CAM and guided backprop of the photograph while the network's layers are drawn anew."""
    parameters = {"image": stage.image, **stage.source(), "seed": stage.seed}
    outcome = yield from stage.run("randomise", parameters)
    steps = outcome.facts["steps"]
    methods = list(dict.fromkeys(row["method"] for row in steps))
    layers = list(dict.fromkeys(row["layer"] for row in steps))
    return Section(
        key="trust",
        title=TITLE,
        slide="Images come out nicer if you only backprop positive gradients through each ReLU",
        formula=(
            r"\rho = \mathrm{corr}\big(\mathrm{rank}\,|M_{\theta}|,\; \mathrm{rank}\,|M_{\theta'}|\big),\quad"
            r" \theta'\ \text{partly drawn anew}",
        ),
        figures=(figure(outcome.pictures[0], caption="", wide=True),),
        tables=(
            Table(
                ("rank correlation with the trained network's map", *(f"down to {layer}" for layer in layers)),
                tuple((METHODS[name].title, *_row(steps, name)) for name in methods),
            ),
        ),
        words=(
            "From left to right the network forgets: more and more of its layers get random weights, beginning with the"
            " last. An explanation of what it *has learned* has to change at once.",
            _verdict(steps, methods, layers),
        ),
        note="Adebayo et al., *Sanity Checks for Saliency Maps*, 2018. For many photographs and all methods:"
        " `phosphene judge-explanations FOLDER`.",
        command=command_line("randomise", parameters),
        seconds=0,
    )


def _row(steps: list[dict[str, Any]], name: str) -> list[str]:
    return [f"{row['rank']:.2f}" for row in steps if row["method"] == name]


def _verdict(steps: list[dict[str, Any]], methods: list[str], layers: list[str]) -> str:
    """What the second network, with about two fifths of its layers random, says of each method."""
    layer = layers[min(1, len(layers) - 1)]
    found = {row["method"]: row["rank"] for row in steps if row["layer"] == layer}
    said = ", ".join(f"{METHODS[name].title} {found[name]:.2f}" for name in methods)
    most, least = max(methods, key=lambda name: found[name]), min(methods, key=lambda name: found[name])
    stays = (
        f"*{METHODS[most].title}* hardly notices: most of what it draws are the photograph's own edges."
        if found[most] > 0.6
        else "All of them notice."
    )
    return (
        f"Once everything from `{layer}` on is random, the maps still have this rank correlation with the trained"
        f" network's: {said}. {stays} The more a map changes, here most of all *{METHODS[least].title}*, the more it was"
        " about the network."
    )
