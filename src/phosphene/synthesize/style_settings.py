"""How a style is transferred: layers, weights, sizes, colours, the optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from phosphene.errors import PhospheneError
from phosphene.synthesize.descent import HISTORY, OptimiserName
from phosphene.synthesize.settings import CanvasName

Start: TypeAlias = Literal["content", "style", "random"]
Colours: TypeAlias = Literal["style", "luminance", "matched"]
Pooling: TypeAlias = Literal["max", "average"]

SMALLEST = 128
"""Pixels of the longer side with which coarse-to-fine begins by itself."""


@dataclass(frozen=True)
class StyleSettings:
    """How a style is transferred. What is None is chosen for the network and the size.

    Attributes:
        content_weight, style_weight: alpha and beta.
        content_layers: of the content loss; empty: what suits the network.
        style_layers: of the style loss; empty: what suits the network.
        layer_weights: w_l of each style layer; empty: such that each counts the same where the picture begins.
        raw: leave the losses as the formulas give them, instead of dividing them by their values at the beginning.
        tv: weight of total variation, relative to that of the content picture.
        pooling: `max`, the network's own, or `average`.
        canvas: `pixel` or `fourier`; None: what suits the network.
        optimiser: `lbfgs` or `adam`.
        history: pairs of steps and gradients that L-BFGS remembers.
        rate: L-BFGS: share of its own step; Adam: its learning rate. None: 1 and 0.02.
        steps: at the final size, and at each smaller one.
        scales: sizes of the picture, each twice the one before, the last its own; None: from `SMALLEST` pixels on.
        start: what it begins with.
        style_scale: longer side of the styles over that of the picture.
        colours: of the style; or of the content, by transferring the luminance alone or by giving its colours to the style.
        block: side of the blocks in which pictures beyond memory are read; None: as memory allows; 0: never.
    """

    content_weight: float = 1.0
    style_weight: float = 20.0
    content_layers: Sequence[str] = ()
    style_layers: Sequence[str] = ()
    layer_weights: Sequence[float] = ()
    raw: bool = False
    tv: float = 0.0
    pooling: Pooling = "max"
    canvas: CanvasName | None = None
    optimiser: OptimiserName = "lbfgs"
    history: int = HISTORY
    rate: float | None = None
    steps: int = 150
    scales: int | None = None
    start: Start = "content"
    style_scale: float = 1.0
    colours: Colours = "style"
    block: int | None = None

    def check(self) -> None:
        """Raise a PhospheneError for what is out of range."""
        for name, known in (("start", Start), ("colours", Colours), ("pooling", Pooling), ("optimiser", OptimiserName)):
            if getattr(self, name) not in get_args(known):
                raise PhospheneError(f"no {name} '{getattr(self, name)}': {' or '.join(get_args(known))}")
        for name in ("content_weight", "style_weight", "tv"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise PhospheneError(f"a {name.replace('_', ' ')} is a number from 0 up, got {value}")
        if self.content_weight == 0 and self.style_weight == 0:
            raise PhospheneError("content weight and style weight are both 0: nothing would move the picture")
        if self.layer_weights:
            check_shares(self.layer_weights, "layer weights")
        if self.steps < 1:
            raise PhospheneError(f"steps start at 1, got {self.steps}")
        if not 1 <= self.history <= 1000:
            raise PhospheneError(f"L-BFGS remembers 1 to 1000 steps, got {self.history}")
        if self.rate is not None and not 0 < self.rate <= 100:
            raise PhospheneError(f"a rate lies above 0 and at most at 100, got {self.rate}")
        if self.scales is not None and not 1 <= self.scales <= 8:
            raise PhospheneError(f"a picture has 1 to 8 scales, got {self.scales}")
        if not 0.05 <= self.style_scale <= 20:
            raise PhospheneError(f"a style scale lies between 0.05 and 20, got {self.style_scale}")
        if self.block is not None and self.block and self.block < 64:
            raise PhospheneError(f"a block has at least 64 pixels a side (0: no blocks), got {self.block}")

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """The sizes (height, width) that lead to `size`, smallest first."""
        longer = max(size)
        scales = self.scales if self.scales is not None else 1 + max(0, math.floor(math.log2(longer / SMALLEST) + 1e-9))
        halves = [2 ** (scales - 1 - number) for number in range(scales)]
        return [(max(1, round(size[0] / half)), max(1, round(size[1] / half))) for half in halves]


def check_shares(values: Sequence[float], what: str) -> None:
    """Raise a PhospheneError unless these are numbers from 0 up that are not all 0."""
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise PhospheneError(f"{what} are numbers from 0 up, got {', '.join(f'{value:g}' for value in values)}")
    if not any(values):
        raise PhospheneError(f"the {what} are all 0: give one of them more")
