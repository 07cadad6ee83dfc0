"""Small pictures that can be told apart, and small networks that can learn to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene.models import Labels, Network, Preprocess
from phosphene.models.saved import Architecture
from phosphene.progress import Event, Job, run
from phosphene.training.folder import Examples, examples

Result = TypeVar("Result")
SIZE = 16
COLOURS = {"blue": (40, 60, 200), "green": (40, 180, 60), "red": (200, 50, 40), "yellow": (200, 190, 30)}


def coloured(name: str, number: int, size: tuple[int, int] = (18, 20), noise: float = 60.0) -> np.ndarray:
    """A noisy picture `[H, W, 3]` of one colour."""
    random = np.random.default_rng([sum(name.encode()), number])
    return (np.array(COLOURS[name]) + random.normal(0, noise, (*size, 3))).clip(0, 255).astype(np.uint8)


def striped(upright: bool, number: int, size: tuple[int, int] = (20, 20)) -> np.ndarray:
    """Grey stripes of two pixels at a random place, `[H, W, 3]`: horizontal ones or upright ones have the same colours."""
    random = np.random.default_rng([int(upright), number])
    places = np.arange(size[1] if upright else size[0]) + int(random.integers(0, 4))
    row = np.where(places % 4 < 2, 200.0, 60.0)
    picture = np.broadcast_to(row[None, :] if upright else row[:, None], size)
    return (picture[..., None] + random.normal(0, 8, (*size, 3))).clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def fill(root: Path, parts: Mapping[str, Mapping[str, int]], noise: float = 60.0) -> Path:
    """`{"train": {"red": 3}}` as files of different content; the part "" is the folder itself."""
    first = 0
    for part, classes in parts.items():
        for name, count in classes.items():
            for number in range(count):
                write(root / part / name / f"{number:03}.png", coloured(name, first + number, noise=noise))
        first += 1000
    return root


def found(root: Path, **options: bool | int) -> Examples:
    return run(examples(root, **options))  # pyright: ignore[reportArgumentType]


class Pupil(nn.Module):
    """Three stages and a classifier; `drop` before it."""

    def __init__(self, classes: int = 5, drop: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12), nn.ReLU())
        self.top = nn.Sequential(nn.Conv2d(12, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(drop))
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.top(self.body(self.stem(x))).mean((2, 3)))


def pupil(drop: float = 0.0, classes: int = 5, seed: int = 0, size: int = SIZE) -> Network:
    """A network with weights of its own and batch norms as after training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return named(settled(Pupil(classes, drop), seed), classes, size)


def named(module: nn.Module, classes: int = 5, size: int = SIZE) -> Network:
    """A network as `load` makes it of a name."""
    network = Network(
        module.eval(), name="pupil", labels=Labels.generic(classes), preprocess=Preprocess((size, size), size)
    )
    network.architecture = Architecture("pupils.py:make", classes)
    return network


def settled(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d) and child.running_mean is not None and child.running_var is not None:
                child.running_mean.copy_(torch.randn(child.num_features, generator=generator) * 0.1)
                child.running_var.copy_(torch.rand(child.num_features, generator=generator) + 0.5)
                child.weight.copy_(torch.rand(child.num_features, generator=generator) + 0.5)
                child.bias.copy_(torch.randn(child.num_features, generator=generator) * 0.1)
    return module


def outcome(job: Job[Result], most: int = 200) -> Result:
    """What the job returns; one that never ends fails."""
    events: list[Event] = []

    def count(event: Event) -> None:
        events.append(event)
        assert len(events) <= most, f"no end after {most} events: {event}"

    return run(job, count)


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def noise(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed))
