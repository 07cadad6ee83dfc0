"""The stages of real and small networks, and what is read there against pooling by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from pupils import SIZE, Pupil, named, noise, pupil, settled
from torch import Tensor, nn
from torchvision import models

from phosphene.errors import LayerError
from phosphene.models import Labels, Network, Preprocess
from phosphene.training.stages import given, last_linear, pooled, read, resolve, stages


def of_torchvision(name: str, size: int) -> Network:
    module = settled(models.get_model(name, weights=None, num_classes=7))
    return Network(module.eval(), name=name, labels=Labels.generic(7), preprocess=Preprocess((size, size), size))


@pytest.fixture(scope="module")
def resnet() -> Network:
    return of_torchvision("resnet18", 32)


@pytest.fixture(scope="module")
def vgg() -> Network:
    return of_torchvision("vgg11", 32)


@pytest.fixture(scope="module")
def densenet() -> Network:
    return of_torchvision("densenet121", 32)


def by_hand(network: Network, images: Tensor, layer: str) -> Tensor:
    """What a hook on the given module sees, averaged."""
    seen: list[Tensor] = []
    handle = network.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    with torch.no_grad():
        network.module(network.normalise(images))
    handle.remove()
    out = seen[-1]
    return torch.stack([row.reshape(row.shape[0], -1).mean(1) if row.ndim > 1 else row for row in out])


def classifier_is_given(network: Network, images: Tensor, layer: str) -> Tensor:
    seen: list[Tensor] = []
    handle = network.module.get_submodule(layer).register_forward_pre_hook(
        lambda _m, args: seen.append(args[0].clone())
    )
    with torch.no_grad():
        network.module(network.normalise(images))
    handle.remove()
    return seen[0].flatten(2).mean(2) if seen[0].ndim > 2 else seen[0]


def checked(network: Network, classifier: str) -> list[str]:
    """The stages, after what holds for all networks."""
    size = network.input_size[0]
    images = noise(2, size)
    found = stages(network)
    features = read(network, images, found)
    assert list(features) == found and len(set(found)) == len(found)
    order = [layer.name for layer in network.layers()]
    assert [order.index(name) for name in found] == sorted(order.index(name) for name in found)
    for name, table in features.items():
        wanted = by_hand(network, images, name) if name != classifier else classifier_is_given(network, images, name)
        assert table.shape == wanted.shape and table.dtype is torch.float32 and not table.requires_grad
        torch.testing.assert_close(table, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
    last = classifier_is_given(network, images, classifier)
    torch.testing.assert_close(features[found[-1]], last, rtol=1e-3, atol=1e-4 * float(last.abs().max()))
    return found


def test_efficientnet(efficientnet: Network) -> None:
    found = checked(efficientnet, "classifier")
    assert last_linear(efficientnet) == "classifier"
    assert found[-1] == "bn2" and 8 <= len(found) <= 20
    shapes = [efficientnet.layer(name).shape for name in found]
    assert all(one != other for one, other in pairwise(shapes))
    assert shapes[-1] == (1280, 7, 7)


def test_squeezenet(squeezenet: Network) -> None:
    """It ends with a convolution: no linear layer, and the last stage is what that is given."""
    found = checked(squeezenet, "classifier.1")
    assert last_linear(squeezenet) is None
    assert found[-1] == "features.12" and all(name.startswith("features.") for name in found)
    assert found[0] == "features.1" and "classifier.1" not in found


def test_resnet(resnet: Network) -> None:
    assert last_linear(resnet) == "fc"
    found = checked(resnet, "fc")
    assert found == ["relu", "layer1.1", "layer2.1", "layer3.1", "fc"]  # the last block gives one pixel here


def test_a_resnet_at_a_size_where_its_last_block_gives_a_map() -> None:
    network = of_torchvision("resnet18", 64)
    assert checked(network, "fc") == ["relu", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]


def test_vgg(vgg: Network) -> None:
    assert last_linear(vgg) == "classifier.6"
    found = checked(vgg, "classifier.6")
    assert found[:3] == ["features.1", "features.4", "features.9"] and found[-2:] == ["classifier.1", "classifier.4"]
    widths = [table.shape[1] for table in read(vgg, noise(1, 32), found).values()]
    assert widths == [64, 128, 256, 512, 512, 4096, 4096]


def test_densenet(densenet: Network) -> None:
    """Its ReLU and its average are functions, and no layer gives just what the classifier is given."""
    assert last_linear(densenet) == "classifier"
    found = checked(densenet, "classifier")
    assert found[-1] == "classifier"
    assert read(densenet, noise(1, 32), ["classifier"])["classifier"].shape == (1, 1024)


def test_a_small_network() -> None:
    network = pupil(0.4)
    assert checked(network, "fc") == ["stem.2", "body.2", "top.2"] and last_linear(network) == "fc"


class Functional(Pupil):
    """Its classifier is given something that no layer gives."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.top(self.body(self.stem(x))).amax((2, 3)))


class NoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.last = nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.conv(x))).mean((2, 3))


class NotLast(Pupil):
    """Its linear layer is followed by something."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()


@pytest.mark.parametrize(
    ("make", "linear", "wanted"),
    [
        (Functional, "fc", ["stem.2", "body.2", "top.2", "fc"]),
        (NoLinear, None, ["act"]),
        (NotLast, None, ["stem.2", "body.2", "top.2"]),
    ],
)
def test_other_small_networks(make: Callable[[], nn.Module], linear: str | None, wanted: list[str]) -> None:
    network = named(settled(make()))
    assert last_linear(network) == linear and stages(network) == wanted
    if linear:
        assert checked(network, linear) == wanted


def test_a_linear_layer_alone_has_nothing_before_it() -> None:
    network = named(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 5)))
    assert last_linear(network) == "1"
    with pytest.raises(LayerError) as caught:
        stages(network)
    assert "\n" not in str(caught.value)


def test_what_a_feature_extractor_has() -> None:
    network = Network(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), name="f", labels=None, preprocess=Preprocess((9, 9), 9)
    )
    assert last_linear(network) is None and stages(network) == ["1"]


def test_names_are_resolved(squeezenet: Network) -> None:
    assert resolve(squeezenet, []) == stages(squeezenet)
    assert resolve(squeezenet, ["fire5", "features.3"]) == [squeezenet.layer("fire5").name, "features.3"]
    with pytest.raises(LayerError, match="has no layer 'fire99'"):
        resolve(squeezenet, ["fire99"])


@pytest.mark.parametrize(
    ("shape", "wanted"), [((2, 5), (2, 5)), ((2, 7, 5), (2, 5)), ((2, 5, 3, 4), (2, 5)), ((2, 5, 2, 3, 4), (2, 5))]
)
def test_pooled(shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    made = pooled(x)
    assert made.shape == wanted
    values: Any = x.numpy()
    for n in range(2):
        for d in range(5):
            column = values[n, d] if len(shape) != 3 else values[n, :, d]
            assert float(made[n, d]) == pytest.approx(float(column.mean()), abs=1e-6)
    leaf = x.requires_grad_()
    pooled(leaf).sum().backward()
    assert leaf.grad is not None


def test_reading_leaves_the_network_alone(resnet: Network) -> None:
    before = [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in resnet.prepared.modules()]
    read(resnet, noise(1, 32), ["layer1.1", "fc"])
    given(resnet, "fc", noise(1, 32))
    assert before == [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in resnet.prepared.modules()]


def test_names_are_given_back_in_the_order_asked_for(resnet: Network) -> None:
    assert list(read(resnet, noise(1, 32), ["fc", "layer1.1", "relu"])) == ["fc", "layer1.1", "relu"]
