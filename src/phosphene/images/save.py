"""From an image tensor to a file: whole or not at all, and the same bytes each time."""

from __future__ import annotations

import os
import secrets
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene.errors import ImageError, OutputError
from phosphene.images.notes import note_options
from phosphene.images.opening import shown
from phosphene.images.quantize import to_pil

FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp", "tif": "tiff", "tiff": "tiff"}


def save(
    image: Tensor, path: str | Path, *, note: str | None = None, quality: int = 95, overwrite: bool = True
) -> Path:
    """Write one image; the format follows from the file name's ending.

    PNG, WebP and TIFF are lossless: `read` gives `quantize(image)` back. The file is written under a
    temporary name and then renamed, so that `path` holds the old file or the whole new one.

    Args:
        image: float RGB `[3, H, W]` or `[1, 3, H, W]` in [0, 1]; values outside are clipped.
        path: ends in .png, .jpg, .jpeg, .webp, .tif or .tiff.
        note: Unicode text to embed, which `read_note` reads back.
        quality: of a JPEG, 1 to 100; the other formats lose nothing.
        overwrite: replace a file that exists.

    Returns:
        The path.

    Raises:
        ImageError: not an image (shape, type, NaN), or an ending of another format.
        OutputError: the folder is missing or can't be written to, the file exists and `overwrite` is False,
            the note does not fit, the picture is too large for the format.
    """
    path = Path(path)
    data = encode(image, _format_of(path.suffix.removeprefix("."), shown(path)), quality=quality, note=note)
    write_whole(path, data, overwrite=overwrite)
    return path


def encode(image: Tensor, format: str = "png", *, quality: int = 95, note: str | None = None) -> bytes:
    """The bytes of an image file, the same for the same image each time; for pages that embed pictures.

    Args:
        image: float RGB `[3, H, W]` or `[1, 3, H, W]` in [0, 1]; values outside are clipped.
        format: "png", "jpeg", "webp" or "tiff". JPEG keeps colour at full resolution (4:4:4); the others are
            lossless.
        quality: of a JPEG, 1 to 100.
        note: Unicode text to embed.

    Raises:
        ImageError: not an image (shape, type, NaN), another format, quality out of range.
        OutputError: the note does not fit, the picture is too large for the format.
    """
    kind = _format_of(format, shown(format))
    if not 1 <= quality <= 100:
        raise ImageError(f"quality {quality} is out of range: give 1 to 100")
    options: dict[str, Any] = {
        "png": {},
        "jpeg": {"quality": quality, "subsampling": 0},
        "webp": {"lossless": True},
        "tiff": {"compression": "tiff_adobe_deflate"},
    }[kind]
    if note is not None:
        options |= note_options(kind, note)
    picture, stream = to_pil(image), BytesIO()
    try:
        picture.save(stream, kind.upper(), **options)
    except (OSError, ValueError, MemoryError) as error:
        size = f"{picture.width} x {picture.height}"
        raise OutputError(f"a picture of {size} can't be written as {kind.upper()}: {error}") from None
    return stream.getvalue()


def write_whole(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Write `data` to `path` whole or not at all: under a temporary name in the same folder, then renamed.

    Raises:
        OutputError: the folder is missing or can't be written to, the file exists and `overwrite` is False.
    """
    name, folder = shown(path), path.parent
    part = folder / f".phosphene-{secrets.token_hex(8)}.part"
    try:
        if not folder.is_dir():
            raise OutputError(f"{name} can't be written: the folder {shown(folder)} does not exist, make it first")
        if path.is_dir():
            raise OutputError(f"{name} can't be written: it is a folder, give a file name")
        if path.exists() and not overwrite:
            raise OutputError(f"{name} exists: give another name or allow overwriting")
        try:
            part.write_bytes(data)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{name} can't be written: {error.strerror or error}") from None


def _format_of(ending: str, name: str) -> str:
    if ending.lower() not in FORMATS:
        raise ImageError(f"{name} can't be written as an image: use .png, .jpg, .jpeg, .webp, .tif or .tiff")
    return FORMATS[ending.lower()]
