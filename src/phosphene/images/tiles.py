"""Many small tiles, such as filters or feature maps, as one picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from phosphene.errors import PhospheneError


def grid(
    images: Tensor, *, columns: int | None = None, gap: int = 2, background: float = 1.0, scale: int = 1
) -> Tensor:
    """Tiles side by side, row by row, each pixel enlarged to `scale` x `scale`.

    Args:
        images: `[N, C, H, W]` in [0, 1] with C = 1 or 3; values outside are clipped.
        columns: tiles a row; about as many as there are rows where None.
        gap: pixels between tiles (not around them).
        background: the grey of the gaps and of the places without a tile, in [0, 1].
        scale: whole-number enlargement.

    Returns:
        `[3, rows * (H * scale + gap) - gap, columns * (W * scale + gap) - gap]`.

    Raises:
        PhospheneError: another shape, no tiles, a number out of range.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or images.numel() == 0:
        raise PhospheneError(f"expected tiles [N, 1 or 3, H, W], got {list(images.shape)}")
    across = math.ceil(math.sqrt(len(images))) if columns is None else columns
    if across < 1 or gap < 0 or scale < 1:
        raise PhospheneError(f"columns {across}, gap {gap}, scale {scale}: give at least 1, 0 and 1")
    across = min(across, len(images))
    tiles = images.detach().float().clamp(0, 1).expand(-1, 3, -1, -1)
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    down, high, wide = math.ceil(len(tiles) / across), tiles.shape[2] + gap, tiles.shape[3] + gap
    canvas = torch.full((3, down * high - gap, across * wide - gap), float(background), device=tiles.device)
    for index, tile in enumerate(tiles):
        top, left = index // across * high, index % across * wide
        canvas[:, top : top + high - gap, left : left + wide - gap] = tile
    return canvas


def normalise_tiles(tiles: Tensor) -> Tensor:
    """Stretch each tile's contrast about zero: `0.5 + tile / (2 max |tile|)`, so that zero is grey.

    Args:
        tiles: float `[N, C, H, W]`, finite, such as the weights of a first convolution.

    Returns:
        float32 `[N, C, H, W]` in [0, 1]; a tile of zeros is 0.5.

    Raises:
        PhospheneError: another shape, or values that aren't finite.
    """
    if tiles.ndim != 4 or tiles.numel() == 0:
        raise PhospheneError(f"expected tiles [N, C, H, W], got {list(tiles.shape)}")
    values = tiles.detach().float()
    if not torch.isfinite(values).all():
        raise PhospheneError("the tiles hold NaN or infinity: give finite values")
    most = values.abs().flatten(1).amax(1)[:, None, None, None]
    return (0.5 + values / torch.where(most > 0, 2 * most, 1)).clamp(0, 1)
