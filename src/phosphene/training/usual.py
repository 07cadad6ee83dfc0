"""What the last stage of a network says of ImageNet's photographs, and how far from that other photographs are.

    d^2 = mean over images i and numbers k of ((f_ik - M_k) / S_k)^2 / N  =  (shift^2 + spread^2) / N

M and S are the mean and standard deviation of the features of many ImageNet photographs. N is what such photographs score that
had no part in M and S, so that these have d = 1 on average. As in the Frechet distance, `shift` is how far the mean lies from
M, and `spread` how wide the images scatter, both in units of S. Unlike it, d judges each photograph by itself: a folder of one
kind of thing lies far from the mean of all things, and is none the less like ImageNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.models.weights import digest, read_state_dict, save_state_dict

SHIPPED = Path(__file__).with_name("data")
LEAST = 0.05
"""Numbers vary at least by this share of what the others do: one that is silent on photographs may still speak."""
FEWEST = 8
"""Photographs that tell a spread."""
_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual for the last stage of a network.

    Attributes:
        mean, std: M and S of the formula, `[D]`.
        scale: N.
        size: height and width of the pictures that the network was shown.
        count: of photographs.
    """

    mean: np.ndarray
    std: np.ndarray
    scale: float
    size: tuple[int, int]
    count: int

    def distance(self, features: np.ndarray) -> Distance:
        """Of photographs with features `[N, D]`. Raises PhospheneError for another width, or no photograph."""
        if features.ndim != 2 or features.shape[1] != len(self.mean) or not len(features):
            raise PhospheneError(f"features {list(features.shape)}, where [N, {len(self.mean)}] were wanted")
        z = (features.astype(np.float64) - self.mean) / self.std
        each = (z**2).mean(1) / self.scale
        found = float(np.sqrt(each.mean()))
        error = float(each.std() / max(1, len(each) - 1) ** 0.5 / (2 * found)) if found else 0.0
        shift = float(np.sqrt((z.mean(0) ** 2).mean() / self.scale))
        return Distance(found, error, shift, float(np.sqrt(z.var(0).mean() / self.scale)), len(each))

    def write(self, path: Path) -> None:
        """Into a safetensors file, in single precision."""
        numbers = {"scale": [self.scale], "size": self.size, "count": [self.count]}
        tables = {"mean": torch.from_numpy(self.mean), "std": torch.from_numpy(self.std)}
        save_state_dict({name: torch.as_tensor(v).float() for name, v in (tables | numbers).items()}, path)


@dataclass(frozen=True)
class Distance:
    """How far photographs are from ImageNet's: `mean` (d), its standard `error`, the parts `shift` and `spread`; `count`."""

    mean: float
    error: float
    shift: float
    spread: float
    count: int


def usual(features: np.ndarray, size: tuple[int, int]) -> Usual:
    """What is usual, from the features `[N, D]` of photographs of what a network was trained on.

    N is found by leaving out a fifth of them at a time. Raises PhospheneError for fewer than 8 photographs.
    """
    count = len(features)
    if count < FEWEST:
        raise PhospheneError(f"what is usual shows in at least {FEWEST} photographs, got {count}")
    rows = features.astype(np.float64)[np.random.default_rng(0).permutation(count)]
    parts = [np.arange(count) % _FOLDS == fold for fold in range(_FOLDS)]
    squares = [(((rows[part] - mean) / std) ** 2).mean() for part in parts for mean, std in [_moments(rows[~part])]]
    mean, std = _moments(rows)
    return Usual(mean, std, float(np.mean(squares)), size, count)


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    std = rows.std(0)
    return rows.mean(0), np.maximum(std, max(LEAST * float(std.mean()), 1e-12))


def file_name(weights: str) -> str:
    """Of the table that belongs to weights with this digest."""
    return f"features-{weights[:16]}.safetensors"


def shipped(network: Network) -> Usual | None:
    """What is usual for a bundled network, from 500 photographs; None for other weights, or pictures of another size."""
    path = SHIPPED / file_name(digest(network.module.state_dict()))
    if not path.is_file():
        return None
    table = read_state_dict(path)
    height, width = (int(side) for side in table["size"])
    if (height, width) != tuple(network.input_size):
        return None
    mean, std = (table[name].double().numpy() for name in ("mean", "std"))
    return Usual(mean, std, float(table["scale"]), (height, width), int(table["count"]))


def sample(count: int, most: int, seed: int) -> Sequence[int]:
    """`most` places of `count`, or all."""
    return np.sort(np.random.default_rng(seed % 2**64).permutation(count)[:most]).tolist()
