"""A map as a grid without gaps: each point gets a cell, and all together move as little as they can.

    minimise sum_i ||y_i - c_{s(i)}||^2 over all assignments s of points to different cells

As in Karpathy, "t-SNE visualization of CNN codes", 2014; solved exactly by Crouse, "On implementing 2D rectangular assignment
algorithms", IEEE TAES 2016 (scipy). `parted` is the gentler way: pictures that lie on one another are pushed apart.
"""

from __future__ import annotations

import numpy as np

from phosphene.errors import PhospheneError

WIDEST = 2.0
"""Columns per row at most."""


def shape(count: int) -> tuple[int, int]:
    """Rows and columns of the grid for `count` points, with the fewest empty cells; of equals the one nearest to 4 : 3.

    Between a square and `WIDEST` times as wide as high.
    """
    if count < 1:
        raise PhospheneError("a grid needs at least one point, got none")
    sizes = [(rows, -(-count // rows)) for rows in range(1, count + 1)]
    fitting = [size for size in sizes if size[0] <= size[1] <= WIDEST * size[0]] or [(1, count)]
    return min(fitting, key=lambda size: (size[0] * size[1] - count, abs(size[1] / size[0] - 4 / 3)))


def cells(count: int) -> np.ndarray:
    """The cells `[count, 2]` (column, row) of the grid; the empty ones are at both ends of the last row."""
    rows, columns = shape(count)
    full = (rows - 1) * columns
    last = count - full
    left = (columns - last) // 2
    place = np.arange(count)
    column = np.where(place < full, place % columns, left + place - full)
    return np.stack([column, np.minimum(place // columns, rows - 1)], 1)


def assign(points: np.ndarray) -> np.ndarray:
    """The cell `[N, 2]` (column, row; row 0 is at the top) of each point `[N, 2]` of a map whose y goes up.

    The map is stretched to the grid's box; the sum of squared distances from there to the cells is the least possible.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    found = cells(len(points))
    stretched = stretch(points) * np.maximum(found.max(0), 1)
    _, chosen = linear_sum_assignment(cdist(stretched, found, "sqeuclidean"))
    return found[chosen]


def stretch(points: np.ndarray) -> np.ndarray:
    """Points `[N, 2]` as places in the unit square whose y goes down; the middle in a direction without extent."""
    low, wide = points.min(0), np.ptp(points, axis=0)
    share = np.where(wide > 0, (points - low) / np.where(wide > 0, wide, 1), 0.5)
    return np.stack([share[:, 0], 1 - share[:, 1]], 1)


def parted(points: np.ndarray, side: float, *, rounds: int = 60, keep: float = 0.02) -> np.ndarray:
    """Places `[N, 2]` of squares, pushed apart where they lie on one another, and drawn back to where they belong.

    Args:
        points: where they belong.
        side: of the squares.
        rounds: of pushing; each moves a pair by a third of what would part it.
        keep: share of the way back that a square goes in the first round; it falls to none in the last.
    """
    from scipy.spatial import KDTree

    home, here = np.asarray(points, dtype=np.float64), np.array(points, dtype=np.float64)
    for round_ in range(rounds):
        pairs = KDTree(here).query_pairs(side, p=np.inf, output_type="ndarray")
        if not len(pairs):
            break
        one, other = pairs[np.lexsort(pairs.T[::-1])].T
        push = np.zeros_like(here)
        apart = here[one] - here[other]
        overlap = side - np.abs(apart)
        across = (overlap[:, 0] < overlap[:, 1]).astype(int) ^ 1  # along the axis where less is missing
        rows = np.arange(len(one))
        # Equal places part by their number.
        sign = np.where(apart[rows, across] > 0, 1.0, -1.0)
        move = sign * overlap[rows, across] / 3
        np.add.at(push, (one, across), move)
        np.add.at(push, (other, across), -move)
        most = np.abs(push).max(1, keepdims=True)
        here += push * np.minimum(1, side / 2 / np.maximum(most, 1e-12)) + keep * (1 - round_ / rounds) * (home - here)
    return here
