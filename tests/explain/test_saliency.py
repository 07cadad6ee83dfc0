from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captum.attr import Saliency
from reference import angle, distance, plain_gradient
from torch import Tensor, nn

from phosphene.errors import LabelError, LayerError, NetworkError
from phosphene.explain import METHODS, Target, saliency
from phosphene.models import Labels, Network, Preprocess, Unit


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 6, 3)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(self.relu(self.last(x)).mean((2, 3)))


def small() -> Network:
    return Network(Small(), name="small", labels=Labels.generic(4), preprocess=Preprocess((20, 20), 20))


every_method = pytest.mark.parametrize("method", METHODS)


def test_on_both_networks_it_is_captums(bundled_network: Network, photos: Tensor) -> None:
    network, images, classes = copy.deepcopy(bundled_network).double(), photos.double(), [281, 967]
    ours = saliency(network, images, classes)
    theirs = Saliency(network).attribute(images.clone().requires_grad_(), target=classes, abs=True)
    assert (ours.maps >= 0).all()
    assert ours.maps.shape == (2, 224, 224)
    for place in range(2):
        assert distance(ours.maps[place], theirs.amax(1)[place]) < 1e-6
    assert torch.allclose(ours.scores, network(images)[range(2), classes])


def test_float32_is_as_near_to_float64_as_it_gets(bundled_network: Network, photos: Tensor) -> None:
    """Here and there a rounding error moves a value over a kink of a ReLU, or lets a pooling choose its equal."""
    ours = saliency(bundled_network, photos[:1], 281).gradient
    wanted = plain_gradient(bundled_network, photos[:1], [281])
    assert ours is not None
    assert distance(ours, wanted) < 3e-2
    assert angle(ours, wanted) < 1e-5


def test_a_units_saliency_is_its_own_gradient() -> None:
    net, images = small().double(), torch.rand(2, 3, 20, 20, dtype=torch.float64)
    module = net.module.eval()
    for unit in (Unit("conv", 3, (4, 5)), Unit("bn", 2, (0, 17)), Unit("last", 1), Unit("fc", 2), Unit("relu#1", 0)):
        leaf = images.clone().requires_grad_()
        values: list[Tensor] = []
        name = unit.layer.partition("#")[0]

        def look(_module: nn.Module, _given: Any, output: Tensor, values: list[Tensor] = values) -> None:
            values.append(output.clone())

        keep = module.get_submodule(name).register_forward_hook(look)
        module(net.normalise(leaf))
        keep.remove()
        channel = values[0][:, unit.channel].reshape(len(images), -1)
        place = unit.position[0] * values[0].shape[-1] + unit.position[1] if unit.position else None
        score = channel[:, place] if place is not None else channel.amax(1)
        (wanted,) = torch.autograd.grad(score.sum(), leaf)
        found = saliency(net, images, unit)
        assert found.gradient is not None
        assert distance(found.gradient, wanted) < 1e-9, unit
        assert torch.allclose(found.scores, score), unit


# -- what holds for every method ----------------------------------------------------------------------------------


@every_method
def test_a_batch_with_one_class_per_image_is_each_image_alone(method: str, squeezenet: Network, photos: Tensor) -> None:
    images = torch.cat([photos, photos.flip(3), photos.flip(2), photos, photos.roll(9, 2)])  # more than one piece
    classes = [281, 967, 3, 4, 5, 6, 285, 7, 8, 9]
    together = METHODS[method](squeezenet, images, torch.tensor(classes))
    for place in (0, 1, 6, 9):
        alone = METHODS[method](squeezenet, images[place : place + 1], classes[place])
        assert distance(together.maps[place], alone.maps[0]) < 1e-3
        assert float(together.scores[place]) == pytest.approx(float(alone.scores[0]), rel=1e-4)


@every_method
def test_one_class_for_all_is_that_class_for_each(method: str) -> None:
    net, images = small(), torch.rand(3, 3, 20, 20)
    wanted = METHODS[method](net, images, [2, 2, 2])
    for target in (2, [2], torch.tensor(2), torch.tensor([2, 2, 2], dtype=torch.int32)):
        assert torch.equal(METHODS[method](net, images, target).maps, wanted.maps)
    assert wanted.method == method


@every_method
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "classes go from 0 to 3"), (-1, "classes go from 0 to 3"), ([0, 1], "2 classes for 3 images"),
        ([], "0 classes for 3 images"), ([0.5], "whole numbers"), ([True, False, True], "whole numbers"),
        (torch.zeros(3), "whole numbers"),
    ],
)  # fmt: skip
def test_bad_targets_are_error_lines(method: str, target: Target, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        METHODS[method](small(), torch.rand(3, 3, 20, 20), target)


@pytest.mark.parametrize("method", ["saliency", "guided-backprop"])
@pytest.mark.parametrize("unit", [Unit("conv", 6), Unit("conv", 0, (18, 0)), Unit("nowhere", 0), Unit("fc", 0, (0, 0))])
def test_units_that_are_not_there_are_error_lines(method: str, unit: Unit) -> None:
    with pytest.raises(LayerError):
        METHODS[method](small(), torch.rand(1, 3, 20, 20), unit)


@every_method
def test_the_global_random_state_and_the_modules_gradients_are_untouched(method: str) -> None:
    net, images = small(), torch.rand(2, 3, 20, 20, requires_grad=True)
    net.module.train()
    before = torch.get_rng_state()
    statistics = {name: buffer.clone() for name, buffer in net.module.named_buffers()}
    result = METHODS[method](net, images, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert images.grad is None
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.module.parameters())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in net.module.named_buffers())
    assert all(module.training for module in net.module.modules())
    assert not result.maps.requires_grad
    assert not result.scores.requires_grad


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(method: str, mode: type) -> None:
    net, images = small(), torch.rand(2, 3, 20, 20)
    wanted = METHODS[method](net, images, 1)
    with mode():
        assert torch.allclose(METHODS[method](net, images * 1.0, 1).maps, wanted.maps, atol=1e-7)
        fresh = small()
        fresh.module.load_state_dict(net.module.state_dict())
        assert torch.allclose(METHODS[method](fresh, images * 1.0, 1).maps, wanted.maps, atol=1e-7)
    assert torch.is_grad_enabled()


@every_method
def test_a_class_needs_a_classifier(method: str) -> None:
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 3)), name="f", labels=None, preprocess=Preprocess((20, 20), 20))
    with pytest.raises(NetworkError, match="needs a network that classifies"):
        METHODS[method](net, torch.rand(1, 3, 20, 20), 0)
    assert saliency(net, torch.rand(1, 3, 20, 20), Unit("0", 1)).maps.shape == (1, 20, 20)
