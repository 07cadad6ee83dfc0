"""Fooling images: how little change it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.jobs.command import command_line
from phosphene.models import Labels
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "Fooling it"

TARGETS = ("black swan", "iPod")
SHOWN = ("original", "fooled", "difference", "difference-10x")


def make(stage: Stage) -> Job[Section | None]:
    """The photograph, its fooled copy, the difference and ten times it."""
    network = stage.network
    if not network.classifies or len(network.labels) < 2:
        return None
    photo = network.preprocess(stage.workshop.image(stage.image))
    ranking = network.predict(photo, len(network.labels))[0]
    if network.labels == Labels.imagenet():
        target = next(name for name in TARGETS if network.labels.resolve(name) != ranking.indices[0])
    else:
        last = ranking.indices[-1]  # the class that it finds least likely
        target = network.labels[last] if network.labels.resolve(network.labels[last]) == last else str(last)
    parameters = {"image": stage.image, "target": target, **stage.source(), "seed": stage.seed}
    outcome = yield from stage.run("fool", parameters)
    found = outcome.facts
    rows = tuple(
        (what, found[key]["name"], f"{found[key]['probability']:.1%}")
        for what, key in (
            ("the photograph", "before"),
            ("the fooled copy", "after"),
            ("the copy, saved as PNG and read back", "read_back"),
            ("noise of the same size instead", "noise"),
        )
    )
    captions = (
        f"{found['before']['name']}, {found['before']['probability']:.0%}",
        f"{found['after']['name']}, {found['after']['probability']:.0%}",
        "Difference",
        "10× difference",
    )
    success = (
        f"It took {found['steps']} steps. The change has an L2 norm of {found['l2']:.2f} (the picture itself has about"
        f" {float(photo.norm()):.0f}); no value moved by more than {round(found['linf'] * 255)} of 255."
    )
    return Section(
        key="fooling",
        title=TITLE,
        slide="Adversarial Examples: Fooling Images",
        formula=(
            r"\mathbf{x}' = \mathbf{x} + \delta,\quad \|\delta\|\ \text{small},\quad \arg\max_c f_c(\mathbf{x}') = t",
        ),
        figures=tuple(
            figure(picture, caption=caption, lossless=True)
            for picture, caption in zip((outcome.picture(name) for name in SHOWN), captions, strict=True)
        ),
        tables=(Table(("what the network sees", "class", "probability"), rows),),
        words=(
            "Start from an arbitrary image, pick an arbitrary class, modify the image to maximise the class, repeat until"
            " the network is fooled. It is the same gradient that drew the saliency map, followed instead of looked at.",
            (success if found["success"] else f"Here {found['steps']} steps were not enough.")
            + f" {_control(found)} It is the *direction* that matters, and in {photo.numel():,} dimensions there is always"
            " a direction.",
        ),
        command=command_line("fool", parameters),
        seconds=0,
    )


def _control(found: Mapping[str, Any]) -> str:
    """What noise of the same size did, in a sentence."""
    noise = found["noise"]
    if noise["index"] == found["before"]["index"]:
        return f"Random noise of the same size leaves the answer at *{noise['name']}*."
    if noise["index"] == found["target"]["index"]:
        return "Here even random noise of that size is enough, which says how unsure the network was."
    return f"Random noise of the same size does not get there: the network then says *{noise['name']}*."
