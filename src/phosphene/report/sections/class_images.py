"""What does the network think a black swan looks like? Gradient ascent on the slide's four classes, and on the photo's."""

from __future__ import annotations

from phosphene.jobs.command import command_line
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "The network's own picture of a class"

NET = "squeezenet1_1"  # plain ReLU convolutions, no batch norm: by far the more vivid pictures
SLIDE = ("hartebeest", "station wagon", "billiard table", "black swan")


def make(stage: Stage) -> Job[Section | None]:
    """The slide's four classes on both canvases, and the class that the tour's network predicts."""
    source = {"net": NET, "weights": None, "labels": None}  # the bundled one, whatever the tour's own network is
    generator = stage.workshop.network(NET)
    photo = stage.network.preprocess(stage.workshop.image(stage.image))
    seen = stage.network.predict(photo, 1)[0]
    classes, figures = list(SLIDE), []
    if stage.network.labels != generator.labels:  # a network with classes of its own paints its own
        own = {**stage.source(), "classes": [str(seen.indices[0])], "seed": stage.seed}
        outcome = yield from stage.run("visualize", own, part="own")
        figures += [figure(outcome.pictures[1], caption=f"{seen.names[0]}, by `{stage.net}` itself")]
    elif seen.indices[0] not in generator.classes(SLIDE):
        classes = [seen.names[0], *classes]
    parameters = {**source, "classes": classes, "seed": stage.seed}
    fourier = yield from stage.run("visualize", parameters)
    slide = parameters | {"canvas": "pixel"}
    pixel = yield from stage.run("visualize", slide, part="pixel")
    rows = fourier.facts["targets"]
    hits = sum(row["top1"] for row in rows)
    figures += [
        figure(picture, caption=f"{name}, p = {row['probability']:.0%}")
        for picture, name, row in zip(fourier.pictures[1:], classes, rows, strict=True)
    ]
    figures += [
        figure(picture, caption=f"{name}, the slide's way")
        for picture, name in zip(pixel.pictures[1:], classes, strict=True)
    ]
    return Section(
        key="class-images",
        title=TITLE,
        slide="Visualizing CNN Features: Gradient Ascent",
        formula=(
            r"I^* = \arg\max_I\; S_c(I) - \nu R(I)",
            r"I^* = \arg\max_I\; S_c(I) - \lambda \lVert I \rVert_2^2",
        ),
        figures=tuple(figures),
        words=(
            "No photograph is copied here. Start from an image of zeros, which is the mean colour, compute the score of"
            " a class, and move the *image* up the gradient, again and again. Look for what the network insists on: horns"
            " and legs on a plain, wheels and windows, coloured balls on a table, long necks with red beaks.",
            "The last row is the slide's own way: pixels, with a blur now and then, and pixels of small value or small"
            " contribution set to zero. The row before is a spectrum with decorrelated colours, so that large shapes move"
            " as easily as fine grain, and its *R* keeps each channel of each layer about as active, and as varied, as it"
            " is on photographs: whole animals and things appear where the score alone would pile up their parts.",
            f"`{NET}`, which made both rows, recognises {hits} of the {len(classes)} pictures of the first as their class."
            " That an image can be far from any photograph and still be *certain* is worth remembering for the next"
            " section.",
        ),
        note=f"The slide's way: `{command_line('visualize', slide)}`",
        command=command_line("visualize", parameters),
        seconds=0,
    )
