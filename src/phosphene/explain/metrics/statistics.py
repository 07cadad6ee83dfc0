"""How sure a mean is: bootstrap intervals.

Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phosphene.errors import PhospheneError


@dataclass(frozen=True)
class Interval:
    """The mean of `count` values, and the ends of its confidence interval (both the mean itself, for a single value)."""

    mean: float
    low: float
    high: float
    count: int


def interval(values: Sequence[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """The mean and its percentile bootstrap interval.

    As many values as there are, drawn with replacement, have a mean; the interval holds the middle `level` of `draws` such
    means. With few values it is somewhat too narrow: of 10, about 90% of such intervals hold the true mean, of 50, 94%.

    Args:
        values: at least one number, finite.
        level: in (0, 1).
        draws: at least 1.
        seed: of the draws.

    Raises:
        PhospheneError: no values, NaN among them, or a level or number of draws out of range.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise PhospheneError("a mean needs at least one number, and finite ones")
    if not 0 < level < 1 or draws < 1:
        raise PhospheneError(f"level {level}, draws {draws}: give a level between 0 and 1 and at least 1 draw")
    random = np.random.default_rng(seed)
    means = np.array([data[random.integers(0, data.size, data.size)].mean() for _ in range(draws)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(data.mean()), float(low), float(high), data.size)
