"""The legend strip: its bars are the very colours of the maps, zero stands where its label says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.images.legend import _BAR, _COLUMN, _HIGH, _MARGIN, KINDS, legend

ZERO = {"diverging": (_BAR // 2, 1.0), "colours": (_BAR // 2, 0.5), "overlay": (0, 0.5), "sequential": (0, 0.01)}


def bar_of(strip: Tensor, place: int = 0, across: int = 9) -> Tensor:
    """The bar `[3, H, W]` of a kind: found by its grey frame, whose corner stands above and left of it."""
    left = _MARGIN + place % across * _COLUMN
    frame = (strip[:, :, left - 1 : left + _BAR + 1] * 255).round().eq(200).all(0).all(1).nonzero()[:, 0]
    top = int(frame[2 * (place // across)]) + 1
    return strip[:, top : top + _HIGH, left : left + _BAR]


@pytest.mark.parametrize("kind", KINDS)
def test_zero_has_the_colour_that_the_legend_names(kind: str) -> None:
    bar = bar_of(legend([kind], 400))
    place, level = ZERO[kind]
    torch.testing.assert_close(bar[:, 7, place], torch.full((3,), level), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["diverging", "sequential", "overlay"])
def test_a_bar_has_the_colours_of_the_maps(kind: str) -> None:
    bar = bar_of(legend([kind], 400))
    line = torch.linspace(0, 1, _BAR)[None, None].expand(1, _HIGH, _BAR)
    if kind == "diverging":
        wanted = images.diverging(2 * line - 1, limit=1.0).images[0]
    elif kind == "sequential":
        wanted = images.sequential(line, limit=1.0).images[0]
    else:
        wanted = images.overlay(torch.full((1, 3, _HIGH, _BAR), 0.5), line)[0]
    torch.testing.assert_close(bar, wanted, atol=1 / 255, rtol=0)


def test_the_signed_bars_are_as_far_from_zero_at_both_ends() -> None:
    colours = bar_of(legend(["colours"], 400))[:, 7]
    torch.testing.assert_close(colours + colours.flip(1), torch.ones(3, _BAR), atol=2 / 255, rtol=0)
    blue, red = bar_of(legend(["diverging"], 400))[:, 7, [0, -1]].T
    assert blue[2] > blue[0] and red[0] > red[2] and blue.sum() == pytest.approx(float(red.sum()), abs=0.3)


def test_bars_stand_side_by_side_and_go_on_below_where_there_is_no_room() -> None:
    kinds = list(KINDS)
    wide, narrow = legend(kinds, 4 * _COLUMN + 2 * _MARGIN), legend(kinds, 2 * _COLUMN + 2 * _MARGIN)
    assert wide.shape[2] == 4 * _COLUMN + 2 * _MARGIN and narrow.shape[1] > wide.shape[1]
    assert legend(kinds, 300).shape[1] - narrow.shape[1] == 2 * (narrow.shape[1] - wide.shape[1])
    for place, kind in enumerate(kinds):
        alone = bar_of(legend([kind], 400))
        assert torch.equal(bar_of(wide, place), alone)
        assert torch.equal(bar_of(narrow, place, across=2), alone)


@pytest.mark.parametrize("width", [_BAR + 2 * _MARGIN, 500, 2000])
def test_the_strip_is_white_but_for_what_it_says(width: int) -> None:
    strip = legend(["diverging", "colours"], width)
    assert strip.shape[0] == 3 and strip.shape[2] == width
    assert (strip[:, :, : _MARGIN - 2] == 1).all() and (strip[:, -8:] == 1).all()
    assert 0 <= float(strip.min()) < 0.4 and float(strip.max()) == 1  # there is text


@pytest.mark.parametrize(
    ("kinds", "width", "message"),
    [
        ([], 400, "no legend of nothing"),
        (["rainbow"], 400, "no legend of rainbow"),
        (["overlay"], _BAR + 2 * _MARGIN - 1, "in 237 pixels"),
    ],
)
def test_what_has_no_legend(kinds: list[str], width: int, message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        legend(kinds, width)
