"""Finding image files: folders become the sorted images in them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from phosphene.errors import ImageError
from phosphene.images.opening import refuse_url, shown, suffixes
from phosphene.images.samples import PREFIX, sample_file


def find(paths: str | Path | Iterable[str | Path], *, recursive: bool = True) -> list[Path]:
    """The image files that `paths` name: files as they are, folders as the sorted image files in them.

    In folders, images are told by their names' ending (in either case); what is hidden (`.name`) is skipped.

    Args:
        paths: files and folders, or a single one.
        recursive: also look in the folders inside a folder.

    Raises:
        ImageError: a path that does not exist or can't be listed, a folder without images, an address.
    """
    given = [paths] if isinstance(paths, (str, Path)) else paths
    return [file for path in given for file in _expand(path, recursive)]


def _expand(path: str | Path, recursive: bool) -> list[Path]:
    refuse_url(path)
    if str(path).startswith(PREFIX):
        sample_file(str(path))
        return [Path(path)]
    try:
        if Path(path).is_dir():
            return _images_in(Path(path), recursive)
        if Path(path).exists():
            return [Path(path)]
    except OSError as error:
        raise ImageError(f"{shown(path)} can't be read: {error.strerror or error}") from None
    raise ImageError(f"{shown(path)} does not exist: check the path")


def _images_in(folder: Path, recursive: bool) -> list[Path]:
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [Path(parent, name) for name in files if _is_image(name)]
    if not found:
        deeper = "" if recursive else " itself (the folders inside it were not searched)"
        raise ImageError(f"{shown(folder)} holds no image files{deeper}: give a folder with .jpg, .png, ... files")
    return sorted(found)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes()


def _raise(error: OSError) -> None:
    raise error
