"""Training pictures that are never quite the same: a random part at a random size, mirrored, in slightly other light.

The part is `SCALE` of the area and up to 4:3 or 3:4 (Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6).
What happens to a photograph follows from seed, epoch and its place alone, in whichever process and order it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene import images
from phosphene.models.preprocess import Preprocess
from phosphene.training.folder import Photo

Kind: TypeAlias = Literal["none", "light", "strong"]
KINDS: tuple[Kind, ...] = ("none", "light", "strong")
SCALE = {"light": 0.35, "strong": 0.1}
"""The least share of the area that is shown."""
LIGHT = {"light": 0.15, "strong": 0.4}
"""By how much brightness, contrast and saturation change at most."""
_TRIES = 10


@dataclass(frozen=True)
class Augment:
    """Reads a photograph as a training picture; `none` is what the network sees when it is used."""

    kind: Kind
    preprocess: Preprocess
    seed: int

    def __call__(self, photo: Photo, place: int, epoch: int) -> Tensor:
        """`[3, H, W]` in [0, 1]. Raises ImageError if the file is no image (any more)."""
        picture = images.read(photo.path)
        if self.kind == "none":
            return self.preprocess(picture)[0]
        random = np.random.default_rng([self.seed % 2**64, epoch, place])
        part = _part(picture, random, SCALE[self.kind])
        mode = self.preprocess.interpolation if self.preprocess.interpolation == "bilinear" else "bicubic"
        shown = F.interpolate(part, self.preprocess.size, mode=mode, antialias=True, align_corners=False).clamp(0, 1)
        shown = shown.flip(3) if random.random() < 0.5 else shown
        return _lit(shown, random, LIGHT[self.kind])[0]


def _part(picture: Tensor, random: np.random.Generator, least: float) -> Tensor:
    """A random part of `[1, 3, H, W]`; the middle, if none of the tries fits."""
    height, width = picture.shape[-2:]
    for _ in range(_TRIES):
        area = height * width * random.uniform(least, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < tall <= height and 0 < wide <= width:
            top, left = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
            return picture[..., top : top + tall, left : left + wide]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[..., top : top + side, left : left + side]


def _lit(picture: Tensor, random: np.random.Generator, most: float) -> Tensor:
    """Brightness, contrast and saturation, each by up to `most`."""
    bright, contrast, colour = (1 + random.uniform(-most, most, 3)).tolist()
    picture = picture * bright
    middle = picture.mean()
    picture = middle + (picture - middle) * contrast
    grey = (picture * picture.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return torch.lerp(grey.expand_as(picture), picture, colour).clamp(0, 1)
