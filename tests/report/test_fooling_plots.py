"""The plot of how much each class takes: things lie where the numbers say, few classes or a thousand."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.report.fooling_plots import FEW, MEASURES, targets_plot


def rows(count: int, missed: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "name": f"class {n}",
            "l2": 0.5 + n,
            "backwards": 1 + n,
            "probability": 1 / (1 + n),
            "success": n < count - missed,
        }
        for n in range(count)
    ]


def near(picture: Tensor, colour: str, far: float = 40.0) -> Tensor:
    """`[N, 2]`: row and column of each pixel of about this colour."""
    wanted = torch.tensor(list(bytes.fromhex(colour[1:])))
    return ((picture * 255 - wanted[:, None, None]).abs() < far).all(0).nonzero()


@pytest.mark.parametrize("count", [1, 2, FEW, FEW + 1, 999])
@pytest.mark.parametrize("missed", [0, 1])
@pytest.mark.parametrize("measure", MEASURES)
def test_few_and_many_are_drawn(count: int, missed: int, measure: str) -> None:
    picture = targets_plot(rows(count, missed), measure, "a network, from “this”")
    assert picture.shape[0] == 3 and picture.min() >= 0 and picture.max() <= 1 and max(picture.shape) < 1600
    edge = torch.cat(
        [picture[:, :2].flatten(), picture[:, -2:].flatten(), picture[:, :, :1].flatten(), picture[:, :, -1:].flatten()]
    )
    assert edge.min() > 0.95  # nothing runs over the edge
    assert (len(near(picture, "#4e8580", 4)) > 60) == (count > FEW and count - missed > 0)


def test_a_bar_is_as_long_as_its_number() -> None:
    one = [{"name": "a", "l2": 1.0, "success": True}, {"name": "b", "l2": 3.0, "success": True}]
    picture = targets_plot(one)
    bars = near(picture, "#cb8529", 8)
    lengths = [int((bars[:, 0] == row).sum()) for row in bars[:, 0].unique()]
    assert max(lengths) / min(lengths) == pytest.approx(3, rel=0.02)


def test_what_was_not_reached_is_grey() -> None:
    assert len(near(targets_plot(rows(5)), "#9ea4a9", 8)) < 400
    assert len(near(targets_plot(rows(5, 1)), "#9ea4a9", 8)) > 1500


def test_odd_names_and_numbers_are_drawn_without_warnings() -> None:
    odd = [{"name": name, "l2": 0.0, "success": False} for name in ("co$t$", "鳥" * 40, "$a_1$")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert targets_plot(odd, heading="from “$x$”").shape[0] == 3
        assert targets_plot(odd * 20, heading="from “鳥”").shape[0] == 3
