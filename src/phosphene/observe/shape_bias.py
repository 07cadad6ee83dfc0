"""Does a network decide by shape or by texture? Images that show the shape of one thing with the texture of another.

    shape bias = shape decisions / (shape decisions + texture decisions)

A network's probabilities of 1,000 classes become a decision for one of 16 categories (`categories16`). Decisions for neither
cue don't count, nor do images whose two cues agree. People decide by shape (96%), most networks by texture.

Geirhos, Rubisch, Michaelis, Bethge, Wichmann & Brendel, "ImageNet-trained CNNs are biased towards texture; increasing shape
bias improves accuracy and robustness", ICLR 2019; data and protocol: https://github.com/rgeirhos/texture-vs-shape.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import PurePath
from statistics import NormalDist
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from phosphene.errors import ImageError, PhospheneError
from phosphene.explain.health import refuse_nan
from phosphene.explain.metrics.statistics import Interval
from phosphene.models import Network
from phosphene.observe.categories16 import CATEGORIES, category_classes, table_lines
from phosphene.observe.patches import Pictures, readable
from phosphene.progress import Job, Started, Step

Aggregate: TypeAlias = Literal["mean", "sum", "max"]
AGGREGATES: tuple[str, ...] = get_args(Aggregate)
"""How the probabilities of a category's classes become one number."""

_NAME = re.compile("({0})[0-9]+-({0})[0-9]+".format("|".join(CATEGORIES)))
_LISTED = 5  # names that an error message lists


@dataclass(frozen=True)
class Cues:
    """The categories that an image shows: one by its shape, one by its texture."""

    shape: str
    texture: str

    @property
    def conflict(self) -> bool:
        """Whether they differ, so that a decision tells something."""
        return self.shape != self.texture


@dataclass(frozen=True)
class Decision:
    """What was decided for one image. `image`: its file name; `category`: one of the 16."""

    image: str
    cues: Cues
    category: str

    @property
    def by(self) -> Literal["shape", "texture", "neither"]:
        """The cue that was followed; "shape" where both are of the category."""
        if self.category == self.cues.shape:
            return "shape"
        return "texture" if self.category == self.cues.texture else "neither"


@dataclass(frozen=True)
class Tally:
    """How many of `images` with conflicting cues were decided by `shape`, how many by `texture`."""

    shape: int
    texture: int
    images: int

    @property
    def neither(self) -> int:
        """Decisions for a category that the image shows in no way."""
        return self.images - self.shape - self.texture

    @property
    def bias(self) -> Interval | None:
        """Shape bias in [0, 1] with its 95% interval (`wilson`); None where nothing was decided by either cue."""
        return wilson(self.shape, self.shape + self.texture) if self.shape + self.texture else None

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.shape + other.shape, self.texture + other.texture, self.images + other.images)


_NOTHING = Tally(0, 0, 0)


@dataclass(frozen=True)
class ShapeBias:
    """The decisions of a network.

    Attributes:
        decisions: one for each image that could be read, in the order of the images, agreeing cues included.
        aggregate: how probabilities became one number for each category.
        skipped: place of an image that could not be read, and why.
    """

    decisions: tuple[Decision, ...]
    aggregate: str
    skipped: Mapping[int, str]

    @cached_property
    def by_shape(self) -> dict[str, Tally]:
        """Shape category -> the decisions for its images with conflicting cues; only categories that have any."""
        found: dict[str, Tally] = {}
        for made in self.decisions:
            if made.cues.conflict:
                one = Tally(made.by == "shape", made.by == "texture", 1)
                found[made.cues.shape] = found.get(made.cues.shape, _NOTHING) + one
        return dict(sorted(found.items()))

    @property
    def total(self) -> Tally:
        """All images with conflicting cues."""
        return sum(self.by_shape.values(), _NOTHING)

    @property
    def agreeing(self) -> int:
        """How many images were left out because their cues agree."""
        return sum(not made.cues.conflict for made in self.decisions)


def shape_bias(
    network: Network, pictures: Pictures, names: Sequence[str], *, aggregate: str = "mean"
) -> Job[ShapeBias]:
    """Decide for each cue-conflict image by softmax over all classes, read and run a few images at a time.

    An image of exactly the network's input size (Geirhos' are 224 x 224) goes in as it is, as in the reference protocol;
    others go through `network.preprocess`, as for `predict`.

    Args:
        network: any network of ImageNet's 1,000 classes, known by synset.
        pictures: the images.
        names: of their files, see `parse_cues`.
        aggregate: "mean", which does not favour categories of many classes and which the authors recommend; "sum" or "max".

    Yields:
        progress; returns the decisions.

    Raises:
        ImageError: names that tell no cues, or no readable image whose cues differ.
        NetworkError: other classes, or NaN.
        PhospheneError: another `aggregate`.
    """
    check_aggregate(aggregate)
    classes = category_classes(network)
    cues = read_cues(names)
    yield Started("shape bias", len(pictures), "image")
    skipped: dict[int, str] = {}
    decisions: list[Decision] = []
    together = network.batch_size(network.input_size)
    for start in range(0, len(pictures), together):
        images = readable(pictures, range(start, min(start + together, len(pictures))), skipped)
        if images:
            chosen = decide(_probabilities(network, torch.stack(list(images.values()))), classes, aggregate)
            decisions += [Decision(names[p], cues[p], name) for p, name in zip(images, chosen, strict=True)]
        yield Step(min(start + together, len(pictures)))
    found = ShapeBias(tuple(decisions), aggregate, skipped)
    if not found.by_shape:
        raise ImageError(f"no image whose cues differ can be read: {next(iter(skipped.values()))}")
    return found


def _probabilities(network: Network, images: Tensor) -> Tensor:
    batch = images.to(network.mean)
    with torch.no_grad():
        found = network.logits(batch).cpu().double().softmax(1)
    sound = torch.isfinite(found).all(1).tolist()
    if not all(sound):
        refuse_nan(network, batch[sound.index(False)][None])
    return found


def decide(probabilities: Tensor, classes: Mapping[str, Sequence[int]], aggregate: str = "mean") -> list[str]:
    """The category with the largest aggregated probability, for each row; of equals the first in alphabetical order.

    Args:
        probabilities: `[N, 1000]` in [0, 1].
        classes: category -> indices of its classes, see `category_classes`.
        aggregate: "mean", "sum" or "max".

    Raises:
        PhospheneError: another `aggregate`.
    """
    check_aggregate(aggregate)
    names = sorted(classes)
    values = torch.stack([_together(probabilities[:, list(classes[name])], aggregate) for name in names], dim=1)
    return [names[place] for place in values.argmax(1).tolist()]  # argmax gives the first of equals


def _together(values: Tensor, aggregate: str) -> Tensor:
    if aggregate == "mean":
        return values.mean(1)
    return values.sum(1) if aggregate == "sum" else values.amax(1)


def check_aggregate(aggregate: str) -> None:
    """Raise a PhospheneError for what is none of `AGGREGATES`."""
    if aggregate not in AGGREGATES:
        raise PhospheneError(f"probabilities are not aggregated by '{aggregate}': give {', '.join(AGGREGATES)}")


def parse_cues(name: str) -> Cues | None:
    """The cues that a file name tells: "cat1-car3.png" has the shape of a cat, the texture of a car. None: no such name."""
    found = _NAME.fullmatch(PurePath(name).stem)
    return None if found is None else Cues(found[1], found[2])


def read_cues(names: Sequence[str]) -> list[Cues]:
    """The cues of all images.

    Raises:
        ImageError: names that tell none (the message lists the first), or cues that agree in every image.
    """
    found = [parse_cues(name) for name in names]
    wrong = [name for name, cues in zip(names, found, strict=True) if cues is None]
    if wrong:
        more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
        raise ImageError(
            f"{len(wrong)} of {len(names)} file names tell no shape and texture, as cat1-car3.png does:"
            f" {', '.join(wrong[:_LISTED])}{more}; the categories are {', '.join(CATEGORIES)}"
        )
    cues = [one for one in found if one is not None]
    if not any(one.conflict for one in cues):
        raise ImageError(
            f"in none of the {len(cues)} images do shape and texture differ, so there is nothing to decide"
        )
    return cues


def wilson(successes: int, count: int, *, level: float = 0.95) -> Interval:
    """A share and its Wilson score interval, which keeps its width where the share is 0 or 1 (a bootstrap's would vanish).

    It takes images as independent. Here several show the same shape or the same texture, so the true one is somewhat wider.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

    Args:
        successes: 0 to `count`.
        count: at least 1.
        level: in (0, 1).

    Raises:
        PhospheneError: one of these is out of range.
    """
    if not 0 <= successes <= count or count < 1 or not 0 < level < 1:
        raise PhospheneError(f"{successes} of {count} at level {level} have no interval")
    share, z = successes / count, NormalDist().inv_cdf((1 + level) / 2)
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    # Rounding must not put the end that is exactly 0 or 1 beside the share itself.
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)), count)


@dataclass(frozen=True)
class Published:
    """The decisions of someone in the published data, over 75 images of each shape category.

    Attributes:
        name: "humans" (all ten together), "subject-01" to "subject-10", or a network: "resnet50", "resnet50-sin", ...
        title: for people to read.
        human: a person, or all.
        by_shape: all 16 shape categories -> decisions.
        source: the file in https://github.com/rgeirhos/texture-vs-shape.
    """

    name: str
    title: str
    human: bool
    by_shape: Mapping[str, Tally]
    source: str

    def over(self, categories: Collection[str] = CATEGORIES) -> Tally:
        """The decisions for images of these shape categories."""
        return sum((self.by_shape[name] for name in categories), _NOTHING)


@cache
def published() -> tuple[Published, ...]:
    """People and networks in the published data, counted by `tools/measure_published_bias.py`.

    Networks' probabilities were aggregated in another way than by the mean: ResNet-50 has 22.1%, and 21.4% by the mean, as
    the repository says. There, AlexNet, VGG-16 and GoogLeNet of the paper are Caffe's; torchvision's have their own rows.
    """
    header, *rows = (line.split("\t") for line in table_lines("published_bias.tsv"))
    return tuple(_published(dict(zip(header, row, strict=True))) for row in rows)


def _published(row: Mapping[str, str]) -> Published:
    tallies = {name: Tally(*map(int, row[name].split("/"))) for name in CATEGORIES}
    return Published(row["name"], row["title"], row["kind"] == "human", tallies, row["source"])


def people(categories: Iterable[str] = CATEGORIES) -> tuple[float, float]:
    """The least and the largest shape bias of one person, over these shape categories."""
    names = list(categories)
    found = [one.over(names).bias for one in published() if one.human and one.name != "humans"]
    shares = [bias.mean for bias in found if bias is not None]
    return min(shares), max(shares)
