"""Mosaics, and how much of a map lies in the right quarter: against loops over pixels."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.focus import Mosaic, choose_mosaics, focus, mosaic_image


def asked(classes: list[int], mosaic: Mosaic) -> tuple[int, list[int]]:
    """The class that is asked for, and those of the other quarters."""
    shown = [classes[place] for place in mosaic.images]
    return shown.pop(mosaic.quarter), shown


def share(values: Tensor, quarter: int) -> float:
    """Pixel after pixel."""
    height, width = values.shape
    right = total = 0.0
    for y in range(height):
        for x in range(width):
            value = max(float(values[y, x]), 0)
            total += value
            right += value if 2 * (y >= height // 2) + (x >= width // 2) == quarter else 0
    return right / total if total else 0


# -- drawing ----------------------------------------------------------------------------------------------------------


def test_the_class_that_is_asked_for_is_in_one_quarter_and_all_four_are_different() -> None:
    classes = [7, 7, 7, 7, 3, 3, 9, 1, 1, 4, 7]
    for mosaic in choose_mosaics(classes, 500):
        own, others = asked(classes, mosaic)
        assert own not in others and len(set(others)) == 3
        assert len(mosaic.images) == 4 and 0 <= mosaic.quarter < 4


@pytest.mark.parametrize("classes", [[5, 5, 2], [5, 2], [0, 1, 2, 0, 1, 2]])
def test_with_two_or_three_classes_others_repeat_but_never_the_one_that_is_asked_for(classes: list[int]) -> None:
    seen = set()
    for mosaic in choose_mosaics(classes, 200):
        own, others = asked(classes, mosaic)
        assert own not in others and len(others) == 3
        seen |= {own, *others}
    assert seen == set(classes)


def test_quarters_and_images_are_drawn_uniformly() -> None:
    classes = [0, 0, 0, 1, 2, 3]
    mosaics = choose_mosaics(classes, 6000)
    quarters = Counter(mosaic.quarter for mosaic in mosaics)
    images = Counter(mosaic.images[mosaic.quarter] for mosaic in mosaics)
    joint = Counter((mosaic.quarter, mosaic.images[mosaic.quarter]) for mosaic in mosaics)
    for found, count, spread in ((quarters, 4, 5), (images, 6, 5), (joint, 24, 5)):
        wanted = 6000 / count
        assert len(found) == count
        assert all(abs(n - wanted) < spread * math.sqrt(wanted) for n in found.values())
    beside = Counter(place for m in mosaics for place in m.images if classes[m.images[m.quarter]] == 1 and place < 3)
    assert max(beside.values()) < 1.3 * min(beside.values())  # each image of a class is as good as another


def test_a_seed_fixes_the_mosaics_and_another_draws_others() -> None:
    classes = list(range(40))
    one = choose_mosaics(classes, 25, seed=3)
    torch.manual_seed(99)
    assert one == choose_mosaics(classes, 25, seed=3) == choose_mosaics(classes, 60, seed=3)[:25]
    assert one != choose_mosaics(classes, 25, seed=4)
    assert choose_mosaics(classes, 25) == choose_mosaics(classes, 25, seed=0)


@pytest.mark.parametrize("classes", [[], [3], [3, 3, 3]])
def test_a_folder_of_one_class_is_an_error_line(classes: list[int]) -> None:
    with pytest.raises(PhospheneError, match="mosaics need images of at least two classes: all of these are of one"):
        choose_mosaics(classes, 2)


@pytest.mark.parametrize("count", [0, -3])
def test_no_mosaics_are_an_error_line(count: int) -> None:
    with pytest.raises(PhospheneError, match=f"{count} mosaics: draw at least 1"):
        choose_mosaics([1, 2], count)


# -- layout -----------------------------------------------------------------------------------------------------------


def test_four_images_lie_in_reading_order() -> None:
    four = torch.rand(4, 3, 5, 7)
    whole = mosaic_image(four)
    assert whole.shape == (3, 10, 14)
    for y in range(10):
        for x in range(14):
            assert torch.equal(whole[:, y, x], four[2 * (y >= 5) + (x >= 7), :, y % 5, x % 7])


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (5, 3, 8, 8), (3, 8, 8), (4, 3, 8)])
def test_other_shapes_make_no_mosaic(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match=r"a mosaic is made of four images \[4, 3, H, W\], got \[" + str(shape[0])):
        mosaic_image(torch.rand(shape))


def test_the_quarter_of_a_mosaic_is_the_quarter_of_its_map() -> None:
    for quarter in range(4):
        four = torch.zeros(4, 3, 6, 4)
        four[quarter] = 1
        bright = mosaic_image(four).mean(0, keepdim=True)
        assert [float(focus(bright, [k])) for k in range(4)] == [float(k == quarter) for k in range(4)]


# -- shares -----------------------------------------------------------------------------------------------------------


def test_shares_worked_out_by_hand() -> None:
    one = torch.tensor([[[1.0, 0, 2, 0], [0, 1, 0, -9], [4, -1, 0, 3], [-5, 0, 1, 0]]])
    assert [float(focus(one, [k])) for k in range(4)] == pytest.approx([2 / 12, 2 / 12, 4 / 12, 4 / 12])
    assert focus(one.expand(4, 4, 4), [0, 1, 2, 3]).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 3, 1 / 3])
    assert float(focus(torch.ones(1, 6, 2), [3])) == 0.25


def test_shares_are_loops_over_pixels() -> None:
    maps, quarters = torch.randn(9, 6, 10), [0, 1, 2, 3, 3, 2, 1, 0, 2]
    maps[4] *= 1e-20
    maps[5] *= 1e20
    found = focus(maps, quarters)
    assert found.dtype == torch.float64 and found.shape == (9,)
    wanted = [share(values.double(), quarter) for values, quarter in zip(maps, quarters, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)
    assert focus(maps.half()[:4], quarters[:4]).tolist() == pytest.approx(wanted[:4], abs=1e-3)
    every = torch.stack([focus(maps, [k] * 9) for k in range(4)])
    assert every.sum(0).tolist() == pytest.approx([1] * 9)


def test_a_map_that_points_nowhere_has_no_focus() -> None:
    maps = torch.stack([torch.zeros(8, 8), -torch.rand(8, 8), torch.full((8, 8), -0.0)])
    assert focus(maps, [0, 1, 2]).tolist() == [0, 0, 0]


def test_only_what_speaks_for_the_class_counts_and_its_scale_does_not() -> None:
    maps = torch.randn(3, 8, 8).double()
    wanted = focus(maps, [0, 1, 2])
    assert torch.equal(focus(maps.clamp(min=0), [0, 1, 2]), wanted)
    assert focus(maps * 1e-6, [0, 1, 2]).tolist() == pytest.approx(wanted.tolist())


@pytest.mark.parametrize("shape", [(1, 7, 8), (1, 8, 7), (2, 8, 8), (8, 8), (1, 1, 8, 8)])
def test_odd_sizes_and_other_shapes_are_error_lines(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match=r"expected maps \[1, 2 H, 2 W\] of mosaics, got \[" + str(shape[0])):
        focus(torch.rand(shape), [0])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_maps_that_are_not_finite_are_an_error_line(value: float) -> None:
    maps = torch.rand(2, 4, 4)
    maps[1, 2, 3] = value
    with pytest.raises(PhospheneError, match="the maps hold NaN or infinity"):
        focus(maps, [0, 1])


@pytest.mark.parametrize("quarter", [-1, 4])
def test_there_are_quarters_0_to_3(quarter: int) -> None:
    with pytest.raises(PhospheneError, match="a quarter is not 0 to 3"):
        focus(torch.rand(1, 4, 4), [quarter])
