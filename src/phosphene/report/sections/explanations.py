"""Which pixels matter? Three answers to the same question."""

from __future__ import annotations

from phosphene.errors import RuleError
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Which pixels matter?"

CAPTIONS = {
    "saliency": "*Saliency*: how much the score would change with each pixel",
    "guided-backprop": "*Guided backpropagation*: only positive gradients through each ReLU",
    "grad-cam": "*Grad-CAM*: where the last layer finds evidence",
}

FORMULAS = {
    "saliency": r"M_{ij} = \max_k \left| \frac{\partial S_c}{\partial I_{kij}} \right|",
    "guided-backprop": r"R^l_i = \mathbb{1}[f^l_i > 0]\,\mathbb{1}[R^{l+1}_i > 0]\,R^{l+1}_i",
    "grad-cam": r"L_c = \mathrm{ReLU}\Big(\sum_k \alpha_k^c A^k\Big),\quad"
    r" \alpha_k^c = \frac{1}{Z}\sum_{i,j}\frac{\partial S_c}{\partial A^k_{ij}}",
}
GUIDED = (
    "*Guided backpropagation* lets only positive gradients pass back through each ReLU. Its pictures are the prettiest,"
    " but be careful: they show what excites the network in general more than what speaks for this class. "
)


def make(stage: Stage) -> Job[Section | None]:
    """Saliency, guided backprop and Grad-CAM of the predicted class; without guided backprop where it has no rule."""
    parameters: dict[str, object] = {"image": stage.image, **stage.source()}
    note = ""
    try:
        outcome = yield from stage.run("explain", parameters)
    except RuleError as refusal:
        parameters |= {"methods": ["saliency", "grad-cam"]}
        outcome = yield from stage.run("explain", parameters)
        note = f"No guided backpropagation here: {refusal}."
    target = outcome.facts["target"]
    methods = [picture.name for picture in outcome.pictures[1:]]
    return Section(
        key="explanations",
        title=TITLE,
        slide="Saliency Maps; Intermediate features via (guided) backprop",
        formula=tuple(FORMULAS[name] for name in methods),
        figures=tuple(figure(picture, caption=CAPTIONS[picture.name]) for picture in outcome.pictures[1:]),
        words=(
            f"All of them explain the score of *{target}*, before the softmax. *Saliency* is the plain gradient, absolute,"
            " with the maximum over the three colours: honest, and grainy, because the score of a deep network is a rough"
            " landscape.",
            (GUIDED if "guided-backprop" in methods else "")
            + "*Grad-CAM* asks later, at the last layer that still is a map, and is coarse but class-specific.",
        ),
        note=note,
        command=command_line("explain", parameters),
        seconds=0,
    )
