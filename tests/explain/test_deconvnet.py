from __future__ import annotations

import pytest
import torch
import toys
from captum.attr import Deconvolution
from reference import distance, hooked_deconvnet
from spellings import RELU6S, RELUS, Net, by_hand, deconvolved
from torch import Tensor, nn
from toys import Act

from phosphene.explain import deconvnet, gradient, guided_backprop
from phosphene.models import Network, Unit


@pytest.mark.parametrize("spelling", RELUS)
def test_each_spelling_of_relu_follows_the_rule(spelling: str) -> None:
    net, images = toys.network(Net(RELUS[spelling]), 14), toys.pictures(2, 14)
    ours = deconvnet(net, images, 1)
    assert ours.gradient is not None
    assert distance(ours.gradient, by_hand(deconvolved, net, images, 1)) < 1e-9
    assert torch.equal(ours.maps, ours.gradient.sum(1))
    for other in (gradient, guided_backprop):
        assert distance(ours.maps, other(net, images, 1).maps) > 1e-2


@pytest.mark.parametrize("spelling", RELU6S)
def test_each_spelling_of_relu6_follows_the_rule(spelling: str) -> None:
    net, images = toys.network(Net(RELU6S[spelling], scale=6.0), 14), toys.pictures(2, 14)
    ours = deconvnet(net, images, 2).gradient
    assert ours is not None
    assert distance(ours, by_hand(deconvolved, net, images, 2, 6.0)) < 1e-9
    assert distance(ours, by_hand(deconvolved, net, images, 2)) > 1e-3  # other places win in the poolings


def test_a_silent_unit_is_projected_back_through_silent_relus() -> None:
    """The rule looks at the gradient only: what guided backpropagation shows as black has a picture here."""
    net, images = toys.network(Act(nn.ReLU())), toys.pictures(1)
    with torch.no_grad():
        net.module.get_parameter("stem.bias").fill_(-100)
        net.module.get_parameter("block.0.weight").abs_()
    unit = Unit("block.0", 2, (4, 4))
    assert guided_backprop(net, images, unit).maps.abs().max() == 0
    found = deconvnet(net, images, unit).gradient
    assert found is not None
    module = net.module
    weights = [module.get_parameter(name).detach() for name in ("stem.weight", "block.0.weight")]
    wanted = torch.einsum("oiyx,oYX->iyxYX", weights[0], weights[1][2])  # at offsets (y, x) + (Y, X)
    full = torch.zeros(3, 20, 20, dtype=torch.float64)
    for y in range(3):
        for x in range(3):
            full[:, 4 + y : 7 + y, 4 + x : 7 + x] += wanted[:, :, :, y, x]
    assert distance(found[0], full / net.std[0]) < 1e-9


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_on_squeezenet_it_is_captums(squeezenet64: Network, photos64: Tensor) -> None:
    net, images, classes = squeezenet64, photos64, [281, 967]
    ours = deconvnet(net, images, classes).gradient
    theirs = Deconvolution(net).attribute(images.clone().requires_grad_(), target=classes)
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], theirs[place]) < 1e-9


def test_on_both_networks_it_is_what_backward_hooks_give(network64: Network, photos64: Tensor) -> None:
    ours = deconvnet(network64, photos64, [281, 967]).gradient
    assert ours is not None
    assert distance(ours, hooked_deconvnet(network64, photos64, [281, 967])) < 1e-9
