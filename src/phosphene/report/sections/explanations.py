"""Which pixels matter? Several answers to the same question."""

from __future__ import annotations

from phosphene.explain import METHODS
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Which pixels matter?"

WORDS = {
    "saliency": "*Saliency* is the plain gradient, absolute, with the maximum over the three colours: honest, and grainy,"
    " because the score of a deep network is a rough landscape.",
    "guided-backprop": "*Guided backpropagation* lets only positive gradients pass back through each ReLU. Its pictures are"
    " the prettiest; the next section asks what they are worth.",
    "lrp": "*LRP* hands the score down from each neuron to its inputs, by their shares in it.",
    "occlusion": "*Occlusion* asks no gradient at all: it covers a window and sees how much the score falls.",
    "grad-cam": "*Grad-CAM* asks late, at the last layer that still is a map, and is coarse but about this class.",
}


def make(stage: Stage) -> Job[Section | None]:
    """The usual methods for the predicted class; without those that this network can't have."""
    parameters: dict[str, object] = {"image": stage.image, **stage.source()}
    outcome = yield from stage.run("explain", parameters)
    pictures = outcome.pictures[1:]
    names = [picture.name for picture in pictures]
    refused = outcome.facts["refused"]
    return Section(
        key="explanations",
        title=TITLE,
        slide="Saliency Maps; Intermediate features via (guided) backprop",
        formula=tuple(METHODS[name].formula for name in names if name in ("saliency", "guided-backprop", "grad-cam")),
        figures=tuple(
            figure(picture, caption=f"*{METHODS[picture.name].title}*: {METHODS[picture.name].idea}")
            for picture in pictures
        ),
        words=(
            f"All of them explain the score of *{outcome.facts['target']}*, before the softmax, and they don't agree."
            " Red speaks for it and blue against it, white and grey are zero.",
            " ".join(WORDS[name] for name in names),
        ),
        note=" ".join(f"No {METHODS[name].title} here: {why}." for name, why in refused.items())
        or "All fifteen methods: `phosphene explain PHOTO --method all`.",
        command=command_line("explain", parameters),
        seconds=0,
    )
