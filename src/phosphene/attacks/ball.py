"""The set that an attack stays in: all pictures within `eps` of the original, and equal to it outside of a mask.

|x - x0|_p <= eps,     0 <= x <= 1,     x = x0 where the mask is 0
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from phosphene.errors import PhospheneError

Norm: TypeAlias = Literal["linf", "l2"]

TOLERANCE = 1e-6  # how far out float32's rounding may put an image
TINY = 1e-12


@dataclass(frozen=True)
class Ball:
    """All images within `eps` of a start, in the norm `linf` or `l2`.

    Attributes:
        norm: `linf` or `l2`.
        eps: the radius in units of [0, 1], one for all images or `[N]`.
        mask: `[N or 1, 1 or C, H, W]` of 0 and 1: only where it is 1 may an image change. None: everywhere.

    Raises:
        PhospheneError: another norm, or a radius that is negative or NaN.
    """

    norm: Norm
    eps: float | Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise PhospheneError(f"unknown norm '{self.norm}': choose linf or l2")
        if not bool((torch.as_tensor(self.eps) >= 0).all()):
            raise PhospheneError(f"a ball has a radius of 0 or more, got {_worst(self.eps):g}")

    def at(self, which: Tensor) -> Ball:
        """The balls of some images of the batch: `which` `[n]` are their places."""
        eps = self.eps[which] if isinstance(self.eps, Tensor) and self.eps.ndim else self.eps
        mask = self.mask[which] if self.mask is not None and len(self.mask) > 1 else self.mask
        return replace(self, eps=eps, mask=mask)

    def project(self, images: Tensor, start: Tensor) -> Tensor:
        """The nearest point of the ball (then of [0, 1]) for each image `[n, C, H, W]` around its `start`."""
        change = self.masked(images - start)
        radius = self.radius(change)
        if self.norm == "linf":
            change = change.maximum(-radius).minimum(radius)
        else:
            length = lengths(change).clamp(min=TINY).view(-1, 1, 1, 1)
            change = change * (radius / length).clamp(max=1).to(change)
        # Clamping only brings a value nearer to its start, which lies in [0, 1] itself, so it can't leave the ball.
        return (start + change).clamp(0, 1)

    def holds(self, images: Tensor, start: Tensor) -> Tensor:
        """`[n]`, whether each image lies in the ball around its start (up to float32's rounding)."""
        change = images - start
        inside = self.size(change) <= self.radius(change).view(-1) + TOLERANCE
        return inside & (change == self.masked(change)).flatten(1).all(1)

    def size(self, change: Tensor) -> Tensor:
        """`[n]`, the norm of each change `[n, C, H, W]`."""
        return change.flatten(1).abs().amax(1) if self.norm == "linf" else lengths(change).to(change)

    def steepest(self, gradient: Tensor) -> Tensor:
        """The step of size 1 that climbs most: `sign(g)` for linf, `g / |g|_2` for l2, nothing outside of the mask."""
        gradient = self.masked(gradient)
        if self.norm == "linf":
            return gradient.sign()
        return gradient / lengths(gradient).clamp(min=TINY).to(gradient).view(-1, 1, 1, 1)

    def saved(self, images: Tensor, start: Tensor) -> Tensor:
        """The images as 8-bit files hold them, inside the ball; `start` is on the 8-bit lattice.

        Values go to the nearest level; where that would leave the ball, towards the start.
        """
        first = (start * 255).round()
        levels = images * 255 - first
        down, nearest = levels.trunc(), levels.round()
        if self.norm == "linf":
            most = (self.radius(images) * 255 + 1e-4).floor()  # 8/255 * 255 may be 7.9999995
            moved = nearest.maximum(-most).minimum(most)
        else:
            moved = torch.where(_affordable(levels, self.radius(images).view(-1, 1) * 255), nearest, down)
        return (first + self.masked(moved)) / 255

    def masked(self, change: Tensor) -> Tensor:
        """The change `[n, C, H, W]` (or several of each image, `[n, K, C, H, W]`), 0 where the mask forbids one."""
        if self.mask is None:
            return change
        mask = self.mask.to(change)
        return change * (mask if change.ndim == 4 else mask[:, None])

    def radius(self, like: Tensor) -> Tensor:
        """`eps` as a tensor `[n or 1, 1, 1, 1]` on the device of `like` and of its type."""
        return torch.as_tensor(self.eps, dtype=like.dtype, device=like.device).view(-1, 1, 1, 1)


def lengths(change: Tensor) -> Tensor:
    """`[n]`, the L2 norm of each `[n, ...]`; summed in float64 where the device has it."""
    exact = torch.float64 if change.device.type != "mps" else change.dtype
    return torch.linalg.vector_norm(change.flatten(1), dim=1, dtype=exact)


def _affordable(levels: Tensor, radius: Tensor) -> Tensor:
    """Which values may go up to the nearest level, the longest way already gone first, without leaving the L2 ball.

    Args:
        levels: `[n, C, H, W]`, the changes in levels; rounded towards 0 they lie in the ball.
        radius: `[n or 1, 1]`, in levels.
    """
    flat = levels.flatten(1)
    down = flat.trunc().abs().long()
    gone = flat.abs() - down
    # From m to m + 1 levels costs 2 m + 1 of the radius squared: whole numbers, so that the sums are exact.
    square = (radius.cpu().double().square() + 1e-4).clamp(max=2.0**62).floor().long()  # no float64 on MPS
    room = square.to(levels.device) - down.square().sum(1, keepdim=True)
    order = gone.argsort(dim=1, descending=True, stable=True)
    wants = (gone >= 0.5).gather(1, order)
    price = ((2 * down + 1).gather(1, order) * wants).cumsum(1)
    return torch.zeros_like(wants).scatter(1, order, wants & (price <= room)).view_as(levels)


def _worst(eps: float | Tensor) -> float:
    values = torch.as_tensor(eps).flatten()
    return float(values[~(values >= 0)][0])
