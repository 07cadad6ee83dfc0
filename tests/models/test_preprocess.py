from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from phosphene.errors import ImageError
from phosphene.models import Preprocess

sides = st.integers(1, 90)


def pillow(picture: torch.Tensor, width: int, height: int, how: Image.Resampling) -> torch.Tensor:
    """`[3, H, W]` in [0, 1] resized by Pillow, which works on bytes."""
    image = Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())
    return torch.from_numpy(np.array(image.resize((width, height), how))).permute(2, 0, 1) / 255


@pytest.mark.parametrize("name", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("height", "width"), [(300, 451), (100, 64), (64, 500)])
def test_resizing_is_pillows(photos: torch.Tensor, name: str, height: int, width: int) -> None:
    how = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}[name]
    picture = pillow(photos[0], width, height, Image.Resampling.BICUBIC)
    short = min(height, width)
    target = (round(height * 96 / short), round(width * 96 / short))
    theirs = pillow(picture, target[1], target[0], how)
    top, left = (target[0] - 80) // 2, (target[1] - 80) // 2
    ours = Preprocess((80, 80), 96, name)(picture[None])[0]
    assert (ours - theirs[:, top : top + 80, left : left + 80]).abs().max() <= 2 / 255


@settings(deadline=None, max_examples=60)
@given(height=sides, width=sides, tall=sides, wide=sides, resize=sides, channels=st.sampled_from([1, 3]))
def test_any_picture_comes_out_in_the_size_asked_for_and_in_range(
    height: int, width: int, tall: int, wide: int, resize: int, channels: int
) -> None:
    images = torch.rand(2, channels, height, width).round()  # black and white: bicubic overshoots most
    out = Preprocess((tall, wide), resize)(images)
    assert out.shape == (2, channels, tall, wide)
    assert out.min() >= 0
    assert out.max() <= 1
    assert out.is_contiguous()


@settings(deadline=None, max_examples=30)
@given(height=sides, width=sides, resize=sides)
def test_a_picture_of_the_right_size_is_left_alone(height: int, width: int, resize: int) -> None:
    images = torch.rand(1, 3, height, width)
    assert Preprocess((height, width), resize)(images) is images


@settings(deadline=None, max_examples=30)
@given(height=sides, width=sides, level=st.floats(0, 1, width=32))
def test_a_picture_of_one_colour_keeps_it(height: int, width: int, level: float) -> None:
    out = Preprocess((32, 32), 36)(torch.full((1, 3, height, width), level))
    assert (out - level).abs().max() < 1e-5


def test_the_middle_is_kept_and_its_neighbours_are_cut_away() -> None:
    images = torch.zeros(1, 3, 40, 80)
    images[..., 20:60] = 1  # the middle square
    assert Preprocess((40, 40), 40)(images).min() == 1


def test_an_interpolation_that_torch_lacks_becomes_bicubic() -> None:
    images = torch.rand(1, 3, 50, 40)
    assert torch.equal(Preprocess((32, 32), 32, "lanczos")(images), Preprocess((32, 32), 32)(images))


def test_a_single_picture_without_a_batch_is_an_error() -> None:
    with pytest.raises(ImageError, match=r"\[N, C, H, W\], got a tensor of shape \[3, 40, 40\]"):
        Preprocess()(torch.rand(3, 40, 40))


@pytest.mark.parametrize("shape", [(4, 100_000), (100_000, 4)])
def test_a_very_thin_picture_is_the_middle_of_itself(shape: tuple[int, int]) -> None:
    picture = torch.zeros(1, 3, *shape)
    middle = tuple(slice(side // 2 - 40, side // 2 + 40) if side > 4 else slice(None) for side in shape)
    picture[(..., *middle)] = 1
    found = Preprocess()(picture)
    assert found.shape == (1, 3, 224, 224)
    assert float(found.min()) > 0.999
