"""What the last stage of a network says of ImageNet's photographs, and how far from that other photographs are.

    F^2 = mean over numbers k of (m_k - M_k)^2 / S_k^2 + (s_k - S_k)^2 / S_k^2,      d^2 = 1 + F^2 - E_n

M and S are the mean and standard deviation of the features of many ImageNet photographs, m and s those of n other ones. F is
the Frechet distance of the two, each number by itself and in units of its own width. E_n is what F^2 is on average for n
photographs of ImageNet that had no part in M and S: these have d = 1. A folder of one kind of thing lies far from the mean of
all things and is narrower, so that it has more (single classes of ImageNet 1.1 to 1.3).

Photographs are not judged one by one, because that sees too little: a network that can make nothing of noise gives numbers
that are not large but always the same.

Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", NeurIPS 2017.
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
COUNTS = (2, 4, 8, 16, 32, 64, 128, 256)
"""How many photographs E_n is measured for."""
_DRAWS = 20


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual for the last stage of a network.

    Attributes:
        mean, std: M and S of the formula, `[D]`.
        expected: E_n for each of `COUNTS`.
        size: height and width of the pictures that the network was shown.
        count: of photographs.
    """

    mean: np.ndarray
    std: np.ndarray
    expected: np.ndarray
    size: tuple[int, int]
    count: int

    def distance(self, features: np.ndarray) -> Distance:
        """Of photographs with features `[N, D]`. Raises PhospheneError for another width, or fewer than two photographs."""
        if features.ndim != 2 or features.shape[1] != len(self.mean) or len(features) < COUNTS[0]:
            raise PhospheneError(
                f"features {list(features.shape)}, where [N, {len(self.mean)}] were wanted, N at least 2"
            )
        z = (features.astype(np.float64) - self.mean) / self.std
        shift, narrow = frechet(z)
        # E_n falls about as 1 / n, so that it is read off along 1 / n; of more photographs it is 0 in the end
        expected = float(np.interp(1 / len(z), [0, *(1 / n for n in COUNTS[::-1])], [0, *self.expected[::-1]]))
        random = np.random.default_rng(0)
        drawn = [sum(frechet(z[random.integers(0, len(z), len(z))])) for _ in range(_DRAWS)]
        found = _root(1 + shift + narrow - expected)
        return Distance(found, float(np.std(drawn)) / (2 * max(found, 0.1)), _root(shift), _root(narrow), len(z))

    def write(self, path: Path) -> None:
        """Into a safetensors file, in single precision."""
        tables = {"mean": self.mean, "std": self.std, "expected": self.expected, "size": self.size, "count": self.count}
        save_state_dict({name: torch.as_tensor(value).float() for name, value in tables.items()}, path)


@dataclass(frozen=True)
class Distance:
    """How far photographs are from ImageNet's.

    Attributes:
        mean: d.
        error: its standard error, by a bootstrap.
        shift: how far the mean lies from M: the root of F's first part.
        width: how much narrower or wider they scatter: the root of its second part.
        count: of photographs.
    """

    mean: float
    error: float
    shift: float
    width: float
    count: int


def frechet(z: np.ndarray) -> tuple[float, float]:
    """The two parts of F^2, for features `[N, D]` less M in units of S."""
    return float((z.mean(0) ** 2).mean()), float(((z.std(0) - 1) ** 2).mean())


def _root(value: float) -> float:
    return max(value, 0.0) ** 0.5


def usual(features: np.ndarray, size: tuple[int, int]) -> Usual:
    """What is usual, from the features `[N, D]` of photographs of what a network was trained on.

    E_n is found by leaving out n of them, many times. Raises PhospheneError for fewer than 8 photographs.
    """
    count = len(features)
    if count < FEWEST:
        raise PhospheneError(f"what is usual shows in at least {FEWEST} photographs, got {count}")
    rows, random = features.astype(np.float64), np.random.default_rng(0)
    expected = []
    for wanted in COUNTS:
        out = min(wanted, count // 2)
        found = []
        for _ in range(_DRAWS):
            order = random.permutation(count)
            mean, std = _moments(rows[order[out:]])
            found.append(sum(frechet((rows[order[:out]] - mean) / std)))
        expected.append(float(np.mean(found)))
    return Usual(*_moments(rows), np.array(expected), size, count)


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
    mean, std, expected = (table[name].double().numpy() for name in ("mean", "std", "expected"))
    return Usual(mean, std, expected, (height, width), int(table["count"]))


def sample(count: int, most: int, seed: int) -> Sequence[int]:
    """`most` places of `count`, or all."""
    return np.sort(np.random.default_rng(seed % 2**64).permutation(count)[:most]).tolist()
