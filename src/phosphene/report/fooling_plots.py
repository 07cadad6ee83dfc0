"""A plot of how much it takes to fool a network toward each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.report.learning_plots import _frame, _plain, _short
from phosphene.report.plots import _GLOW, _INK, _QUIET, _SOFT, _figure

FEW = 24
"""The most classes of which each has a bar and a name."""
ENDS = 8
_EASY, _HARD = "#2f6f6a", _GLOW


def targets_plot(rows: Sequence[Mapping[str, Any]], heading: str = "") -> Tensor:
    """The L2 norm that each class takes, from the easiest to the hardest; of many classes the first and last are named.

    Args:
        rows: the easiest first, each with `name`, `l2` and `success`.
        heading: what network, and from where.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    if len(rows) <= FEW:
        figure = _figure(8.4, 0.31 * len(rows) + 1.35)
        axes = figure.subplots()
        _bars(axes, rows, _HARD)
        axes.set_xlabel("L2 norm of the change (grey: not reached)" if _missed(rows) else "L2 norm of the change")
        _frame(axes, heading, "x")
    else:
        figure = _figure(12.4, 5.0)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.55, 1))
        easy, hard = rows[:ENDS], rows[-ENDS:][::-1]
        _curve(figure.add_subplot(grid[:, 0]), rows, heading)
        top, bottom = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
        for axes, some, colour, title in ((top, easy, _EASY, "the easiest"), (bottom, hard, _HARD, "the hardest")):
            _bars(axes, some, colour)
            axes.set_xlim(0, 1.16 * max(row["l2"] for row in (*easy, *hard)) or 1)
            _frame(axes, title, "x")
    for axes in figure.axes:
        axes.xaxis.label.set(fontsize=9, color=_SOFT)
        axes.yaxis.label.set(fontsize=9, color=_SOFT)
        axes.title.set_parse_math(False)
        for text in axes.texts:
            text.set_parse_math(False)
    return _plain(figure)


def _curve(axes: Any, rows: Sequence[Mapping[str, Any]], heading: str) -> None:
    """All classes in a row, what each takes above it; a line at the middle one."""
    sizes = np.array([row["l2"] for row in rows])
    reached = np.array([row["success"] for row in rows], dtype=bool)
    places = np.arange(1, len(rows) + 1)
    axes.fill_between(places[reached], sizes[reached], color=_GLOW, alpha=0.15, lw=0)
    axes.plot(places[reached], sizes[reached], color=_GLOW, linewidth=2)
    for where, colour in ((slice(0, ENDS), _EASY), (slice(-ENDS, None), _HARD)):
        shown = reached[where]
        axes.plot(places[where][shown], sizes[where][shown], "o", color=colour, markersize=4.5, clip_on=False)
    if _missed(rows):
        label = f"not reached: {_missed(rows):,} of {len(rows):,}"
        axes.plot(places[~reached], sizes[~reached], "x", color=_QUIET, markersize=4, label=label)
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper left")
    if reached.any():
        middle = float(np.median(sizes[reached]))
        axes.axhline(middle, color=_INK, linewidth=1, alpha=0.35, zorder=0.5)
        axes.annotate(
            f"half of them take less than {middle:.2f}", (1, middle), (4, 4), textcoords="offset points", fontsize=9,
            color=_INK,
        )  # fmt: skip
    axes.set_xlim(1, len(rows))
    axes.set_ylim(0, 1.06 * max(sizes.max(), 1e-6))
    axes.set_xlabel("classes, the easiest first")
    axes.set_ylabel("L2 norm of the change")
    _frame(axes, heading, "y")


def _bars(axes: Any, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    """A bar for each class, with its number at the end."""
    places = np.arange(len(rows))
    colours = [colour if row["success"] else _QUIET for row in rows]
    axes.barh(places, [row["l2"] for row in rows], height=0.62, color=colours, alpha=0.85)
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            f"{row['l2']:.2f}", (row["l2"], place), (4, 0), textcoords="offset points", va="center", fontsize=8.5,
            color=_INK,
        )  # fmt: skip
    axes.set_yticks(places, [_short(row["name"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.16 * max(row["l2"] for row in rows) or 1)


def _missed(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(not row["success"] for row in rows)
