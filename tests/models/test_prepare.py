from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from nets import Head, Plain, Reused, close, network, randomise, reference
from torch import Tensor, nn

from phosphene.models.prepare import prepare


def make(name: str) -> nn.Module:
    if name.startswith("timm "):
        return timm.create_model(name.removeprefix("timm "), pretrained=False, num_classes=10)
    more = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, num_classes=10, **more)


@pytest.mark.parametrize(
    ("name", "pairs"),
    [
        ("resnet18", 20), ("mobilenet_v2", 52), ("densenet121", 59), ("googlenet", 57), ("timm resnet18", 20),
        ("timm tf_efficientnet_lite0", 49), ("timm mobilenetv3_small_050", 34), ("timm regnetx_002", 44),
    ],
)  # fmt: skip
def test_folding_swallows_each_batch_norm_that_follows_a_convolution_and_keeps_the_outputs(
    name: str, pairs: int
) -> None:
    module = randomise(make(name)).eval()
    images = torch.randn(2, 3, 64, 64)
    ready = prepare(module, images[:1])
    assert len(ready.folded) == pairs
    with torch.no_grad():
        assert close(ready.module(images), module(images))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "timm tf_efficientnet_lite0"])
def test_a_folded_convolution_still_shows_its_own_output(name: str) -> None:
    net, images = network(make(name), 10, 64), torch.rand(2, 3, 64, 64)
    wanted, _ = reference(net, images)
    ready = prepare(net.module, net.normalise(images[:1]))
    for conv in list(ready.folded)[::6]:
        ours = net.record(images, [conv, ready.folded[conv]])
        assert close(ours[conv], wanted[f"{conv}#1"]), conv
        assert close(ours[ready.folded[conv]], wanted[f"{ready.folded[conv]}#1"]), conv
        assert not close(ours[conv], ours[ready.folded[conv]], 1e-2)


class Boxed(nn.Module):
    """The batch norm lies outside of the container that ends with its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.box = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3)))
        self.bn = nn.BatchNorm2d(8)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.box(x)).relu())


def test_a_container_that_ends_with_a_folded_convolution_shows_the_convolution_too() -> None:
    net, images = network(Boxed()), torch.rand(2, 3, 20, 20)
    wanted, _ = reference(net, images)
    assert prepare(net.module, net.normalise(images[:1])).folded == {"box.0.0": "bn"}
    for name in ("box", "box.0", "box.0.0", "bn"):
        assert close(net.record(images, [name])[name], wanted[f"{name}#1"]), name
        assert close(net.cut(images, name)[0].detach(), wanted[f"{name}#1"]), name


class Twice(nn.Module):
    """The convolution's output has a second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.head(self.bn(x) + x)


class Reads(nn.Module):
    """Looks into its batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.bn(self.conv(x)) * self.bn.weight.mean())


class Between(nn.Module):
    """An activation in place between convolution and batch norm; another pair that can be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x).relu_())
        return self.head(self.bn2(self.conv2(x)))


class Shared(nn.Module):
    """One convolution before two batch norms, and one batch norm after two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn1, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.left, self.right, self.bn3 = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn2(self.conv(self.bn1(self.conv(x))))
        return self.head(self.bn3(self.left(x)) - self.bn3(self.right(x)))


class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.bn1 = nn.ConvTranspose2d(3, 8, 4, stride=2, groups=1), nn.BatchNorm2d(8)
        self.conv, self.bn2 = (
            nn.Conv2d(8, 8, 3, groups=4, dilation=2, padding_mode="reflect", padding=2),
            nn.BatchNorm2d(8),
        )
        self.wide, self.bn3 = (
            nn.Conv2d(8, 8, (1, 5), stride=(2, 1), groups=8, bias=False),
            nn.BatchNorm2d(8, affine=False),
        )
        self.free = nn.BatchNorm2d(8, track_running_stats=False)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn3(self.wide(self.bn2(self.conv(self.bn1(self.up(x))))))
        return self.head(self.free(x))


@pytest.mark.parametrize(
    ("build", "folded"),
    [
        (Twice, {}), (Reads, {}), (Shared, {}), (Between, {"conv2": "bn2"}), (Plain, {"conv1": "bn1", "conv2": "bn2"}),
        (Transposed, {"conv": "bn2", "wide": "bn3"}), (Reused, {"conv1": "bn1", "conv2": "bn2"}),
    ],
)  # fmt: skip
def test_only_what_can_be_folded_is(build: Callable[[], nn.Module], folded: dict[str, str]) -> None:
    net, images = network(build()), torch.rand(2, 3, 20, 20)
    wanted, logits = reference(net, images)
    assert prepare(net.module.eval(), net.normalise(images[:1])).folded == folded
    assert close(net.logits(images), logits)
    for name, value in net.record(images, list(wanted)).items():
        assert close(value, wanted[name]), name


def test_the_copy_is_frozen_in_eval_mode_and_shares_nothing() -> None:
    module = randomise(Reused()).train()
    before = copy.deepcopy(module.state_dict())
    ready = prepare(module, torch.randn(1, 3, 20, 20))
    assert not any(child.training for child in ready.module.modules())
    assert getattr(ready.module.get_submodule("relu"), "inplace") is True  # noqa: B009
    assert not any(parameter.requires_grad for parameter in ready.module.parameters())
    ours = {tensor.data_ptr() for tensor in ready.module.state_dict().values()}
    assert ours.isdisjoint(tensor.data_ptr() for tensor in module.state_dict().values())
    assert all(child.training for child in module.modules())
    assert getattr(module.get_submodule("relu"), "inplace") is True  # noqa: B009
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_unfolded_preparation_keeps_every_batch_norm() -> None:
    module = randomise(Plain()).eval()
    images = torch.randn(2, 3, 20, 20)
    ready = prepare(module, images[:1], fold=False)
    assert ready.folded == {}
    with torch.no_grad():
        assert torch.allclose(ready.module(images), module(images), atol=1e-6)
