"""Opening a picture with Pillow: quietly, within a limit of pixels, and with errors of one line."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from phosphene.errors import ImageError

_URL = re.compile(r"(https?|ftp|file):/|data:", re.IGNORECASE)
_LOCK = threading.Lock()
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")  # JPEG, PNG, GIF and TIFF.
# These need a program of their own (Ghostscript runs what an EPS says) or have no decoder in Pillow.
_UNREADABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


def shown(name: str | Path) -> str:
    """`name` on one line, control characters escaped and the middle of a very long one left out."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(name))
    return text if len(text) <= 200 else f"{text[:120]}...{text[-60:]}"


def refuse_url(path: str | Path) -> None:
    """Raise `ImageError` where `path` is an address rather than a file."""
    if _URL.match(str(path)):
        raise ImageError(f"{shown(path)} is an address: Phosphene does not download images: save it and give the file")


@lru_cache(maxsize=1)
def formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _UNREADABLE)


@lru_cache(maxsize=1)
def suffixes() -> frozenset[str]:
    """The lower-case file name endings, with their dot, of the formats that are read."""
    readable = formats()
    return frozenset(end for end, name in Image.registered_extensions().items() if name in readable)


@contextmanager
def quiet(max_pixels: int | None = None) -> Iterator[None]:
    """Pillow without warnings, whole files only, at most `max_pixels` (None: unlimited, for reading headers).

    These are globals of Pillow and of `warnings`, hence the lock: one thread at a time.
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = max_pixels, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = before


def open_file(path: str | Path) -> BinaryIO:
    """The file at `path`, open for reading.

    Raises:
        ImageError: an address, a missing or unreadable file, a folder.
    """
    refuse_url(path)
    file, name = Path(path), shown(path)
    try:
        if file.is_dir():
            raise ImageError(f"{name} is a folder: give an image file")
        if not file.exists():
            raise ImageError(f"{name} does not exist: check the path")
        if not file.is_file():
            raise ImageError(f"{name} is not a regular file: give an image file")
        return file.open("rb")
    except PermissionError:
        raise ImageError(f"{name} can't be read: permission denied") from None
    except OSError as error:
        raise ImageError(f"{name} can't be read: {error.strerror or error}") from None


def as_stream(data: bytes | BinaryIO, name: str) -> BinaryIO:
    """`data` as a stream that can seek.

    Raises:
        ImageError: it holds nothing.
    """
    if not isinstance(data, (bytes, bytearray, memoryview)) and data.seekable():
        stream = data
    else:
        stream = BytesIO(data if isinstance(data, (bytes, bytearray, memoryview)) else data.read())
    stream.seek(0)
    if not stream.read(1):
        raise ImageError(f"{shown(name)} is empty (0 bytes): give an image file")
    stream.seek(0)
    return stream


def open_header(stream: BinaryIO, name: str) -> Image.Image:
    """The picture in `stream`, its pixels not decoded yet. Call it, and use what it returns, inside `quiet`.

    Raises:
        ImageError: not an image, or a damaged header.
    """
    try:
        return Image.open(stream, formats=formats())
    except UnidentifiedImageError:
        stream.seek(0)
        if stream.read(4).startswith(_SIGNATURES):
            raise damaged(name, OSError("its header is not whole")) from None
        raise ImageError(
            f"{shown(name)} is not an image that can be read: give a JPEG, PNG, WebP, TIFF, BMP or GIF"
            " (export HEIC, RAW, SVG or PDF as one of them)"
        ) from None
    except Exception as error:  # Plugins raise anything on damaged bytes.
        raise damaged(name, error) from None


def damaged(name: str, error: Exception) -> ImageError:
    """What to raise when Pillow fails with `error` on the picture called `name`."""
    detail = shown(" ".join(str(error).split())) or type(error).__name__
    return ImageError(f"{shown(name)} is cut short or damaged ({detail}): get a whole copy")
