"""Texture or shape: which of the two the network goes by."""

from __future__ import annotations

from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Picture
from phosphene.jobs.style_parts import PAINTING
from phosphene.models import Prediction
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Texture or shape?"

PAINTER, SIDE, STEPS, STYLE_WEIGHT = "squeezenet1_1", 256, 100, 60.0


def make(stage: Stage) -> Job[Section | None]:
    """The slide's three pictures: a texture, a content, and the cue conflict of both, each with its three best classes."""
    network = stage.network
    photo = network.preprocess(stage.workshop.image(stage.image))
    manner = stage.workshop.image(PAINTING)
    parameters = {
        "image": stage.image, **stage.source(PAINTER), "size": SIDE, "steps": STEPS, "style_weight": STYLE_WEIGHT,
        "seed": stage.seed,
    }  # fmt: skip
    try:
        outcome = yield from stage.run("style", parameters, part="conflict")
    except PhospheneError:
        return None
    conflict = outcome.pictures[0].image[None].to(network.device)
    shown = {"texture image": manner, "content image": photo, "texture-shape cue conflict": conflict}
    seen = {name: network.predict(image, 3)[0] for name, image in shown.items()}
    decided = seen["texture-shape cue conflict"].indices[0]
    by_texture = decided == seen["texture image"].indices[0]
    by_shape = decided == seen["content image"].indices[0]
    verdict = "the texture" if by_texture else "the shape" if by_shape else "neither: it sees a third thing"
    return Section(
        key="texture-shape",
        title=TITLE,
        slide="CNN learns texture features, not shapes!",
        formula=(
            r"\text{shape bias} = \frac{\text{decisions for shape}}{\text{decisions for shape} + \text{for texture}}",
        ),
        figures=tuple(
            figure(_shown(network.preprocess(image), name), caption=f"{name}: {_told(seen[name])}")
            for name, image in shown.items()
        ),
        words=(
            "On the left a texture, in the middle your photograph, on the right your photograph's shapes made of the texture."
            f" In the conflict of the two {stage.net} decides for {verdict}.",
            "One picture proves nothing. Geirhos et al. (ICLR 2019) made 1,280 such conflicts: people decide for the shape in"
            " 96% of them, ResNet-50 in 22%. `phosphene cue-conflict` makes some of your own pictures, and"
            " `phosphene shape-bias` measures any network on them or on theirs.",
        ),
        command=command_line("style", parameters),
        seconds=0,
    )


def _shown(image: Tensor, name: str) -> Picture:
    return Picture(name, image[0].cpu(), f"The {name}")


def _told(seen: Prediction) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in zip(seen.names, seen.probabilities, strict=True))
