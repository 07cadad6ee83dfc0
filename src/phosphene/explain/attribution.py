"""What every explanation returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Attribution:
    """Which pixels matter.

    Attributes:
        method: the method's name, as the command line writes it.
        maps: `[N, H, W]`, one value per pixel of the input; signed unless the method's formula makes it non-negative.
        scores: `[N]`, the value that was explained: the logit of the class, or the neuron's activation.
        gradient: `[N, 3, H, W]` for methods that have a value per colour, else None.
        layer: the layer that a heat map was computed at, else None.
        layer_maps: `[N, h, w]`, the heat map at that layer's own resolution, else None.
    """

    method: str
    maps: Tensor
    scores: Tensor
    gradient: Tensor | None = None
    layer: str | None = None
    layer_maps: Tensor | None = None
