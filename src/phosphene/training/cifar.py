"""CIFAR-10's files: five batches to learn from and one to be judged by, as plain bytes (`.bin`) or as pickles.

A `.bin` file holds, for each picture, a byte that is its label and 3 x 32 x 32 bytes. A pickle holds a dictionary with `data`
and `labels`; it is read by an unpickler that admits numpy's arrays and nothing else, so that no code of a file is run.
Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import PhospheneError, WeightsError
from phosphene.models.bundled import _NumpyUnpickler
from phosphene.progress import Job, Started, Step
from phosphene.training.split import Data, Split

NAME = "cifar-10"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def holds_cifar(folder: Path) -> bool:
    """Whether one of CIFAR-10's six batches lies in `folder`, in either form."""
    return any((folder / f"{name}{end}").is_file() for name in _BATCHES for end in (".bin", ""))


def read_cifar(folder: Path) -> Job[Data]:
    """Read CIFAR-10's six batches in `folder`; plain bytes rather than pickles, where both are there.

    Raises:
        PhospheneError: a batch is missing, damaged, cut short, asks for something else than arrays, or has pictures that
            are no bytes; pictures and labels differ in number; a label is above 9; a class is never shown.
    """
    plain = any((folder / f"{name}.bin").is_file() for name in _BATCHES)
    files = [folder / f"{name}{'.bin' if plain else ''}" for name in _BATCHES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise PhospheneError(f"'{folder}' lacks {', '.join(missing)} of CIFAR-10's six batches")
    yield Started(f"reading {folder.name}", len(files), "file")
    read: Callable[[Path], Split] = _plain if plain else _pickled
    found: list[Split] = []
    for file in files:
        found.append(read(file))
        yield Step(len(found))
    images, labels = torch.cat([s.images for s in found[:-1]]), torch.cat([s.labels for s in found[:-1]])
    names = _names_in_text(folder) if plain else _names_in_pickle(folder)
    return Data(Split(images, labels), found[-1], names or CLASSES, NAME)


def _plain(file: Path) -> Split:
    rows = torch.frombuffer(bytearray(_bytes(file)), dtype=torch.uint8)
    if len(rows) % (1 + _PIXELS):
        raise PhospheneError(
            f"'{file}' is cut short, or no batch of CIFAR-10: each picture takes {1 + _PIXELS:,} bytes"
        )
    rows = rows.view(-1, 1 + _PIXELS)
    return Split(rows[:, 1:].reshape(-1, *_SHAPE), rows[:, 0].long())


def _pickled(file: Path) -> Split:
    known = read_pickle(file)
    if "data" not in known or "labels" not in known:
        raise PhospheneError(f"'{file}' is no batch of CIFAR-10: it has no 'data' and 'labels'")
    images, labels = _pixels(known["data"], file), _labels(known["labels"], file)
    if len(images) != len(labels):
        raise PhospheneError(f"'{file}' has {len(images):,} pictures and {len(labels):,} labels")
    return Split(images, labels)


def _pixels(data: Any, file: Path) -> Tensor:
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS or not len(data):
        what = f"an array {list(data.shape)}" if isinstance(data, np.ndarray) else f"a {type(data).__name__}"
        raise PhospheneError(f"'{file}' has {what} for 'data': an array [N, {_PIXELS}] is needed")
    if data.dtype != np.uint8:
        span = f" from {data.min():g} to {data.max():g}" if data.dtype.kind in "iuf" else ""
        raise PhospheneError(f"'{file}' has pictures of {data.dtype}{span}: bytes 0 to 255 (uint8) are needed")
    return torch.from_numpy(np.array(data)).view(-1, *_SHAPE)


def _labels(labels: Any, file: Path) -> Tensor:
    found = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(found, list) or not all(type(label) is int and 0 <= label < len(CLASSES) for label in found):
        raise PhospheneError(f"'{file}' has other labels than numbers from 0 to {len(CLASSES) - 1}")
    return torch.tensor(found, dtype=torch.int64)


def read_pickle(file: Path) -> dict[str, Any]:
    """The dictionary in a pickle of numpy arrays, numbers, texts, lists and dictionaries; its keys as texts.

    Raises:
        PhospheneError: it can't be read, is damaged, or asks for anything else; that is not run.
    """
    data = _bytes(file)
    try:
        known = _NumpyUnpickler(io.BytesIO(data), encoding="latin1").load()  # Python 2 wrote the published ones
    except WeightsError as refusal:
        raise PhospheneError(f"'{file}': {refusal}") from refusal
    except Exception as problem:  # whatever the damage breaks
        line = " ".join(str(problem).split())[:120]
        raise PhospheneError(f"'{file}' is no pickle of numpy arrays, or damaged: {line}") from problem
    if not isinstance(known, dict):
        raise PhospheneError(f"'{file}' holds a {type(known).__name__}, and no batch of CIFAR-10")
    return {_text(key): value for key, value in known.items()}


def _names_in_text(folder: Path) -> tuple[str, ...]:
    """The names in `batches.meta.txt`; none where it isn't there."""
    file = folder / "batches.meta.txt"
    lines = _bytes(file).decode("utf-8", "replace").split("\n") if file.is_file() else []
    return _ten([line.strip() for line in lines if line.strip()], file) if lines else ()


def _names_in_pickle(folder: Path) -> tuple[str, ...]:
    """The names in `batches.meta`; none where it isn't there."""
    file = folder / "batches.meta"
    found = read_pickle(file).get("label_names") if file.is_file() else []
    return _ten(found if isinstance(found, list) else [], file) if found != [] else ()


def _ten(names: list[Any], file: Path) -> tuple[str, ...]:
    if len(names) != len(CLASSES):
        raise PhospheneError(f"'{file}' names {len(names)} classes: CIFAR-10 has {len(CLASSES)}")
    return tuple(_text(name) for name in names)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise PhospheneError(f"'{file}' can't be read: {problem.strerror or problem}") from problem
    if not data:
        raise PhospheneError(f"'{file}' is empty")
    return data
