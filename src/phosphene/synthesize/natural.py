"""A prior from photographs: channels of a class image should be about as active, and as varied, as they are on photographs.

    R(I) = 1/L sum_l 1/C_l sum_c ((m_lc(I) - M_lc) / S_lc)^2 + ((d_lc(I) - D_lc) / T_lc)^2

m and d are the mean and the standard deviation over the places of channel c of layer l; M and S the mean and spread of m over
many photographs, D and T those of d. A photograph of their kind has R = 2 on average.

Yin et al., "Dreaming to Distill", CVPR 2020, section 3.2, compare a batch with the statistics that its batch norms keep. Here
each image stands alone, and networks without batch norms have the prior too, from the photographs themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.models.weights import digest, read_state_dict, save_state_dict
from phosphene.observe.landmarks import landmarks
from phosphene.observe.patches import Pictures, readable
from phosphene.progress import Job, Started, Step

SHIPPED = Path(__file__).with_name("data")
LEAST = 0.05
"""Spreads count as at least this share of their layer's mean: a channel that is silent on photographs may still move."""
_SPREAD = "spread of the scores"
FEWEST = 8
"""Photographs that tell a spread."""


@dataclass(frozen=True)
class Natural:
    """What is natural for a network.

    Attributes:
        layers: for each layer `[4, C]`, the rows M, S, D, T of the formula.
        spread: the standard deviation of a photograph's scores over the classes, on average; distances are weighed by it,
            so that a weight means the same for networks whose scores are large and small. 1 without classes.
    """

    layers: Mapping[str, Tensor]
    spread: float = 1.0

    def distance(self, found: Mapping[str, Tensor]) -> Tensor:
        """R of each image, `[N]`, from the outputs `[N, C, H, W]` of the layers; differentiable."""
        parts = [_distance(found[layer], table) for layer, table in self.layers.items()]
        return torch.stack(parts).mean(0)

    def to(self, like: Tensor) -> Natural:
        """The same where `like` is, in its type."""
        return Natural({layer: table.to(like) for layer, table in self.layers.items()}, self.spread)

    def write(self, path: Path) -> None:
        """Into a safetensors file, in half precision."""
        tables = {layer: table.half().cpu() for layer, table in self.layers.items()}
        save_state_dict({**tables, _SPREAD: torch.tensor([self.spread])}, path)


def _distance(activation: Tensor, table: Tensor) -> Tensor:
    deviation, mean = _moments(activation)
    return (((mean - table[0]) / table[1]).square() + ((deviation - table[2]) / table[3]).square()).mean(1)


def _moments(activation: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean over the places, each `[N, C]`; see `Moments`."""
    deviation, mean = Moments.apply(activation)  # pyright: ignore[reportGeneralTypeIssues]
    return deviation, mean


class Moments(torch.autograd.Function):
    """Standard deviation `sqrt(var + 1e-6)` and mean over the places of maps `[N, C, H, W]`, each `[N, C]`.

    `torch.var_mean` and its gradient take four times as long: here each way is one pass over maps that lie in memory
    channel after channel.
    """

    @staticmethod
    def forward(ctx: Any, activation: Tensor) -> tuple[Tensor, Tensor]:
        """The moments, by E[x^2] - E[x]^2."""
        rows = activation.permute(0, 2, 3, 1).flatten(1, 2)
        share = rows.new_full((1, 1, rows.shape[1]), 1 / rows.shape[1]).expand(len(rows), 1, -1)
        mean = torch.bmm(share, rows)[:, 0]
        variance = torch.bmm(share, rows.square())[:, 0] - mean.square()
        deviation = (variance.clamp(min=0) + 1e-6).sqrt()
        ctx.save_for_backward(activation, deviation, mean)
        return deviation, mean

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`(g_m + g_d (x - m) / d) / n`."""
        activation, deviation, mean = ctx.saved_tensors
        along = slopes[0] / deviation / activation[0, 0].numel()
        constant = slopes[1] / activation[0, 0].numel() - along * mean
        return torch.addcmul(constant[..., None, None], activation, along[..., None, None])


def natural_layers(network: Network) -> list[str]:
    """The landmarks of a network but for its last: what belongs to a class has to stand out there."""
    return landmarks(network)[:-1]


def measure(network: Network, pictures: Pictures) -> Job[Natural]:
    """What is natural for a network, from photographs, which are read, run and forgotten a few at a time.

    Args:
        network: with maps in more than one layer.
        pictures: photographs of what it was trained on; a few hundred are enough.

    Raises:
        LayerError: the network has no maps.
        PhospheneError: it has but one layer with maps, fewer than 8 images can be read, or it sees NaN in them.
    """
    layers = natural_layers(network)
    if not layers:
        raise PhospheneError(f"{network.name} has a single layer with maps: there is nothing to compare but its target")
    yield Started("measure what is natural", len(pictures), "image")
    seen: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    spreads: list[Tensor] = []
    read = network.reader(layers, to_end=network.classifies)
    together = network.batch_size(network.input_size)
    skipped: dict[int, str] = {}
    for start in range(0, len(pictures), together):
        images = readable(pictures, range(start, min(start + together, len(pictures))), skipped)
        if images:
            with torch.no_grad():
                found = read(torch.stack(list(images.values())).to(network.mean))
            for layer in layers:
                seen[layer].append(torch.stack(_moments(found[layer]), 1))
            if network.classifies:
                spreads.append(found[""].std(1))
        yield Step(min(start + together, len(pictures)))
    count = len(pictures) - len(skipped)
    if count < FEWEST:
        raise PhospheneError(f"what is natural shows in at least {FEWEST} photographs, but only {count} can be read")
    tables = {layer: _table(torch.cat(parts)) for layer, parts in seen.items()}
    if not all(bool(table.isfinite().all()) for table in tables.values()):
        raise PhospheneError(f"{network.name} gives NaN or infinity for some of the photographs")
    return Natural(tables, float(torch.cat(spreads).mean()) if spreads else 1.0)


def _table(moments: Tensor) -> Tensor:
    """`[N, 2, C]`, deviation and mean of each image, to the rows M, S, D, T."""
    spread, middle = torch.std_mean(moments, 0)
    spread = spread.clamp(min=1e-6).maximum(LEAST * spread.mean(1, keepdim=True))
    return torch.stack([middle[1], spread[1], middle[0], spread[0]])


def file_name(weights: str) -> str:
    """Of the table that belongs to weights with this digest."""
    return f"natural-{weights[:16]}.safetensors"


def shipped(network: Network) -> Natural | None:
    """What is natural for a bundled network, measured on 500 photographs; None for other weights."""
    path = SHIPPED / file_name(digest(network.module.state_dict()))
    if not path.is_file():
        return None
    tables = read_state_dict(path)
    spread = float(tables.pop(_SPREAD))
    return Natural(tables, spread).to(network.mean)
