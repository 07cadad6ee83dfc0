"""It's easy to visualize early layers: the filters of the first convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.models import cache, registry
from phosphene.models.bundled import BUNDLED
from phosphene.names import file_name
from phosphene.progress import Job
from phosphene.report.page import Section
from phosphene.report.stage import Stage, figure

TITLE = "First layers are easy to see"


def make(stage: Stage) -> Job[Section | None]:
    """The first layers of the tour's network, of the bundled ones, and of VGG-16 where its weights are here."""
    nets = [stage.net, *(net for net in _others() if net != stage.net)]
    figures, note, answer, fitted = [], "", "", None
    for net in nets:
        try:
            outcome = yield from stage.run("filters", _parameters(stage, net), part=file_name(net))
        except PhospheneError as refusal:  # a first layer that doesn't see the image, or other weights than we know
            note = f"{refusal}." if net == stage.net else note
            continue
        picture = outcome.pictures[0]
        count, channels, height, width = outcome.facts["shape"]
        figures.append(figure(picture, caption=f"*{net}*: {count} × {channels} × {height} × {width}"))
        if "gabor" in outcome.facts:
            answer = _answer(net, outcome.facts["gabor"])
            fitted = figure(outcome.picture("gabor"), caption="Each filter beside its Gabor function.", wide=True)
    figures += [fitted] if fitted is not None else []
    return Section(
        key="filters",
        title=TITLE,
        slide="First Layer: Visualize Filters",
        formula=(r"A_k = \sum_c W_{k,c} * I_c + b_k",),
        figures=tuple(figures),
        words=(
            "The weights of the first convolution act on the colours of pixels, so they *are* pictures: grey means zero,"
            " and each filter is stretched to its own largest weight. Whatever the architecture and the training set, the"
            " same families appear: edges in several directions, and blobs that compare a colour with its opposite. The"
            " visual cortex begins with much the same." + answer,
            "Deeper weights act on the features before them, not on colours, and can't be looked at like this. For those"
            " we have to ask the network.",
        ),
        note=note,
        command=f"{command_line('filters', stage.source())} --gabor",
        seconds=0,
    )


def _others() -> list[str]:
    return [*BUNDLED, "vgg16"] if cache.find(registry.file_names("vgg16")) is not None else list(BUNDLED)


def _parameters(stage: Stage, net: str) -> dict[str, str | bool | None]:
    return {**stage.source(net), "gabor": net == stage.net}


def _answer(net: str, facts: Mapping[str, Any]) -> str:
    """Can we characterise filters mathematically?"""
    return (
        f" *Can they be characterised mathematically?* A Gabor function, a wave under a Gaussian window, explains"
        f" {facts['mean']:.0%} of a filter of {net} on average, where it explains {facts['chance']:.0%} of noise of the same"
        f" size and colours; {facts['above']} of {len(facts['filters'])} filters are nearer to one than 95% of the noise."
    )
