"""Winograd's convolutions against PyTorch's own, values and gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.models import Network, load
from phosphene.models import winograd as module_under_test
from phosphene.models.winograd import WinogradConv2d, fits, with_winograd

SIZES = [(1, 1), (1, 7), (3, 2), (4, 4), (5, 5), (6, 9), (8, 12), (13, 4), (17, 23), (33, 1)]


def conv(channels: int = 64, filters: int = 128, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, 3, **{"padding": 1, **options}).requires_grad_(False)


def near(found: Tensor, wanted: Tensor, share: float = 2e-5) -> None:
    """Within a share of the largest value."""
    assert found.shape == wanted.shape and found.dtype == torch.float32
    assert float((found.double() - wanted).abs().max()) <= share * float(wanted.abs().max())


def both(direct: nn.Conv2d, x: Tensor) -> None:
    """Compares value and gradient with the direct sums in double precision."""
    slope = torch.randn(len(x), direct.out_channels, *x.shape[2:])
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    found = WinogradConv2d(direct)(leaf)
    bias = None if direct.bias is None else direct.bias.double()
    wanted = F.conv2d(exact, direct.weight.double(), bias, padding=1)
    near(found.detach(), wanted.detach())
    near(torch.autograd.grad(found, leaf, slope)[0], torch.autograd.grad(wanted, exact, slope.double())[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_values_and_gradients(size: tuple[int, int], bias: bool) -> None:
    both(conv(64, 128, bias=bias), torch.randn(2, 64, *size))


@pytest.mark.parametrize(("channels", "filters"), [(1, 1), (3, 2), (2, 5), (128, 64)])
def test_any_number_of_channels(channels: int, filters: int) -> None:
    both(conv(channels, filters), torch.randn(1, channels, 7, 10))


@pytest.mark.parametrize("layout", ["channels_last", "cropped", "transposed"])
def test_any_layout_in_memory(layout: str) -> None:
    x = torch.randn(2, 8, 9, 11)
    laid = {
        "channels_last": x.contiguous(memory_format=torch.channels_last),
        "cropped": F.pad(x, (1, 2, 3, 4))[..., 3:-4, 1:-2],
        "transposed": x.transpose(2, 3).contiguous().transpose(2, 3),
    }[layout]
    assert torch.equal(laid, x)
    both(conv(8, 6), laid)


def test_many_rows_are_done_in_several_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without what hangs over at the last of them."""
    monkeypatch.setattr(module_under_test, "LEAST_TILES", 3)
    monkeypatch.setattr(module_under_test, "WORKING_SET", 1)
    for size in ((20, 4), (22, 5), (9, 30)):
        both(conv(4, 4), torch.randn(2, 4, *size))


def test_the_bias_alone() -> None:
    direct = conv(64, 128)
    direct.weight.zero_()
    found = WinogradConv2d(direct)(torch.randn(1, 64, 5, 6))
    assert torch.equal(found, direct.bias.view(1, -1, 1, 1).expand(1, 128, 5, 6))  # type: ignore[union-attr]


# -- where it fits ----------------------------------------------------------------------------------------------


def test_it_fits_large_plain_convolutions() -> None:
    assert fits(conv(64, 128)) and fits(conv(128, 64)) and fits(conv(256, 256, bias=False))


class Own(nn.Conv2d):
    """May do anything in its forward."""


@pytest.mark.parametrize(
    "module",
    [
        conv(64, 128, stride=2), conv(64, 128, stride=(1, 2)), conv(64, 128, dilation=2), conv(64, 128, padding=0),
        conv(64, 128, padding=2), conv(64, 128, padding="same"), conv(128, 128, groups=2),
        conv(64, 128, padding_mode="reflect"), conv(64, 128, padding_mode="circular"), conv(64, 128).double(),
        conv(64, 128).half(), conv(64, 64), conv(32, 512), conv(512, 32), nn.Conv2d(64, 128, 1), nn.Conv2d(64, 128, 5),
        nn.Conv2d(64, 128, (3, 1), padding=1), nn.ConvTranspose2d(64, 128, 3, padding=1),
        Own(64, 128, 3, padding=1), nn.ReLU(), nn.Sequential(conv(64, 128)), conv(64, 128).to("meta"),
    ],
)  # fmt: skip
def test_it_fits_nothing_else(module: nn.Module) -> None:
    assert not fits(module)


# -- twins ------------------------------------------------------------------------------------------------------


def net() -> nn.Sequential:
    first = nn.Sequential(nn.Conv2d(3, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
    return nn.Sequential(
        first, nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(128, 64, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4),
    ).eval().requires_grad_(False)  # fmt: skip


def test_a_twin_shares_its_tensors_and_leaves_the_module_alone() -> None:
    module = net()
    kinds = [type(part) for part in module.modules()]
    values = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    twin: Any = with_winograd(module)
    assert [type(part) for part in module.modules()] == kinds
    assert all(torch.equal(values[name], tensor) for name, tensor in module.state_dict().items())
    assert [name for name, part in twin.named_modules() if isinstance(part, WinogradConv2d)] == ["1", "4"]
    mine, its = dict(module.named_parameters()), dict(twin.named_parameters())
    assert set(its) == set(mine)
    assert all(its[name] is mine[name] for name in its)
    assert all(one is other for one, other in zip(twin.buffers(), module.buffers(), strict=True))
    assert twin[1].bias.data_ptr() == mine["1.bias"].data_ptr()
    assert not any(part.training for part in twin.modules())
    x = torch.randn(2, 3, 20, 22)
    near(twin(x), copy.deepcopy(module).double()(x.double()))


def test_without_a_large_convolution_there_is_no_twin() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    assert with_winograd(module) is module


@pytest.mark.parametrize("layers", [["0", "2", "5"], ["1", "4"], ["0.0", "2"], ["1"]])
def test_a_swift_reader_agrees_with_a_plain_one(layers: list[str]) -> None:
    network = load(net(), device="cpu", input_size=20)
    images, slope = torch.rand(2, 3, 21, 18), {}
    found = []
    for swift in (False, True):
        leaf = images.clone().requires_grad_()
        maps = network.reader(layers, to_end=True, swift=swift)(leaf)
        slope = slope or {name: torch.randn_like(values) for name, values in maps.items()}
        loss = torch.stack([(slope[name] * values).sum() for name, values in maps.items()]).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        found.append({**{name: values.detach() for name, values in maps.items()}, "gradient": gradient})
    assert list(found[0]) == [*layers, "", "gradient"]
    for name, values in found[0].items():
        near(found[1][name], values.double(), 1e-4 if name == "gradient" else 2e-5)


def test_a_swift_reader_does_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    network = load(net(), device="cpu", input_size=20)
    calls: list[tuple[int, ...]] = []
    forward = WinogradConv2d.forward
    monkeypatch.setattr(WinogradConv2d, "forward", lambda m, x: calls.append(tuple(x.shape)) or forward(m, x))
    network.reader(["5"])(torch.rand(1, 3, 20, 20))
    assert not calls
    network.reader(["5"], swift=True)(torch.rand(1, 3, 20, 20))
    assert calls == [(1, 64, 10, 10), (1, 128, 5, 5)]
    assert not any(isinstance(part, WinogradConv2d) for part in network.prepared.modules())


class Twice(nn.Module):
    """A large convolution of two names, each of which runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 128, 3, padding=1)
        self.back, self.again = nn.Conv2d(128, 64, 1), self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.back(self.first(self.stem(x)).relu()))


def test_a_convolution_of_two_names() -> None:
    network = load(Twice(), device="cpu", input_size=16)
    images = torch.rand(1, 3, 16, 16)
    plain, swift = (network.reader(["first#1", "first#2"], swift=swift)(images) for swift in (False, True))
    for name, values in plain.items():
        near(swift[name], values.double())


class Reads(nn.Module):
    """Looks into its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.large = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 128, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(self.stem(x), self.large.weight, padding=1) + self.large(self.stem(x))


def test_a_network_that_looks_into_its_convolution() -> None:
    network = load(nn.Sequential(Reads(), nn.Tanh()), device="cpu", input_size=16)
    images = torch.rand(1, 3, 16, 16)
    plain, swift = (network.reader(["1"], swift=swift)(images)["1"] for swift in (False, True))
    near(swift, plain.double())


def test_a_swift_reader_of_a_bundled_network(bundled_network: Network) -> None:
    layer = "features.12" if bundled_network.name == "squeezenet1_1" else "blocks.2.1"
    images = torch.rand(1, 3, 65, 64)
    plain, swift = (bundled_network.reader([layer], swift=swift)(images)[layer] for swift in (False, True))
    near(swift, plain.double(), 1e-4)
