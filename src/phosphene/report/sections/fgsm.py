"""The slide's equation: one step along the sign of the gradient, and the photograph is something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene import images
from phosphene.attacks import fgsm
from phosphene.errors import NetworkError
from phosphene.jobs.command import command_line, radius_text
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "One small step"

LEVELS = (1, 2, 4, 8)
"""Of 255: the radii that are tried, the smallest first."""


def make(stage: Stage) -> Job[Section | None]:
    """The equation at the smallest radius that fools, or at the largest."""
    network = stage.network
    if not network.classifies or len(network.labels) < 2:
        return None
    try:
        eps = yield from _smallest(stage)
        parameters = {"image": stage.image, **stage.source(), "attack": "fgsm", "eps": eps, "seed": stage.seed}
        outcome = yield from stage.run("fool", parameters, part="fgsm")
    except NetworkError:  # a network whose gradient is 0 everywhere
        return None
    found = outcome.facts
    rows = tuple(
        (what, found[key]["name"], f"{found[key]['probability']:.1%}")
        for what, key in (
            ("the photograph", "before"),
            ("after the step", "after"),
            ("the result, saved as PNG and read back", "read_back"),
            ("random signs of the same size instead", "noise"),
            ("the signs of the gradient by themselves", "direction"),
        )
    )
    return Section(
        key="fgsm",
        title=TITLE,
        slide="Convolutional Networks lack Robustness",
        formula=(r"\mathbf{x}' = \mathbf{x} + \epsilon\, \mathrm{sign}(\nabla_{\mathbf{x}} J)",),
        figures=(figure(outcome.picture("equation"), wide=True, lossless=True),),
        tables=(Table(("what the network sees", "class", "probability"), rows),),
        words=(
            "Nobody asks for a class here: it is enough that the answer is wrong. The gradient of the loss says for each"
            " value of the picture whether more or less of it hurts, and the fast gradient sign method (Goodfellow, Shlens &"
            " Szegedy, ICLR 2015) takes one step of the same length for all of them. One look and one gradient, no search.",
            _outcome(found, eps) + f" {_control(found)}",
        ),
        command=command_line("fool", parameters),
        seconds=0,
    )


def _smallest(stage: Stage) -> Job[float]:
    """The first radius at which one step fools the network; the last one if none does."""
    network = stage.network
    photo = images.quantize(network.preprocess(stage.workshop.image(stage.image)))
    seen = network.predict(photo, 1)[0].indices
    for level in LEVELS:
        found = yield from fgsm(network, photo, seen, eps=level / 255, quantize=True)
        if bool(found.success[0]):
            return level / 255
    return LEVELS[-1] / 255


def _outcome(found: Mapping[str, Any], eps: float) -> str:
    levels = round(eps * 255)
    tried = ", ".join(map(str, LEVELS[: LEVELS.index(levels) + 1]))
    if not found["success"]:
        return (
            f"Here one step is not enough, even where each value may move by {levels} of 255 (tried: {tried}): the network"
            f" still says *{found['after']['name']}*. Many small steps, as in `--attack pgd`, go further."
        )
    return (
        f"Here ε is {radius_text(eps)}, the smallest of {', '.join(map(str, LEVELS))} levels of 255 that fools it:"
        f" *{found['before']['name']}* becomes *{found['after']['name']}*, though no value moved by more than {levels}/255."
    )


def _control(found: Mapping[str, Any]) -> str:
    """What random signs of the same size did, in a sentence."""
    noise = found["noise"]
    if noise["index"] == found["before"]["index"] and not found["success"]:
        return f"Random signs of the same size leave it at *{noise['name']}*, too."
    if noise["index"] == found["before"]["index"]:
        return (
            f"Random signs of the same size leave it at *{noise['name']}*: it is not the noise, it is that every value moves"
            " in the direction that hurts, and many thousands of tiny pushes add up."
        )
    return (
        f"Random signs of the same size are enough here to get *{noise['name']}* ({noise['probability']:.0%}), which says how"
        f" unsure the network was; the gradient's make it {found['after']['probability']:.0%} sure."
    )
