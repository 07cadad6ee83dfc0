"""Probabilities, and what is left of them where only the map's evidence is shown."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import ImageError, LabelError, NetworkError, PhospheneError
from phosphene.explain import Target
from phosphene.explain.metrics.confidence import Confidence, confidence
from phosphene.explain.metrics.probability import one_class, probability
from phosphene.models import Labels, Network, Preprocess, Unit


def small() -> Network:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 6, 4))
    return Network(module, name="small", labels=Labels.generic(4), preprocess=Preprocess((8, 8), 8)).double()


class Sides(nn.Module):
    """The first class is 4 times the mean of the left half less twice that of the right, against 0."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        left, right = (half.mean((1, 2, 3)) for half in x.chunk(2, 3))
        return torch.stack([(4 * left - 2 * right) * self.scale, torch.zeros_like(left)], 1)


def sides(scale: float = 1) -> Network:
    plain: Any = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    return Network(Sides(scale), name="sides", labels=Labels.generic(2), preprocess=Preprocess((8, 8), 8), **plain)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(network: Network, image: Tensor, label: int) -> float:
    """By hand, from the module's own logits."""
    with torch.no_grad():
        logits = network.module(network.normalise(image[None].double()))[0].tolist()
    return math.exp(logits[label]) / sum(map(math.exp, logits))


# -- probability --------------------------------------------------------------------------------------------------


def test_the_probability_is_a_softmax_worked_out_by_hand() -> None:
    network, images, classes = small(), torch.rand(19, 3, 8, 8), torch.arange(19) % 4  # more than one piece
    found = probability(network, images, classes)
    assert found.dtype == torch.float64 and not found.requires_grad
    wanted = [softmax(network, image, int(label)) for image, label in zip(images, classes, strict=True)]
    assert found.tolist() == pytest.approx(wanted, abs=1e-12)
    assert sum(float(probability(network, images[:1], torch.tensor([k]))) for k in range(4)) == pytest.approx(1)


def test_a_network_that_is_very_sure_is_sure_and_not_nan() -> None:
    network = sides(1e4)
    assert probability(network, torch.ones(1, 3, 8, 8), torch.tensor([0])).tolist() == [1]
    assert probability(network, torch.ones(1, 3, 8, 8), torch.tensor([1])).tolist() == [0]


def test_one_class_per_image_however_it_is_given() -> None:
    network, images = small(), torch.rand(3, 3, 8, 8)
    for target, wanted in (
        (2, [2, 2, 2]),
        ([2], [2, 2, 2]),
        ([3, 0, 1], [3, 0, 1]),
        (torch.tensor([1, 1, 0]), [1, 1, 0]),
    ):
        assert one_class(network, images, target).tolist() == wanted


bad_targets = pytest.mark.parametrize(
    ("target", "message"),
    [
        (Unit("0", 1), "judged for one class of each image: give an index, or one per image"),
        ([[0, 1], [2, 3]], "judged for one class of each image"), ([[0], [1]], "judged for one class of each image"),
        (4, "classes go from 0 to 3"), ([0, 1, 2], "3 classes for 2 images"),
    ],
)  # fmt: skip


@bad_targets
def test_targets_that_are_not_one_class_are_error_lines(target: Target, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        one_class(small(), torch.rand(2, 3, 8, 8), target)
    with pytest.raises(LabelError, match=message):
        confidence(small(), torch.rand(2, 3, 8, 8), target, torch.rand(2, 8, 8))


# -- average drop and increase --------------------------------------------------------------------------------------


def test_drop_and_increase_worked_out_by_hand() -> None:
    found = Confidence(
        torch.tensor([0.8, 0.8, 0.5, 0.5, 0.0], dtype=torch.float64), torch.tensor([0.2, 0.9, 0.5, 0.0, 0.0]).double()
    )
    assert found.drop.tolist() == pytest.approx([0.75, 0, 0, 1, 0])
    assert found.increase.tolist() == [0, 1, 0, 0, 0]
    assert float(found.drop.mean()) == pytest.approx(0.35)


def test_the_image_is_darkened_by_the_scaled_map() -> None:
    network, images, classes = small(), torch.rand(11, 3, 8, 8).double(), [k % 4 for k in range(11)]
    maps = torch.randn(11, 8, 8)
    maps[3] = maps[3].abs() + 1
    found = confidence(network, images, classes, maps)
    for i, label in enumerate(classes):
        rows = [[max(v, 0.0) for v in row] for row in maps[i].tolist()]
        least, most = min(map(min, rows)), max(map(max, rows))
        light = torch.tensor([[(v - least) / (most - least) for v in row] for row in rows], dtype=torch.float64)
        whole, shown = softmax(network, images[i], label), softmax(network, images[i] * light, label)
        assert float(found.whole[i]) == pytest.approx(whole, abs=1e-12)
        assert float(found.shown[i]) == pytest.approx(shown, abs=1e-6)  # the map is float32
        assert float(found.drop[i]) == pytest.approx(max(0, whole - shown) / whole, abs=1e-5)
        assert float(found.increase[i]) == (shown > whole)
        alone = confidence(network, images[i : i + 1], label, maps[i : i + 1])
        assert float(alone.shown) == pytest.approx(float(found.shown[i]), abs=1e-12)


def test_a_map_that_shows_what_counts_gains_and_one_that_hides_it_loses() -> None:
    network, image = sides(), torch.ones(1, 3, 8, 8)
    left = torch.zeros(1, 8, 8)
    left[..., :4] = 3
    whole = sigmoid(4 - 2)
    for maps, shown in (
        (left, sigmoid(4)),
        (-left, 0.5),
        (3 - left, sigmoid(-2)),
        (left * 0, 0.5),
        (left * 0 + 1, 0.5),
    ):
        found = confidence(network, image, 0, maps)
        assert float(found.whole) == pytest.approx(whole)
        assert float(found.shown) == pytest.approx(shown)
        assert float(found.drop) == pytest.approx(max(0, 1 - shown / whole))
        assert float(found.increase) == (shown > whole)


def test_maps_images_and_networks_that_cannot_be_judged_are_error_lines() -> None:
    network, images = small(), torch.rand(2, 3, 8, 8)
    with pytest.raises(
        PhospheneError, match=r"maps \[2, 8, 7\] for images \[2, 3, 8, 8\]: give maps of the images' size"
    ):
        confidence(network, images, 1, torch.rand(2, 8, 7))
    with pytest.raises(PhospheneError, match=r"expected maps \[2, H, W\], one per image, got \[1, 8, 8\]"):
        confidence(network, images, 1, torch.rand(1, 8, 8))
    with pytest.raises(PhospheneError, match="the maps hold NaN or infinity"):
        confidence(network, images, 1, torch.full((2, 8, 8), math.nan))
    with pytest.raises(ImageError, match="the image has NaN or infinity in it"):
        confidence(network, torch.full((2, 3, 8, 8), math.inf), 1, torch.rand(2, 8, 8))
    features = Network(nn.Conv2d(3, 4, 3), name="f", labels=None, preprocess=Preprocess((8, 8), 8))
    with pytest.raises(NetworkError, match="needs a network that classifies"):
        confidence(features, images, 1, torch.rand(2, 8, 8))
    with torch.no_grad():
        list(network.module.parameters())[2][0, 0] = math.nan
    with pytest.raises(NetworkError, match="the weight of layer '3' of small has NaN or infinity in it"):
        probability(network, images, torch.tensor([0, 1]))
