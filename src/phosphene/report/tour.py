"""The tour: one photograph becomes the illustrated lecture."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from phosphene import images
from phosphene.jobs.outcome import Picture
from phosphene.jobs.workshop import Workshop
from phosphene.progress import Job, Started
from phosphene.recipe import versions
from phosphene.report import sections
from phosphene.report.page import Page, Section, render
from phosphene.report.stage import Made, Stage, figure


@dataclass(frozen=True, eq=False)
class Tour:
    """`html`: the page. `made`: its pictures, to be written beside it. `seconds`: per section."""

    html: str
    made: tuple[Made, ...]
    seconds: dict[str, float]


def tour(
    workshop: Workshop,
    *,
    image: str,
    net: str,
    weights: str | None,
    labels: str | None,
    seed: int,
    folder: str | None = None,
) -> Job[Tour]:
    """Make all sections for one photograph, and that on the last layer for a folder of them.

    Raises:
        ImageError, NetworkError: the photograph or the network can't be used; a network without classes can't be toured.
    """
    stage = Stage(workshop, image, net, weights, labels, seed, folder)
    stage.network.need_classifier("the tour")
    photo = workshop.image(image)
    made: list[Section] = []
    for name in sections.SECTIONS:
        yield Started(sections.title(name))
        begun = time.perf_counter()
        section = yield from sections.maker(name)(stage)
        if section is not None:
            made.append(replace(section, seconds=time.perf_counter() - begun))
    html = render(_page(stage, photo, made))
    return Tour(html, tuple(stage.made), {section.key: section.seconds for section in made})


def _page(stage: Stage, photo: torch.Tensor, made: list[Section]) -> Page:
    network = stage.network
    seen = network.predict(photo, 1)[0]
    name = Path(stage.image).name
    height, width = photo.shape[-2:]
    shown = (
        photo
        if max(height, width) <= 1200
        else images.resize(photo, round(1200 * min(height, width) / max(height, width)))
    )
    hero = figure(Picture("photo", shown[0].cpu(), f"The photograph {name}"))
    parameters = sum(p.numel() for p in network.module.parameters())
    return Page(
        title="What the network sees",
        lead=(
            f"One photograph, `{name}`, and one convolutional network, `{stage.net}`: what its layers make of it, which"
            " pixels decide, what the network would rather see, and how little it takes to fool it."
        ),
        hero=hero,
        facts=(
            ("The network says", f"{seen.names[0]}, {seen.probabilities[0]:.1%}"),
            ("Network", f"{stage.net}, {parameters / 1e6:.1f} million parameters"),
            ("Sees", f"{network.input_size[1]} × {network.input_size[0]} pixels of {width} × {height}"),
            ("Knows", f"{len(network.labels):,} classes"),
        ),
        sections=tuple(made),
        footer=(
            ("Seed", str(stage.seed)),
            ("Device", f"{stage.workshop.device}, {torch.get_num_threads()} threads"),
            *(
                (library.capitalize() if library != "timm" else library, version)
                for library, version in versions().items()
            ),
        ),
    )
