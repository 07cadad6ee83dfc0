"""`torchrun --nproc-per-node 2 -m phosphene`: the files and facts of one process, made by two."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import processes
from phosphene.cli import main, terminal
from phosphene.cli.options import Said
from phosphene.progress import Job, Started, Step

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
NET = ("--net", "squeezenet1_1", "--device", "cpu")
IMAGES = 18  # three batches of a CPU: two for the first process, one for the other


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos to work on: coloured squares, two of each name, and a file that is no image."""
    folder = tmp_path_factory.mktemp("torchrun")
    generator = np.random.default_rng(0)
    for place in range(IMAGES):
        path = folder / "photos" / ("light" if place % 2 else "dark") / f"photo{place // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        squares = generator.integers(0, 256, (8, 8, 3)) * (1 if place % 2 else 0.4)
        Image.fromarray(squares.astype(np.uint8)).resize((260, 230), Image.Resampling.NEAREST).save(path)
    (folder / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def start(folder: Path, words: tuple[str, ...], launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, or two, of one thread each."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PHOSPHENE_CACHE": str(folder / ".nothing")}
    command = [sys.executable, *launcher, "-m", "phosphene", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)


def by_one(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _good(start(folder, words))


def by_two(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _good(start(folder, words, TORCHRUN))


def _good(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_predict_what_one_does(folder: Path) -> None:
    one = by_one(folder, "predict", "photos", *NET, "--csv", "one.csv", "--json")
    two = by_two(folder, "predict", "photos", *NET, "--csv", "two.csv", "--json")
    assert two.stdout == one.stdout and len(json.loads(two.stdout)["predictions"]) == IMAGES
    assert two.stderr == one.stderr and two.stderr.count("left out photos/torn.jpg") == 1
    assert (folder / "two.csv").read_bytes() == (folder / "one.csv").read_bytes()


def test_two_processes_map_what_one_does(folder: Path) -> None:
    by_one(folder, "embed", "photos", *NET, "--out", "map1")
    two = by_two(folder, "embed", "photos", *NET, "--out", "map2")
    assert two.stdout.count("wrote ") == 1 and two.stderr.count("\n") == 1
    with np.load(folder / "map1" / "embed.npz") as wanted, np.load(folder / "map2" / "embed.npz") as found:
        assert found.files == wanted.files and len(found["features"]) == IMAGES
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted.files)
    assert files(folder / "map2") == files(folder / "map1")


def test_two_processes_find_the_patches_of_one(folder: Path) -> None:
    words = ("patches", "photos", *NET, "--layer", "features.6", "--units", "0,5,9", "--count", "4", "--json")
    one, two = by_one(folder, *words, "--out", "one"), by_two(folder, *words, "--out", "two")
    facts = [json.loads(done.stdout) for done in (one, two)]
    assert facts[1]["units"] == facts[0]["units"] and facts[1]["skipped"] == facts[0]["skipped"] != {}
    assert files(folder / "two") == files(folder / "one")


def test_two_processes_explain_each_image_once_and_go_on_where_they_stopped(folder: Path) -> None:
    words = ("explain", "photos", *NET, "--method", "saliency,grad-cam")
    by_one(folder, *words, "--out", "maps1")
    whole = files(folder / "maps1")
    rows = (folder / "maps1" / "explain.jsonl").read_text().splitlines(keepends=True)
    left = folder / "maps2"  # as two processes leave it when they are killed: each had made two images
    for name, data in whole.items():
        if name.endswith((".npz", ".png", ".json")) and not name.endswith("photo7.npz"):
            (left / name).parent.mkdir(parents=True, exist_ok=True)
            (left / name).write_bytes(data)
    (left / "explain.jsonl").write_text(rows[0] + rows[2])
    (left / "explain.1.part.jsonl").write_text(rows[1] + rows[3] + rows[5][:40])
    two = by_two(folder, *words, "--out", "maps2")
    assert two.stdout.startswith(f"{IMAGES} images, 4 of them made before: ") and two.stdout.count("images,") == 1
    assert two.stderr.count("left out photos/torn.jpg") == two.stderr.count("\n") == 1
    assert files(left) == whole
    assert f"{IMAGES} images, {IMAGES} of them made before" in by_one(folder, *words, "--out", "maps2").stdout
    assert files(left) == whole


def test_what_fails_in_one_process_ends_both_and_is_told_once(folder: Path) -> None:
    named = ("photos/light", "photos/torn.jpg")  # the tenth image is the second process's
    done = start(folder, ("predict", *named, *NET, "--csv", "bad.csv"), TORCHRUN)
    assert done.returncode != 0 and done.stdout == "" and not (folder / "bad.csv").exists()
    assert done.stderr.count("phosphene: ") == done.stderr.count("phosphene: photos/torn.jpg is cut short") == 1
    assert re.search(r"exitcode *: 2 ", done.stderr) and not re.search(r"exitcode *: 1 ", done.stderr)
    assert "phosphene/cli" not in done.stderr  # no traceback of ours


def test_what_is_for_one_process_says_so_once(folder: Path) -> None:
    done = start(folder, ("filters", *NET, "--out", "filters"), TORCHRUN)
    assert done.returncode != 0 and done.stdout == "" and not (folder / "filters").exists()
    told = "phosphene: 'filters' runs in one process: start it without torchrun\n"
    assert done.stderr.count("phosphene: ") == done.stderr.count(told) == 1
    assert re.search(r"exitcode *: 2 ", done.stderr)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("rank", [0, 1])
def test_the_first_process_alone_shows_a_bar_and_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: int
) -> None:
    def job() -> Job[int]:
        yield Started("work", 2)
        yield Step(2)
        return 1

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr(processes, "begin", lambda: None)
    monkeypatch.setattr("phosphene.cli._check_shared", lambda words: None)
    screen: Any = _Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert terminal.run(job(), Said()) == 1
    terminal.warn("left out", Said())
    assert ("work" in screen.getvalue()) == ("left out" in screen.getvalue()) == (rank == 0)
    main(["models", "--json"])
    assert bool(capsys.readouterr().out) == (rank == 0)
