"""Deletion and insertion against a loop over pixels, and on a network whose answer is known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import ImageError, LabelError, NetworkError, PhospheneError
from phosphene.explain import Target
from phosphene.explain.fill import Fill, filled
from phosphene.explain.metrics.perturbation import STEPS, Curve, deletion, insertion, order
from phosphene.models import Labels, Network, Preprocess, Unit

SIZE = (9, 11)


def small() -> Network:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 5 * 7, 4)
    )
    return Network(module, name="small", labels=Labels.generic(4), preprocess=Preprocess(SIZE, 9)).double()


class Quarter(nn.Module):
    """The first class is 8 times the mean of the first quarter, less 4, against 0."""

    def forward(self, x: Tensor) -> Tensor:
        value = 8 * x[:, :, :4, :4].mean((1, 2, 3)) - 4
        return torch.stack([value, torch.zeros_like(value)], 1)


def quarter() -> Network:
    plain: Any = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return Network(Quarter(), name="quarter", labels=Labels.generic(2), preprocess=Preprocess((8, 8), 8), **plain)


def looped(network: Network, start: Tensor, end: Tensor, label: int, values: Tensor, steps: int) -> list[float]:
    """The probabilities of one image, `start` and `end` `[3, H, W]`, changed from one to the other pixel after pixel."""
    width = values.shape[1]
    pixels = sorted(range(values.numel()), key=lambda place: (-float(values[place // width, place % width]), place))
    found = []
    for step in range(steps + 1):
        picture = start.clone()
        for place in pixels[: round(step * len(pixels) / steps)]:
            picture[:, place // width, place % width] = end[:, place // width, place % width]
        with torch.no_grad():
            logits = network.module(network.normalise(picture[None]))[0].tolist()
        found.append(math.exp(logits[label]) / sum(map(math.exp, logits)))
    return found


@pytest.mark.parametrize("steps", [1, 4, 28, 99, 120])
def test_both_are_loops_over_pixels(steps: int) -> None:
    network, images, classes = small(), torch.rand(3, 3, *SIZE).double(), [0, 3, 2]
    maps = (torch.randn(3, *SIZE) * 3).round().double()  # with ties
    nothing = images.new_full((3, *SIZE), 0.25)
    taken = deletion(network, images, classes, maps, steps=steps, fill=0.25).probabilities
    shown = insertion(network, images, classes, maps, steps=steps, fill=0.25).probabilities
    assert taken.dtype == shown.dtype == torch.float64
    for image, label, values, ours, theirs in zip(images, classes, maps, taken, shown, strict=True):
        assert ours.tolist() == pytest.approx(looped(network, image, nothing, label, values, steps), abs=1e-12)
        assert theirs.tolist() == pytest.approx(looped(network, nothing, image, label, values, steps), abs=1e-12)


@pytest.mark.parametrize("fill", ["mean", "blur", "grey", "black", "white", 0.75, torch.rand(1, 3, *SIZE).double()])
def test_a_fill_is_where_deletion_ends_and_insertion_begins(fill: Fill) -> None:
    network, images = small(), torch.rand(2, 3, *SIZE).double()
    maps, empty = torch.rand(2, *SIZE), filled(network, images, fill)
    taken = deletion(network, images, 1, maps, steps=5, fill=fill).probabilities
    shown = insertion(network, images, 1, maps, steps=5, fill=fill).probabilities
    for place in range(2):
        ours = looped(network, images[place], empty[place], 1, maps[place], 5)
        assert taken[place].tolist() == pytest.approx(ours, abs=1e-12)
        theirs = looped(network, empty[place], images[place], 1, maps[place], 5)
        assert shown[place].tolist() == pytest.approx(theirs, abs=1e-12)


def test_by_default_pixels_become_the_mean_colour_and_come_out_of_a_blur_in_28_steps() -> None:
    network, images, maps = small(), torch.rand(2, 3, *SIZE).double(), torch.rand(2, *SIZE)
    assert STEPS == 28
    taken, shown = deletion(network, images, 1, maps), insertion(network, images, 1, maps)
    assert torch.equal(taken.probabilities, deletion(network, images, 1, maps, steps=28, fill="mean").probabilities)
    assert torch.equal(shown.probabilities, insertion(network, images, 1, maps, steps=28, fill="blur").probabilities)
    assert torch.equal(taken.probabilities[:, 0], shown.probabilities[:, -1])


def test_the_area_under_a_curve_worked_out_by_hand() -> None:
    curves = Curve(torch.tensor([[1, 0.8, 0.4, 0.4], [0.3, 0.3, 0.3, 0.3], [0, 0, 0, 1]], dtype=torch.float64))
    assert curves.auc.tolist() == pytest.approx([(0.9 + 0.6 + 0.4) / 3, 0.3, 0.5 / 3])
    assert Curve(torch.tensor([[1.0, 0.5]]).double()).auc.tolist() == [0.75]


def test_a_perfect_map_gives_the_areas_worked_out_by_hand() -> None:
    network, image = quarter(), torch.ones(1, 3, 8, 8)
    right = torch.zeros(1, 8, 8)
    right[:, :4, :4] = 1
    high, low = 1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))  # with the quarter, and without
    early, late = [high, low, low, low, low], [high, high, high, high, low]
    chance = torch.rand(1, 8, 8)

    def curves(maps: Tensor) -> list[Curve]:
        return [judge(network, image, 0, maps, steps=4, fill="black") for judge in (deletion, insertion)]

    taken, shown = curves(right)
    assert taken.probabilities[0].tolist() == pytest.approx(early)
    assert shown.probabilities[0].tolist() == pytest.approx([low, high, high, high, high])
    assert float(taken.auc) == pytest.approx((high + 7 * low) / 8)
    assert float(shown.auc) == pytest.approx((low + 7 * high) / 8)
    taken_wrong, shown_wrong = curves(-right)
    assert taken_wrong.probabilities[0].tolist() == pytest.approx(late)
    assert float(taken_wrong.auc) == pytest.approx((7 * high + low) / 8)
    assert float(shown_wrong.auc) == pytest.approx((7 * low + high) / 8)
    taken_chance, shown_chance = curves(chance)
    assert taken.auc < taken_chance.auc < taken_wrong.auc
    assert shown.auc > shown_chance.auc > shown_wrong.auc


def test_equal_values_go_in_reading_order() -> None:
    maps = torch.tensor([[[1.0, 3.0, 2.0], [3.0, 2.0, 3.0]], [[0.0, -0.0, 0.0], [-1.0, 0.0, -0.0]]])
    assert order(maps).tolist() == [[1, 3, 5, 2, 4, 0], [0, 1, 2, 4, 5, 3]]
    assert order(torch.zeros(2, 40, 50)).tolist() == [list(range(2000))] * 2
    assert torch.equal(order(maps.half()), order(maps))


def test_only_the_order_of_a_map_counts() -> None:
    network, images, maps = small(), torch.rand(2, 3, *SIZE).double(), torch.randn(2, *SIZE).double()
    wanted = deletion(network, images, 2, maps).probabilities
    ranks = -order(maps).argsort(1).view(maps.shape)
    for same in (maps * 1e-30, maps.exp(), maps - 100, ranks):
        assert torch.equal(deletion(network, images, 2, same).probabilities, wanted)


def test_a_batch_is_each_image_alone() -> None:
    network, images = small(), torch.rand(11, 3, *SIZE).double()
    maps, classes = torch.randn(11, *SIZE), [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    for judge in (deletion, insertion):
        together = judge(network, images, classes, maps, steps=9)
        assert together.probabilities.shape == (11, 10)
        assert together.auc.shape == (11,)
        for i in range(11):
            alone = judge(network, images[i : i + 1], classes[i], maps[i : i + 1], steps=9)
            assert alone.auc.tolist() == pytest.approx([float(together.auc[i])], abs=1e-12)
        one = judge(network, images, 3, maps, steps=9).probabilities
        assert torch.equal(one, judge(network, images, torch.full((11,), 3), maps, steps=9).probabilities)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradients_on_or_off_the_curve_is_the_same(mode: type) -> None:
    network, images, maps = small(), torch.rand(2, 3, *SIZE).double().requires_grad_(), torch.rand(2, *SIZE)
    wanted = deletion(network, images.detach(), 1, maps).probabilities
    with mode():
        found = deletion(network, images * 1.0, 1, maps * 1.0).probabilities
    assert torch.equal(found, wanted) and not found.requires_grad


@pytest.mark.parametrize("judge", [deletion, insertion])
@pytest.mark.parametrize(
    ("maps", "steps", "message"),
    [
        (torch.zeros(9, 11), 4, r"expected maps \[2, H, W\], one per image, got \[9, 11\]"),
        (torch.zeros(1, 9, 11), 4, r"expected maps \[2, H, W\], one per image, got \[1, 9, 11\]"),
        (torch.zeros(2, 3, 9, 11), 4, r"expected maps \[2, H, W\], one per image, got \[2, 3, 9, 11\]"),
        (torch.zeros(2, 0, 11), 4, r"expected maps \[2, H, W\], one per image, got \[2, 0, 11\]"),
        (torch.zeros(2, 11, 9), 4, r"4 steps, maps \[2, 11, 9\] for images \[2, 3, 9, 11\]: .* maps of the images' size"),
        (torch.zeros(2, 9, 11), 0, r"0 steps, maps \[2, 9, 11\] for .*: give at least 1 step"),
        (torch.zeros(2, 9, 11).index_fill(2, torch.tensor(3), math.nan), 4, "the maps hold NaN or infinity"),
        (torch.zeros(2, 9, 11).index_fill(1, torch.tensor(8), math.inf), 4, "the maps hold NaN or infinity"),
    ],
)  # fmt: skip
def test_maps_that_cannot_be_judged_are_error_lines(judge: Any, maps: Tensor, steps: int, message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        judge(small(), torch.rand(2, 3, *SIZE), 1, maps, steps=steps)


@pytest.mark.parametrize("judge", [deletion, insertion])
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Unit("0", 1), "judged for one class of each image: give an index, or one per image"),
        ([[0, 1], [2, 3]], "judged for one class of each image"), ([[0], [1]], "judged for one class of each image"),
        (4, "classes go from 0 to 3"), ([0, 1, 2], "3 classes for 2 images"), ([0.5, 1.0], "whole numbers"),
    ],
)  # fmt: skip
def test_targets_that_are_not_one_class_are_error_lines(judge: Any, target: Target, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        judge(small(), torch.rand(2, 3, *SIZE), target, torch.zeros(2, *SIZE))


@pytest.mark.parametrize("judge", [deletion, insertion])
def test_networks_images_and_fills_that_cannot_be_judged_with_are_error_lines(judge: Any) -> None:
    network, images, maps = small(), torch.rand(2, 3, *SIZE), torch.zeros(2, *SIZE)
    for fill, message in (
        ("purple", "no fill 'purple': there are mean, blur, grey, black, white, or a level from 0 to 1"),
        (1.5, "a fill of 1.5 is no level of grey"), (-1, "a fill of -1 is no level of grey"),
        (images[:, :1], r"a baseline of shape \[2, 1, 9, 11\] for images \[2, 3, 9, 11\]"),
        (torch.rand(3, 3, *SIZE), r"a baseline of shape \[3, 3, 9, 11\]"),
    ):  # fmt: skip
        with pytest.raises(PhospheneError, match=message):
            judge(network, images, 1, maps, fill=fill)
    features = Network(nn.Conv2d(3, 4, 3), name="f", labels=None, preprocess=Preprocess(SIZE, 9))
    with pytest.raises(NetworkError, match="needs a network that classifies"):
        judge(features, images, 1, maps)
    with pytest.raises(ImageError, match="the image has NaN or infinity in it"):
        judge(network, images.clone().index_fill_(3, torch.tensor(2), math.nan), 1, maps)
    with torch.no_grad():
        next(network.module.parameters())[0, 0] = math.inf
    with pytest.raises(NetworkError, match="the weight of layer '0' of small has NaN or infinity in it"):
        judge(network, images, 1, maps)
