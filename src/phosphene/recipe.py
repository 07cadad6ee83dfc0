"""What was run: everything that made a picture, written into the picture and into a JSON beside it.

No times and no output paths: the same recipe on the same machine and versions gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from phosphene.errors import ImageError, PhospheneError

_LIBRARIES = ("torch", "torchvision", "timm", "pillow", "numpy", "scipy", "scikit-learn", "av")


@dataclass(frozen=True)
class Recipe:
    """How one picture was made.

    Attributes:
        verb: the command, such as `explain`.
        parameters: all of its options with their values, as JSON.
        picture: which of the command's pictures this is.
        inputs: path of each file that was read -> SHA-256 of its bytes.
        networks: name of each network used -> SHA-256 of its tensors.
        device: where it ran.
        threads: PyTorch's threads, which decide the order of its sums.
        versions: Phosphene, Python and the libraries that touch the pixels.
        notes: what happened on the way that the parameters don't say: where it was stopped, or started again.
    """

    verb: str
    parameters: dict[str, Any]
    picture: str
    inputs: dict[str, str] = field(default_factory=dict)
    networks: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """As JSON, keys sorted."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, source: str = "the recipe") -> Recipe:
        """Read it back. Raises PhospheneError if it is none."""
        try:
            found = cls(**json.loads(text))
            found._check()
        except (ValueError, TypeError, RecursionError) as problem:
            raise PhospheneError(f"{source} holds no recipe that this version can read: {problem}") from problem
        return found

    def _check(self) -> None:
        """Raise a TypeError if a field holds something else than it should: a recipe comes out of a file."""
        for name, kind in (
            ("verb", str),
            ("picture", str),
            ("device", str),
            ("threads", int),
            ("parameters", dict),
            ("notes", dict),
        ):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(f"its '{name}' is a {type(getattr(self, name)).__name__}")
        if self.threads < 1:
            raise TypeError(f"its 'threads' are {self.threads}")
        for name in ("inputs", "networks", "versions"):
            found = getattr(self, name)
            if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
                raise TypeError(f"its '{name}' are not texts by name")


def versions() -> dict[str, str]:
    """Versions of Phosphene, Python and the libraries that touch the pixels."""
    from phosphene import __version__

    found = {"python": platform.python_version(), "phosphene": __version__}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):  # built without its metadata
            found[library] = version(library)
    return found


def hash_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; of a folder, of the names and hashes of its images (without any: files)."""
    total = hashlib.sha256()
    if Path(path).is_dir():
        for file in _contents(Path(path)):
            total.update(os.fsencode(file.relative_to(path).as_posix()))  # also names that are no text
            total.update(f"\n{hash_file(file)}\n".encode())
        return total.hexdigest()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return total.hexdigest()


def _contents(folder: Path) -> list[Path]:
    from phosphene import images
    from phosphene.errors import ImageError

    try:
        return images.find(folder)
    except ImageError:  # a data set in files of another kind
        return sorted(path for path in folder.rglob("*") if path.is_file())


def beside(picture: Path) -> Path:
    """Where the recipe of `picture` lies as a file: `cat.png` -> `cat.png.json`."""
    return picture.with_name(picture.name + ".json")


def read(picture: str | Path) -> Recipe:
    """The recipe of a picture, from its metadata or from the JSON beside it.

    Raises:
        ImageError: no such picture.
        PhospheneError: it carries no recipe.
    """
    from phosphene import images

    path = Path(picture)
    try:
        note = images.read_note(path)
    except ImageError:
        text = path if path.suffix == ".json" else beside(path)  # a film is no image, and has its recipe beside it
        if not (path.is_file() and text.is_file()):
            raise
        return Recipe.from_json(_text(text), f"'{path}'")
    if note is None and beside(path).is_file():
        note = _text(beside(path))
    if note is None:
        raise PhospheneError(f"'{path}' carries no recipe, and there is no {beside(path).name} beside it")
    return Recipe.from_json(note, f"'{path}'")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise PhospheneError(f"'{path}' is not a text, so it holds no recipe") from problem
