from __future__ import annotations

import hashlib
import os
import pickle
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from phosphene.errors import OutputError, WeightsError
from phosphene.models.weights import digest, fit, match, read_metadata, read_state_dict, save_state_dict


class Runs:
    """What a hostile pickle does: leave a file behind when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


class Small(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.classifier = nn.Linear(4, classes)


def tensors() -> dict[str, torch.Tensor]:
    return {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in Small().state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


# -- reading


@pytest.mark.parametrize("nested", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_are_read_however_they_nest(tmp_path: Path, nested: str | None, zipped: bool):
    state = tensors()
    held = state if nested is None else {nested: OrderedDict(state), "epoch": 3, "note": "x"}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    assert equal(read_state_dict(tmp_path / "w.pth"), state)


def test_safetensors_files_are_read(tmp_path: Path):
    state = tensors()
    assert equal(read_state_dict(save_state_dict(state, tmp_path / "w.safetensors")), state)


def test_the_content_decides_not_the_name(tmp_path: Path):
    state = tensors()
    assert equal(read_state_dict(save_state_dict(state, tmp_path / "w.pth")), state)


def test_only_tensors_come_out(tmp_path: Path):
    weight = nn.Parameter(torch.ones(2))
    torch.save({"weight": weight, "version": 2, "names": ["a"]}, tmp_path / "w.pth")
    state = read_state_dict(tmp_path / "w.pth")
    assert list(state) == ["weight"]
    assert type(state["weight"]) is torch.Tensor
    assert not state["weight"].requires_grad


def test_missing_empty_and_folder_are_told_apart(tmp_path: Path):
    assert refusal(tmp_path / "no.pth").startswith("there is no weights file")
    (tmp_path / "empty.pth").touch()
    assert refusal(tmp_path / "empty.pth").endswith("is empty")
    assert refusal(tmp_path).endswith("is a folder: give the weights file in it")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, protocol: int):
    file, mark = tmp_path / "evil.pth", tmp_path / "ran"
    file.write_bytes(pickle.dumps(Runs(mark), protocol=protocol))
    message = refusal(file)
    assert "is a pickle that would run code" in message
    assert "Phosphene loads only safetensors or torch state dicts (weights_only)" in message
    assert not mark.exists()


def test_a_torch_archive_that_runs_code_is_refused_and_does_not_run(tmp_path: Path):
    torch.save({"state_dict": Runs(tmp_path / "ran")}, tmp_path / "evil.pth")
    assert "is a pickle that would run code (" in refusal(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_model_is_refused_with_what_to_do(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    message = refusal(tmp_path / "model.pth")
    assert "whole pickled model (torch.nn.modules.linear.Linear): save its state_dict()" in message


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused(tmp_path: Path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    assert "is a TorchScript program" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.95])
def test_truncated_files_are_damaged(tmp_path: Path, form: str, kept: float):
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_state_dict(tensors(), file)
    else:
        torch.save(tensors(), file, _use_new_zipfile_serialization=form == "zip")
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    message = refusal(file)
    # A pickle cut within its first opcodes can't be told from a foreign one.
    assert "is damaged or cut short" in message or (form == "legacy" and "is a pickle" in message)


def test_a_damaged_safetensors_header_is_named(tmp_path: Path):
    file = save_state_dict(tensors(), tmp_path / "w.safetensors")
    data = bytearray(file.read_bytes())
    data[10:20] = b"\xff" * 10
    file.write_bytes(data)
    assert "is damaged or cut short" in refusal(file)
    with pytest.raises(WeightsError, match="is damaged or cut short"):
        read_metadata(file)
    file.write_bytes((10**12).to_bytes(8, "little") + data[8:])
    assert "header too large" in refusal(file)


@pytest.mark.parametrize("held", [[1, 2], {"epoch": 3}, {}, torch.ones(3)])
def test_torch_files_without_named_tensors_are_refused(tmp_path: Path, held: Any):
    torch.save(held, tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth")
    assert "holds no tensors" in message or "not tensors by name" in message


def test_other_files_are_refused(tmp_path: Path):
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    assert "is neither a safetensors file nor a torch state dict" in refusal(tmp_path / "photo.jpg")


@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x10" + bytes(7) + b"{"]))
def test_no_bytes_raise_anything_but_weights_error(data: bytes, start: bytes):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "w.pth"
        file.write_bytes(start + data)
        with pytest.raises(WeightsError):
            read_state_dict(file)


# -- matching


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "backbone.", "_orig_mod.", "net.", "network.", "module.model."]
)
def test_wrappers_prefixes_are_stripped(prefix: str):
    state, module = tensors(), Small()
    loaded = fit(module, {prefix + name: tensor for name, tensor in state.items()}, source="w.pth")
    assert equal(module.state_dict(), state)
    assert loaded == list(state)


def test_features_is_added_or_removed():
    net = nn.Sequential(OrderedDict(features=nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))))
    state = {name: torch.randn_like(tensor) for name, tensor in net.state_dict().items()}
    bare = {name.removeprefix("features."): tensor for name, tensor in state.items()}
    fit(net, {f"module.{name}": tensor for name, tensor in bare.items()}, source="w")
    assert equal(dict(net.state_dict()), state)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    fit(inner, state, source="w")
    assert equal(dict(inner.state_dict()), bare)


def test_a_network_whose_own_names_begin_with_a_prefix_is_left_alone():
    net = nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))
    assert match(net, net.state_dict()).fits
    assert match(net, {f"module.{name}": tensor for name, tensor in net.state_dict().items()}).fits


def test_prefixes_that_would_collide_are_kept():
    net = nn.Sequential(OrderedDict(a=nn.Linear(2, 2), net=nn.Sequential(OrderedDict(a=nn.Linear(2, 2)))))
    assert match(net, net.state_dict()).fits


def test_batch_counters_may_be_missing():
    state = {name: t for name, t in tensors().items() if not name.endswith("num_batches_tracked")}
    module = Small()
    fit(module, state, source="w")
    assert torch.equal(module.state_dict()["classifier.weight"], state["classifier.weight"])


def misfit(module: nn.Module, state: dict[str, torch.Tensor]) -> str:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        fit(module, state, source="w.pth")
    assert equal(dict(module.state_dict()), before)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_shape_says_both_shapes():
    state = Small(classes=10).state_dict()
    assert misfit(Small(5), state) == (
        "w.pth does not fit the network: classifier.weight is [10, 4], the network needs [5, 4], "
        "classifier.bias is [10], the network needs [5]"
    )


def test_missing_and_unexpected_tensors_are_named():
    state = tensors()
    state["extra"] = state.pop("classifier.bias")
    assert misfit(Small(), state) == ("w.pth does not fit the network: missing classifier.bias; unexpected extra")


def test_three_of_each_kind_are_listed():
    message = misfit(Small(), {f"layer{index}.weight": torch.ones(2) for index in range(9)})
    assert "missing features.0.weight, features.0.bias, features.1.weight and 5 more" in message
    assert "unexpected layer0.weight, layer1.weight, layer2.weight and 6 more" in message


def test_match_tells_a_headless_file():
    state = {name: t for name, t in tensors().items() if name.startswith("features.")}
    found = match(Small(), state)
    assert found.missing == ["classifier.weight", "classifier.bias"]
    assert not found.unexpected
    assert not found.mismatched
    assert not found.fits
    assert found.mapped.keys() == state.keys()


def test_half_precision_is_taken_into_the_network_s_precision():
    module, state = Small(), {name: t.half() if t.is_floating_point() else t for name, t in tensors().items()}
    fit(module, state, source="w")
    assert module.classifier.weight.dtype == torch.float32
    assert torch.equal(module.classifier.weight.half(), state["classifier.weight"])


# -- saving and hashing


def test_what_is_saved_is_read_back_with_its_metadata(tmp_path: Path):
    state = {
        "a": torch.randn(3, 4).t(),
        "scalar": torch.tensor(2),
        "bf16": torch.ones(2, dtype=torch.bfloat16),
    }
    file = save_state_dict(state, tmp_path / "deep" / "er" / "w.safetensors", {"licence": "MIT"})
    assert equal(read_state_dict(file), state)
    assert read_metadata(file) == {"licence": "MIT"}
    assert [path.name for path in file.parent.iterdir()] == ["w.safetensors"]


def test_a_saved_file_has_the_permissions_of_any_other(tmp_path: Path):
    (tmp_path / "other").touch()
    file = save_state_dict(tensors(), tmp_path / "w.safetensors")
    assert file.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_tensors_that_share_memory_are_saved_apart(tmp_path: Path):
    whole = torch.arange(6.0)
    file = save_state_dict({"a": whole, "b": whole, "c": whole[2:4]}, tmp_path / "w.safetensors")
    assert equal(read_state_dict(file), {"a": whole, "b": whole, "c": torch.tensor([2.0, 3.0])})


def test_metadata_is_empty_where_there_is_none(tmp_path: Path):
    assert read_metadata(save_state_dict(tensors(), tmp_path / "w.safetensors")) == {}
    torch.save(tensors(), tmp_path / "w.pth")
    assert read_metadata(tmp_path / "w.pth") == {}
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_metadata(tmp_path / "no")


def test_a_failed_save_leaves_nothing_and_says_why(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"can't write weights to .*w\.safetensors: "):
        save_state_dict(tensors(), tmp_path / "file" / "w.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="can't write weights to"):
        save_state_dict(tensors(), tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_interrupted_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = tensors()
    file = save_state_dict(state, tmp_path / "w.safetensors")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_state_dict(tensors(), file)
    assert equal(read_state_dict(file), state)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_digest_depends_on_tensors_only(tmp_path: Path):
    state = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(True), "none": torch.zeros(0, 3)}
    known = digest(state)
    written = b"a\0torch.bool\0[]\0\x01" + b"b\0torch.float32\0[2, 3]\0" + struct.pack("<6f", *range(6))
    assert known == hashlib.sha256(written + b"none\0torch.float32\0[0, 3]\0").hexdigest()
    assert known == digest(dict(reversed(state.items())))
    assert known == digest(state | {"b": torch.arange(6.0).reshape(3, 2).reshape(2, 3).t().contiguous().t()})
    assert known == digest(save_state_dict(state, tmp_path / "w.safetensors", {"note": "x"}))
    torch.save(state, tmp_path / "w.pth")
    assert known == digest(tmp_path / "w.pth") == digest(str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    "changed",
    [
        {"b": torch.arange(6.0)},
        {"b": torch.arange(6.0).reshape(2, 3).double()},
        {"b": torch.arange(1.0, 7.0).reshape(2, 3)},
        {"c": torch.arange(6.0).reshape(2, 3)},
    ],
)
def test_the_digest_sees_every_change(changed: dict[str, torch.Tensor]):
    assert digest(changed) != digest({"b": torch.arange(6.0).reshape(2, 3)})
