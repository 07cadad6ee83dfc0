"""The nearest point of a plane inside the box, against a slow search for the same number."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from phosphene.attacks import plane
from phosphene.attacks.ball import Norm


def slowly(x: Tensor, weights: Tensor, value: float, norm: Norm) -> Tensor:
    """One image in float64: bisection for the multiplier, value by value."""

    def change(time: float) -> Tensor:
        moved = []
        for at, weight in zip(x.tolist(), weights.tolist()):
            way = -1 if weight * value > 0 else 1
            room = at if way < 0 else 1 - at
            wanted = time if norm == "linf" else time * abs(weight)
            moved.append(way * min(wanted, room) if weight else 0.0)
        return torch.tensor(moved, dtype=torch.double)

    low, high = 0.0, 1e9 if value else 0.0
    for _ in range(200):
        middle = (low + high) / 2
        gained = float((weights * change(middle)).sum()) * (1 if value < 0 else -1)
        low, high = (low, middle) if gained >= abs(value) else (middle, high)
    return change(high)


weight = st.one_of(st.just(0.0), st.floats(0.05, 3), st.floats(-3, -0.05))
pixel = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(pixel, weight), min_size=1, max_size=9), st.floats(-4, 4), st.sampled_from(["linf", "l2"]))
@example([(0.0, 1.0), (1.0, -1.0)], 2.0, "linf")  # no room at all
@example([(0.5, 0.0)], 1.0, "l2")  # no slope
@example([(0.5, 1.0), (0.2, 2.0)], 0.0, "l2")  # on the plane
def test_projection(pairs: list[tuple[float, float]], value: float, norm: Norm) -> None:
    x, weights = torch.tensor(pairs, dtype=torch.double).T
    found = plane.project(x[None], weights[None], torch.tensor([value]).double(), norm)[0]  # type: ignore[arg-type]
    expected = slowly(x, weights, value, norm)
    assert found.isfinite().all()
    assert (x + found >= -1e-9).all() and (x + found <= 1 + 1e-9).all()
    order = torch.inf if norm == "linf" else 2
    left = (weights * found).sum() + value
    assert left.abs() <= (((weights * expected).sum() + value).abs() + 1e-5 * (1 + abs(value)))
    assert found.norm(order) <= expected.norm(order) + 1e-5
    if norm == "l2":
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_large_pictures_reach_the_plane(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(16, 5000, generator=generator)
    x[:, ::3] = x[:, ::3].round()  # many without room on one side
    weights = torch.randn(16, 5000, generator=generator) ** 3
    value = torch.randn(16, generator=generator) * 100
    found = plane.project(x, weights, value, norm)  # type: ignore[arg-type]
    left = (weights.double() * found).sum(1) + value
    assert (left.abs() <= 1e-4 * value.abs()).all()
    assert (x + found).min() >= 0 and (x + found).max() <= 1 + 1e-6


def test_neighbours_do_not_matter() -> None:
    x, weights, value = torch.rand(5, 40), torch.randn(5, 40), torch.randn(5) * 5
    whole = plane.project(x, weights, value, "linf")
    for row in range(5):
        one = slice(row, row + 1)
        torch.testing.assert_close(plane.project(x[one], weights[one], value[one], "linf"), whole[one])
