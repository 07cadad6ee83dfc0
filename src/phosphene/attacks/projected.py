"""The one loop that moves an image inside a set: step along a direction, project, and let finished images go.

    x <- Project( x + step )

The set is always [0, 1] (a picture), and a ball around the start where one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Job, Step

Norm: TypeAlias = Literal["linf", "l2"]
Move: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(images [n, 3, H, W], which of the batch they are [n]) -> (step [n, 3, H, W], done [n])`. Done images don't move."""


@dataclass(frozen=True)
class Ball:
    """All images within `eps` of a start, in the norm `linf` or `l2`; eps in units of [0, 1]."""

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise PhospheneError(f"unknown norm '{self.norm}': choose linf or l2")
        if not self.eps >= 0:
            raise PhospheneError(f"a ball has a radius of 0 or more, got {self.eps}")

    def project(self, images: Tensor, start: Tensor) -> Tensor:
        """The nearest point of the ball (then of [0, 1]) for each image."""
        change = images - start
        if self.norm == "linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            length = change.flatten(1).norm(dim=1).clamp(min=1e-12)
            change = change * (self.eps / length).clamp(max=1).view(-1, 1, 1, 1)
        return (start + change).clamp(0, 1)

    def holds(self, images: Tensor, start: Tensor) -> Tensor:
        """`[N]`, whether each image lies in the ball around its start (up to float32's rounding)."""
        change = (images - start).flatten(1)
        size = change.abs().amax(1) if self.norm == "linf" else change.norm(dim=1)
        return size <= self.eps + 1e-6


@dataclass(frozen=True)
class Moved:
    """`images`: `[N, 3, H, W]`. `done`: `[N]`, whether each was finished. `steps`: `[N]`, how many it took."""

    images: Tensor
    done: Tensor
    steps: Tensor


def move_until_done(start: Tensor, move: Move, *, steps: int, ball: Ball | None = None) -> Job[Moved]:
    """Step until `move` says that an image is done, at most `steps` times; each image leaves the batch when it is.

    Args:
        start: `[N, 3, H, W]` in [0, 1].
        move: computes each step; sees only the images that are not done.
        steps: the most steps for one image.
        ball: stay within it around `start`.
    """
    images = start.clone()
    done = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    taken = torch.zeros(len(start), dtype=torch.long, device=start.device)
    for step in range(steps + 1):
        active = (~done).nonzero()[:, 0]
        change, finished = move(images[active], active)
        done[active] = finished
        going = active[~finished]
        if step == steps or len(going) == 0:
            yield Step(step, float(len(going)), images)
            break
        moved = images[going] + change[~finished]
        images[going] = moved.clamp(0, 1) if ball is None else ball.project(moved, start[going])
        taken[going] += 1
        yield Step(step + 1, float(len(going)), images)
    return Moved(images, done, taken)
