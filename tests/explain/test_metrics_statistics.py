"""Bootstrap intervals on simulated data."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.statistics import Interval, interval


@pytest.mark.parametrize(
    ("draw", "mean", "count", "held"),
    [
        (lambda r, n: r.normal(3, 2, n), 3.0, 50, 0.94), (lambda r, n: r.uniform(0, 1, n), 0.5, 50, 0.94),
        (lambda r, n: r.binomial(1, 0.3, n).astype(float), 0.3, 50, 0.94),
        (lambda r, n: r.normal(3, 2, n), 3.0, 10, 0.90), (lambda r, n: r.uniform(0, 1, n), 0.5, 10, 0.90),
    ],
)  # fmt: skip
def test_of_many_intervals_the_stated_part_holds_the_true_mean(
    draw: Callable[[np.random.Generator, int], Any], mean: float, count: int, held: float
) -> None:
    numbers, trials = np.random.default_rng(1), 500
    found = [interval(draw(numbers, count), draws=250, seed=trial) for trial in range(trials)]
    part = statistics.mean(one.low <= mean <= one.high for one in found)
    assert part == pytest.approx(held, abs=0.04)


def test_of_many_values_it_is_the_normal_interval() -> None:
    values = np.random.default_rng(2).exponential(2, 2000)
    error = values.std() / math.sqrt(len(values))
    for level, width in ((0.95, 1.960), (0.5, 0.674), (0.99, 2.576)):
        found = interval(values.tolist(), level=level)
        assert found.mean == pytest.approx(values.mean(), abs=1e-12)
        assert found.low == pytest.approx(values.mean() - width * error, abs=0.12 * width * error)
        assert found.high == pytest.approx(values.mean() + width * error, abs=0.12 * width * error)


def test_two_values_have_means_at_both_and_between() -> None:
    assert interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0, 2)
    found = interval([0.0, 1.0], level=0.4)  # half of the means are 0.5
    assert (found.low, found.high) == (0.5, 0.5)


def test_constant_values_and_a_single_one_have_no_width() -> None:
    for values in ([0.1], [0.1] * 7, (3, 3, 3)):
        found = interval(values)
        assert (found.mean, found.low, found.high) == pytest.approx([values[0]] * 3, abs=1e-15)
        assert found.count == len(values)
    assert interval([5.0]) == Interval(5.0, 5.0, 5.0, 1)


def test_the_same_seed_gives_the_same_interval_and_leaves_other_random_numbers_alone() -> None:
    values, before = np.random.default_rng(3).normal(size=30), repr(np.random.get_state())
    found = interval(values.tolist(), seed=4)
    assert found == interval(tuple(values), seed=4)
    assert found.low != interval(values.tolist(), seed=5).low
    assert repr(np.random.get_state()) == before


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf], [[1.0, 2.0], [3.0, 4.0]]])
def test_what_has_no_mean_is_an_error_line(values: Any) -> None:
    with pytest.raises(PhospheneError, match="a mean needs at least one number, and finite ones"):
        interval(values)


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"level": 95}, {"level": math.nan}, {"draws": 0}])
def test_levels_and_draws_out_of_range_are_error_lines(wrong: dict[str, Any]) -> None:
    with pytest.raises(PhospheneError, match=r"level .*, draws .*: give a level between 0 and 1 and at least 1 draw"):
        interval([1.0, 2.0], **wrong)
