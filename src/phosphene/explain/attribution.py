"""What every explanation returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from phosphene.explain.target import Aim


@dataclass(frozen=True, eq=False)
class Attribution:
    """Which pixels matter.

    For K classes per image (a target `[N, K]`) each shape has the K after the N.

    Attributes:
        method: the method's name, as the command line writes it.
        maps: `[N, H, W]`, one value per pixel of the input; signed unless the method's formula makes it non-negative.
        scores: `[N]`, the value that was explained: the logit of the class, or the neuron's activation.
        gradient: `[N, 3, H, W]` for methods that have a value per colour, else None.
        layer: the layer that a heat map was computed at, else None.
        layer_maps: `[N, h, w]`, the heat map at that layer's own resolution, else None.
        error: `[N]`, for methods that promise that their values add up to something: by which share of it they miss.
    """

    method: str
    maps: Tensor
    scores: Tensor
    gradient: Tensor | None = None
    layer: str | None = None
    layer_maps: Tensor | None = None
    error: Tensor | None = None


def attribution(
    method: str,
    aim: Aim,
    maps: Tensor,
    scores: Tensor,
    *,
    gradient: Tensor | None = None,
    layer: str | None = None,
    layer_maps: Tensor | None = None,
    error: Tensor | None = None,
) -> Attribution:
    """An Attribution from tensors `[N, K, ...]`, in the shape that the caller asked for and without a graph."""

    def given(values: Tensor | None) -> Tensor | None:
        return None if values is None else aim.shaped(values.detach())

    return Attribution(
        method=method,
        maps=aim.shaped(maps.detach()),
        scores=aim.shaped(scores.detach()),
        gradient=given(gradient),
        layer=layer,
        layer_maps=given(layer_maps),
        error=given(error),
    )
