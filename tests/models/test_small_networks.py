"""The small networks of papers: their numbers, any small picture, saved and built again, and weights of unknown size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, WeightsError
from phosphene.models import Labels, Network, Preprocess, load, small
from phosphene.models.saved import KEY, MODEL, Architecture, save_network
from phosphene.models.small import DESIGNS, LARGEST, Small, built, is_small, wanted
from phosphene.models.weights import read_metadata, read_state_dict, save_state_dict

NUMBERS = {"madry_cnn": 3_274_634, "trades_cnn": 312_202, "wong_cnn": 166_406, "preact_resnet18": 11_172_170}
QUICK = ("trades_cnn", "wong_cnn")


def pictures(network: Network, count: int = 2, channels: int = 3) -> Tensor:
    return torch.rand((count, channels, *network.input_size), generator=torch.Generator().manual_seed(0))


def stirred(network: Network) -> Network:
    """As after training: no weight, and no statistic of a batch norm, is what it began as."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, value in network.module.state_dict().items():
            if value.is_floating_point():
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
                if name.endswith("running_var"):
                    value.abs_()
    return network


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(NetworkError) as caught:
        small(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def load_refusal(*args: Any, **options: Any) -> str:
    with pytest.raises(NetworkError) as caught:
        load(*args, device="cpu", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept(module: nn.Module, path: Path) -> Path:
    return save_state_dict(module.state_dict(), path)


# -- what they are ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
def test_as_many_numbers_as_in_the_paper(name: str) -> None:
    network = small(name)
    channels, height, width = DESIGNS[name].usual
    assert count(network) == NUMBERS[name]
    assert (network.channels, network.input_size, network.name) == (channels, (height, width), name)
    assert list(network.labels) == [f"class {number}" for number in range(10)]
    assert not network.module.training and network.logits(pictures(network)).shape == (2, 10)


def test_numbers_for_other_pictures_by_hand() -> None:
    colour = {
        "madry_cnn": (3 * 25 + 1) * 32 + (32 * 25 + 1) * 64 + (64 * 8 * 8 + 1) * 1024 + 1025 * 7,
        "trades_cnn": (27 + 1) * 32 + (288 + 1) * (32 + 64) + (576 + 1) * 64 + (64 * 25 + 1) * 200 + 201 * 207,
        "wong_cnn": (3 * 16 + 1) * 16 + (16 * 16 + 1) * 32 + (32 * 64 + 1) * 100 + 101 * 7,
        "preact_resnet18": NUMBERS["preact_resnet18"] - 3 * 513,
    }
    found = {name: count(built(Small(name, 3, (32, 32)), 7)) for name in DESIGNS}
    assert found == colour


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (32, 32)), (1, (17, 33)), (3, (21, 16))])
def test_any_small_picture(name: str, channels: int, size: tuple[int, int]) -> None:
    network = small(name, channels=channels, classes=3, size=size)
    assert network.channels == channels and network.input_size == size and len(network.labels) == 3
    x = pictures(network, channels=channels)
    with torch.no_grad():
        assert network(x).shape == (2, 3)
        torch.testing.assert_close(network.logits(x), network.module(network.normalise(x)), rtol=1e-4, atol=1e-5)
    assert torch.equal(network.preprocess(x), x)


@pytest.mark.parametrize("name", DESIGNS)
def test_the_smallest_pictures_and_no_smaller(name: str) -> None:
    least = DESIGNS[name].least
    network = small(name, size=least, channels=1)
    assert network.logits(pictures(network)).shape == (2, 10)
    assert f"{least} to {LARGEST}" in refusal(name, size=(40, least - 1))
    assert f"{least} to {LARGEST}" in refusal(name, size=(LARGEST + 1, 40))


def test_madrys_pools_round_up_as_tensorflows_do() -> None:
    module = built(Small("madry_cnn", 1, (5, 30)), 10)
    assert module.get_submodule("fc1").in_features == 64 * 2 * 8


def test_the_shape_of_each_layer_of_preact() -> None:
    network = small("preact_resnet18")
    shapes = {layer.name: layer.shape for layer in network.layers()}
    wanted = {"conv1": (64, 32, 32), "layer1": (64, 32, 32), "layer2": (128, 16, 16), "layer3": (256, 8, 8)}
    wanted |= {"layer4": (512, 4, 4), "pool": (512, 1, 1), "linear": (10,)}
    assert {name: shapes[name] for name in wanted} == wanted
    shortcuts = [name for name in shapes if name.endswith("shortcut")]
    assert shortcuts == ["layer2.0.shortcut", "layer3.0.shortcut", "layer4.0.shortcut"]


def test_preact_against_its_formula() -> None:
    network = stirred(small("preact_resnet18", size=8, classes=4)).double()
    state: Any = network.module.state_dict()
    x = pictures(network).double()

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"]
        return torch.nn.functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)

    def ready(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)

    x = conv(network.normalise(x), "conv1")
    for stage in range(1, 5):
        for block in range(2):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inside = ready(x, f"{name}.bn1")
            kept = conv(inside, f"{name}.shortcut.0", stride) if f"{name}.shortcut.0.weight" in state else x
            x = conv(ready(conv(inside, f"{name}.conv1", stride), f"{name}.bn2"), f"{name}.conv2") + kept
    logits = ready(x, "bn").mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]
    torch.testing.assert_close(network(pictures(network).double()), logits, rtol=1e-9, atol=1e-9)


def test_normalisation_of_the_papers() -> None:
    for name in ("madry_cnn", "trades_cnn", "wong_cnn"):
        x = pictures(network := small(name), channels=1)
        assert torch.equal(network.normalise(x), x)
        assert small(name, channels=3).mean.flatten().tolist() == [0, 0, 0]
    colour = small("preact_resnet18")
    assert colour.mean.flatten().tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    assert colour.std.flatten().tolist() == pytest.approx([0.2471, 0.2435, 0.2616])
    assert small("preact_resnet18", channels=1).mean.flatten().tolist() == [0]
    own = small("wong_cnn", mean=[0.1], std=[0.3])
    assert own.mean.item() == pytest.approx(0.1) and own.std.item() == pytest.approx(0.3)
    assert "takes 1 channel" in refusal("wong_cnn", mean=[0.1] * 3, std=[0.3] * 3)


def test_a_grey_network_is_shown_colour_as_luma() -> None:
    network = stirred(small("trades_cnn"))
    colour = pictures(network)
    grey = (colour * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(network.logits(colour), network.logits(grey))


# -- how they begin ---------------------------------------------------------------------------------------------


def test_the_seed_decides_and_torchs_own_numbers_go_on() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = small("wong_cnn", seed=1), small("wong_cnn", seed=1), small("wong_cnn", seed=2)
    assert torch.equal(torch.rand(3), expected)
    first, same, different = (net.module.state_dict()["0.weight"] for net in (one, again, other))
    assert torch.equal(first, same) and not torch.equal(first, different)


def test_trades_begins_as_its_code_does() -> None:
    network = small("trades_cnn")
    state = network.module.state_dict()
    assert torch.count_nonzero(network.logits(pictures(network))) == 0
    for name, inputs in (("conv2", 32 * 9), ("conv4", 64 * 9)):
        assert state[f"feature_extractor.{name}.weight"].std() == pytest.approx((2 / inputs) ** 0.5, rel=0.03)
        assert torch.count_nonzero(state[f"feature_extractor.{name}.bias"]) == 0


def test_trades_drops_half_of_its_units_while_it_learns() -> None:
    module = stirred(small("trades_cnn")).module.train()
    seen: list[Any] = []
    handle = module.get_submodule("classifier.drop").register_forward_hook(lambda _m, _i, out: seen.append(out))
    module(torch.rand(16, 1, 28, 28))
    handle.remove()
    assert 0.4 < float((seen[0] == 0).float().mean()) < 0.95 and len(seen) == 1
    x = torch.rand(4, 1, 28, 28)
    module.eval()
    assert torch.equal(module(x), module(x))


@pytest.mark.parametrize("name", DESIGNS)
def test_a_step_of_training_reaches_every_number(name: str) -> None:
    module = stirred(small(name, channels=1, size=16, classes=4)).module.train()
    torch.nn.functional.cross_entropy(module(torch.rand(8, 1, 16, 16)), torch.arange(8) % 4).backward()
    dead = [key for key, value in module.named_parameters() if value.grad is None or not value.grad.abs().sum() > 0]
    assert not dead


# -- names ------------------------------------------------------------------------------------------------------


def test_names_with_channels_and_size() -> None:
    which = wanted("wong_cnn:3x20x24")
    assert which == Small("wong_cnn", 3, (20, 24)) and str(which) == "wong_cnn:3x20x24"
    assert wanted("wong_cnn:3x20x24", 3, (20, 24)) == which
    assert wanted("trades_cnn", size=32) == Small("trades_cnn", 1, (32, 32))
    assert small("wong_cnn:3x20x24").input_size == (20, 24)
    assert is_small("wong_cnn") and is_small("wong_cnn:what") and not is_small("resnet18")


def test_names_that_are_wrong_are_one_clear_line() -> None:
    assert "did you mean trades_cnn" in refusal("trades_cn")
    assert "there are madry_cnn, trades_cnn, wong_cnn, preact_resnet18" in refusal("qqqqqqq")
    assert "write wong_cnn:CHANNELSxHEIGHTxWIDTH" in refusal("wong_cnn:3x32")
    assert "leave other ones out" in refusal("wong_cnn:3x32x32", channels=1)
    assert "leave other ones out" in refusal("wong_cnn:3x32x32", size=28)
    assert "1 (grey) or 3 (colour)" in refusal("wong_cnn", channels=4)
    assert "at least two classes" in refusal("wong_cnn", classes=1)


def test_untrained_ones_are_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*DESIGNS, "wong_cnn:3x32x32"):
        message = load_refusal(name)
        assert f"'{name}' comes untrained" in message and f"phosphene harden DATA --net {name}" in message
        assert "--weights FILE" in message
    assert "did you mean trades_cnn" in load_refusal("trades_cn")
    kept(stirred(small("wong_cnn")).module, tmp_path / "wong_cnn.safetensors")
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path))
    assert load("wong_cnn", device="cpu").input_size == (28, 28)


# -- saved and built again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("channels", "size"), [(1, (28, 28)), (3, (24, 36))])
def test_the_same_logits_from_the_file(name: str, channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    labels = ["zebra", "ant", "owl"]
    network = stirred(small(name, channels=channels, size=size, labels=labels, seed=3))
    file = save_network(network, tmp_path / "run", {"epochs": 2})
    again = load(str(tmp_path / "run"), device="cpu")
    x = pictures(network, 3)
    assert torch.equal(again.logits(x), network.logits(x)) and torch.equal(again(x), network(x))
    assert list(again.labels) == labels and again.preprocess == Preprocess(size, min(size))
    assert torch.equal(again.mean, network.mean) and torch.equal(again.std, network.std)
    assert again.architecture == network.architecture == Architecture(f"{name}:{channels}x{size[0]}x{size[1]}", 3)
    mine, its = network.module.state_dict(), again.module.state_dict()
    assert mine.keys() == its.keys() and all(torch.equal(mine[key], its[key]) for key in mine)
    assert torch.equal(load(str(file), device="cpu").logits(x), again.logits(x))
    save_network(again, tmp_path / "twice")
    assert (tmp_path / "twice" / MODEL).is_file()


def test_a_saved_one_by_its_name_and_file(tmp_path: Path) -> None:
    network = stirred(small("wong_cnn", size=20, labels=["a", "b"], mean=[0.2], std=[0.4]))
    file = save_network(network, tmp_path / "run")
    x = pictures(network)
    for given in (file, file.parent):
        for name in ("wong_cnn", "wong_cnn:1x20x20"):
            again = load(name, given, device="cpu")
            assert torch.equal(again.logits(x), network.logits(x)) and list(again.labels) == ["a", "b"]
    assert "holds a wong_cnn:1x20x20, not a trades_cnn" in load_refusal("trades_cnn", file)
    assert "not a wong_cnn:1x28x28" in load_refusal("wong_cnn:1x28x28", file)
    assert "leave those options out" in load_refusal("wong_cnn", file, labels=["c", "d"])


@pytest.mark.parametrize("net", ["wong_cnn:1x9999x9999", "wong_cnn:7x28x28", "wong_cnn:1x28", "wong_cnn:1x28x28:x"])
def test_a_file_that_asks_for_an_impossible_network(net: str, tmp_path: Path) -> None:
    file = save_network(small("wong_cnn"), tmp_path)
    known = json.loads(read_metadata(file)[KEY])
    known["architecture"]["net"] = net
    save_state_dict(read_state_dict(file), file, {KEY: json.dumps(known)})
    with pytest.raises(WeightsError, match="can't be built here"):
        load(str(tmp_path), device="cpu")


def test_a_small_network_can_be_given_new_classes(tmp_path: Path) -> None:
    from phosphene.models.heads import replaced

    old = stirred(small("wong_cnn"))
    network = Network(
        replaced(old.module, "7", 4).eval(),
        name="new",
        labels=Labels(list("abcd")),
        preprocess=old.preprocess,
        mean=[0.0],
        std=[1.0],
    )
    network.architecture = Architecture("wong_cnn:1x28x28", 10, head="7", width=100)
    save_network(network, tmp_path)
    x = pictures(network)
    assert torch.equal(load(str(tmp_path), device="cpu").logits(x), network.logits(x))


# -- weights that don't say what they are of --------------------------------------------------------------------


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize(("channels", "side", "classes"), [(1, 28, 10), (3, 32, 5)])
def test_channels_classes_and_size_follow_from_weights(
    name: str, channels: int, side: int, classes: int, tmp_path: Path
) -> None:
    network = stirred(small(name, channels=channels, size=side, classes=classes))
    again = load(name, kept(network.module, tmp_path / "w.safetensors"), device="cpu")
    size = (32, 32) if name == "preact_resnet18" else (side, side)
    assert again.channels == channels and again.input_size == size and len(again.labels) == classes
    x = pictures(network)
    assert torch.equal(again.logits(x), network.logits(x))
    save_network(again, tmp_path / "run")
    assert torch.equal(load(str(tmp_path / "run"), device="cpu").logits(x), network.logits(x))


@pytest.mark.parametrize("name", QUICK)
def test_sizes_that_weights_leave_open_are_asked_for(name: str, tmp_path: Path) -> None:
    network = stirred(small(name, size=(30, 46)))
    file = kept(network.module, tmp_path / "w.safetensors")
    assert "does not fit" in load_refusal(name, file)
    x = pictures(network)
    for again in (load(name, file, device="cpu", input_size=(30, 46)), load(f"{name}:1x30x46", file, device="cpu")):
        assert again.input_size == (30, 46) and torch.equal(again.logits(x), network.logits(x))
    square = kept(small(name, size=45).module, tmp_path / "square.safetensors")
    assert load(name, square, device="cpu").input_size == (44, 44)  # the least of those that fit
    assert load(name, square, device="cpu", input_size=45).input_size == (45, 45)


def test_weights_as_their_authors_publish_them(tmp_path: Path) -> None:
    network = stirred(small("trades_cnn"))
    state = {f"module.{key}": value for key, value in network.module.state_dict().items()}
    assert "module.feature_extractor.conv1.weight" in state and "module.classifier.fc3.bias" in state
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pt")
    again = load("trades_cnn", tmp_path / "model.pt", device="cpu", labels=list("0123456789"))
    assert torch.equal(again.logits(x := pictures(network)), network.logits(x)) and again.labels[7] == "7"
    names = set(small("preact_resnet18").module.state_dict())
    assert {"layer2.0.shortcut.0.weight", "layer4.1.bn2.running_var", "bn.weight", "linear.weight"} <= names
    assert list(small("wong_cnn").module.state_dict())[::2] == ["0.weight", "2.weight", "5.weight", "7.weight"]


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = kept(small("wong_cnn").module, tmp_path / "wong.safetensors")
    assert "does not fit" in load_refusal("trades_cnn", file)
    assert "does not fit" in load_refusal("wong_cnn", file, input_size=64)
    assert "does not fit" in load_refusal("wong_cnn:3x28x28", file)
    older = {k: v for k, v in small("preact_resnet18").module.state_dict().items() if not k.startswith("bn.")}
    save_state_dict(older, tmp_path / "older.safetensors")  # that of Wong et al. 2020
    assert "missing bn.weight" in load_refusal("preact_resnet18", tmp_path / "older.safetensors")
    assert "10 classes, but 2 labels" in load_refusal("wong_cnn", file, labels=["a", "b"])
