"""The photograph, painted; and whether the network still sees what it shows."""

from __future__ import annotations

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Neural style"

PAINTER, SIDE, STEPS = "squeezenet1_1", 448, 100


def make(stage: Stage) -> Job[Section | None]:
    """One picture in the manner of the bundled painting."""
    photo = stage.workshop.image(stage.image)
    parameters = {
        "image": stage.image, **stage.source(PAINTER), "size": min(SIDE, max(photo.shape[-2:])), "steps": STEPS,
        "seed": stage.seed,
    }  # fmt: skip
    try:
        outcome = yield from stage.run("style", parameters)
    except PhospheneError:  # a photograph that is too small
        return None
    kept = [now / before for before, now in outcome.facts["style_losses"].values() if before]
    return Section(
        key="style",
        title=TITLE,
        slide="Combined Loss for both Content and Style",
        formula=(
            r"\mathcal{L}_{content} = \frac{1}{2} \sum_{i,j} \left(F^l_{ij} - P^l_{ij}\right)^2",
            r"\mathcal{L} = \alpha \mathcal{L}_{content} + \beta \sum_l w_l E_l",
        ),
        figures=(
            figure(
                outcome.pictures[1], wide=True, caption=f"your photograph in the manner of a painting, by {PAINTER}"
            ),
        ),
        words=(
            "The features of one deep layer hold the photograph's shapes; the Gram matrices of five layers, from fine to"
            " coarse, hold the painter's hand. The picture is what comes nearest to both: it began as your photograph and was"
            f" moved by L-BFGS, first small, then larger. {sum(kept) / len(kept):.1%} of the distance between the Gram"
            " matrices of the photograph and the painting are left.",
        ),
        command=command_line("style", parameters),
        seconds=0,
    )
