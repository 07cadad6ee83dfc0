"""Last layers are hard to visualize: a folder of photographs on a map."""

from __future__ import annotations

from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "Last layers are hard to see"


def make(stage: Stage) -> Job[Section | None]:
    """Where a folder is given: its images by what the last layer but one makes of them."""
    if stage.folder is None:
        return None
    parameters = {"folder": stage.folder, **stage.source(), "query": stage.image, "seed": stage.seed}
    outcome = yield from stage.run("embed", parameters)
    facts = outcome.facts
    main, grid = outcome.picture("embed"), outcome.picture("grid")
    return Section(
        key="map",
        title=TITLE,
        slide="Last Layer: Dimensionality Reduction",
        formula=(
            r"\min_{y_1, \dots, y_N}\; \mathrm{KL}(P \,\Vert\, Q) = \sum_{i \neq j} p_{ij} \log \frac{p_{ij}}{q_{ij}}",
        ),
        figures=(
            figure(main, wide=True),
            figure(grid, wide=True),
            figure(outcome.picture("neighbours"), wide=True),
        ),
        words=(
            f"The last layer but one of `{stage.net}` (`{facts['layer']}`) turns each image into a long list of numbers,"
            " and images of which it thinks alike get similar lists. t-SNE lays these out in a plane: neighbours should"
            " stay neighbours; distances between groups mean little.",
            "A map can lie. How much of the neighbourhoods it keeps, and whether neighbours are of one class, is printed"
            " below it. The last picture shows the photograph of this tour, and what the network finds most like it in"
            " the folder.",
        ),
        command=command_line("embed", parameters),
        seconds=0,
    )
