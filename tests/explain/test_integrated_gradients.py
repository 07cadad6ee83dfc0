from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from reference import distance, plain_gradient
from torch import Tensor, nn
from toys import network, pictures, small

from phosphene.errors import PhospheneError
from phosphene.explain import integrated_gradients
from phosphene.explain.fill import filled
from phosphene.models import Network, Unit


@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_on_both_networks_it_is_captums(baseline: Any, network64: Network, photos64: Tensor) -> None:
    ours = integrated_gradients(network64, photos64, [281, 967], steps=5, baseline=baseline).gradient
    theirs = IntegratedGradients(network64.eval()).attribute(
        photos64.clone(), filled(network64, photos64, baseline), target=[281, 967], n_steps=5, method="gausslegendre",
        internal_batch_size=8,
    )  # fmt: skip
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], theirs[place].detach()) < 1e-6


@pytest.mark.parametrize("baseline", ["grey", "mean", 0.2, torch.linspace(0, 1, 1200).double().view(1, 3, 20, 20)])
def test_it_is_the_weighted_sum_of_gradients_on_the_way(baseline: Any) -> None:
    net, images, classes = small(), pictures(2), [0, 3]
    start = filled(net, images, baseline)
    total = torch.zeros_like(images)
    for node, weight in zip(*np.polynomial.legendre.leggauss(11)):
        total += plain_gradient(net, start + (node + 1) / 2 * (images - start), classes) * weight / 2
    wanted = total * (images - start)
    found = integrated_gradients(net, images, classes, baseline=baseline, steps=11)
    assert found.gradient is not None and found.error is not None
    assert distance(found.gradient, wanted) < 1e-9
    assert distance(found.maps, wanted.sum(1)) < 1e-9
    scores = net.logits(images)[[0, 1], classes]
    change = scores - net.logits(start)[[0, 1], classes]
    assert distance(found.scores, scores) < 1e-12
    assert distance(found.error, (wanted.sum((1, 2, 3)) - change).abs() / change.abs()) < 1e-6


# -- completeness -----------------------------------------------------------------------------------------------------


def test_on_both_networks_a_tolerance_keeps_each_images_error_below_it(
    bundled_network: Network, photos: Tensor
) -> None:
    images, classes = torch.nn.functional.avg_pool2d(photos, 2), [281, 967]
    coarse = integrated_gradients(bundled_network, images, classes, baseline="blur", steps=50)
    fine = integrated_gradients(bundled_network, images, classes, baseline="blur", steps=50, tolerance=0.01)
    assert coarse.error is not None and fine.error is not None
    assert fine.error.shape == (2,)
    assert float(fine.error.max()) < 0.01
    change = fine.scores - bundled_network.logits(filled(bundled_network, images, "blur"))[[0, 1], classes]
    assert ((fine.maps.sum((1, 2)) - change).abs() / change.abs() < 0.01).all()
    for place in range(2):
        kept = bool(coarse.error[place] <= 0.01)
        assert torch.equal(fine.maps[place], coarse.maps[place]) == kept


@pytest.mark.slow
def test_on_both_networks_full_photographs_are_complete_to_one_percent_from_black(
    bundled_network: Network, photos: Tensor
) -> None:
    found = integrated_gradients(bundled_network, photos, [281, 967], tolerance=0.01)
    assert found.error is not None
    assert float(found.error.max()) < 0.01


def test_each_image_gets_the_steps_that_its_own_error_calls_for() -> None:
    net, images = small(), pictures(3)
    images[1] = 0.001  # nearly on the baseline, with hardly a kink on the way
    images[2] = 0.3 * images[2] + 0.2
    rough = integrated_gradients(net, images, 2, steps=2)
    assert rough.error is not None
    tolerance = float(rough.error.max()) / 60
    found = integrated_gradients(net, images, 2, steps=2, tolerance=tolerance)
    assert found.error is not None
    assert bool((found.error <= tolerance).all())
    kept = [torch.equal(found.maps[place], rough.maps[place]) for place in range(3)]
    assert kept == (rough.error <= tolerance).tolist()
    assert 0 < sum(kept) < 3
    for place in range(3):
        alone = integrated_gradients(net, images[[place]], 2, steps=2, tolerance=tolerance)
        assert distance(found.maps[place], alone.maps[0]) < 1e-9


def test_a_tolerance_that_can_not_be_met_ends_somewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("phosphene.explain.integrated_gradients"), "MOST_STEPS", 30)
    net, images = small(), pictures(1)
    for steps in (7, 30, 31):
        found = integrated_gradients(net, images, 1, steps=steps, tolerance=0.0)
        assert torch.equal(found.maps, integrated_gradients(net, images, 1, steps=max(steps, 30)).maps)


def test_the_error_is_that_of_each_image_and_class() -> None:
    net, images, classes = small(), pictures(2), torch.tensor([[0, 1, 2], [3, 3, 1]])
    found = integrated_gradients(net, images, classes, steps=3)
    assert found.error is not None
    assert found.error.shape == (2, 3)
    change = (net.logits(images) - net.logits(torch.zeros_like(images))).gather(1, classes)
    assert distance(found.error, (found.maps.sum((2, 3)) - change).abs() / change.abs()) < 1e-6
    assert float(found.error.max()) > 1e-6


def test_a_linear_network_needs_one_step() -> None:
    net, images = network(nn.Sequential(nn.Flatten(), nn.Linear(1200, 4))), pictures(2)
    weight = net.module.get_parameter("1.weight").detach().view(4, 3, 20, 20)
    found = integrated_gradients(net, images, 2, steps=1, baseline=0.25)
    assert found.gradient is not None and found.error is not None
    assert distance(found.gradient, (images - 0.25) * weight[2] / net.std) < 1e-12
    assert float(found.error.max()) < 1e-9


def test_a_units_place_is_held_on_the_way() -> None:
    """The brightest of two spots is explained alone, though near the baseline the other one is the brightest."""
    net = network(nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU()), mean=(0.0,) * 3, std=(1.0,) * 3)
    with torch.no_grad():
        net.module.get_parameter("0.weight").fill_(1 / 3)
    images, start = torch.zeros(2, 1, 3, 20, 20, dtype=torch.float64)
    images[..., 3, 4], images[..., 15, 12], start[..., 15, 12] = 1.0, 0.9, 0.8
    found = integrated_gradients(net, images, Unit("1", 0), baseline=start, steps=6)
    assert found.error is not None
    wanted = torch.zeros(20, 20, dtype=torch.float64)
    wanted[3, 4] = 1.0
    assert distance(found.maps[0], wanted) < 1e-9
    assert float(found.error[0]) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "0 steps: integrated gradients need at least 1"), ({"steps": -2}, "-2 steps"),
        ({"baseline": "dark"}, "no fill 'dark': there are mean, blur, grey, black, white"),
        ({"baseline": 1.5}, "a fill of 1.5 is no level of grey"),
        ({"baseline": torch.zeros(3, 20, 20)}, r"a baseline of shape \[3, 20, 20\] for images \[2, 3, 20, 20\]"),
        ({"baseline": torch.zeros(2, 3, 20, 19)}, "a baseline of shape"),
        ({"baseline": torch.zeros(3, 3, 20, 20)}, "a baseline of shape"),
    ],
)  # fmt: skip
def test_bad_options_are_error_lines(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        integrated_gradients(small(), pictures(2), 1, **options)
