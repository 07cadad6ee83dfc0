"""Textures of the photograph, from deeper and deeper layers."""

from __future__ import annotations

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Texture: which features occur together"

PAINTER, SIDE, STEPS = "squeezenet1_1", 192, 100


def make(stage: Stage) -> Job[Section | None]:
    """The photograph's textures, by a bundled network whose layers suit that."""
    parameters = {
        "image": stage.image, **stage.source(PAINTER), "figure": True, "sample": SIDE, "size": str(SIDE), "steps": STEPS,
        "seed": stage.seed,
    }  # fmt: skip
    try:
        outcome = yield from stage.run("texture", parameters)
    except PhospheneError:  # a photograph that is smaller than what one place of a layer sees
        return None
    layers = outcome.facts["layers"]
    seen = stage.network.predict(outcome.pictures[-1].image[None].to(stage.network.device), 1)[0]
    return Section(
        key="texture",
        title=TITLE,
        slide="Neural Texture Synthesis",
        formula=(
            r"G^l_{ij} = \sum_k F^l_{ik} F^l_{jk}",
            r"E_l = \frac{1}{4 N_l^2 M_l^2} \sum_{i,j} \left(G^l_{ij} - \hat G^l_{ij}\right)^2",
        ),
        figures=tuple(
            figure(picture, caption=f"`{layer}`" if place == 0 else f"... to `{layer}`")
            for place, (layer, picture) in enumerate(zip(layers, outcome.pictures[1:], strict=False))
        ),
        words=(
            "A Gram matrix says which features of a layer fire together, summed over all places: *what* there is without"
            " *where*. Each picture began as noise and was moved until its Gram matrices were those of your photograph, in"
            " the first layer alone, then in the first two, and so on. Deeper layers bring larger parts, never the whole.",
            f"Of the last one, without any of your photograph's shapes, {stage.net} says: {seen.names[0]},"
            f" {seen.probabilities[0]:.0%}.",
        ),
        command=command_line("texture", parameters),
        seconds=0,
    )
