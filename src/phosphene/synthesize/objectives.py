"""What an image is moved towards: f(I), one value per image of the batch, to be maximised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.errors import LayerError
from phosphene.models import Network, Unit
from phosphene.synthesize.natural import Natural
from phosphene.synthesize.targets import Direction

Objective: TypeAlias = Callable[[Tensor], Tensor]
"""Images `[N, 3, H, W]` in [0, 1] to values `[N]`."""


@dataclass(frozen=True)
class Divisible:
    """An objective that can also be had for some of its images alone: `part(places)` takes these, in this order."""

    whole: Objective
    part: Callable[[Sequence[int]], Objective]

    def __call__(self, images: Tensor) -> Tensor:
        """Of all images."""
        return self.whole(images)


def class_scores(
    network: Network,
    classes: Sequence[int],
    *,
    contrast: float = 0.0,
    natural: Natural | None = None,
    weight: float = 0.0,
) -> Objective:
    """S_c(I), the score before the softmax, of class `classes[n]` for image n.

    Args:
        network: one that classifies.
        classes: their indices.
        contrast: `S_c - contrast log sum_k exp S_k`: how much the scores of all classes count against that of the class;
            0 is the slide's objective, 1 the log-probability.
        natural: how channels behave on photographs; None: no such prior.
        weight: how much `natural.spread` times `natural.distance` is subtracted.

    Raises:
        LabelError, NetworkError: no such class, no classes.
    """
    chosen = torch.tensor(network.classes(classes), device=network.device)
    through = network.reader(list(natural.layers) if natural else [], to_end=True)

    def objective(images: Tensor) -> Tensor:
        found = through(images)
        scores = found[""].gather(1, chosen[:, None])[:, 0]
        if contrast:
            scores = scores - contrast * found[""].logsumexp(1)
        return scores - weight * natural.spread * natural.distance(found) if natural else scores

    def part(places: Sequence[int]) -> Objective:
        some = [classes[place] for place in places]
        return class_scores(network, some, contrast=contrast, natural=natural, weight=weight)

    return Divisible(objective, part)


def unit_activations(network: Network, units: Sequence[Unit | Direction]) -> Objective:
    """Activation of `units[n]` for image n: the mean of a channel or a direction, or the one neuron that a unit names.

    The units belong to one layer; the forward pass stops there. Raises LayerError.
    """
    layer = units[0].layer
    for unit in units:
        if unit.layer != layer:
            raise LayerError(f"units of two layers, '{layer}' and '{unit.layer}': visualize one layer at a time")
        unit.check(network)
    read = _reader(network, units)
    through = network.reader([layer])
    return Divisible(
        lambda images: read(through(images)[layer]),
        lambda places: unit_activations(network, [units[place] for place in places]),
    )


def _reader(network: Network, units: Sequence[Unit | Direction]) -> Callable[[Tensor], Tensor]:
    """Activations `[N, C, ...]` of a layer to the value of `units[n]` for image n, `[N]`."""
    plain = [unit for unit in units if isinstance(unit, Unit)]
    if len(plain) == len(units):
        channels = torch.tensor([unit.channel for unit in plain], device=network.device)

        def read(activation: Tensor) -> Tensor:
            index = channels.view(-1, *[1] * (activation.ndim - 1)).expand(-1, 1, *activation.shape[2:])
            maps = activation.gather(1, index)[:, 0]
            return torch.stack([_value(single, unit) for single, unit in zip(maps, plain, strict=True)])

        return read
    return lambda activation: torch.stack(
        [
            _value(one[unit.channel], unit) if isinstance(unit, Unit) else _along(one, unit.vector)
            for one, unit in zip(activation, units, strict=True)
        ]
    )


def _along(activation: Tensor, vector: Tensor) -> Tensor:
    """Mean over the places of `<vector, activation [C, ...]>`."""
    return (
        activation.flatten(1).mean(1) @ vector.to(activation)
        if activation.ndim > 1
        else activation @ vector.to(activation)
    )


def _value(single: Tensor, unit: Unit) -> Tensor:
    if unit.position is None:
        return single.mean()
    if any(place >= side for place, side in zip(unit.position, single.shape, strict=True)):
        sides = "x".join(map(str, single.shape))
        raise LayerError(f"layer '{unit.layer}' is a map of {sides} at this size: there is no position {unit.position}")
    return single[unit.position]


def different(network: Network, objective: Objective, layer: str, groups: Sequence[int], weight: float) -> Objective:
    """The objective, less what images of one group have in common: several pictures of a unit that differ.

        f(I_n) - weight |f(I_n)| mean_m cos(G(I_n), G(I_m)),   G = F F^T

    over the other images m of its group, where F `[C, places]` are the activations of `layer`.

    Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017, section "Diversity".
    """
    together = [
        torch.tensor([place for place, each in enumerate(groups) if each == group], device=network.device)
        for group in dict.fromkeys(groups)
        if groups.count(group) > 1
    ]
    through = network.reader([layer])

    def changed(images: Tensor) -> Tensor:
        value = objective(images)
        features = through(images)[layer].flatten(2)
        gram = (features @ features.transpose(1, 2)).flatten(1)
        directions = gram / gram.norm(dim=1, keepdim=True).clamp(min=1e-12)
        alike = torch.zeros_like(value)
        for group in together:  # each by itself, for NaN would get from one to the others, also times 0
            cosines = directions[group] @ directions[group].T
            alike = alike.index_add(0, group, (cosines.sum(1) - cosines.diagonal()) / (len(group) - 1))
        return value - weight * value.detach().abs() * alike

    return changed
