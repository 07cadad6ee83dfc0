"""The 16 everyday categories that people and networks decide between: sets of ImageNet's 1,000 classes.

Geirhos et al., "Generalisation in humans and deep neural networks", NeurIPS 2018; the lists of synsets are those of
https://github.com/rgeirhos/texture-vs-shape (`code/helper/human_categories.py`), as far as they are among
ImageNet's 1,000 classes: 207, of which 109 are dogs and 49 are birds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from phosphene.errors import NetworkError
from phosphene.models import Labels, Network

_DATA = Path(__file__).parent / "data"

CATEGORIES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat", "chair", "clock", "dog", "elephant", "keyboard",
    "knife", "oven", "truck",
)  # fmt: skip
"""In alphabetical order, which decides between equals."""


@cache
def synsets() -> Mapping[str, tuple[str, ...]]:
    """Category -> the synset ids of its classes."""
    rows = dict(line.split("\t") for line in table_lines("geirhos16.tsv"))
    return {category: tuple(rows[category].split()) for category in CATEGORIES}


def category_classes(network: Network) -> dict[str, list[int]]:
    """Category -> the indices of its classes among the network's, found by synset.

    Raises:
        NetworkError: it does not classify, or its classes are not ImageNet's 1,000 (in any order).
    """
    network.need_classifier("shape bias")
    labels, known = network.labels, Labels.imagenet()
    places = {labels.synset(index): index for index in range(len(labels))}
    if len(labels) != len(known) or places.keys() != {known.synset(index) for index in range(len(known))}:
        raise NetworkError(
            f"shape bias is told from ImageNet's 1,000 classes, and {network.name} has {_others(labels, len(known))}"
        )
    return {category: [places[synset] for synset in ids] for category, ids in synsets().items()}


def _others(labels: Labels, wanted: int) -> str:
    if len(labels) == wanted:
        return "others: classes of a labels file come without synsets, so give none"
    return f"{len(labels)} others"


def table_lines(name: str) -> list[str]:
    """The lines of a table in `data`, without comments."""
    text = (_DATA / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]
