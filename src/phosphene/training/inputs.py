"""What the trained part is given: photographs, or what the frozen part makes of them, once or anew each time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from phosphene import images, processes
from phosphene.memory import available
from phosphene.models import Network
from phosphene.progress import Job, Started, Step
from phosphene.training.augment import Augment
from phosphene.training.folder import Photo, batches
from phosphene.training.loading import ahead

IN_MEMORY = 2e9
"""Bytes of activations that are kept in memory at most, and not more than a third of what is free."""


class Frozen:
    """The part of a network up to and with the stage `after`, which no training changes; None: nothing but normalisation."""

    def __init__(self, network: Network, after: str | None) -> None:
        self.network, self.after = network, after

    def __call__(self, pictures: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [0, 1] to what the trained part takes; no gradients."""
        with torch.no_grad():
            if self.after is None:
                return self.network.normalise(pictures).contiguous(memory_format=torch.channels_last)
            return self.network.record(pictures, [self.after])[self.after].clone()


class Anew:
    """Each photograph read, augmented and run through the frozen part each time."""

    def __init__(self, photos: Sequence[Photo], augment: Augment, frozen: Frozen) -> None:
        self.photos, self.augment, self.frozen = photos, augment, frozen

    def batches(self, order: Sequence[Sequence[int]], epoch: int) -> Iterator[Tensor]:
        """What the trained part takes, for each batch of places."""

        def picture(place: int) -> Tensor:
            return self.augment(self.photos[place], place, epoch)

        for pictures in ahead(order, picture):
            yield self.frozen(torch.stack(pictures).to(self.frozen.network.mean))


class Once:
    """What the frozen part gave for each photograph, in memory, or in a file where there is too much of it."""

    def __init__(self, table: np.ndarray, folder: tempfile.TemporaryDirectory[str] | None, like: Tensor) -> None:
        self.table, self._folder, self._like = table, folder, like

    def batches(self, order: Sequence[Sequence[int]], epoch: int) -> Iterator[Tensor]:
        """As `Anew.batches`; the epoch changes nothing."""
        for places in order:
            batch = torch.from_numpy(self.table[list(places)]).to(self._like)
            yield batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def once(
    photos: Sequence[Photo], frozen: Frozen, *, every: bool = True, what: str = "the frozen part, once"
) -> Job[Once]:
    """Run the frozen part on each photograph, as it is when the network is used.

    Args:
        photos: which.
        frozen: the part.
        every: under torchrun: all of them in this process; else only those of `processes.mine`, the other rows stay empty.
        what: to call it.
    """
    network = frozen.network
    together = network.batch_size(network.input_size)
    chunks = list(batches(len(photos), together)) if every else processes.mine(len(photos), together)
    yield Started(what, sum(map(len, chunks)), "image")
    table: np.ndarray | None = None
    folder = None
    done = 0

    def picture(place: int) -> Tensor:
        return network.preprocess(images.read(photos[place].path))[0]

    for chunk, pictures in zip(chunks, ahead(chunks, picture), strict=True):
        made = frozen(torch.stack(pictures).to(network.mean)).float().cpu().numpy()
        if table is None:
            table, folder = _room((len(photos), *made.shape[1:]))
        table[chunk.start : chunk.stop] = made
        done += len(chunk)
        yield Step(done)
    if table is None:
        table = np.zeros((len(photos), 1), np.float32)
    return Once(table, folder, network.mean)


def _room(shape: tuple[int, ...]) -> tuple[np.ndarray, tempfile.TemporaryDirectory[str] | None]:
    size = 4 * float(np.prod(shape))
    if size <= min(IN_MEMORY, (available() or IN_MEMORY * 3) / 3):
        return np.zeros(shape, np.float32), None
    folder = tempfile.TemporaryDirectory(prefix="phosphene-")
    made = np.lib.format.open_memmap(Path(folder.name) / "once.npy", "w+", np.float32, shape)
    return made, folder
