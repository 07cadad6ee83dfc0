"""A folder of labelled photographs: a folder for each class, below `train` and `val` or all together.

Without `val`, a share of each class is held out by a seed: stratified, so that every class is on both sides.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from phosphene import images
from phosphene.errors import ImageError, PhospheneError
from phosphene.progress import Job, Started, Step

TRAIN = ("train", "training")
VAL = ("val", "valid", "validation", "test")
HELD_OUT = 0.2
"""Share of each class that is held out where the folder has no `val`."""
MOST_BAD = 0.05
"""Share of unreadable images above which something is wrong with the folder."""
_TOGETHER = 64
_LISTED = 5


@dataclass(frozen=True)
class Photo:
    """One labelled photograph: `sha` is the SHA-256 of the file's bytes."""

    path: Path
    label: int
    sha: str = ""


@dataclass(frozen=True)
class Examples:
    """Photographs to learn from, and others to be judged by.

    Attributes:
        folder: where they lie.
        classes: names, in alphabetical order: label 0 is the first.
        train, val: the photographs.
        skipped: files that can't be read, and why.
        split: None where the folder has a `val` of its own; else the seed by which some were held out.
    """

    folder: Path
    classes: tuple[str, ...]
    train: tuple[Photo, ...]
    val: tuple[Photo, ...]
    skipped: Mapping[str, str]
    split: int | None = None

    def counts(self, part: Sequence[Photo] | None = None) -> list[int]:
        """Photographs of each class, of `train` by default."""
        part = self.train if part is None else part
        return [sum(photo.label == label for photo in part) for label in range(len(self.classes))]

    def hash(self) -> str:
        """SHA-256 of what there is to learn: classes, and each photograph's part, label and bytes."""
        total = hashlib.sha256(repr(self.classes).encode())
        for part in (self.train, self.val):
            total.update(b"part\0")
            for photo in part:
                total.update(f"{photo.label} {photo.sha}\n".encode())
        return total.hexdigest()


class Pictures:
    """Photographs as a sequence of `[3, H, W]` in [0, 1], read when they are asked for, brought to a network's size."""

    def __init__(self, photos: Sequence[Photo], preprocess: Callable[[Tensor], Tensor]) -> None:
        self.photos, self._preprocess = photos, preprocess

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: int) -> Tensor:
        """Raises ImageError if the file is no image."""
        return self._preprocess(images.read(self.photos[place].path))[0]


def examples(folder: str | Path, *, seed: int = 0, skip_bad: bool = False) -> Job[Examples]:
    """Find, check and split the photographs of `folder`.

    Args:
        folder: holds `train/CLASS/...` and `val/CLASS/...` (or only `train`), or `CLASS/...` at once.
        seed: of the split, where there is no `val`.
        skip_bad: accept more than 5% of unreadable images.

    Raises:
        ImageError: no folder, no class folders, one class, an empty class, too many unreadable images.
        PhospheneError: train and val have different classes, a class has too few images to be split.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ImageError(f"'{root}' is no folder: give one that holds a folder of photographs for each class")
    train, val = _part(root, TRAIN), _part(root, VAL)
    if train is None and val is not None:
        raise ImageError(f"'{root}' has a '{val.name}' and no 'train' beside it")
    learned = _classes(train or root, skip=() if train else (*TRAIN, *VAL))
    judged = _classes(val) if val is not None else {}
    if val is not None:
        _same(learned, judged, val.name)
    names = tuple(sorted(learned))
    found = [Photo(path, names.index(name)) for name in names for path in learned[name]]
    others = [Photo(path, names.index(name)) for name in names for path in judged.get(name, [])]
    checked, skipped = yield from _checked([*found, *others])
    _judge_skipped(skipped, len(checked), skip_bad)
    mine = [photo for photo in checked[: len(found)] if photo is not None]
    theirs = [photo for photo in checked[len(found) :] if photo is not None]
    for part, what in ((mine, "train"), (theirs, "val")):
        _need_each(part, names, what if val is not None else "the folder", val is not None or what == "train")
    if val is None:
        mine, theirs = _split(mine, names, seed)
    return Examples(root, names, tuple(mine), tuple(theirs), skipped, seed if val is None else None)


def _part(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _classes(folder: Path, skip: Sequence[str] = ()) -> dict[str, list[Path]]:
    """Class -> its photographs, sorted."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    inside = [path for path in inside if path.name not in skip]
    if not inside:
        raise ImageError(f"'{folder}' has no folders in it: it needs one for each class, with its photographs inside")
    found: dict[str, list[Path]] = {}
    for path in inside:
        try:
            found[path.name] = images.find(path)
        except ImageError:
            raise ImageError(f"the class folder '{path}' holds no images: fill it or take it away") from None
    if len(found) < 2:
        raise ImageError(f"'{folder}' has one class, '{next(iter(found))}': there is nothing to tell apart")
    return found


def _same(train: Mapping[str, object], val: Mapping[str, object], name: str) -> None:
    if set(train) == set(val):
        return
    gone, new = sorted(set(train) - set(val)), sorted(set(val) - set(train))
    parts = [f"'{name}' lacks {_first(gone)}" if gone else "", f"only '{name}' has {_first(new)}" if new else ""]
    raise PhospheneError(f"train and {name} need the same classes: {'; '.join(part for part in parts if part)}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _checked(photos: Sequence[Photo]) -> Job[tuple[list[Photo | None], dict[str, str]]]:
    """Every photograph decoded once, with its hash; None for those that can't be read."""
    yield Started("checking images", len(photos), "image")
    found: list[Photo | None] = []
    skipped: dict[str, str] = {}
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(photos), _TOGETHER):
            part = photos[start : start + _TOGETHER]
            for photo, (sha, why) in zip(part, pool.map(_check, part), strict=True):
                found.append(None if why else Photo(photo.path, photo.label, sha))
                if why:
                    skipped[str(photo.path)] = why
            yield Step(len(found))
    return found, skipped


def _check(photo: Photo) -> tuple[str, str]:
    """The file's hash, and why it can't be read (empty if it can)."""
    try:
        data = photo.path.read_bytes()
        images.decode(data, name=str(photo.path))
    except ImageError as problem:
        return "", str(problem)
    except OSError as problem:
        return "", f"{photo.path} can't be read: {problem.strerror or problem}"
    return hashlib.sha256(data).hexdigest(), ""


def _judge_skipped(skipped: Mapping[str, str], count: int, skip_bad: bool) -> None:
    if len(skipped) > MOST_BAD * count and not skip_bad:
        listed = "; ".join(list(skipped.values())[:_LISTED])
        raise ImageError(
            f"{len(skipped)} of {count} images can't be read ({listed}{'; ...' if len(skipped) > _LISTED else ''}):"
            " mend them, or give --skip-bad to go on without them"
        )


def _need_each(photos: Sequence[Photo], names: Sequence[str], where: str, asked: bool) -> None:
    held = {photo.label for photo in photos}
    empty = [name for label, name in enumerate(names) if label not in held]
    if asked and empty:
        raise ImageError(f"no image of {_first(empty)} in {where} can be read")


def _split(photos: Sequence[Photo], names: Sequence[str], seed: int) -> tuple[list[Photo], list[Photo]]:
    """A share of each class held out, at least one; the order of both parts is that of the folder."""
    held: set[int] = set()
    for label, name in enumerate(names):
        mine = [place for place, photo in enumerate(photos) if photo.label == label]
        if len(mine) < 2:
            raise ImageError(f"class '{name}' has one image: it needs two, one to learn from and one to be judged by")
        random.Random(f"{seed} {name}").shuffle(mine)
        held.update(mine[: max(1, round(HELD_OUT * len(mine)))])
    return [p for i, p in enumerate(photos) if i not in held], [p for i, p in enumerate(photos) if i in held]


def batches(count: int, together: int) -> Iterator[range]:
    """`range`s of `together` places, the last one shorter."""
    for start in range(0, count, together):
        yield range(start, min(start + together, count))
