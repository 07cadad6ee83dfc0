"""Float images and their 8-bit forms, rounded to the nearest level."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import ImageError


def quantize(image: Tensor) -> Tensor:
    """The image as an 8-bit file would hold it: `round(255 x) / 255`, values outside [0, 1] clipped.

    Args:
        image: float, any shape.

    Returns:
        float32 of the same shape, on the same device.

    Raises:
        ImageError: not a float tensor, or NaN in it.
    """
    return _levels(image) / 255


def to_uint8(image: Tensor) -> np.ndarray:
    """The image as uint8 `[H, W, 3]`, rounded to the nearest level, values outside [0, 1] clipped.

    Args:
        image: float RGB `[3, H, W]` or `[1, 3, H, W]`.

    Raises:
        ImageError: another shape, not a float tensor, or NaN in it.
    """
    single = image[0] if image.ndim == 4 and image.shape[0] == 1 else image
    if single.ndim != 3 or single.shape[0] != 3 or single.numel() == 0:
        raise ImageError(f"expected one image [3, H, W] or [1, 3, H, W], got {list(image.shape)}")
    return np.ascontiguousarray(_levels(single).permute(1, 2, 0).to(torch.uint8).cpu().numpy())


def to_pil(image: Tensor) -> Image.Image:
    """The image as an RGB picture of Pillow; takes and raises what `to_uint8` does."""
    return Image.fromarray(to_uint8(image))


def _levels(image: Tensor) -> Tensor:
    if not image.is_floating_point():
        raise ImageError(f"expected a float image in [0, 1], got {image.dtype}")
    if torch.isnan(image).any():
        raise ImageError("the image has NaN in it: an image is finite, in [0, 1]")
    return image.detach().to(torch.float32).clamp(0, 1).mul(255).round()
