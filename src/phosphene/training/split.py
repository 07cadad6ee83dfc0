"""Data sets as tensors of bytes: small enough to lie in memory, so that a training reads no file."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError

_LISTED = 5


@dataclass(frozen=True, eq=False)
class Split:
    """Pictures and what is on them.

    Attributes:
        images: uint8 `[N, C, H, W]`, 0 to 255; C is 1 (grey) or 3 (RGB).
        labels: int64 `[N]`.

    Raises:
        PhospheneError: other types or shapes, none at all, or not one label for each picture.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8:
            raise PhospheneError(f"pictures are bytes 0 to 255 (uint8), these are {_span(self.images)}")
        if self.images.ndim != 4 or self.images.shape[1] not in (1, 3) or not self.images.numel():
            raise PhospheneError(f"pictures are [N, 1 or 3, H, W], these are {list(self.images.shape)}")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1:
            raise PhospheneError(f"labels are int64 [N], these are {self.labels.dtype} {list(self.labels.shape)}")
        if len(self.images) != len(self.labels):
            raise PhospheneError(f"there are {len(self.images):,} pictures and {len(self.labels):,} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, places: Tensor | slice) -> tuple[Tensor, Tensor]:
        """`(images [n, C, H, W] float32 in [0, 1], labels [n])` of some places, where the split is."""
        return self.images[places].float().div_(255), self.labels[places]

    def batches(self, together: int, order: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """What `batch` gives, for `together` places at a time, the last batch smaller; in `order`, if one is given."""
        for start in range(0, len(self) if order is None else len(order), together):
            places = slice(start, start + together)
            yield self.batch(places if order is None else order[places])

    def some(self, places: Tensor | slice) -> Split:
        """Those at these places."""
        return Split(self.images[places], self.labels[places])

    def to(self, device: str | torch.device) -> Split:
        """The same in another memory, whence its batches come."""
        return Split(self.images.to(device), self.labels.to(device))

    def counts(self, classes: int) -> list[int]:
        """Pictures of each class."""
        return torch.bincount(self.labels, minlength=classes).tolist()

    def hash(self) -> str:
        """SHA-256 of its shape, labels and bytes, in 64 hex digits."""
        total = hashlib.sha256(f"{list(self.images.shape)}".encode())
        for tensor in (self.labels, self.images):
            total.update(tensor.detach().cpu().contiguous().numpy().data)
        return total.hexdigest()


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: pictures to learn from, and others to be judged by.

    Attributes:
        train, test: both with pictures of one size.
        classes: names; label 0 is the first.
        name: what to call it.

    Raises:
        PhospheneError: pictures of two sizes, labels out of range, less than two classes, two of one name, or one that
            `train` never shows.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise PhospheneError(f"{self.name} has the classes {_first(self.classes)}: two different ones are needed")
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            ones, others = (list(split.images.shape[1:]) for split in (self.train, self.test))
            raise PhospheneError(f"{self.name} has pictures {ones} in train and {others} in test: one size is needed")
        self._check_labels(self.train, "train")
        self._check_labels(self.test, "test")
        counts = self.train.counts(len(self.classes))
        empty = [name for name, count in zip(self.classes, counts, strict=True) if not count]
        if empty:
            raise PhospheneError(f"{self.name} shows no picture of {_first(empty)} to learn from")

    def _check_labels(self, split: Split, part: str) -> None:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= len(self.classes):
            wrong, last = low if low < 0 else high, len(self.classes) - 1
            raise PhospheneError(f"{self.name} has the label {wrong} in {part}: its {last + 1} classes are 0 to {last}")

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.train.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.train.images.shape[2], self.train.images.shape[3]

    def hash(self) -> str:
        """SHA-256 of what there is to learn: classes, and each part's labels and bytes."""
        known = repr(self.classes), self.train.hash(), self.test.hash()
        return hashlib.sha256("\n".join(known).encode()).hexdigest()


def held_out(data: Data, count: int, seed: int = 0) -> tuple[Split, Split]:
    """`train` without `count` pictures, and these: each class has about the same share in both, and one picture at least.

    Which ones follows from the seed and the name of the class; both keep the order that they had.

    Raises:
        PhospheneError: too few or too many for every class to be on both sides.
    """
    have = data.train.counts(len(data.classes))
    lonely = [name for name, number in zip(data.classes, have, strict=True) if number < 2]
    if lonely:
        raise PhospheneError(f"{data.name} has one picture of {_first(lonely)}: two are needed to hold one out")
    most = len(data.train) - len(have)
    if not len(have) <= count <= most:
        raise PhospheneError(
            f"{count:,} pictures can't be held out of {data.name}'s {len(data.train):,}: for each of the {len(have)}"
            f" classes to be on both sides, {len(have):,} to {most:,} can"
        )
    held = torch.zeros(len(data.train), dtype=torch.bool)
    for label, share in enumerate(_shares(have, count)):
        places = (data.train.labels == label).nonzero()[:, 0].tolist()
        held[random.Random(f"{seed} {data.classes[label]}").sample(places, share)] = True
    where = data.train.labels.device
    return data.train.some((~held).nonzero()[:, 0].to(where)), data.train.some(held.nonzero()[:, 0].to(where))


def _shares(have: Sequence[int], count: int) -> list[int]:
    """How many of each class make `count` together: in proportion, at least one, and not all."""
    ideal = [count * number / sum(have) for number in have]
    shares = [min(max(int(part), 1), number - 1) for part, number in zip(ideal, have, strict=True)]
    while sum(shares) != count:
        step = 1 if sum(shares) < count else -1
        free = [k for k, share in enumerate(shares) if 1 <= share + step < have[k]]
        shares[max(free, key=lambda k: (step * (ideal[k] - shares[k]), -k))] += step
    return shares


def _span(images: Tensor) -> str:
    kind = str(images.dtype).removeprefix("torch.")
    return f"{kind} from {float(images.min()):g} to {float(images.max()):g}" if images.numel() else kind


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
