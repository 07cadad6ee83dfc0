from __future__ import annotations

from typing import Any

import torch
from captum.attr import Saliency
from reference import angle, distance, plain_gradient
from torch import Tensor, nn
from toys import pictures, small

from phosphene.explain import saliency
from phosphene.models import Network, Unit


def test_on_both_networks_it_is_captums(network64: Network, photos64: Tensor) -> None:
    classes = [281, 967]
    ours = saliency(network64, photos64, classes)
    theirs = Saliency(network64).attribute(photos64.clone().requires_grad_(), target=classes, abs=True)
    assert (ours.maps >= 0).all()
    assert ours.maps.shape == (2, 112, 112)
    for place in range(2):
        assert distance(ours.maps[place], theirs.amax(1)[place]) < 1e-9
    assert torch.allclose(ours.scores, network64(photos64)[range(2), classes])


def test_float32_is_as_near_to_float64_as_it_gets(bundled_network: Network, photos: Tensor) -> None:
    """Here and there a rounding error moves a value over a kink of a ReLU, or lets a pooling choose its equal."""
    ours = saliency(bundled_network, photos[:1], 281).gradient
    wanted = plain_gradient(bundled_network, photos[:1], [281])
    assert ours is not None
    assert distance(ours, wanted) < 3e-2
    assert angle(ours, wanted) < 1e-5


def test_a_units_saliency_is_its_own_gradient() -> None:
    net, images = small(), pictures()
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
