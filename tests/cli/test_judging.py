"""`randomise` and `judge-explanations` in detail: tables, what is kept, what is told, what is refused."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from phosphene import recipe
from phosphene.explain.judge import CHECKS
from phosphene.explain.metrics import baselines

NET = ("--net", "nets.py:bright")
SMALL = ("--images", "3", "--mosaics", "2", "--steps", "2", "--method", "gradient,grad-cam")
JUDGE = ("judge-explanations", "photos", *NET, *SMALL)


def swapped(option: str, value: str) -> tuple[str, ...]:
    """JUDGE with another value of one of its options."""
    place = JUDGE.index(option) + 1
    return (*JUDGE[:place], value, *JUDGE[place + 1 :])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def table(folder: str) -> list[dict[str, str]]:
    with open(Path(folder) / "table.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- randomise ----------------------------------------------------------------------------------------------------------


def test_a_method_that_this_network_can_not_have_is_left_out_and_told(run: Any, nets: Path) -> None:
    words = ("randomise", "cat.png", "--net", "nets.py:silu", "--steps", "1")
    said = run(*words)
    assert said.code == 0 and said.err.startswith("phosphene: left out guided-backprop: ") and said.err.count("\n") == 1
    said = run(*words, "--overwrite", "--json")
    assert {row["method"] for row in said.json["steps"]} == {"saliency", "grad-cam"}
    assert list(said.json["refused"]) == ["guided-backprop"]
    assert run(*words, "--overwrite", "-q") == type(said)(0, "", "")


def test_a_seed_draws_other_weights_and_the_same_one_the_same(run: Any, nets: Path) -> None:
    words = ("randomise", "cat.png", "--net", "nets.py:small", "--class", "2", "--steps", "2", "--json")
    one, again, other = (
        run(*words, "--seed", seed, "--out", out).json["steps"] for seed, out in (("1", "a"), ("1", "b"), ("2", "c"))
    )
    assert one == again != other
    assert files(Path("a")) == files(Path("b"))
    assert recipe.read("c/cat-randomise.png").parameters["class_name"] == "2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", "0"), "0 steps: a cascade needs at least 1"),
        (("--steps=-2",), "-2 steps"),
        (("--method", "gradcam"), "unknown method 'gradcam'; did you mean grad-cam"),
        (("--class", "77"), "the 10 classes are 0 to 9"),
        (("--net", "nets.py:silu", "--method", "guided-backprop"), "module '1' of nets.py:silu"),
        (("--net", "nets.py:features"), "needs a network that classifies"),
        (("--seed", "1" * 30), "a seed is a number"),
        (("--out", "cat.png", "--overwrite"), "is the photograph itself"),
    ],
)
def test_randomise_refuses_in_one_line_and_writes_nothing(
    run: Any, nets: Path, words: tuple[str, ...], message: str
) -> None:
    net = () if "--net" in words else ("--net", "nets.py:small")
    said = run("randomise", "cat.png", *net, *words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    assert sorted(path.name for path in Path().iterdir() if path.is_file()) == ["cat.png", "nets.py"]


# -- judge --------------------------------------------------------------------------------------------------------------


def test_the_table_holds_what_the_page_and_the_json_tell(run: Any, two_classes: None) -> None:
    found = run(*JUDGE, "--out", "out", "--json").json
    rows = table("out")
    assert list(rows[0]) == ["method", "check", "mean", "low", "high", "count"]
    told = {(name, check): row for name, checks in found["methods"].items() for check, row in checks.items()}
    assert [(row["method"], row["check"]) for row in rows] == list(told)
    for row in rows:
        numbers = told[row["method"], row["check"]]
        assert {key: float(row[key]) for key in numbers} == numbers
        assert numbers["low"] <= numbers["mean"] <= numbers["high"]
        page = Path("out/index.html").read_text(encoding="utf-8")
        assert f"{numbers['mean']:.3f} ({numbers['low']:.3f} to {numbers['high']:.3f})" in page
    for name in ("gradient", "grad-cam"):
        counts = {row["check"]: int(row["count"]) for row in rows if row["method"] == name}
        assert counts.pop("ssim") == counts.pop("rank") <= 3 * 2  # fewer where the class is dead in a redrawn network
        assert counts == {"insertion": 3, "deletion": 3, "drop": 3, "increase": 3, "focus": 2}
    for name in baselines.BASELINES:  # maps that know nothing of a network are not drawn again with another one
        assert {row["check"] for row in rows if row["method"] == name} == {
            "insertion", "deletion", "drop", "increase", "focus",
        }  # fmt: skip


def test_methods_in_the_terminal_come_with_their_intervals(run: Any, two_classes: None) -> None:
    words = (*swapped("--images", "7"), "--check", "insertion,deletion", "--out", "out")
    said = run(*words)
    rows = {(row["method"], row["check"]): row for row in table("out")}
    assert said.code == 0 and "insertion +" in said.out and "deletion -" in said.out
    row = rows["grad-cam", "insertion"]
    half = (float(row["high"]) - float(row["low"])) / 2
    assert re.search(rf"grad-cam +{float(row['mean']):.2f} ±{half:.2f}", said.out)
    assert said.err.startswith("phosphene: left out photos/torn.jpg: ") and said.err.count("\n") == 1
    assert run(*words, "-q") == type(said)(0, "", "")
    assert not Path("out/randomisation.png").exists() and {row["check"] for row in table("out")} == {
        "insertion",
        "deletion",
    }


def test_plots_carry_their_recipe(run: Any, two_classes: None) -> None:
    assert run(*JUDGE, "--out", "out", "-q").code == 0
    for name in ("judge", "randomisation"):
        written = recipe.read(f"out/{name}.png")
        assert (written.verb, written.picture) == ("judge-explanations", name)
        assert written.inputs.keys() == {"photos", "nets.py"}
        assert run("rerun", f"out/{name}.png", "--check", "--run-code").out == "the same bytes\n"


@pytest.mark.parametrize("place", [1, 3, 7])
def test_ctrl_c_keeps_what_was_measured_and_the_table_is_the_same_in_the_end(
    run: Any, two_classes: None, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    assert run(*JUDGE, "--out", "whole", "-q").code == 0
    calls = 0
    from phosphene.explain.judge import _Bench

    explain = _Bench.explain

    def interrupted(*words: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > place:
            raise KeyboardInterrupt
        return explain(*words)

    with monkeypatch.context() as patch:
        patch.setattr(_Bench, "explain", interrupted)
        said = run(*JUDGE, "--out", "out")
    assert said.code == 130 and sorted(files(Path("out"))) == ["records.jsonl"]
    measured = len(Path("out/records.jsonl").read_text().splitlines()) - 1
    said = run(*JUDGE, "--out", "out")
    assert f"{measured} of these measurements were made before" in said.out
    assert Path("out/table.csv").read_bytes() == Path("whole/table.csv").read_bytes()
    lines = [Path(name, "records.jsonl").read_text().splitlines() for name in ("out", "whole")]
    assert sorted(lines[0]) == sorted(lines[1]) and len(set(lines[0])) == len(lines[0])


def test_nothing_is_measured_twice(run: Any, two_classes: None, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*JUDGE, "--check", "insertion,drop,focus", "--out", "out")
    run(*words, "-q")
    before = files(Path("out"))
    for name in ("insertion", "confidence", "focus"):
        monkeypatch.setattr(f"phosphene.explain.judge.{name}", None)
    said = run(*words)
    assert said.code == 0 and files(Path("out")) == before


def test_a_typing_error_does_not_cost_the_measurements_that_it_was_to_replace(run: Any, two_classes: None) -> None:
    run(*JUDGE, "--check", "insertion", "--out", "out", "-q")
    before = files(Path("out"))
    bad = [((*JUDGE, "--check", "focuss"), "unknown check"), (swapped("--method", "gradcam"), "unknown method")]
    bad += [(swapped(option, "0"), "at least one") for option in ("--images", "--mosaics", "--steps")]
    for words, message in bad:
        said = run(*words, "--seed", "9", "--out", "out", "--overwrite")
        assert said.code == 2 and message in said.err and files(Path("out")) == before, words


def test_one_class_is_not_enough_for_focus_but_for_the_rest(run: Any, nets: Path) -> None:
    Path("one").mkdir()
    for name in "abc":
        shutil.copyfile("cat.png", f"one/{name}.png")
    words = ("judge-explanations", "one", "--net", "nets.py:small", *SMALL)
    said = run(*words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
    assert "give a folder with more, or --check without focus" in said.err and not Path("phosphene-judge").exists()
    rest = ",".join(check for check in CHECKS if check != "focus")
    assert run(*words, "--check", rest).code == 0
    assert {"insertion", "drop", "ssim"} <= {row["check"] for row in table("phosphene-judge")}


def test_the_folder_decides_the_plan_but_not_its_place(run: Any, two_classes: None) -> None:
    words = (*JUDGE[2:], "--check", "deletion", "--out", "out")
    run("judge-explanations", "photos", *words)
    before = table("out")
    shutil.move("photos", "moved")
    assert " of these measurements were made before" in run("judge-explanations", "moved", *words).out
    assert table("out") == before
    shutil.copyfile("cat.png", "moved/cat.png")
    said = run("judge-explanations", "moved", *words)
    assert said.code == 2 and "measurements of another kind" in said.err and table("out") == before


def test_log_probabilities_are_measured_apart(run: Any, two_classes: None) -> None:
    words = (*JUDGE, "--check", "insertion,focus", "--score", "log-probability")
    assert run(*JUDGE, "--check", "insertion,focus", "--out", "a", "-q").code == 0
    assert run(*words, "--out", "a").code == 2 and run(*words, "--out", "b", "-q").code == 0
    means = [{row["method"]: row["mean"] for row in table(name) if row["check"] == "insertion"} for name in "ab"]
    assert means[0]["random"] == means[1]["random"] and means[0]["gradient"] != means[1]["gradient"]
    first = json.loads(Path("a/records.jsonl").read_text().splitlines()[0])
    assert list(first) == ["plan"] and len(first["plan"]) == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--check", "focuss"), "unknown check 'focuss'; did you mean focus"),
        (("--method", "salency"), "unknown method 'salency'; did you mean saliency"),
        (("--images", "0"), "at least one method, check, image, mosaic and step"),
        (("--seed", "1" * 30), "a seed is a number"),
        (("--score", "odds"), '"odds"'),
        (("--out", "nets.py"), "'nets.py' is a file: --out needs a folder"),
        (("--out", "nets.py/deeper"), "can't make the folder"),
    ],
)
def test_judge_refuses_in_one_line_and_writes_nothing(
    run: Any, photos: Path, words: tuple[str, ...], message: str
) -> None:
    before = set(Path().rglob("*"))
    said = run("judge-explanations", "photos", "--net", "nets.py:small", *words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    assert {path for path in set(Path().rglob("*")) - before if "__pycache__" not in path.parts} == set()
