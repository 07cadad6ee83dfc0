"""Can filters be characterised mathematically? A Gabor function fitted to each: a wave under a Gaussian window.

Gabor, "Theory of communication", 1946; in two dimensions, for the simple cells of the visual cortex: Daugman, "Uncertainty
relation for resolution in space, spatial frequency, and orientation", JOSA A 1985. That the first layer learns them:
Krizhevsky, Sutskever & Hinton, "ImageNet classification with deep convolutional neural networks", NeurIPS 2012, figure 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError

FEW_PIXELS = 25
"""Kernels of fewer pixels get a round window in their middle: 5 free numbers instead of 8, where 3 x 3 has but 9 pixels."""

_STARTS = 16  # of each filter, the best cells of the grid
_TOGETHER = 128  # filters, so that their grids fit into memory
_STEPS = 60  # of the refinement; most filters need fewer than 20
_RIDGE = 1e-4  # relative; keeps two waves that are nearly one from cancelling each other at huge amplitudes


@dataclass(frozen=True, eq=False)
class GaborFit:
    """For each of F filters the Gabor function nearest to it, and how near that is.

    `fitted[f, c] = colour[f, c] * amplitude * exp(-(u / across)^2 / 2 - (v / along)^2 / 2) * cos(2 pi frequency u + phase)`,
    where `u` is the distance from the centre across the stripes and `v` the distance along them.

    Attributes:
        amplitude: `[F]`, at least 0, in the unit of the weights; the sign is in the phase.
        orientation: `[F]` degrees in [0, 180), the direction of the stripes: 0 lies flat, 45 rises to the right.
        frequency: `[F]` cycles per pixel.
        phase: `[F]` degrees in [-180, 180]; 0 and 180 are even (a stripe in the middle), 90 and -90 odd (an edge).
        centre: `[F, 2]`, row and column in pixels; (0, 0) is the middle of the first pixel.
        along, across: `[F]`, standard deviations of the window along the stripes and across them, in pixels.
        colour: `[F, C]`, unit vectors, their sum at least 0: what the filter compares with its opposite.
        separable: `[F]`, the share of the filter that is one colour times one picture: the most that `explained` can be.
        explained: `[F]`, `1 - |weights - fitted|^2 / |weights|^2`, over all colours; 0 for a filter of zeros. It is about
            zero, not about the filter's mean, because the mean acts on the image as every other part does.
        fitted: `[F, C, h, w]`.
    """

    amplitude: Tensor
    orientation: Tensor
    frequency: Tensor
    phase: Tensor
    centre: Tensor
    along: Tensor
    across: Tensor
    colour: Tensor
    separable: Tensor
    explained: Tensor
    fitted: Tensor

    @property
    def wavelength(self) -> Tensor:
        """`[F]`, pixels from stripe to stripe."""
        return 1 / self.frequency


def fit_gabor(weights: Tensor) -> GaborFit:
    """Fit a Gabor function to each filter by least squares, the same on every run.

    A filter is split into colour x space by its first singular vectors, and the function is fitted to the space. Amplitude
    and phase are linear (a cosine and a sine), so they are solved for at each step, and only the shape is searched
    (variable projection): on a grid first, then by Levenberg-Marquardt from the best places of the grid.

    The wave has at least a quarter of a period in the kernel (no stripes then, but a blob, whose direction says little, or a
    single edge), and at most what pixels can show, half a cycle per pixel along each axis. Kernels of few pixels get a round
    window in their middle: see `FEW_PIXELS`, and `gabor_chance` for how well that explains anything.

    Args:
        weights: `[F, C, h, w]`, finite, at least 3 x 3, such as `observe.filters(network).weights`.

    Raises:
        PhospheneError: another shape, smaller kernels, or values that aren't finite.
    """
    whole = _checked(weights)
    height, width = whole.shape[-2:]
    colour, space, separable = _split(whole)
    kernel = _Kernel(height, width)
    shape = _search(space, kernel)
    waves = kernel.waves(shape)
    linear = _solve(waves, space)
    fitted = colour[:, :, None] * (linear[:, None] @ waves)
    size = whole.flatten(1).square().sum(1)
    left = (whole.flatten(2) - fitted).square().sum((1, 2))
    explained = torch.where(size > 0, 1 - left / size.clamp(min=_tiny()), 0).clamp(0, 1)
    angle, frequency, centre, along, across = kernel.meaning(shape)
    orientation, flips = _orientation(angle)
    cosine, sine = linear[:, 0], linear[:, 1] * flips
    middle = torch.tensor([(height - 1) / 2, (width - 1) / 2], dtype=torch.float64)
    parts = {
        "amplitude": linear.norm(dim=1), "orientation": orientation, "frequency": frequency,
        "phase": torch.rad2deg(torch.atan2(-sine, cosine)), "centre": centre + middle, "along": along, "across": across,
        "colour": colour, "separable": separable, "explained": explained, "fitted": fitted.view_as(whole),
    }  # fmt: skip
    return GaborFit(**{name: value.to(weights.device, weights.dtype) for name, value in parts.items()})


def gabor_chance(weights: Tensor, *, count: int = 64, seed: int = 0) -> Tensor:
    """The share that the same fit explains of noise: what `explained` has to be read against.

    The noise has the size and the covariance of colours that `weights` has, and is independent from pixel to pixel.

    Args:
        weights: `[F, C, h, w]`, see `fit_gabor`.
        count: how many filters of noise.
        seed: of the noise.

    Returns:
        `[count]` shares in [0, 1].

    Raises:
        PhospheneError: see `fit_gabor`; a count below 1.
    """
    if count < 1:
        raise PhospheneError(f"random filters start at 1, got {count}")
    whole = _checked(weights)
    channels, height, width = whole.shape[1:]
    pixels = whole.flatten(2).transpose(1, 2).reshape(-1, channels)
    values, vectors = torch.linalg.eigh(pixels.T @ pixels / len(pixels))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, channels, height * width), generator=generator, dtype=torch.float64)
    mixed = (vectors * values.clamp(min=0).sqrt()) @ noise
    return fit_gabor(mixed.view(count, channels, height, width)).explained.to(weights.dtype)


def _checked(weights: Tensor) -> Tensor:
    """float64 on the CPU."""
    if weights.ndim != 4 or weights.numel() == 0:
        raise PhospheneError(f"expected filters [F, C, h, w], got {list(weights.shape)}")
    height, width = weights.shape[-2:]
    if min(height, width) < 3:
        raise PhospheneError(f"filters of {height} x {width} pixels have no room for a wave: a Gabor fit needs 3 x 3")
    if not torch.isfinite(weights).all():
        raise PhospheneError("the filters hold NaN or infinity: give finite values")
    return weights.detach().cpu().double()


def _split(whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Colours `[F, C]`, pictures `[F, h * w]` and the share that they are of the filters, `[F]`."""
    left, values, right = torch.linalg.svd(whole.flatten(2), full_matrices=False)
    colour, space = left[:, :, 0], values[:, :1] * right[:, 0]
    sign = torch.where(colour.sum(1, keepdim=True) < 0, -1.0, 1.0)
    size = values.square().sum(1)
    share = torch.where(size > 0, values[:, 0].square() / size.clamp(min=_tiny()), 0)
    return colour * sign, space * sign, share


class _Kernel:
    """The shapes that a wave in a kernel can have, as numbers between bounds.

    A shape is `angle` of the wave's direction, `pitch` of its frequency between the bounds, log `across`, and, unless the
    kernel is small, log `along`, `row` and `column` of its centre from the middle.
    """

    def __init__(self, height: int, width: int) -> None:
        rows, columns = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in (height, width))
        self.rows, self.columns = (grid.flatten() for grid in torch.meshgrid(rows, columns, indexing="ij"))
        self.small = height * width < FEW_PIXELS
        self.lowest = 0.25 / max(height, width)
        self.sizes = (0.5, 2.0 * max(height, width))  # of a window: from a pixel to one that is nearly even
        self.reach = ((height - 1) / 2, (width - 1) / 2)
        window = [math.log(size) for size in self.sizes]
        bounds = [(-math.inf, math.inf), (0.0, 1.0), window]
        if not self.small:
            bounds += [window, *((-far, far) for far in self.reach)]
        self.low, self.high = torch.tensor(bounds, dtype=torch.float64).T

    def meaning(self, shape: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Angle, frequency, centre `[B, 2]`, along and across of shapes `[B, P]`."""
        angle, pitch, across = shape[:, 0], shape[:, 1], shape[:, 2].exp()
        highest = 0.5 / torch.maximum(angle.cos().abs(), angle.sin().abs())
        frequency = self.lowest + pitch * (highest - self.lowest)
        if self.small:
            return angle, frequency, torch.zeros_like(shape[:, :2]), across, across
        return angle, frequency, shape[:, 4:6], shape[:, 3].exp(), across

    def waves(self, shape: Tensor) -> Tensor:
        """The cosine and the sine of each shape under its window, `[B, 2, h * w]`."""
        angle, frequency, centre, along, across = (part[..., None] for part in self.meaning(shape))
        down, right = self.rows - centre[:, 0], self.columns - centre[:, 1]
        u = right * angle.cos() + down * angle.sin()
        v = down * angle.cos() - right * angle.sin()
        window = torch.exp(-0.5 * ((u / across).square() + (v / along).square()))
        turn = 2 * math.pi * frequency * u
        return torch.stack([window * turn.cos(), window * turn.sin()], 1)

    def grid(self) -> Tensor:
        """Shapes to begin with, `[directions x pitches, others, P]`."""
        angles = torch.arange(12, dtype=torch.float64) * math.pi / 12
        pitches = torch.linspace(0, 1, 4 if self.small else 7, dtype=torch.float64)
        shares = torch.tensor([0.25, 0.5, 1.0] if self.small else [0.12, 0.25, 0.8], dtype=torch.float64)
        windows = torch.log((shares * (2 * max(self.reach) + 1)).clamp(*self.sizes))
        if self.small:
            made = torch.cartesian_prod(angles, pitches, windows)
        else:
            steps = torch.linspace(-1, 1, 5, dtype=torch.float64)
            rows, columns = (steps * far for far in self.reach)
            made = torch.cartesian_prod(angles, pitches, windows, windows, rows, columns)
        return made.view(len(angles) * len(pitches), -1, made.shape[1])


def _search(space: Tensor, kernel: _Kernel) -> Tensor:
    """The best shape `[F, P]` for each picture `[F, h * w]`."""
    unit = space / space.norm(dim=1, keepdim=True).clamp(min=_tiny())
    return torch.cat([_best(part, kernel) for part in unit.split(_TOGETHER)])


def _best(unit: Tensor, kernel: _Kernel) -> Tensor:
    starts = _starts(unit, kernel)
    count = starts.shape[1]
    shapes, left = _refine(starts.flatten(0, 1), unit.repeat_interleave(count, 0), kernel)
    best = left.view(-1, count).argmin(1)
    return shapes.view(len(unit), count, -1)[torch.arange(len(unit)), best]


def _starts(unit: Tensor, kernel: _Kernel) -> Tensor:
    """The shapes of the grid that explain most, no two of one direction and frequency: `[F, starts, P]`."""
    grid = kernel.grid()
    waves = kernel.waves(grid.flatten(0, 1))
    dots = torch.einsum("gkn,fn->gfk", waves, unit)
    linear = torch.linalg.solve(_gram(waves)[:, None], dots[..., None])[..., 0]
    share = (dots * linear).sum(2).view(*grid.shape[:2], len(unit))
    most, where = share.max(1)
    cells = most.topk(min(_STARTS, len(grid)), dim=0).indices.T
    return grid[cells, where.T.gather(1, cells)]


def _refine(shapes: Tensor, unit: Tensor, kernel: _Kernel) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt on many problems at once: shapes `[B, P]` and what they leave of `unit [B, h * w]`, `[B]`.

    A number that lies at its bound and would go beyond is held there for the step.
    """
    damping = torch.full((len(shapes),), 1e-2, dtype=torch.float64)
    rest = _rest(shapes, unit, kernel)
    left = rest.square().sum(1)
    for _ in range(_STEPS):
        slopes = _slopes(shapes, rest, unit, kernel)
        gradient = (slopes @ rest[..., None])[..., 0]
        held = ((shapes <= kernel.low) & (gradient > 0)) | ((shapes >= kernel.high) & (gradient < 0))
        slopes, gradient = slopes.masked_fill(held[..., None], 0), gradient.masked_fill(held, 0)
        square = slopes @ slopes.transpose(1, 2)
        scale = square.diagonal(dim1=1, dim2=2)
        square = square + torch.diag_embed(damping[:, None] * scale + 1e-9)
        step = torch.linalg.solve(square, gradient[..., None])[..., 0]
        moved = torch.minimum(torch.maximum(shapes - step, kernel.low), kernel.high)
        then = _rest(moved, unit, kernel)
        after = then.square().sum(1)
        better = after < left
        gained = torch.where(better, left - after, 0)
        shapes, rest = torch.where(better[:, None], moved, shapes), torch.where(better[:, None], then, rest)
        left = torch.where(better, after, left)
        damping = torch.where(better, damping / 4, damping * 4).clamp(1e-9, 1e9)
        if float(gained.max()) < 1e-9 and bool((better | (damping > 1e3)).all()):
            break
    return shapes, left


def _slopes(shapes: Tensor, rest: Tensor, unit: Tensor, kernel: _Kernel) -> Tensor:
    """How the rest changes with each number of a shape, `[B, P, h * w]`, by finite differences."""
    step = 1e-6
    rows = []
    for place in range(shapes.shape[1]):
        moved = shapes.clone()
        moved[:, place] += step
        rows.append((_rest(moved, unit, kernel) - rest) / step)
    return torch.stack(rows, 1)


def _rest(shapes: Tensor, unit: Tensor, kernel: _Kernel) -> Tensor:
    """What the best wave of each shape leaves of the pictures, `[B, h * w]`."""
    waves = kernel.waves(shapes)
    return unit - (_solve(waves, unit)[:, None] @ waves)[:, 0]


def _solve(waves: Tensor, space: Tensor) -> Tensor:
    """The amounts `[B, 2]` of cosine and sine that are nearest to the pictures `[B, h * w]`."""
    return torch.linalg.solve(_gram(waves), waves @ space[..., None])[..., 0]


def _gram(waves: Tensor) -> Tensor:
    square = waves @ waves.transpose(1, 2)
    ridge = _RIDGE * square.diagonal(dim1=1, dim2=2).sum(1) + _tiny()
    return square + ridge[:, None, None] * torch.eye(2, dtype=torch.float64)


def _orientation(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Of stripes across waves of these angles, in degrees in [0, 180), and -1 where the wave's direction turned round."""
    turned = 90 - torch.rad2deg(angle)
    orientation = turned.remainder(180)
    orientation = torch.where(orientation >= 180, 0, orientation)  # rounding: -1e-17 remainder 180 is 180
    flips = torch.where(((turned - orientation) / 180).round().remainder(2) == 0, 1.0, -1.0)
    return orientation, flips


def _tiny() -> float:
    return torch.finfo(torch.float64).tiny
