"""`phosphene universal` and `phosphene patch` as a user runs them."""

from __future__ import annotations

import inspect
import os
import shutil
from pathlib import Path
from typing import Any

import colours
import numpy as np
import pytest
from PIL import Image

from phosphene import recipe
from phosphene.jobs import function_of
from phosphene.jobs.command import defaults

LEADS = {"red": [1, 3, 5, 3, 11, 13, 2, 9]}
NET = ("--net", "nets.py:mean")
QUICK = {"universal": ("--passes", "4", "--eps", "4/255"), "patch": ("--steps", "4")}
PARTS = {"universal": "perturbation", "patch": "sticker"}
BOTH = pytest.mark.parametrize("verb", ["universal", "patch"])


@pytest.fixture(autouse=True)
def photos(here: Path) -> list[str]:
    (here / "nets.py").write_text(colours.NETS)
    return colours.photographs(here / "photos", LEADS)


@pytest.fixture
def do(run: Any) -> Any:
    """The command on the photographs, quickly."""
    return lambda verb, *words: run(verb, "photos", *NET, *QUICK[verb], *words)


def files(folder: Path | str) -> dict[str, bytes]:
    folder = Path(folder)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: data for name, data in found.items() if "__pycache__" not in name}


# -- what it makes and tells --------------------------------------------------------------------------------------------


@BOTH
def test_json_and_files(do: Any, verb: str) -> None:
    said = do(verb, "--out", "out", "--json")
    assert (said.code, said.err) == (0, "")
    found, stem = said.json, f"nets.py-mean-{verb}"
    assert found["command"] == verb and found["net"] == "nets.py:mean"
    assert found["pictures"] == [f"out/{stem}.png", f"out/{stem}-{PARTS[verb]}.png"]
    assert set(files("out")) == {f"{stem}{part}.png{end}" for part in ("", f"-{PARTS[verb]}") for end in ("", ".json")}
    assert (found["made_on"], found["tried_on"], found["truth"]) == (6, 2, "folders")
    if verb == "universal":  # every lead below 8 levels falls; held out are r3 and r7
        assert [found[key]["count"] for key in ("made", "tried", "noise")] == [4, 1, 0]
        assert found["eps"] == 4 / 255 and found["norm"] == "linf"
    else:
        assert found["side"] == 0.35


def test_the_table(do: Any) -> None:
    said = do("universal")
    assert (said.code, said.err) == (0, "")
    assert "wrote nets.py-mean-universal.png" in said.out and "95% interval" in said.out and "Left out" not in said.out
    rows = {
        line.split("  ")[1].strip(): line.split()[-4:]
        for line in said.out.splitlines()
        if "%" in line and " to " in line
    }
    assert rows["6 photographs that it was made on"][0] == "66.7%"
    assert rows["2 others"] == ["50.0%", "9.5%", "to", "90.5%"]
    assert rows["noise of the same size, on these"] == ["0.0%", "0.0%", "to", "65.8%"]
    assert "a patch of noise, on these" in do("patch").out


@BOTH
def test_who_was_left_out_is_said(do: Any, verb: str) -> None:
    colours.photograph(Path("photos/green/g.png"), "green", 9, seed=50)
    colours.photograph(Path("photos/red/wrong.png"), "blue", 9, seed=51)
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    said = do(verb, "--target", "green")
    assert said.code == 0 and said.err.count("\n") == 1
    assert said.err.startswith("phosphene: left out red/torn.jpg: ")
    assert "Left out: 1 misread as they are, 1 of the target's class." in said.out
    found = do(verb, "--target", "green", "--out", "out", "--json")
    assert set(found.json["skipped"]) == {"red/torn.jpg"} and found.json["target"] == {"index": 1, "name": "green"}
    assert (found.json["wrong"], found.json["aimed"], found.json["made_on"]) == (1, 1, 6)


@BOTH
def test_quietly(do: Any, verb: str) -> None:
    said = do(verb, "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "") and Path(f"nets.py-mean-{verb}.png").exists()


@BOTH
def test_what_is_taken_for_true_and_probabilities_are_told(run: Any, verb: str) -> None:
    said = run(verb, "photos/red", "--net", "nets.py:soft", *QUICK[verb])
    assert said.code == 0 and said.err.count("\n") == 2
    assert "gives probabilities, not logits" in said.err and "what the network sees counts as true" in said.err


@BOTH
def test_one_file_is_the_sheet(do: Any, verb: str) -> None:
    assert do(verb, "--out", "one.png").code == 0
    assert recipe.read("one.png").picture == verb
    assert sorted(name for name in os.listdir() if name.startswith("one")) == ["one.png", "one.png.json"]
    sheet = np.asarray(Image.open("one.png").convert("RGB"))
    assert sheet.shape[1] > 3 * 100 and (sheet[[0, -1]] > 240).all() and (sheet[:, [0, -1]] > 240).all()


@BOTH
def test_photographs_that_come_along(run: Any, verb: str) -> None:
    quick = {"universal": ("--passes", "2"), "patch": ("--steps", "2")}[verb]
    found = run(verb, "sample:all", "--net", "squeezenet1_1", *quick, "--out", "out", "--json")
    assert found.code == 0 and (found.json["made_on"], found.json["tried_on"]) == (6, 2)
    assert found.json["truth"] == "predicted"
    again = run("rerun", f"out/squeezenet1_1-{verb}.png", "--check")
    assert (again.code, again.out) == (0, "the same bytes\n")


# -- again --------------------------------------------------------------------------------------------------------------


@BOTH
def test_same_seed_same_bytes(do: Any, verb: str) -> None:
    for folder in ("a", "b"):
        assert do(verb, "--seed", "7", "--out", folder).code == 0
    assert files("a") == files("b") and len(files("a")) == 4
    do(verb, "--seed", "8", "--out", "c")
    assert files("c") != files("a")


@BOTH
def test_made_again_byte_for_byte(do: Any, run: Any, verb: str) -> None:
    options = {"universal": ("--norm", "l2", "--eps", "2"), "patch": ("--shape", "square", "--rotate", "5")}[verb]
    words = {"universal": ("--passes", "3"), "patch": ("--steps", "3")}[verb]
    said = run(verb, "photos", *NET, *words, *options, "--target", "green", "--images", "8", "--seed", "3", "--json")
    assert said.code == 0
    for picture in said.json["pictures"]:
        refused = run("rerun", picture, "--check")
        assert refused.code == 2 and "runs the Python file 'nets.py'" in refused.err
        assert run("rerun", picture, "--check", "--run-code").out == "the same bytes\n"
        line = run("recipe", picture).out.splitlines()[0]
        assert line.startswith(f"phosphene {verb} photos ") and "--target green" in line and "--images 8" in line
    colours.photograph(Path("photos/red/r0.png"), "red", 4, seed=99)
    changed = run("rerun", picture, "--check", "--run-code")
    assert changed.code == 2 and "'photos' is not the file that the picture was made from" in changed.err


def test_the_recipe_writes_the_radius_as_one_says_it(do: Any, run: Any) -> None:
    do("universal", "--seed", "2")
    (line, *_) = run("recipe", "nets.py-mean-universal.png").out.splitlines()
    assert line == "phosphene universal photos --eps 4/255 --net nets.py:mean --passes 4 --seed 2"


@BOTH
def test_the_command_line_hands_over_every_option(run: Any, verb: str) -> None:
    quick = {"universal": "passes", "patch": "steps"}[verb]
    assert run(verb, "photos", *NET, f"--{quick}", "1", "-q").code == 0
    found = recipe.read(f"nets.py-mean-{verb}.png").parameters
    assert set(found) == set(inspect.signature(function_of(verb)).parameters) - {"workshop"}
    assert found == {**defaults(verb), "folder": "photos", "net": "nets.py:mean", quick: 1}


@BOTH
def test_what_exists_is_kept(do: Any, verb: str) -> None:
    assert do(verb).code == 0
    before = files(".")
    said = do(verb, "--seed", "1")
    assert said.code == 2 and said.err.count("\n") == 1 and "exists and is kept" in said.err and files(".") == before
    assert do(verb, "--seed", "1", "--overwrite").code == 0 and files(".") != before


@BOTH
def test_ctrl_c_leaves_nothing(do: Any, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.jobs import for_all

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(for_all, "changed", interrupted)
    said = do(verb, "--out", "new/made")
    assert said.code == 130 and "nothing half-written was kept" in said.err and not Path("new").exists()


@BOTH
def test_results_never_become_photographs(do: Any, run: Any, verb: str) -> None:
    said = do(verb, "--out", "photos")
    if said.code != 2:
        again = run("rerun", f"photos/nets.py-mean-{verb}.png", "--check", "--run-code")
        assert again.out == "the same bytes\n", again.err


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD: list[tuple[str, tuple[str, ...], str]] = [
    ("universal", ("photos", *NET, "--eps", "8"), "did you mean 8/255?"),
    ("universal", ("photos", *NET, "--eps", "0"), "changes by 1/255 or more"),
    ("universal", ("photos", *NET, "--eps", "0.5/255"), "changes by 1/255 or more"),
    ("universal", ("photos", *NET, "--eps=-2/255"), "a radius is 0 or more"),
    ("universal", ("photos", *NET, "--eps", "nan"), "'nan' is no radius"),
    ("universal", ("photos", *NET, "--eps", "9999", "--norm", "l2"), "did you mean 9999/255?"),
    ("universal", ("photos", *NET, "--norm", "l1"), '"l1"'),
    ("universal", ("photos", *NET, "--passes", "0"), "passes start at 1, got 0"),
    ("universal", ("photos", *NET, "--passes", "many"), "many"),
    ("patch", ("photos", *NET, "--steps", "0"), "steps start at 1, got 0"),
    ("patch", ("photos", *NET, "--side", "0"), "side is a share of the picture"),
    ("patch", ("photos", *NET, "--side", "1"), "at most 1 when scaled up"),
    ("patch", ("photos", *NET, "--side", "nan"), "side is a share of the picture"),
    ("patch", ("photos", *NET, "--rotate=-1"), "0 to 180 degrees"),
    ("patch", ("photos", *NET, "--shape", "star"), '"star"'),
]
for _verb in ("universal", "patch"):
    BAD += [
        (_verb, ("gone", *NET), "'gone' is no folder"),
        (_verb, ("cat.png", *NET), "'cat.png' is no folder"),
        (_verb, ("sample:al", *NET), "'sample:al' is no folder"),
        (_verb, ("empty", *NET), "holds no image files"),
        (_verb, ("torn", *NET), "none of the 1 photographs can be read"),
        (_verb, ("three", *NET), "4 photographs or more that the network sees rightly: there are 3"),
        (_verb, ("wrong", *NET), "4 photographs or more that the network sees rightly: there are 0"),
        (_verb, ("photos", *NET, "--images", "3"), "there are 3"),
        (_verb, ("photos", *NET, "--images=-1"), "--images is a number of photographs"),
        (_verb, ("photos", *NET, "--target", "gren"), "no class is called 'gren'; did you mean green"),
        (_verb, ("photos", *NET, "--target", "7"), "7"),
        (_verb, ("photos", *NET, "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
        (_verb, ("photos", *NET, "--truth", "guess"), '"guess"'),
        (_verb, ("photos", *NET, "--truth", "names"), "knows no class of the file names"),
        (_verb, ("photos", "--net", "nets.py:steps"), "no gradient"),
        (_verb, ("photos", "--net", "nets.py:gone"), "gone"),
        (_verb, ("photos", "--net", "gone.py:net"), "gone.py"),
        (_verb, ("photos", *NET, "--out", "x.html"), "can't be written as .html"),
    ]


@pytest.fixture
def more(photos: list[str]) -> None:
    for name in ("empty", "torn", "three/red"):
        Path(name).mkdir(parents=True)
    Path("torn/torn.jpg").write_bytes(b"\xff\xd8\xff")
    for path in photos[:3]:
        shutil.copyfile(Path("photos", path), Path("three", path))
    shutil.copytree("photos/red", "wrong/blue")


@pytest.mark.parametrize(
    ("verb", "words", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Any, more: None, verb: str, words: tuple[str, ...], message: str
) -> None:
    before, folders = files("."), {path for path in Path().rglob("*") if path.is_dir() and "__" not in path.name}
    out = () if "--out" in words else ("--out", "new/made")
    said = run(verb, *words, *out)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("phosphene: ") and said.err.count("\n") == 1 and message in said.err
    assert files(".") == before
    assert {path for path in Path().rglob("*") if path.is_dir() and "__" not in path.name} == folders


@BOTH
def test_help(run: Any, verb: str) -> None:
    said = " ".join(run(verb, "--help").out.replace("│", " ").split())
    assert "kept back" in said and "sample:all" in said and "--target" in said and "--truth" in said
