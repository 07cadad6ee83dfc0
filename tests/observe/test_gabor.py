"""Gabor functions fitted to filters: what is known is found again, and nothing slower finds better."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from phosphene import observe
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.observe.gabor import fit_gabor, gabor_chance


def gabor(
    size: int,
    orientation: float,
    frequency: float,
    phase: float,
    *,
    colour: tuple[float, ...] = (1.0, 1.0, 1.0),
    sigmas: tuple[float, float] | None = None,
    centre: tuple[float, float] = (0.0, 0.0),
) -> Tensor:
    """`[1, C, size, size]`, from the definition; degrees; `sigmas` across and along; `centre` is (right, up) of the middle.

    Stripes at `orientation` (anticlockwise from flat), the wave goes across them.
    """
    across, along = sigmas or (0.2 * size, 0.25 * size)
    turn = math.radians(orientation)
    pixels = np.zeros((size, size))
    for row, column in itertools.product(range(size), repeat=2):
        right, up = column - (size - 1) / 2 - centre[0], (size - 1) / 2 - row - centre[1]
        v = right * math.cos(turn) + up * math.sin(turn)  # along the stripes
        u = right * math.sin(turn) - up * math.cos(turn)
        window = math.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
        pixels[row, column] = window * math.cos(2 * math.pi * frequency * u + math.radians(phase))
    return torch.tensor(colour).double().view(1, -1, 1, 1) * torch.from_numpy(pixels)


def away(found: Tensor, wanted: Tensor, period: float) -> Tensor:
    """The difference of angles."""
    return ((found - wanted + period / 2).remainder(period) - period / 2).abs()


@pytest.mark.parametrize("size", [7, 11])
def test_gabors_are_found_again(size: int) -> None:
    wanted = list(
        itertools.product(range(0, 180, 15), [1.2 / size, 2.0 / size, 3.0 / size, 0.45], [0.0, 50.0, 90.0, -160.0])
    )
    places = [(0.6 * math.cos(n), 0.8 * math.sin(3 * n)) for n in range(len(wanted))]
    made = [gabor(size, o, f, p, centre=place) for (o, f, p), place in zip(wanted, places, strict=True)]
    found = fit_gabor(torch.cat(made))
    orientations, frequencies, phases = torch.tensor(wanted).double().T
    assert found.explained.min() > 0.99
    assert away(found.orientation, orientations, 180).max() < 2
    assert ((found.frequency - frequencies) / frequencies).abs().max() < 0.03
    assert torch.allclose(found.wavelength, 1 / found.frequency)
    right, up = torch.tensor(places).double().T
    middle = (size - 1) / 2
    assert (found.centre - torch.stack([middle - up, middle + right], 1)).abs().max() < 0.1
    assert away(found.phase, phases, 360).max() < 10
    assert (found.across / (0.2 * size) - 1).abs().max() < 0.1
    assert (found.along / (0.25 * size) - 1).abs().max() < 0.1
    assert (found.amplitude / math.sqrt(3) - 1).abs().max() < 0.1  # its colour (1, 1, 1) has that length
    torch.testing.assert_close(found.fitted, torch.cat(made), atol=0.05, rtol=0)


def test_what_orientation_and_phase_mean() -> None:
    flat = torch.tensor([-1.0, -1.0, 2.0, -1.0, -1.0]).view(1, 1, 5, 1).expand(-1, -1, -1, 5)
    found = fit_gabor(torch.cat([flat, flat.transpose(2, 3)]))
    assert away(found.orientation, torch.tensor([0.0, 90.0]), 180).max() < 1
    assert found.phase.abs().max() < 5
    rising = torch.eye(7).flip(0)[None, None] - 1 / 7
    falling = torch.eye(7)[None, None] - 1 / 7
    found = fit_gabor(torch.cat([rising, falling]))
    assert away(found.orientation, torch.tensor([45.0, 135.0]), 180).max() < 1
    edge = torch.tensor([-1.0, -2.0, 0.0, 2.0, 1.0]).expand(1, 1, 5, 5)
    assert fit_gabor(edge).phase.abs() == pytest.approx(90, abs=5)


def test_opposing_colours() -> None:
    colour = (0.8, -0.6, 0.0)
    found = fit_gabor(gabor(11, 30, 0.2, 20, colour=colour))
    assert found.explained > 0.999 and found.separable > 0.999
    torch.testing.assert_close(found.colour[0], torch.tensor(colour).double())
    assert found.orientation == pytest.approx(30, abs=1) and found.phase == pytest.approx(20, abs=1)
    assert found.amplitude == pytest.approx(1, abs=0.01)


def test_two_waves_of_different_colours_are_not_one() -> None:
    both = gabor(11, 0, 0.2, 0, colour=(1.0, 0.0, 0.0)) + gabor(11, 90, 0.2, 0, colour=(0.0, 0.8, 0.0))
    found = fit_gabor(both)
    assert found.explained == pytest.approx(float(found.separable), abs=0.05)
    assert 0.5 < found.separable < 0.75


def test_explained_is_what_it_says() -> None:
    weights = torch.randn(6, 3, 7, 7)
    found = fit_gabor(weights)
    left = (weights - found.fitted).square().sum((1, 2, 3)) / weights.square().sum((1, 2, 3))
    torch.testing.assert_close(found.explained, 1 - left, atol=1e-5, rtol=0)
    assert (found.explained <= found.separable + 1e-6).all()
    for place in range(6):
        again = gabor(
            7, float(found.orientation[place]), float(found.frequency[place]), float(found.phase[place]),
            colour=tuple(found.colour[place].tolist()), sigmas=(float(found.across[place]), float(found.along[place])),
            centre=(float(found.centre[place, 1]) - 3, 3 - float(found.centre[place, 0])),
        )  # fmt: skip
        torch.testing.assert_close(found.fitted[place], found.amplitude[place] * again[0].float(), atol=1e-3, rtol=1e-3)


def test_noise_is_no_gabor() -> None:
    noise = fit_gabor(torch.randn(32, 3, 11, 11)).explained
    assert noise.max() < 0.25
    assert gabor_chance(gabor(11, 40, 0.2, 0), count=32).max() < 0.35  # grey noise has no colours to fail at


def test_chance_has_the_size_and_the_colours_of_the_filters() -> None:
    grey = torch.randn(8, 1, 3, 3).expand(-1, 3, -1, -1)
    coloured = torch.randn(8, 3, 3, 3)
    assert gabor_chance(grey).mean() > gabor_chance(coloured).mean() + 0.2
    assert torch.equal(gabor_chance(grey), gabor_chance(grey)) and gabor_chance(grey, count=5).shape == (5,)
    assert not torch.equal(gabor_chance(grey), gabor_chance(grey, seed=1))


@pytest.mark.parametrize("size", [3, 4, 7])
def test_scale_and_order_change_nothing_else(size: int) -> None:
    weights = torch.randn(5, 3, size, size).double()
    found, small, back = fit_gabor(weights), fit_gabor(weights * 1e-6), fit_gabor(weights.flip(0))
    torch.testing.assert_close(small.amplitude * 1e6, found.amplitude, atol=0, rtol=1e-4)
    for name in ("explained", "orientation", "frequency", "phase", "centre", "along", "colour"):
        torch.testing.assert_close(getattr(small, name), getattr(found, name), atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(getattr(back, name).flip(0), getattr(found, name), atol=1e-3, rtol=1e-4)
    assert torch.equal(fit_gabor(-weights).explained, found.explained)


@pytest.mark.parametrize("size", [3, 7])
def test_filters_of_zeros(size: int) -> None:
    weights = torch.zeros(3, 3, size, size)
    weights[1] = torch.randn(3, size, size)
    found = fit_gabor(weights)
    assert found.explained[0] == found.amplitude[0] == 0 and found.explained[1] > 0
    for name, value in vars(found).items():
        assert torch.isfinite(value).all(), name
    assert not found.fitted[0].any()


def test_a_single_pixel_and_an_even_filter_are_finite() -> None:
    weights = torch.zeros(2, 1, 3, 3)
    weights[0, 0, 1, 1] = 1
    weights[1] = 1
    found = fit_gabor(weights)
    assert all(torch.isfinite(value).all() for value in vars(found).values())
    assert found.explained.min() > 0.8


def slow_reference(space: np.ndarray, tries: int) -> float:
    """The share that SciPy explains, amplitude and phase and all numbers of the shape at once, from many random starts."""
    size = len(space)
    small, reach = size < 5, (size - 1) / 2
    rows, columns = np.mgrid[:size, :size] - reach
    unit = space / np.linalg.norm(space)

    def rest(p: np.ndarray) -> Any:
        cosine, sine, angle, pitch, across, along, row, column = p
        highest = 0.5 / max(abs(math.cos(angle)), abs(math.sin(angle)))
        frequency = 0.25 / size + pitch * (highest - 0.25 / size)
        if small:
            along, row, column = across, 0, 0
        u = (columns - column) * math.cos(angle) + (rows - row) * math.sin(angle)
        v = (rows - row) * math.cos(angle) - (columns - column) * math.sin(angle)
        window = np.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
        turn = 2 * math.pi * frequency * u
        return (unit - window * (cosine * np.cos(turn) + sine * np.sin(turn))).ravel()

    low = np.array([-5, -5, -np.inf, 0, 0.5, 0.5, -reach, -reach])
    high = np.array([5, 5, np.inf, 1, 2 * size, 2 * size, reach, reach])
    generator, best = np.random.default_rng(0), 1.0
    for _ in range(tries):
        start = generator.uniform([-1, -1, 0, 0.01, 0.6, 0.6, -0.8 * reach, -0.8 * reach],
                                  [1, 1, math.pi, 0.99, size, size, 0.8 * reach, 0.8 * reach])  # fmt: skip
        best = min(best, 2 * least_squares(rest, start, bounds=(low, high), max_nfev=200).cost)
    return 1 - best


@pytest.mark.parametrize(("size", "tries"), [(3, 20), (5, 25), (7, 25)])
def test_a_slow_search_finds_nothing_better(size: int, tries: int) -> None:
    weights = torch.randn(3, 1, size, size).double()
    found = fit_gabor(weights).explained
    slow = torch.tensor([slow_reference(one[0].numpy(), tries) for one in weights]).double()
    assert (found - slow).min() > -0.01, (found, slow)


def test_what_can_not_be_fitted() -> None:
    with pytest.raises(PhospheneError, match=r"expected filters \[F, C, h, w\], got \[3, 7, 7\]"):
        fit_gabor(torch.ones(3, 7, 7))
    with pytest.raises(PhospheneError, match="filters of 1 x 1 pixels have no room"):
        fit_gabor(torch.ones(2, 3, 1, 1))
    with pytest.raises(PhospheneError, match="NaN or infinity"):
        fit_gabor(torch.full((2, 3, 3, 3), float("nan")))
    with pytest.raises(PhospheneError, match="start at 1, got 0"):
        gabor_chance(torch.ones(2, 3, 3, 3), count=0)


def test_trained_filters_are_nearer_to_gabors_than_noise(bundled_network: Network) -> None:
    weights = observe.filters(bundled_network).weights
    found, chance = fit_gabor(weights), gabor_chance(weights)
    assert found.explained.mean() > chance.mean() + 0.1
    assert torch.equal(found.fitted, fit_gabor(weights).fitted)
