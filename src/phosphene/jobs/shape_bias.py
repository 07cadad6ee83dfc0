"""`shape-bias`: whether a network decides by shape or by texture, beside people and published networks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.observe.categories16 import category_classes
from phosphene.observe.shape_bias import ShapeBias, Tally, check_aggregate, people, published, read_cues
from phosphene.observe.shape_bias import shape_bias as measure
from phosphene.progress import Job
from phosphene.report.plots import drawn

if TYPE_CHECKING:
    pass

_INK, _SOFT, _GLOW, _PALE = "#18222c", "#55606a", "#e0a458", "#dfe3e6"
_DRAWN = {  # of the published: marker, colour, how far below the middle of its bar
    "humans": ("o", "#a51e37", 0.0),
    "resnet50": ("s", "#2f6f6a", -0.17),
    "vgg16-caffe": ("^", "#0069aa", 0.17),
    "alexnet-caffe": ("D", "#5b4a8a", 0.0),
}


def shape_bias(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    aggregate: str = "mean",
) -> Job[Outcome]:
    """One picture, `shape-bias`: for each shape category the share decided by shape, beside people and published networks.

    Facts: counts and shape bias (`mean`, `low`, `high`; None without decisions by either cue) of all images and of each
    shape category, the decision for each image, and the published figures over the shape categories of the folder.
    """
    check_aggregate(aggregate)
    network = workshop.network(net, weights, labels)
    category_classes(network)
    collection = workshop.images(folder, network)
    names = [path.name for path in collection.paths]
    read_cues(names)
    found = yield from measure(network, collection, names, aggregate=aggregate)
    facts = _facts(net, found)
    facts["skipped"] = {str(collection.paths[place]): why for place, why in found.skipped.items()}
    alt = f"The share of images that {net} decides by shape, and by texture, for each of {len(found.by_shape)} shapes"
    note = " ".join(told(facts))
    return Outcome((Picture("shape-bias", _drawn(net, found, note), alt, note),), facts)


def _facts(net: str, found: ShapeBias) -> dict[str, Any]:
    least, most = people(found.by_shape)
    return {
        "net": net,
        "aggregate": found.aggregate,
        **_numbers(found.total),
        "agreeing": found.agreeing,
        "categories": {name: _numbers(tally) for name, tally in found.by_shape.items()},
        "published": [
            {"name": one.name, "title": one.title, **_numbers(one.over(found.by_shape)), "source": one.source}
            for one in published()
            if not one.human or one.name == "humans"
        ],
        "people": {"least": least, "most": most},
        "decisions": [
            {"image": made.image, "shape": made.cues.shape, "texture": made.cues.texture, "decision": made.category}
            for made in found.decisions
        ],
    }


def _numbers(tally: Tally) -> dict[str, Any]:
    bias = tally.bias
    return {
        "images": tally.images,
        "by_shape": tally.shape,
        "by_texture": tally.texture,
        "by_neither": tally.neither,
        "neither": tally.neither / tally.images,
        "shape_bias": None if bias is None else {"mean": bias.mean, "low": bias.low, "high": bias.high},
    }


def told(facts: Mapping[str, Any]) -> list[str]:
    """What the facts say, in sentences: for the caption and the terminal."""
    agreeing = facts["agreeing"]
    left_out = f" Left out: {agreeing} image{'s' * (agreeing != 1)} whose cues agree." if agreeing else ""
    counts = (
        f"Of {facts['images']:,} images whose shape and texture differ, {facts['net']} decides {facts['by_shape']} by shape,"
        f" {facts['by_texture']} by texture and {facts['by_neither']} ({facts['neither']:.1%}) by neither.{left_out}"
    )
    bias = facts["shape_bias"]
    if bias is None:
        return [counts, "Nothing is decided by either cue, so there is no shape bias."]
    return [counts, f"Shape bias {bias['mean']:.1%}, 95% interval {bias['low']:.1%} to {bias['high']:.1%}."]


# -- the picture --------------------------------------------------------------------------------------------------------


def _drawn(net: str, found: ShapeBias, note: str) -> Tensor:
    """Bars of shape and texture shares, points of people and published networks: `[3, H, W]` in [0, 1]."""
    from matplotlib.figure import Figure

    rows = {"all": found.total, **found.by_shape}
    places = [0.0, *(place + 1.3 for place in range(len(found.by_shape)))]
    title, below = textwrap.wrap(f"Shape or texture: what {net} goes by", 78), textwrap.wrap(note, 125)
    head = 0.26 * len(title) + 0.19 * len(below) + 0.12
    high = head + 0.42 * len(rows) + 2.0
    figure = Figure(figsize=(9.6, high), dpi=110, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.16, h_pad=0.1, rect=(0, 0, 1, 1 - head / high))  # type: ignore[union-attr]
    axes = figure.subplots()
    _bars(axes, rows, places)
    _line(axes, net, found.total, places)
    _points(axes, rows, places)
    _frame(axes, rows, places)
    top = 1 - 0.13 / high
    lower = top - 0.28 * len(title) / high
    plain: dict[str, Any] = {"va": "top", "parse_math": False}  # the name of a network may have a $
    figure.text(0.017, top, "\n".join(title), size=14, color=_INK, **plain)
    figure.text(0.017, lower, "\n".join(below), size=9.5, color=_SOFT, linespacing=1.4, **plain)
    legend = figure.legend(
        loc="outside lower left",
        ncols=3,
        frameon=False,
        fontsize=9,
        labelcolor=_INK,
        handletextpad=0.7,
        columnspacing=2.6,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return drawn(figure)


def _bars(axes: Any, rows: Mapping[str, Tally], places: Sequence[float]) -> None:
    """Decisions by neither are left out, so that both parts fill the row; a row without any others stays empty."""
    shares = [(row.bias.mean, 1 - row.bias.mean) if row.bias else (0.0, 0.0) for row in rows.values()]
    shape, texture = (np.array(part) for part in zip(*shares, strict=True))
    axes.barh(places, shape, height=0.66, color=_GLOW, label="decided by shape")
    axes.barh(places, texture, left=shape, height=0.66, color=_PALE, label="decided by texture")


def _line(axes: Any, net: str, total: Tally, places: Sequence[float]) -> None:
    """The network's shape bias over all rows, with its interval."""
    bias = total.bias
    if bias is None:
        return
    name = net if len(net) <= 28 else f"...{net[-25:]}"
    axes.axvspan(bias.low, bias.high, color=_INK, alpha=0.07, linewidth=0, zorder=0.5)
    label = f"mean and 95% interval, {name}"
    axes.axvline(bias.mean, color=_INK, linewidth=1.3, linestyle=(0, (4, 2)), zorder=3, label=label)
    right = bias.mean > 0.5
    axes.annotate(
        f"{bias.mean:.1%}", (bias.mean, places[0] - 0.56), (-4 if right else 4, 0), textcoords="offset points",
        ha="right" if right else "left", va="center", fontsize=10.5, color=_INK,
    )  # fmt: skip


def _points(axes: Any, rows: Mapping[str, Tally], places: Sequence[float]) -> None:
    """People and published networks, a little above and below one another, as they are often near."""
    categories = [name for name in rows if name != "all"]
    known = {one.name: one for one in published()}
    for name, (marker, colour, lane) in _DRAWN.items():
        one = known[name]
        tallies = [one.over(categories), *(one.by_shape[category] for category in categories)]
        found = [(tally.bias.mean, place + lane) for tally, place in zip(tallies, places, strict=True) if tally.bias]
        across, down = zip(*found, strict=True)
        axes.plot(
            across, down, marker, color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=0.8, label=one.title,
            clip_on=False, zorder=4,
        )  # fmt: skip


def _frame(axes: Any, rows: Mapping[str, Tally], places: Sequence[float]) -> None:
    axes.set_xlim(0, 1)
    axes.set_ylim(places[-1] + 0.5, places[0] - 0.85)
    axes.set_yticks(places, ["all" if name == "all" else f"shape of {_article(name)}" for name in rows])
    axes.set_xticks(np.linspace(0, 1, 5), ["0%", "25%", "50%", "75%", "100%"])
    axes.set_xlabel("decisions by shape, of those by shape or by texture", fontsize=9, color=_SOFT)
    counts = axes.secondary_yaxis("right")
    words = [f"{row.shape} : {row.texture}  of {row.images:,}" for row in rows.values()]
    counts.set_yticks([places[0] - 0.56, *places], ["shape : texture", *words])
    counts.tick_params(labelsize=9, colors=_SOFT, length=0, pad=8)
    counts.spines["right"].set_visible(False)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(labelsize=9.5, colors=_INK, length=0)
    axes.tick_params(axis="y", pad=9)  # room for points at 0%


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "aeo" else f"a {name}"
