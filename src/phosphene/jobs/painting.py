"""Explanations as pictures: each kind of map in the colours that are honest for it, on one scale for all classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.explain import METHODS, Attribution

PERCENTILE = 99.5
IN_COLOUR = ("guided-backprop", "deconvnet", "guided-grad-cam")
"""Methods whose values are shown for each colour by itself, as their papers do."""


@dataclass(frozen=True, eq=False)
class Painted:
    """`images [K, 3, H, W]`: one for each class. `limit`: where the colours end. `kind`: of `images.legend.KINDS`."""

    images: Tensor
    limit: float
    kind: str
    caption: str


def paint(found: Attribution, photo: Tensor) -> Painted:
    """The maps `[1, K, H, W]` of one image for K classes as pictures over `photo [1, 3, H, W]`."""
    maps = found.maps[0].cpu().float()
    at = f" at {found.layer}" if found.layer else ""
    if found.method in IN_COLOUR:
        assert found.gradient is not None
        gradient = found.gradient[0].cpu().float()
        limit = _limit(gradient)
        shown = (0.5 + gradient / (2 * max(limit, 1e-30))).clamp(0, 1)
        return Painted(shown, limit, "colours", f"by colour, grey is 0{at}; {_clip(limit)}")
    if METHODS[found.method].signed:
        limit = _limit(maps)
        shown = pictures.diverging(maps, limit=max(limit, 1e-30)).images
        return Painted(shown, limit, "diverging", f"blue - 0 + red{at}; {_clip(limit)}")
    if found.method == "saliency":
        limit = _limit(maps)
        return Painted(
            pictures.sequential(maps, limit=max(limit, 1e-30)).images,
            limit,
            "sequential",
            f"0 is black; {_clip(limit)}",
        )
    floor = maps.amin((1, 2), keepdim=True) if found.method == "rise" else torch.zeros(1)  # a mean of masks has one
    heat = maps - floor
    limit = float(heat.max())
    shown = pictures.overlay(photo.cpu().expand(len(heat), -1, -1, -1), heat)
    above = f", above its least {float(floor.min()):.2g}" if float(floor.min()) > 0 else ""
    return Painted(shown, limit, "overlay", f"red matters most{at}{above}")


def in_colours(gradient: Tensor) -> Tensor:
    """A signed gradient `[3, H, W]` as colours around grey, clipped as `paint` clips."""
    return (0.5 + gradient / (2 * max(_limit(gradient), 1e-30))).clamp(0, 1)


def _limit(values: Tensor) -> float:
    """The percentile of |values| where colours end; the largest where that is 0, as a neuron may see a few pixels only."""
    sizes = values.abs().flatten()
    rank = max(1, -(-len(sizes) * int(PERCENTILE * 10) // 1000))
    return float(torch.kthvalue(sizes, rank).values) or float(sizes.max())


def _clip(limit: float) -> str:
    return f"clip {limit:.2g} ({PERCENTILE}th percentile)"
