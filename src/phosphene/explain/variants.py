"""Many changed copies of each image, in batches that fit into memory: what sampling and perturbing methods share."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from phosphene.models import Network


def pairs(network: Network, images: Tensor, variants: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Every pair of an image and a variant of it: `(rows [B], variants [B])`, image by image, in batches of memory size."""
    every = torch.arange(len(images) * variants)
    for part in every.split(network.batch_size(images.shape[-2:])):
        yield part // variants, part % variants


def generator(seed: int, variant: int) -> torch.Generator:
    """Random numbers of one variant, the same whatever batch it is in."""
    return torch.Generator().manual_seed((seed * 1_000_003 + variant) % 2**63)
