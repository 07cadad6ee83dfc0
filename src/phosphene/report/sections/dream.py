"""DeepDream on the photograph."""

from __future__ import annotations

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "The network dreams"

STEPS, OCTAVES, SIDE = 12, 4, 512


def make(stage: Stage) -> Job[Section | None]:
    """One dream, by a layer that sees faces and eyes."""
    photo = stage.workshop.image(stage.image)
    parameters = {
        "image": stage.image, **stage.source(), "steps": STEPS, "octaves": OCTAVES, "seed": stage.seed,
        "size": min(SIDE, max(photo.shape[-2:])),
    }  # fmt: skip
    try:
        outcome = yield from stage.run("dream", parameters)
    except PhospheneError:  # no layer with a map, or a photograph that is too small for it
        return None
    layer = next(iter(outcome.facts["layers"]))
    return Section(
        key="dream",
        title=TITLE,
        slide="DeepDream: amplifying features",
        formula=(r"I^* = \arg\max_I\; \sum_i f_i(I)^2", r"\frac{\partial}{\partial f_i}\, \frac{f_i^2}{2} = f_i"),
        figures=(figure(outcome.pictures[0], caption=f"your photograph, amplified at `{layer}`", wide=True),),
        words=(
            f"No class is asked for here. The photograph goes forward to `{layer}`, and whatever fires there is told to fire"
            " more: the gradient of the layer is set *equal to its activation* and sent back to the image. A shape that"
            " looked a little like an eye becomes one, and then it looks like one, so it becomes one even more.",
            f"It begins with a small copy of the photograph and goes on with larger ones ({len(outcome.facts['octaves'])}"
            " here), carrying along what it has painted, so that it dreams in large shapes as well as in fine ones. What"
            " a network dreams of tells what it was shown: one in nine classes of ImageNet is a dog.",
        ),
        command=command_line("dream", parameters),
        seconds=0,
    )
