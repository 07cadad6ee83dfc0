"""`advise` as a person runs it: the sentences, the files, the JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import recipe

NET = ("--net", "squeezenet1_1", "--size", "48")
FILES = ["advice.json", "depth.png", "depth.png.json", "index.html", "table.png", "table.png.json"]


@pytest.fixture
def blots(here: Path) -> Path:
    """Two classes of six small pictures without a `val`."""
    random = np.random.default_rng(0)
    for place, name in enumerate(("cold", "warm")):
        (here / "blots" / name).mkdir(parents=True)
        for number in range(6):
            pixels = random.normal(110, 40, (40, 40, 3))
            pixels[8:32, 8:32, 2 * place] += 60
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(here / "blots" / name / f"{number}.png")
    return here / "blots"


def test_the_advice_is_said_and_written(run: Any, blots: Path) -> None:
    said = run("advise", "blots", *NET)
    assert (said.code, said.err) == (0, "")
    for text in ("very little data, very", "sureness", "5 photographs of a class", "Try: phosphene probe blots",
                 "the report: phosphene-advise/index.html"):  # fmt: skip
        assert text in said.out, text
    folder = Path("phosphene-advise")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    kept = json.loads((folder / "advice.json").read_text())
    assert kept["verb"] == "advise" and kept["recipe"] in ("top", "stages") and kept["inputs"].keys() == {"blots"}
    assert (folder / "index.html").read_text().startswith("<!doctype html>")
    made = recipe.read(folder / "table.png")
    assert (made.verb, made.picture) == ("advise", "table")
    assert run("rerun", folder / "depth.png", "--check").out == "the same bytes\n"


def test_verified(run: Any, blots: Path) -> None:
    said = run("advise", "blots", *NET, "--verify", "--epochs", "1", "--out", "out")
    assert (
        said.code == 0 and "the four recipes (* the advice)" in said.out and "linear classifier on the top" in said.out
    )
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([*FILES, "recipes.png", "recipes.png.json"])
    kept = json.loads(Path("out/advice.json").read_text())
    assert len(kept["recipes"]) == 4 and kept["right"] in (True, False)
    assert run("advise", "blots", *NET, "--out", "out", "--overwrite", "-q") == type(said)(0, "", "")
    assert not Path("out/recipes.png").exists()  # of the run before: it tells nothing of this one


def test_a_report_is_kept(run: Any, blots: Path) -> None:
    Path("out").mkdir()
    Path("out/advice.json").write_text("mine")
    said = run("advise", "blots", *NET, "--out", "out")
    assert said.code == 2 and "'out/advice.json' exists and is kept" in said.err
    assert Path("out/advice.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gone",), "'gone' is no folder"),
        (("cat.png",), "'cat.png' is no folder"),
        (("one",), "has one class"),
        (("blots", "--epochs", "0"), "--epochs starts at 1"),
        (("blots", "--size", "3"), "--size starts at 16"),
        (("blots", "--net", "resnet81"), "unknown network 'resnet81'"),
        (("blots", "--out", "advice.png"), "--out needs a folder"),
        (("blots", "--out", "cat.png"), "--out needs a folder"),
        (("bad",), "can't be read"),
    ],
)
def test_bad_input_is_one_line(run: Any, blots: Path, words: tuple[str, ...], message: str) -> None:
    for name in ("one/only", "bad/a", "bad/b"):
        Path(name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (20, 20), (9 * number, 0, 0)).save(f"{name}/{number}.png")
    Path("bad/a/torn.png").write_bytes(b"\x89PNG torn")
    net = () if "--net" in words else ("--net", "squeezenet1_1")
    said = run("advise", *words, *net)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    assert not Path("phosphene-advise").exists()


def test_what_can_not_be_read_is_left_out(run: Any, blots: Path) -> None:
    (blots / "cold" / "torn.png").write_bytes(b"\x89PNG torn")
    said = run("advise", "blots", *NET, "--skip-bad", "--json")
    assert said.code == 0 and said.err.startswith("phosphene: left out blots/cold/torn.png: ")
    assert said.json["command"] == "advise" and said.json["advised_command"].startswith("phosphene probe blots ")
