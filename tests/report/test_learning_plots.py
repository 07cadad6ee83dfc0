"""Plots of what was learned: things lie where the numbers say, and stay readable for one class or a thousand."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene.report.learning_plots import (
    _RIGHT,
    NUMBERS,
    WORST,
    confusion_plot,
    curves_plot,
    depth_plot,
    per_class_plot,
    worst,
)
from phosphene.report.plots import _GLOW, _QUIET
from phosphene.training.scores import scores


def pixels_of(picture: Tensor, colour: str) -> Tensor:
    """`[N, 2]`: row and column of each pixel that has this colour, but for rounding."""
    wanted = torch.tensor(list(bytes.fromhex(colour[1:])))
    return ((picture * 255 - wanted[:, None, None]).abs() < 1.5).all(0).nonzero()


def stage(layer: str, mean: float, half: float = 0.05, **more: Any) -> dict[str, Any]:
    return {"layer": layer, "accuracy": {"mean": mean, "low": mean - half, "high": mean + half}, **more}


def sound(picture: Tensor) -> bool:
    return picture.shape[0] == 3 and float(picture.min()) >= 0 and float(picture.max()) <= 1


def test_depth_has_a_second_line_and_a_chance_line_only_if_they_are_known() -> None:
    stages = [stage("a", 0.5), stage("b", 0.9)]
    bare = depth_plot(stages)
    assert not len(pixels_of(bare, _RIGHT)) and len(pixels_of(bare, _QUIET)) < 5 and sound(bare)
    both = depth_plot(
        [stage("a", 0.5, cross_validated=0.5), stage("b", 0.9, cross_validated={"mean": 0.8})], chance=0.5
    )
    assert len(pixels_of(both, _RIGHT)) > 50 and len(pixels_of(both, _QUIET)) > 20
    some = depth_plot([stage("a", 0.5, cross_validated=None), stage("b", 0.9, cross_validated=0.8)])
    assert 0 < len(pixels_of(some, _RIGHT)) < len(pixels_of(both, _RIGHT))


def test_the_best_stage_is_the_one_of_cross_validation_or_the_one_that_is_named() -> None:
    stages = [
        stage("a", 0.9, cross_validated=0.6),
        stage("b", 0.8, cross_validated=0.9),
        stage("c", 0.7, cross_validated=0.5),
    ]
    assert torch.equal(depth_plot(stages), depth_plot(stages, best="b"))
    assert not torch.equal(depth_plot(stages), depth_plot(stages, best="a"))
    held = [stage("a", 0.9), stage("b", 0.8)]
    assert torch.equal(depth_plot(held), depth_plot(held, best="a"))


def test_wider_intervals_are_drawn_wider() -> None:
    wide, narrow = ([stage("a", 0.7, half), stage("b", 0.7, half), stage("c", 0.1, 0.0)] for half in (0.2, 0.1))
    heights = []
    for stages in (wide, narrow):
        picture = depth_plot(stages)
        band = pixels_of(picture, "#f3e2ce")  # a fifth of the colour of the line
        first = band[band[:, 1] < band[:, 1].min() + 30]
        heights.append(int(first[:, 0].max() - first[:, 0].min()))
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.15)


def test_one_stage_and_forty_with_long_names_are_drawn() -> None:
    assert sound(depth_plot([stage("only", 1.0, 0.0)]))
    many = depth_plot([stage(f"layer{k}.a.very_long_name_of_a_block.conv", 0.5) for k in range(40)])
    assert sound(many) and many.shape[2] <= 1600


def test_curves_have_a_panel_for_what_is_known() -> None:
    full = [
        {"epoch": k, "train_loss": 1 / k, "val_loss": 2 / k, "val_accuracy": 1 - 1 / k, "rate": 0.1} for k in (1, 2, 3)
    ]
    widths = [
        curves_plot([{key: row[key] for key in ("epoch", *keys)} for row in full]).shape[2]
        for keys in (["train_loss"], ["train_loss", "val_accuracy"], ["train_loss", "val_loss", "val_accuracy", "rate"])
    ]
    assert widths[0] < widths[1] < widths[2]
    assert sound(curves_plot(full[:1])) and sound(curves_plot([{"epoch": 0, "train_loss": 1.0, "val_loss": None}]))
    assert sound(curves_plot([]))


@pytest.mark.parametrize("classes", [2, NUMBERS, NUMBERS + 1, 61, 300])
def test_a_confusion_is_coloured_where_it_lies(classes: int) -> None:
    matrix = np.diag(np.full(classes, 10))
    clean = confusion_plot(matrix, [f"class {k}" for k in range(classes)])
    matrix[0, classes - 1] = 10
    matrix[0, 0] = 0
    picture = confusion_plot(matrix, [f"class {k}" for k in range(classes)])
    wrong = pixels_of(picture, _GLOW)
    assert sound(picture) and len(wrong) > len(pixels_of(clean, _GLOW)) + 5
    new = ((picture - clean).abs().amax(0) > 0.1).nonzero()
    top, right = int(new[:, 0].min()), int(new[:, 1].max())
    assert top < 0.25 * picture.shape[1] and right > 0.5 * picture.shape[2]  # the first row, the last column


def test_a_thousand_classes_keep_single_mistakes_visible() -> None:
    matrix = np.diag(np.full(1000, 50))
    names = [f"{k}" for k in range(1000)]
    clean = confusion_plot(matrix, names)
    matrix[200, 700] = 1
    changed = ((confusion_plot(matrix, names) - clean).abs().amax(0) > 0.1).sum()
    assert 1 <= changed <= 40 and max(clean.shape) < 1600


def test_an_empty_row_and_odd_names_are_drawn_without_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sound(confusion_plot([[0, 0], [1, 2]], ["co$t$", "鳥" * 40]))
        assert sound(per_class_plot(scores(np.eye(2), [0, 1], ["$a_1$", "鳥"])))


def test_the_worst_classes_are_shown_and_no_more_than_thirty() -> None:
    labels = np.arange(80) % 40
    said = np.where(labels < 3, 39, labels)
    found = scores(np.eye(41)[said], labels, [f"class {k}" for k in range(41)])
    names = [one.name for one in worst(found)]
    assert len(names) == WORST and set(names[:4]) == {"class 0", "class 1", "class 2", "class 39"}
    assert [one.name for one in worst(found, 41)][-1] == "class 40"  # without photographs
    assert per_class_plot(found).shape[1] < 1300


def test_a_bar_is_as_long_as_the_recall() -> None:
    def length(right: int) -> int:
        said = np.array([0] * right + [1] * (20 - right) + [1] * 20)
        found = per_class_plot(scores(np.eye(2)[said], [0] * 20 + [1] * 20, ["a", "b"]))
        bars = pixels_of(found, "#f0cf9c")
        bars = bars[bars[:, 0] > 45]  # below the legend
        rows = bars[:, 0].unique()
        top = bars[bars[:, 0] == rows[2]]
        return int(top[:, 1].max() - top[:, 1].min())

    assert length(5) == pytest.approx(length(10) / 2, rel=0.03)


def test_the_same_numbers_are_the_same_picture() -> None:
    assert torch.equal(confusion_plot([[3, 1], [0, 4]], ["a", "b"]), confusion_plot([[3, 1], [0, 4]], ["a", "b"]))
