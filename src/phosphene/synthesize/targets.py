"""What can be visualized: a class, a unit, or a direction, which weighs the channels of a layer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.errors import LayerError
from phosphene.models import Network, Unit


@dataclass(frozen=True, eq=False)
class Direction:
    """The mean over a layer's places of `<vector, activation>`: `vector [C]`, one weight for each channel."""

    layer: str
    vector: Tensor
    name: str = "direction"

    def __str__(self) -> str:
        return f"{self.layer}:{self.name}"

    def check(self, network: Network) -> Direction:
        """Itself, if it fits the layer. Raises LayerError."""
        shape = network.layer(self.layer).shape
        channels = shape[0] if shape else 0
        if self.vector.ndim != 1 or len(self.vector) != channels:
            raise LayerError(
                f"layer '{self.layer}' has {channels} channels, and a direction of it as many weights:"
                f" got {list(self.vector.shape)}"
            )
        if not bool(torch.isfinite(self.vector).all()) or not bool(self.vector.any()):
            raise LayerError(f"a direction of '{self.layer}' has finite weights that are not all zero")
        return self


Target: TypeAlias = int | str | Unit | Direction
"""A class by index or name, a unit, or a direction."""

_TERM = re.compile(r"([+-])?(?:(\d+(?:\.\d+)?)\*)?(\d+)")


def parse_channels(network: Network, layer: str, text: str) -> Unit | Direction:
    """`12` to a unit, `12:3:4` to a neuron, `12-40` or `0.5*12+7-40` to a direction, all of `layer`. Raises LayerError."""
    place = re.fullmatch(r"(\d+)(?::(\d+)[:,](\d+))?", text)
    if place is not None:
        position = (int(place[2]), int(place[3])) if place[2] is not None else None
        return Unit(layer, int(place[1]), position).check(network)
    terms = list(_TERM.finditer(text))
    if not terms or "".join(term[0] for term in terms) != text or any(not term[1] for term in terms[1:]):
        raise LayerError(
            f"'{text}' is no unit of '{layer}': write a channel (12), a neuron (12:3:4), or channels added and taken away"
            " (12-40, 0.5*12+7)"
        )
    shape = network.layer(layer).shape
    vector = torch.zeros(shape[0] if shape else 0)
    for sign, weight, channel in (term.groups() for term in terms):
        Unit(layer, int(channel)).check(network)
        vector[int(channel)] += float(weight or 1) * (-1 if sign == "-" else 1)
    return Direction(layer, vector, text).check(network)
