"""How fast each image of a batch may move: half as fast after it diverged, not at all once it has stopped rising."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError

KEPT_EVERY = 10  # steps between good states
MOST_RESTARTS = 8  # of one image
EXPLODES = 10.0  # f - R has fallen by so many times the largest size it ever had while it was good
SETTLES = 10  # steps in which its size is found out: where it begins near zero, any fall would look like an explosion


@dataclass(frozen=True)
class Restart:
    """Image number `image` diverged at `step`, went back to its state after `back_to` steps, and moves at `rate` since."""

    image: int
    step: int
    back_to: int
    rate: float


class Pace:
    """Watches f - R of each image of a batch and scales what the optimiser does to it.

    Images don't influence each other, so each has its own good state, its own rate and its own end.

    Args:
        parameter: `[N, ...]`, what is moved.
        optimiser: what moves it; its state tensors of the same shape go back with an image.
        rate: its learning rate, for what is said.
        patience, tolerance: see `ascend`.
    """

    def __init__(
        self, parameter: Tensor, optimiser: torch.optim.Optimizer, rate: float, patience: int, tolerance: float
    ) -> None:
        count = len(parameter)
        self.parameter, self.optimiser, self.rate = parameter, optimiser, rate
        self.patience, self.tolerance = patience, tolerance
        self.share = torch.ones(count, device=parameter.device)  # of the optimiser's step
        self.restarts: list[Restart] = []
        self.seen: list[Tensor] = []
        self.ended: list[int | None] = [None] * count
        self._since = [0] * count  # the step at which an image began to be watched anew
        self._largest = torch.zeros(count, device=parameter.device)
        self._best = torch.full((count,), -torch.inf, device=parameter.device)
        self._good_step = [0] * count
        self._good = [parameter.detach().clone()]  # the parameter, then the optimiser's state
        self._bad = torch.zeros(count, dtype=torch.bool, device=parameter.device)
        self._before: Tensor = parameter.detach()

    def look(self, step: int, height: Tensor, gradient: Tensor) -> None:
        """Before a step: `height [N]` is f - R there. Notes who diverged, keeps good states, ends who rises no more.

        `gradient` is zeroed where it can't be used.

        Raises:
            PhospheneError: not finite at the first step, or diverged too often.
        """
        finite = torch.isfinite(height) & torch.isfinite(gradient.flatten(1).sum(1))  # a sum keeps NaN and infinity
        fallen = self._best - height > EXPLODES * self._largest.clamp(min=1e-6)
        useless = ~finite | (fallen & (step > SETTLES))
        self._bad = useless & (self.share > 0)  # what has ended stays where it is
        if bool(useless.any()):
            gradient[useless] = 0
            self._restart(step, height)
        self._largest = torch.where(useless, self._largest, torch.maximum(self._largest, height.abs()))
        self._best = torch.where(useless, self._best, torch.maximum(self._best, height))
        if (step - 1) % KEPT_EVERY == 0:
            self._keep(step - 1)
        self.seen.append(torch.where(useless, self._best, height))
        self._plateaus(step)
        self._before = self.parameter.detach().clone() if self._scaled() else self.parameter.detach()

    def settle(self) -> None:
        """After a step: slow images have moved less, diverged ones are where they were good, ended ones stay."""
        if not self._scaled():
            return
        with torch.no_grad():
            share = self.share.view(-1, *[1] * (self.parameter.ndim - 1))
            slow = self._before + share * (self.parameter - self._before)
            self.parameter.copy_(torch.where(share == 1, self.parameter, slow))
            for place in self._bad.nonzero().flatten().tolist():
                self.parameter[place] = self._good[0][place]
                for mine, kept in zip(self._state(), self._good[1:], strict=False):
                    mine[place] = kept[place]
                if len(self._good) == 1:  # it diverged before anything was known of it
                    for mine in self._state():
                        mine[place] = 0

    @property
    def all_ended(self) -> bool:
        """Whether no image moves any more."""
        return all(end is not None for end in self.ended)

    def ended_at(self, last: int) -> Iterator[int]:
        """The step at which each image ended; `last` for those that did not."""
        return (last if end is None else end for end in self.ended)

    def _scaled(self) -> bool:
        return bool((self.share != 1).any()) or bool(self._bad.any())

    def _keep(self, step: int) -> None:
        """What there is now is the good state of each image, but for those that have just diverged."""
        now = [self.parameter.detach(), *self._state()]
        before = self._good + [torch.zeros_like(mine) for mine in now[len(self._good) :]]
        bad = self._bad.view(-1, *[1] * (self.parameter.ndim - 1))
        self._good = [torch.where(bad, kept, mine) for mine, kept in zip(now, before, strict=True)]
        self._good_step = [
            kept if diverged else step for kept, diverged in zip(self._good_step, self._bad.tolist(), strict=True)
        ]

    def _state(self) -> list[Tensor]:
        held = self.optimiser.state.get(self.parameter, {})
        return [value for value in held.values() if torch.is_tensor(value) and value.shape == self.parameter.shape]

    def _restart(self, step: int, height: Tensor) -> None:
        if step == 1:
            raise PhospheneError(
                f"the objective is {height.tolist()} where it begins, at step 1: it, or its gradient, is no finite number"
            )
        for place in self._bad.nonzero().flatten().tolist():
            self.share[place] /= 2
            self._since[place] = step
            rate = self.rate * float(self.share[place])
            self.restarts.append(Restart(place, step, self._good_step[place], rate))
            if sum(restart.image == place for restart in self.restarts) > MOST_RESTARTS:
                raise PhospheneError(
                    f"the objective became {float(height[place])} at step {step}, also with steps of {rate:.3g}:"
                    f" use a smaller rate than {self.rate:g}"
                )

    def _plateaus(self, step: int) -> None:
        if not self.patience or step < 2 * self.patience:
            return
        recent = torch.stack(self.seen[-self.patience :]).mean(0)
        earlier = torch.stack(self.seen[-2 * self.patience : -self.patience]).mean(0)
        resting = recent - earlier < self.tolerance * torch.maximum(recent.abs(), earlier.abs())
        for place in resting.nonzero().flatten().tolist():
            if self.ended[place] is None and step - self._since[place] >= 2 * self.patience:
                self.ended[place] = step - 1
                self.share[place] = 0
