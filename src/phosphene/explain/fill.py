"""What stands where nothing is to be seen: the baselines of perturbing methods."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from phosphene.errors import PhospheneError
from phosphene.models import Network

Name: TypeAlias = Literal["mean", "blur", "grey", "black", "white"]
Fill: TypeAlias = Name | float | Tensor
"""`mean`: each image's mean colour. `blur`: the image, blurred until only colours are left. `grey`: 0.5 (`black` 0, `white`
1). A number is a level of grey in [0, 1]; a tensor the images themselves, `[N, 3, H, W]` or `[1, 3, H, W]`."""

LEVELS = {"black": 0.0, "grey": 0.5, "white": 1.0}


def filled(network: Network, images: Tensor, fill: Fill) -> Tensor:
    """`[N, 3, H, W]`: what to put in the place of images.

    Raises:
        PhospheneError: an unknown fill, a level outside [0, 1], or a tensor of another shape.
    """
    if isinstance(fill, Tensor):
        if fill.ndim != 4 or fill.shape[1:] != images.shape[1:] or len(fill) not in (1, len(images)):
            raise PhospheneError(f"a baseline of shape {list(fill.shape)} for images {list(images.shape)}")
        return fill.to(images).expand_as(images)
    if fill == "mean":
        return images.mean((2, 3), keepdim=True).expand_as(images)
    if fill == "blur":
        return _blurred(images)
    if isinstance(fill, str) and fill not in LEVELS:
        raise PhospheneError(f"no fill '{fill}': there are {', '.join(get_args(Name))}, or a level from 0 to 1")
    level = LEVELS[fill] if isinstance(fill, str) else float(fill)
    if not 0 <= level <= 1:
        raise PhospheneError(f"a fill of {level:g} is no level of grey: give 0 to 1")
    return torch.full_like(images, level)


def _blurred(images: Tensor) -> Tensor:
    """Gaussian blur, its standard deviation a tenth of the shorter side."""
    side = min(images.shape[-2:])
    sigma = max(side / 10, 0.5)
    width = min(2 * int(3 * sigma) + 1, 2 * ((side + 1) // 2) - 1)  # reflection needs less than the side
    down = gaussian_blur(images, [1, width], [sigma, sigma])  # one way and then the other: far fewer products
    return gaussian_blur(down, [width, 1], [sigma, sigma])
