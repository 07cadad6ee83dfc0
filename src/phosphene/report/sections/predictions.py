"""What is it? The network's answer, which everything after this asks about."""

from __future__ import annotations

from phosphene import images
from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Picture
from phosphene.jobs.predict import predict
from phosphene.progress import Job
from phosphene.report.page import Bar, Section
from phosphene.report.stage import Stage, figure

TITLE = "What does the network say?"


def make(stage: Stage) -> Job[Section | None]:
    """The five most probable classes, beside the square that the network really sees."""
    parameters = {"images": [stage.image], **stage.source(), "top": 5}
    outcome = yield from predict(stage.workshop.fresh(), **parameters)
    found = outcome.facts["predictions"][0]["classes"]
    network = stage.network
    seen = network.preprocess(stage.workshop.image(stage.image))[0].cpu()
    height, width = network.input_size
    picture = Picture(
        "seen", images.quantize(seen), f"The photograph as the network sees it, {width} by {height} pixels"
    )
    first, second = found[0], found[1] if len(found) > 1 else None
    sure = "is quite sure" if first["probability"] > 0.8 else "hesitates" if first["probability"] < 0.5 else "leans"
    return Section(
        key="predictions",
        title=TITLE,
        slide="Visualizing Convolutional Networks",
        formula=(r"p_c = \frac{e^{S_c}}{\sum_j e^{S_j}}",),
        figures=(figure(picture, caption=f"The network's view: {width} × {height} pixels, nothing more."),),
        bars=tuple(Bar(row["name"], row["probability"], row is first) for row in found),
        words=(
            f"A convolutional network turns the {width} × {height} × {network.channels} numbers of the picture into one"
            f" score *S* for each of its {len(network.labels):,} classes. The softmax turns scores into probabilities.",
            f"Here it {sure}: *{first['name']}* at {first['probability']:.0%}"
            + (f", before *{second['name']}* at {second['probability']:.0%}" if second else "")
            + ". But what are the intermediate features looking for? And which pixels decided?"
            " A network is a function of its weights and of the image, and nearly everything below is its gradient with"
            " respect to the image.",
        ),
        command=command_line("predict", parameters),
        seconds=0,
    )
