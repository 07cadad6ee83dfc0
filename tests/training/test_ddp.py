"""A training shared by two processes of torchrun ends where that of one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pupils import fill, found, outcome, pupil, values
from torch import Tensor

from phosphene.models.weights import read_state_dict, save_state_dict
from phosphene.training.finetune import Finetuned, finetune
from phosphene.training.folder import Examples
from phosphene.training.settings import FinetuneSettings
from phosphene.training.state import State

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
QUICK = FinetuneSettings(
    layers="all", epochs=2, batch=8, rate=2e-3, augment="none", balanced=True, patience=0, precision="float32"
)
CASES = {
    "all": QUICK,
    "uneven": replace(QUICK, batch=7, layers="last:2", augment="light", smoothing=0.1, ema=0.6),
    "head": replace(QUICK, layers="head", optimiser="sgd", rate=2e-2, head_rate=2.0),
    "resumed": replace(QUICK, layers="last:1", start="random", ema=0.5),
}
SCRIPT = """
import json, sys
from pathlib import Path

import numpy as np
import torch
from pupils import found, pupil

from phosphene import processes
from phosphene.models.weights import read_state_dict, save_state_dict
from phosphene.progress import run
from phosphene.training import inputs
from phosphene.training.finetune import finetune
from phosphene.training.settings import FinetuneSettings
from phosphene.training.state import State

torch.set_num_threads(1)
folder, cases = Path(sys.argv[1]), json.loads(sys.argv[2])
examples = found(folder / "photos")
plain = inputs.Frozen.__call__
for name, options in cases.items():
    seen, states = [], []
    inputs.Frozen.__call__ = lambda self, batch: seen.append(len(batch)) or plain(self, batch)
    resume = None
    if (folder / f"{name}.state.json").is_file():
        progress = json.loads((folder / f"{name}.state.json").read_text())
        resume = State(read_state_dict(folder / f"{name}.state.safetensors"), progress)
    keep = lambda state, ended: states.append(ended)
    done = run(finetune(pupil(), examples, settings=FinetuneSettings(**options), keep=keep, resume=resume))
    mine = folder / f"{name}.{processes.rank()}"
    save_state_dict(done.network.module.state_dict(), f"{mine}.safetensors")
    np.save(f"{mine}.npy", done.probabilities)
    Path(f"{mine}.json").write_text(json.dumps({"rows": done.rows, "seen": seen, "kept": states, "of": processes.count()}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ddp")
    counts = {"train": {"blue": 12, "green": 8, "red": 4}, "val": {"blue": 3, "green": 4, "red": 4}}
    fill(root / "photos", counts, noise=120)
    (root / "script.py").write_text(SCRIPT)
    return root


@pytest.fixture(scope="module")
def colours(folder: Path) -> Examples:
    return found(folder / "photos")


@pytest.fixture(scope="module")
def by_one(folder: Path, colours: Examples) -> dict[str, Finetuned]:
    """Each case in this process; the state of one of them after its fourth step lies in the folder then."""
    made: dict[str, Finetuned] = {}

    def keep(state: Callable[[], State], _ended: bool) -> None:
        now = state()
        if now.progress["step"] == 4:
            save_state_dict(now.tensors, folder / "resumed.state.safetensors")
            (folder / "resumed.state.json").write_text(json.dumps(now.progress))

    for name, settings in CASES.items():
        made[name] = outcome(finetune(pupil(), colours, settings=settings, keep=keep if name == "resumed" else None))
    return made


def launch(folder: Path, cases: dict[str, FinetuneSettings]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    words = [str(folder), json.dumps({name: asdict(settings) for name, settings in cases.items()})]
    command = [sys.executable, *TORCHRUN, str(folder / "script.py"), *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def by_two(folder: Path, by_one: dict[str, Finetuned]) -> Path:
    done = launch(folder, CASES)
    assert done.returncode == 0, done.stderr
    return folder


def told(folder: Path, name: str, rank: int) -> tuple[dict[str, Tensor], np.ndarray, dict[str, Any]]:
    mine = folder / f"{name}.{rank}"
    about = json.loads(Path(f"{mine}.json").read_text())
    return read_state_dict(f"{mine}.safetensors"), np.load(f"{mine}.npy"), about


@pytest.mark.parametrize("name", CASES)
def test_two_processes_learn_what_one_does(by_one: dict[str, Finetuned], by_two: Path, name: str) -> None:
    wanted = values(by_one[name].network.module)
    for rank in range(2):
        weights, probabilities, about = told(by_two, name, rank)
        assert about["of"] == 2 and weights.keys() == wanted.keys()
        for key, value in wanted.items():
            torch.testing.assert_close(
                weights[key], value, atol=1e-5, rtol=1e-4, msg=lambda text, k=key: f"{k}: {text}"
            )
        np.testing.assert_allclose(probabilities, by_one[name].probabilities, atol=1e-4)
        for mine, its in zip(about["rows"], by_one[name].rows, strict=True):
            for key in ("epoch", "step", "rate", "train_loss", "train_accuracy", "val_loss", "val_accuracy"):
                assert mine[key] == pytest.approx(its[key], abs=1e-4), key


@pytest.mark.parametrize("name", CASES)
def test_both_processes_end_with_the_same_bytes(by_two: Path, name: str) -> None:
    one, two = told(by_two, name, 0), told(by_two, name, 1)
    assert all(torch.equal(one[0][key], two[0][key]) for key in one[0]) and np.array_equal(one[1], two[1])


def test_each_photograph_held_out_is_seen_by_one_of_them(by_two: Path) -> None:
    """11 in chunks of 8. What is frozen runs on all photographs to learn from in each process."""
    seen = [told(by_two, "head", rank)[2]["seen"] for rank in range(2)]
    assert [sum(some) for some in seen] == [8 + 24, 3 + 24]
    of_uneven = [told(by_two, "uneven", rank)[2]["seen"] for rank in range(2)]
    assert of_uneven[0] == [8] + [4] * 6 and of_uneven[1] == [3] + [3] * 6  # a share of each batch, nothing twice


def test_the_first_alone_is_asked_to_keep(by_two: Path) -> None:
    assert told(by_two, "all", 0)[2]["kept"] == [False, False, True] * 2 and told(by_two, "all", 1)[2]["kept"] == []
    assert told(by_two, "resumed", 0)[2]["kept"] == [False, True]  # from step 4 of 6
