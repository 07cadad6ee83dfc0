"""Small networks for attacks: linear ones, whose best perturbation is known, and one with a bend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from phosphene.progress import Job, run

SHAPES = [(1, 8, 8), (3, 10, 6), (4, 5, 5)]


def plane(shape: tuple[int, ...], classes: int = 5, scale: float = 0.1, even: bool = False) -> nn.Module:
    """`z = W x + b`, for images `[N, *shape]`; `even`: all boundaries are equally steep: the leading class is the nearest."""
    generator = torch.Generator().manual_seed(7)
    count = shape[0] * shape[1] * shape[2]
    layer = nn.Linear(count, classes)
    weight = torch.randn(classes, count, generator=generator)
    if even:
        weight = torch.linalg.qr(weight.T).Q.T * count**0.5
    layer.weight.data = weight * scale
    layer.bias.data = torch.randn(classes, generator=generator) * scale
    return nn.Sequential(nn.Flatten(), layer)


def greys(shape: tuple[int, ...], count: int) -> Tensor:
    """Images `[count, *shape]` around grey, so that 0 and 1 are far away."""
    return 0.4 + 0.2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(3))


def nearest_boundary(module: nn.Module, images: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """`[N]`, how far in L2 it is to the half-space of another class; with targets, a lower bound for two classes or more."""
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    logits = module(images).detach()
    distances = []
    for row, label in enumerate(labels.tolist()):
        others = [k for k in range(len(weights)) if k != label] if targets is None else [int(targets[row])]
        distances.append(
            min(float((logits[row, label] - logits[row, k]) / (weights[label] - weights[k]).norm()) for k in others)
        )
    return torch.tensor(distances)


class Bent(nn.Module):
    """A small convolutional network with a smooth bend; notes how many images it has seen."""

    def __init__(self, channels: int = 1, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.conv = nn.Conv2d(channels, 6, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6, classes)
        self.fc.weight.data *= 20
        self.seen: list[int] = []
        with torch.no_grad():  # boundaries run between the images
            self.fc.bias.data -= self.eval()(noise(64, channels)).mean(0)
        self.seen.clear()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.fc(self.drop(torch.tanh(2 * self.conv(x - 0.5))).mean((2, 3)))


def bent(channels: int = 1, classes: int = 4, double: bool = False) -> Bent:
    module = Bent(channels, classes).eval()
    return module.double() if double else module


def noise(count: int, channels: int = 1, size: int = 8) -> Tensor:
    """Images on the 8-bit lattice."""
    drawn = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(5))
    return (drawn * 255).round() / 255


def seen(module: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return module(images).argmax(1)


def done(job: Job[Any]) -> Any:
    return run(job)
