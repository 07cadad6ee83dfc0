"""The least size of a picture that a layer can see."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch

from phosphene.models import Network

_KNOWN: WeakKeyDictionary[Network, dict[str, int]] = WeakKeyDictionary()


def smallest_side(network: Network, layer: str | None) -> int:
    """The smallest n such that an image of n x n pixels reaches `layer` (None: the network's output) and gives a map there.

    Found by bisection below the network's input size: smaller ones fail in a kernel that is larger than its map, or in a
    pooling that leaves nothing.
    """
    known = _KNOWN.setdefault(network, {})
    key = layer or ""
    if key not in known:
        known[key] = _bisect(network, layer)
    return known[key]


def _bisect(network: Network, layer: str | None) -> int:
    low, high = 0, min(network.input_size)  # low fails, high works
    while high - low > 1:
        middle = (low + high) // 2
        if _works(network, layer, middle):
            high = middle
        else:
            low = middle
    return high


def _works(network: Network, layer: str | None, side: int) -> bool:
    image = torch.zeros((1, 3, side, side), device=network.device)
    try:
        with torch.no_grad():
            found = network.output(image) if layer is None else network.activations(image, layer)
    except Exception:  # a network may complain about a size in any way
        return False
    return found.numel() > 0
