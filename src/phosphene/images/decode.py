"""From a file, from bytes or from a numpy array to an image tensor."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import ImageError
from phosphene.images.opening import as_stream, damaged, open_file, open_header, quiet, shown
from phosphene.images.pixels import over_white, to_rgb

MAX_PIXELS = 100_000_000
MIN_SIDE = 4


def read(path: str | Path, *, max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE) -> Tensor:
    """Read an image file as one picture.

    Everything Pillow decodes is read: JPEG, PNG, WebP, TIFF, BMP, GIF (first frame) and more, but not EPS and
    WMF, which run other programs. The EXIF orientation is applied, an embedded colour profile is converted to
    sRGB, transparency is composited over white. Grey keeps 16 bits; Pillow reads 16-bit colour as 8. Float
    TIFFs must hold values in [0, 1]. Decoding takes a lock: threads take turns, processes don't.

    Args:
        path: the file.
        max_pixels: the most pixels; looked up in the header, before anything is decoded.
        min_side: the least height and width.

    Returns:
        float32 RGB in [0, 1], `[1, 3, H, W]`.

    Raises:
        ImageError: a missing, unreadable, empty, truncated or damaged file, a folder, an address, not an
            image, too large or too small, values out of range.
    """
    with open_file(path) as stream:
        return decode(stream, name=str(path), max_pixels=max_pixels, min_side=min_side)


def decode(
    data: bytes | BinaryIO, *, name: str = "image", max_pixels: int = MAX_PIXELS, min_side: int = MIN_SIDE
) -> Tensor:
    """Decode the bytes of an image file, as `read` does; `name` is what errors call it.

    Returns:
        float32 RGB in [0, 1], `[1, 3, H, W]`.

    Raises:
        ImageError: as `read`.
    """
    stream = as_stream(data, name)
    with quiet():
        image = open_header(stream, name)
        _check_size(image, shown(name), max_pixels, min_side)
    with quiet(max_pixels):
        pixels = _pixels(image, name)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()


def from_array(array: np.ndarray) -> Tensor:
    """An image tensor from a numpy array as other libraries hold pictures.

    Args:
        array: `[H, W]`, `[H, W, 1]`, `[H, W, 3]` or `[H, W, 4]` (alpha, composited over white); uint8,
            uint16, bool, or float in [0, 1].

    Returns:
        float32 RGB in [0, 1], `[1, 3, H, W]`; a copy.

    Raises:
        ImageError: another shape or type, float values outside [0, 1] or not finite.
    """
    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or pixels.size == 0:
        raise ImageError(f"an array of shape {np.shape(array)} is not a picture: give HxW, HxWx1, HxWx3 or HxWx4")
    unit = _to_unit(pixels)
    alpha = unit[..., 3] if unit.shape[2] == 4 else None
    colour = np.broadcast_to(unit[..., :3], (*unit.shape[:2], 3))
    result = over_white(colour, alpha).transpose(2, 0, 1)[None]
    return torch.from_numpy(np.array(result, dtype=np.float32, order="C"))


def _check_size(image: Image.Image, name: str, max_pixels: int, min_side: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name} is {width} x {height}, more than {max_pixels:,} pixels: make it smaller first")
    if min(width, height) < min_side:
        raise ImageError(f"{name} is {width} x {height} pixels: the least size is {min_side} x {min_side}")


def _pixels(image: Image.Image, name: str) -> np.ndarray:
    try:
        image.load()
        return to_rgb(image, shown(name))
    except ImageError:
        raise
    except Exception as error:  # Plugins raise anything on damaged bytes.
        raise damaged(name, error) from None


def _to_unit(pixels: np.ndarray) -> np.ndarray:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "b":
        return pixels.astype(np.float32)
    if kind == "u" and size <= 2:
        return pixels.astype(np.float32) / np.float32(255 if size == 1 else 65535)
    if kind != "f":
        raise ImageError(f"an array of {pixels.dtype} is not a picture: give uint8, uint16 or float in [0, 1]")
    low, high = pixels.min(), pixels.max()
    if not (low >= -1e-6 and high <= 1 + 1e-6):  # Also true of NaN; the slack is float rounding.
        raise ImageError(f"an array with values from {low:g} to {high:g} is not a picture: scale it to [0, 1]")
    return pixels.clip(0, 1).astype(np.float32)
