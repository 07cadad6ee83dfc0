"""Plots of an advice: the lecture's table with the folder's place in it, and the four recipes side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from phosphene.report.learning_plots import _RIGHT, _beside, _frame, _plain
from phosphene.report.plots import _GLOW, _INK, _QUIET, _SOFT, _figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELLS = {
    ("few", "similar"): "Use Linear Classifier\non top layer",
    ("few", "different"): "You're in trouble... Try linear\nclassifier from different stages",
    ("many", "similar"): "Finetune a few layers",
    ("many", "different"): "Finetune a larger\nnumber of layers",
}
"""The slide."""
_REACH = 50.0
"""By what factor the table reaches below and above the border of the amount."""
_EDGE = 0.045


def table_plot(*, images: float, similar: float, many: int, amount: str, kind: str, label: str) -> Tensor:
    """The table, the cell of the advice lit, and a mark where the folder lies in it.

    Args:
        images: per class.
        similar: probability that the data is similar to ImageNet.
        many: images per class at the border.
        amount, kind: `few` or `many`, `similar` or `different`: the cell.
        label: of the mark.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    figure = _figure(8.4, 5.6)
    axes = figure.subplots()
    x = min(1 - _EDGE, max(_EDGE, 1 - similar))
    y = min(1 - _EDGE, max(_EDGE, 0.5 + 0.5 * math.log(max(images, 1) / many) / math.log(_REACH)))
    for (row, column), text in CELLS.items():
        lit = (row, column) == (amount, kind)
        low = lit and y % 0.5 < 0.25  # the words keep out of the way of the mark
        _cell(axes, row == "many", column == "different", text, lit=lit, middle=0.36 if low else 0.13)
    axes.plot(x, y, "o", markersize=13, color=_GLOW, markeredgecolor="white", markeredgewidth=2, zorder=5)
    right = x > 0.5
    axes.annotate(
        label, (x, y), (-13 if right else 13, 0), textcoords="offset points", va="center", ha="right" if right else "left",
        fontsize=10, color=_INK, zorder=6, parse_math=False,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.85},
    )  # fmt: skip
    _axes(axes, many)
    return _plain(figure)


def _cell(axes: Axes, below: bool, right: bool, text: str, *, lit: bool, middle: float) -> None:
    from matplotlib.patches import Rectangle

    x, y = 0.5 * right, 0.5 * below
    colour = "#fbe9cd" if lit else "#f6f3ec"
    axes.add_patch(Rectangle((x, y), 0.5, 0.5, facecolor=colour, edgecolor="white", linewidth=3, zorder=1))
    if lit:
        inner = Rectangle(
            (x + 0.006, y + 0.008), 0.488, 0.484, facecolor="none", edgecolor=_GLOW, linewidth=2, zorder=2
        )
        axes.add_patch(inner)
    axes.text(
        x + 0.25, y + middle, text, ha="center", va="center", fontsize=12.5, color=_INK if lit else _SOFT,
        fontweight="bold" if lit else "normal", linespacing=1.35, zorder=3,
    )  # fmt: skip


def _axes(axes: Axes, many: int) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(1, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0, labelsize=10, colors=_SOFT)
    low, high = many / _REACH, many * _REACH
    ticks = [count for count in (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000) if low <= count <= high]
    axes.set_yticks(
        [0.5 + 0.5 * math.log(count / many) / math.log(_REACH) for count in ticks], [f"{c:,}" for c in ticks]
    )
    axes.set_ylabel("quite a lot of data          very little data", fontsize=11.5, color=_INK, labelpad=10)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["surely similar", "3 : 1", "even", "1 : 3", "surely different"])
    for tick, side in zip(axes.get_xticklabels(), ("left", "center", "center", "center", "right"), strict=True):
        tick.set_horizontalalignment(side)
    axes.set_xlabel("how similar it is to ImageNet, as measured by the network's features", fontsize=9, color=_SOFT)
    for x, text in ((0.25, "very similar dataset"), (0.75, "very different dataset")):
        axes.text(x, -0.03, text, ha="center", va="bottom", fontsize=11.5, color=_INK)
    axes.text(-0.005, -0.03, "images\nper class", ha="right", va="bottom", fontsize=9, color=_SOFT)


def recipes_plot(rows: Sequence[Mapping[str, Any]], *, advised: str) -> Tensor:
    """Accuracy of the recipes with their intervals, the advised one lit.

    Args:
        rows: each with `recipe`, `name` and `accuracy` (`mean`, `low`, `high`).
        advised: the recipe that the advice names.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    figure = _figure(8.4, 0.55 * len(rows) + 1.5)
    axes = figure.subplots()
    places, found = np.arange(len(rows)), [row["accuracy"] for row in rows]
    colours = ["#e9a94f" if row["recipe"] == advised else "#ddd6c8" for row in rows]
    axes.barh(places, [one["mean"] for one in found], height=0.62, color=colours)
    axes.errorbar(
        [one["mean"] for one in found], places, xerr=_beside(found), fmt="none", ecolor=_INK, elinewidth=1.4, capsize=3,
    )  # fmt: skip
    best = max(one["mean"] for one in found)
    for place, one in enumerate(found):
        colour = _RIGHT if one["mean"] == best else _INK
        axes.text(
            1.012, place, f"{one['mean']:.1%}", va="center", ha="left", fontsize=10.5, color=colour,
            fontweight="bold" if one["mean"] == best else "normal", transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    axes.set_yticks(places, [f"{row['name']}{'  ◀' if row['recipe'] == advised else ''}" for row in rows])
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    _frame(axes, "", "x")
    axes.set_xlabel("accuracy on the held-out photographs, with 95% interval; ◀ the advice", fontsize=9, color=_QUIET)
    return _plain(figure)
