"""Every CNN is explained rightly or refused: random weights, small inputs, against float64 and backward hooks."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
import timm
import torch
import torchvision
from reference import angle, distance, hooked_guided, plain_gradient
from torch import nn

from phosphene.errors import RuleError
from phosphene.explain import grad_cam, guided_backprop, saliency
from phosphene.models import Labels, Network, Preprocess

SIZE = 48
GUIDED = [
    "torchvision resnet18", "torchvision mobilenet_v2", "torchvision densenet121", "torchvision shufflenet_v2_x0_5",
    "torchvision squeezenet1_0", "torchvision mnasnet0_5", "torchvision resnet50", "torchvision resnext50_32x4d",
    "timm resnet18", "timm tf_efficientnet_lite0", "timm regnetx_002", "timm repvgg_a0", "timm resnet10t",
    "timm densenet121", "timm resnet18d", "timm selecsls42b",
]  # fmt: skip
REFUSED = [
    "torchvision mobilenet_v3_small", "torchvision efficientnet_b0", "torchvision convnext_tiny",
    "torchvision regnet_y_400mf",
    "timm mobilenetv3_small_050", "timm efficientnet_b0", "timm convnext_atto", "timm seresnet18", "timm ghostnet_050",
    "timm nfnet_l0",
]  # fmt: skip


def network(name: str) -> Network:
    torch.manual_seed(zlib.crc32(name.encode()))
    library, _, short = name.partition(" ")
    if library == "timm":
        module = timm.create_model(short, pretrained=False, num_classes=10)
    else:
        module = torchvision.models.get_model(short, weights=None, num_classes=10)
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            nn.init.uniform_(child.weight, 0.5, 1.5)
            nn.init.normal_(child.bias, std=0.2)
    net = Network(module, name=name, labels=Labels.generic(10), preprocess=Preprocess((SIZE, SIZE), SIZE))
    with torch.no_grad():  # statistics that fit the weights, so that signals neither die nor explode
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d):
                child.momentum = None
                child.reset_running_stats()
        module.train()
        net(torch.rand(4, 3, SIZE, SIZE))
    return net


@pytest.mark.parametrize("name", GUIDED)
def test_networks_of_relus_are_guided_as_backward_hooks_in_float64_guide_them(name: str) -> None:
    net, images = network(name), torch.rand(2, 3, SIZE, SIZE)
    if name == "torchvision densenet121":  # its last ReLU is a function; a module before it lets the hooks see it
        module: Any = net.module
        module.features.add_module("relu5", nn.Sequential(nn.ReLU(), nn.AvgPool2d(1)))
    wanted = hooked_guided(net, images, [1, 7])
    plain = plain_gradient(net, images, [1, 7])
    net.double()
    guided, own = (
        guided_backprop(net, images.double(), [1, 7]).gradient,
        saliency(net, images.double(), [1, 7]).gradient,
    )
    assert guided is not None
    assert own is not None
    assert wanted.abs().max() > 0
    assert distance(guided, wanted) < 1e-3
    assert distance(own, plain) < 1e-3
    assert angle(guided, plain) > 1e-3  # it is no plain gradient


@pytest.mark.parametrize("name", REFUSED)
def test_networks_with_other_nonlinearities_are_refused_by_name_but_have_their_saliency(name: str) -> None:
    net, images = network(name), torch.rand(1, 3, SIZE, SIZE)
    with pytest.raises(RuleError, match=r"guided backpropagation has no rule for .* \(module '.*' of "):
        guided_backprop(net, images, 1)
    plain = plain_gradient(net, images, [1])
    net.double()
    own = saliency(net, images.double(), 1).gradient
    assert own is not None
    assert distance(own, plain) < 1e-3
    assert grad_cam(net, images.double(), 1).maps.shape == (1, SIZE, SIZE)
