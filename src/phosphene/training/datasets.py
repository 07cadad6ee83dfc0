"""Reading a data set of small pictures, whatever its form: MNIST's files, CIFAR-10's, or a folder of photographs a class."""

from __future__ import annotations

from pathlib import Path

from phosphene.errors import PhospheneError, did_you_mean
from phosphene.progress import Job
from phosphene.training.cifar import holds_cifar, read_cifar
from phosphene.training.idx import holds_idx, read_idx
from phosphene.training.shrunk import read_photos, resized
from phosphene.training.sources import SOURCES, folder_of
from phosphene.training.split import Data, Split, held_out

__all__ = ["Data", "Split", "held_out", "read_data"]

LARGEST = 1024
"""The longest side that may be asked for."""
_BELOW = ("", "raw", "MNIST/raw", "FashionMNIST/raw", "cifar-10-batches-bin", "cifar-10-batches-py")
"""Where the files lie below the folder that their archives and torchvision make."""


def read_data(
    path: str | Path, *, size: int | tuple[int, int] | None = None, seed: int = 0, skip_bad: bool = False
) -> Job[Data]:
    """Read a data set into memory.

    Args:
        path: a folder: MNIST's or Fashion-MNIST's four files (`.gz` or not), CIFAR-10's batches (`.bin` or pickles), or
            photographs in a folder for each class, as `examples` takes them. Or a name, `mnist`, `fashion-mnist` or
            `cifar-10`, which is looked for in the cache and downloaded if need be; ./NAME is a folder.
        size: height and width (one number: both) to bring the pictures to. Default: that of the files; for photographs that
            have none in common, or a large one, 32.
        seed: of the split of photographs, where the folder has no `val`.
        skip_bad: accept more than 5% of unreadable photographs.

    Raises:
        PhospheneError: no such folder or data set, files that are missing, damaged or of another kind, pictures and labels
            that don't belong together.
    """
    wanted = _pair(size)
    if str(path) in SOURCES:
        folder = yield from folder_of(str(path))
    else:
        folder = Path(path)
        if not folder.is_dir():
            raise PhospheneError(_absent(str(path)))
    data = yield from _read(folder, wanted, seed, skip_bad)
    if wanted is None or data.size == wanted:
        return data
    return Data(resized(data.train, wanted), resized(data.test, wanted), data.classes, data.name)


def _read(folder: Path, size: tuple[int, int] | None, seed: int, skip_bad: bool) -> Job[Data]:
    for below in _BELOW:
        if holds_idx(folder / below):
            return (yield from read_idx(folder / below, folder.resolve().name))
        if holds_cifar(folder / below):
            return (yield from read_cifar(folder / below))
    if not _has_folders(folder):
        raise PhospheneError(
            f"'{folder}' holds neither MNIST's four files, nor CIFAR-10's six batches, nor a folder of photographs for each"
            " class"
        )
    return (yield from read_photos(folder, size, seed=seed, skip_bad=skip_bad))


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() and not path.name.startswith(".") for path in folder.iterdir())


def _absent(path: str) -> str:
    near = did_you_mean(path, SOURCES) if "/" not in path else ""
    kind = "is a file" if Path(path).is_file() else "is no folder"
    return f"'{path}' {kind}: give one that holds a data set, or {', '.join(SOURCES)}{near}"


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if not 4 <= min(pair) <= max(pair) <= LARGEST:
        raise PhospheneError(f"pictures can't be brought to {pair[0]} x {pair[1]}: sides of 4 to {LARGEST:,} can")
    return pair
