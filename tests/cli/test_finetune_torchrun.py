"""`torchrun --nproc-per-node 2 -m phosphene finetune`: what one process learns, and after a process has failed, too."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from starter import Ended, Start, starter
from test_learning_cli import NET, TUNED, fill, good, names, record

TUNE = ("finetune", "photos", *NET, "--device", "cpu", "--epochs", "3", "--batch", "8", "--rate", "1e-3")
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
DRIVER = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import torch
from phosphene.cli import main, runs
from phosphene.training.finetune import _Training

torch.set_num_threads(1)
runs.EVERY = 0  # a state after each step
step = _Training.step

def failing(self, places, batch):  # the second process is gone in the middle of its fifth step, the first time
    if self.progress.step == 5 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    return step(self, places, batch)

_Training.step = failing
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("torchrun")
    fill(place / "photos")
    (place / "photos" / "cat" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    (place / "driver.py").write_text(DRIVER)
    return place


def environment(place: Path) -> dict[str, str]:
    return {
        "PHOSPHENE_CACHE": str(place / ".cache" / "weights"), "PHOSPHENE_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip


@pytest.fixture(scope="module")
def start(place: Path) -> Iterator[Start]:
    with starter(place, environment(place)) as start:
        yield start


@pytest.fixture(scope="module")
def one(place: Path, start: Start) -> Ended:
    """One process, in the folder `one`."""
    return good(start(*TUNE, "--out", "one"))


def by_two(
    place: Path, *words: str, program: tuple[str, ...] = ("-m", "phosphene")
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *TORCHRUN, *program, *words]
    env = {**os.environ, **environment(place)}
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def check_like_one(place: Path, out: str) -> None:
    """Near to what one process makes: sums of a batch are in another order."""
    assert names(place / out) == TUNED
    tables = []
    for folder in ("one", out):
        with open(place / folder / "val.csv", newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert [row["image"] for row in tables[1]] == [row["image"] for row in tables[0]]
    assert len({row["image"] for row in tables[1]}) == len(tables[1]) == 9
    for mine, wanted in zip(tables[1], tables[0], strict=True):
        assert mine["said"] == wanted["said"]
        assert float(mine["probability"]) == pytest.approx(float(wanted["probability"]), abs=1e-3)
    facts = [record(place / folder) for folder in ("one", out)]
    assert facts[1]["accuracy"] == facts[0]["accuracy"] and facts[1]["finished"] is True
    for mine, wanted in zip(facts[1]["epochs"], facts[0]["epochs"], strict=True):
        for name in ("epoch", "step", "train_accuracy", "val_accuracy", "rate"):
            assert mine[name] == pytest.approx(wanted[name])
        for name in ("train_loss", "val_loss"):
            assert mine[name] == pytest.approx(wanted[name], abs=1e-3)
    mine, wanted = (load_file(place / folder / "model.safetensors") for folder in (out, "one"))
    assert mine.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(mine[name], value, atol=2e-3, rtol=1e-2)


def test_two_processes_learn_what_one_does_and_the_first_alone_speaks(place: Path, one: Ended) -> None:
    done = by_two(place, *TUNE, "--out", "two", "--json")
    facts = json.loads(done.stdout)
    assert facts["steps"] == 12 and facts["command"] == "finetune"
    told = [said for said in done.stderr.splitlines() if "phosphene: " in said]
    assert len(told) == 1 and "left out photos/cat/torn.jpg" in told[0]
    assert record(place / "two")["processes"] == 2 and record(place / "one")["processes"] == 1
    check_like_one(place, "two")


def test_two_go_on_where_one_was_killed(place: Path, one: Ended, start: Start) -> None:
    ended = start(*TUNE, "--out", "more", every=0, hit=5, signal="SIGKILL")
    assert ended.code == -9 and "state.safetensors" in names(place / "more")
    done = by_two(place, *TUNE, "--out", "more", "--resume")
    assert done.stdout.count("the network: --net more ") == 1
    check_like_one(place, "more")


def test_when_a_process_fails_torchrun_starts_all_again_from_the_last_state(place: Path, one: Ended) -> None:
    done = by_two(place, *TUNE, "--out", "restarted", program=("driver.py",))
    assert re.search(r"exitcode\s*: 9|exitcode: 9", done.stderr), done.stderr
    assert done.stdout.count("the network: --net restarted ") == 1
    assert np.isclose(record(place / "restarted")["steps"], 12)
    check_like_one(place, "restarted")
