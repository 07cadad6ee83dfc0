"""The vanilla gradient, and gradient x input."""

from __future__ import annotations

import torch
from captum.attr import InputXGradient
from captum.attr import Saliency as PlainGradient
from reference import distance
from torch import Tensor, nn
from toys import network, pictures, small

from phosphene.explain import gradient, gradient_x_input, saliency
from phosphene.models import Network


def test_on_both_networks_the_gradient_is_captums(network64: Network, photos64: Tensor) -> None:
    net, images, classes = network64, photos64, [281, 967]
    ours = gradient(net, images, classes)
    theirs = PlainGradient(net).attribute(images.clone().requires_grad_(), target=classes, abs=False)
    assert ours.gradient is not None
    assert ours.gradient.shape == (2, 3, 112, 112)
    for place in range(2):
        assert distance(ours.gradient[place], theirs[place]) < 1e-9
    assert torch.equal(ours.maps, ours.gradient.sum(1))


def test_on_both_networks_gradient_x_input_is_captums(network64: Network, photos64: Tensor) -> None:
    net, images, classes = network64, photos64, [281, 967]
    ours = gradient_x_input(net, images, classes)
    theirs = InputXGradient(net).attribute(images.clone().requires_grad_(), target=classes).detach()
    assert ours.gradient is not None
    for place in range(2):
        assert distance(ours.gradient[place], theirs[place]) < 1e-9
        assert distance(ours.maps[place], theirs[place].sum(0)) < 1e-9


def test_the_gradient_is_what_small_steps_change() -> None:
    net, images, step = small(), pictures(1), 1e-6
    found = gradient(net, images, 2).gradient
    assert found is not None
    for place in ((0, 0, 3, 4), (0, 1, 10, 10), (0, 2, 19, 0)):
        up, down = images.clone(), images.clone()
        up[place] += step
        down[place] -= step
        slope = (net.logits(up) - net.logits(down))[0, 2] / (2 * step)
        assert abs(float(found[place] - slope)) < 1e-6 * float(found.abs().max())


def test_a_linear_network_has_its_weights_for_a_gradient() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 4))
    net, images = network(module, mean=(0.2, 0.4, 0.6), std=(0.5, 1.0, 2.0)), pictures()
    weight: Tensor = net.module.get_parameter("1.weight").detach().view(4, 3, 20, 20)
    found = gradient(net, images, [3, 0]).gradient
    assert found is not None
    assert distance(found, weight[[3, 0]] / net.std) < 1e-12
    assert distance(saliency(net, images, 1).maps, (weight[1] / net.std[0]).abs().amax(0).expand(2, -1, -1)) < 1e-12


def test_without_biases_the_shares_of_gradient_x_input_add_up_to_the_score() -> None:
    layers = (nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 6, 3, bias=False), nn.ReLU())
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4, bias=False))
    net = network(module, mean=(0.0,) * 3, std=(0.5,) * 3)
    found = gradient_x_input(net, pictures(), 1)
    assert distance(found.maps.sum((1, 2)), found.scores) < 1e-12
