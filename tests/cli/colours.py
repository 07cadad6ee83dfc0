"""Photographs of one colour each, and networks that see the strongest colour: how much it takes to fool them is known.

The logits are 20 times the means of red, green and blue. A photograph whose red is `d` grey levels above its green falls to a
change of every value by more than `d / 2` levels, and to no smaller one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")

NETS = """
import torch
from torch import nn
from phosphene import load

NAMES = ["red", "green", "blue"]


class Mean(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 1, bias=False)
        self.conv.weight.data = (torch.eye(3) * 20.0)[:, :channels].reshape(3, channels, 1, 1).clone()

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Soft(Mean):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Steps(Mean):  # what it sees is rounded: no gradient comes through
    def forward(self, x):
        return super().forward((x * 51).round() / 51)


class Waves(Mean):  # ripples whose slope hides where it goes
    def forward(self, x):
        return super().forward(x) + 0.4 * torch.sin(9000 * x).mean((2, 3))


class Train(Mean):  # as one leaves it after training
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.9)

    def forward(self, x):
        return self.conv(self.drop(self.norm(x))).mean((2, 3))


class Bent(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)
        self.fc.weight.data *= 3

    def forward(self, x):
        x = x - 0.5
        return 20 * x.mean((2, 3)) + self.fc(torch.tanh(3 * self.conv(x)).mean((2, 3)))


def made(module, names=NAMES, size=32):
    channels = next(module.parameters()).shape[1]
    return load(module, device="cpu", input_size=size, mean=(0,) * channels, std=(1,) * channels, labels=names)

def mean():
    return made(Mean())

def soft():
    return made(Soft())

def steps():
    return made(Steps())

def waves():
    return made(Waves())

def train():
    return Train().train()

def bent():
    return made(Bent())

def other():
    return made(Bent(1))

def big():
    return made(Bent(2), size=40)

def named():
    return made(Mean(), ["left", "right", "above"])

def grey():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[0].weight.data = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1)
    module[0].bias.data = torch.tensor([9.0, 0.0, -11.0])
    return made(module)
"""


def photograph(path: Path, colour: str, lead: float, *, seed: int, size: int = 32) -> None:
    """A photograph of a colour that is `lead` grey levels above the second, on average, and 40 above the third."""
    generator = np.random.default_rng(seed)
    texture = generator.integers(-20, 21, (size, size, 1)).repeat(3, 2)
    first = COLOURS.index(colour)
    level = np.full((size, size, 3), 120)
    level[..., first] += 40
    second = np.full(size * size, 160)
    second[: round(lead % 1 * size * size)] -= 1
    level[..., (first + 1) % 3] = (second - int(lead)).reshape(size, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((level + texture).astype(np.uint8)).save(path)


def photographs(folder: Path, leads: Mapping[str, Sequence[float]], size: int = 32) -> list[str]:
    """Photographs of these leads in folders called as their colours; returns their paths below the folder."""
    names = []
    for colour, some in leads.items():
        for place, lead in enumerate(some):
            names.append(f"{colour}/{colour[0]}{place}.png")
            photograph(folder / names[-1], colour, lead, seed=len(names), size=size)
    return sorted(names)
