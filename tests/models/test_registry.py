from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from nets import Plain, close, randomise
from safetensors.torch import save_file
from torch import nn

from phosphene.errors import LabelError, NetworkError, WeightsError
from phosphene.models import Labels, Network, Preprocess, fetch, load
from phosphene.models.status import where
from phosphene.models.weights import save_state_dict
from phosphene.progress import Event, Job, Started, Step

HERE = "cpu"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of weights that is empty, and no other place where any could lie."""
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def refusal(net: str | nn.Module, **options: object) -> str:
    with pytest.raises(NetworkError) as caught:
        load(net, device=HERE, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def trained(name: str, classes: int = 1000) -> nn.Module:
    return randomise(torchvision.models.get_model(name, weights=None, num_classes=classes)).eval()


def saved(module: nn.Module, path: Path, prefix: str = "") -> Path:
    save_file({prefix + name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)
    return path


def same(net: Network, module: nn.Module, size: int = 64) -> bool:
    images = torch.rand(1, 3, size, size)
    with torch.no_grad():
        return close(net.logits(images), module(net.normalise(images)))


# -- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("resnet81", "resnet18"),
        ("efficientnet-lite0", "efficientnet_lite0"),
        ("squeezenet", "squeezenet1_1"),
        ("VGG16", "vgg16"),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(wrong: str, right: str) -> None:
    message = refusal(wrong)
    assert f"unknown network '{wrong}'" in message
    assert right in message.split("did you mean")[1]


def test_a_name_like_no_other_gets_the_bundled_ones() -> None:
    message = refusal("qqqqqqqq")
    assert "bundled are efficientnet_lite0 and squeezenet1_1" in message
    assert "timm:NAME" in message
    assert "FILE.py:FUNCTION" in message


def test_an_unknown_name_of_timm_gets_the_nearest_ones() -> None:
    message = refusal("timm:resnet18x")
    assert "timm has no model 'resnet18x'" in message
    assert "timm:resnet18" in message


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "timm:resnet18"])
def test_weights_that_are_not_here_are_an_error_that_says_where_they_were_looked_for_and_how_to_get_them(
    name: str, folder: Path
) -> None:
    message = refusal(name)
    assert f"the weights of '{name}' are not on this machine" in message
    assert str(folder) in message
    assert f"phosphene models get {name}" in message
    assert "PHOSPHENE_WEIGHTS" in message
    assert "--weights" in message
    assert "efficientnet_lite0, squeezenet1_1" in message
    assert where(name) == "-"


def test_missing_weights_are_fetched_and_the_progress_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = trained("resnet18").state_dict()

    def get(name: str) -> Job[fetch.Fetched]:
        yield Started(f"downloading {name}", 10, "byte")
        yield Step(10)
        path = save_state_dict(state, folder / "resnet18.safetensors")
        return fetch.Fetched(name, path, "here", 10, "", already=False)

    monkeypatch.setenv("PHOSPHENE_OFFLINE", "0")
    monkeypatch.setattr(fetch, "get", get)
    told: list[Event] = []
    net = load("resnet18", device=HERE, listen=told.append)
    assert told == [Started("downloading resnet18", 10, "byte"), Step(10)]
    assert torch.equal(net.module.state_dict()["fc.weight"], state["fc.weight"])


def test_what_was_tried_is_said_when_nothing_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str) -> Job[fetch.Fetched]:
        raise fetch.Unreachable("the moon (no air)", "unused")
        yield Step(0)

    monkeypatch.setenv("PHOSPHENE_OFFLINE", "0")
    monkeypatch.setattr(fetch, "get", get)
    message = refusal("vgg19")
    assert "tried the moon (no air)" in message
    assert "efficientnet_lite0, squeezenet1_1" in message


def test_a_module_of_ones_own_keeps_its_mode() -> None:
    module = Plain(3).train()
    module.get_submodule(next(name for name, _ in module.named_modules() if name)).eval()
    modes = [child.training for child in module.modules()]
    load(module, device=HERE).logits(torch.rand(1, 3, 224, 224))
    assert [child.training for child in module.modules()] == modes


@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet1_1"])
def test_the_bundled_networks_need_no_folder(name: str) -> None:
    net = load(name, device=HERE)
    assert (net.name, net.input_size, len(net.labels)) == (name, (224, 224), 1000)
    assert not any(module.training for module in net.modules())
    assert where(name) == "bundled"


# -- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_weights_in_the_folder_are_found_and_loaded(folder: Path, prefix: str) -> None:
    module = trained("resnet18")
    path = saved(module, folder / "resnet18.safetensors", prefix)
    net = load("resnet18", device=HERE)
    assert same(net, module)
    assert net.labels == Labels.imagenet()
    assert where("resnet18") == str(path)


def test_torch_files_are_loaded_from_the_folder_and_by_path(folder: Path, tmp_path: Path) -> None:
    module = trained("squeezenet1_0")
    torch.save(module.state_dict(), folder / "squeezenet1_0.pth")
    assert same(load("squeezenet1_0", device=HERE), module)
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "mine.pt")
    assert same(load("squeezenet1_0", weights=tmp_path / "mine.pt", device=HERE), module)


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "mobilenet_v3_small",
        "squeezenet1_1",
        "convnext_tiny",
        "googlenet",
        "densenet121",
        "shufflenet_v2_x0_5",
    ],
)
def test_the_number_of_classes_is_taken_from_the_weights(name: str, tmp_path: Path) -> None:
    more = {"init_weights": False, "aux_logits": True, "transform_input": True} if name == "googlenet" else {}
    module = randomise(torchvision.models.get_model(name, weights=None, num_classes=10, **more)).eval()
    net = load(name, weights=saved(module, tmp_path / "ten.safetensors"), device=HERE, input_size=64)
    assert list(net.labels) == [f"class {n}" for n in range(10)]
    assert same(net, module)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "tf_efficientnet_lite0"])
def test_timm_networks_are_loaded_with_their_own_preprocessing(name: str, folder: Path) -> None:
    module = randomise(timm.create_model(name, pretrained=False, num_classes=7)).eval()
    saved(module, folder / f"{name}.safetensors")
    net = load(f"timm:{name}", device=HERE)
    assert len(net.labels) == 7
    assert same(net, module)
    config: Any = module.pretrained_cfg
    assert net.input_size == tuple(config["input_size"][1:])
    assert torch.allclose(net.mean.flatten(), torch.tensor(config["mean"]))
    assert net.preprocess.resize == round(net.input_size[0] / config["crop_pct"])


def test_a_bundled_architecture_takes_other_weights(tmp_path: Path) -> None:
    module = randomise(timm.create_model("tf_efficientnet_lite0", num_classes=4)).eval()
    net = load(
        "efficientnet_lite0", weights=saved(module, tmp_path / "four.safetensors"), device=HERE, labels=list("abcd")
    )
    assert list(net.labels) == ["a", "b", "c", "d"]
    assert same(net, module)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "mark"),)

    torch.save({"conv1.weight": Hostile()}, tmp_path / "evil.pth")
    assert "would run code" in refusal("resnet18", weights=tmp_path / "evil.pth")
    assert not (tmp_path / "mark").exists()


def test_a_whole_pickled_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "whole.pt")
    assert "state_dict()" in refusal("resnet18", weights=tmp_path / "whole.pt")


def test_weights_of_another_network_are_an_error_line(tmp_path: Path) -> None:
    path = saved(trained("squeezenet1_1"), tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="does not fit the network"):
        load("resnet18", weights=path, device=HERE)


def test_a_missing_weights_file_is_an_error_line(tmp_path: Path) -> None:
    assert "there is no weights file" in refusal("resnet18", weights=tmp_path / "none.safetensors")


# -- convolutions only ------------------------------------------------------------------------------------------


@pytest.mark.shared
@pytest.mark.parametrize("by_folder", [True, False])
def test_the_convolutions_of_vgg16_are_a_feature_extractor(
    by_folder: bool, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shared / "weights/vgg16_features.safetensors"
    if by_folder:
        monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(file.parent))
    net = load("vgg16", weights=None if by_folder else file, device=HERE)
    assert not net.classifies
    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(
        NetworkError, match=r"vgg16_features\.safetensors has only the convolutions of vgg16, no classifier"
    ):
        net.predict(images)
    aliases = {"conv1_1": "features.0", "relu4_1": "features.18", "conv5_3": "features.28", "pool5": "features.30"}
    recorded = net.record(images, [*aliases, *aliases.values()])
    for alias, name in aliases.items():
        assert net.layer(alias).name == name
        assert net.layer(alias).alias == alias
        assert torch.equal(recorded[alias], recorded[name])
    assert net.layer("relu4_1").shape == (512, 28, 28)
    assert torch.equal(net.output(images), recorded["pool5"])


@pytest.mark.parametrize(
    ("name", "alias", "own"), [("alexnet", "relu5", "features.11"), ("squeezenet1_0", "fire9", "features.12")]
)
def test_other_networks_of_which_only_the_convolutions_are_here_keep_their_textbook_names(
    name: str, alias: str, own: str, folder: Path
) -> None:
    features = {k: v for k, v in trained(name).state_dict().items() if k.startswith("features.")}
    save_file(features, folder / "part.safetensors")
    net = load(name, weights=folder / "part.safetensors", device=HERE)
    assert not net.classifies
    assert net.layer(alias).name == own
    assert all(layer.alias is None or not layer.name.startswith("classifier") for layer in net.layers())


# -- one's own --------------------------------------------------------------------------------------------------

SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def fails():
    raise RuntimeError("no such\\nluck")

def gives_text():
    return "text"
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "my_own_network.py"
    path.write_text(SOURCE)
    return path


def test_a_function_of_a_file_gives_a_network(source: Path) -> None:
    net = load(f"{source}:build", device=HERE, labels=list("abcdef"), input_size=32)
    assert list(net.labels) == list("abcdef")
    assert net.input_size == (32, 32)
    assert net.logits(torch.rand(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "no function 'nothing'"),
        ("fails", "failed: RuntimeError: no such"),
        ("gives_text", "returned a str"),
    ],
)
def test_a_function_that_gives_no_network_is_an_error_line(source: Path, function: str, message: str) -> None:
    assert message in refusal(f"{source}:{function}")


def test_a_file_that_is_not_there_or_is_no_python_is_an_error_line(tmp_path: Path) -> None:
    assert "there is no file" in refusal(f"{tmp_path}/none.py:build")
    (tmp_path / "broken.py").write_text("def (")
    assert "SyntaxError" in refusal(f"{tmp_path}/broken.py:build")


def test_a_module_is_taken_as_it_is_with_its_own_numbers() -> None:
    module = randomise(Plain(3)).eval()
    net = load(
        module,
        device=HERE,
        labels=["x", "y", "z"],
        input_size=(24, 30),
        mean=(0.1, 0.2, 0.3),
        std=(1, 2, 4),
        name="mine",
    )
    assert net.module is module
    assert (net.name, net.input_size, net.classes(["z"])) == ("mine", (24, 30), [2])
    image = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1) + torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1)
    assert torch.allclose(net.normalise(image), torch.ones(1, 3, 1, 1), atol=1e-6)
    assert isinstance(net.preprocess, Preprocess)
    with pytest.raises(LabelError):
        net.classes(["w"])


def test_weights_are_loaded_into_a_module_of_ones_own(tmp_path: Path) -> None:
    other = randomise(Plain(3), seed=5).eval()
    net = load(Plain(3), weights=saved(other, tmp_path / "w.safetensors", "module."), device=HERE, input_size=24)
    assert same(net, other, 24)


def test_a_network_is_given_back_as_it_is() -> None:
    net = load(Plain(3), device=HERE, input_size=24)
    assert load(net, device=HERE) is net


def test_loading_finds_the_classes_without_touching_statistics_or_flags() -> None:
    module = randomise(Plain(3)).train()
    next(module.parameters()).requires_grad_(False)
    statistics = module.get_buffer("bn1.running_mean")
    was = statistics.clone()
    load(module, device=HERE, input_size=24)
    assert torch.equal(statistics, was)
    assert [p.requires_grad for p in module.parameters()] == [False] + [True] * (len(list(module.parameters())) - 1)
    assert module.get_buffer("bn1.num_batches_tracked") == 0


def test_a_module_that_does_not_fit_the_input_is_an_error_line() -> None:
    message = refusal(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    assert "can't run on an input [1, 3, 224x224]" in message
    assert "give input_size, mean and std" in message
