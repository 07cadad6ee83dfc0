"""Which parameters are trained and how deep they lie, and a network without its frozen part."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pupils import Pupil, named, noise, pupil, settled
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network
from phosphene.models.heads import HEAD
from phosphene.training.features import width
from phosphene.training.inputs import Frozen
from phosphene.training.parts import Rest, part, rest
from phosphene.training.probe import with_classes
from phosphene.training.stages import stages


def headed(network: Network, stage: str | None = None) -> Network:
    stage = stage or stages(network)[-1]
    return with_classes(network, ["a", "b", "c"], stage, width(network, stage))


class Narrow(ResNet):
    """torchvision's ResNet with 4 blocks of 8 to 64 channels."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [1, 1, 1, 1], num_classes=5)
        for name, child in list(self.named_modules()):
            parent, _, leaf = name.rpartition(".")
            if isinstance(child, nn.Conv2d):
                into = 3 if name == "conv1" else child.in_channels // 8
                new: nn.Module = nn.Conv2d(
                    into, child.out_channels // 8, child.kernel_size, child.stride, child.padding, bias=False  # pyright: ignore
                )  # fmt: skip
            elif isinstance(child, nn.BatchNorm2d):
                new = nn.BatchNorm2d(child.num_features // 8)
            else:
                continue
            setattr(self.get_submodule(parent), leaf, new)
        self.fc = nn.Linear(64, 5)


class Vgg(nn.Module):
    """Convolutions, then three linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(True), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(32, 10),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(10, 11),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(11, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def resnet() -> Network:
    torch.manual_seed(0)
    return named(settled(Narrow()), size=64)


def vgg() -> Network:
    torch.manual_seed(0)
    return named(Vgg())


def tops(parameters: dict[str, int], length: int = 1) -> dict[str, int]:
    """The first words of the names -> their depth; each has one."""
    found: dict[str, set[int]] = {}
    for name, depth in parameters.items():
        found.setdefault(".".join(name.split(".")[:length]), set()).add(depth)
    assert all(len(depths) == 1 for depths in found.values()), found
    return {name: depths.pop() for name, depths in found.items()}


ALL_OF_VGG = {
    "classifier.6": 0,
    "classifier.3": 1,
    "classifier.0": 2,
    "features.3": 3,
    "features.5": 3,
    "features.0": 4,
}

# -- which and how deep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "after", "wanted"),
    [
        ("head", "layer4.0", {"fc": 0}),
        ("last:0", "layer4.0", {"fc": 0}),
        ("last:1", "layer3.0", {"fc": 0, "layer4": 1}),
        ("last:2", "layer2.0", {"fc": 0, "layer4": 1, "layer3": 2}),
        ("stage:layer2.0", "layer1.0", {"fc": 0, "layer4": 1, "layer3": 2, "layer2": 3}),
        ("last:4", "relu", {"fc": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4}),
        ("last:5", None, {"fc": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}),
        ("all", None, {"fc": 0, "layer4": 1, "layer3": 2, "layer2": 3, "layer1": 4, "conv1": 5, "bn1": 5}),
    ],
)
def test_of_a_resnet(layers: str, after: str | None, wanted: dict[str, int]) -> None:
    network = headed(resnet())
    assert stages(network) == ["relu", "layer1.0", "layer2.0", "layer3.0", "layer4.0"]
    found = part(network, layers)
    assert found.after == after and tops(found.parameters) == wanted
    every = {name for name, _ in network.module.named_parameters() if name.split(".")[0] in wanted}
    assert set(found.parameters) == every


@pytest.mark.parametrize(
    ("layers", "after", "wanted"),
    [
        ("head", "classifier.4", {"classifier.6": 0}),
        ("last:1", "classifier.1", {"classifier.6": 0, "classifier.3": 1}),
        ("last:2", "features.6", {"classifier.6": 0, "classifier.3": 1, "classifier.0": 2}),
        ("last:3", "features.1", {"classifier.6": 0, "classifier.3": 1, "classifier.0": 2, "features.3": 3, "features.5": 3}),
        ("all", None, ALL_OF_VGG),
    ],
)  # fmt: skip
def test_of_a_vgg(layers: str, after: str | None, wanted: dict[str, int]) -> None:
    network = headed(vgg())
    assert stages(network) == ["features.1", "features.6", "classifier.1", "classifier.4"]
    found = part(network, layers)
    assert found.after == after and tops(found.parameters, 2) == wanted


def test_of_an_efficientnet(efficientnet: Network) -> None:
    network = headed(efficientnet)
    names = stages(network)
    assert tops(part(network, "head").parameters) == {"classifier": 0}
    last = part(network, "last:1")
    assert last.after == names[-2] and tops(last.parameters) == {"classifier": 0, "conv_head": 1, "bn2": 1}
    two = part(network, "last:2")
    assert two.after == names[-3]
    assert {n.split(".")[0] for n, depth in two.parameters.items() if depth < 2} == {"classifier", "conv_head", "bn2"}
    assert all(n.startswith("blocks.") for n, depth in two.parameters.items() if depth == 2)
    every = part(network, "all")
    assert every.after is None and set(every.parameters) == {n for n, _ in network.module.named_parameters()}
    assert every.parameters["conv_stem.weight"] == len(names) == max(every.parameters.values())


def test_of_a_network_that_is_cut(squeezenet: Network) -> None:
    """What no longer runs is not trained."""
    network = headed(squeezenet, "features.4")
    assert stages(network)[-1] == "features.4"
    found = part(network, "all")
    assert tops({n: d for n, d in found.parameters.items() if n.startswith(HEAD)}) == {HEAD: 0}
    assert {int(n.split(".")[1]) for n in found.parameters if n.startswith("features")} == {0, 3, 4}
    assert part(network, "head").parameters == {f"{HEAD}.weight": 0, f"{HEAD}.bias": 0}


class Apart(Pupil):
    """Its classifier is given what no layer gives: the last stage is the classifier itself."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.top(self.body(self.stem(x))).amax((2, 3)))


def test_a_classifier_that_is_its_own_stage() -> None:
    network = headed(named(settled(Apart())))
    assert stages(network)[-1] == "fc"
    assert part(network, "head").parameters == {"fc.weight": 0, "fc.bias": 0} and part(network, "head").after == "top.2"
    assert tops(part(network, "last:1").parameters) == {"fc": 0, "top": 1}


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ("", PhospheneError, "--layers takes head, last:N, stage:NAME or all, not ''"),
        ("last", PhospheneError, "not 'last'"),
        ("last:", PhospheneError, "not 'last:'"),
        ("last:-1", PhospheneError, "not 'last:-1'"),
        ("last:two", PhospheneError, "not 'last:two'"),
        ("stage:", PhospheneError, "not 'stage:'"),
        ("Head", PhospheneError, "not 'Head'"),
        ("last:6", PhospheneError, "has 5 stages, and last:6 asks for more: give all"),
        ("stage:layer9", LayerError, "no layer 'layer9'"),
        ("stage:layer1.0.conv1", LayerError, "'layer1.0.conv1' is no stage of pupil: relu, layer1.0"),
    ],
)
def test_what_means_nothing(layers: str, error: type[PhospheneError], message: str) -> None:
    with pytest.raises(error) as caught:
        part(headed(resnet()), layers)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# -- the rest ---------------------------------------------------------------------------------------------------


def logits(network: Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.module(network.normalise(images))


@pytest.mark.parametrize("make", [pupil, resnet, vgg])
def test_the_rest_gives_what_the_whole_network_gives(make: Any) -> None:
    network = headed(make())
    images = noise(3, network.input_size[0])
    wanted = logits(network, images)
    for after in [None, *stages(network)]:
        made = rest(network, after).eval()
        assert made.after == after, f"{after} can't be taken apart"
        with torch.no_grad():
            torch.testing.assert_close(made(Frozen(network, after)(images)), wanted, atol=1e-4, rtol=1e-3)


def test_what_is_frozen_is_gone_from_the_rest() -> None:
    network = headed(resnet())
    counts = [sum(p.numel() for p in rest(network, after).parameters()) for after in [None, *stages(network)]]
    assert counts == sorted(counts, reverse=True) and len(set(counts)) == len(counts)
    made = rest(network, "layer3.0")
    names = {name.removeprefix("module.").split(".")[0] for name, _ in made.named_parameters()}
    assert names == {"layer4", "fc"}
    assert set(part(network, "last:1").parameters) == {n.removeprefix("module.") for n, _ in made.named_parameters()}
    assert counts[-1] == 64 * 3 + 3
    own = dict(network.module.named_parameters())
    for name, parameter in made.named_parameters():
        its = own[name.removeprefix("module.")]
        assert torch.equal(parameter, its) and parameter is not its


def test_the_network_itself_stays_whole() -> None:
    network = headed(resnet())
    wanted = logits(network, noise(1, 64))
    made = rest(network, "layer2.0")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    assert torch.equal(logits(network, noise(1, 64)), wanted)


class Skips(Pupil):
    """A later part is given the picture, too."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.top(self.body(self.stem(x)))
        return self.fc(y.mean((2, 3)) + x.mean((1, 2, 3))[:, None])


class Twice(Pupil):
    """What lies between two stages changes a map twice as it changes it once: no shape betrays it."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x * 0.5) * 0.5
        return self.fc(self.top(self.body(y)).mean((2, 3)))


@pytest.mark.parametrize("make", [Skips, Twice])
def test_a_network_that_cannot_be_taken_apart_stays_whole(make: type[nn.Module]) -> None:
    network = headed(named(settled(make())))
    images = noise(2)
    for after in ("stem.2", "body.2"):
        made = rest(network, after).eval()
        if made.after is not None:
            with torch.no_grad():
                torch.testing.assert_close(
                    made(Frozen(network, after)(images)), logits(network, images), atol=1e-4, rtol=1e-3
                )
            continue
        with torch.no_grad():
            torch.testing.assert_close(made(Frozen(network, None)(images)), logits(network, images))
    assert rest(network, "stem.2").after is None


def test_densenets_are_whole_inside_of_a_block_at_least(squeezenet: Network) -> None:
    """And SqueezeNet's fire modules are taken apart at each stage."""
    network = headed(squeezenet)
    images = noise(1, 224)
    for after in stages(network)[-3:]:
        made = rest(network, after).eval()
        assert made.after == after
        with torch.no_grad():
            torch.testing.assert_close(
                made(Frozen(network, after)(images)), logits(network, images), atol=1e-3, rtol=1e-3
            )


def test_modes_and_gradients_of_the_rest() -> None:
    network = headed(pupil(0.5))
    made = Rest(network, "body.2")
    made.eval()
    made(Frozen(network, "body.2")(noise(2))).sum().backward()
    assert all(p.grad is not None for p in made.parameters())
    assert all(p.grad is None for p in network.module.parameters())
    assert not Frozen(network, "body.2")(noise(2)).requires_grad


class Sharing(nn.Module):
    """One ReLU for all, as many write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.Conv2d(8, 10, 3)
        self.relu, self.fc = nn.ReLU(), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv2(self.relu(self.conv1(x))))
        return self.fc(self.relu(self.conv3(x)).mean((2, 3)))


def test_one_activation_for_all() -> None:
    network = headed(named(Sharing()))
    assert stages(network) == ["relu#1", "relu#2", "relu"]
    assert tops(part(network, "last:1").parameters) == {"fc": 0, "conv3": 1}
    assert tops(part(network, "all").parameters) == {"fc": 0, "conv3": 1, "conv2": 2, "conv1": 3}
    assert tops(part(network, "head").parameters) == {"fc": 0}
