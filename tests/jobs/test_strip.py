"""The film strip through a network, and the layers of the whole way."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage
import torch
from torch import nn

from phosphene import observe
from phosphene.errors import LayerError
from phosphene.images.text import block
from phosphene.jobs import job
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.strip import _NAME, CHANNELS, Frame, strip
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network, load
from phosphene.progress import run

CAT = str(Path(skimage.__file__).parent / "data" / "chelsea.png")
FILM = torch.tensor([30, 29, 33]).view(3, 1, 1) / 255


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop("cpu")


def made(workshop: Workshop, **options: object) -> Outcome:
    return run(job("activations", workshop, {"image": CAT, "net": "squeezenet1_1", **options}))


def frames(count: int, *, tiles: int = CHANNELS, name: str = "conv") -> list[Frame]:
    return [Frame(name, "8 maps\n9 x 9", torch.rand(tiles, 3, 9, 9)) for _ in range(count)]


def test_the_strip_comes_last_and_changes_nothing_else(workshop: Workshop) -> None:
    outcome = made(workshop)
    layers = [row["layer"] for row in outcome.facts["layers"]]
    assert [picture.name for picture in outcome.pictures] == ["activations", *layers, "strip"]
    picture = outcome.picture("strip")
    assert picture.image.shape[0] == 3 and picture.image.shape[2] > 700
    assert picture.image.min() >= 0 and picture.image.max() <= 1
    assert "squeezenet1_1" in picture.alt and f"{len(layers)} layers" in picture.alt
    assert torch.equal(picture.image, made(workshop).picture("strip").image)


def test_all_layers(workshop: Workshop, squeezenet: Network) -> None:
    outcome = made(workshop, layers=["all"])
    assert [row["layer"] for row in outcome.facts["layers"]] == observe.journey(squeezenet)
    assert outcome.picture("strip").image.shape[2] > made(workshop).picture("strip").image.shape[2]


def test_a_column_for_each_layer_with_its_tiles_in_order() -> None:
    ramp = torch.linspace(0.2, 0.9, 4)[:, None, None, None].expand(-1, 3, 5, 5)
    shown = [Frame("a", "4 maps", ramp), Frame("b", "4 maps", ramp.flip(0))]
    picture = strip(torch.zeros(3, 30, 30), shown)
    for wanted in ramp[:, 0, 0, 0].tolist():
        where = (picture - wanted).abs().amax(0) < 0.003
        assert int(where.sum()) >= 2 * 104 * 104  # a tile in each column
    first = [(picture[0, :, column] - 0.2).abs() < 0.003 for column in range(picture.shape[2])]
    rows = [int(line.nonzero()[0, 0]) for line in first if int(line.sum()) >= 100]
    assert rows[0] < rows[-1]  # the darkest is uppermost in the first column and lowest in the second


@pytest.mark.parametrize("count", [1, 5, 12, 24])
def test_its_size_follows_from_what_is_in_it(count: int) -> None:
    plain = strip(torch.rand(3, 60, 80), frames(count))
    barred = strip(torch.rand(3, 60, 80), frames(count), [("a cat", 0.9), ("a dog", 0.1)])
    assert barred.shape[2] > plain.shape[2] + 200
    dark = ((plain - FILM).abs().amax(0) < 0.01).any(0).nonzero()
    assert int(dark.max()) < plain.shape[2] - 10  # the film ends before the edge
    assert plain.shape[2] < 2500


@pytest.mark.parametrize("name", ["conv", "features.12.expand3x3_activation", "a" * 60])
@pytest.mark.parametrize("count", [3, 24])
def test_names_are_whole(name: str, count: int) -> None:
    tile = 104 if count == 3 else 76
    assert "".join(block(name, _NAME, tile).lines) == name
    usual, long = strip(torch.rand(3, 60, 60), frames(count)), strip(torch.rand(3, 60, 60), frames(count, name=name))
    assert long.shape[1] >= usual.shape[1] and long.shape[2] == usual.shape[2]
    assert (long[:, :15] > 0.99).all()  # nothing is cut at the upper edge


def test_few_channels_and_long_class_names() -> None:
    classes = [("a very long name of a class of which there is no end " * 3, 0.2)] * 5
    picture = strip(torch.rand(3, 60, 60), frames(2, tiles=1), classes)
    assert (picture[:, -15:] > 0.99).all() and (picture[:, :, -10:] > 0.99).all()


def test_a_photograph_that_is_no_square() -> None:
    for shape in ((3, 100, 400), (3, 400, 100)):
        picture = strip(torch.rand(shape), frames(4))
        assert (picture[:, -15:] > 0.99).all() and (picture[:, :, :15] > 0.99).all()


def test_a_network_without_classes_has_no_bars(workshop: Workshop, tmp_path: Path) -> None:
    body = "nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()"
    head = "nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)"
    code = tmp_path / "nets.py"
    code.write_text(
        "import torch\nfrom torch import nn\n\n"
        f"def body():\n    torch.manual_seed(0)\n    return nn.Sequential({body})\n\n"
        f"def whole():\n    torch.manual_seed(0)\n    return nn.Sequential({body}, {head})\n"
    )
    without, barred = (made(workshop, net=f"{code}:{name}").picture("strip").image for name in ("body", "whole"))
    assert without.shape[2] < barred.shape[2] - 200


# -- the layers of the whole way --------------------------------------------------------------------------------


def test_the_journey_takes_what_a_convolution_ends_in(squeezenet: Network) -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(), nn.Conv2d(4, 4, 3), nn.Sigmoid(),
        nn.Identity(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5),
    )  # fmt: skip
    assert observe.journey(load(module, device="cpu", input_size=32)) == ["2", "3", "6"]
    found = observe.journey(squeezenet)
    assert found[:3] == ["features.1", "features.2", "features.3"] and found[-1] == "classifier.2"
    assert all(len(squeezenet.layer(name).shape) == 3 for name in found)


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "resnet50", "densenet121", "mobilenet_v2", "googlenet"])
def test_the_journey_is_short_and_in_order(name: str) -> None:
    from torchvision import models

    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = load(models.get_model(name, weights=None, **options), device="cpu", input_size=96)
    order = [layer.name for layer in network.layers()]
    found = observe.journey(network)
    assert 6 <= len(found) <= 24 and len(set(found)) == len(found)
    assert [order.index(layer) for layer in found] == sorted(order.index(layer) for layer in found)
    sizes = [network.layer(layer).shape[1] for layer in found]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) >= 3
    assert len(observe.journey(network, 4)) == 4 and observe.journey(network, 1) == found[:1]


def test_no_journey_without_maps() -> None:
    flat = load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), device="cpu", input_size=8)
    with pytest.raises(LayerError, match="no layer with a spatial map"):
        observe.journey(flat)
