"""Gradients window by window, against the gradient of the whole picture."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene.synthesize.windows import gradient_by_windows, taper, windows

SIDE, OVERLAP = 64, 16
Gradient: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, int], int, int]:
    """(size, side, overlap), the overlap at most half of the side."""
    side = draw(st.integers(4, 40))
    return (draw(st.integers(1, 130)), draw(st.integers(1, 130))), side, draw(st.integers(0, side // 2))


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_windows_cover_everything_and_are_equally_large(layout: tuple[tuple[int, int], int, int]) -> None:
    (height, width), side, overlap = layout
    boxes = windows((height, width), side, overlap)
    covered = torch.zeros(height, width, dtype=torch.int)
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= height and 0 <= left < right <= width
        assert (bottom - top, right - left) == (min(side, height), min(side, width))
        covered[top:bottom, left:right] += 1
    assert (covered > 0).all()
    assert len(set(boxes)) == len(boxes)


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_neighbours_share_at_least_the_overlap_and_no_window_is_idle(layout: tuple[tuple[int, int], int, int]) -> None:
    (height, width), side, overlap = layout
    boxes = windows((height, width), side, overlap)
    for length, spans in ((height, {box[0::2] for box in boxes}), (width, {box[1::2] for box in boxes})):
        ordered = sorted(spans)
        assert ordered[0][0] == 0 and ordered[-1][1] == length
        for (_, end), (start, _) in pairwise(ordered):
            assert end - start >= overlap
        assert len(ordered) == 1 or (len(ordered) - 1) * (side - overlap) + overlap < length  # one fewer would not do


@settings(deadline=None, max_examples=100)
@given(layouts())
def test_weights_are_positive_where_they_are_summed(layout: tuple[tuple[int, int], int, int]) -> None:
    size, side, overlap = layout
    total = torch.zeros(size)
    for box in windows(size, side, overlap):
        weight = taper(box, size, overlap)
        assert weight.shape == (box[2] - box[0], box[3] - box[1])
        assert (weight >= 0).all() and weight.max() <= 1
        total[box[0] : box[2], box[1] : box[3]] += weight
    assert total.min() > 1e-4


def test_a_taper_falls_only_at_borders_that_are_shared() -> None:
    weight = taper((0, 30, 40, 70), (90, 70), 8)  # the upper right corner of the picture
    assert (weight[:32, 8:] == 1).all()
    assert (weight[0, 8:] == 1).all() and (weight[:32, -1] == 1).all()
    assert weight[-1, 20] < 0.1 and weight[10, 0] < 0.1
    assert (weight[32:, 20].diff() < 0).all() and (weight[10, :8].diff() > 0).all()


# -- gradients --------------------------------------------------------------------------------------------------


def pixelwise(image: Tensor) -> tuple[Tensor, Tensor]:
    """Of sum(sin(3 x)): no pixel knows the others."""
    return torch.sin(3 * image).sum(), 3 * torch.cos(3 * image)


@pytest.mark.parametrize("shift", [(0, 0), (5, -9), (200, 31)])
@pytest.mark.parametrize("size", [(64, 64), (65, 64), (150, 40), (100, 171)])
def test_what_no_pixel_shares_is_the_same_in_windows(size: tuple[int, int], shift: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    _, found = gradient_by_windows(pixelwise, image, side=SIDE, overlap=OVERLAP, shift=shift)
    torch.testing.assert_close(found, pixelwise(image)[1], atol=1e-5, rtol=1e-5)


def test_an_image_that_fits_is_taken_whole() -> None:
    image, calls = torch.rand(1, 3, 60, 64), []

    def gradient(window: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(window.shape)
        return pixelwise(window)

    value, _ = gradient_by_windows(gradient, image, side=SIDE, overlap=OVERLAP, shift=(0, 0))
    assert calls == [image.shape]
    assert float(value) == pytest.approx(float(pixelwise(image)[0]))


def test_the_value_is_the_mean_over_windows() -> None:
    image = torch.rand(1, 3, 100, 64)
    value, _ = gradient_by_windows(pixelwise, image, side=SIDE, overlap=28, shift=(0, 0))
    wanted = 0.5 * sum(float(pixelwise(image[..., a:b, :])[0]) for a, b in ((0, 64), (36, 100)))
    assert float(value) == pytest.approx(wanted, rel=1e-5)


def test_the_image_itself_is_left_alone() -> None:
    image = torch.rand(1, 3, 100, 80)
    before = image.clone()
    gradient_by_windows(pixelwise, image, side=SIDE, overlap=OVERLAP, shift=(3, 4))
    assert torch.equal(image, before)


REACH = 3  # an output of the two convolutions below sees so many pixels to each side of it
REACHED = 2 * REACH  # so the gradient of a pixel knows of so many


@pytest.fixture(scope="module")
def energy() -> Gradient:
    """(value, gradient) of half the squared features of a small network without padding."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 4, 5)).requires_grad_(False)

    def gradient(image: Tensor) -> tuple[Tensor, Tensor]:
        leaf = image.detach().requires_grad_()
        value = module(leaf).square().sum() / 2
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    return gradient


def rolled_back(gradient: Gradient, image: Tensor, shift: tuple[int, int]) -> Tensor:
    """The gradient of the whole rolled image, rolled back."""
    return gradient(image.roll(shift, (2, 3)))[1].roll((-shift[0], -shift[1]), (2, 3))


@pytest.mark.parametrize("size", [(150, 40), (100, 171)])
def test_away_from_borders_of_windows_it_is_the_gradient_of_the_whole(energy: Gradient, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    _, found = gradient_by_windows(energy, image, side=SIDE, overlap=OVERLAP, shift=(0, 0))
    near = torch.zeros(size, dtype=torch.bool)
    for box in windows(size, SIDE, OVERLAP):
        for row in {box[0], box[2]} - {0, size[0]}:
            near[row - REACHED : row + REACHED] = True
        for column in {box[1], box[3]} - {0, size[1]}:
            near[:, column - REACHED : column + REACHED] = True
    assert 0.2 < float(near.float().mean()) < 0.7
    whole = energy(image)[1]
    torch.testing.assert_close(found[..., ~near], whole[..., ~near], atol=1e-5, rtol=1e-5)


def test_where_windows_fade_the_gradient_is_blended_by_their_weights(energy: Gradient) -> None:
    size = (100, 90)
    image = torch.rand(1, 3, *size)
    _, found = gradient_by_windows(energy, image, side=SIDE, overlap=OVERLAP, shift=(0, 0))
    boxes = windows(size, SIDE, OVERLAP)
    single = [energy(image[..., box[0] : box[2], box[1] : box[3]])[1] for box in boxes]
    for y, x in ((40, 30), (45, 33), (50, 60), (37, 5), (63, 63), (99, 89)):
        total, weights = torch.zeros(3), 0.0
        for box, gradient in zip(boxes, single, strict=True):
            if box[0] <= y < box[2] and box[1] <= x < box[3]:
                weight = float(taper(box, size, OVERLAP)[y - box[0], x - box[1]])
                total += weight * gradient[0, :, y - box[0], x - box[1]]
                weights += weight
        torch.testing.assert_close(found[0, :, y, x], total / weights, atol=1e-5, rtol=1e-4)


def test_a_shift_is_the_gradient_of_the_rolled_image(energy: Gradient) -> None:
    image = torch.rand(1, 3, 50, 60)  # in one window
    _, found = gradient_by_windows(energy, image, side=SIDE, overlap=OVERLAP, shift=(7, -13))
    torch.testing.assert_close(found, rolled_back(energy, image, (7, -13)))


def test_there_is_no_seam(energy: Gradient) -> None:
    """Steps from one row to the next are no larger across borders of windows than anywhere else."""
    size = (200, 64)
    image = nn.functional.interpolate(torch.rand(1, 3, 25, 8), size, mode="bicubic")
    usual = energy(image)[1].diff(dim=2).abs().mean((0, 1, 3))[REACHED:-REACHED].max()

    def largest(overlap: int) -> float:
        _, found = gradient_by_windows(energy, image, side=SIDE, overlap=overlap, shift=(0, 0))
        jumps = found.diff(dim=2).abs().mean((0, 1, 3))
        boxes = windows(size, SIDE, overlap)
        return max(float(jumps[border - 1]) for box in boxes for border in (box[0], box[2]) if 0 < border < size[0])

    assert largest(OVERLAP) < 1.2 * usual
    assert largest(0) > 2 * usual  # as it would be without
