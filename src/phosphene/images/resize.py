"""Changing the size of images without aliasing."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import ImageError

ResizeMode: TypeAlias = Literal["bicubic", "bilinear", "area", "nearest"]


def resize(image: Tensor, size: tuple[int, int] | int, *, mode: ResizeMode = "bicubic") -> Tensor:
    """Resize images, antialiased, clipped to [0, 1]; differentiable.

    Args:
        image: float `[N, C, H, W]`.
        size: (height, width), or the length of the shorter side; the longer one then keeps the aspect,
            rounded down as torchvision does.
        mode: "bicubic" and "bilinear" are antialiased; "area" averages; "nearest" copies pixels.

    Returns:
        `[N, C, height, width]` in [0, 1].

    Raises:
        ImageError: not four dimensions, or a size below 1.
    """
    if image.ndim != 4:
        raise ImageError(f"expected images [N, 3, H, W], got {list(image.shape)}")
    target = _target(image.shape[-2], image.shape[-1], size) if isinstance(size, int) else size
    if min(target) < 1:
        raise ImageError(f"size {size} is out of range: give at least 1 pixel")
    if mode in ("bicubic", "bilinear"):
        resized = F.interpolate(image, target, mode=mode, align_corners=False, antialias=True)
    else:
        resized = F.interpolate(image, target, mode="nearest-exact" if mode == "nearest" else mode)
    return resized.clamp(0, 1)


def _target(height: int, width: int, side: int) -> tuple[int, int]:
    short = min(height, width)
    return (side, side * width // short) if height <= width else (side * height // short, side)
