"""Photographs as a data set of small pictures: all of one size, as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.memory import available
from phosphene.models.preprocess import Preprocess
from phosphene.progress import Job, Started, Step
from phosphene.training.folder import Photo, batches, examples
from phosphene.training.loading import ahead
from phosphene.training.split import Data, Split

DEFAULT = 32
"""Height and width of pictures, where nobody says and the photographs have several sizes, or are large."""
OWN = 96
"""The longest side that photographs may keep, if all have it."""
_TOGETHER = 256


def read_photos(
    folder: Path, size: tuple[int, int] | None = None, *, seed: int = 0, skip_bad: bool = False
) -> Job[Data]:
    """Read a folder with a folder of photographs for each class; in grey, if they all are.

    Args:
        folder: as `training.folder.examples` takes it; without `val`, a fifth of each class is held out as `test`.
        size: height and width; by default the photographs' own, if it is one, up to 96; else 32.
        seed: of the split.
        skip_bad: accept more than 5% of unreadable images.

    Raises:
        ImageError, PhospheneError: as `training.folder.examples`; or there are too many pictures for the memory.
    """
    found = yield from examples(folder, seed=seed, skip_bad=skip_bad)
    photos = [*found.train, *found.val]
    size = size or _own_size(photos) or (DEFAULT, DEFAULT)
    pixels = yield from _pixels(photos, size)
    if bool((pixels == pixels[:, :1]).all()):
        pixels = pixels[:, :1].contiguous()
    labels = torch.tensor([photo.label for photo in photos])
    cut = len(found.train)
    train, test = Split(pixels[:cut], labels[:cut]), Split(pixels[cut:], labels[cut:])
    return Data(train, test, found.classes, folder.resolve().name)


def resized(split: Split, size: tuple[int, int]) -> Split:
    """The same pictures at another size: the short side resized, the middle cut out."""
    if tuple(split.images.shape[2:]) == size:
        return split
    way = Preprocess(size, min(size))
    made = [_eight_bit(way(pictures)) for pictures, _ in split.batches(_TOGETHER)]
    return Split(torch.cat(made), split.labels)


def _own_size(photos: Sequence[Photo]) -> tuple[int, int] | None:
    """Height and width of all photographs, if they are the same and small."""
    own: tuple[int, int] | None = None
    for chunk in batches(len(photos), _TOGETHER):
        for place in chunk:
            height, width = images.read(photos[place].path).shape[2:]
            if max(height, width) > OWN or (own is not None and own != (height, width)):
                return None
            own = height, width
    return own


def _pixels(photos: Sequence[Photo], size: tuple[int, int]) -> Job[Tensor]:
    """uint8 `[N, 3, *size]`."""
    need, free = 3 * size[0] * size[1] * len(photos), available()
    if free is not None and need > free:
        raise PhospheneError(
            f"{len(photos):,} pictures of {size[0]} x {size[1]} take {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free:"
            " give a smaller size"
        )
    way = Preprocess(size, min(size))
    table = torch.empty((len(photos), 3, *size), dtype=torch.uint8)
    chunks = list(batches(len(photos), _TOGETHER))
    yield Started("reading images", len(photos), "image")

    def picture(place: int) -> Tensor:
        return _eight_bit(way(images.read(photos[place].path)))[0]

    for chunk, made in zip(chunks, ahead(chunks, picture), strict=True):
        table[chunk.start : chunk.stop] = torch.stack(made)
        yield Step(chunk.stop)
    return table


def _eight_bit(pictures: Tensor) -> Tensor:
    return pictures.mul(255).round().to(torch.uint8)
