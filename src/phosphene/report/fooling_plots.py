"""A plot of how much it takes to fool a network toward each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.report.learning_plots import _RIGHT, _frame, _plain, _short
from phosphene.report.plots import _GLOW, _INK, _QUIET, _SOFT, _figure

FEW = 24
"""The most classes of which each has a bar and a name."""
ENDS = 8
MEASURES = {
    "l2": ("L2 norm of the change", "{:.2f}"),
    "backwards": ("gradients that it took", "{:.0f}"),
    "probability": ("probability that it reached", "{:.1%}"),
}
EASIEST, HARDEST = "the easiest", "the hardest"
_EASY, _HARD = _RIGHT, _GLOW


def targets_plot(rows: Sequence[Mapping[str, Any]], measure: str = "l2", heading: str = "") -> Tensor:
    """What each class takes, from the easiest to the hardest; of many classes the first and last are named.

    Args:
        rows: the easiest first, each with `name`, `success` and the measure.
        measure: one of `MEASURES`.
        heading: what network, and from where.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    if len(rows) <= FEW:
        figure = _figure(8.4, 0.31 * len(rows) + 1.35)
        axes = figure.subplots()
        _bars(axes, rows, measure, _HARD)
        axes.set_xlabel(MEASURES[measure][0] + (" (grey: not reached)" if _missed(rows) else ""))
        _frame(axes, heading, "x")
    else:
        figure = _figure(12.4, 5.0)
        grid = figure.add_gridspec(2, 2, width_ratios=(1.55, 1))
        _curve(figure.add_subplot(grid[:, 0]), rows, measure, heading)
        ends = ((EASIEST, rows[:ENDS], _EASY), (HARDEST, rows[-ENDS:][::-1], _HARD))
        both = [figure.add_subplot(grid[place, 1]) for place in range(2)]
        for axes, (title, some, colour) in zip(both, ends, strict=True):
            _bars(axes, some, measure, colour)
            _frame(axes, title, "x")
        widest = max(axes.get_xlim()[1] for axes in both)
        for axes in both:
            axes.set_xlim(0, widest)
    for axes in figure.axes:
        axes.xaxis.label.set(fontsize=9, color=_SOFT)
        axes.yaxis.label.set(fontsize=9, color=_SOFT)
        axes.title.set_parse_math(False)
    return _plain(figure)


def _curve(axes: Any, rows: Sequence[Mapping[str, Any]], measure: str, heading: str) -> None:
    """All classes in a row, what each takes above it; a line at the middle of those that were reached."""
    label, form = MEASURES[measure]
    sizes = np.array([row[measure] for row in rows], dtype=float)
    reached = np.array([row["success"] for row in rows], dtype=bool)
    places = np.arange(1, len(rows) + 1)
    axes.fill_between(places[reached], sizes[reached], color=_GLOW, alpha=0.15, lw=0)
    axes.plot(places[reached], sizes[reached], color=_GLOW, linewidth=2)
    for where, colour in ((slice(0, ENDS), _EASY), (slice(-ENDS, None), _HARD)):
        shown = reached[where]
        if shown.any():  # a line without points would count as one at the figure's corner
            axes.plot(places[where][shown], sizes[where][shown], "o", color=colour, markersize=4.5, clip_on=False)
    if _missed(rows):
        missed = f"not reached: {_missed(rows):,} of {len(rows):,}"
        axes.plot(places[~reached], sizes[~reached], "x", color=_QUIET, markersize=4, label=missed, clip_on=False)
        axes.legend(frameon=False, fontsize=9, labelcolor=_INK, loc="upper center")
    if reached.any():
        middle = float(np.median(sizes[reached]))
        axes.axhline(middle, color=_INK, linewidth=1, alpha=0.35, zorder=0.5)
        falls = measure == "probability"  # where the curve is not
        axes.annotate(
            f"the middle one: {form.format(middle)}", (len(rows) if falls else 1, middle), (-4 if falls else 4, 4),
            textcoords="offset points", ha="right" if falls else "left", fontsize=9, color=_INK,
        )  # fmt: skip
    axes.set_xlim(1, len(rows))
    axes.set_ylim(0, 1.06 * max(sizes.max(), 1e-6))
    axes.set_xlabel("classes, the easiest first")
    axes.set_ylabel(label)
    if measure == "probability":
        _percent(axes.yaxis)
    _frame(axes, heading, "y")


def _bars(axes: Any, rows: Sequence[Mapping[str, Any]], measure: str, colour: str) -> None:
    """A bar for each class, with its number at the end."""
    places = np.arange(len(rows))
    colours = [colour if row["success"] else _QUIET for row in rows]
    values = [row[measure] for row in rows]
    axes.barh(places, values, height=0.62, color=colours, alpha=0.85)
    for place, value in zip(places, values, strict=True):
        text = MEASURES[measure][1].format(value)
        axes.annotate(text, (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=_INK)
    axes.set_yticks(places, [_short(row["name"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1.2 * max(values) or 1)
    if measure == "probability":
        _percent(axes.xaxis)


def _percent(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0))
    axis.set_major_locator(MaxNLocator(6, prune="upper"))


def _missed(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(not row["success"] for row in rows)
