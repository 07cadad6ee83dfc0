"""Maps that know nothing of the network. A method that does not do better than these explains nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from phosphene.explain.variants import generator


def centre(images: Tensor, first: int = 0, seed: int = 0) -> Tensor:
    """A Gaussian in the middle, its standard deviation a quarter of each side: photographers centre things.

    Args:
        images: `[N, 3, H, W]`; only their size counts.
        first, seed: as of `random`; nothing is random here.

    Returns:
        Maps `[N, H, W]`, at most 1, largest in the middle.
    """
    height, width = images.shape[-2:]
    rows, columns = (torch.exp(-0.5 * ((torch.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in (height, width))
    return (rows[:, None] * columns).to(images).expand(len(images), height, width)


def random(images: Tensor, first: int = 0, seed: int = 0) -> Tensor:
    """Uniform noise, a value per pixel.

    Args:
        images: `[N, 3, H, W]`; only their size counts.
        first: the number of the first image, so that an image has the same noise in whatever batch it is.
        seed: of the noise.

    Returns:
        Maps `[N, H, W]` in [0, 1).
    """
    size = images.shape[-2:]
    return torch.stack([torch.rand(size, generator=generator(seed, first + i)) for i in range(len(images))]).to(images)


BASELINES: dict[str, Callable[[Tensor, int, int], Tensor]] = {"centre": centre, "random": random}
"""Name -> `(images, first, seed) -> maps`."""
