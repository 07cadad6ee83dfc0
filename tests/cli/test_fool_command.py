"""`phosphene fool` as a user runs it, and radii as a user writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import images, recipe
from phosphene.attacks import ATTACKS
from phosphene.cli import output
from phosphene.cli.radius import radii, radius
from phosphene.errors import PhospheneError

SQUEEZE = ("--net", "squeezenet1_1")


@pytest.fixture
def fool(run: Any, thirty: str) -> Any:
    """`phosphene fool cat.png` on a small network."""
    return lambda *words: run("fool", "cat.png", "--net", thirty, *words)


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# -- radii ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [("8/255", 8 / 255), ("0.03", 0.03), (" 1 / 255 ", 1 / 255), ("0", 0.0), ("1", 1.0), (".5", 0.5), ("2/4", 0.5)],
)  # fmt: skip
def test_a_radius(text: str, value: float) -> None:
    assert radius(text) == radius(text, "l2") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "in units of [0, 1], got '8': did you mean 8/255?"),
        ("0.5/0.1", "did you mean 5/255?"),
        ("300", "got '300': 1 reaches every picture"),
        ("-1/255", "a radius is 0 or more, got '-1/255'"),
        ("nan", "'nan' is no radius: write it like 8/255 or 0.03"),
        ("inf", "'inf' is no radius"),
        ("8/0", "'8/0' is no radius"),
        ("8/255/2", "'8/255/2' is no radius"),
        ("eight", "'eight' is no radius"),
        ("", "'' is no radius"),
        ("8/", "'8/' is no radius"),
        ("1,2", "'1,2' is no radius"),
    ],
)
def test_what_is_no_radius(text: str, message: str) -> None:
    with pytest.raises(PhospheneError) as problem:
        radius(text)
    assert message in str(problem.value) and "\n" not in str(problem.value)


def test_in_l2_a_radius_may_be_large() -> None:
    assert radius("8", "l2") == 8.0
    with pytest.raises(PhospheneError, match="0 or more"):
        radius("-8", "l2")


def test_several_radii() -> None:
    assert radii("1/255, 2/255,0.1,") == [1 / 255, 2 / 255, 0.1]
    assert radii("0.5,3", "l2") == [0.5, 3.0]
    with pytest.raises(PhospheneError, match="no radius in ' , ': write them like 1/255,2/255"):
        radii(" , ")
    with pytest.raises(PhospheneError, match="did you mean 2/255"):
        radii("1/255,2")


# -- one picture ------------------------------------------------------------------------------------------------


def test_any_other_class_will_do(run: Any, here: Path) -> None:
    found = run("fool", "cat.png", *SQUEEZE, "--json").json
    assert found["success"] and found["target"] is None and found["attack"] == "deepfool"
    assert found["l2"] < 1 and found["backwards"] >= 1
    assert found["pictures"][-1] == "cat-fool-equation.png"
    (row,) = run("predict", "cat-fool-fooled.png", *SQUEEZE, "--json").json["predictions"]
    assert row["classes"][0]["index"] == found["after"]["index"] != found["before"]["index"]
    (seen,) = found["files"].values()
    assert seen["same"] and seen["index"] == found["after"]["index"]
    assert seen["probability"] == pytest.approx(found["after"]["probability"], abs=1e-5)


def test_fgsm_in_a_ball(run: Any, here: Path) -> None:
    said = run("fool", "cat.png", *SQUEEZE, "--attack", "fgsm", "--eps", "2/255")
    assert said.code == 0 and "Linf 2/255, read back from the file: " in said.out
    change = pixels("cat-fool-fooled.png") - pixels("cat-fool-original.png")
    assert set(np.unique(change)) <= {-2, -1, 0, 1, 2} and (abs(change) == 2).mean() > 0.9
    made = pixels("cat-fool-equation.png")
    assert made.shape[1] > 3 * 400 and (made[:8] == 255).all() and (made[:, -8:] == 255).all()
    found = recipe.read("cat-fool-equation.png")
    assert found.parameters["eps"] == 2 / 255 and found.parameters["attack"] == "fgsm"
    command = run("recipe", "cat-fool-equation.png").out.splitlines()[0]
    assert command == "phosphene fool cat.png --attack fgsm --eps 2/255 --net squeezenet1_1"
    assert run("rerun", "cat-fool-equation.png", "--check").out == "the same bytes\n"


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ("--target", "7", "--steps", "1"),
            ["not fooled within 1 steps: thing 7 reached", "give more --steps or less"],
        ),
        (
            ("--target", "7", "--eps", "1/255"),
            ["within 200 steps and linf 1/255", "give a larger --eps, more --steps or"],
        ),
        (
            ("--attack", "carlini-wagner", "--norm", "l2", "--eps", "0.01", "--steps", "2"),
            ["not fooled by carlini-wagner and l2 0.01: it still sees", "give a larger --eps, another --attack"],
        ),
    ],
)
def test_it_says_what_to_try(fool: Any, words: tuple[str, ...], lines: list[str]) -> None:
    said = fool(*words)
    assert said.code == 1 and said.err == ""
    assert all(line in said.out for line in lines)


def test_a_file_that_does_not_fool_any_more_is_told(fool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write = output.write

    def careless(pictures: list[tuple[Path, Any, str]], overwrite: bool) -> list[Path]:
        original = next((image for path, image, _ in pictures if "original" in path.name), None)
        paths = write(pictures, overwrite)
        for path in paths:
            if "fooled" in path.name and original is not None:
                images.save(original, path)
        return paths

    monkeypatch.setattr(output, "write", careless)
    said = fool("--target", "7")
    assert said.code == 1 and said.err.startswith("phosphene: 'cat-fool-fooled.png' no longer fools ")
    assert "in the file, not thing 7" in said.err and said.err.count("\n") == 1
    found = fool("--target", "7,8", "--json", "--overwrite")
    assert found.code == 1 and found.err.count("no longer fools") == 2
    assert [seen["same"] for seen in found.json["files"].values()] == [False, False]


# -- several ----------------------------------------------------------------------------------------------------


def test_several_targets(fool: Any, run: Any, thirty: str) -> None:
    said = fool("--target", "3,thing 7")
    assert said.code == 0 and "2 of 2 classes reached" in said.out
    rows = [line.split() for line in said.out.splitlines() if line.split()[:1] == ["thing"]]
    assert sorted(row[2] for row in rows) == ["3", "7"] and all(row[3] == "yes" for row in rows)
    assert float(rows[0][5]) <= float(rows[1][5])  # the easier one first
    for name in ("thing-3", "thing-7"):
        (row,) = run("predict", f"cat-fool-fooled-{name}.png", "--net", thirty, "--json").json["predictions"]
        assert row["classes"][0]["name"] == name.replace("-", " ")
    assert min(pixels("cat-fool-targets.png").shape[:2]) > 150 and pixels("cat-fool.png").shape[1] > 700
    assert run("rerun", "cat-fool-fooled-thing-7.png", "--check", "--run-code").out == "the same bytes\n"


def test_all_targets(fool: Any) -> None:
    said = fool("--all-targets", "--out", "made")
    assert said.code == 0 and "29 of 29 classes reached" in said.out
    assert "the 10 easiest" in said.out and "the 10 hardest" in said.out
    names = sorted(path for path in os.listdir("made") if path.endswith(".png"))
    assert len(names) == 3 + 8 and {"cat-fool.png", "cat-fool-targets.png", "cat-fool-original.png"} < set(names)
    found = fool("--all-targets", "--json", "--out", "json").json
    assert len(found["targets"]) == 29 and len(found["files"]) == 8
    assert all(seen["same"] for seen in found["files"].values())
    assert fool("--all-targets", "-q", "--out", "quiet").out == ""


def test_some_that_are_not_reached_end_with_1(fool: Any) -> None:
    said = fool("--all-targets", "--attack", "bim", "--eps", "2/255", "--steps", "3")
    assert said.code == 1 and said.err == "" and "classes reached by bim and linf 2/255" in said.out
    assert pixels("cat-fool-targets.png").std() > 3


def test_one_file_of_several_is_the_sheet(fool: Any) -> None:
    assert fool("--target", "3,7", "--out", "both.png").code == 0
    assert recipe.read("both.png").picture == "fool"
    assert sorted(path for path in os.listdir() if path.startswith("both")) == ["both.png", "both.png.json"]


def test_ctrl_c_leaves_nothing(fool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.jobs import fool_targets

    rows, count = fool_targets._rows, 0

    def interrupted(*given: Any) -> Any:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return rows(*given)

    monkeypatch.setattr(fool_targets, "_rows", interrupted)
    monkeypatch.setattr(fool_targets, "TOGETHER", 8)
    said = fool("--all-targets", "--out", "new/made")
    assert said.code == 130 and count == 2 and "nothing half-written was kept" in said.err
    assert not Path("new").exists()


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--eps", "8"), "did you mean 8/255?"),
        (("--eps", "8", "--target", "3"), "did you mean 8/255?"),
        (("--eps=-1/255",), "a radius is 0 or more, got '-1/255'"),
        (("--eps", "nan"), "'nan' is no radius: write it like 8/255 or 0.03"),
        (("--eps", "much"), "'much' is no radius"),
        (("--eps", "0.1/255"), "a picture of 8 bits changes by 1/255 or more"),
        (("--eps", "0"), "a picture of 8 bits changes by 1/255 or more"),
        (("--eps", "9999", "--norm", "l2"), "did you mean 9999/255?"),
        (("--attack", "pgd"), "pgd needs a radius: give --eps, such as 2/255"),
        (("--attack", "pdg", "--eps", "0.1"), "there is no attack 'pdg'; did you mean pgd"),
        (("--attack", "deepfool", "--norm", "linf"), "deepfool measures in l2, not in linf"),
        (("--norm", "l1", "--eps", "0.1"), '"l1"'),
        (("--attack", "apgd", "--eps", "0.1", "--target", "3"), "apgd can't be told which class to reach"),
        (("--attack", "fooling"), "give --target with it"),
        (("--all-targets", "--target", "3"), "leave --target away"),
        (("--target", "3,tingh 4"), "no class is called 'tingh 4'; did you mean thing 4"),
        (("--target", "3,4", "--out", "x.jpg"), "a JPEG changes pixels"),
        (("--target", "3", "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
        (("--target", "3", "--norm", "l2"), "--norm is that of a ball"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_options_of_fool(fool: Any, here: Path, words: tuple[str, ...], message: str) -> None:
    before = sorted(path for path in here.iterdir() if path.name != "__pycache__")
    said = fool(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.count("\n") == 1 and said.err.startswith("phosphene: ") and message in said.err
    assert sorted(path for path in here.iterdir() if path.name != "__pycache__") == before


def test_a_network_of_one_class_has_no_other(run: Any, here: Path) -> None:
    Path("one.py").write_text(
        "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))\n"
    )
    said = run("fool", "cat.png", "--net", "one.py:net", "--all-targets")
    assert said.code == 2 and "has one class: there is no other" in said.err
    assert "two classes or more" in run("fool", "cat.png", "--net", "one.py:net").err


def test_help_names_every_attack(run: Any) -> None:
    said = " ".join(run("fool", "--help").out.replace("│", " ").split())
    assert all(f"{name}" in said for name in ("fooling", *ATTACKS))
