"""What every attack returns, and the last look that makes it: the network is asked again about the final images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.attacks.ball import TOLERANCE as TOLERANCE
from phosphene.attacks.ball import lengths
from phosphene.attacks.victim import Victim


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


def finish(
    victim: Victim, originals: Tensor, images: Tensor, labels: Tensor, wrong: Tensor, targets: Tensor | None = None
) -> Result:
    """Ask the network again about the final `images`, and report.

    Args:
        victim: counts these passes, too.
        originals, images: `[N, C, H, W]`; where `wrong`, the original stands in for the image.
        labels, wrong: `[N]`.
        targets: `[N]`; None: any class but the label will do.
    """
    images = torch.where(wrong.view(-1, 1, 1, 1), originals, images)
    predicted = victim.logits(images, torch.arange(len(images))).argmax(1)
    reached = predicted != labels if targets is None else predicted == targets
    l2, linf = sizes(images, originals)
    return Result(
        originals=originals,
        images=images,
        success=reached & ~wrong,
        wrong=wrong,
        labels=labels,
        predicted=predicted,
        l2=l2,
        linf=linf,
        forwards=victim.forwards.clone(),
        backwards=victim.backwards.clone(),
    )


def sizes(images: Tensor, originals: Tensor) -> tuple[Tensor, Tensor]:
    """L2 and Linf of the change, `[N]` each."""
    change = (images - originals).flatten(1)
    return lengths(change).to(change), change.abs().amax(1) if change.shape[1] else torch.zeros(len(change))
