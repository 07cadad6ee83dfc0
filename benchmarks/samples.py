"""Photographs for the benchmarks: the shared ImageNet samples where they are, scikit-image's own elsewhere."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from phosphene import images
from phosphene.models import Network

SHARED = Path(os.environ.get("PHOSPHENE_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def paths() -> list[Path]:
    """All sample photographs, in order of their class."""
    folder = SHARED / "data" / "imagenet_samples"
    if folder.is_dir():
        return sorted(folder.glob("*.jpg"))
    import skimage

    data = Path(skimage.__file__).parent / "data"
    return [data / name for name in ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")]


def label(path: Path) -> int:
    """The class in a sample's file name, `NNN_name.jpg`."""
    return int(path.name[:3])


def batch(network: Network, count: int) -> Tensor:
    """`[count, 3, H, W]`: every n-th photograph, preprocessed for `network`."""
    found = paths()
    chosen = [found[place * len(found) // count % len(found)] for place in range(count)]
    return torch.cat([network.preprocess(images.read(path)) for path in chosen])
