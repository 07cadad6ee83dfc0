"""`harden` as a user runs it, on tiny pictures of two kinds of stripes."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import phosphene
from phosphene.cli import runs
from phosphene.training.harden.hardening import Hardening

SIDE = 12


def write_idx(folder: Path, part: str, count: int, seed: int) -> None:
    """Stripes that lie (0) or stand (1), in MNIST's files."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.uint8) % 2
    waves = np.sin(np.arange(SIDE) * 1.3 + random.uniform(0, 6, (count, 1))) * 110 + 128
    rows = np.repeat(waves[:, :, None], SIDE, 2)
    pictures = np.where(labels[:, None, None] == 0, rows, rows.transpose(0, 2, 1))
    pictures = (pictures + random.normal(0, 8, pictures.shape)).clip(0, 255).astype(np.uint8)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(
        struct.pack(">IIII", 2051, count, SIDE, SIDE) + pictures.tobytes()
    )
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + labels.tobytes())


@pytest.fixture
def stripes(here: Path) -> Path:
    """A folder for each class: IDX files would have ten."""
    from PIL import Image

    folder = here / "stripes"
    for part, count, seed in (("train", 60, 0), ("val", 20, 1)):
        random = np.random.default_rng(seed)
        for place in range(count):
            kind = place % 2
            wave = np.sin(np.arange(SIDE) * 1.3 + random.uniform(0, 6)) * 110 + 128
            picture = np.repeat(wave[:, None], SIDE, 1)
            picture = (picture if kind == 0 else picture.T) + random.normal(0, 8, (SIDE, SIDE))
            there = folder / part / ("lying", "standing")[kind]
            there.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(there / f"{place:02}.png")
    return folder


WORDS = (
    "harden", "stripes", "--net", "wong_cnn", "--eps", "0.1", "--batch", "10", "--hold", "10", "--rate", "0.01", "--size",
    str(SIDE), "--tested", "20", "--device", "cpu",
)  # fmt: skip


def test_it_learns_to_stand_and_every_command_takes_it(run: Any, stripes: Path) -> None:
    said = run(*WORDS, "--epochs", "12", "--method", "pgd", "--steps", "5", "--out", "out", "--json")
    assert said.code == 0, said.err
    found = said.json
    assert found["classes"] == ["lying", "standing"] and len(found["epochs"]) == 12
    assert found["test"]["clean"]["mean"] == 1.0 and found["test"]["robust"]["mean"] >= 0.9
    assert found["gradients"] == 12 * 6 and found["curve"][0]["count"] == 20
    assert {path.name for path in Path("out").iterdir()} == {
        "model.safetensors", "run.json", "metrics.jsonl", "index.html", "curves.png", "curves.png.json", "robustness.png",
        "robustness.png.json",
    }  # fmt: skip
    record = json.loads(Path("out/run.json").read_text())
    assert record["finished"] and record["best"] == found["best"]
    network = phosphene.load("out")
    assert (
        list(network.labels) == ["lying", "standing"] and network.channels == 1 and network.input_size == (SIDE, SIDE)
    )
    seen = run("predict", "stripes/val", "--net", "out", "--json").json["predictions"]
    assert all(row["classes"][0]["name"] in row["image"] for row in seen) and len(seen) == 20
    stands = run("robustness", "stripes/val", "--net", "out", "--eps", "0.1", "--no-checks", "--out", "rob", "--json")
    assert stands.json["curve"][1]["mean"] >= 0.9 and stands.json["truth"] == "folders"
    assert run("rerun", "out/robustness.png", "--check").out == "the same bytes\n"


@pytest.mark.parametrize("method", ["fast", "free", "trades", "atta"])
def test_every_method_runs_and_its_price_is_told(run: Any, stripes: Path, method: str) -> None:
    more = ("--replays", "2") if method == "free" else ()
    said = run(*WORDS, "--epochs", "2", "--method", method, *more, "--out", "out")
    assert said.code == 0, said.err
    price = {"fast": 4, "free": 2, "trades": 24, "atta": 4}[method]
    assert f"{price} gradients a picture" in said.out and "test pictures seen rightly" in said.out
    assert "the network: --net out   the report: out/index.html" in said.out


def test_ended_by_hand_it_goes_on_to_the_same_bytes(run: Any, stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "EVERY", 0.0)
    words = (*WORDS, "--epochs", "4", "--method", "atta")
    assert run(*words, "--out", "whole", "-q").code == 0
    step = Hardening.step

    def killed(self: Hardening, places: Any, batch: Any) -> float:
        if self.progress.step == 13:
            raise KeyboardInterrupt
        return step(self, places, batch)

    monkeypatch.setattr(Hardening, "step", killed)
    assert run(*words, "--out", "out", "-q").code == 130
    monkeypatch.setattr(Hardening, "step", step)
    said = run(*words, "--out", "out")
    assert said.code == 2 and "--resume goes on with it" in said.err
    assert run(*words, "--rate", "0.02", "--resume", "--out", "out").code == 2
    assert run(*words, "--resume", "--out", "out", "-q").code == 0
    for name in ("model.safetensors", "robustness.png"):
        assert (Path("out") / name).read_bytes() == (Path("whole") / name).read_bytes(), name
    assert not (Path("out") / runs.STATE).exists()


def test_mnist_files_are_read(run: Any, here: Path) -> None:
    folder = here / "digits"
    folder.mkdir()
    for part, count in (("train", 40), ("t10k", 10)):
        write_idx(folder, part, count, 3)
    said = run("harden", "digits", "--net", "wong_cnn", "--epochs", "1", "--hold", "10", "--batch", "5", "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1 and "shows no picture of 2, 3, 4, 5, 6" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eps", "8"), "a radius is in units of [0, 1], got '8': did you mean 8/255?"),
        (("--eps", "1"), "covers the whole range from black to white"),
        (("--eps", "0.6"), "lets any picture become grey"),
        (("--eps", "0"), "--eps is a radius above 0"),
        (("--epochs", "0"), "--epochs starts at 1, got 0"),
        (("--batch", "500"), "fewer than a batch of 500"),
        (("--hold", "59"), "can't be held out"),
        (("--method", "free"), "give --epochs a multiple of it, not 2"),
        (("--step", "3"), "did you mean 3/255?"),
        (("--net", "squeezenet1_1"), "has 1000 classes, stripes 2"),
        (("--net", "trades_cnn"), "trades_cnn"),
        (("--tested", "0"), "--tested is a number of test pictures from 1, got 0"),
        (("--rate", "0"), "--rate is a number above 0"),
    ],
)
def test_bad_input_is_one_line(run: Any, stripes: Path, words: tuple[str, str], message: str) -> None:
    given = dict(zip(WORDS[2::2], WORDS[3::2], strict=True)) | {"--epochs": "2"} | dict([words])
    said = run(*WORDS[:2], *(part for pair in given.items() for part in pair if part), "--out", "out")
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    assert not Path("out").exists()


def test_a_missing_folder(run: Any, here: Path) -> None:
    said = run("harden", "nowhere", "--out", "out")
    assert said.code == 2 and "'nowhere' is no folder: give one that holds a data set, or mnist" in said.err


def test_torch_keeps_its_random_numbers(run: Any, stripes: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert run(*WORDS, "--epochs", "1", "--out", "out", "-q").code == 0
    assert torch.equal(torch.get_rng_state(), before)
