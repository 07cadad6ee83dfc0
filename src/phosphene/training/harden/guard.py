"""Catastrophic overfitting: a network that is trained with one step learns to blind that step, and falls to any second one.

The accuracy under PGD of a few held-out pictures then falls to nothing within some hundred steps, while that in training
rises. It is looked at four times an epoch. Where it has halved, training goes back to the last time that all was well, and on
with one more step in each attack and half the rate.

Wong, Rice & Kolter, ICLR 2020, section 5.4, who stop there; Andriushchenko & Flammarion, "Understanding and improving fast
adversarial training", NeurIPS 2020, on what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from phosphene.training.state import Progress

LOOKS = 4  # an epoch
FALLEN = 0.5  # of the best accuracy under attack so far
ABOVE = 2.0  # times chance: below that, there is nothing to lose yet
MOST = 6  # repairs


@dataclass(frozen=True)
class Guard:
    """Watches a training, if it is `on`. What it has seen and done lies in the training's notes."""

    on: bool = True
    count: int = 256

    def looks(self, step: int, an_epoch: int) -> bool:
        """Whether to look after this step."""
        return self.on and step > 0 and step % max(1, an_epoch // LOOKS) == 0

    def sees(self, share: float, here: Progress, chance: float) -> str:
        """Note the accuracy under attack; why it is to be mended, empty where it isn't."""
        best = here.notes.get("watched", 0.0)
        here.notes["watched"] = max(best, share)
        enough = best > min(ABOVE * chance, (1 + chance) / 2)
        if enough and share < FALLEN * best and len(here.notes.get("mended", [])) < MOST:
            return f"accuracy under attack fell from {best:.0%} to {share:.0%}"
        return ""

    def mend(self, here: Progress) -> None:
        """One more step in each attack, from now on."""
        here.notes["more"] = self.more(here) + 1

    def more(self, here: Progress) -> int:
        """Steps that were added."""
        return int(here.notes.get("more", 0))
