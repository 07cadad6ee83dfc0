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
    """The predicted class (where the generating network has it) and the slide's four, on both canvases."""
    generator = stage.workshop.network(NET)
    classes = list(SLIDE)
    if stage.network.classifies and stage.network.labels == generator.labels:
        photo = stage.network.preprocess(stage.workshop.image(stage.image))
        predicted = stage.network.predict(photo, 1)[0].names[0]
        if generator.labels.resolve(predicted) not in generator.classes(SLIDE):
            classes = [predicted, *classes]
    parameters = {**stage.source(NET), "classes": classes, "seed": stage.seed}
    fourier = yield from stage.run("visualize", parameters)
    slide = parameters | {"canvas": "pixel"}
    pixel = yield from stage.run("visualize", slide, part="pixel")
    hits = sum(row["top1"] for row in fourier.facts["targets"])
    figures = [
        figure(picture, caption=f"{name}, p = {row['probability']:.0%}")
        for picture, name, row in zip(fourier.pictures[1:], classes, fourier.facts["targets"], strict=True)
    ]
    figures += [
        figure(picture, caption=f"{name}, the slide's way")
        for picture, name in zip(pixel.pictures[1:], classes, strict=True)
    ]
    return Section(
        key="class-images",
        title=TITLE,
        slide="Visualizing CNN Features: Gradient Ascent",
        formula=(r"I^* = \arg\max_I\; S_c(I) - \lambda \lVert I \rVert_2^2",),
        figures=tuple(figures),
        words=(
            "No photograph went into these. Start from an image of zeros, compute the score of a class, and move the"
            " *image* up the gradient, again and again. Look for what the network insists on: horns and legs on a plain,"
            " wheels and windows, coloured balls on a table, long necks with red beaks.",
            "Below, the slide's own way: pixels, with a blur now and then, and pixels of small value or small"
            " contribution set to zero. Above, the same objective, but the image is a spectrum with decorrelated colours,"
            " so that large shapes move as easily as fine grain.",
            f"The network that made them recognises {hits} of the {len(classes)} upper pictures as their class. That an"
            " image can be far from any photograph and still be *certain* is worth remembering for the next section.",
        ),
        command=command_line("visualize", parameters),
        seconds=0,
    )
