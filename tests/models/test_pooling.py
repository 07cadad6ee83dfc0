"""Average pooling in the place of max pooling."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from nets import Head
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import NetworkError
from phosphene.models import Network, load
from phosphene.models.pooling import with_average_pooling


def network(pool: nn.Module | None = None) -> Network:
    inner = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), pool or nn.MaxPool2d(3, 2, padding=1))
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), inner, Head(6, 3))
    return load(module, device="cpu", input_size=20, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def slow(maps: Tensor, kernel: int, stride: int, padding: int, shape: tuple[int, ...]) -> Tensor:
    """The mean of what lies inside of the map, window by window."""
    found = torch.zeros(*maps.shape[:2], *shape)
    for row in range(shape[0]):
        for column in range(shape[1]):
            top, left = row * stride - padding, column * stride - padding
            window = maps[..., max(0, top) : top + kernel, max(0, left) : left + kernel]
            found[..., row, column] = window.mean((2, 3))
    return found


def test_max_poolings_become_means() -> None:
    plain = network()
    twin: Any = with_average_pooling(plain)
    images = torch.rand(2, 3, 20, 22)
    pools = [name for name, part in twin.module.named_modules() if isinstance(part, nn.AvgPool2d)]
    assert pools == ["2", "3.1"]
    assert not any(isinstance(part, nn.MaxPool2d) for part in twin.module.modules())
    before = plain.record(images, ["1"])["1"]
    found = twin.record(images, ["1", "2"])
    torch.testing.assert_close(found["1"], before)
    torch.testing.assert_close(found["2"], F.avg_pool2d(before, 2))
    assert not torch.allclose(found["2"], plain.record(images, ["2"])["2"])


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [(2, 2, 0, False), (3, 2, 1, False), (3, 2, 0, True), (2, 2, 0, True), (3, 1, 1, False)],
)
@pytest.mark.parametrize("size", [(20, 22), (23, 25)])
def test_means_of_what_lies_inside(kernel: int, stride: int, padding: int, ceil: bool, size: tuple[int, int]) -> None:
    plain = network(nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil))
    twin = with_average_pooling(plain)
    images = torch.rand(1, 3, *size)
    found = twin.record(images, ["3.0", "3.1"])
    shape = tuple(plain.record(images, ["3.1"])["3.1"].shape[2:])
    torch.testing.assert_close(found["3.1"], slow(found["3.0"], kernel, stride, padding, shape), rtol=1e-4, atol=1e-6)


def test_the_twin_is_the_same_in_everything_else() -> None:
    plain = network()
    before = {name: tensor.clone() for name, tensor in plain.module.state_dict().items()}
    twin = with_average_pooling(plain)
    assert (twin.name, twin.input_size, twin.classifies) == (plain.name, plain.input_size, plain.classifies)
    assert torch.equal(twin.mean, plain.mean) and torch.equal(twin.std, plain.std)
    assert list(twin.labels) == list(plain.labels)
    assert [layer.name for layer in twin.layers()] == [layer.name for layer in plain.layers()]
    state = twin.module.state_dict()
    assert all(torch.equal(state[name], values) for name, values in before.items()) and state.keys() == before.keys()
    assert sum(isinstance(part, nn.MaxPool2d) for part in plain.module.modules()) == 2


def test_an_even_picture_is_pooled_alike() -> None:
    """Maximum and mean of equal numbers are the same."""
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.MaxPool2d(3, 2, padding=1))
    plain = load(module, device="cpu", input_size=20)
    images = torch.full((1, 3, 21, 20), 0.3)
    torch.testing.assert_close(with_average_pooling(plain).record(images, ["1"]), plain.record(images, ["1"]))


def test_a_network_without_classes_stays_one(squeezenet: Network) -> None:
    features = Network(squeezenet.module.features[:4], name="cut", labels=None, why_features="it was cut")  # type: ignore[index]
    twin = with_average_pooling(features)
    assert not twin.classifies and twin.why_features == "it was cut"


def test_a_pooling_of_two_names_is_replaced_under_both() -> None:
    pool = nn.MaxPool2d(2)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), pool, nn.Conv2d(4, 4, 3, padding=1), pool)
    twin: Any = with_average_pooling(load(module, device="cpu", input_size=20))
    assert [type(part) for part in twin.module][1::2] == [nn.AvgPool2d, nn.AvgPool2d]


def test_a_dilated_pooling_is_refused_or_keeps_its_size() -> None:
    plain = network(nn.MaxPool2d(2, 1, dilation=3))
    images = torch.rand(1, 3, 20, 20)
    try:
        twin = with_average_pooling(plain)
    except NetworkError:
        return
    assert twin.record(images, ["3.1"])["3.1"].shape == plain.record(images, ["3.1"])["3.1"].shape


def test_nothing_to_replace() -> None:
    plain = load(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU()), device="cpu", input_size=16)
    with pytest.raises(NetworkError, match="has no max pooling layer"):
        with_average_pooling(plain)


class Locked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.conv, self.pool = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(x))


def test_a_network_that_cannot_be_copied() -> None:
    plain = load(Locked(), device="cpu", input_size=16)
    with pytest.raises(NetworkError, match="can't be copied"):
        with_average_pooling(plain)
