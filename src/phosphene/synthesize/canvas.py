"""What an image is made of while it is being optimised."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from phosphene.models import Network


class Canvas(Protocol):
    """A batch of images as a function of free parameters."""

    parameter: Tensor

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in [0, 1], differentiable in `parameter`."""
        ...

    def standardise(self, images: Tensor) -> Tensor:
        """The slide's I: images in the units that the network was trained on, where 0 is the mean colour."""
        ...


class PixelCanvas:
    """Pixels, in the units that the network was trained on: `z = (image - mean) / std`, starting from zeros.

    Zero is the mean colour of the training images, a grey, as on the slide. `||z||^2` is the slide's `||I||^2`.
    """

    def __init__(self, network: Network, count: int, size: tuple[int, int]) -> None:
        self.mean, self.std = _colour_statistics(network)
        self.parameter = torch.zeros((count, 3, *size), device=network.device, requires_grad=True)

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in [0, 1]; `keep_in_range` keeps the pixels such that nothing has to be clipped."""
        return self.mean + self.std * self.parameter

    def standardise(self, images: Tensor) -> Tensor:
        """`(images - mean) / std`."""
        return (images - self.mean) / self.std

    def keep_in_range(self) -> None:
        """Move pixels that left [0, 1] back to the nearest possible colour."""
        with torch.no_grad():
            low, high = (0 - self.mean) / self.std, (1 - self.mean) / self.std
            self.parameter.copy_(torch.minimum(torch.maximum(self.parameter, low), high))


# Colours of natural images are correlated: the columns are (about) the principal directions of ImageNet's pixels,
# scaled by their standard deviations (Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017).
_COLOUR_DIRECTIONS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


class FourierCanvas:
    """The spectrum of a decorrelated image: every spatial frequency and colour direction is equally easy to move.

    The coefficient of frequency f is scaled by 1/f, as in natural images, so a gradient step changes large shapes as
    readily as fine grain. A sigmoid keeps the pixels in (0, 1). It starts from zeros, the mean colour, as the other does.

    Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017, section "Preconditioning and Parameterization".
    """

    def __init__(self, network: Network, count: int, size: tuple[int, int]) -> None:
        self.size = size
        self.mean, self.std = _colour_statistics(network)
        height, width = size
        rows = torch.fft.fftfreq(height)[:, None]
        columns = torch.fft.rfftfreq(width)[None, :]
        frequency = (rows**2 + columns**2).sqrt().clamp(min=1 / max(height, width))
        self.scale = (math.sqrt(height * width) / frequency / max(height, width)).to(network.device)
        self.parameter = torch.zeros((count, 3, *self.scale.shape, 2), device=network.device, requires_grad=True)
        self.start = self.mean.clamp(0.01, 0.99).logit()
        self.colours = (_COLOUR_DIRECTIONS / _COLOUR_DIRECTIONS.norm(dim=0).max()).to(network.device)

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in (0, 1)."""
        spectrum = torch.view_as_complex(self.parameter) * self.scale
        decorrelated = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return (self.start + torch.einsum("nkhw,ck->nchw", decorrelated, self.colours)).sigmoid()

    def standardise(self, images: Tensor) -> Tensor:
        """`(images - mean) / std`."""
        return (images - self.mean) / self.std


def _colour_statistics(network: Network) -> tuple[Tensor, Tensor]:
    """The network's mean and std for three colours; a grey network's single numbers serve for all."""
    shape = (1, 3, 1, 1)
    return network.mean.expand(shape), network.std.expand(shape)
