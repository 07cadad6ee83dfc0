from __future__ import annotations

import pytest
import torch
import torchvision
from nets import Plain, network
from torch import nn

from phosphene.models.aliases import textbook_names


@pytest.fixture(scope="module", autouse=True)
def on_meta() -> object:
    """Build the big networks without their weights."""
    with torch.device("meta"):
        yield


def test_vgg16_has_the_names_of_simonyan_and_zisserman() -> None:
    names = textbook_names(torchvision.models.vgg16(weights=None))
    blocks = [2, 2, 3, 3, 3]
    place, wanted = 0, {}
    for block, count in enumerate(blocks, start=1):
        for number in range(1, count + 1):
            wanted |= {f"conv{block}_{number}": f"features.{place}", f"relu{block}_{number}": f"features.{place + 1}"}
            place += 2
        wanted[f"pool{block}"] = f"features.{place}"
        place += 1
    wanted |= {"fc6": "classifier.0", "relu6": "classifier.1", "fc7": "classifier.3", "relu7": "classifier.4"}
    assert names == wanted | {"fc8": "classifier.6"}
    assert names["relu4_1"] == "features.18"
    assert names["conv5_3"] == "features.28"


def test_vgg19_with_batch_norm_has_bn_names_too() -> None:
    module = torchvision.models.vgg19_bn(weights=None)
    names = textbook_names(module)
    assert (names["conv4_4"], names["bn4_4"], names["relu4_4"], names["pool4"]) == tuple(
        f"features.{n}" for n in range(36, 40)
    )
    assert {name[:2] for name in names} == {"co", "bn", "re", "po", "fc"}


def test_alexnet_has_the_names_of_krizhevsky() -> None:
    assert textbook_names(torchvision.models.alexnet(weights=None)) == {
        "conv1": "features.0", "relu1": "features.1", "pool1": "features.2", "conv2": "features.3",
        "relu2": "features.4", "pool2": "features.5", "conv3": "features.6", "relu3": "features.7",
        "conv4": "features.8", "relu4": "features.9", "conv5": "features.10", "relu5": "features.11",
        "pool5": "features.12", "fc6": "classifier.1", "relu6": "classifier.2", "fc7": "classifier.4",
        "relu7": "classifier.5", "fc8": "classifier.6",
    }  # fmt: skip


@pytest.mark.parametrize("version", ["squeezenet1_0", "squeezenet1_1"])
def test_squeezenet_has_the_names_of_iandola(version: str) -> None:
    module = torchvision.models.get_model(version, weights=None)
    names = textbook_names(module)
    assert list(names) == ["conv1", "relu1", *(f"fire{n}" for n in range(2, 10)), "conv10", "relu10"]
    squeezes = [module.get_submodule(f"{names[f'fire{n}']}.squeeze").out_channels for n in range(2, 10)]
    assert squeezes == [16, 16, 32, 32, 48, 48, 64, 64]
    assert module.get_submodule(names["conv10"]).out_channels == 1000


@pytest.mark.parametrize("name", ["vgg11", "vgg13_bn", "vgg16", "alexnet", "squeezenet1_0"])
def test_each_name_means_a_module_of_that_kind(name: str) -> None:
    module = torchvision.models.get_model(name, weights=None)
    kinds = {"conv": nn.Conv2d, "bn": nn.BatchNorm2d, "relu": nn.ReLU, "pool": nn.MaxPool2d, "fc": nn.Linear}
    names = textbook_names(module)
    assert len(set(names.values())) == len(names)
    for textbook, own in names.items():
        kind = textbook.rstrip("0123456789_")
        if kind != "fire":
            assert isinstance(module.get_submodule(own), kinds[kind]), textbook


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "efficientnet_b0"])
def test_other_architectures_have_no_textbook_names(name: str) -> None:
    assert textbook_names(torchvision.models.get_model(name, weights=None)) == {}


def test_a_network_without_textbook_names_is_not_given_any() -> None:
    with torch.device("cpu"):
        assert all(layer.alias is None for layer in network(Plain()).layers())
