"""Patches: the parts of many photographs that excite a unit most.

    for each image I the place argmax_{y,x} f_k(I)_{yx}; of these the images where f_k is largest

What a neuron answers to is easier to see in photographs than in its weights.

Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, figure 2; Springenberg et al., "Striving
for Simplicity", ICLR Workshop 2015, figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from phosphene import processes
from phosphene.errors import ImageError, LayerError, PhospheneError
from phosphene.models import Network, Unit
from phosphene.observe.receptive_field import receptive_fields
from phosphene.progress import Job, Started, Step

Box = tuple[int, int, int, int]


class Pictures(Protocol):
    """Images that are read when they are needed: `pictures[i]` is `[3, H, W]` in [0, 1] at the network's input size."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Patch:
    """Where a unit is excited.

    Attributes:
        image: place of the image in the collection.
        position: (row, column) of the neuron in the unit's map; None for a layer without one.
        value: its activation.
        box: top, left, bottom, right (exclusive) of the pixels that this neuron sees, in the preprocessed image.
    """

    image: int
    position: tuple[int, int] | None
    value: float
    box: Box


@dataclass(frozen=True)
class Patches:
    """`found`: channel -> its patches, the most exciting first. `skipped`: images that could not be read, and why."""

    layer: str
    found: dict[int, tuple[Patch, ...]]
    skipped: dict[int, str]


def patches(
    network: Network, pictures: Pictures, layer: str, channels: Sequence[int], *, count: int = 9
) -> Job[Patches]:
    """Find the patches that excite some channels of a layer most, one of each image at most.

    Images are read, run up to the layer and forgotten, a few at a time; only the best places are kept, so the memory does
    not grow with the number of images. Processes that torchrun started share the images: all of them call this, and each
    gets the patches of all.

    Args:
        network: any network.
        pictures: the images.
        layer: a layer of it.
        channels: of that layer.
        count: patches of each channel, at least 1.

    Yields:
        progress; returns the patches. A unit that is silent in all images has fewer, or none: only values above the
        unit's least are patches.

    Raises:
        LayerError: no such layer or channel.
        PhospheneError: no channels, a count below 1, or no image that can be read.
    """
    if count < 1 or not channels:
        raise PhospheneError(f"{len(channels)} units, {count} patches each: give at least one of each")
    for channel in channels:
        Unit(layer, channel).check(network)
    if len(network.layer(layer).shape) not in (1, 3):
        raise LayerError(f"layer '{layer}' gives neither maps nor a vector: its units have no place in the image")
    best = _Best(list(dict.fromkeys(channels)), count)
    skipped: dict[int, str] = {}
    yield Started("patches", len(pictures), "image")
    for chunk in processes.mine(len(pictures), network.batch_size(network.input_size)):
        images = readable(pictures, chunk, skipped)
        if images:
            batch = torch.stack(list(images.values())).to(network.mean)
            best.add(list(images), network.record(batch, [layer])[layer])
        yield Step(chunk.stop)
    best.gather()
    skipped = processes.merged(skipped)
    if len(skipped) == len(pictures):
        raise PhospheneError(
            f"none of the {len(pictures)} images can be read: {next(iter(skipped.values()), 'no images')}"
        )
    fields = receptive_fields(network, layer)
    found = {channel: tuple(_patch(fields, channel, *row) for row in rows) for channel, rows in best.rows().items()}
    return Patches(layer, found, skipped)


def readable(pictures: Pictures, places: range, skipped: dict[int, str]) -> dict[int, Tensor]:
    """The images at these places that can be read; why the others can't goes into `skipped`."""
    images = {}
    for place in places:
        try:
            images[place] = pictures[place]
        except ImageError as problem:
            skipped[place] = str(problem)
    return images


def _patch(fields: Tensor, channel: int, value: float, image: int, position: int) -> Patch:
    """The patch of the neuron at the flat `position` of a channel's map."""
    own = fields[channel]
    if own.ndim == 1:
        return Patch(image, None, value, _box(own))
    width = own.shape[1]
    row, column = position // width, position % width
    return Patch(image, (row, column), value, _box(own[row, column]))


def _box(edges: Tensor) -> Box:
    top, left, bottom, right = edges.tolist()
    return top, left, bottom, right


class _Best:
    """The `count` largest values of each channel so far, with the images and places that they come from."""

    def __init__(self, channels: list[int], count: int) -> None:
        self.channels, self.count = channels, count
        self.values = torch.empty(len(channels), 0)
        self.images = torch.empty(len(channels), 0, dtype=torch.long)
        self.positions = torch.empty(len(channels), 0, dtype=torch.long)
        self.least = torch.full((len(channels),), float("inf"))

    def add(self, images: list[int], activation: Tensor) -> None:
        """`activation [N, C, ...]` of the images called so."""
        maps = activation[:, self.channels].flatten(2) if activation.ndim > 2 else activation[:, self.channels, None]
        values, positions = maps.float().cpu().max(2)
        self.least = torch.minimum(self.least, maps.float().cpu().amin((0, 2)))
        names = torch.tensor(images).expand(len(self.channels), -1)
        self.values = torch.cat([self.values, values.T], 1)
        self.images, self.positions = torch.cat([self.images, names], 1), torch.cat([self.positions, positions.T], 1)
        self._keep_best()

    def gather(self) -> None:
        """Take in what the other processes have found."""
        parts = processes.gather((self.values, self.images, self.positions, self.least))
        if len(parts) == 1:
            return
        values, images, positions, least = zip(*parts, strict=True)
        self.values, self.images, self.positions = torch.cat(values, 1), torch.cat(images, 1), torch.cat(positions, 1)
        self.least = torch.stack(least).amin(0)
        self._keep(self.images.argsort(dim=1, stable=True))  # of equal values the first image's is kept
        self._keep_best()

    def _keep_best(self) -> None:
        order = self.values.argsort(dim=1, descending=True, stable=True)[:, : self.count]
        self._keep(order)

    def _keep(self, order: Tensor) -> None:
        self.values, self.images, self.positions = (
            kept.gather(1, order) for kept in (self.values, self.images, self.positions)
        )

    def rows(self) -> dict[int, list[tuple[float, int, int]]]:
        """Channel -> (value, image, position), best first."""
        every = zip(self.values.tolist(), self.images.tolist(), self.positions.tolist(), strict=True)
        return {
            channel: [row for row in zip(*columns, strict=True) if row[0] > least]
            for channel, columns, least in zip(self.channels, every, self.least.tolist(), strict=True)
        }
