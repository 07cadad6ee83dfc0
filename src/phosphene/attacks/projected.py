"""The one loop that moves an image inside a set: step along a direction, project, and let finished images go.

    x <- Project( x + step )

The set is always [0, 1] (a picture), and a ball around the start where one is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.attacks.ball import Ball as Ball
from phosphene.attacks.ball import Norm as Norm
from phosphene.progress import Job, Step

Move: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(images [n, C, H, W], which of the batch they are [n]) -> (step [n, C, H, W], done [n])`. Done images don't move."""

Look: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(images [n, C, H, W], which of the batch they are [n]) -> done [n]`."""


@dataclass(frozen=True)
class Moved:
    """`images`: `[N, C, H, W]`. `done`: `[N]`, whether each was finished. `steps`: `[N]`, how many it took."""

    images: Tensor
    done: Tensor
    steps: Tensor


def move_until_done(
    start: Tensor,
    move: Move,
    *,
    steps: int,
    ball: Ball | None = None,
    centre: Tensor | None = None,
    look: Look | None = None,
) -> Job[Moved]:
    """Step until `move` says that an image is done, at most `steps` times; each image leaves the batch when it is.

    Args:
        start: `[N, C, H, W]` in [0, 1].
        move: computes each step; sees only the images that are not done.
        steps: the most steps for one image.
        ball: stay within it.
        centre: `[N, C, H, W]`, what the ball is around; None: `start`.
        look: only says what is done, after the last step; None: `move` does, whose step is then not taken.
    """
    centre = start if centre is None else centre
    images = start.clone()
    done = torch.zeros(len(start), dtype=torch.bool, device=start.device)
    taken = torch.zeros(len(start), dtype=torch.long, device=start.device)
    for step in range(steps + 1):
        active = (~done).nonzero()[:, 0]
        if step == steps and look is not None:
            done[active] = look(images[active], active)
            yield _event(step, (~done).sum(), images)
            break
        change, finished = move(images[active], active)
        done[active] = finished
        going = active[~finished]
        if step == steps or len(going) == 0:
            yield _event(step, len(going), images)
            break
        moved = images[going] + change[~finished]
        images[going] = moved.clamp(0, 1) if ball is None else ball.at(going).project(moved, centre[going])
        taken[going] += 1
        yield _event(step + 1, len(going), images)
    return Moved(images, done, taken)


def _event(step: int, going: int | Tensor, images: Tensor) -> Step:
    return Step(step, float(going), images if images.shape[1] == 3 else None)
