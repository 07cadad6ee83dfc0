"""The part of a map that speaks for the class."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.errors import PhospheneError


def evidence(maps: Tensor) -> Tensor:
    """`max(map, 0)` above its smallest value, `[N, H, W]`.

    Nearly all maps are 0 somewhere, and this is their positive part. A map that is positive everywhere (RISE's, a mean of
    masks) has a floor that every pixel shares and that says nothing about any of them: it is taken away.

    Raises:
        PhospheneError: another shape, NaN or infinity.
    """
    check(maps)
    positive = maps.clamp(min=0)
    return positive - positive.amin((1, 2), keepdim=True)


def check(maps: Tensor, count: int | None = None) -> None:
    """Raise a PhospheneError unless these are `count` finite maps `[N, H, W]`."""
    if maps.ndim != 3 or not maps.numel() or (count is not None and len(maps) != count):
        many = "N" if count is None else str(count)
        raise PhospheneError(f"expected maps [{many}, H, W], one per image, got {list(maps.shape)}")
    if not bool(torch.isfinite(maps).all()):
        raise PhospheneError("the maps hold NaN or infinity: a map that can be judged is finite")
