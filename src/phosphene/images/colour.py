"""Heat maps as colours: zero is neutral, the scale is symmetric, and the value where it saturates is told."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import PhospheneError

Scale: TypeAlias = Literal["diverging", "sequential", "overlay"]

# ColorBrewer's RdBu from blue to red, with a centre of pure white.
_RED_BLUE = "053061 2166ac 4393c3 92c5de d1e5f0 ffffff fddbc7 f4a582 d6604d b2182b 67001f"


@dataclass(frozen=True, eq=False)
class Coloured:
    """Heat maps in colour.

    Attributes:
        images: `[N, 3, H, W]` in [0, 1].
        limits: `[N]`, the absolute value from which the colour of each map saturates; 0 for a zero map.
        percentile: the percentile of |values| that the limits are, where none was given.
    """

    images: Tensor
    limits: Tensor
    percentile: float


def diverging(maps: Tensor, *, percentile: float = 99.5, limit: float | None = None) -> Coloured:
    """Colour signed maps: blue below zero, white at zero, red above, on a scale symmetric about zero.

    Args:
        maps: `[N, H, W]`, finite.
        percentile: each map saturates at this percentile of its |values|, in (0, 100].
        limit: saturate every map at this value instead, so that maps can be compared.

    Raises:
        PhospheneError: another shape, values that aren't finite, percentile or limit out of range.
    """
    limits = _limits(maps, percentile, limit)
    return Coloured(_paint(_scaled(maps, limits) / 2 + 0.5, "diverging"), limits, percentile)


def sequential(maps: Tensor, *, percentile: float = 99.5, limit: float | None = None) -> Coloured:
    """Colour maps without negative values, from near black at zero to light yellow (matplotlib's magma).

    Args:
        maps: `[N, H, W]`, finite, at least 0.
        percentile: each map saturates at this percentile of its values, in (0, 100].
        limit: saturate every map at this value instead, so that maps can be compared.

    Raises:
        PhospheneError: another shape, values negative or not finite, percentile or limit out of range.
    """
    limits = _limits(maps, percentile, limit)
    _check_positive(maps, "use diverging for signed maps")
    return Coloured(_paint(_scaled(maps, limits), "sequential"), limits, percentile)


def overlay(images: Tensor, maps: Tensor, *, alpha: float = 0.55) -> Tensor:
    """Heat maps over pictures: the hotter, the more opaque; where heat is zero the picture stays as it is.

    Colours run from green over yellow to red (matplotlib's turbo) at the maximum of each map.

    Args:
        images: `[N, 3, H, W]` in [0, 1].
        maps: `[N, h, w]`, at least 0; divided by its maximum, and resized bilinearly where smaller.
        alpha: the opacity at the maximum, in [0, 1].

    Returns:
        `[N, 3, H, W]` in [0, 1].

    Raises:
        PhospheneError: shapes that don't match, values negative or not finite, alpha out of range.
    """
    if images.ndim != 4 or images.shape[1] != 3 or maps.ndim != 3 or len(maps) != len(images):
        shapes = f"{list(images.shape)} and {list(maps.shape)}"
        raise PhospheneError(f"expected images [N, 3, H, W] and maps [N, h, w], got {shapes}")
    if not 0 <= alpha <= 1:
        raise PhospheneError(f"alpha {alpha} is out of range: give 0 to 1")
    _check_finite(maps)
    _check_positive(maps, "clamp them at 0 or show them with diverging")
    heat = _scaled(maps, maps.flatten(1).amax(1))[:, None].to(images)
    if heat.shape[-2:] != images.shape[-2:]:
        heat = F.interpolate(heat, images.shape[-2:], mode="bilinear", align_corners=False, antialias=True)
    heat = heat.clamp(0, 1)
    warm = _paint(0.3 + 0.62 * heat[:, 0], "overlay")  # Turbo from green to red: it has no blue or black.
    opacity = alpha * heat.sqrt() * heat.mul(8).clamp(max=1)
    return (images * (1 - opacity) + warm.to(images) * opacity).clamp(0, 1)


def difference(a: Tensor, b: Tensor, *, gain: float = 1.0) -> Tensor:
    """The change from `a` to `b`, `0.5 + gain * (b - a)` clipped to [0, 1]: grey where nothing changed.

    Args:
        a: images, any shape.
        b: images of the same shape.
        gain: how much to amplify the change.

    Raises:
        PhospheneError: shapes that differ.
    """
    if a.shape != b.shape:
        raise PhospheneError(f"expected two images of one shape, got {list(a.shape)} and {list(b.shape)}")
    return (0.5 + gain * (b - a)).clamp(0, 1)


def bar(scale: Scale, width: int, height: int) -> Tensor:
    """A legend strip `[3, height, width]` of the colours of `scale`, lowest value left, highest right.

    Raises:
        PhospheneError: another scale, or a size below 1.
    """
    if scale not in ("diverging", "sequential", "overlay") or min(width, height) < 1:
        known = "diverging, sequential or overlay"
        raise PhospheneError(f"no bar of {scale} {width} x {height}: give {known} and a size above 0")
    line = (torch.linspace(0, 1, width) if width > 1 else torch.tensor([0.5])).expand(1, height, width)
    if scale == "overlay":  # over a grey picture
        return overlay(torch.full((1, 3, height, width), 0.5), line)[0]
    return _paint(line, scale)[0]


def _limits(maps: Tensor, percentile: float, limit: float | None) -> Tensor:
    """`[N]`: `limit`, or each map's percentile of |values| (its maximum where that is 0)."""
    if maps.ndim != 3 or maps.numel() == 0:
        raise PhospheneError(f"expected maps [N, H, W], got {list(maps.shape)}")
    _check_finite(maps)
    if limit is not None:
        if not (limit > 0 and math.isfinite(limit)):
            raise PhospheneError(f"limit {limit} is out of range: give a positive number")
        return torch.full((len(maps),), float(limit))
    if not 0 < percentile <= 100:
        raise PhospheneError(f"percentile {percentile} is out of range: give more than 0, at most 100")
    sizes = maps.detach().abs().flatten(1)
    rank = max(1, math.ceil(percentile / 100 * sizes.shape[1]))
    limits = sizes.kthvalue(rank, dim=1).values
    return torch.where(limits > 0, limits, sizes.amax(1)).float().cpu()


def _scaled(maps: Tensor, limits: Tensor) -> Tensor:
    """float32 maps over their limits, clipped to [-1, 1]; a map with limit 0 is 0."""
    divisor = torch.where(limits > 0, limits, 1).to(maps.device)
    return (maps.detach() / divisor[:, None, None]).clamp(-1, 1).float()


def _paint(unit: Tensor, scale: str) -> Tensor:
    """`[N, H, W]` in [0, 1] to `[N, 3, H, W]`: the scale's table, interpolated linearly."""
    table = _table(scale).to(unit.device)
    place = unit.clamp(0, 1) * (len(table) - 1)
    below = place.long().clamp(max=len(table) - 2)
    share = (place - below)[..., None]
    colour = table[below] * (1 - share) + table[below + 1] * share
    return colour.permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=3)
def _table(scale: str) -> Tensor:
    """float32 `[K, 3]`."""
    if scale == "diverging":
        return torch.tensor([[level / 255 for level in bytes.fromhex(code)] for code in _RED_BLUE.split()])
    from matplotlib import colormaps

    colours = colormaps["magma" if scale == "sequential" else "turbo"]
    return torch.from_numpy(colours(np.linspace(0, 1, 256))[:, :3].astype(np.float32))


def _check_finite(maps: Tensor) -> None:
    if not maps.is_floating_point() or not torch.isfinite(maps).all():
        raise PhospheneError("the maps hold NaN, infinity or integers: a heat map is float and finite")


def _check_positive(maps: Tensor, advice: str) -> None:
    if (maps < 0).any():
        raise PhospheneError(f"the maps go down to {maps.min().item():.3g}, below 0: {advice}")
