"""Tiny grey pictures and networks for robust training: a step takes a millisecond."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pupils import outcome
from torch import Tensor, nn

from phosphene.models import Labels, Network, Preprocess
from phosphene.training.harden import Hardened, HardenSettings, harden
from phosphene.training.split import Data, Split
from phosphene.training.state import State

SIDE = 6
PLAIN = HardenSettings(
    eps=0.1, epochs=3, batch=8, hold=6, judged=3, ema=0.0, ramp=0.0, warmup=0.0, replays=3, rate=2e-2, guard=False
)  # fmt: skip
"""Nothing but the method. 24 pictures to learn from: 3 steps an epoch."""


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
