"""Networks that were trained here: written, found and built again to the last bit, and files that are something else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from phosphene.errors import NetworkError, OutputError, WeightsError
from phosphene.models import Labels, Network, Preprocess, load
from phosphene.models.saved import FORMAT, KEY, MODEL, Architecture, read_saved, save_network, saved_file
from phosphene.models.weights import read_metadata, read_state_dict, save_state_dict
from phosphene.training.features import width
from phosphene.training.probe import with_classes
from phosphene.training.stages import stages

CODE = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.BatchNorm2d(6), nn.ReLU())
        self.top = nn.Sequential(nn.Conv2d(6, 9, 3, stride=4), nn.ReLU())
        self.fc = nn.Linear(9, 4)

    def forward(self, x):
        return self.fc(self.top(self.body(x)).mean((2, 3)))

def make():
    return Own()
"""


def headed(network: Network, classes: Sequence[str], stage: str | None = None) -> Network:
    stage = stage or stages(network)[-1]
    with torch.random.fork_rng():
        torch.manual_seed(len(classes))
        return with_classes(network, classes, stage, width(network, stage))


def shaken(network: Network) -> Network:
    """Weights and statistics that are not those of the network that it was made of."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.module.state_dict().values():
            if value.is_floating_point():
                value.mul_(1 + 0.05 * torch.rand(value.shape, generator=generator))
    return network


def pictures(network: Network, count: int = 2) -> Tensor:
    return torch.rand((count, 3, *network.input_size), generator=torch.Generator().manual_seed(0))


def loaded(net: str | Path, **options: Any) -> Network:
    """The network of a run; one that was made by a file of code needs that to be named."""
    known: Any = {}
    with suppress(WeightsError, KeyError, TypeError, ValueError):
        known = json.loads(read_metadata(saved_file(str(net)) or "")[KEY])["architecture"]["net"]
    if ".py:" in known and "weights" not in options:
        return load(known, net, device="cpu", **options)
    return load(str(net), device="cpu", **options)


def same_again(network: Network, net: str | Path) -> Network:
    again = loaded(net)
    x = pictures(network)
    assert torch.equal(network.logits(x), again.logits(x))
    assert list(again.labels) == list(network.labels) and again.preprocess == network.preprocess
    assert torch.equal(again.mean, network.mean) and torch.equal(again.std, network.std)
    mine, its = network.module.state_dict(), again.module.state_dict()
    assert mine.keys() == its.keys() and all(torch.equal(mine[name], its[name]) for name in mine)
    assert again.architecture == network.architecture and not again.module.training
    return again


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "code" / "own.py"
    file.parent.mkdir()
    file.write_text(CODE)
    return f"{file}:make"


# -- to the last bit --------------------------------------------------------------------------------------------


def test_a_replaced_layer(efficientnet: Network, tmp_path: Path) -> None:
    new = shaken(headed(efficientnet, ["cat", "dog", "hen"]))
    file = save_network(new, tmp_path / "run", {"epochs": 3})
    assert file == tmp_path / "run" / MODEL and [path.name for path in file.parent.iterdir()] == [MODEL]
    again = same_again(new, tmp_path / "run")
    assert again.name == str(tmp_path / "run") and load(str(file), device="cpu", name="mine").name == "mine"
    known = read_saved(file)
    assert known["about"] == {"epochs": 3} and known["classes"] == ["cat", "dog", "hen"]
    assert known["architecture"] == Architecture("efficientnet_lite0", 1000, head="classifier", width=1280)


@pytest.mark.parametrize("stage", ["features.12", "features.3"])
def test_a_cut_network(squeezenet: Network, tmp_path: Path, stage: str) -> None:
    new = shaken(headed(squeezenet, ["cat", "dog"], stage))
    save_network(new, tmp_path)
    again = same_again(new, tmp_path)
    assert again.architecture is not None and again.architecture.cut == stage and again.architecture.head == ""


def test_a_network_cut_at_an_early_stage_of_another(efficientnet: Network, tmp_path: Path) -> None:
    new = shaken(headed(efficientnet, ["cat", "dog"], stages(efficientnet)[1]))
    save_network(new, tmp_path)
    same_again(new, tmp_path)


def test_a_network_of_a_file(own: str, tmp_path: Path) -> None:
    network = load(own, device="cpu")
    for place, stage in enumerate((None, "body.2")):
        new = shaken(headed(network, ["a", "b", "c"], stage))
        save_network(new, tmp_path / str(place))
        same_again(new, tmp_path / str(place))


def test_a_network_with_its_own_size_and_normalisation(own: str, tmp_path: Path) -> None:
    network = load(
        own, device="cpu", input_size=(64, 80), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), labels=list("abcd")
    )
    new = headed(network, ["x", "y"])
    save_network(new, tmp_path / "run")
    again = same_again(new, tmp_path / "run")
    assert again.input_size == (64, 80) and again.std.flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])


def test_a_torchvision_network(tmp_path: Path) -> None:
    from torchvision import models

    module = models.resnet18(weights=None, num_classes=6)
    save_state_dict(module.state_dict(), tmp_path / "resnet18.safetensors")
    network = load("resnet18", tmp_path / "resnet18.safetensors", device="cpu", input_size=64)
    new = shaken(headed(network, ["x", "y"]))
    save_network(new, tmp_path / "run")
    assert same_again(new, tmp_path / "run").architecture == Architecture("resnet18", 6, head="fc", width=512)


WAYS: dict[str, tuple[str | None, str | None]] = {
    "replaced, replaced": (None, None), "cut, cut": ("body.2", "body.2"), "cut, last": ("body.2", None),
    "replaced, cut": (None, "body.2"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_new_heads_twice(own: str, tmp_path: Path, way: str) -> None:
    first, second = WAYS[way]
    one = shaken(headed(load(own, device="cpu"), ["a", "b", "c"], first))
    save_network(one, tmp_path / "one")
    two = shaken(headed(same_again(one, tmp_path / "one"), ["x", "y"], second))
    assert list(two.labels) == ["x", "y"] and two.logits(pictures(two)).shape == (2, 2)
    save_network(two, tmp_path / "two")
    same_again(two, tmp_path / "two")
    save_network(loaded(tmp_path / "two"), tmp_path / "three")
    same_again(two, tmp_path / "three")


def test_a_squeezenet_with_new_heads_twice(squeezenet: Network, tmp_path: Path) -> None:
    one = headed(squeezenet, ["a", "b", "c"])
    two = shaken(headed(one, ["x", "y"]))
    save_network(two, tmp_path)
    again = same_again(two, tmp_path)
    three = headed(again, ["p", "q", "r", "s"], "features.5")
    save_network(three, tmp_path / "early")
    same_again(three, tmp_path / "early")


def test_a_network_without_its_classifier(tmp_path: Path) -> None:
    from torchvision import models

    state = {n: v for n, v in models.resnet18(weights=None).state_dict().items() if not n.startswith("fc.")}
    save_state_dict(state, tmp_path / "resnet18.safetensors")
    network = load("resnet18", tmp_path / "resnet18.safetensors", device="cpu", input_size=64)
    assert not network.classifies
    new = headed(network, ["x", "y"])
    save_network(new, tmp_path / "run")
    same_again(new, tmp_path / "run")


def test_the_convolutions_of_a_vgg(tmp_path: Path) -> None:
    from torchvision import models

    state = {n: v for n, v in models.vgg11(weights=None).state_dict().items() if n.startswith("features.")}
    save_state_dict(state, tmp_path / "vgg11.safetensors")
    network = load("vgg11", tmp_path / "vgg11.safetensors", device="cpu", input_size=64)
    new = shaken(headed(network, ["x", "y"]))
    save_network(new, tmp_path / "run")
    again = same_again(new, tmp_path / "run")
    assert again.architecture is not None and again.architecture.features


# -- finding ----------------------------------------------------------------------------------------------------


def test_the_folder_or_the_file(own: str, tmp_path: Path) -> None:
    new = headed(load(own, device="cpu"), ["a", "b"])
    file = save_network(new, tmp_path / "run")
    assert saved_file(str(tmp_path / "run")) == file == saved_file(str(file))
    elsewhere = tmp_path / "renamed.safetensors"
    shutil.copy(file, elsewhere)
    same_again(new, elsewhere)
    assert saved_file(str(tmp_path)) is None and saved_file("squeezenet1_1") is None
    assert saved_file(str(tmp_path / "gone.safetensors")) is None and saved_file(own) is None


def test_it_is_written_whole_or_not_at_all(own: str, tmp_path: Path) -> None:
    new = headed(load(own, device="cpu"), ["a", "b"])
    (tmp_path / "taken").write_text("in the way")
    with pytest.raises(OutputError):
        save_network(new, tmp_path / "taken")
    save_network(new, tmp_path / "run")
    save_network(shaken(new), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [MODEL]
    same_again(new, tmp_path / "run")


def test_there_is_no_pickle_inside(own: str, tmp_path: Path) -> None:
    file = save_network(headed(load(own, device="cpu"), ["a", "é"]), tmp_path / "run")
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    assert list(metadata) == [KEY] and json.loads(metadata[KEY])["classes"] == ["a", "é"]
    assert (
        sum(entry["data_offsets"][1] - entry["data_offsets"][0] for entry in header.values()) == len(data) - 8 - length
    )
    with safe_open(str(file), framework="pt") as opened:
        assert set(opened.keys()) == set(header)


def test_a_file_chooses_no_code(own: str, tmp_path: Path) -> None:
    """A run may come from elsewhere: what it names is run only if the user names it, too."""
    save_network(headed(load(own, device="cpu"), ["a", "b"]), tmp_path / "run")
    Path(own.rpartition(":")[0]).write_text("raise SystemExit('it ran')")
    with pytest.raises(WeightsError, match=r"code would be run: name it yourself, --net FILE\.py:FUNCTION --weights"):
        load(str(tmp_path / "run"), device="cpu")


def test_a_file_fetches_nothing(file: Path) -> None:
    for net in ("timm:hf-hub:some/one", "timm:local-dir:here", "fasterrcnn_resnet50_fpn", "timm:nosuch"):
        changed(file, lambda known, net=net: known["architecture"].update(net=net))
        assert "can't be built here" in refused(file)


# -- refusals ---------------------------------------------------------------------------------------------------


def refused(net: str | Path, kind: type[Exception] = WeightsError, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        loaded(net, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"weights": "a.pth"}, {"labels": ["a", "b"]}, {"input_size": 64}, {"mean": [0.5] * 3}, {"std": [0.5] * 3}],
)
def test_options_of_a_saved_network(own: str, tmp_path: Path, options: dict[str, Any]) -> None:
    save_network(headed(load(own, device="cpu"), ["a", "b"]), tmp_path / "run")
    message = refused(tmp_path / "run", NetworkError, **options)
    assert "has its own weights, classes and preprocessing" in message


def test_a_module_without_a_name_is_not_saved(own: str, tmp_path: Path) -> None:
    network = Network(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), name="mine", labels=Labels.generic(2)
    )
    with pytest.raises(NetworkError, match="mine was made from a module, not by name"):
        save_network(network, tmp_path / "run")
    extractor = Network(nn.Conv2d(3, 2, 1), name="mine", labels=None)
    with pytest.raises(NetworkError, match="mine has no classes"):
        save_network(extractor, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def file(own: str, tmp_path: Path) -> Path:
    return save_network(headed(load(own, device="cpu"), ["a", "b"]), tmp_path / "run", {"x": 1})


def changed(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    known = json.loads(safe_metadata(file)[KEY])
    change(known)
    return save_state_dict(read_state_dict(file), file, {KEY: json.dumps(known)})


def safe_metadata(file: Path) -> dict[str, str]:
    with safe_open(str(file), framework="pt") as opened:
        return dict(opened.metadata())


@pytest.mark.parametrize("count", [0, 5, 200, -10])
def test_a_damaged_file(file: Path, count: int) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:count])
    assert str(file) in refused(file.parent)


def test_a_file_of_another_program(file: Path) -> None:
    save_state_dict(read_state_dict(file), file)
    assert "holds weights, and not what they are of" in refused(file)
    save_state_dict(read_state_dict(file), file, {KEY: "no json {"})
    assert "does not say what network it holds" in refused(file)
    save_state_dict(read_state_dict(file), file, {KEY: "[1, 2]"})
    assert "does not say what network it holds" in refused(file)


def test_a_file_of_another_version(file: Path) -> None:
    changed(file, lambda known: known.update(format=FORMAT + 1))
    assert f"written by another version of Phosphene (format {FORMAT + 1})" in refused(file)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": lambda known: known.pop("format"),
    "no architecture": lambda known: known.pop("architecture"),
    "a field too many": lambda known: known["architecture"].update(depth=3),
    "no classes": lambda known: known.update(classes=[]),
    "too many classes": lambda known: known["classes"].append("c"),
    "another width": lambda known: known["architecture"].update(width=5, cut="body.2", head=""),
    "no size": lambda known: known.pop("size"),
    "no mean": lambda known: known.pop("mean"),
    "a mean of two": lambda known: known.update(mean=[0.5, 0.5]),
    "an unknown layer": lambda known: known["architecture"].update(cut="body.9", head=""),
    "an unknown head": lambda known: known["architecture"].update(head="fc9"),
    "an unknown network": lambda known: known["architecture"].update(net="resnet99"),
}


@pytest.mark.parametrize("way", CHANGES)
def test_a_file_that_says_something_else(file: Path, way: str) -> None:
    changed(file, CHANGES[way])
    assert str(file) in refused(file.parent)


def test_weights_of_another_network(file: Path) -> None:
    state = read_state_dict(file)
    text = safe_metadata(file)
    state.pop("body.0.weight")
    save_state_dict(state, file, text)
    assert "body.0.weight" in refused(file)


def test_the_code_has_gone(file: Path, tmp_path: Path) -> None:
    (tmp_path / "code" / "own.py").unlink()
    assert "there is no file" in refused(file)


def test_preprocessing_comes_back_as_it_was(file: Path) -> None:
    again = loaded(file)
    assert again.preprocess == Preprocess() and isinstance(again.preprocess.size, tuple)
