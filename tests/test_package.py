from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

import phosphene
from phosphene import device
from phosphene.errors import PhospheneError, did_you_mean, nearest


def test_version() -> None:
    assert phosphene.__version__ == version("phosphene")


def test_importing_it_is_cheap() -> None:
    code = "import sys, phosphene, phosphene.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_its_parts_load_when_used() -> None:
    assert phosphene.load is importlib.import_module("phosphene.models").load
    assert phosphene.PhospheneError is PhospheneError
    for name in dir(phosphene):
        assert getattr(phosphene, name) is not None
    assert {"explain", "images", "load", "Network", "synthesize"} <= set(dir(phosphene))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = phosphene.nothing  # type: ignore[attr-defined]


def test_every_public_name_exists() -> None:
    for name in ("attacks", "explain", "images", "models", "observe", "report", "synthesize"):
        module = importlib.import_module(f"phosphene.{name}")
        assert module.__doc__ and all(hasattr(module, public) for public in module.__all__)


def test_devices() -> None:
    assert device.pick("cpu") == torch.device("cpu")
    given = torch.device("cpu")
    assert device.pick(given) is given
    wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device.pick().type == wanted


@pytest.mark.parametrize("name", ["tpu", "", "cpu:x", "auto:1", "cuda:99"])
def test_devices_that_are_none(name: str) -> None:
    with pytest.raises(PhospheneError, match=r"choose|is no device|CUDA device"):
        device.pick(name)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [("conv", ["conv1", "conv10"]), ("CONV1", ["conv1", "conv10"]), ("fire", []), ("relu_1", ["relu1"]), ("", [])],
)
def test_nearest(wrong: str, found: list[str]) -> None:
    assert nearest(wrong, ["conv10", "conv1", "relu1", "conv1"]) == found


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (["tiger"], "; did you mean tiger?"),
        (["tiger", "tigers"], "; did you mean tiger or tigers?"),
        (["tiger", "tigers", "tiger cat"], "; did you mean tiger, tigers or tiger cat?"),
        (["swan"], ""),
    ],
)
def test_did_you_mean(known: list[str], text: str) -> None:
    assert did_you_mean("tiger", known) == text
