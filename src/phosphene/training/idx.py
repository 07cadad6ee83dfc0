"""MNIST's files: four of them in the IDX format, as they are or compressed by gzip; Fashion-MNIST's have the same names.

A file begins with 0, 0, the type of its numbers (8: bytes), how many axes it has, and the length of each in 4 bytes.
LeCun et al., "Gradient-based learning applied to document recognition", 1998; Xiao et al., "Fashion-MNIST", 2017.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Job, Started, Step
from phosphene.training.split import Data, Split

MOST = 2_000_000_000
"""Bytes that a file may unpack to."""
DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_KNOWN = {
    "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13": ("mnist", DIGITS),
    "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7": ("fashion-mnist", FASHION),
}
"""SHA-256 of the 60,000 labels to learn from -> name and classes: nothing else in the files tells them apart."""
_PARTS = {"train": "train", "test": "t10k"}
_BYTES = 8


def holds_idx(folder: Path) -> bool:
    """Whether one of MNIST's four files lies in `folder`."""
    return any(_find(folder, part, kind) for part in _PARTS.values() for kind in ("images", "labels"))


def read_idx(folder: Path, name: str = "") -> Job[Data]:
    """Read MNIST's four files in `folder`: grey pictures of digits, or of what Fashion-MNIST shows.

    Args:
        folder: holds the files.
        name: what to call other data than these two.

    Raises:
        PhospheneError: a file is missing, damaged, cut short or no IDX file; pictures and labels differ in number; a label
            is above 9; a digit is never shown.
    """
    files = _files(folder)
    yield Started(f"reading {folder.name}", len(_PARTS), "file")
    splits: list[Split] = []
    for part in _PARTS:
        images, labels = read_idx_file(files[part, "images"], 3), read_idx_file(files[part, "labels"], 1)
        if len(images) != len(labels):
            raise PhospheneError(
                f"'{files[part, 'images']}' has {len(images):,} pictures and '{files[part, 'labels'].name}' {len(labels):,}"
                " labels: they are not of one data set"
            )
        splits.append(Split(images[:, None], labels.long()))
        yield Step(len(splits))
    train, test = splits
    known, classes = _KNOWN.get(_hash(train.labels), (name or folder.resolve().name, DIGITS))
    return Data(train, test, classes, known)


def read_idx_file(path: Path, axes: int) -> Tensor:
    """The bytes of an IDX file, uint8 of `axes` axes. Raises PhospheneError if it holds something else."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return _tensor(cast("BinaryIO", stream), path, axes)
    except (EOFError, zlib.error) as problem:
        raise PhospheneError(f"'{path}' is damaged or cut short: {str(problem).partition(' before')[0]}") from problem
    except OSError as problem:  # that gzip's own error is, too
        raise PhospheneError(f"'{path}' can't be read: {problem.strerror or problem}") from problem


def _tensor(stream: BinaryIO, path: Path, axes: int) -> Tensor:
    head = stream.read(4 + 4 * axes)
    if len(head) < 4 or head[:2] != b"\0\0":
        raise PhospheneError(
            f"'{path}' is no IDX file: it begins with {head[:4].hex(' ') or 'nothing'}, not 00 00 08 0{axes}"
        )
    if head[2] != _BYTES or head[3] != axes:
        raise PhospheneError(f"'{path}' holds other numbers: it begins with {head[:4].hex(' ')}, not 00 00 08 0{axes}")
    if len(head) < 4 + 4 * axes:
        raise PhospheneError(f"'{path}' is cut short: it ends in its header")
    shape = struct.unpack(f">{axes}I", head[4:])
    count = int(np.prod(shape, dtype=object))
    if not 0 < count <= MOST:
        raise PhospheneError(f"'{path}' would hold {' x '.join(map(str, shape))} bytes: 1 to {MOST:,} are read")
    body = stream.read(count + 1)
    if len(body) != count:
        what = "is cut short" if len(body) < count else "is longer than its header says"
        raise PhospheneError(f"'{path}' {what}: {' x '.join(map(str, shape))} bytes should follow")
    return torch.frombuffer(bytearray(body), dtype=torch.uint8).view(shape)


def _files(folder: Path) -> dict[tuple[str, str], Path]:
    found = {(p, kind): _find(folder, start, kind) for p, start in _PARTS.items() for kind in ("images", "labels")}
    missing = [_name(_PARTS[part], kind) for (part, kind), file in found.items() if file is None]
    if missing:
        raise PhospheneError(f"'{folder}' lacks {', '.join(missing)} of MNIST's four files (as they are, or .gz)")
    return {key: file for key, file in found.items() if file is not None}


def _find(folder: Path, start: str, kind: str) -> Path | None:
    name = _name(start, kind)
    others = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    return next((folder / other for other in others if (folder / other).is_file()), None)


def _name(start: str, kind: str) -> str:
    return f"{start}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"


def _hash(labels: Tensor) -> str:
    return hashlib.sha256(labels.to(torch.uint8).numpy().data).hexdigest()
