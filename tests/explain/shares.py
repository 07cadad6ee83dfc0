"""Layer-wise relevance propagation the slow way: dense matrices, one output neuron after the other, R itself handed down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

Shares: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(x [in], w [in], b []) -> (what each input has a share for [in], what it is a share of [])` of one neuron."""


def signed(z: Tensor, epsilon: float) -> Tensor:
    return z - epsilon if z < 0 else z + epsilon


def by_epsilon(epsilon: float, bias: bool) -> Shares:
    def shares(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        return x * w, signed((x * w).sum() + (b if bias else 0), epsilon)

    return shares


def by_gamma(epsilon: float, gamma: float, bias: bool) -> Shares:
    """What has the sign of the neuron's output counts 1 + gamma times."""

    def shares(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        up = (x * w).sum() + b > 0

        def more(value: Tensor) -> Tensor:
            return value + gamma * (value.clamp(min=0) if up else value.clamp(max=0))

        return more(x * w), signed(more(x * w).sum() + (more(b) if bias else 0), epsilon)

    return shares


def by_box(low: Tensor, high: Tensor, epsilon: float) -> Shares:
    def shares(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        each = torch.stack([(x - (low if weight > 0 else high))[i] * weight for i, weight in enumerate(w)])
        return each, signed(each.sum(), epsilon)

    return shares


class Step(Protocol):
    """A layer, on one image without a batch dimension."""

    def run(self, x: Tensor) -> Tensor: ...

    def down(self, x: Tensor, relevance: Tensor) -> Tensor:
        """The relevance of its input `x`, from that of its output."""
        ...


@dataclass(frozen=True, eq=False)
class Weighted:
    """Any affine function, by its matrix."""

    layer: Callable[[Tensor], Tensor]
    shares: Shares

    def run(self, x: Tensor) -> Tensor:
        return self.layer(x[None])[0]

    def down(self, x: Tensor, relevance: Tensor) -> Tensor:
        bias = self.run(torch.zeros_like(x))
        basis = torch.eye(x.numel(), dtype=x.dtype).view(-1, *x.shape)
        matrix = (self.layer(basis) - bias).flatten(1).T
        total = torch.zeros(x.numel(), dtype=x.dtype)
        for w, b, r in zip(matrix, bias.flatten(), relevance.flatten()):
            if r != 0:
                part, whole = self.shares(x.flatten(), w, b)
                total += part / whole * r
        return total.view(x.shape)


@dataclass(frozen=True, eq=False)
class Activation:
    """Whose relevance is that of its input."""

    f: Callable[[Tensor], Tensor]

    def run(self, x: Tensor) -> Tensor:
        return self.f(x)

    def down(self, x: Tensor, relevance: Tensor) -> Tensor:
        return relevance


@dataclass(frozen=True)
class MaxPool:
    """2x2: the winner takes all."""

    def run(self, x: Tensor) -> Tensor:
        return x.unfold(1, 2, 2).unfold(2, 2, 2).amax((3, 4))

    def down(self, x: Tensor, relevance: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for c, y, z in torch.cartesian_prod(*(torch.arange(n) for n in relevance.shape)).tolist():
            window = x[c, 2 * y : 2 * y + 2, 2 * z : 2 * z + 2]
            best = int(window.argmax())
            total[c, 2 * y + best // 2, 2 * z + best % 2] += relevance[c, y, z]
        return total


@dataclass(frozen=True)
class Residual:
    """x + steps(x): each of the two by what it contributes."""

    steps: Sequence[Step]

    def run(self, x: Tensor) -> Tensor:
        return x + forward(self.steps, x)

    def down(self, x: Tensor, relevance: Tensor) -> Tensor:
        branch = forward(self.steps, x)
        whole = torch.where(x + branch == 0, 1, x + branch)
        return x / whole * relevance + hand_down(self.steps, x, branch / whole * relevance)


def forward(steps: Sequence[Step], x: Tensor) -> Tensor:
    for step in steps:
        x = step.run(x)
    return x


def hand_down(steps: Sequence[Step], x: Tensor, relevance: Tensor) -> Tensor:
    """The relevance of `x`, from that of what the steps make of it."""
    given = [x]
    for step in steps[:-1]:
        given.append(step.run(given[-1]))
    for step, before in zip(reversed(steps), reversed(given)):
        relevance = step.down(before, relevance)
    return relevance
