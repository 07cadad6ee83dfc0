"""Plots of what was learned: accuracy by depth, curves of a training, the confusion matrix, and the classes one by one."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from phosphene.report.plots import _GLOW, _INK, _QUIET, _SOFT, _clean, _figure, drawn
from phosphene.training.scores import ClassScore, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_RIGHT = "#2f6f6a"
NUMBERS = 15
"""The most classes whose counts are written into the confusion matrix."""
WORST = 30
"""The most classes that are shown one by one."""
_DOTS = 60
_NAMES = 40
_LONG = 24


def depth_plot(stages: Sequence[Mapping[str, Any]], *, best: str | None = None, chance: float | None = None) -> Tensor:
    """Accuracy of a linear classifier after each stage of a network.

    Args:
        stages: in order of execution, each with `layer`, `accuracy` (`mean`, `low`, `high`: held out), and perhaps
            `cross_validated`, a number or the same three; None where it is not known.
        best: the layer that was chosen; default: the one with the highest cross-validated accuracy (held-out without).
        chance: accuracy of guessing.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    names = [_short(str(row["layer"])) for row in stages]
    held = [row["accuracy"] for row in stages]
    within = [_mean(row.get("cross_validated")) for row in stages]
    figure = _figure(max(7.2, min(14.0, 2.6 + 0.46 * len(names))), 4.4)
    axes = figure.subplots()
    places = np.arange(len(names))
    axes.fill_between(places, [row["low"] for row in held], [row["high"] for row in held], color=_GLOW, alpha=0.2, lw=0)
    axes.errorbar(
        places, [row["mean"] for row in held], yerr=_beside(held), fmt="-o", color=_GLOW, markersize=4.5, linewidth=1.8,
        elinewidth=1.2, label="held out, with 95% interval",
    )  # fmt: skip
    if any(value is not None for value in within):
        values = [np.nan if value is None else value for value in within]
        axes.plot(places, values, "--s", color=_RIGHT, markersize=4, linewidth=1.3, label="cross-validated on train")
    _mark_best(axes, stages, held, within, best)
    if chance is not None:
        axes.axhline(chance, color=_QUIET, linestyle=":", linewidth=1.3, label=f"guessing, {chance:.1%}")
    axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_ylim(*_room([*(row["low"] for row in held), *(v for v in within if v is not None), chance]))
    _frame(axes, "accuracy", "y")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel("layer after which the classifier stands, from the first to the last", fontsize=9, color=_SOFT)
    _legend(figure)
    return _plain(figure)


def _mark_best(
    axes: Any,
    stages: Sequence[Mapping[str, Any]],
    held: Sequence[Mapping[str, float]],
    within: Sequence[float | None],
    best: str | None,
) -> None:
    """A line at the stage that was chosen, and its accuracy where there are no curves: they end high."""
    known = [row["mean"] if value is None else value for row, value in zip(held, within, strict=True)]
    names = [row["layer"] for row in stages]
    place = names.index(best) if best in names else int(np.argmax(known))
    axes.axvline(place, color=_INK, linewidth=1, alpha=0.35, zorder=0.5)
    right = place > len(names) / 2
    axes.annotate(
        f"best: {held[place]['mean']:.1%}", (place, 0.03), (-6 if right else 6, 0), textcoords="offset points",
        xycoords=("data", "axes fraction"), ha="right" if right else "left", va="bottom", fontsize=10, color=_INK,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )  # fmt: skip
    axes.plot(place, held[place]["mean"], "o", color=_GLOW, markersize=10, markeredgecolor=_INK, zorder=5)


def _mean(value: Any) -> float | None:
    return value["mean"] if isinstance(value, Mapping) else value


def _beside(rows: Sequence[Mapping[str, float]]) -> list[list[float]]:
    """How far the ends of the intervals are from the means."""
    return [[row["mean"] - row["low"] for row in rows], [row["high"] - row["mean"] for row in rows]]


def _room(values: Sequence[float | None]) -> tuple[float, float]:
    """From a little below the least value to a little above 1."""
    least = min(value for value in values if value is not None)
    return max(0.0, least - 0.06 * (1 - least)) if least > 0.05 else 0.0, 1.015


def curves_plot(rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """Losses, accuracy and learning rate of a training, epoch by epoch.

    Args:
        rows: each with `epoch` and any of `train_loss`, `val_loss`, `val_accuracy`, `rate`; what no row has is left out.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    panels = [
        ("loss", (("train_loss", "train", _QUIET), ("val_loss", "held out", _GLOW))),
        ("accuracy, held out", (("val_accuracy", "", _GLOW),)),
        ("learning rate", (("rate", "", _SOFT),)),
    ]
    panels = [(title, lines) for title, lines in panels if any(_series(rows, key)[0] for key, _, _ in lines)]
    figure = _figure(max(4.6, 4.1 * len(panels)), 3.3)
    for axes, (title, lines) in zip(figure.subplots(1, max(1, len(panels)), squeeze=False).flat, panels, strict=False):
        for key, label, colour in lines:
            epochs, values = _series(rows, key)
            if not epochs:
                continue
            marker = "o" if len(epochs) <= 30 else ""
            axes.plot(epochs, values, marker=marker, markersize=3.5, color=colour, linewidth=1.8, label=label or None)
        _frame(axes, title, "y")
        axes.set_xlabel("epoch", fontsize=9, color=_SOFT)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=9, labelcolor=_INK)
        if title.startswith("accuracy"):
            _mark_highest(axes, *_series(rows, "val_accuracy"))
        if title == "learning rate":
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    return _plain(figure)


def _series(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of the rows that have it."""
    found = [(row["epoch"], row[key]) for row in rows if row.get(key) is not None]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _mark_highest(axes: Any, epochs: Sequence[float], values: Sequence[float]) -> None:
    place = int(np.argmax(values))
    axes.plot(epochs[place], values[place], "o", color=_GLOW, markersize=8, markeredgecolor=_INK, zorder=5)
    right = place > len(values) / 2
    axes.annotate(
        f"{values[place]:.1%}", (epochs[place], values[place]), (-8 if right else 8, -9), textcoords="offset points",
        ha="right" if right else "left", va="top", fontsize=10, color=_INK,
    )  # fmt: skip
    axes.yaxis.set_major_formatter("{x:.1%}" if max(values) - min(values) < 0.05 else "{x:.0%}")


def confusion_plot(matrix: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str]) -> Tensor:
    """The confusion matrix: a row for each true class, a column for each class that was said.

    Colours are shares of a row, by their root, so that rare mistakes are seen: green what is right, orange what is wrong. Up
    to `NUMBERS` classes the counts stand in their cells; of many classes the mistakes become dots, and only some are named.

    Args:
        matrix: counts `[C, C]`, rows true.
        classes: names, C of them.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    counts = np.asarray(matrix)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    few = len(classes) <= NUMBERS
    side = max(3.6, 0.56 * len(classes)) if few else 8.0
    margin = 0.5 + 0.075 * max(len(_short(name)) for name in classes)  # of the names
    figure = _figure(side + margin + (0.2 if few else 2.0), side + 0.75 * margin + 0.35)
    axes = figure.subplots()
    if len(classes) <= _DOTS:
        axes.imshow(_coloured(shares, np.sqrt(shares)))
    else:
        axes.imshow(np.ones((*shares.shape, 3)))
        _dot(axes, shares)
    if few:
        _write(axes, counts, shares)
    _name(axes, classes)
    if not few:
        _keys(figure, axes)
    return _plain(figure)


def _coloured(shares: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Colours `[C, C, 3]`: white where `strength [C, C]` is 0."""
    from matplotlib.colors import to_rgb

    ink = np.where(np.eye(len(shares), dtype=bool)[..., None], to_rgb(_RIGHT), to_rgb(_GLOW))
    return 1 - strength[..., None] * (1 - ink)


def _dot(axes: Any, shares: np.ndarray) -> None:
    """Dots that stay visible where a cell is smaller than a pixel, the gravest mistakes on top."""
    rows, columns = np.nonzero(shares)
    order = np.argsort(shares[rows, columns], kind="stable")
    rows, columns = rows[order], columns[order]
    colours = _coloured(shares, np.sqrt(shares).clip(0.4))
    size = max(2.4, 460 / len(shares))
    axes.scatter(columns, rows, s=size**2, c=colours[rows, columns], marker="s", linewidths=0)


def _write(axes: Any, counts: np.ndarray, shares: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            light = row == column and shares[row, column] > 0.5
            size = 10.5 if len(counts) <= 10 and counts.max() < 10_000 else 8
            colour = "white" if light else _INK
            axes.text(column, row, f"{count}", ha="center", va="center", fontsize=size, color=colour)


def _name(axes: Any, classes: Sequence[str]) -> None:
    """Names of all classes, or of some of many."""
    places = range(0, len(classes), -(-len(classes) // _NAMES))
    names = [_short(classes[place]) for place in places]
    size = 9 if len(classes) <= 30 else 7.5
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(places, names)
    _frame(axes, "", None)
    axes.tick_params(labelsize=size, pad=3)
    axes.set_xlabel("said", fontsize=10, color=_SOFT)
    axes.set_ylabel("true", fontsize=10, color=_SOFT)
    if len(classes) <= _DOTS:
        edges = np.arange(len(classes) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="#e2dccf", linewidth=0.6)
        axes.tick_params(which="minor", length=0)


def _keys(figure: Figure, axes: Any) -> None:
    """What the colours mean."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    for colour, label in ((_GLOW, "wrong, share of a row"), (_RIGHT, "right, share of a row")):
        scale = LinearSegmentedColormap.from_list(label, ["white", colour])
        key = figure.colorbar(ScalarMappable(PowerNorm(0.5, 0, 1), scale), ax=axes, shrink=0.6, aspect=30, pad=0.015)
        key.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        key.set_ticks([0, 0.05, 0.25, 0.5, 1], labels=["0%", "5%", "25%", "50%", "100%"])
        key.ax.tick_params(labelsize=8, length=0, colors=_SOFT)
        key.set_label(label, fontsize=8.5, color=_SOFT)


def per_class_plot(scores: Scores) -> Tensor:
    """Recall of each class with its interval, the worst on top, and its precision; of many classes only the worst.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    rows = worst(scores)
    places = np.arange(len(rows))
    figure = _figure(8.2, 0.31 * len(rows) + 1.5)
    axes = figure.subplots()
    recalls = [(place, row.recall) for place, row in zip(places, rows, strict=True) if row.recall is not None]
    axes.barh([p for p, _ in recalls], [r.mean for _, r in recalls], height=0.62, color="#f0cf9c", label="recall")
    axes.errorbar(
        [r.mean for _, r in recalls], [p for p, _ in recalls],
        xerr=_beside([{"mean": r.mean, "low": r.low, "high": r.high} for _, r in recalls]) if recalls else None,
        fmt="none", ecolor=_GLOW, elinewidth=1.8, label="its 95% interval",
    )  # fmt: skip
    said = [(place, row.precision) for place, row in zip(places, rows, strict=True) if row.precision is not None]
    axes.plot(
        [x for _, x in said], [p for p, _ in said], "D", color=_RIGHT, markersize=5, label="precision", clip_on=False
    )
    axes.set_yticks(places, [f"{_short(row.name)}  ({row.images})" for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    more = "" if len(rows) == len(scores.classes) else f"; the {len(rows)} worst of {len(scores.classes):,}"
    _frame(axes, "", "x")
    axes.set_xlabel(f"classes and how many photographs each has, the least F1 first{more}", fontsize=9, color=_SOFT)
    _legend(figure)
    return _plain(figure)


def worst(scores: Scores, count: int = WORST) -> list[ClassScore]:
    """The classes with the least F1, the least first; those without photographs come last."""
    return sorted(scores.classes, key=lambda one: (one.recall is None, one.f1 if one.f1 is not None else 2))[:count]


def _frame(axes: Any, title: str, grid: str | None) -> None:
    _clean(axes, grid or "y")
    if grid is None:
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=_INK)


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9, labelcolor=_INK, columnspacing=1.6)


def _short(name: str) -> str:
    """A name with its middle left out where it is long: layers and files differ at their ends."""
    if len(name) <= _LONG:
        return name
    half = (_LONG - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _plain(figure: Figure) -> Tensor:
    """The figure drawn. Names of classes may have a $, which is no formula, and letters that the font lacks."""
    for axes in figure.axes:
        for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return drawn(figure)
