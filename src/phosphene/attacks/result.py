"""What every attack returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Result:
    """What an attack made of a batch, one entry per image.

    Attributes:
        originals: `[N, C, H, W]` in [0, 1].
        images: `[N, C, H, W]` in [0, 1], within the ball; where it had no success, the best try (or the original).
        success: `[N]`, whether the network, asked again, sees another class than the label (targeted: the target). Never true
            where it was wrong before.
        wrong: `[N]`, whether it saw another class than the label in the original: not attacked, and no success.
        labels: `[N]`, the true classes.
        predicted: `[N]`, what it sees in `images`.
        l2, linf: `[N]`, size of the change, in units of [0, 1].
        forwards, backwards: `[N]`, passes of each image through the network.
    """

    originals: Tensor
    images: Tensor
    success: Tensor
    wrong: Tensor
    labels: Tensor
    predicted: Tensor
    l2: Tensor
    linf: Tensor
    forwards: Tensor
    backwards: Tensor

    @property
    def robust(self) -> Tensor:
        """`[N]`, right before and after."""
        return ~(self.success | self.wrong)

    @property
    def accuracy(self) -> float:
        """Share of all images that are right before and after."""
        return float(self.robust.double().mean())


def sizes(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """L2 and Linf of the change, `[N]` each."""
    change = (images - originals).flatten(1)
    return change.norm(dim=1), change.abs().amax(1) if change.shape[1] else torch.zeros(len(change))
