"""What the layers make of the photograph, from edges to objects."""

from __future__ import annotations

from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section, Table
from phosphene.report.stage import Stage, figure

TITLE = "The photograph on its way through the network"


def make(stage: Stage) -> Job[Section | None]:
    """The strongest channels of one layer of each resolution."""
    parameters = {"image": stage.image, **stage.source()}
    outcome = yield from stage.run("activations", parameters)
    layers = outcome.facts["layers"]
    first, last = layers[0], layers[-1]
    rows = tuple(
        (row["layer"], f"{row['channels']:,}", f"{row['size'][1]} × {row['size'][0]}", f"{row['silent']:.0%}")
        for row in layers
    )
    return Section(
        key="activations",
        title=TITLE,
        slide="Understanding intermediate neurons?",
        formula=(r"A^l = \sigma\left(W^l * A^{l-1} + b^l\right), \quad A^0 = I",),
        figures=(
            figure(outcome.picture("strip"), caption=_STRIP, wide=True),
            *(figure(outcome.picture(row["layer"]), caption=f"`{row['layer']}`") for row in layers),
        ),
        tables=(Table(("layer", "channels", "map", "silent"), rows),),
        words=(
            f"Each tile is one channel, and bright is where it fires. At `{first['layer']}` the maps are"
            f" {first['size'][1]} × {first['size'][0]} and still are the photograph: its edges, its colours, its grain."
            f" By `{last['layer']}` they are {last['size'][1]} × {last['size'][0]}, each cell has seen most of the"
            " picture, and a channel fires for *something that is there* rather than for how a pixel looks.",
            f"Resolution is traded for meaning: {first['channels']:,} channels become {last['channels']:,}, and more and"
            f" more of them stay silent for any one photograph ({first['silent']:.0%} at the start of this strip,"
            f" {last['silent']:.0%} at its end)."
            if last["silent"] > first["silent"] + 0.05
            else f"Resolution is traded for meaning: {first['channels']:,} channels become {last['channels']:,}.",
        ),
        command=command_line("activations", parameters),
        seconds=0,
    )


_STRIP = "From left to right: each column is a layer, each tile one of the channels that answer most distinctly."
