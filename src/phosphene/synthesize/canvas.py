"""What an image is made of while it is being optimised."""

from __future__ import annotations

import math
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network

ColourSpace: TypeAlias = Literal["rgb", "decorrelated"]


class Canvas(Protocol):
    """A batch of images as a function of free parameters `[N, ...]`."""

    parameter: Tensor

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in [0, 1], differentiable in `parameter`."""
        ...

    def standardise(self, images: Tensor) -> Tensor:
        """The slide's I: images in the units that the network was trained on, where 0 is the mean colour."""
        ...


# Colours of natural images are correlated: the columns are (about) the principal directions of ImageNet's pixels,
# scaled by their standard deviations (Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017).
_COLOUR_DIRECTIONS = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])


def colour_basis(space: ColourSpace, like: Tensor) -> Tensor:
    """`[3, 3]`, colours as columns: the identity, or the directions in which photographs vary, by how much they do."""
    if space == "rgb":
        return torch.eye(3).to(like)
    return (_COLOUR_DIRECTIONS / _COLOUR_DIRECTIONS.norm(dim=0).max()).to(like)


class PixelCanvas:
    """Pixels, in the units that the network was trained on: `z = (image - mean) / std`, starting from zeros.

    Zero is the mean colour of the training images, a grey, as on the slide. `||z||^2` is the slide's `||I||^2`.

    Args:
        network: whose units.
        count: images.
        size: height and width, of any aspect.
        start: `[count or 1, 3, H, W]` in [0, 1] to begin with instead of zeros.
        noise: `[count, 3, H, W]` added to the start, in the network's units.
        colours: what a step moves: red, green and blue, or the directions in which photographs vary.

    Raises:
        PhospheneError: a start or noise of another shape.
    """

    def __init__(
        self,
        network: Network,
        count: int,
        size: tuple[int, int],
        *,
        start: Tensor | None = None,
        noise: Tensor | None = None,
        colours: ColourSpace = "rgb",
    ) -> None:
        self.mean, self.std = _colour_statistics(network)
        self.basis = colour_basis(colours, self.mean)
        self.back = torch.linalg.inv(self.basis.double()).to(self.basis)
        pixels = torch.zeros((count, 3, *size), device=network.device)
        if start is not None:
            pixels = pixels + (_fitting(start, count, size) - self.mean) / self.std
        if noise is not None:
            pixels = pixels + _fitting(noise, count, size)
        self.parameter = self._mixed(pixels, self.back).requires_grad_()

    @staticmethod
    def _mixed(pixels: Tensor, matrix: Tensor) -> Tensor:
        identity = torch.equal(matrix, torch.eye(3).to(matrix))
        return pixels.clone() if identity else torch.einsum("nkhw,ck->nchw", pixels, matrix).contiguous()

    @property
    def pixels(self) -> Tensor:
        """z, `[N, 3, H, W]`, detached."""
        return self._mixed(self.parameter.detach(), self.basis)

    def on_pixels(self, gradient: Tensor) -> Tensor:
        """A gradient of the parameter as one of the pixels z."""
        return self._mixed(gradient, self.back.T)

    def replace(self, pixels: Tensor) -> None:
        """Put other pixels z there, moved to the nearest colours that exist."""
        low, high = (0 - self.mean) / self.std, (1 - self.mean) / self.std
        kept = torch.minimum(torch.maximum(pixels, low), high)
        with torch.no_grad():
            self.parameter.copy_(self._mixed(kept, self.back))

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in [0, 1]; `replace` keeps the pixels such that nothing has to be clipped."""
        return self.mean + self.std * self._mixed(self.parameter, self.basis)

    def standardise(self, images: Tensor) -> Tensor:
        """`(images - mean) / std`."""
        return (images - self.mean) / self.std


class FourierCanvas:
    """The spectrum of a decorrelated image: every spatial frequency and colour direction is equally easy to move.

    The coefficient of frequency f is scaled by `1/f^decay`, as in natural images (decay 1), so a gradient step changes large
    shapes as readily as fine grain. A sigmoid keeps the pixels in (0, 1). It starts from zeros, the mean colour, as the
    other does.

    Args:
        network: whose mean colour.
        count: images.
        size: height and width, of any aspect.
        start: `[count or 1, 3, H, W]` in [0, 1] to begin with instead of the mean colour.
        noise: `[count, 3, H, W]` of unit normal numbers times a strength, added in the spectrum's own units (as the pixels
            of an image whose spectrum is then scaled), so that it looks like clouds and not like grain.
        colours: what a step moves: red, green and blue, or the directions in which photographs vary.
        decay: the exponent.

    Raises:
        PhospheneError: a start or noise of another shape.

    Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017, section "Preconditioning and Parameterization".
    """

    def __init__(
        self,
        network: Network,
        count: int,
        size: tuple[int, int],
        *,
        start: Tensor | None = None,
        noise: Tensor | None = None,
        colours: ColourSpace = "decorrelated",
        decay: float = 1.0,
    ) -> None:
        self.size = size
        self.mean, self.std = _colour_statistics(network)
        height, width = size
        rows = torch.fft.fftfreq(height)[:, None]
        columns = torch.fft.rfftfreq(width)[None, :]
        lowest = 1 / max(height, width)
        frequency = (rows**2 + columns**2).sqrt().clamp(min=lowest) / lowest
        self.scale = (math.sqrt(height * width) * frequency**-decay).to(network.device)
        self.start = self.mean.clamp(0.01, 0.99).logit()
        self.basis = colour_basis(colours, self.mean)
        parameter = torch.zeros((count, 3, *self.scale.shape, 2), device=network.device)
        if start is not None:
            parameter = parameter + self._spectrum(_fitting(start, count, size))
        if noise is not None:
            spectrum = torch.fft.rfft2(_fitting(noise, count, size).to(network.device), norm="ortho")
            parameter = parameter + torch.view_as_real(spectrum) / math.sqrt(height * width)
        self.parameter = parameter.requires_grad_()

    def _spectrum(self, images: Tensor) -> Tensor:
        """The parameters that give these images (values within a thousandth of black or white are moved off it)."""
        offset = images.to(self.start).clamp(1e-3, 1 - 1e-3).logit() - self.start
        back = torch.linalg.inv(self.basis.double()).to(self.basis)
        decorrelated = torch.einsum("nchw,kc->nkhw", offset, back)
        return torch.view_as_real(torch.fft.rfft2(decorrelated, norm="ortho") / self.scale)

    def images(self) -> Tensor:
        """`[N, 3, H, W]` in (0, 1)."""
        spectrum = torch.view_as_complex(self.parameter) * self.scale
        decorrelated = torch.fft.irfft2(spectrum, s=self.size, norm="ortho")
        return (self.start + torch.einsum("nkhw,ck->nchw", decorrelated, self.basis)).sigmoid()

    def standardise(self, images: Tensor) -> Tensor:
        """`(images - mean) / std`."""
        return (images - self.mean) / self.std


def _fitting(images: Tensor, count: int, size: tuple[int, int]) -> Tensor:
    if images.ndim != 4 or images.shape[0] not in (1, count) or tuple(images.shape[1:]) != (3, *size):
        raise PhospheneError(
            f"a canvas of {count} x 3 x {size[0]} x {size[1]} can't begin with images of shape {list(images.shape)}"
        )
    return images


def _colour_statistics(network: Network) -> tuple[Tensor, Tensor]:
    """The network's mean and std for three colours; a grey network's single numbers serve for all."""
    shape = (1, 3, 1, 1)
    return network.mean.expand(shape), network.std.expand(shape)
