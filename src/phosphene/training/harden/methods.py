"""What each method learns from: pictures of a batch, attacked in its own way, and the loss on them.

Each is a function of a `Lesson`, and returns the loss summed over the pictures and the logits of the attacked ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.training.harden.inner import anywhere, attacking, climb, cross_entropy, inside
from phosphene.training.harden.settings import HardenSettings, Method

NEAR = 1e-3
"""TRADES: the deviation of the noise that the attack begins with: at the picture itself the difference has no slope."""


@dataclass
class Lesson:
    """One share of a batch.

    Attributes:
        module: the network, for the attack.
        called: the same, wrapped where several processes share the batch: for what is learned from.
        x: `[n, C, H, W]` in [0, 1].
        labels: `[n]`.
        eps: the radius now.
        step, steps: of the attack.
        settings: all others.
        kept: `[n, C, H, W]`, the changes that these pictures (`atta`) or the batch's last replay (`free`) ended with, if any.
        change: set by those methods: what is to be kept.
    """

    module: nn.Module
    called: Callable[[Tensor], Tensor]
    x: Tensor
    labels: Tensor
    eps: float
    step: float
    steps: int
    settings: HardenSettings
    kept: Tensor | None = None
    change: Tensor | None = None

    def attacked(self, start: Tensor) -> Tensor:
        """The pictures after the attack's steps up the cross-entropy."""
        up = cross_entropy(self.labels)
        return climb(self.module, self.x, start, up, eps=self.eps, step=self.step, steps=self.steps)

    def loss(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The cross-entropy on these, summed, and their logits."""
        logits = self.called(images)
        return F.cross_entropy(logits.float(), self.labels, reduction="sum"), logits


Learn: TypeAlias = Callable[[Lesson], tuple[Tensor, Tensor]]


def pgd(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """min_theta max_delta J: many steps from a random point. Madry et al., ICLR 2018, eq. 2.1."""
    return lesson.loss(lesson.attacked(anywhere(lesson.x, lesson.eps)))


def fast(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """One long step from a random point. Wong, Rice & Kolter, "Fast is better than free", ICLR 2020, algorithm 3."""
    return lesson.loss(lesson.attacked(anywhere(lesson.x, lesson.eps)))


def free(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """The same backward pass moves weights and pictures; each batch comes several times in turn.

    Shafahi et al., "Adversarial training for free!", NeurIPS 2019, algorithm 1; the change begins anew with each batch.
    """
    begun = (
        anywhere(lesson.x, lesson.eps) if lesson.kept is None else inside(lesson.x + lesson.kept, lesson.x, lesson.eps)
    )
    here = begun.detach().requires_grad_()

    def move(slope: Tensor) -> None:
        lesson.change = inside(here.detach() + lesson.step * slope.sign(), lesson.x, lesson.eps) - lesson.x

    here.register_hook(move)
    return lesson.loss(here)


def trades(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """J(x) + beta max_delta KL(f(x) || f(x + delta)), the answers to the pictures themselves computed once for the attack.

    Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019, eq. 5.
    """
    with attacking(lesson.module), torch.no_grad():
        answers = lesson.module(lesson.x).softmax(1)
    start = (lesson.x + NEAR * torch.randn_like(lesson.x)).clamp(0, 1)

    def apart(logits: Tensor) -> Tensor:
        return F.kl_div(logits.log_softmax(1), answers, reduction="sum")

    attacked = climb(lesson.module, lesson.x, start, apart, eps=lesson.eps, step=lesson.step, steps=lesson.steps)
    plain, changed = lesson.called(torch.cat([lesson.x, attacked])).float().chunk(2)
    difference = F.kl_div(changed.log_softmax(1), plain.log_softmax(1), reduction="sum", log_target=True)
    return F.cross_entropy(plain, lesson.labels, reduction="sum") + lesson.settings.beta * difference, changed


def atta(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """The attack goes on where it ended an epoch ago, so that one step an epoch is enough.

    Zheng et al., "Efficient adversarial training with transferable adversarial examples", CVPR 2020, algorithm 1.
    """
    start = (
        anywhere(lesson.x, lesson.eps) if lesson.kept is None else inside(lesson.x + lesson.kept, lesson.x, lesson.eps)
    )
    attacked = lesson.attacked(start)
    lesson.change = attacked - lesson.x
    return lesson.loss(attacked)


LEARN: dict[Method, Learn] = {"pgd": pgd, "fast": fast, "free": free, "trades": trades, "atta": atta}


def price(settings: HardenSettings, steps: int) -> int:
    """Gradients that one picture costs in one step of training, of the attack and of the weights together."""
    return 1 if settings.method == "free" else steps + (2 if settings.method == "trades" else 1)
