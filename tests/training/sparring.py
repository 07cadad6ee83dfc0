"""Tiny grey pictures and networks for robust training: a step takes a millisecond."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import pytest
import torch
from pupils import outcome
from torch import Tensor, nn

from phosphene.models import Labels, Network, Preprocess
from phosphene.training.harden import Hardened, HardenSettings, harden, methods
from phosphene.training.harden.hardening import Hardening
from phosphene.training.harden.methods import NEAR, Lesson
from phosphene.training.harden.settings import Method
from phosphene.training.split import Data, Split
from phosphene.training.state import State

SIDE = 6
PLAIN = HardenSettings(
    eps=0.1, epochs=3, batch=8, hold=6, judged=3, ema=0.0, ramp=0.0, warmup=0.0, replays=3, rate=2e-2, guard=False
)  # fmt: skip
"""Nothing but the method. 24 pictures to learn from: 3 steps an epoch."""
Reference: TypeAlias = "Callable[[Lesson], tuple[Tensor, Tensor, Tensor | None]]"
"""A lesson's loss, the attacked pictures, and the change that is kept."""


class Sparring(nn.Module):
    """One convolution and a classifier; batch norm and dropout if asked."""

    def __init__(self, classes: int = 3, norm: bool = False, drop: float = 0.0, side: int = SIDE) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.drop = nn.Dropout(drop)
        self.fc = nn.Linear(4 * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.norm(self.conv(x)).tanh().flatten(1)))


def partner(
    classes: int = 3, norm: bool = False, drop: float = 0.0, module: nn.Module | None = None, seed: int = 0
) -> Network:
    """A network for pictures of `rounds`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = module or Sparring(classes, norm, drop)
    labels, size = Labels([f"block {k}" for k in range(classes)]), Preprocess((SIDE, SIDE), SIDE)
    return Network(module.eval(), name="partner", labels=labels, preprocess=size, mean=(0.1,), std=(0.8,))


def rounds(count: int = 30, classes: int = 3, noise: float = 40.0, seed: int = 0, ordered: bool = False) -> Data:
    """Noisy pictures with a bright row: which one tells the class. `ordered`: one class after the other, as in folders."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    labels = labels.sort().values if ordered else labels[torch.randperm(count, generator=generator)]
    pictures = torch.full((count, 1, SIDE, SIDE), 90.0)
    pictures[torch.arange(count), :, labels * SIDE // classes] = 190.0
    pictures += torch.randn(pictures.shape, generator=generator) * noise
    split = Split(pictures.clamp(0, 255).to(torch.uint8), labels)
    return Data(split, split.some(slice(0, 2 * classes)), tuple(f"block {k}" for k in range(classes)), "rounds")


def hardened(network: Network, data: Data, settings: HardenSettings = PLAIN, **options: Any) -> Hardened:
    return outcome(harden(network, data, settings=settings, **options), 2000)


def kept(network: Network, data: Data, settings: HardenSettings) -> tuple[Hardened, list[State]]:
    """The training, and its state after each step."""
    states: list[State] = []

    def keep(state: Callable[[], State], _ended: bool) -> None:
        states.append(state())

    return hardened(network, data, settings, keep=keep), states


def timeless(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what a clock says."""
    return [{n: v for n, v in row.items() if n not in ("seconds", "images_per_second")} for row in rows]


# -- methods, slowly and as their papers have them ----------------------------------------------------------------


def ball(point: Tensor, x: Tensor, eps: float) -> Tensor:
    """The projection onto [x - eps, x + eps] and [0, 1], pixel by pixel."""
    flat = [
        min(max(p, c - eps, 0.0), c + eps, 1.0)
        for p, c in zip(point.flatten().tolist(), x.flatten().tolist(), strict=True)
    ]
    return torch.tensor(flat, dtype=x.dtype).view(x.shape)


def ascent(module: nn.Module, x: Tensor, start: Tensor, one: Callable[[Tensor, int], Tensor], lesson: Lesson) -> Tensor:
    """Each picture alone: steps along the sign of its own gradient."""
    found = []
    for place in range(len(x)):
        here = start[place : place + 1].clone()
        for _ in range(lesson.steps):
            here.requires_grad_()
            slope = torch.autograd.grad(one(module(here)[0], place), here)[0]
            here = ball(here.detach() + lesson.step * slope.sign(), x[place : place + 1], lesson.eps)
        found.append(here)
    return torch.cat(found).detach()


def surprise(logits: Tensor, label: int) -> Tensor:
    """-log softmax(logits)_label."""
    return logits.exp().sum().log() - logits[label]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(softmax(p) || softmax(q)) of two rows of logits."""
    one, other = p.exp() / p.exp().sum(), q.exp() / q.exp().sum()
    return (one * (one.log() - other.log())).sum()


def random_start(lesson: Lesson) -> Tensor:
    return (lesson.x + torch.empty_like(lesson.x).uniform_(-lesson.eps, lesson.eps)).clamp(0, 1)


def learned_from(lesson: Lesson, images: Tensor) -> Tensor:
    total = torch.zeros((), dtype=images.dtype)
    for place in range(len(images)):
        total = total + surprise(lesson.module(images[place : place + 1])[0], int(lesson.labels[place]))
    return total


def madry(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor | None]:
    """sum_i max_delta J(theta; x_i + delta, y_i)."""
    attacked = ascent(lesson.module, lesson.x, random_start(lesson), up_of(lesson), lesson)
    return learned_from(lesson, attacked), attacked, None


def up_of(lesson: Lesson) -> Callable[[Tensor, int], Tensor]:
    return lambda logits, place: surprise(logits, int(lesson.labels[place]))


def zheng(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor | None]:
    """As Madry's, from where the attack ended."""
    start = random_start(lesson) if lesson.kept is None else ball(lesson.x + lesson.kept, lesson.x, lesson.eps)
    attacked = ascent(lesson.module, lesson.x, start, up_of(lesson), lesson)
    return learned_from(lesson, attacked), attacked, attacked - lesson.x


def shafahi(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor | None]:
    """g_theta and g_x of one pass; delta <- clip(delta + step sign(g_x))."""
    start = random_start(lesson) if lesson.kept is None else ball(lesson.x + lesson.kept, lesson.x, lesson.eps)
    here = start.clone().requires_grad_()
    slope = torch.autograd.grad(learned_from(lesson, here), here)[0]
    change = ball(start + lesson.step * slope.sign(), lesson.x, lesson.eps) - lesson.x
    return learned_from(lesson, start), start, change


def zhang(lesson: Lesson) -> tuple[Tensor, Tensor, Tensor | None]:
    """J(x) + beta KL(f(x) || f(x'))."""
    module, x = lesson.module, lesson.x
    start = (x + NEAR * torch.randn_like(x)).clamp(0, 1)
    answers = [module(x[place : place + 1])[0].detach() for place in range(len(x))]
    attacked = ascent(module, x, start, lambda logits, place: divergence(answers[place], logits), lesson)
    total = learned_from(lesson, x)
    for place in range(len(x)):
        one, other = module(x[place : place + 1])[0], module(attacked[place : place + 1])[0]
        total = total + lesson.settings.beta * divergence(one, other)
    return total, attacked, None


REFERENCES: dict[Method, Reference] = {"pgd": madry, "fast": madry, "free": shafahi, "trades": zhang, "atta": zheng}


def pretend(patch: pytest.MonkeyPatch, share: Callable[[Hardening], float]) -> None:
    """Accuracy under attack is what `share` says."""

    def stands(self: Hardening, images: Tensor, _labels: Tensor) -> Tensor:
        return torch.arange(len(images)) < round(share(self) * len(images))

    patch.setattr(Hardening, "stands", stands)


def collapses(at: int, good: float = 0.9) -> Callable[[Hardening], float]:
    """From step `at` on, unless it was mended."""
    return lambda now: 0.0 if now.progress.step >= at and not now.progress.notes.get("more") else good


@contextmanager
def steadily(steady: bool = True, falls: bool = False) -> Iterator[None]:
    """Attacks start at a place that follows from the picture, however many processes share a batch; one `falls` at step 5."""

    def places(x: Tensor) -> Tensor:
        return (x * 1000).sin()

    with pytest.MonkeyPatch.context() as patch:
        if steady:
            patch.setattr(methods, "anywhere", lambda x, eps: (x + eps * places(x)).clamp(0, 1))
            patch.setattr(torch, "randn_like", places)
        if falls:
            pretend(patch, collapses(5))
        yield
