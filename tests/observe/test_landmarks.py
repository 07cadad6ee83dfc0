"""The layers that one would name on a map of a network, on small networks of every kind."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models import Network, load
from phosphene.observe import landmarks


class Residual(nn.Module):
    """As in ResNet."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.bn2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))) + x)


class Basic(nn.Module):
    """Convolution, batch norm, ReLU, as in Inception."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(before, after, 1), nn.BatchNorm2d(after), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.bn(self.conv(x)))


class Branches(nn.Module):
    """Blocks of one convolution within a block, as in GoogLeNet."""

    def __init__(self) -> None:
        super().__init__()
        self.branch1 = Basic(8, 4)
        self.branch2 = nn.Sequential(Basic(8, 4), Basic(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x)], 1)


class Stage(nn.Module):
    """A block of blocks with a shape of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Residual(), Residual()])
        self.after = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.after(x)


class Normed(nn.Module):
    """Norms that are activations too, as timm has them."""

    def __init__(self, before: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, 8, 3, padding=1), BatchNormAct2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), BatchNormAct2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.bn1(self.conv1(x))))


def network(*layers: nn.Module) -> Network:
    torch.manual_seed(0)
    return load(nn.Sequential(*layers), device="cpu", input_size=16)


def stem() -> list[nn.Module]:
    return [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()]


def head() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5)]


def chain(count: int) -> Network:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 1)]
    for _ in range(count - 1):
        layers += [nn.ReLU(), nn.Conv2d(8, 8, 1)]
    return network(*layers, nn.ReLU())


@pytest.mark.parametrize(
    "act",
    [nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish],
)
def test_a_plain_network_gives_its_activations(act: type[nn.Module]) -> None:
    assert landmarks(network(nn.Conv2d(3, 8, 3), act(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), act(), *head())) == [
        "1",
        "4",
    ]


def test_activations_of_vectors_are_no_landmarks() -> None:
    found = landmarks(network(*stem(), *head()))
    assert found == ["2"]


def test_a_block_stands_for_what_is_in_it() -> None:
    assert landmarks(network(*stem(), Residual(), Residual(), *head())) == ["2", "3", "4"]


def test_blocks_in_plain_containers() -> None:
    stages = nn.Sequential(nn.Sequential(Residual(), Residual()), nn.Sequential(Residual()))
    assert landmarks(network(*stem(), stages, *head())) == ["2", "3.0.0", "3.0.1", "3.1.0"]


def test_of_blocks_in_blocks_the_inner_ones_count() -> None:
    assert landmarks(network(*stem(), Stage(), *head())) == ["2", "3.blocks.0", "3.blocks.1", "3.after"]


def test_blocks_of_one_convolution_outside_of_others() -> None:
    assert landmarks(network(Basic(3, 8), Basic(8, 8), *head())) == ["0", "1"]


def test_blocks_of_one_convolution_within_others_are_part_of_them() -> None:
    assert landmarks(network(Basic(3, 8), nn.MaxPool2d(2), Branches(), Branches(), *head())) == ["0", "2", "3"]


def test_norms_that_act() -> None:
    assert landmarks(load(Normed(), device="cpu", input_size=16)) == ["bn1", "bn2"]
    assert landmarks(network(*stem(), nn.Sequential(Normed(8)), *head())) == ["2", "3.0"]


def test_a_network_with_neither_gives_its_convolutions() -> None:
    assert landmarks(network(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), *head())) == ["0", "1"]


def test_a_network_without_convolutions_gives_its_maps() -> None:
    assert landmarks(network(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(192, 5))) == ["0"]


def test_a_network_without_maps() -> None:
    with pytest.raises(LayerError, match="no layer with a spatial map"):
        landmarks(network(nn.Flatten(), nn.Linear(768, 5)))


def test_an_activation_that_runs_several_times_is_named_each_time() -> None:
    relu = nn.ReLU()
    assert landmarks(network(nn.Conv2d(3, 8, 3), relu, nn.Conv2d(8, 8, 3), relu, *head())) == ["1#1", "1"]


def test_a_block_that_runs_several_times_is_named_each_time() -> None:
    block = Residual()
    assert landmarks(network(*stem(), block, block, *head())) == ["2", "3#1", "3"]


def test_an_activation_whose_last_call_is_on_vectors() -> None:
    relu = nn.ReLU()
    rest = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), relu, nn.Linear(16, 5)]
    assert landmarks(network(nn.Conv2d(3, 8, 3), relu, *rest)) == ["1#1"]


@pytest.mark.parametrize("most", range(1, 12))
def test_no_more_than_asked_for_evenly_spread_and_the_last(most: int) -> None:
    net = chain(10)
    every = landmarks(net)
    assert len(every) == 10
    found = landmarks(net, most)
    assert len(found) == min(most, 10) and len(set(found)) == len(found)
    places = [every.index(name) for name in found]
    assert places == sorted(places) and places[-1] == 9
    assert most == 1 or places[0] == 0
    gaps = [later - earlier for earlier, later in pairwise(places)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_all_of_them_can_be_recorded() -> None:
    for net in (network(*stem(), Stage(), Branches(), *head()), chain(4)):
        images = torch.rand(1, 3, 16, 16)
        maps = net.record(images, landmarks(net))
        assert all(found.ndim == 4 and min(found.shape[2:]) > 1 for found in maps.values())


def test_the_bundled_networks(squeezenet: Network, efficientnet: Network) -> None:
    found = landmarks(squeezenet)
    fires = [layer.name for layer in squeezenet.layers() if layer.kind == "Fire"]
    assert len(fires) == 8 and [name for name in found if name in fires] == fires
    assert len(found) == 10  # and the ReLUs after the first and the last convolution
    kinds = {layer.name: layer.kind for layer in efficientnet.layers()}
    assert len(landmarks(efficientnet)) >= 16 and not {kinds[name] for name in landmarks(efficientnet)} & {"Conv2d"}
