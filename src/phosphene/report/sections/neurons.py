"""Intermediate features by gradient ascent: what units look for, from the first layers to the last."""

from __future__ import annotations

from phosphene import observe
from phosphene.errors import LayerError
from phosphene.jobs.command import command_line
from phosphene.models import Network
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure
from phosphene.synthesize.smallest import smallest_side

TITLE = "Neurons through the depth"

LAYERS, PER_LAYER, STEPS, SIDE = 6, 4, 100, 128


def make(stage: Stage) -> Job[Section | None]:
    """Four units of each of six layers of the tour's network."""
    try:
        layers = observe.landmarks(stage.network, LAYERS)
    except LayerError:  # no layer with a map
        return None
    parameters = {
        **stage.source(), "layers": layers, "per_layer": PER_LAYER, "steps": STEPS, "seed": stage.seed,
        "size": _side(stage.network, layers),
    }  # fmt: skip
    outcome = yield from stage.run("visualize", parameters, part="neurons")
    silent = sum("silent" in row for row in outcome.facts["targets"])
    return Section(
        key="neurons",
        title=TITLE,
        slide="Visualizing CNN Features: Gradient Ascent (intermediate features)",
        formula=(r"I^* = \arg\max_I\; \frac{1}{HW} \sum_{y,x} f_k(I)_{y,x} - \lambda \lVert I \rVert_2^2",),
        figures=tuple(figure(outcome.picture(layer), caption=f"`{layer}`") for layer in layers),
        words=(
            "The same ascent, stopped half-way: instead of a class, each picture excites one channel of a layer. Nobody"
            " chose these channels; they are spread evenly over each layer. Read them from the first layer to the last:"
            " colours and stripes, then textures, then eyes, petals, legs, then things in their surroundings.",
            "Such a picture shows what a unit answers to *most*, not all that it answers to. Photographs say more about"
            " that: `phosphene patches` finds the ones in a folder of yours, and `phosphene visualize --patches` puts them"
            " beside these.",
            *((f"{silent} of them are silent: nothing that was tried moved them, and they are shown as an even grey.",)
              if silent else ()),
        ),
        command=command_line("visualize", parameters),
        seconds=0,
    )  # fmt: skip


def _side(network: Network, layers: list[str]) -> str | None:
    """A side that all of the layers can see, as the command line has it; None, the network's input, where there is none."""
    least = max(smallest_side(network, layer) for layer in layers)
    return str(SIDE) if least <= SIDE <= min(network.input_size) else None
