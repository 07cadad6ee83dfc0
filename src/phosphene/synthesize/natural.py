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
FEWEST = 8
"""Photographs that tell a spread."""


@dataclass(frozen=True)
class Natural:
    """What is natural for a network: for each layer `[4, C]`, the rows M, S, D, T of the formula."""

    layers: Mapping[str, Tensor]

    def distance(self, found: Mapping[str, Tensor]) -> Tensor:
        """R of each image, `[N]`, from the outputs `[N, C, H, W]` of the layers; differentiable."""
        parts = [_distance(found[layer], table) for layer, table in self.layers.items()]
        return torch.stack(parts).mean(0)

    def to(self, like: Tensor) -> Natural:
        """The same where `like` is, in its type."""
        return Natural({layer: table.to(like) for layer, table in self.layers.items()})

    def write(self, path: Path) -> None:
        """Into a safetensors file, in half precision."""
        save_state_dict({layer: table.half().cpu() for layer, table in self.layers.items()}, path)


def _distance(activation: Tensor, table: Tensor) -> Tensor:
    deviation, mean = _moments(activation)
    return (((mean - table[0]) / table[1]).square() + ((deviation - table[2]) / table[3]).square()).mean(1)


def _moments(activation: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean over the places, each `[N, C]`."""
    variance, mean = torch.var_mean(activation, (2, 3), correction=0)
    return (variance + 1e-6).sqrt(), mean


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
    together = network.batch_size(network.input_size)
    skipped: dict[int, str] = {}
    for start in range(0, len(pictures), together):
        images = readable(pictures, range(start, min(start + together, len(pictures))), skipped)
        if images:
            found = network.record(torch.stack(list(images.values())).to(network.mean), layers)
            for layer in layers:
                seen[layer].append(torch.stack(_moments(found[layer]), 1))
        yield Step(min(start + together, len(pictures)))
    count = len(pictures) - len(skipped)
    if count < FEWEST:
        raise PhospheneError(f"what is natural shows in at least {FEWEST} photographs, but only {count} can be read")
    tables = {layer: _table(torch.cat(parts)) for layer, parts in seen.items()}
    if not all(bool(table.isfinite().all()) for table in tables.values()):
        raise PhospheneError(f"{network.name} gives NaN or infinity for some of the photographs")
    return Natural(tables)


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
    return Natural(read_state_dict(path)).to(network.mean)
