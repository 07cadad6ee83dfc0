"""From any mode of Pillow to float RGB in [0, 1]: depth, transparency, colour profile, orientation."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from phosphene.errors import ImageError

_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_rgb(image: Image.Image, name: str) -> np.ndarray:
    """The pixels of a loaded picture of any mode, upright, in sRGB and over white.

    8-bit modes divide by 255, 16-bit grey and 32-bit integers by 65535; float mode is taken as it is. Pillow
    itself reads 16-bit *colour* as its high bytes.

    Returns:
        float32 `[H, W, 3]` in [0, 1].

    Raises:
        ImageError: float values outside [0, 1], integers outside [0, 65535].
    """
    orientation = _orientation(image)
    deep = image.mode == "F" or image.mode.startswith("I")
    colour, alpha = _deep(image, name) if deep else _eight_bit(image)
    return np.ascontiguousarray(_upright(over_white(colour, alpha), orientation), dtype=np.float32)


def over_white(colour: np.ndarray, alpha: np.ndarray | None) -> np.ndarray:
    """`[H, W, 3]` in [0, 1] composited over white with opacity `alpha` `[H, W]` in [0, 1] (None: opaque)."""
    if alpha is None:
        return colour
    opacity = alpha[..., None]
    return colour * opacity + (1 - opacity)


def _eight_bit(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    profile, alpha = image.info.get("icc_profile"), None
    if image.has_transparency_data:
        grey = image.mode in ("1", "L", "LA", "La")
        blended = image.convert("LA" if grey else "RGBA")
        alpha = _unit(blended.getchannel("A"))
        image = blended.convert("L" if grey else "RGB")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "CMYK", "LAB"):
        image = image.convert("RGB")
    return _unit(_to_srgb(image, profile)), alpha


def _deep(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    raw = np.asarray(image)
    floating = image.mode == "F"
    top = 1 if floating else 65535
    low, high = raw.min(), raw.max()
    if not (low >= 0 and high <= top):  # Also true of NaN.
        kind = "float" if floating else "integer"
        raise ImageError(f"{name} has {kind} values from {low:g} to {high:g}: scale them to 0..{top}")
    grey = raw.astype(np.float32)
    if not floating:
        grey = _through_curve(_scaled(grey, image), image.info.get("icc_profile"))
    key = image.info.get("transparency")
    alpha = (raw != key).astype(np.float32) if isinstance(key, int) else None
    return np.repeat(grey[..., None], 3, axis=2), alpha


def _scaled(grey: np.ndarray, image: Image.Image) -> np.ndarray:
    """Integers to [0, 1], with what TIFF says of 12 bits and of a scale that runs from white to black."""
    tags = getattr(image, "tag_v2", {})
    white = np.float32(4095 if tuple(tags.get(_TIFF_BITS, ())) == (12,) else 65535)
    unit = grey / white
    return 1 - unit if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO else unit


def _through_curve(grey: np.ndarray, profile: bytes | None) -> np.ndarray:
    """A grey profile applied to more than 8 bits: its curve at 256 points, interpolated between them."""
    if not profile:
        return grey
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    curve = _unit(_to_srgb(ramp, profile))[0, :, 0]
    return np.interp(grey, np.linspace(0, 1, 256), curve).astype(np.float32)


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB, CMYK or LAB picture in sRGB; a profile that is broken or of another kind is ignored."""
    converted = _convert(image, profile) if profile else None
    return image.convert("RGB") if converted is None else converted


def _convert(image: Image.Image, profile: bytes) -> Image.Image | None:
    try:
        source: Any = ImageCms.ImageCmsProfile(BytesIO(profile))
        mode = _PROFILE_MODES.get(source.profile.xcolor_space.strip())
        if mode == "RGB" and image.mode == "L":
            image = image.convert("RGB")
        if mode != image.mode:
            return None
        return ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except Exception:  # A profile is bytes from outside: without it the picture is still a picture.
        return None


def _unit(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _orientation(image: Image.Image) -> int:
    """1 to 8 as EXIF counts; 1, upright, where the metadata is damaged or absent."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # Metadata is bytes from outside.
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """`[H, W, 3]` turned and mirrored as EXIF `orientation` asks; unknown values change nothing."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
