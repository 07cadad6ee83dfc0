"""A folder of photographs and their true classes, for a network that knows these classes already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from torch import Tensor

from phosphene import images
from phosphene.errors import ImageError, LabelError, PhospheneError
from phosphene.images.palette import luminance
from phosphene.images.samples import ALL, sample_photographs
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.models.labels import _words
from phosphene.recipe import hash_file

Truth: TypeAlias = Literal["auto", "folders", "names", "predicted"]
TRUTHS: tuple[Truth, ...] = get_args(Truth)

_SYNSET = re.compile(r"n\d{8}")
_LISTED = 3


@dataclass(frozen=True)
class Labelled:
    """Photographs in alphabetical order.

    Attributes:
        root: the folder that holds them; None: photographs of `sample:all`.
        paths: where they lie.
        labels: the class of each; None: what the network itself sees counts as true.
        truth: where the labels come from: `folders`, `names` or `predicted`.
    """

    root: Path | None
    paths: tuple[Path, ...]
    labels: tuple[int | None, ...]
    truth: Truth

    def first(self, count: int) -> Labelled:
        """`count` of them, evenly spread over all; all of them for 0, or where there are fewer.

        Raises:
            PhospheneError: a count below 0.
        """
        if count < 0:
            raise PhospheneError(f"--images is a number of photographs, or 0 for all: got {count}")
        total = len(self.paths)
        if count == 0 or count >= total:
            return self
        chosen = [place * total // count for place in range(count)]
        paths, labels = tuple(self.paths[k] for k in chosen), tuple(self.labels[k] for k in chosen)
        return Labelled(self.root, paths, labels, self.truth)

    def shown(self, place: int) -> str:
        """The path of a photograph below the folder."""
        path = self.paths[place]
        return path.name if self.root is None else path.relative_to(self.root).as_posix()


def labelled(workshop: Workshop, folder: str, network: Network, truth: str = "auto") -> Labelled:
    """The photographs below `folder`, and what is true of each.

    Args:
        workshop: notes the folder's hash for the recipe.
        folder: of photographs, or of folders of them; or `sample:all`.
        network: knows the classes.
        truth: `folders`: the folder that a photograph lies in is called as its class (or by index or synset); `names`: the
            file's name begins so, as `207_golden_retriever.jpg` or ImageNet's own `n02099601_7.JPEG`; `predicted`: what the
            network sees counts as true; `auto`: folders if all are names of classes, else synsets in the names of files, else
            predicted.

    Raises:
        ImageError: no photographs.
        LabelError: a folder or file that isn't called as a class, where that was asked for.
        PhospheneError: an unknown `truth`.
    """
    if truth not in TRUTHS:
        raise PhospheneError(f"unknown truth '{truth}': choose from {', '.join(TRUTHS)}")
    if folder == ALL:
        files = tuple(sample_photographs())
        return Labelled(None, files, (None,) * len(files), "predicted")
    there = workshop.find(folder)
    if not there.is_dir():
        raise ImageError(f"'{folder}' is no folder: give one of photographs, or of a folder of them for each class")
    paths = images.find(there)
    workshop.inputs[folder] = hash_file(there)
    kind, found = _truth(paths, there, network, truth)
    return Labelled(there, tuple(paths), tuple(found), kind)


def photograph(network: Network, path: Path) -> Tensor:
    """A photograph as an attack on the network takes it: `[3, H, W]` (`[1, H, W]` for a network that sees grey), in 8 bits.

    Raises:
        ImageError: the file is no image.
    """
    photo = network.preprocess(images.read(path).to(network.mean))
    photo = luminance(photo)[:, :1] if network.channels == 1 else photo
    return images.quantize(photo)[0]


def coloured(image: Tensor) -> Tensor:
    """`[1 or 3, H, W]` as `[3, H, W]` on the CPU, to be saved."""
    return image.cpu().expand(3, -1, -1)


def _truth(paths: Sequence[Path], root: Path, network: Network, truth: str) -> tuple[Truth, list[int] | list[None]]:
    if truth == "folders":
        return "folders", _all(paths, [_folder(path, root) for path in paths], network, "folder")
    if truth == "names":
        return "names", _all(paths, [path.name.split("_")[0].split(".")[0] for path in paths], network, "file")
    if truth == "auto":
        if all(path.parent != root for path in paths):
            found = _or_none([_folder(path, root) for path in paths], network, indices=False)
            if found is not None:
                return "folders", found
        names = [path.name.split("_")[0] for path in paths]
        if all(_SYNSET.fullmatch(name) for name in names) and (found := _or_none(names, network)) is not None:
            return "names", found
    return "predicted", [None] * len(paths)


def _folder(path: Path, root: Path) -> str:
    """The folder of a photograph; '' for one that lies in none."""
    return "" if path.parent == root else path.parent.name


def _or_none(names: Sequence[str], network: Network, indices: bool = True) -> list[int] | None:
    """The classes of that name, if there is one for each; `indices`: a number may be the index of a class."""
    known = {name: _class(name, network, indices) for name in set(names)}
    found = [known[name] for name in names]
    return None if None in found else [index for index in found if index is not None]


def _all(paths: Sequence[Path], names: Sequence[str], network: Network, what: str) -> list[int]:
    found = _or_none(names, network)
    if found is not None:
        return found
    bad = list(dict.fromkeys(name for name in names if _class(name, network) is None))
    if what == "folder" and "" in bad:
        loose = next(path for path, name in zip(paths, names, strict=True) if not name)
        raise LabelError(f"'{loose}' lies in no folder of a class: sort it into one, or give --truth predicted")
    for name in bad:
        _need_one_class(name, network)
    shown = ", ".join(f"'{name}'" for name in bad[:_LISTED]) + (" ..." if len(bad) > _LISTED else "")
    raise LabelError(
        f"{network.name} knows no class of the {what} name{'s' if len(bad) > 1 else ''} {shown}: name {what}s by a class, its"
        " index or its synset, or give --truth predicted"
    )


def _need_one_class(name: str, network: Network) -> None:
    """Raises a LabelError where a name means several classes."""
    labels, plain = network.labels, _plain(name)
    same = [k for k, one in enumerate(labels) if plain in {_plain(other) for other in (one, *labels.aliases(k))}]
    if len(same) > 1:
        labels.resolve(name)


def _class(name: str, network: Network, indices: bool = True) -> int | None:
    """The class that a name means exactly: a part of another name is not enough."""
    if not name:
        return None
    try:
        index = network.labels.resolve(name)
    except LabelError:
        return None
    same = [network.labels[index], network.labels.synset(index), *network.labels.aliases(index)]
    same += [str(index)] if indices else []
    plain = _plain(name)
    return index if any(one is not None and _plain(one) == plain for one in same) else None


def _plain(name: str) -> str:
    return _words(name).replace(" ", "").lstrip("0") or "0"
