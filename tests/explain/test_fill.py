from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import distance
from skimage.filters import gaussian
from toys import pictures, small

from phosphene.errors import PhospheneError
from phosphene.explain import Fill
from phosphene.explain.fill import filled


def test_the_mean_is_each_images_own_colour() -> None:
    images = pictures(3)
    found = filled(small(), images, "mean")
    for place in range(3):
        for colour in range(3):
            assert distance(found[place, colour], images[place, colour].mean().expand(20, 20)) < 1e-12


@pytest.mark.parametrize(
    ("fill", "level"), [("black", 0.0), ("grey", 0.5), ("white", 1.0), (0.25, 0.25), (0, 0.0), (1, 1.0)]
)
def test_levels_are_the_same_everywhere(fill: Fill, level: float) -> None:
    images = pictures(2)
    found = filled(small(), images, fill)
    assert found.shape == images.shape and found.dtype == images.dtype
    assert bool((found == level).all())


def test_blurred_is_a_gaussian_of_a_tenth_of_the_shorter_side() -> None:
    image = pictures(1, 60)[:, :, :40, :60]
    found = filled(small(), image, "blur")
    wanted = torch.from_numpy(gaussian(image[0].numpy(), sigma=4.0, mode="mirror", truncate=3.0, channel_axis=0))
    assert distance(found[0], wanted) < 1e-6
    assert distance(found.mean((2, 3)), image.mean((2, 3))) < 0.02
    assert float(found.std()) < 0.2 * float(image.std())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2), (2, 30), (3, 5), (5, 4), (6, 6), (7, 40)])
def test_tiny_images_are_blurred_too(size: tuple[int, int]) -> None:
    images = pictures(2, 40)[:, :, : size[0], : size[1]]
    found = filled(small(), images, "blur")
    assert found.shape == images.shape
    assert bool(torch.isfinite(found).all())
    assert float(found.min()) >= float(images.min()) - 1e-9 and float(found.max()) <= float(images.max()) + 1e-9
    flat = torch.full_like(images, 0.3)
    assert distance(filled(small(), flat, "blur"), flat) < 1e-6


def test_images_are_taken_as_they_are_one_for_all_or_one_for_each() -> None:
    images, others = pictures(2), pictures(2)
    assert torch.equal(filled(small(), images, others), others)
    assert torch.equal(filled(small(), images, others[:1]), others[:1].expand(2, -1, -1, -1))
    single = filled(small(), images, others.float())
    assert single.dtype == torch.float64
    assert distance(single, others) < 1e-6


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ("pink", "no fill 'pink': there are mean, blur, grey, black, white, or a level from 0 to 1"),
        (-0.1, "a fill of -0.1 is no level of grey: give 0 to 1"), (1.01, "is no level of grey"),
        (float("nan"), "a fill of nan"), (torch.zeros(20, 20), r"a baseline of shape \[20, 20\] for images"),
        (torch.zeros(1, 1, 20, 20), r"shape \[1, 1, 20, 20\]"), (torch.zeros(3, 3, 20, 20), r"shape \[3, 3, 20, 20\]"),
        (torch.zeros(1, 3, 10, 10), r"shape \[1, 3, 10, 10\]"), (torch.zeros(0, 3, 20, 20), r"shape \[0, 3, 20, 20\]"),
    ],
)  # fmt: skip
def test_what_is_no_fill_is_an_error_line(fill: Any, message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        filled(small(), pictures(2), fill)
