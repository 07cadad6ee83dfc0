"""Blocks: cores that divide a map among them, grids that are known by hand, features that are those of the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network, load
from phosphene.synthesize.blocks import Block, Reach, Span, blocks, reach_of
from phosphene.synthesize.style_targets import features_of, map_sizes


def network(*layers: nn.Module, size: int = 32) -> Network:
    torch.manual_seed(0)
    return load(nn.Sequential(*layers), device="cpu", input_size=size)


def conv(channels: int, filters: int, kernel: int, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(channels, filters, kernel, **options)


# -- cores ------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    size=st.tuples(st.integers(1, 160), st.integers(1, 160)),
    powers=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    halo=st.integers(0, 50),
    side=st.integers(1, 100),
)
def test_cores_divide_the_picture_and_every_map(size: tuple[int, int], powers: list[int], halo: int, side: int) -> None:
    """Each layer's map, a place for every begun stride, is covered once."""
    reaches = [Reach(2**power, halo) for power in powers]
    parts = blocks(size, reaches, side)
    largest = max(reach.stride for reach in reaches)
    for reach in reaches:
        whole = [-(-length // reach.stride) for length in size]
        covered = torch.zeros(whole, dtype=torch.int64)
        for part in parts:
            rows, columns = (span.stop - span.start for span in (part.rows, part.columns))
            read = torch.zeros(1, 1, -(-rows // reach.stride), -(-columns // reach.stride))
            core = part.core(read, reach, size)
            place = part.place(core, reach)
            covered[place] += 1
            assert core.shape[2:] == covered[place].shape
        assert bool((covered == 1).all())
    for part in parts:
        for span, length in ((part.rows, size[0]), (part.columns, size[1])):
            assert span.start == 0 or span.start <= span.core_start - halo
            assert span.stop == length or span.stop >= span.core_stop + halo
            assert 0 <= span.start <= span.core_start < span.core_stop <= span.stop <= length
            assert span.start % largest == span.core_start % largest == 0
            assert (span.stop - span.start) % largest == length % largest
            assert span.core_stop - span.core_start < max(side, largest) + largest


def test_blocks_by_hand() -> None:
    parts = blocks((20, 50), [Reach(4, 6), Reach(2, 3)], 16)
    assert len(parts) == 2 * 4
    assert [part.columns for part in parts[:4]] == [
        Span(0, 18, 0, 12), Span(4, 30, 12, 24), Span(16, 42, 24, 36), Span(28, 50, 36, 50),
    ]  # fmt: skip
    assert [part.rows for part in parts[::4]] == [Span(0, 16, 0, 8), Span(0, 20, 8, 20)]


def test_one_block_for_a_small_picture() -> None:
    assert blocks((30, 40), [Reach(8, 100)], 64) == [Block(Span(0, 30, 0, 30), Span(0, 40, 0, 40))]


def test_strides_that_share_no_grid() -> None:
    with pytest.raises(PhospheneError, match=r"strides of \[2, 3\] can't share blocks"):
        blocks((40, 40), [Reach(2, 3), Reach(3, 3)], 16)


# -- grids ------------------------------------------------------------------------------------------------------


def vgg() -> Network:
    """Two convolutions, a pooling, two convolutions, a pooling, one convolution: 3 x 3 and padded."""
    return network(
        conv(3, 4, 3, padding=1), nn.ReLU(), conv(4, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        conv(4, 6, 3, padding=1), nn.ReLU(), conv(6, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        conv(6, 6, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "stride", "halo"),
    [("0", 1, 1), ("3", 1, 2), ("4", 2, 2), ("6", 2, 4), ("8", 2, 6), ("9", 4, 6), ("11", 4, 10)],
)
def test_the_reach_of_a_small_vgg(layer: str, stride: int, halo: int) -> None:
    assert reach_of(vgg(), layer) == Reach(stride, halo)


@pytest.mark.parametrize(
    ("layers", "wanted"),
    [
        ([conv(3, 4, 1)], Reach(1, 0)),
        ([conv(3, 4, 5, padding=2)], Reach(1, 2)),
        ([conv(3, 4, 3, padding=2, dilation=2)], Reach(1, 2)),
        ([conv(3, 4, 3, stride=2, padding=1)], Reach(2, 1)),
        ([conv(3, 4, 3, stride=2, padding=1), conv(4, 4, 3, stride=2, padding=1)], Reach(4, 3)),
        ([conv(3, 4, 7)], Reach(1, 6)),
        ([nn.AvgPool2d(3, 2)], Reach(2, 1)),
        ([conv(3, 4, 2, stride=4)], Reach(4, 0)),
    ],
)
def test_the_reach_of_one_or_two_layers(layers: list[nn.Module], wanted: Reach) -> None:
    net = network(*layers)
    assert reach_of(net, str(len(layers) - 1)) == wanted


def test_a_reach_beyond_the_input_size_is_found_in_a_larger_picture() -> None:
    net = network(conv(3, 4, 17, padding=8), conv(4, 4, 17, padding=8), size=16)
    assert reach_of(net, "1") == Reach(1, 16)


def test_padding_after_an_unpadded_layer_does_not_shorten_the_reach() -> None:
    """The last pixel is seen by nothing, so a box that ends before it may be cut off all the same."""
    layers = [
        conv(3, 6, 3, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), conv(6, 8, 3, padding=1), nn.AvgPool2d(2, 2),
        conv(8, 8, 5, padding=2),
    ]  # fmt: skip
    small, large = (network(*layers, size=size) for size in (48, 192))
    assert reach_of(large, "4") == Reach(8, 23)
    assert reach_of(small, "4") == Reach(8, 23)
    image = torch.rand(1, 3, 68, 68)
    whole, parts = (features_of(small, image, ["4"], block)["4"] for block in (None, 16))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_the_bundled_networks_have_grids(bundled_network: Network) -> None:
    """SqueezeNet: 3 x 3 by 2, pooling of 3 by 2, and 3 x 3 on that. EfficientNet: 3 x 3 by 2, then 3 x 3."""
    wanted = {
        "squeezenet1_1": {"features.1": Reach(2, 1), "features.2": Reach(4, 3), "features.3": Reach(4, 7)},
        "efficientnet_lite0": {"bn1": Reach(2, 1), "blocks.0.0": Reach(2, 3)},
    }[bundled_network.name]
    assert {layer: reach_of(bundled_network, layer) for layer in wanted} == wanted


class Gated(nn.Module):
    """Squeeze-and-excitation: each channel is multiplied by what its mean over the whole picture says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = conv(3, 4, 3, padding=1), conv(4, 4, 1)
        self.out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.out(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (Gated(), "out"),
        (nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d(1)), "1"),
        (nn.Sequential(conv(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), "3"),
        (nn.Sequential(conv(3, 4, 3), nn.InstanceNorm2d(4)), "1"),
        (nn.Sequential(conv(3, 4, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)), "1"),
        (nn.Sequential(conv(3, 4, 3, stride=(2, 1), padding=1)), "0"),
    ],
)
def test_what_has_no_grid_is_refused(module: nn.Module, layer: str) -> None:
    net = load(module, device="cpu", input_size=12)
    with pytest.raises(LayerError, match=rf"layer '{layer}' .* can't be read in blocks"):
        reach_of(net, layer)


def test_before_the_gate_there_is_a_grid() -> None:
    assert reach_of(load(Gated(), device="cpu", input_size=12), "conv") == Reach(1, 1)


# -- features ---------------------------------------------------------------------------------------------------


def strided() -> Network:
    """Windows that don't fit, poolings that round up, and paddings before and after."""
    return network(
        conv(3, 4, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), conv(4, 6, 3, padding=1), nn.Tanh(),
        nn.AvgPool2d(2, 2, ceil_mode=True), conv(6, 6, 3, padding=2),
    )  # fmt: skip


@pytest.mark.parametrize("size", [(64, 64), (65, 63), (47, 70), (90, 41), (33, 34)])
@pytest.mark.parametrize("side", [8, 24])
def test_features_by_blocks_are_those_of_the_whole(size: tuple[int, int], side: int) -> None:
    image = torch.rand(1, 3, *size)
    for net, layers in ((vgg(), ["1", "8", "11"]), (strided(), ["1", "4"])):
        whole, parts = (features_of(net, image, layers, block) for block in (None, side))
        for layer in layers:
            torch.testing.assert_close(parts[layer], whole[layer], rtol=1e-5, atol=1e-6)
        sizes = {layer: tuple(found.shape[2:]) for layer, found in whole.items()}
        assert map_sizes(net, size, layers, side) == map_sizes(net, size, layers, None) == sizes


@pytest.mark.parametrize("size", [(96, 112), (97, 111)])
def test_features_of_the_bundled_networks_by_blocks(bundled_network: Network, size: tuple[int, int]) -> None:
    layers = ["features.1", "features.4"] if bundled_network.name == "squeezenet1_1" else ["bn1", "blocks.1.1"]
    image = torch.rand(1, 3, *size)
    whole, parts = (features_of(bundled_network, image, layers, block) for block in (None, 64))
    for layer in layers:
        scale = float(whole[layer].abs().max())
        torch.testing.assert_close(parts[layer], whole[layer], rtol=0, atol=2e-6 * scale)
