"""Maps that know nothing of the network."""

from __future__ import annotations

import math

import pytest
import torch

from phosphene.explain.metrics.baselines import BASELINES, centre, random


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 12), (224, 160), (1, 5)])
def test_the_centre_is_a_gaussian_in_the_middle(size: tuple[int, int]) -> None:
    height, width = size
    maps = centre(torch.rand(3, 3, *size, dtype=torch.float64))
    assert maps.shape == (3, *size) and maps.dtype == torch.float64
    for row, column in ((0, 0), (height // 2, width // 2), (height - 1, width // 3)):
        down, right = (row - (height - 1) / 2) / (height / 4), (column - (width - 1) / 2) / (width / 4)
        wanted = math.exp(-(down**2 + right**2) / 2)
        assert maps[:, row, column].tolist() == pytest.approx([wanted] * 3, rel=1e-5)
    assert torch.equal(maps, maps.flip(1)) and torch.equal(maps, maps.flip(2))
    assert maps[0].argmax() == (height - 1) // 2 * width + (width - 1) // 2
    assert float(maps.max()) == pytest.approx(1, abs=1e-9) or not height * width % 2
    steps = maps[0, : (height + 1) // 2, : (width + 1) // 2]
    assert (steps.diff(dim=0) > 0).all() and (steps.diff(dim=1) > 0).all()


def test_an_image_has_the_same_noise_in_any_batch() -> None:
    images = torch.rand(5, 3, 20, 30)
    before = torch.get_rng_state()
    maps = random(images, seed=7)
    for place in range(5):
        assert torch.equal(random(images[place : place + 1], first=place, seed=7)[0], maps[place])
    assert torch.equal(random(torch.zeros(2, 3, 20, 30), 3, 7), maps[3:])
    assert torch.equal(torch.get_rng_state(), before)


def test_noise_is_uniform_and_differs_from_image_to_image_and_seed_to_seed() -> None:
    images = torch.rand(4, 3, 100, 100)
    maps = torch.cat([random(images, seed=seed) for seed in (0, 1)])
    assert float(maps.min()) >= 0 and float(maps.max()) < 1
    parts = torch.histc(maps, 10, 0, 1) / maps.numel()
    assert parts.tolist() == pytest.approx([0.1] * 10, abs=0.005)
    together = torch.corrcoef(maps.flatten(1))
    assert (together - torch.eye(8)).abs().max() < 0.05


def test_baselines_are_called_by_name() -> None:
    images = torch.rand(2, 3, 6, 8)
    assert set(BASELINES) == {"centre", "random"}
    assert torch.equal(BASELINES["centre"](images, 3, 1), centre(images))
    assert torch.equal(BASELINES["random"](images, 3, 1), random(images, first=3, seed=1))
