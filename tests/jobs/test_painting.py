"""Explanations as pictures: what zero looks like, where colours end, and that the number that is printed is that."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene import images
from phosphene.explain import METHODS, Attribution
from phosphene.images.legend import KINDS
from phosphene.jobs.painting import IN_COLOUR, in_colours, paint

SIGNED = [name for name, method in METHODS.items() if method.signed and name not in IN_COLOUR]
HEAT = [name for name, method in METHODS.items() if not method.signed and name != "saliency"]


def photo() -> Tensor:
    return torch.rand(1, 3, 20, 30)


def found(method: str, maps: Tensor, layer: str | None = None) -> Attribution:
    """An explanation with these maps `[K, H, W]`; as a gradient, each value thrice."""
    gradient = maps[None, :, None].expand(-1, -1, 3, -1, -1) if method in IN_COLOUR else None
    scores = torch.zeros(1, len(maps))
    return Attribution(method=method, maps=maps[None], scores=scores, gradient=gradient, layer=layer)


def percentile(values: Tensor) -> float:
    """The 99.5th of |values|, as a rank that is really there."""
    return float(np.percentile(values.abs().numpy(), 99.5, method="inverted_cdf"))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_painted_in_colours_that_have_a_legend(method: str) -> None:
    maps = torch.rand(2, 20, 30)
    painted = paint(found(method, maps), photo())
    assert painted.images.shape == (2, 3, 20, 30)
    assert painted.images.min() >= 0 and painted.images.max() <= 1
    assert painted.kind in KINDS


@pytest.mark.parametrize("method", [*SIGNED, *IN_COLOUR, "saliency"])
def test_the_clip_is_the_percentile_of_all_classes_together_and_is_printed(method: str) -> None:
    maps = torch.randn(3, 20, 30) * torch.tensor([1.0, 5.0, 0.1])[:, None, None]
    maps = maps.abs() if method == "saliency" else maps
    painted = paint(found(method, maps), photo())
    wanted = percentile(maps)
    assert painted.limit == pytest.approx(wanted, rel=1e-6)
    printed = re.search(r"clip (\S+) \(99\.5th percentile\)", painted.caption)
    assert printed and float(printed[1]) == pytest.approx(wanted, rel=0.05)
    beyond = maps.abs() >= wanted
    assert len(painted.images.permute(0, 2, 3, 1)[beyond & (maps > 0)].unique(dim=0)) == 1  # colours end there
    assert 0.003 < float(beyond.float().mean()) < 0.007


@pytest.mark.parametrize("method", SIGNED)
def test_signed_maps_are_white_at_zero_red_above_and_blue_below_by_the_same_measure(method: str) -> None:
    values = torch.linspace(-1, 1, 600).reshape(1, 20, 30)
    values = torch.where(values.abs() < 0.01, 0, values)
    painted, turned = paint(found(method, values), photo()), paint(found(method, -values), photo())
    assert painted.kind == "diverging" and painted.limit == turned.limit
    assert (painted.images[0][:, values[0] == 0] == 1).all()
    red, blue = painted.images[0][0], painted.images[0][2]
    assert (red > blue)[values[0] > 0.01].all() and (red < blue)[values[0] < -0.01].all()
    assert torch.equal(painted.images, turned.images.flip(2, 3))


@pytest.mark.parametrize("method", IN_COLOUR)
def test_values_of_each_colour_are_grey_at_zero_and_symmetric(method: str) -> None:
    values = torch.randn(2, 20, 30)
    values[:, 0] = 0
    painted, turned = paint(found(method, values), photo()), paint(found(method, -values), photo())
    assert painted.kind == "colours"
    assert (painted.images[:, :, 0] == 0.5).all()
    torch.testing.assert_close(painted.images + turned.images, torch.ones(2, 3, 20, 30))
    inside = values.abs() < painted.limit
    wanted = (0.5 + values / (2 * painted.limit))[:, None].expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        painted.images[inside[:, None].expand_as(wanted)], wanted[inside[:, None].expand_as(wanted)]
    )


def test_saliency_is_black_at_zero_and_the_lighter_the_more() -> None:
    values = torch.linspace(0, 1, 600).reshape(1, 20, 30)
    painted = paint(found("saliency", values), photo())
    assert painted.kind == "sequential" and painted.images[0, :, 0, 0].max() < 0.02
    light = painted.images[0].mean(0).flatten()[values.flatten() < painted.limit]
    assert (light.diff() > 0).all()


@pytest.mark.parametrize("method", HEAT)
def test_heat_leaves_the_picture_as_it_is_where_it_is_zero(method: str) -> None:
    values = torch.rand(2, 20, 30)
    values[:, :, :7] = 0
    below = photo()
    painted = paint(found(method, values, layer="layer4"), below)
    assert painted.kind == "overlay" and " at layer4" in painted.caption
    assert torch.equal(painted.images[..., :7], below[..., :7].expand(2, -1, -1, -1))
    assert torch.equal(painted.images, images.overlay(below.expand(2, -1, -1, -1), values))
    assert painted.limit == pytest.approx(float(values.max()))


def test_rise_begins_at_the_least_of_its_mean_and_says_so() -> None:
    values = 0.3 + torch.rand(1, 20, 30)
    values[0, 3, 4] = 0.3
    below = photo()
    painted = paint(found("rise", values), below)
    assert torch.equal(painted.images[0, :, 3, 4], below[0, :, 3, 4])
    assert painted.limit == pytest.approx(float(values.max()) - 0.3) and "above its least 0.3" in painted.caption


@pytest.mark.parametrize(
    ("method", "level"), [("gradient", 1.0), ("lrp", 1.0), ("guided-backprop", 0.5), ("saliency", 0.0), ("rise", None)]
)
def test_a_map_of_zeros_is_all_zero_colour(method: str, level: float | None) -> None:
    below = photo()
    painted = paint(found(method, torch.zeros(1, 20, 30)), below)
    wanted = below if level is None else torch.full_like(below, level)
    torch.testing.assert_close(painted.images, wanted, atol=0.02, rtol=0)
    assert painted.limit == 0


@pytest.mark.parametrize("method", ["gradient", "guided-backprop", "saliency"])
def test_a_neuron_that_sees_few_pixels_is_clipped_at_its_largest(method: str) -> None:
    values = torch.zeros(1, 20, 30)
    values[0, 5, 5] = 3e-9
    painted = paint(found(method, values), photo())
    assert painted.limit == pytest.approx(3e-9)
    assert (painted.images[0, :, 5, 5] - painted.images[0, :, 0, 0]).abs().max() > 0.4


def test_patches_are_coloured_as_explanations_are() -> None:
    values = torch.randn(1, 20, 30)
    gradient = values.expand(3, -1, -1)
    assert torch.equal(in_colours(gradient), paint(found("guided-backprop", values), photo()).images[0])
    assert (in_colours(torch.zeros(3, 4, 4)) == 0.5).all()
