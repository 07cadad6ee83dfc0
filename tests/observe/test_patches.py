"""Patches against brute force over all places of all images."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import ImageError, LayerError, PhospheneError
from phosphene.images import files, read
from phosphene.models import Labels, Network, Preprocess
from phosphene.observe.patches import Patch, Patches, patches
from phosphene.observe.receptive_field import receptive_fields
from phosphene.progress import Event, Started, Step, run

SIZE = (16, 20)


def network(*extra: nn.Module) -> Network:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3), *extra, nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    return Network(module, name="net", labels=Labels.generic(4), preprocess=Preprocess(SIZE, 16)).double()


def seek(net: Network, pictures: Any, layer: str, channels: Sequence[int], count: int = 9) -> Patches:
    return run(patches(net, pictures, layer, channels, count=count))


def brute(net: Network, pictures: Sequence[Tensor], layer: str, channel: int, count: int) -> list[Patch]:
    """Every place of every image, by the module itself; equal values in the order of images and of reading."""
    best, least = [], float("inf")
    fields = receptive_fields(net, layer)[channel]
    kept: list[Tensor] = []
    handle = net.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.clone()))
    for number, image in enumerate(pictures):
        with torch.no_grad():
            net(image[None].to(net.mean))
        values = kept.pop()[0, channel]
        least = min(least, float(values.min()))
        if values.ndim == 0:
            best.append((-float(values), number, None))
            continue
        places = [(y, x) for y in range(values.shape[0]) for x in range(values.shape[1])]
        best.append(min((-float(values[place]), number, place) for place in places))
    handle.remove()
    return [
        Patch(number, place, -value, tuple((fields if place is None else fields[place]).tolist()))
        for value, number, place in sorted(best, key=lambda row: row[:2])[:count]
        if -value > least
    ]


def agree(found: Sequence[Patch], wanted: Sequence[Patch]) -> bool:
    """Also in their values, but for float32."""
    plain = [[(p.image, p.position, p.box) for p in row] for row in (found, wanted)]
    return plain[0] == plain[1] and [p.value for p in found] == pytest.approx([p.value for p in wanted], abs=1e-5)


class Noise:
    """Generated when they are asked for; `asked` says in which order."""

    def __init__(self, count: int, broken: Sequence[int] = ()) -> None:
        self.count, self.broken = count, broken
        self.asked: list[int] = []
        self.made: list[weakref.ref[Tensor]] = []
        self.alive = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Tensor:
        self.asked.append(place)
        if place in self.broken:
            raise ImageError(f"picture {place} is broken")
        image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(place))
        self.made = [ref for ref in self.made if ref() is not None] + [weakref.ref(image)]
        self.alive = max(self.alive, len(self.made))
        return image


# -- against brute force ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["0", "1", "2", "5"])
@pytest.mark.parametrize("count", [1, 4, 30])
def test_patches_are_the_best_place_of_the_best_images(layer: str, count: int) -> None:
    net, pictures = network(), list(torch.rand(19, 3, *SIZE))
    channels = [3, 0, 2]
    found = seek(net, pictures, layer, channels, count)
    assert found.layer == layer and list(found.found) == channels and not found.skipped
    for channel in channels:
        assert agree(found.found[channel], brute(net, pictures, layer, channel, count))
        values = [patch.value for patch in found.found[channel]]
        assert values == sorted(values, reverse=True)
        images = [patch.image for patch in found.found[channel]]
        assert len(images) == len(set(images)) and len(images) <= min(count, 19)


def test_boxes_are_the_receptive_fields_of_these_neurons() -> None:
    net, pictures = network(), list(torch.rand(12, 3, *SIZE))
    fields = receptive_fields(net, "2")
    for channel, found in seek(net, pictures, "2", range(5)).found.items():
        for patch in found:
            assert patch.position is not None
            row, column = patch.position
            assert patch.box == tuple(fields[channel, row, column].tolist())
            top, left = max(0, 2 * row - 1), max(0, 2 * column - 1)  # 3 after a 3 of stride 2: 7 pixels
            assert patch.box == (top, left, min(SIZE[0], 2 * row + 6), min(SIZE[1], 2 * column + 6))


def test_what_lies_in_the_box_is_all_that_the_neuron_sees() -> None:
    net, pictures = network(), list(torch.rand(6, 3, *SIZE))
    for patch in seek(net, pictures, "2", [1]).found[1]:
        top, left, bottom, right = patch.box
        alone = torch.zeros(1, 3, *SIZE)
        alone[0, :, top:bottom, left:right] = pictures[patch.image][:, top:bottom, left:right]
        assert patch.position is not None
        seen = net.record(alone.double(), ["2"])["2"][(0, 1, *patch.position)]
        assert float(seen) == pytest.approx(patch.value, abs=1e-6)


def test_of_equal_values_the_first_image_and_the_first_place_win() -> None:
    net = network()
    net.mean.zero_()
    net.std.fill_(1)
    for parameter in net.module.parameters():
        parameter.data.mul_(32).round_().div_(32)  # sums of these are exact
    pictures = [torch.full((3, *SIZE), level) for level in (0.5, 0.25, 0.5, 0.25, 0.5)]
    for channel, found in seek(net, pictures, "0", range(6), 3).found.items():
        images = [patch.image for patch in found]
        assert images in ([0, 2, 4], [1, 3, 0])
        assert agree(found, brute(net, pictures, "0", channel, 3))
    many = [pictures[0]] * 20  # more than one batch
    assert [patch.image for patch in seek(net, many, "0", [0], 4).found[0]] == [0, 1, 2, 3]


def test_the_order_of_the_images_changes_their_numbers_alone() -> None:
    net, pictures = network(), list(torch.rand(21, 3, *SIZE))
    there, back = (seek(net, row, "2", [2], 5).found[2] for row in (pictures, pictures[::-1]))
    for one, other in zip(there, back, strict=True):
        assert (one.position, one.box) == (other.position, other.box)
        assert (one.image, one.value) == (20 - other.image, pytest.approx(other.value))


def test_a_channel_that_is_asked_for_twice_is_found_once() -> None:
    net, pictures = network(), list(torch.rand(3, 3, *SIZE))
    assert list(seek(net, pictures, "0", [4, 1, 4, 1]).found) == [4, 1]


@pytest.mark.parametrize("name", ["1", "1#1", "1#2"])
def test_a_layer_that_runs_twice_is_read_at_the_call_that_is_asked_for(name: str) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("0", nn.Conv2d(3, 4, 3))
            self.add_module("1", nn.Conv2d(4, 4, 3))

        def forward(self, x: Tensor) -> Tensor:
            first, again = self.get_submodule("0"), self.get_submodule("1")
            return again(again(first(x))).mean((2, 3))

    net = Network(Twice(), name="twice", labels=Labels.generic(4), preprocess=Preprocess(SIZE, 16)).double()
    pictures = list(torch.rand(5, 3, *SIZE))
    maps = net.record(torch.stack(pictures).double(), [name])[name][:, 2]
    assert maps.shape[1:] == ((12, 16) if name == "1#1" else (10, 14))[: maps.ndim - 1]
    for patch in seek(net, pictures, name, [2]).found[2]:
        assert patch.value == pytest.approx(float(maps[patch.image].max()), abs=1e-5)
        side = 5 if name == "1#1" else 7
        assert (patch.box[2] - patch.box[0], patch.box[3] - patch.box[1]) == (side, side)


# -- units without a place, and silent ones -----------------------------------------------------------------------------


def test_units_of_a_vector_have_no_position_and_see_the_whole_picture() -> None:
    net, pictures = network(), list(torch.rand(11, 3, *SIZE))
    for layer, channels in (("4", range(5)), ("5", range(4))):
        for channel, found in seek(net, pictures, layer, channels, 3).found.items():
            assert len(found) == 3 and all(patch.position is None for patch in found)
            assert agree(found, brute(net, pictures, layer, channel, 3))
            assert all(patch.box == (0, 0, *SIZE) for patch in found)


def test_a_silent_unit_has_no_patches_and_one_that_speaks_once_has_one() -> None:
    net = network()
    first: Any = net.module.get_submodule("0")
    with torch.no_grad():
        first.bias[0], first.weight[0] = -1, 0  # silent
        first.bias[1], first.weight[1] = 2, 0  # the same everywhere
        first.weight[2] = 0
        first.weight[2, 2, 1, 1] = 1  # the blue of a pixel, above a half
        first.bias[2] = -float(net.normalise(torch.full((1, 3, 1, 1), 0.5))[0, 2])
    pictures = [torch.full((3, *SIZE), 0.1) for _ in range(10)]
    pictures[7][2, 6, 8] = 1
    found = seek(net, pictures, "1", [0, 1, 2]).found
    assert found[0] == found[1] == ()
    assert [(patch.image, patch.position) for patch in found[2]] == [(7, (3, 4))]
    assert found[2][0].box == (5, 7, 8, 10)


# -- many images, and bad ones --------------------------------------------------------------------------------------------


def test_of_300_images_one_batch_is_held_at_a_time_and_each_is_read_once() -> None:
    net, pictures = network(), Noise(300)
    together = net.batch_size(SIZE)
    events: list[Event] = []
    gc.collect()
    found = run(patches(net, pictures, "2", [0, 4], count=5), events.append)
    assert pictures.asked == list(range(300))
    assert pictures.alive <= 2 * together < 300
    assert events[0] == Started("patches", 300, "image")
    assert [event.done for event in events if isinstance(event, Step)] == [*range(together, 300, together), 300]
    every = [Noise(300)[place] for place in range(300)]
    assert all(agree(found.found[channel], brute(net, every, "2", channel, 5)) for channel in (0, 4))


def test_images_are_read_as_the_job_goes_on_and_not_before() -> None:
    net, pictures = network(), Noise(40)
    job = patches(net, pictures, "2", [0])
    assert not pictures.asked
    next(job)
    assert not pictures.asked
    next(job)
    assert pictures.asked == list(range(net.batch_size(SIZE)))
    job.close()
    assert len(pictures.asked) == net.batch_size(SIZE)


@pytest.mark.parametrize("broken", [[0], [3, 4, 18], list(range(8)), list(range(18))])
def test_images_that_cannot_be_read_are_skipped_with_their_reason(broken: list[int]) -> None:
    net, pictures = network(), Noise(19, broken)
    found = seek(net, pictures, "2", [1], 30)
    assert found.skipped == {place: f"picture {place} is broken" for place in broken}
    whole = brute(net, [Noise(19)[place] for place in range(19)], "2", 1, 30)
    assert agree(found.found[1], [patch for patch in whole if patch.image not in broken])


def test_a_folder_that_cannot_be_read_at_all_is_an_error_line() -> None:
    with pytest.raises(PhospheneError, match="none of the 3 images can be read: picture 0 is broken"):
        seek(network(), Noise(3, [0, 1, 2]), "2", [1])
    with pytest.raises(PhospheneError, match="none of the 0 images can be read: no images"):
        seek(network(), [], "2", [1])


def test_other_errors_of_a_collection_are_not_swallowed() -> None:
    class Wrong(Noise):
        def __getitem__(self, place: int) -> Tensor:
            raise KeyError(place)

    with pytest.raises(KeyError):
        seek(network(), Wrong(3), "2", [1])


@pytest.mark.parametrize(
    ("layer", "channels", "count", "error", "message"),
    [
        ("2", [1], 0, PhospheneError, "1 units, 0 patches each: give at least one of each"),
        ("2", [], 3, PhospheneError, "0 units, 3 patches each"),
        ("2", [0, 5], 3, LayerError, "layer '2' has units 0 to 4: there is no unit 5"),
        ("2", [-1], 3, LayerError, "there is no unit -1"), ("9", [0], 3, LayerError, "net has no layer '9'"),
        ("3", [0], 3, LayerError, "layer '3' gives neither maps nor a vector: its units have no place in the image"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_an_error_line_before_an_image_is_read(
    layer: str, channels: list[int], count: int, error: type[Exception], message: str
) -> None:
    net = network(nn.Flatten(2), nn.Unflatten(2, (6, 8)))
    pictures = Noise(3)
    with pytest.raises(error, match=message):
        seek(net, pictures, layer, channels, count)
    assert not pictures.asked


# -- photographs --------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_patches_of_photographs_are_those_of_a_recording_of_all_of_them(squeezenet: Network, shared: Path) -> None:
    paths = files.find(shared / "data" / "imagenet_samples")[::12][:40]
    whole = torch.cat([squeezenet.preprocess(read(path)) for path in paths])

    for layer, channels in (("features.7", [3, 90, 200]), ("classifier.1", [281, 7])):
        found = seek(squeezenet, list(whole), layer, channels, 6)
        maps, fields = squeezenet.record(whole, [layer])[layer], receptive_fields(squeezenet, layer)
        for channel in channels:
            peaks = maps[:, channel].flatten(1).max(1).values
            wanted = peaks.argsort(descending=True)[:6].tolist()
            assert [patch.image for patch in found.found[channel]] == wanted
            for patch in found.found[channel]:
                assert patch.position is not None
                assert patch.value == pytest.approx(float(peaks[patch.image]), rel=1e-5)
                assert float(maps[(patch.image, channel, *patch.position)]) == pytest.approx(patch.value, rel=1e-5)
                assert patch.box == tuple(fields[(channel, *patch.position)].tolist())
