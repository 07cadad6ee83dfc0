"""Colours of one picture for another: means, covariances and luminances that really are what is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene.images.palette import luminance, match_colours, match_luminance, with_colours_of


def picture(height: int, width: int, mean: tuple[float, ...], spread: float, seed: int) -> Tensor:
    """Correlated colours around `mean`, far enough from black and white that nothing is clipped."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.rand(3, 3, generator=generator) - 0.3
    noise = (torch.rand(3, height * width, generator=generator) - 0.5) * spread
    return ((mix @ noise).view(1, 3, height, width) + torch.tensor(mean).view(1, 3, 1, 1)).double()


def style() -> Tensor:
    return picture(12, 17, (0.6, 0.5, 0.35), 0.3, 1)


def content() -> Tensor:
    return picture(20, 11, (0.4, 0.55, 0.5), 0.25, 2)


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    pixels = image[0].flatten(1)
    return pixels.mean(1), torch.cov(pixels)


def luma(image: Tensor) -> Tensor:
    """Rec. 601, a channel after the other."""
    return 0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]


def chroma(image: Tensor) -> Tensor:
    """What is left of the colours without their luminance."""
    return image[0] - luma(image)


# -- luminance --------------------------------------------------------------------------------------------------


def test_luminance_by_hand() -> None:
    image = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]).T.reshape(1, 3, 2, 2)
    grey = luminance(image)
    assert grey.shape == image.shape and grey.is_contiguous()
    torch.testing.assert_close(grey[0, 0].flatten(), torch.tensor([0.299, 0.587, 0.114, 0.5]))
    assert torch.equal(grey[0, 0], grey[0, 1]) and torch.equal(grey[0, 0], grey[0, 2])


def test_luminance_of_grey_is_itself() -> None:
    grey = luminance(style())
    torch.testing.assert_close(luminance(grey), grey)


def test_luminance_of_one_and_colours_of_the_other() -> None:
    colours, grey = style(), picture(12, 17, (0.5, 0.5, 0.5), 0.1, 3)
    found = with_colours_of(grey, colours)
    assert float(found.min()) > 0 and float(found.max()) < 1  # nothing was clipped
    torch.testing.assert_close(luma(found), luma(grey), atol=1e-6, rtol=0)
    torch.testing.assert_close(chroma(found), chroma(colours), atol=1e-6, rtol=0)


def test_a_picture_with_its_own_colours_is_itself() -> None:
    torch.testing.assert_close(with_colours_of(style(), style()), style(), atol=1e-6, rtol=0)


def test_colours_that_do_not_exist_are_clipped() -> None:
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    found = with_colours_of(torch.ones(1, 3, 2, 2), red)
    assert float(found.min()) >= 0 and float(found.max()) == 1
    untouched = red.clone()
    with_colours_of(torch.zeros(1, 3, 2, 2), red)
    assert torch.equal(red, untouched)


def test_a_style_is_given_mean_and_spread_of_the_luminance() -> None:
    found = match_luminance(style(), content())
    assert found.shape == style().shape and float(found.min()) > 0 and float(found.max()) < 1
    assert torch.equal(found[0, 0], found[0, 1]) and torch.equal(found[0, 1], found[0, 2])
    torch.testing.assert_close(luma(found).mean(), luma(content()).mean())
    # Over three equal channels, whose degrees of freedom are counted as their own.
    torch.testing.assert_close(luma(found).std(), luma(content()).std(), rtol=3e-3, atol=0)
    straight = torch.corrcoef(torch.stack([luma(found).flatten(), luma(style()).flatten()]))[0, 1]
    assert float(straight) == pytest.approx(1)


def test_an_even_style_takes_the_mean_luminance() -> None:
    found = match_luminance(torch.full((1, 3, 4, 4), 0.8, dtype=torch.float64), content())
    torch.testing.assert_close(found, torch.full_like(found, float(luma(content()).mean())))


# -- colours ----------------------------------------------------------------------------------------------------


def test_mean_and_covariance_match() -> None:
    found = match_colours(style(), content())
    assert found.shape == style().shape and found.dtype == style().dtype
    assert float(found.min()) > 0 and float(found.max()) < 1
    for one, other in zip(moments(found), moments(content()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(moments(found)[1], moments(style())[1], rtol=0.1)


def test_matching_a_picture_with_its_own_colours_changes_nothing() -> None:
    torch.testing.assert_close(match_colours(style(), style()), style(), rtol=1e-6, atol=1e-7)


def test_matching_keeps_each_place_where_it_is() -> None:
    """It is one map of colours: a rearranged style is the rearranged result."""
    found = match_colours(style(), content())
    torch.testing.assert_close(match_colours(style().flip(3), content()), found.flip(3))


def test_single_precision_will_do() -> None:
    found = match_colours(style().float(), content().float())
    assert found.dtype == torch.float32
    for one, other in zip(moments(found), moments(content().float()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_grey_style() -> None:
    """All its spread lies along one direction, which can take one direction of the content's colours only."""
    grey = luminance(style())
    found = match_colours(grey, content())
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(moments(found)[0], moments(content())[0], rtol=1e-6, atol=1e-9)
    values = torch.linalg.eigvalsh(moments(found)[1])
    assert float(values[1]) < 1e-6 < float(values[2]) <= float(torch.linalg.eigvalsh(moments(content())[1])[2]) * 1.001


def test_an_even_style_becomes_the_mean_colour() -> None:
    found = match_colours(torch.full((1, 3, 5, 5), 0.25, dtype=torch.float64), content())
    wanted = moments(content())[0].view(1, 3, 1, 1).expand_as(found)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_a_grey_content_takes_the_colours_away() -> None:
    found = match_colours(style(), luminance(content()))
    assert float(chroma(found).abs().max()) < 1e-2 < float(chroma(style()).abs().max())


def test_results_lie_between_black_and_white() -> None:
    loud = (style() - 0.5).mul(20).add(0.5).clamp(0, 1)
    found = match_colours(style(), loud)
    assert float(found.min()) == 0 and float(found.max()) == 1
