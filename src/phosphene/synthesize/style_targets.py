"""What a picture is compared with: features of the content, moments of the styles; at once or block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.models import Network
from phosphene.synthesize.blocks import blocks
from phosphene.synthesize.gram import moments
from phosphene.synthesize.style_loss import reaches, summed


def features_of(network: Network, image: Tensor, layers: Sequence[str], block: int | None) -> dict[str, Tensor]:
    """Layer -> features `[1, C, h, w]` of `[1, 3, H, W]`, read in blocks of this side if one is given."""
    if block is None or not layers:
        return network.record(image, layers) if layers else {}
    size = (image.shape[2], image.shape[3])
    known = reaches(network, layers)
    read = network.reader(layers)
    found: dict[str, Tensor] = {}
    rows: dict[str, list[list[Tensor]]] = {layer: [] for layer in layers}
    top = -1
    for part in blocks(size, list(known.values()), block):
        if part.rows.core_start != top:
            top = part.rows.core_start
            for layer in layers:
                rows[layer].append([])
        with torch.no_grad():
            features = read(part.cut(image))
        for layer in layers:
            rows[layer][-1].append(part.core(features[layer], known[layer], size).clone())
    for layer in layers:
        found[layer] = torch.cat([torch.cat(row, 3) for row in rows[layer]], 2)
    return found


def moments_of(network: Network, image: Tensor, layers: Sequence[str], block: int | None) -> dict[str, Tensor]:
    """Layer -> `G / M [1, C, C]` of `[1, 3, H, W]`."""
    if block is None or not layers:
        return {layer: moments(found) for layer, found in features_of(network, image, layers, None).items()}
    size = (image.shape[2], image.shape[3])
    known = reaches(network, layers)
    parts = blocks(size, list(known.values()), block)
    sums = summed(network.reader(layers), image, layers, parts, known, size)
    return {layer: products / places[:, None, None] for layer, (products, places) in sums.items()}


def blended(parts: Sequence[dict[str, Tensor]], shares: Sequence[float]) -> dict[str, Tensor]:
    """The moments of several styles as one target: their mean by `shares`.

    `sum_s v_s E(G, A_s)` and `E(G, sum_s v_s A_s)` differ by a constant where the shares sum to 1, so their gradients are
    the same.
    """
    total = sum(shares)
    return {
        layer: torch.stack([part[layer] * (share / total) for part, share in zip(parts, shares, strict=True)]).sum(0)
        for layer in parts[0]
    }


def guides_of(masks: Tensor, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Masks `[R, H, W]` in [0, 1] at the size of each layer's map: the mean over the pixels of a place."""
    return {layer: F.interpolate(masks[None], size, mode="area")[0] for layer, size in sizes.items()}


def map_sizes(
    network: Network, size: tuple[int, int], layers: Sequence[str], block: int | None
) -> dict[str, tuple[int, int]]:
    """Height and width of each layer's map for a picture of `size`."""
    blank = torch.full((1, 3, *size), 0.5, device=network.device)
    if block is None:
        return {layer: (found.shape[2], found.shape[3]) for layer, found in network.record(blank, layers).items()}
    known = reaches(network, layers)
    read = network.reader(layers)
    ends: dict[str, tuple[int, int]] = dict.fromkeys(layers, (0, 0))
    for part in blocks(size, list(known.values()), block):
        if part.rows.core_stop < size[0] and part.columns.core_stop < size[1]:
            continue  # only the last row and column of blocks tell where the map ends
        with torch.no_grad():
            features = read(part.cut(blank))
        for layer in layers:
            rows, columns = part.place(part.core(features[layer], known[layer], size), known[layer])
            ends[layer] = max(ends[layer][0], rows.stop), max(ends[layer][1], columns.stop)
    return ends
