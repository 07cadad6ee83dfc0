from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import Plain, Reused, network

from phosphene.errors import LayerError
from phosphene.models import Unit, parse_unit


@given(
    layer=st.text("abc.0_#", min_size=1),
    channel=st.integers(0, 999),
    place=st.none() | st.tuples(*[st.integers(0, 99)] * 2),
)
def test_what_a_unit_is_written_as_is_read_back(layer: str, channel: int, place: tuple[int, int] | None) -> None:
    unit = Unit(layer, channel, place)
    assert parse_unit(str(unit)) == unit


def test_a_position_can_be_written_with_a_colon() -> None:
    assert parse_unit("features.12:3:6:7") == parse_unit("features.12:3:6,7") == Unit("features.12", 3, (6, 7))


@pytest.mark.parametrize(
    "text", ["", "layer4", "layer4:", "layer4:x", "layer4:1:2", "layer4:1:2,3,4", "a:1:2:3:4", "a:1:x,2"]
)
def test_what_is_no_unit_is_an_error_line(text: str) -> None:
    with pytest.raises(LayerError, match=r"is no unit: write layer:channel or layer:channel:row,column"):
        parse_unit(text)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        (Unit("conv1", 8), "units 0 to 7: there is no unit 8"), (Unit("conv1", -1), "no unit -1"),
        (Unit("conv1", 0, (18, 0)), r"a map of 18x18: there is no position \(18, 0\)"),
        (Unit("conv1", 0, (0, -1)), "no position"), (Unit("head", 0, (0, 0)), "'head' is not a map"),
        (Unit("nowhere", 0), "no layer 'nowhere'"),
    ],
)  # fmt: skip
def test_a_unit_that_the_network_lacks_is_an_error_line(unit: Unit, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        unit.check(network(Plain()))


def test_values_are_the_neuron_the_most_active_place_or_the_vectors_entry() -> None:
    net, images = network(Reused()), torch.rand(3, 3, 20, 20)
    maps = net.record(images, ["conv3"])["conv3"]
    assert torch.equal(Unit("conv3", 2, (1, 5)).values(maps), maps[:, 2, 1, 5])
    assert torch.equal(Unit("conv3", 2).values(maps), maps[:, 2].amax((1, 2)))
    logits = net.record(images, ["head"])["head"]
    assert torch.equal(Unit("head", 4).values(logits), logits[:, 4])


def test_a_position_outside_of_a_smaller_pictures_map_is_an_error_line() -> None:
    net = network(Plain())
    unit = Unit("conv1", 0, (15, 15)).check(net)
    small = net.record(torch.rand(1, 3, 12, 12), ["conv1"])["conv1"]
    with pytest.raises(LayerError, match="map of 10x10 for these images"):
        unit.values(small)


def test_the_error_for_a_layer_with_one_number_per_image() -> None:
    class Sums(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sum(1)

    class Ends(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.sums = Sums()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + self.sums(x)[:, None]

    with pytest.raises(LayerError, match="one number per image"):
        Unit("sums", 0).check(network(Ends()))
