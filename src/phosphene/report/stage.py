"""What a section of the tour works with: the workshop, the photograph, and a place to put its pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from phosphene import images
from phosphene.jobs import job
from phosphene.jobs.command import defaults
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import Job, whole
from phosphene.recipe import Recipe
from phosphene.report.page import Figure, Section


@dataclass(frozen=True, eq=False)
class Made:
    """A picture to be written beside the page: its file name without suffix, itself, and its recipe."""

    name: str
    picture: Picture
    recipe: Recipe


@dataclass(eq=False)
class Stage:
    """One tour in the making.

    Attributes:
        workshop: where networks and images come from.
        image: path of the photograph.
        net, weights, labels: the network of the tour, as the command line names it.
        seed: of everything random.
        folder: of photographs, for the map of the last layer.
        made: the pictures so far.
    """

    workshop: Workshop
    image: str
    net: str
    weights: str | None
    labels: str | None
    seed: int
    folder: str | None = None
    made: list[Made] = field(default_factory=list)

    @property
    def network(self) -> Network:
        """The network of the tour."""
        return self.workshop.network(self.net, self.weights, self.labels)

    def source(self, net: str | None = None) -> dict[str, str | None]:
        """The parameters that name a network: the tour's, or another by name."""
        if net is None or net == self.net:
            return {"net": self.net, "weights": self.weights, "labels": self.labels}
        return {"net": net, "weights": None, "labels": None}

    def run(self, verb: str, parameters: dict[str, Any], *, part: str = "") -> Job[Outcome]:
        """Run a verb; all its pictures will be written as `VERB[-PART][-NAME].png`, each with its own recipe."""
        workshop = self.workshop.fresh()
        parameters = defaults(verb) | parameters  # a recipe has all options, as the command line's has
        outcome: Outcome = yield from whole(job(verb, workshop, parameters))  # a page with half a picture is no tour
        base = f"{verb}-{part}" if part else verb
        for place, picture in enumerate(outcome.pictures):
            name = base if place == 0 else f"{base}-{picture.name}"
            self.made.append(Made(name, picture, workshop.recipe(verb, parameters, picture.name, outcome.notes)))
        return outcome


Maker = Callable[[Stage], Job[Section | None]]
"""A section: yields the events of its jobs and returns what the page shows (None: nothing to show here)."""


def figure(picture: Picture, *, caption: str | None = None, wide: bool = False, lossless: bool = False) -> Figure:
    """A picture for the page, encoded as WebP where nothing may be lost and as JPEG elsewhere."""
    exact = lossless or picture.pixelated
    data = images.encode(picture.image, "webp") if exact else images.encode(picture.image, "jpeg", quality=90)
    height, width = picture.image.shape[-2:]
    return Figure(
        image=data,
        media_type="image/webp" if exact else "image/jpeg",
        alt=picture.alt,
        width=width,
        height=height,
        caption=picture.caption if caption is None else caption,
        wide=wide,
        pixelated=picture.pixelated,
    )
