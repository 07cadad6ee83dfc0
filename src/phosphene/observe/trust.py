"""How far a map can be trusted: whether neighbours stay neighbours.

    preservation     = mean_i |N_k(i) and M_k(i)| / k;  by chance k / (N - 1)
    trustworthiness  = 1 - 2 / (N k (2N - 3k - 1)) sum_i sum_{j in M_k(i) not in N_k(i)} (r(i, j) - k)
    accuracy         = share of points whose k nearest others vote for their class

N_k(i) are the k nearest of point i among the features, M_k(i) in the map, r(i, j) the rank of j among the neighbours of i.

Venna & Kaski, "Neighborhood preservation in nonlinear projection methods", ICANN 2001.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.errors import PhospheneError

VOTERS = 5
"""Neighbours that vote for a point's class."""

_EQUAL = 1e-12  # of the largest squared length: two points nearer than that differ by rounding only
_CHUNK = 1 << 24  # distances held at once


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest others of each point: `places [N, k]`, nearest first, equal ones in order, and their `distances`."""

    places: np.ndarray
    distances: np.ndarray


def nearest(points: np.ndarray, count: int) -> Neighbours:
    """The `count` nearest others of each point `[N, D]`, by Euclidean distance.

    Raises:
        PhospheneError: there are not so many others.
    """
    if not 1 <= count < len(points):
        raise PhospheneError(
            f"{count} neighbours among {len(points)} images: there are {max(len(points) - 1, 0)} others"
        )
    places = np.empty((len(points), count), dtype=np.int64)
    distances = np.empty((len(points), count))
    for rows, squares in _squares(points):
        order = squares.argsort(axis=1, kind="stable")[:, :count]
        places[rows] = order
        distances[rows] = np.sqrt(np.take_along_axis(squares, order, 1))
    return Neighbours(places, distances)


def preservation(there: np.ndarray, here: np.ndarray) -> float:
    """The share of each point's nearest others `there [N, k]` that are also in `here [N, k]`, averaged; see `nearest`."""
    kept = [len(set(one) & set(other)) for one, other in zip(there.tolist(), here.tolist(), strict=True)]
    return float(np.mean(kept)) / there.shape[1]


def trustworthiness(points: np.ndarray, here: np.ndarray) -> float:
    """1 where every neighbour in the map is one among the points `[N, D]`; it falls with how far away intruders are.

    Args:
        points: what was mapped.
        here: `[N, k]`, the nearest others in the map; see `nearest`.

    Raises:
        PhospheneError: k is not below half of the number of points, for which it is not defined.
    """
    total, count = here.shape
    if not 1 <= count < total / 2:
        raise PhospheneError(f"trustworthiness of {total} points is not defined for {count} neighbours")
    excess = 0
    for rows, squares in _squares(points):
        ranks = np.empty(squares.shape, dtype=np.int64)
        np.put_along_axis(ranks, squares.argsort(axis=1, kind="stable"), np.arange(1, total + 1)[None], 1)
        found = np.take_along_axis(ranks, here[rows], 1)
        excess += int(np.maximum(found - count, 0).sum())
    return 1 - 2 * excess / (total * count * (2 * total - 3 * count - 1))


def accuracy(near: np.ndarray, classes: Sequence[str]) -> float:
    """The share of points whose nearest others `near [N, k]` vote for their class; of equals the nearest's counts."""
    names = {name: place for place, name in enumerate(dict.fromkeys(classes))}
    own = np.array([names[name] for name in classes])
    hits = [_winner(row) == mine for row, mine in zip(own[near].tolist(), own.tolist(), strict=True)]
    return float(np.mean(hits))


def _winner(votes: list[int]) -> int:
    """The most frequent; `max` keeps the first of equals, which is the nearest."""
    return max(dict.fromkeys(votes), key=votes.count)


def _squares(points: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Squared distances of some rows to all points, infinite to themselves: `(rows, [R, N])`, a part at a time."""
    from threadpoolctl import threadpool_limits

    wide = np.asarray(points, dtype=np.float64)
    wide = wide - wide.mean(0)
    lengths = np.square(wide).sum(1)
    size = max(1, _CHUNK // len(wide))
    for start in range(0, len(wide), size):
        rows = np.arange(start, min(start + size, len(wide)))
        with threadpool_limits(1):
            squares = lengths[rows, None] + lengths[None] - 2 * wide[rows] @ wide.T
        squares[squares < _EQUAL * lengths.max()] = 0
        squares[np.arange(len(rows)), rows] = np.inf
        yield rows, squares
