"""Training pictures: the same for the same seed, epoch and place, in whichever order, and always pictures."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pupils import coloured, fill, found, write

from phosphene import images
from phosphene.errors import ImageError
from phosphene.models import Preprocess
from phosphene.training.augment import KINDS, LIGHT, SCALE, Augment, Kind, _lit, _part
from phosphene.training.folder import Photo
from phosphene.training.loading import ahead

WAY = Preprocess((16, 16), 18)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    return list(found(fill(tmp_path_factory.mktemp("augment"), {"": {"red": 8, "blue": 8}})).train)


@pytest.mark.parametrize("kind", ["light", "strong"])
def test_a_picture_follows_from_seed_epoch_and_place(photos: list[Photo], kind: Kind) -> None:
    augment = Augment(kind, WAY, 3)
    jobs = [(place, epoch) for place in range(len(photos)) for epoch in range(3)]
    wanted = {(place, epoch): augment(photos[place], place, epoch) for place, epoch in jobs}
    random.Random(0).shuffle(jobs)
    again = Augment(kind, WAY, 3)
    torch.manual_seed(9)
    np.random.seed(9)
    for made, (place, epoch) in zip(ahead([jobs], lambda job: again(photos[job[0]], *job), threads=4).__next__(), jobs):
        assert torch.equal(made, wanted[place, epoch])
    for place in range(len(photos)):
        other = [wanted[place, epoch] for epoch in range(3)]
        other += [Augment(kind, WAY, 4)(photos[place], place, 0), augment(photos[place], place + 1, 0)]
        assert all(not torch.equal(a, b) for i, a in enumerate(other) for b in other[:i])


def test_none_is_what_the_network_sees(photos: list[Photo]) -> None:
    augment = Augment("none", WAY, 3)
    for place, photo in enumerate(photos):
        assert torch.equal(augment(photo, place, 0), WAY(images.read(photo.path))[0])
        assert torch.equal(augment(photo, place, 7), augment(photo, 0, 0))


def test_negative_and_huge_seeds(photos: list[Photo]) -> None:
    made = [Augment("light", WAY, seed)(photos[0], 0, 0) for seed in (-1, 0, 2**63, 2**70)]
    assert not torch.equal(made[0], made[1]) and all(picture.shape == (3, 16, 16) for picture in made)


@given(height=st.integers(4, 90), width=st.integers(4, 90), kind=st.sampled_from(KINDS), seed=st.integers(0, 2**64))
@settings(max_examples=60, deadline=None)
def test_files_of_any_size_become_pictures(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, kind: Kind, seed: int
) -> None:
    path = write(tmp_path_factory.mktemp("any") / "a.png", coloured("blue", 0, (height, width)))
    way = Preprocess((12, 15), 20, "bilinear" if seed % 2 else "bicubic")
    made = Augment(kind, way, seed)(Photo(path, 0), 1, 2)
    assert made.shape == (3, 12, 15) and made.dtype is torch.float32
    assert float(made.min()) >= 0 and float(made.max()) <= 1 and bool(torch.isfinite(made).all())


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    kind=st.sampled_from(["light", "strong"]),
    seed=st.integers(0, 999),
)
@settings(max_examples=300, deadline=None)
def test_the_part_is_a_part(height: int, width: int, kind: str, seed: int) -> None:
    """Also of pictures one pixel thin. Each pixel holds its place, so that the part says where it is from."""
    picture = torch.arange(height * width).view(1, 1, height, width).expand(1, 3, -1, -1).float()
    part = _part(picture, np.random.default_rng(seed), SCALE[kind])
    tall, wide = part.shape[-2:]
    assert 1 <= tall <= height and 1 <= wide <= width
    top, left = divmod(int(part[0, 0, 0, 0]), width)
    assert torch.equal(part, picture[..., top : top + tall, left : left + wide])
    if tall == wide == min(height, width):
        return  # the middle, or by chance
    assert (tall + 0.5) * (wide + 0.5) >= SCALE[kind] * height * width  # but for rounding
    assert (tall - 0.5) / (wide + 0.5) <= 4 / 3 + 1e-9 and (tall + 0.5) / max(wide - 0.5, 1e-9) >= 3 / 4 - 1e-9


@pytest.mark.parametrize(("shape", "wanted"), [((400, 4), (198, 202)), ((4, 400), (198, 202))])
def test_of_a_picture_that_is_too_long_the_middle_is_shown(shape: tuple[int, int], wanted: tuple[int, int]) -> None:
    picture = torch.arange(1600.0).view(1, 1, *shape)
    part = _part(picture, np.random.default_rng(0), 0.35)
    long = part[0, 0, :, 0] // 4 if shape[0] > shape[1] else part[0, 0, 0]
    assert part.shape[-2:] == (4, 4) and (int(long[0]), int(long[-1]) + 1) == wanted


def test_half_are_mirrored_and_areas_are_spread() -> None:
    picture = torch.arange(10000.0).view(1, 1, 100, 100)
    areas = []
    for seed in range(600):
        part = _part(picture, np.random.default_rng(seed), 0.35)
        areas.append(part.numel() / 10000)
    assert 0.34 < min(areas) < 0.4 and max(areas) > 0.9 and np.mean(areas) == pytest.approx(0.65, abs=0.05)


def test_mirroring(tmp_path: Path) -> None:
    """A picture that is dark on the left is dark on the right half of the times."""
    pixels = coloured("red", 0, (20, 20), noise=0)
    pixels[:, :10] //= 4
    photo = Photo(write(tmp_path / "a.png", pixels), 0)
    augment = Augment("light", WAY, 0)
    sides = [bool(p[..., :4].mean() > p[..., -4:].mean()) for p in (augment(photo, 0, epoch) for epoch in range(200))]
    assert 75 < sum(sides) < 125


@pytest.mark.parametrize("kind", ["light", "strong"])
def test_light_changes_by_as_much_as_it_says(kind: str) -> None:
    """A grey picture of one colour shows brightness alone."""
    grey = torch.full((1, 3, 4, 4), 0.4)
    values = np.array([float(_lit(grey, np.random.default_rng(seed), LIGHT[kind]).mean()) for seed in range(400)]) / 0.4
    assert 1 - LIGHT[kind] - 1e-5 <= values.min() < 1 - 0.9 * LIGHT[kind]
    assert 1 + 0.9 * LIGHT[kind] < values.max() <= 1 + LIGHT[kind] + 1e-5
    assert torch.allclose(_lit(grey, np.random.default_rng(0), 0.0), grey)


def test_a_file_that_has_gone_raises_where_it_is_due(photos: list[Photo], tmp_path: Path) -> None:
    gone = Photo(tmp_path / "gone.png", 0)
    augment = Augment("light", WAY, 0)
    made = ahead([[photos[0]], [gone], [photos[1]]], lambda photo: augment(photo, 0, 0))
    assert len(next(made)) == 1
    with pytest.raises(ImageError, match="does not exist"):
        next(made)
