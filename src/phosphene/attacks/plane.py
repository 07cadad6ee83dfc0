"""The nearest point of a picture's box on a plane, the step that FAB takes.

    min |d|_p    with    w . (x + d) + b = 0,    0 <= x + d <= 1

With r = w . x + b >= 0 (else change the signs of w and r), each value can only go against the sign of its weight, until it
has used up its room to 0 or 1, so that

    linf:  |d_i| = min(t, room_i)          l2:  |d_i| = min(t |w_i|, room_i)

and one number t remains to be found:  sum_i |w_i| |d_i|(t) = r.  The left side grows with t, is concave and made of straight
pieces, so Newton's method from t = 0 comes to the root from below, and is exact once it is on the right piece.

Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, eq. 7 (they sort
where Newton's method takes a handful of passes).
"""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.attacks.ball import Norm

PASSES = 60  # a few are enough; random planes never took more than 20
ACCURACY = 1e-6


def project(x: Tensor, weights: Tensor, value: Tensor, norm: Norm) -> Tensor:
    """The change `d` `[n, D]` that takes `x` `[n, D]` in [0, 1] to the plane.

    Where the box doesn't reach the plane, the corner that is nearest to it.

    Args:
        weights: `[n, D]`, w.
        value: `[n]`, w . x + b.
    """
    down = weights * value.sign()[:, None] > 0
    room = torch.where(down, x, 1 - x)
    pull = weights.abs()
    speed = pull if norm == "l2" else torch.ones_like(pull)
    # Values without weight don't have to move.
    room = room * (pull > 0)
    change = room.minimum(speed * _time(room, pull, speed, value.abs())[:, None])
    return torch.where(down, -change, change)


def _time(room: Tensor, pull: Tensor, speed: Tensor, wanted: Tensor) -> Tensor:
    """`t` `[n]` with  sum pull min(t speed, room) = wanted;  infinity where all the room is not enough."""
    slopes = pull * speed
    time = torch.zeros_like(wanted)
    for _ in range(PASSES):
        free = speed * time[:, None] < room
        missing = wanted - (pull * torch.where(free, speed * time[:, None], room)).sum(1)
        going = missing > ACCURACY * wanted
        if not bool(going.any()):
            break
        slope = (slopes * free).sum(1)
        time = torch.where(going, time + missing / slope, time)  # no slope left: infinity
        time = time.nan_to_num(nan=torch.inf, posinf=torch.finfo(time.dtype).max)
    return time
