"""What each layer remembers of the photograph."""

from __future__ import annotations

from phosphene import observe
from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "What each layer remembers"

LAYERS, STEPS = 5, 150


def make(stage: Stage) -> Job[Section | None]:
    """The photograph reconstructed from five layers of the tour's network."""
    try:
        layers = observe.landmarks(stage.network, LAYERS)
        parameters = {
            "image": stage.image, **stage.source(), "layers": layers, "steps": STEPS, "seed": stage.seed,
        }  # fmt: skip
        outcome = yield from stage.run("invert", parameters)
    except PhospheneError:  # no layer with a map, or one that is silent for this photograph
        return None
    rows = outcome.facts["layers"]
    kept = sum(row["recognised"] for row in rows)
    table = tuple(
        (row["layer"], " × ".join(map(str, row["shape"])), f"{row['error']:.3f}",
         f"{row['seen']['name']}, {row['seen']['probability']:.0%}")
        for row in rows
    )  # fmt: skip
    return Section(
        key="inversion",
        title=TITLE,
        slide="Feature Inversion",
        formula=(
            r"x^* = \arg\min_x\; \frac{\lVert \Phi(x) - \Phi_0 \rVert^2}{\lVert \Phi_0 \rVert^2}"
            r" + \lambda R_{V^\beta}(x)",
            r"R_{V^\beta}(x) = \sum_{i,j} \left((x_{i,j+1} - x_{ij})^2 + (x_{i+1,j} - x_{ij})^2\right)^{\beta / 2}",
        ),
        figures=tuple(
            figure(picture, caption=f"`{row['layer']}`, error {row['error']:.2g}")
            for picture, row in zip(outcome.pictures[1:], rows, strict=True)
        ),
        tables=(Table(("layer", "its output", "error", "seen as"), table),),
        words=(
            "These pictures were made from the activations of one layer alone. Each begins as an even grey and is moved until"
            " that layer can hardly tell it from your photograph; a prior (total variation) prefers smooth images among"
            " all that would do.",
            "Early layers keep nearly every pixel. Later ones give up where exactly things are and how they are coloured,"
            f" and keep what matters to the class: the network still sees the same class in {kept} of these"
            f" {len(rows)} pictures, also where you and I no longer would.",
        ),
        command=command_line("invert", parameters),
        seconds=0,
    )
