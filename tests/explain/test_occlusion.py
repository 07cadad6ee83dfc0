from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import Occlusion
from reference import distance
from torch import Tensor, nn
from toys import network, pictures, small

from phosphene.errors import PhospheneError
from phosphene.explain import occlusion
from phosphene.explain.fill import filled
from phosphene.models import Network, Unit


@pytest.mark.parametrize(
    ("window", "stride", "fill"),
    [((32, 32), (16, 16), "mean"), ((40, 25), (30, 20), "grey"), ((112, 30), (1, 30), "blur")],
)
def test_on_both_networks_it_is_captums(
    window: tuple[int, int], stride: tuple[int, int], fill: Any, network64: Network, photos64: Tensor
) -> None:
    image, baseline = photos64[:1], filled(network64, photos64[:1], fill)
    ours = occlusion(network64, image, 281, window=window, stride=stride, fill=fill)
    theirs = Occlusion(network64.eval()).attribute(
        image, (3, *window), (3, *stride), baselines=baseline, target=281, perturbations_per_eval=8
    )
    assert distance(ours.maps, theirs[:, 0]) < 1e-6  # their sums are float32


@pytest.mark.parametrize("fill", ["mean", "blur", "white", 0.3])
@pytest.mark.parametrize(("window", "stride"), [(8, 5), ((7, 12), (7, 4)), ((20, 3), (20, 2)), (1, 1)])
def test_it_is_the_double_loop(window: Any, stride: Any, fill: Any) -> None:
    net, images, classes = small(), pictures(2, 20)[:, :, :, :18], [1, 3]
    if window == 1:
        images = images[:, :, :5, :6].contiguous()
    height, width = images.shape[2:]
    (tall, wide), (down, across) = (side if isinstance(side, tuple) else (side, side) for side in (window, stride))
    cover, whole = filled(net, images, fill), net.logits(images)[[0, 1], classes]
    total, times = torch.zeros(2, height, width, dtype=torch.float64), torch.zeros(height, width)
    top = 0
    while top - down + tall < height or top == 0:  # until one has reached the border
        left = 0
        while left - across + wide < width or left == 0:
            covered = images.clone()
            covered[:, :, top : top + tall, left : left + wide] = cover[:, :, top : top + tall, left : left + wide]
            fall = whole - net.logits(covered)[[0, 1], classes]
            total[:, top : top + tall, left : left + wide] += fall[:, None, None]
            times[top : top + tall, left : left + wide] += 1
            left += across
        top += down
    assert times.min() > 0
    found = occlusion(net, images, classes, window=window, stride=stride, fill=fill)
    assert distance(found.maps, total / times) < 1e-9
    assert distance(found.scores, whole) < 1e-12


def test_the_default_window_is_a_seventh_of_the_image_every_half_of_it() -> None:
    net, images = small(), pictures(1, 28)[:, :, :, :21]
    assert torch.equal(occlusion(net, images, 0).maps, occlusion(net, images, 0, window=(4, 3), stride=(2, 1)).maps)


def test_a_units_place_is_held_while_what_made_it_is_covered() -> None:
    """Two bright spots: with the brighter one covered, the unit falls to nothing, and not to the other spot."""
    net = network(nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU()), mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.no_grad():
        net.module.get_parameter("0.weight").fill_(1 / 3)
    images = torch.zeros(1, 3, 20, 20, dtype=torch.float64)
    images[..., 3, 4], images[..., 15, 12] = 1.0, 0.9
    found = occlusion(net, images, Unit("1", 0), window=2, stride=2, fill="black")
    wanted = torch.zeros(20, 20, dtype=torch.float64)
    wanted[2:4, 4:6] = 1.0
    assert distance(found.maps[0], wanted) < 1e-12
    assert distance(found.scores, torch.ones(1)) < 1e-12


def test_covering_with_an_image_itself_changes_nothing() -> None:
    images = pictures(2)
    assert occlusion(small(), images, 1, window=5, stride=5, fill=images).maps.abs().max() < 1e-12


@pytest.mark.parametrize(
    "options",
    [
        {"window": 21}, {"window": (5, 21)}, {"window": 0}, {"window": -3, "stride": -3}, {"window": 4, "stride": 5},
        {"window": 4, "stride": (4, 0)}, {"window": (4, 6), "stride": (5, 6)}, {"window": 8, "stride": -1},
    ],
)  # fmt: skip
def test_windows_that_do_not_fit_are_error_lines(options: dict[str, Any]) -> None:
    with pytest.raises(PhospheneError, match="give a stride from 1 to the window, and a window that fits"):
        occlusion(small(), pictures(1), 1, **options)


def test_a_fill_that_does_not_exist_is_an_error_line() -> None:
    with pytest.raises(PhospheneError, match="no fill 'pink'"):
        occlusion(small(), pictures(1), 1, window=5, fill="pink")  # type: ignore[arg-type]
