"""What attacks share that make one thing for many images: whom it is for, in which batches, and what it climbs."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.attacks.dice import Dice
from phosphene.attacks.trial import Trial
from phosphene.errors import LabelError, PhospheneError

CLIP = 9.0
"""Where the loss of one image ends, Shafahi et al.'s beta: the network then gives its label `exp(-9)`."""


def everyones(target: int | None, count: int) -> list[int] | None:
    """One class to reach, for each of `count` images.

    Raises:
        LabelError: it is not one whole number.
    """
    if target is not None and (isinstance(target, bool) or not isinstance(target, int)):
        raise LabelError(f"the class to reach is one whole number, the same for all images; got {target!r}")
    return None if target is None else [target] * count


def right(trial: Trial) -> Tensor:
    """`[n]`, places of the images that the network gets right: only these can be fooled.

    Raises:
        PhospheneError: there are none.
    """
    which = trial.open()
    if not len(which):
        raise PhospheneError(
            f"the network is wrong about all {len(trial.labels)} images: there is nothing to fool it in"
        )
    return which


def count_batches(count: int, together: int) -> int:
    """How many batches `count` images make, with `together` at most in each."""
    return math.ceil(count / together)


def batches(dice: Dice, which: Tensor, together: int, turn: int) -> tuple[Tensor, ...]:
    """The places `which` `[n]` in batches whose sizes differ by one at most, so that each image counts as much.

    The seed and the images themselves decide the order, not their places. Every turn has another one.
    """
    draws = [torch.rand((), generator=one, dtype=torch.float64) for one in dice.generators(which, f"order {turn}")]
    order = torch.stack(draws).argsort(stable=True).to(which.device)
    return which[order].tensor_split(count_batches(len(which), together))


def clipped(trial: Trial, logits: Tensor, which: Tensor) -> Tensor:
    """`[n]`, what to climb: `min(-log p, CLIP)` of the label, `log p` of the target.

    Without its end, an image that fools the network already would outweigh those that don't. The target's needs none: it ends
    at 0.
    """
    odds = trial.odds(logits, which)
    # -log p = log(1 + (1 - p)/p), which doesn't round away where the network is sure.
    return F.softplus(odds).clamp(max=CLIP) if trial.targets is None else -F.softplus(-odds)
