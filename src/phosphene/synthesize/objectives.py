"""What an image is moved towards: f(I), one value per image of the batch, to be maximised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.errors import LayerError
from phosphene.models import Network, Unit

Objective: TypeAlias = Callable[[Tensor], Tensor]
"""Images `[N, 3, H, W]` in [0, 1] to values `[N]`."""


def class_scores(network: Network, classes: Sequence[int]) -> Objective:
    """S_c(I), the score before the softmax, of class `classes[n]` for image n. Raises LabelError, NetworkError."""
    chosen = torch.tensor(network.classes(classes), device=network.device)

    def objective(images: Tensor) -> Tensor:
        return network.logits(images).gather(1, chosen[:, None])[:, 0]

    return objective


def unit_activations(network: Network, units: Sequence[Unit]) -> Objective:
    """Activation of unit `units[n]` for image n: the mean of its channel, or the one neuron that it names.

    The units belong to one layer; the forward pass stops there. Raises LayerError.
    """
    layer = units[0].layer
    for unit in units:
        if unit.layer != layer:
            raise LayerError(f"units of two layers, '{layer}' and '{unit.layer}': visualize one layer at a time")
        unit.check(network)
    channels = torch.tensor([unit.channel for unit in units], device=network.device)

    def objective(images: Tensor) -> Tensor:
        activation = network.activations(images, layer)
        index = channels.view(-1, *[1] * (activation.ndim - 1)).expand(-1, 1, *activation.shape[2:])
        maps = activation.gather(1, index)[:, 0]
        return torch.stack([_value(single, unit) for single, unit in zip(maps, units, strict=True)])

    return objective


def _value(single: Tensor, unit: Unit) -> Tensor:
    if unit.position is None:
        return single.mean()
    if any(place >= side for place, side in zip(unit.position, single.shape, strict=True)):
        sides = "x".join(map(str, single.shape))
        raise LayerError(f"layer '{unit.layer}' is a map of {sides} at this size: there is no position {unit.position}")
    return single[unit.position]
