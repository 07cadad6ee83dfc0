"""How a network is hardened: every number that one may turn, with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from phosphene.errors import PhospheneError

Method: TypeAlias = Literal["pgd", "fast", "free", "trades", "atta"]
METHODS: tuple[Method, ...] = get_args(Method)
Moves: TypeAlias = Literal["none", "shift", "shift-flip"]

STEPS: dict[Method, int] = {"pgd": 40, "fast": 1, "free": 1, "trades": 10, "atta": 1}
"""Of the attack inside a step of training, where none are given."""

REACH: dict[Method, float] = {"pgd": 2.5, "fast": 1.25, "free": 1.0, "trades": 2.5, "atta": 1 / 3}
"""All of them together are so many radii long, where no step is given."""


@dataclass(frozen=True)
class HardenSettings:
    """How a network is hardened.

    Attributes:
        method: `pgd` (Madry et al. 2018), `fast` (Wong et al. 2020), `free` (Shafahi et al. 2019), `trades` (Zhang et al.
            2019) or `atta` (Zheng et al. 2020).
        eps: the radius in Linf, of 0 to 1.
        steps: of the attack inside a step of training; None: `STEPS`.
        step: how long one is, of 0 to 1; None: `REACH` radii together.
        replays: `free`: times that each batch is learned from in turn.
        beta: `trades`: weight of the difference between the answers before and after the attack.
        ramp: epochs in which eps grows from 0.
        epochs: times that each picture is seen.
        batch: pictures of a step, of all processes together.
        rate: the highest learning rate.
        optimiser: `adam`, or `sgd` with momentum 0.9.
        weight_decay: of weights; biases and norms have none.
        warmup: share of the steps in which the rate rises from 0; then it falls along a cosine.
        augment: `none`, `shift` (by up to an eighth of the side) or `shift-flip`.
        ema: decay of an average of the weights over the steps, which is judged and kept in their place; 0: none.
        hold: pictures that are held out of the training set, to judge each epoch and to choose the best.
        judged: steps of PGD that they are attacked with.
        patience: epochs without a better accuracy under attack after which it ends; 0: never.
        guard: notice when the network learns to answer one attack only, and mend it.
        seed: of order, starts and moves.
    """

    method: Method = "atta"
    eps: float = 0.3
    steps: int | None = None
    step: float | None = None
    replays: int = 5
    beta: float = 1.0
    ramp: float = 1.0
    epochs: int = 15
    batch: int = 100
    rate: float = 2e-3
    optimiser: Literal["adam", "sgd"] = "adam"
    weight_decay: float = 0.0
    warmup: float = 0.3
    augment: Moves = "none"
    ema: float = 0.999
    hold: int = 1000
    judged: int = 20
    patience: int = 0
    guard: bool = True
    seed: int = 0

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        return self.rate

    @property
    def inner(self) -> int:
        """Steps of the attack."""
        return STEPS[self.method] if self.steps is None else self.steps

    @property
    def length(self) -> float:
        """How long one of them is."""
        return REACH[self.method] * self.eps / self.inner if self.step is None else self.step

    def check(self) -> None:
        """Raise a PhospheneError for a setting out of its range."""
        for name, choices in (
            ("method", METHODS), ("optimiser", ("adam", "sgd")), ("augment", get_args(Moves)),
        ):  # fmt: skip
            if getattr(self, name) not in choices:
                raise PhospheneError(f"--{name} is one of {', '.join(choices)}, not '{getattr(self, name)}'")
        self._check_eps()
        for name in ("epochs", "batch", "inner", "replays", "hold", "judged"):
            if getattr(self, name) < 1:
                shown = {"inner": "steps"}.get(name, name)
                raise PhospheneError(f"--{shown} starts at 1, got {getattr(self, name)}")
        for name, value in (("rate", self.rate), ("step", self.length), ("beta", self.beta)):
            if not 0 < value < math.inf:
                raise PhospheneError(f"--{name} is a number above 0, got {value:g}")
        for name, value in (("ramp", self.ramp), ("weight-decay", self.weight_decay), ("patience", self.patience)):
            if not 0 <= value < math.inf:
                raise PhospheneError(f"--{name} is 0 or more, got {value:g}")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise PhospheneError(f"--{name} is at least 0 and below 1, got {getattr(self, name):g}")
        if self.length > 1:
            raise PhospheneError(f"--step is a part of the way from black to white, at most 1: got {self.length:g}")
        if self.method == "free" and self.epochs % self.replays:
            raise PhospheneError(
                f"--method free sees each picture {self.replays} times in turn: give --epochs a multiple of it, not"
                f" {self.epochs}"
            )
        if self.method in ("fast", "free") and self.inner != 1:
            raise PhospheneError(f"--method {self.method} takes one step: leave --steps away, or take pgd")

    def _check_eps(self) -> None:
        if not self.eps > 0:
            raise PhospheneError(f"--eps is a radius above 0, got {self.eps:g}")
        if self.eps >= 1:
            hint = f"did you mean {self.eps:g}/255?" if 1 < self.eps <= 255 else "nothing could be learned"
            raise PhospheneError(f"--eps {self.eps:g} covers the whole range from black to white: {hint}")
        if self.eps >= 0.5:
            raise PhospheneError(
                f"--eps {self.eps:g} lets any picture become grey, so that nothing can be told apart: give less than 0.5"
            )
