"""`robustness FOLDER` as a user runs it: the curve, its control, the matrix, the checks, and how it goes on when killed."""

from __future__ import annotations

import csv
import inspect
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import colours
import numpy as np
import pytest
import starter
from PIL import Image
from test_torchrun import TORCHRUN
from test_torchrun import start as launch

from phosphene import recipe
from phosphene.cli.journal import Journal
from phosphene.jobs import function_of
from phosphene.jobs.command import defaults
from phosphene.jobs.robustness import RADII, half

LEADS = {"red": [1, 3, 5, 9], "green": [2.5, 6], "blue": [4.5, 30]}
EPS = (0.4, 1, 2, 4, 8)  # grey levels; a photograph falls where twice of them are more than its lead
FALLS = {
    "red/r0.png": 2, "red/r1.png": 3, "red/r2.png": 4, "red/r3.png": 5, "green/g0.png": 3, "green/g1.png": 4,
    "blue/b0.png": 4, "blue/b1.png": 6,
}  # fmt: skip
RIGHT = [8, 8, 7, 5, 2, 1]
NET = ("--net", "nets.py:mean")
LEVELS = ("--eps", ",".join(f"{one}/255" for one in EPS))
ROBUST = ("robustness", "photos", *NET, *LEVELS)
PLAIN = ("--others", "none", "--no-checks")


@pytest.fixture(autouse=True)
def photos(here: Path) -> list[str]:
    """Photographs in folders of their colours, and networks that see colours."""
    (here / "nets.py").write_text(colours.NETS)
    return colours.photographs(here / "photos", LEADS)


def files(folder: Path | str) -> dict[str, bytes]:
    folder = Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def results(folder: Path | str) -> dict[str, bytes]:
    """All files but the rows, whose order tells how they were made."""
    return {name: data for name, data in files(folder).items() if not name.endswith(".jsonl")}


def counts(found: dict[str, Any], name: str = "curve") -> list[int]:
    return [one["count"] for one in found[name]]


# -- the curve ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd", "autoattack"])
def test_where_each_photograph_falls_is_known_exactly(run: Any, name: str) -> None:
    said = run(*ROBUST, *PLAIN, "--attack", name, "--out", "out", "--json")
    assert said.code == 0 and said.err == ""
    found = said.json
    assert {row["image"]: row["falls"] for row in found["photographs"]} == FALLS and counts(found) == RIGHT
    assert found["eps"] == pytest.approx([0, *(one / 255 for one in EPS)]) and found["truth"] == "folders"
    for one in found["curve"]:
        assert one["mean"] == one["count"] / 8 and 0 <= one["low"] <= one["mean"] <= one["high"] <= 1
        assert one["high"] - one["low"] > 0.2  # of eight photographs
    assert counts(found, "noise") == [8] * 6 and all(row["noise"] == [True] * 5 for row in found["photographs"])
    # Half of 8 are left between 2/255 (5) and 4/255 (2): a third of the way, in logarithms.
    assert found["half"] * 255 == pytest.approx(2 * 2 ** (1 / 3), rel=1e-6)


def test_l2(run: Any) -> None:
    eps = (0.12, 0.24, 0.42, 0.65)
    found = run(*ROBUST[:4], *PLAIN, "--norm", "l2", "--eps", ",".join(map(str, eps)), "--out", "out", "--json").json
    for row in found["photographs"]:
        colour, place = row["image"].split("/")[0], int(row["image"][-5])
        least = LEADS[colour][place] / 2 * 2048**0.5 / 255  # two means, each moves by half
        assert row["falls"] == 1 + sum(one <= least for one in eps), row
    assert len({row["falls"] for row in found["photographs"]}) == 5 and found["norm"] == "l2"


def test_misread_photographs_are_never_right(run: Any) -> None:
    shutil.move("photos/red/r3.png", "photos/green/wrong.png")
    found = run(*ROBUST, *PLAIN, "--out", "out", "--json").json
    assert counts(found) == [7, 7, 6, 4, 1, 1] and counts(found, "noise") == [7] * 6
    told = {row["image"]: row for row in found["photographs"]}
    assert told["green/wrong.png"]["falls"] == 0 and told["green/wrong.png"]["backwards"] == 0


def test_each_photograph_pays_for_one_attack_without_success_at_most(run: Any) -> None:
    found = run(*ROBUST, *PLAIN, "--steps", "25", "--out", "out", "--json").json
    # Here the one step finds all: one look along the gradient, then one attack that fails just below.
    assert max(row["backwards"] for row in found["photographs"]) <= 1 + 25 + 25
    assert next(row for row in found["photographs"] if row["falls"] == 6)["backwards"] == 26


def test_noise_is_the_control_and_falls_when_it_must(run: Any) -> None:
    """A change of one half is beyond [0, 1] for many values: clipped noise mixes colours up."""
    found = run(*ROBUST[:4], *PLAIN, "--eps", "1/255,0.9", "--out", "out", "--json").json
    assert counts(found, "noise")[:2] == [8, 8] and counts(found)[2] == 0
    assert counts(found, "noise")[2] <= 8
    for level, one in enumerate(found["noise"]):
        right = sum(row["falls"] > 0 and all(row["noise"][:level]) for row in found["photographs"])
        assert one["count"] == right


@pytest.mark.parametrize(
    ("eps", "accuracy", "wanted"),
    [
        ((1, 2, 4), (1.0, 0.5, 0.2, 0.0), 1), ((1, 2, 4), (1.0, 0.8, 0.5, 0.0), 2),
        ((1, 2, 4), (1.0, 1.0, 0.75, 0.25), 2.8284),
        ((1, 2, 4), (0.8, 0.8, 0.5, 0.3), 2.8284), ((1, 2, 4), (1.0, 0.9, 0.8, 0.51), None), ((1, 4), (1.0, 1.0, 0.0), 2),
        ((3,), (1.0, 0.2), 3), ((3,), (1.0, 0.9), None),
    ],
)  # fmt: skip
def test_half(eps: tuple[float, ...], accuracy: tuple[float, ...], wanted: float | None) -> None:
    found = half(eps, accuracy)
    assert found == (None if wanted is None else pytest.approx(wanted, rel=1e-4))


def test_the_usual_radii(run: Any) -> None:
    found = run(*ROBUST[:4], *PLAIN, "--steps", "3", "--images", "2", "--out", "out", "--json").json
    assert tuple(found["eps"][1:]) == RADII["linf"] and found["images"] == 2
    found = run(*ROBUST[:4], *PLAIN, "--norm", "l2", "--steps", "3", "--images", "2", "--out", "b", "--json").json
    assert tuple(found["eps"][1:]) == RADII["l2"]


# -- files, page, terminal ----------------------------------------------------------------------------------------------


def test_files_tell_the_same_numbers(run: Any) -> None:
    found = run(*ROBUST, "--others", "nets.py:bent", "--out", "out", "--json").json
    assert found["written"] == [f"out/{name}" for name in ("index.html", "robustness.png", "transfer.png", "curve.csv")]
    with open("out/curve.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    page = Path("out/index.html").read_text(encoding="utf-8")
    for row, eps, one, noise in zip(table, found["eps"], found["curve"], found["noise"], strict=True):
        assert [float(row[key]) for key in ("eps", "accuracy", "low", "high", "noise")] == [
            eps, one["mean"], one["low"], one["high"], noise["mean"]
        ]  # fmt: skip
        assert int(row["images"]) == 8 and f"{one['mean']:.1%} ({one['low']:.1%} to {one['high']:.1%})" in page
    for name in ("robustness", "transfer"):
        picture = np.asarray(Image.open(f"out/{name}.png").convert("RGB"))
        assert picture.std() > 5 and (picture[[0, -1]] > 250).all() and (picture[:, [0, -1]] > 250).all()
    assert "default-src 'none'" in page and "Malicious examples generalise" in page
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', page))


def test_the_terminal_tells_the_curve_the_matrix_and_that_all_is_well(run: Any) -> None:
    said = run(*ROBUST, "--others", "nets.py:bent", "--out", "out")
    assert said.code == 0 and said.err == ""
    line = next(line for line in said.out.splitlines() if line.split()[:1] == ["2/255"])
    assert line.split() == ["2/255", "62.5%", "30.6%", "to", "86.3%", "100.0%"]
    assert "Half of what it sees rightly falls by 2.5/255." in said.out
    assert "No sign of masked gradients (7 checks)." in said.out
    assert "misread after changes of 8/255 made on (row) and shown to (column)" in " ".join(said.out.split())
    assert "wrote out/index.html, out/robustness.png, out/transfer.png, out/curve.csv" in said.out
    assert run(*ROBUST, "--others", "nets.py:bent", "--out", "out", "-q") == type(said)(0, "", "")


def test_without_others_and_checks_nothing_is_said_of_them(run: Any) -> None:
    said = run(*ROBUST, *PLAIN, "--out", "out")
    assert "masked" not in said.out and "misread after" not in said.out
    assert sorted(files("out")) == [
        "curve.csv", "index.html", "robustness.jsonl", "robustness.png", "robustness.png.json"
    ]  # fmt: skip
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "Can it be believed" not in page and "generalise" not in page and "not looked for" in page


def test_a_matrix_that_is_not_asked_for_again_goes_away(run: Any) -> None:
    assert run(*ROBUST, "--no-checks", "--others", "nets.py:bent", "--out", "out", "-q").code == 0
    assert Path("out/transfer.png").exists()
    assert run(*ROBUST, *PLAIN, "--out", "out", "-q").code == 0
    assert not Path("out/transfer.png").exists() and not Path("out/transfer.png.json").exists()


def test_pictures_are_made_again_byte_for_byte(run: Any) -> None:
    assert run(*ROBUST, "--others", "nets.py:bent,nets.py:big", "--out", "out", "-q").code == 0
    for name in ("robustness", "transfer"):
        assert run("rerun", f"out/{name}.png", "--check", "--run-code").out == "the same bytes\n"
        found = recipe.read(f"out/{name}.png")
        assert (found.verb, found.picture) == ("robustness", name)
        assert set(found.networks) == {"nets.py:mean", "nets.py:bent", "nets.py:big"}


def test_the_command_line_hands_over_every_option(run: Any) -> None:
    assert run(*ROBUST[:4], "--images", "1", "--steps", "1", *PLAIN, "--out", "out", "-q").code == 0
    found = recipe.read("out/robustness.png").parameters
    assert set(found) == set(inspect.signature(function_of("robustness")).parameters) - {"workshop", "known", "keep"}
    given = {
        "folder": "photos",
        "net": "nets.py:mean",
        "images": 1,
        "steps": 1,
        "eps": [],
        "others": [],
        "checks": False,
    }
    assert found == {**defaults("robustness"), **given}


def test_the_same_seed_gives_the_same_files(run: Any) -> None:
    words = ("robustness", "photos", "--net", "nets.py:bent", "--others", "nets.py:other", *LEVELS)
    for out in "ab":
        assert run(*words, "--seed", "4", "--out", out, "-q").code == 0
    assert files("a") == files("b")


def test_photographs_that_cannot_be_read_are_left_out_and_told(run: Any) -> None:
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    said = run(*ROBUST, *PLAIN, "--out", "out", "--json")
    assert said.err.count("\n") == 1 and "left out red/torn.jpg: " in said.err
    assert said.json["images"] == 8 and counts(said.json) == RIGHT and list(said.json["skipped"]) == ["red/torn.jpg"]


def test_attacks_are_listed_without_a_folder(run: Any) -> None:
    assert len(run("robustness", "--attack", "list", "--json").json["attacks"]) >= 13


# -- other networks -----------------------------------------------------------------------------------------------------


def test_the_matrix_of_networks_that_are_the_same_in_all_but_name(run: Any) -> None:
    Path("twin.py").write_text(Path("nets.py").read_text())
    found = run(*ROBUST, "--others", "twin.py:mean", "--no-checks", "--transfer-eps", "4/255", "--out", "out", "--json")
    across = found.json["transfer"]
    assert across["names"] == ["nets.py:mean", "twin.py:mean"] and across["eps"] == pytest.approx(4 / 255)
    assert across["rate"] == [[0.75, 0.75], [0.75, 0.75]]  # six of eight fall to 4 grey levels
    assert across["count"] == [[8, 8], [8, 8]] and across["control"] == [0, 0]


def test_networks_of_another_size_are_compared(run: Any) -> None:
    found = run(*ROBUST, "--others", "nets.py:big", "--no-checks", "--out", "out", "--json").json["transfer"]
    assert all(0 <= rate <= 1 for row in found["rate"] for rate in row) and found["rate"][0][0] == 7 / 8
    assert found["count"][0][1] == found["count"][1][0] > 4


def test_the_bundled_networks_are_compared_by_themselves(run: Any, cat: Path) -> None:
    Path("cats").mkdir()
    Image.open(cat).convert("RGB").crop((80, 20, 380, 300)).save("cats/a.png")
    words = ("robustness", "cats", "--net", "squeezenet1_1", "--eps", "0.5/255", "--steps", "2", "--no-checks")
    found = run(*words, "--out", "out", "--json").json
    assert found["transfer"]["names"] == ["squeezenet1_1", "efficientnet_lite0"] and found["truth"] == "predicted"
    assert found["transfer"]["rate"][0][0] == 1.0 and found["curve"][0]["count"] == 1


@pytest.mark.parametrize("words", [
    ("--net", "nets.py:soft", "--others", "nets.py:mean"), ("--net", "nets.py:mean", "--others", "nets.py:soft"),
])  # fmt: skip
def test_networks_that_give_probabilities_have_a_matrix_too(run: Any, words: tuple[str, ...]) -> None:
    said = run(
        "robustness", "photos", *words, *LEVELS, "--no-checks", "--transfer-eps", "4/255", "--out", "out", "--json"
    )
    assert said.code == 0, said.err
    assert said.json["transfer"]["rate"] == [[0.75, 0.75], [0.75, 0.75]]


# -- can it be believed? ------------------------------------------------------------------------------------------------


def test_masked_gradients_are_shouted(run: Any) -> None:
    said = run("robustness", "photos", "--net", "nets.py:waves", *LEVELS, "--others", "none", "--out", "out")
    assert said.code == 0
    shouts = [line for line in said.err.splitlines() if line.startswith("phosphene: GRADIENT MASKING, check ")]
    assert len(shouts) >= 3 and any("Square" in line for line in shouts)
    assert said.err.splitlines()[-1] == (
        "phosphene: these accuracies are too good to be true, and nothing to report: attacks by gradients are blind to this"
        " network"
    )
    assert len(shouts) + 1 == said.err.count("\n") and "No sign" not in said.out
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "too good to be true" in page and page.count(">FAILED<") == len(shouts)
    assert f"{len(shouts)} of 7 checks shout" in page
    found = run("robustness", "photos", "--net", "nets.py:waves", *LEVELS, "--others", "none", "--out", "out", "--json")
    assert found.json["masked"] is True and sum(not one["passed"] for one in found.json["findings"]) == len(shouts)


def test_honest_gradients_are_believed(run: Any) -> None:
    found = run(*ROBUST, "--others", "none", "--out", "out", "--json").json
    assert found["masked"] is False and len(found["findings"]) == 7 and all(one["passed"] for one in found["findings"])


def test_a_step_that_cannot_be_differentiated_is_found_and_a_black_box_is_proposed(run: Any) -> None:
    words = ("robustness", "photos", "--net", "nets.py:steps", *LEVELS, "--others", "none", "--out", "out")
    said = run(*words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and not Path("out").exists()
    assert "no gradient" in said.err and "attack it with Square" in said.err
    said = run(*words, "--attack", "square", "--steps", "200")
    assert said.code == 0 and "GRADIENT MASKING, check zero-gradients" in said.err
    assert counts(run(*words, "--attack", "square", "--steps", "200", "--json").json)[-1] < 8


def test_probabilities_are_found_said_and_attacked(run: Any) -> None:
    said = run("robustness", "photos", "--net", "nets.py:soft", *LEVELS, "--others", "none", "--out", "out")
    assert said.code == 0 and "nets.py:soft gives probabilities, not logits" in said.err and said.err.count("\n") == 1
    with open("out/curve.csv", encoding="utf-8") as file:
        assert [round(float(row["accuracy"]) * 8) for row in csv.DictReader(file)] == RIGHT


def test_a_network_in_train_mode_and_one_that_sees_grey(run: Any) -> None:
    words = ("robustness", "photos", "--truth", "predicted", *LEVELS, *PLAIN, "--json")
    one, two = (run(*words, "--net", "nets.py:train", "--out", out).json for out in "ab")
    assert one["photographs"] == two["photographs"] and counts(one)[-1] < counts(one)[0] == 8
    found = run(*words, "--net", "nets.py:grey", "--out", "grey").json
    assert counts(found) == sorted(counts(found), reverse=True) and counts(found)[-1] < 8


# -- again, and after an interruption -----------------------------------------------------------------------------------


@pytest.fixture
def start(here: Path) -> Iterator[starter.Start]:
    with starter.starter(here, {"PHOSPHENE_OFFLINE": "1", "PHOSPHENE_CACHE": os.environ["PHOSPHENE_CACHE"]}) as begin:
        yield begin


LONG = ("robustness", "photos", "--net", "nets.py:bent", *LEVELS, "--steps", "10", "--others", "nets.py:other")


def test_killed_at_any_moment_it_goes_on_to_the_same_results(start: starter.Start) -> None:
    assert start(*LONG, "--out", "whole", together=3).code == 0
    whole = results("whole")
    assert set(whole) >= {"curve.csv", "index.html", "robustness.png", "transfer.png"}
    lines = len(Path("whole/robustness.jsonl").read_text().splitlines())
    for turn, (after, missing) in enumerate([(0, 0), (1, 0), (2, 5), (3, 200), (4, 0), (5, 17), (7, 1), (7, 0)]):
        out = f"out{turn}"
        ended = start(*LONG, "--out", out, together=3, rows=[after, missing])
        assert ended.code == -9 and results(out) == {}
        ended = start(*LONG, "--out", out, together=3)
        assert ended.code == 0 and ended.err == "" and results(out) == whole, (after, missing)
        found = [line for line in Path(out, "robustness.jsonl").read_text().splitlines() if line.endswith("}")]
        assert len({json.loads(line)["key"] for line in found if line.startswith("{")}) == lines


def test_the_rows_of_a_run_that_was_killed_are_in_the_end_those_of_one_that_was_not(start: starter.Start) -> None:
    assert start(*LONG, "--out", "whole", together=3).code == 0
    assert start(*LONG, "--out", "out", together=3, rows=[2, 5]).code == -9
    assert start(*LONG, "--out", "out", together=3).code == 0
    assert files("out") == files("whole")


def test_ctrl_c_keeps_what_was_measured(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.jobs.robustness.TOGETHER", 3)
    assert run(*LONG, "--out", "whole", "-q").code == 0
    keep, count = Journal.keep, 0

    def interrupted(self: Journal, made: Any) -> None:
        nonlocal count
        keep(self, made)
        count += 1
        if count == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", interrupted)
        said = run(*LONG, "--out", "out")
    assert said.code == 130 and said.err.count("\n") == 1 and sorted(files("out")) == ["robustness.jsonl"]
    assert run(*LONG, "--out", "out").code == 0 and files("out") == files("whole")


def test_nothing_is_measured_twice_and_parts_are_added(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(*LONG, "--out", "out", "-q").code == 0
    before = files("out")
    with monkeypatch.context() as patch:
        for name in ("curve", "transfer", "masking"):
            patch.setattr(f"phosphene.jobs.robustness.{name}", None)
        assert run(*LONG, "--out", "out", "-q").code == 0 and files("out") == before
        assert run(*LONG[:-2], *PLAIN, "--out", "out", "-q").code == 0  # fewer parts need nothing new
    assert run(*LONG[:-2], "--others", "nets.py:mean", "--out", "out", "-q").code == 0
    assert run(*LONG[:-2], "--others", "nets.py:mean", "--out", "fresh", "-q").code == 0
    assert results("out") == results("fresh")


def test_other_options_are_refused_and_what_was_measured_is_kept(run: Any) -> None:
    assert run(*ROBUST, *PLAIN, "--out", "out", "-q").code == 0
    before = files("out")
    for words in (
        ("--seed", "1"),
        ("--attack", "fgsm"),
        ("--steps", "3"),
        ("--eps", "1/255"),
        ("--norm", "l2", "--eps", "1"),
    ):
        said = run(*ROBUST[:4], *(LEVELS if "--eps" not in words else ()), *words, *PLAIN, "--out", "out")
        assert (
            said.code == 2 and said.err.count("\n") == 1 and "give --overwrite" in said.err and files("out") == before
        )
    said = run(*ROBUST, *PLAIN, "--steps", "0", "--out", "out", "--overwrite")
    assert said.code == 2 and files("out") == before
    assert run(*ROBUST, *PLAIN, "--seed", "1", "--out", "out", "--overwrite", "-q").code == 0
    assert run(*ROBUST, *PLAIN, "--seed", "1", "--out", "fresh", "-q").code == 0 and files("out") == files("fresh")


def test_fewer_photographs_after_more(run: Any) -> None:
    assert run(*ROBUST, *PLAIN, "--images", "4", "--out", "out", "-q").code == 0
    words = (*ROBUST, "--others", "nets.py:bent", "--images", "2")
    assert run(*words, "--out", "out", "-q").code == 0
    assert run(*words, "--out", "fresh", "-q").code == 0 and results("out") == results("fresh")


def test_a_photograph_that_is_added(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The matrix and the checks are made of the photographs that they say."""
    monkeypatch.setattr("phosphene.jobs.robustness.TOGETHER", 3)
    words = (*ROBUST, "--others", "nets.py:bent", "--no-checks", "--transfer-eps", "1/255")
    assert run(*words, "--out", "out", "-q").code == 0
    colours.photograph(Path("photos/blue/a.png"), "blue", 30, seed=77)
    for place in range(2):  # the last group is as it was
        colours.photograph(Path(f"photos/blue/z{place}.png"), "blue", 30, seed=78 + place)
    found, fresh = (run(*words, "--out", out, "--json").json for out in ("out", "fresh"))
    assert counts(found) == counts(fresh)
    assert [row["place"] for row in found["photographs"]] == list(range(11))
    assert found["transfer"] == fresh["transfer"]


def test_two_photographs_that_are_the_same_file(run: Any) -> None:
    shutil.copyfile("photos/red/r0.png", "photos/red/again.png")
    first, again = (run(*ROBUST, *PLAIN, "--out", "out", "--json").json["photographs"] for _ in range(2))
    assert len({row["image"] for row in first}) == 9
    assert [row["image"] for row in again] == [row["image"] for row in first]


def test_a_second_run_tells_the_same(run: Any) -> None:
    assert run(*ROBUST, *PLAIN, "--out", "out", "--json").out == run(*ROBUST, *PLAIN, "--out", "out", "--json").out


def test_other_code_with_the_same_weights_is_another_network(run: Any) -> None:
    assert run(*ROBUST, *PLAIN, "--out", "out", "-q").code == 0
    code = (
        Path("nets.py").read_text().replace("return self.conv(x).mean((2, 3))", "return self.conv(1 - x).mean((2, 3))")
    )
    Path("nets.py").write_text(code)
    said = run(*ROBUST, *PLAIN, "--out", "out", "--json")
    assert said.code == 2 or counts(said.json)[0] == 0  # it sees the weakest colour now


def test_another_network_that_has_changed_is_another_network(run: Any) -> None:
    Path("rival.py").write_text(colours.NETS)
    words = (*ROBUST, "--others", "rival.py:bent", "--no-checks")
    first = run(*words, "--out", "out", "--json").json["transfer"]
    Path("rival.py").write_text(
        colours.NETS.replace("def bent():\n    return made(Bent())", "def bent():\n    return made(Bent(9))")
    )
    fresh = run(*words, "--out", "fresh", "--json").json["transfer"]
    assert fresh != first
    said = run(*words, "--out", "out", "--json")
    assert said.code == 2 or said.json["transfer"] == fresh


# -- several processes --------------------------------------------------------------------------------------------------


@pytest.fixture
def by_two(here: Path) -> Path:
    for place in range(16):
        colours.photograph(Path(f"photos/blue/x{place:02}.png"), "blue", 1 + place, seed=50 + place)
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    words = (*LONG, "--images", "0", "--device", "cpu")
    one = launch(here, (*words, "--out", "one"))
    two = launch(here, (*words, "--out", "two"), TORCHRUN)
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout == one.stdout.replace("one/", "two/") and two.stderr.count("left out red/torn.jpg") == 1
    return here


def test_two_processes_measure_what_one_does(by_two: Path, request: pytest.FixtureRequest) -> None:
    assert results("one") == results("two")
    lines = [sorted(line for path in Path(name).glob("*.jsonl") for line in path.open()) for name in ("one", "two")]
    assert lines[0] == lines[1] and len(lines[0]) > 25
    assert sorted(files("one")) == sorted(files("two"))


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD = [
    ((), "there is no folder: give one of photographs"),
    (("cat.png", *NET), "'cat.png' is no folder"),
    (("empty", *NET), "holds no image files"),
    (("torn", *NET), "none of the 1 photographs could be read"),
    (("photos", *NET, "--eps", "8"), "a radius is in units of [0, 1], got '8': did you mean 8/255?"),
    (("photos", *NET, "--eps", "1/255,2,4/255"), "did you mean 2/255?"),
    (("photos", *NET, "--eps=-1/255,2/255"), "a radius is 0 or more"),
    (("photos", *NET, "--eps", "0,1/255"), "a curve's radii are above 0, got 0"),
    (("photos", *NET, "--eps", "1/255,1/255"), "one is given twice"),
    (("photos", *NET, "--eps", ","), "no radius in ','"),
    (("photos", *NET, "--eps", "much"), "'much' is no radius"),
    (("photos", *NET, "--transfer-eps", "8"), "did you mean 8/255?"),
    (("photos", *NET, "--norm", "l2", "--eps", "99"), "did you mean 99/255?"),
    (("photos", *NET, "--attack", "pgdd"), "there is no attack 'pgdd'; did you mean pgd"),
    (("photos", *NET, "--attack", "deepfool"), "deepfool measures in l2, not in linf"),
    (("photos", *NET, "--attack", "fgsm", "--steps", "3"), "fgsm takes one step: leave --steps away"),
    (("photos", *NET, "--steps", "0"), "steps start at 1, got 0"),
    (("photos", *NET, "--norm", "l1"), '"l1"'),
    (("photos", *NET, "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
    (("photos", *NET, "--others", "nets.py:mean"), "'nets.py:mean' is the network itself"),
    (("photos", *NET, "--others", "nets.py:gone"), "has no function 'gone'"),
    (("photos", *NET, "--others", "squeezenet1_1"), "have different classes (3 and 1000)"),
    (("photos", *NET, "--others", "nets.py:named"), "have different classes (number 0 is red and left)"),
    (("photos", "--net", "nets.py:named", "--truth", "folders"), "no class of the folder names 'blue', 'green', 'red'"),
    (("photos", "--net", "nets.py:gone"), "has no function 'gone'"),
    (("photos", *NET, "--out", "cat.png"), "is one file: --out needs a folder"),
    (("photos", *NET, "--out", "nets.py/deeper"), "can't make the folder"),
]
LATE = {"squeezenet1_1", "nets.py:named"}


@pytest.mark.parametrize(
    ("words", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Any, words: tuple[str, ...], message: str, request: pytest.FixtureRequest
) -> None:
    Path("empty").mkdir()
    Path("torn").mkdir()
    Path("torn/torn.jpg").write_bytes(b"\xff\xd8\xff")
    before = files(".")
    said = run("robustness", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("phosphene: ") and said.err.count("\n") == 1 and message in said.err
    assert {name: data for name, data in files(".").items() if "__pycache__" not in name} == before
    assert not Path("phosphene-robustness").exists()


def test_a_negative_number_of_photographs(run: Any) -> None:
    said = run(*ROBUST, "--images=-2", "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1


@pytest.mark.parametrize("name", ["index.html", "curve.csv", "robustness.png"])
def test_a_file_of_somebody_else_is_kept(run: Any, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_bytes(b"mine")
    run(*ROBUST, *PLAIN, "--out", "out", "-q")
    assert Path("out", name).read_bytes() == b"mine"


def test_a_network_that_is_right_about_nothing(run: Any) -> None:
    shutil.move("photos/red", "photos/tmp")
    shutil.move("photos/green", "photos/red")
    shutil.move("photos/tmp", "photos/green")
    shutil.rmtree("photos/blue")
    said = run(*ROBUST, "--others", "nets.py:bent", "--out", "out", "--json")
    assert said.code == 0 and counts(said.json) == [0] * 6
    assert (
        said.json["transfer"] is None and said.json["findings"] == [] and not math.isnan(said.json["curve"][0]["high"])
    )
