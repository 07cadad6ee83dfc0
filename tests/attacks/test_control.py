"""Noise as large as an attack: its size, its 8 bits, and that it is each image's own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from planes import noise

from phosphene.attacks import Norm, noisy
from phosphene.errors import PhospheneError

NORMS: list[tuple[Norm, float]] = [("linf", 8 / 255), ("l2", 0.5), ("l2", 3.0)]
each_norm = pytest.mark.parametrize(("norm", "eps"), NORMS)


@each_norm
def test_it_is_as_large_as_asked(norm: Norm, eps: float) -> None:
    images = noise(6, 3, 32)
    found = noisy(images, eps, norm)
    assert torch.equal((found * 255).round() / 255, found) and found.min() >= 0 and found.max() <= 1
    change = (found - images).flatten(1)
    size = change.abs().amax(1) if norm == "linf" else change.norm(dim=1)
    assert (size <= eps + 1e-6).all() and (size >= eps * 0.98).all()


def test_linf_is_random_signs() -> None:
    images = torch.full((4, 3, 32, 32), 100 / 255)
    change = ((noisy(images, 8 / 255, keys="abcd") - images) * 255).round()
    assert change.unique().tolist() == [-8, 8]
    assert change.mean(dim=(1, 2, 3)).abs().max() < 0.6  # 8 / sqrt(3072) is its deviation
    black = noisy(torch.zeros(1, 3, 32, 32), 8 / 255)
    assert (black.unique() * 255).round().tolist() == [0, 8]  # what goes below black stays black
    assert torch.equal(noisy(images, 0.9 / 255), images)  # less than a grey level


def test_l2_is_a_random_direction_even_where_it_is_less_than_half_a_level() -> None:
    images = torch.full((2, 3, 64, 64), 100 / 255)
    eps = 0.1 / 255 * math.sqrt(3 * 64 * 64)  # a tenth of a level for each value: plain rounding would leave nothing
    change = (noisy(images, eps, "l2", keys="ab") - images).flatten(1)
    assert (change.norm(dim=1) / eps).tolist() == pytest.approx([1, 1], abs=0.01)
    assert (change != 0).double().mean(1).tolist() == pytest.approx([0.01, 0.01], abs=0.002)
    coarse = (noisy(images, 20.0, "l2", keys="ab") - images).flatten(1)
    assert abs(float(coarse[0] @ coarse[1])) / 400 < 0.03  # directions of two images have nothing to do with each other
    assert coarse.mean(1).abs().max() < 0.01 and (coarse.norm(dim=1) - 20).abs().max() < 0.01
    # Beyond all pictures: as far as the box goes.
    corner = noisy(images, math.sqrt(3 * 64 * 64), "l2")
    assert ((corner == 0) | (corner == 1)).double().mean() > 0.95


@each_norm
def test_each_image_has_its_own(norm: Norm, eps: float) -> None:
    images = noise(5, 3, 16)
    whole = noisy(images, eps, norm, seed=4)
    for batch in ([2], [4, 0, 3]):
        assert torch.equal(noisy(images[batch], eps, norm, seed=4), whole[batch])
    assert not torch.equal(noisy(images, eps, norm, seed=5), whole)
    keyed = noisy(images, eps, norm, keys=["a", "b", "a", "c", "d"])
    assert not torch.equal(keyed, noisy(images, eps, norm))
    assert torch.equal(noisy(images[2:3], eps, norm, keys=["a"]), keyed[2:3])
    radii = torch.linspace(0, 1, 5) * eps
    own = noisy(images, radii, norm, seed=4)
    assert torch.equal(own[0], images[0]) and torch.equal(own[4], whole[4])
    assert torch.equal(own[2:3], noisy(images[2:3], float(radii[2]), norm, seed=4))


def test_originals_are_rounded_and_checked() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(noisy(images, 0.0), (images * 255).round() / 255)
    wrong: list[tuple[Any, Any, str]] = [
        (images * 255, 0.1, "divide by 255"),
        (images[0], 0.1, r"\[N, C, H, W\]"),
        (images, 8.0, "8/255"),
        (images, -1, "radius"),
    ]
    for given, eps, message in wrong:
        with pytest.raises(PhospheneError, match=message):
            noisy(given, eps)
    with pytest.raises(PhospheneError, match="unknown norm"):
        noisy(images, 0.1, "l1")  # type: ignore[arg-type]


# -- without 8 bits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [1e-3, 0.01, 0.25 / 255, 0.5, 3.0])
def test_l2_noise_is_exactly_as_long_as_asked_where_there_is_room(eps: float) -> None:
    images = 0.3 + 0.4 * torch.rand(4, 3, 32, 32, dtype=torch.float64)
    found = noisy(images.float(), eps, "l2", quantize=False)
    lengths = (found.double() - images.float()).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([eps] * 4, rel=1e-3, abs=1e-6)
    assert found.dtype == torch.float32 and ((found * 255).round() / 255 != found).double().mean() > 0.9


def test_l2_noise_makes_up_for_what_black_and_white_clip() -> None:
    images = (torch.rand(3, 3, 16, 16) > 0.5).float()  # half of it can't move
    found = noisy(images, 2.0, "l2", quantize=False)
    assert found.min() >= 0 and found.max() <= 1
    assert (found - images).flatten(1).norm(dim=1).tolist() == pytest.approx([2.0] * 3, rel=1e-4)
    most = noisy(images, math.sqrt(3 * 16 * 16), "l2", quantize=False)  # beyond all pictures: as far as the box goes
    size = (most - images).flatten(1).norm(dim=1)
    assert (size < math.sqrt(3 * 16 * 16)).all() and ((most == 0) | (most == 1)).double().mean() > 0.95


@each_norm
def test_without_8_bits_originals_stay_as_they_are(norm: Norm, eps: float) -> None:
    images = 0.2 + 0.6 * torch.rand(3, 3, 16, 16)
    found = noisy(images, eps, norm, seed=2, quantize=False)
    assert (noisy(images, 0.0, norm, quantize=False) - images).abs().max() < 1e-6
    assert torch.equal(noisy(images, eps, norm, seed=2, quantize=False), found)
    assert torch.equal(noisy(images[1:2], eps, norm, seed=2, quantize=False), found[1:2])
    radii = torch.tensor([0.0, eps / 2, eps])
    own = noisy(images, radii, norm, seed=2, quantize=False)
    assert (own[0] - images[0]).abs().max() < 1e-6 and torch.equal(own[2], found[2])


def test_linf_noise_below_a_level_is_there() -> None:
    images = torch.full((2, 3, 16, 16), 0.4)
    change = noisy(images, 0.25 / 255, quantize=False) - images
    assert (change.abs() * 255).flatten().tolist() == pytest.approx([0.25] * change.numel(), abs=1e-4)
    assert abs(float(change.sign().mean())) < 0.15
    black = noisy(torch.zeros(1, 3, 16, 16), 0.25 / 255, quantize=False)
    assert black.min() == 0 and float(black.max()) == pytest.approx(0.25 / 255)
