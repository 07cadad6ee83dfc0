"""Plots of a judgement, as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from phosphene.explain.judge import BETTER
from phosphene.explain.metrics.baselines import BASELINES
from phosphene.explain.metrics.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "insertion": "Insertion AUC", "deletion": "Deletion AUC", "drop": "Average drop", "increase": "Increase in confidence",
    "focus": "Focus", "completeness": "Completeness error", "ssim": "SSIM, randomised", "rank": "Rank corr., randomised",
}  # fmt: skip
_INK, _SOFT, _GLOW, _QUIET = "#18222c", "#55606a", "#c2700a", "#8d969d"


def dots(table: Mapping[str, Mapping[str, Interval]]) -> Tensor:
    """A panel for each check: a dot and its 95% interval for each method, and a line at the best baseline.

    Args:
        table: method -> check -> interval, see `Judgement.table`.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    methods = list(table)
    checks = [check for check in TITLES if any(check in row for row in table.values())]
    across = min(4, len(checks))
    down = -(-len(checks) // across)
    figure = _figure(3.1 * across + 1.4, down * (0.26 * len(methods) + 1.15))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for place, axes in enumerate(grid.flat):
        if place >= len(checks):
            axes.set_visible(False)
            continue
        _dots(axes, checks[place], methods, table)
    return drawn(figure)


def _dots(axes: Any, check: str, methods: Sequence[str], table: Mapping[str, Mapping[str, Interval]]) -> None:
    base = [table[name][check].mean for name in methods if name in BASELINES and check in table[name]]
    if base:
        axes.axvline(max(base) if BETTER[check] == "high" else min(base), color=_QUIET, linestyle="--", linewidth=1)
    for row, name in enumerate(methods):
        found = table[name].get(check)
        if found is None:
            continue
        colour = _QUIET if name in BASELINES else _GLOW
        axes.plot([found.low, found.high], [row, row], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot(found.mean, row, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.set_title(TITLES[check], loc="left", fontsize=11, color=_INK)
    axes.set_xlabel(f"{'higher' if BETTER[check] == 'high' else 'lower'} is better", fontsize=9, color=_SOFT)
    _clean(axes, "x")


def curves(cascades: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Tensor:
    """How like the maps stay while the layers are drawn anew: a panel for each measure, a line for each method.

    Args:
        cascades: `ssim` and `rank` -> method -> layer -> mean, see `Judgement.cascade`.

    Returns:
        `[3, H, W]` in [0, 1].
    """
    figure = _figure(12.5, 4.6)
    grid = figure.subplots(1, len(cascades), squeeze=False)
    names = {"ssim": "SSIM to the trained network's map", "rank": "rank correlation with it"}
    for axes, (check, methods) in zip(grid.flat, cascades.items(), strict=True):
        colours = _colours(len(methods))
        for (method, layers), colour in zip(methods.items(), colours, strict=True):
            values = [1.0, *layers.values()]
            axes.plot(range(len(values)), values, "-o", color=colour, markersize=3.5, linewidth=1.7, label=method)
        ticks = ["trained", *next(iter(methods.values()))]
        axes.set_xticks(range(len(ticks)), ticks, rotation=35, ha="right", fontsize=8)
        axes.set_ylim(min(-0.05, *(v for row in methods.values() for v in row.values())), 1.05)
        axes.set_title(names[check], loc="left", fontsize=11, color=_INK)
        axes.set_xlabel("drawn anew down to this layer", fontsize=9, color=_SOFT)
        _clean(axes, "y")
    grid.flat[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return drawn(figure)


def _colours(count: int) -> list[Any]:
    from matplotlib import colormaps

    return [colormaps["tab20"](place % 20) for place in range(count)]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def _clean(axes: Any, grid: str) -> None:
    for side in ("top", "right", "left" if grid == "x" else "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(axis=grid, color="#e2dccf", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=9, colors=_INK, length=0)


def drawn(figure: Figure) -> Tensor:
    """A figure of matplotlib as a picture `[3, H, W]` in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
