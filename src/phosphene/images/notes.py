"""A text, such as a recipe, inside an image file.

PNG: an iTXt chunk; JPEG and WebP: the EXIF UserComment; TIFF: the ImageDescription, in UTF-8.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin

from phosphene.errors import OutputError
from phosphene.images.opening import as_stream, open_file, open_header, quiet

KEYWORD = "phosphene"
_MARK = f"{KEYWORD}: "  # Tells our text from a camera's comment.
_ASCII, _UNICODE = b"ASCII\0\0\0", b"UNICODE\0"
_JPEG_MOST = 65_000
_USER_COMMENT, _IMAGE_DESCRIPTION, _TIFF_ASCII = 0x9286, 270, 2


def read_note(path: str | Path) -> str | None:
    """The note that `save` put into the image file at `path`; None where there is none.

    Raises:
        ImageError: the file is missing, unreadable or not an image.
    """
    with open_file(path) as file:
        stream = as_stream(file, str(path))
        with quiet():
            image = open_header(stream, str(path))
            try:
                notes = (find(image) for find in (_from_text, _from_exif, _from_tiff))
                return next((note for note in notes if note is not None), None)
            except Exception:  # Damaged metadata holds no note of ours.
                return None


def note_options(format: str, note: str) -> dict[str, Any]:
    """What Pillow's `save` needs to put `note` into a file of `format` ("png", "jpeg", "webp" or "tiff").

    Raises:
        OutputError: text that is not Unicode, too long for a JPEG, or with a NUL in a TIFF.
    """
    try:
        note.encode("utf-8")
    except UnicodeEncodeError:
        raise OutputError("the note holds lone surrogates, which no file can hold: give Unicode text") from None
    return _OPTIONS[format](note)


def _png(note: str) -> dict[str, Any]:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(KEYWORD, note)
    return {"pnginfo": chunks}


def _webp(note: str) -> dict[str, Any]:
    text = _MARK + note
    comment = _ASCII + text.encode() if text.isascii() else _UNICODE + text.encode("utf-16-le")
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {_USER_COMMENT: comment}
    return {"exif": exif.tobytes()}


def _jpeg(note: str) -> dict[str, Any]:
    options = _webp(note)
    if len(options["exif"]) > _JPEG_MOST:
        raise OutputError(
            f"the note takes {len(options['exif']):,} bytes and a JPEG holds {_JPEG_MOST:,}: save as .png"
        )
    return options


def _tiff(note: str) -> dict[str, Any]:
    if "\0" in note:
        raise OutputError("the note holds a NUL, where the text of a TIFF ends: remove it or save as .png")
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.tagtype[_IMAGE_DESCRIPTION] = _TIFF_ASCII
    tags[_IMAGE_DESCRIPTION] = (_MARK + note).encode()
    return {"tiffinfo": tags}


_OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "png": _png,
    "jpeg": _jpeg,
    "webp": _webp,
    "tiff": _tiff,
}


def _from_text(image: Image.Image) -> str | None:
    note = image.info.get(KEYWORD)
    return str(note) if note is not None else None


def _from_exif(image: Image.Image) -> str | None:
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(_USER_COMMENT)
    if not isinstance(comment, bytes):
        return None
    encoding = "utf-16-le" if comment.startswith(_UNICODE) else "ascii"
    return _unmark(comment[len(_UNICODE) :].decode(encoding))


def _from_tiff(image: Image.Image) -> str | None:
    text = getattr(image, "tag_v2", {}).get(_IMAGE_DESCRIPTION)
    return _unmark(text.encode("latin-1").decode()) if isinstance(text, str) else None


def _unmark(text: str) -> str | None:
    return text[len(_MARK) :] if text.startswith(_MARK) else None
