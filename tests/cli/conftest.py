"""The command line in process: `run("explain", ...)` in an empty folder that holds one photograph."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

import phosphene
from phosphene import images
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
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / ".nothing" / "weights"))
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


@pytest.fixture
def photos(here: Path, nets: Path) -> Path:
    """Six pictures of different colours and sizes, one of them in a folder inside, and a file that is none."""
    folder = here / "photos"
    (folder / "more").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for place in range(6):
        pixels = generator.integers(0, 256, (60 + 9 * place, 80, 3)) * (0.2 + 0.16 * place)
        name = f"photo{place}.png" if place else "more/photo1.png"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize((240, 200)).save(folder / name)
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture
def two_classes(photos: Path) -> None:
    """The small network sees one class in everything: `bright` has two, for the half of the photos with more features."""
    network = phosphene.load("nets.py:small", device="cpu")
    every = [network.preprocess(images.read(path)) for path in sorted(photos.rglob("*.png"))]
    sums = torch.cat([network.record(photo, ["5"])["5"].sum(1) for photo in every])
    with open("nets.py", "a", encoding="utf-8") as file:
        file.write(
            "\ndef bright():\n    module = small()\n    with torch.no_grad():\n        module[6].bias.fill_(-99)\n"
            "        module[6].bias[0] = 0\n        module[6].weight.zero_()\n        module[6].weight[0] = 1\n"
            f"        module[6].bias[1] = {float(sums.median()) + 1e-4}\n    return module\n"
        )


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a shell tells what it starts in the background to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
