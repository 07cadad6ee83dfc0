"""The command line in process: `run("explain", ...)` in an empty folder that holds one photograph."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import skimage

from phosphene.cli import main

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture(scope="session")
def cat() -> Path:
    """A photograph."""
    return CAT


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cat: Path) -> Path:
    """An empty folder with cat.png, to work in; no weights but the bundled ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / ".nothing"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / ".nothing"))
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    shutil.copyfile(cat, tmp_path / "cat.png")
    return tmp_path


@pytest.fixture
def run(here: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_it(*words: str | Path) -> Said:
        capsys.readouterr()
        code = 0
        try:
            main([str(word) for word in words])
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    return run_it


NETS = """
import torch
from torch import nn

def net(activation, channels=3, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), activation(), nn.Conv2d(8, 16, 3, stride=2), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    )

def small():
    return net(nn.ReLU)

def grey():
    return net(nn.ReLU, channels=1)

def silu():
    return net(nn.SiLU)

def features():
    return net(nn.ReLU)[:4]

def flat():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 16, stride=16), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 14 * 14, 10))

def number():
    return 3
"""


@pytest.fixture
def nets(here: Path) -> Path:
    """nets.py, with small networks of one's own."""
    (here / "nets.py").write_text(NETS)
    return here / "nets.py"
