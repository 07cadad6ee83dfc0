"""Plots of attacks: accuracy before and after, accuracy against eps, and who fools whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from phosphene.jobs.command import radius_text as as_typed
from phosphene.report.learning_plots import _plain, _short
from phosphene.report.plots import _GLOW, _INK, _QUIET, _SOFT, _clean, _figure

_RIGHT = "#2f6f6a"
_LINES = ("#c2700a", "#2f6f6a", "#5b4a8a", "#a51e37", "#0069aa")


def radius_text(eps: float, norm: str = "linf") -> str:
    """A radius as one says it: `2/255`, `0.25/255`, `0.3`, `0.5 in L2`."""
    return f"{eps:.3g} in L2" if norm == "l2" else as_typed(eps)


def accuracies(facts: Mapping[str, Any]) -> Tensor:
    """A bar for each attack with its 95% interval: the share of photographs that are still right.

    Args:
        facts: `clean`, `attacks` (each with `accuracy`, `eps`, `norm`) and `worst`, see `jobs.attack`.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    rows: list[tuple[str, Mapping[str, float], str]] = [("no attack", facts["clean"], _RIGHT)]
    for name, one in facts["attacks"].items():
        within = "" if one["eps"] is None else f", {radius_text(one['eps'], one['norm'])}"
        rows.append((f"{name}{within}", one["accuracy"], _GLOW))
    if len(facts["attacks"]) > 1 and facts["worst"] is not None:
        rows.append(("the worst of them", facts["worst"], "#a51e37"))
    figure = _figure(8.2, 0.42 * len(rows) + 1.0)
    axes = figure.subplots()
    for place, (_, found, colour) in enumerate(rows):
        axes.barh(place, found["mean"], height=0.62, color=colour, alpha=0.85)
        axes.plot([found["low"], found["high"]], [place, place], color=_INK, linewidth=1.4, alpha=0.6)
        axes.barh(place, 0.006, height=0.62, color=colour, alpha=0.85)  # what is nothing is seen, too
        axes.text(1.015, place, f"{found['mean']:.1%}", ha="left", va="center", fontsize=9, color=_INK)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.set_xlabel(f"of {facts['images']} photographs still seen rightly, with 95% intervals", fontsize=9, color=_SOFT)
    _clean(axes, "x")
    return _plain(figure)


def curve_plot(
    eps: Sequence[float], series: Mapping[str, Sequence[Mapping[str, float]]], *, norm: str, chance: float | None = None
) -> Tensor:
    """Accuracy against eps with 95% bands.

    Radii stand at equal distances: they mostly double from one to the next.

    Args:
        eps: radii, the first is 0.
        series: name -> `mean`, `low` and `high` at each radius; those whose names begin with "noise" are drawn quietly.
        norm: `linf` or `l2`.
        chance: accuracy of guessing, where it is worth a line.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    figure = _figure(max(6.4, 1.6 + 0.72 * len(eps)), 4.2)
    axes = figure.subplots()
    places = np.arange(len(eps))
    loud = [name for name in series if not name.startswith("noise")]
    for name, rows in series.items():
        quiet = name not in loud
        colour = _QUIET if quiet else _LINES[loud.index(name) % len(_LINES)]
        axes.fill_between(places, [r["low"] for r in rows], [r["high"] for r in rows], color=colour, alpha=0.18, lw=0)
        axes.plot(
            places, [r["mean"] for r in rows], "--o" if quiet else "-o", color=colour, markersize=4.5, linewidth=1.8,
            label=name,
        )  # fmt: skip
    if chance is not None and chance >= 0.02:
        axes.axhline(chance, color=_QUIET, linestyle=":", linewidth=1.3, label=f"guessing, {chance:.0%}")
    axes.set_xticks(places, ["0", *(radius_text(one, norm).replace(" in L2", "") for one in eps[1:])])
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter("{x:.0%}")
    measure = "largest change of a value, of 0 to 1" if norm == "linf" else "L2 norm of the change, values of 0 to 1"
    axes.set_xlabel(f"eps: {measure}", fontsize=9, color=_SOFT)
    axes.set_title("photographs still seen rightly", loc="left", fontsize=11, color=_INK)
    _clean(axes, "y")
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9, labelcolor=_INK)
    return _plain(figure)


def transfer_plot(
    names: Sequence[str], rate: Sequence[Sequence[float | None]], control: Sequence[float | None]
) -> Tensor:
    """Who fools whom: a row for the network that examples are made on, a column for the one that looks at them.

    Args:
        names: of the networks.
        rate: `[S][T]`, shares of photographs that become misread; None where there was none to be misread.
        control: the same share for noise of the same size, for each column.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    from matplotlib.colors import LinearSegmentedColormap

    warm = LinearSegmentedColormap.from_list("warm", ["#ffffff", "#f3d6a6", _GLOW, "#7d2a08"])
    rows = [*rate, control]
    values = np.array([[np.nan if one is None else one for one in row] for row in rows], dtype=np.float64)
    margin = 0.6 + 0.085 * max(len(_short(name)) for name in (*names, "noise, same size"))
    figure = _figure(1.25 * len(names) + margin + 0.3, 0.72 * len(rows) + 0.9 + 0.5 * margin)
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(values), cmap=warm, vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        text = "–" if np.isnan(value) else f"{value:.0%}"
        axes.text(
            column, row, text, ha="center", va="center", fontsize=12, color="white" if value > 0.55 else _INK,
            fontweight="bold" if row == column else "normal",
        )  # fmt: skip
    axes.axhline(len(names) - 0.5, color="white", linewidth=5)
    axes.set_xticks(
        range(len(names)), [_short(name) for name in names], rotation=25, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(rows)), [*(_short(name) for name in names), "noise, same size"])
    axes.set_xlabel("shown to", fontsize=10, color=_SOFT)
    axes.set_ylabel("made on", fontsize=10, color=_SOFT)
    axes.tick_params(labelsize=9, colors=_INK, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("photographs that become misread", loc="left", fontsize=11, color=_INK)
    return _plain(figure)


def hardening_plot(rows: Sequence[Mapping[str, Any]], best: int) -> Tensor:
    """Held-out accuracy over the epochs of a robust training, as the pictures are and attacked.

    Args:
        rows: one for each epoch, with `epoch`, `clean`, `robust` and `train_accuracy` (on attacked pictures).
        best: the epoch that was kept; 0: none.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    figure = _figure(max(6.4, min(11.0, 2.4 + 0.34 * len(rows))), 4.2)
    axes = figure.subplots()
    epochs = [row["epoch"] for row in rows]
    for key, name, colour, line in (
        ("clean", "as they are", _RIGHT, "-o"), ("robust", "attacked by PGD", _GLOW, "-o"),
        ("train_accuracy", "in training, attacked", _QUIET, "--"),
    ):  # fmt: skip
        axes.plot(epochs, [row[key] for row in rows], line, color=colour, markersize=4, linewidth=1.7, label=name)
    if best:
        axes.axvline(best, color=_INK, linewidth=1, alpha=0.35, zorder=0.5)
        axes.annotate("kept", (best, 0.02), (5, 0), textcoords="offset points", fontsize=9, color=_SOFT)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_xticks(epochs[:: max(1, len(epochs) // 15)])
    axes.set_xlabel("epoch", fontsize=9, color=_SOFT)
    axes.set_title("pictures seen rightly", loc="left", fontsize=11, color=_INK)
    _clean(axes, "y")
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=9, labelcolor=_INK)
    return _plain(figure)
