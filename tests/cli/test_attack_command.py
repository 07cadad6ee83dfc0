"""`attack FOLDER` as a user runs it: what it writes and tells, what it refuses, and how it goes on where it was killed."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import colours
import numpy as np
import pytest
import starter
from PIL import Image
from test_torchrun import TORCHRUN
from test_torchrun import start as launch

import phosphene
from phosphene import images, recipe
from phosphene.attacks import ATTACKS
from phosphene.jobs import function_of
from phosphene.jobs.command import command_line, defaults

LEADS = {"red": [1, 3, 5, 9], "green": [2.5, 6], "blue": [4.5, 30]}
FOOLED = {4: {"blue/b0.png", "green/g0.png", "green/g1.png", "red/r0.png", "red/r1.png", "red/r2.png"}}
FOOLED[2] = {"green/g0.png", "red/r0.png", "red/r1.png"}
NET = ("--net", "nets.py:mean")
ATTACK = ("attack", "photos", *NET)


@pytest.fixture(autouse=True)
def photos(here: Path) -> list[str]:
    """Photographs in folders of their colours, and networks that see colours."""
    (here / "nets.py").write_text(colours.NETS)
    return colours.photographs(here / "photos", LEADS)


def rows(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "attack.jsonl").read_text().splitlines()]


def files(folder: Path | str) -> dict[str, bytes]:
    folder = Path(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


# -- what it finds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "name"), [(2, "pgd"), (4, "pgd"), (4, "fgsm"), (2, "apgd"), (4, "autoattack")])
def test_who_is_fooled_is_known_exactly(run: Any, photos: list[str], levels: int, name: str) -> None:
    said = run(*ATTACK, "--attack", name, "--eps", f"{levels}/255", "--out", "out", "--json")
    assert said.code == 0 and said.err == ""
    found = said.json
    told = {row["image"]: row for row in found["rows"]}
    assert sorted(told) == photos and {image for image, row in told.items() if row["success"]} == FOOLED[levels]
    for row in told.values():
        assert row["label"]["name"] == row["image"].split("/")[0] == row["before"]["name"] and not row["wrong"]
        assert row["survives"] == row["success"] == (row["after"]["name"] != row["label"]["name"])
        assert row["linf"] <= levels / 255 + 1e-6 and row["forwards"] >= 1 <= row["backwards"]
    count = len(FOOLED[levels])
    one = found["attacks"][name]
    assert (one["attacked"], one["fooled"], one["survives"]) == (8, count, count)
    assert one["accuracy"]["mean"] == pytest.approx((8 - count) / 8) and one["accuracy"]["count"] == 8 - count
    assert one["accuracy"]["low"] < one["accuracy"]["mean"] < one["accuracy"]["high"]
    assert found["clean"]["mean"] == 1 and found["worst"] == one["accuracy"] and found["truth"] == "folders"


def test_pictures_fool_the_network_as_files_and_lie_within_eps(run: Any) -> None:
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    network = phosphene.load("nets.py:mean", device="cpu")
    made = {row["name"]: row for row in rows("out") if row["success"]}
    assert {path.name for path in Path("out/pictures").iterdir()} == {
        f"{name}--pgd.png{end}" for name in made for end in ("", ".json")
    }
    assert {path.name for path in Path("out/sheets").iterdir()} == {f"{name}--pgd.jpg" for name in made}
    for name, row in made.items():
        change = pixels(f"out/pictures/{name}--pgd.png") - pixels(f"photos/{row['image']}")
        assert np.abs(change).max() == round(row["linf"] * 255) <= 4
        assert np.linalg.norm(change / 255) == pytest.approx(row["l2"], rel=1e-5)
        (seen,) = network.predict(images.read(f"out/pictures/{name}--pgd.png"), 1)
        assert seen.names[0] == row["after"]["name"] != row["label"]["name"]
        assert seen.probabilities[0] == pytest.approx(row["after"]["probability"], rel=1e-6)
        sheet = pixels(f"out/sheets/{name}--pgd.jpg")
        assert sheet.shape[1] > 3 * 224 and (sheet[[0, -1]] > 240).all() and (sheet[:, [0, -1]] > 240).all()


def test_misread_photographs_are_told_apart_and_never_count_as_success(run: Any, here: Path) -> None:
    shutil.move("photos/red/r3.png", "photos/green/wrong.png")
    shutil.copyfile("photos/blue/b1.png", "photos/green/wrong2.png")
    said = run(*ATTACK, "--attack", "pgd,square", "--eps", "4/255", "--out", "out", "--json")
    found = said.json
    wrong = [row for row in found["rows"] if row["wrong"]]
    assert {row["image"] for row in wrong} == {"green/wrong.png", "green/wrong2.png"} and len(wrong) == 4
    assert not any(row["success"] or row["survives"] or row["l2"] or row["backwards"] for row in wrong)
    assert (found["images"], found["wrong"]) == (9, 2) and found["clean"]["mean"] == pytest.approx(7 / 9)
    assert found["attacks"]["pgd"]["attacked"] == 7 and found["attacks"]["pgd"]["fooled"] == 6
    assert found["attacks"]["pgd"]["accuracy"]["mean"] == pytest.approx(1 / 9)
    plain = run(*ATTACK, "--attack", "pgd,square", "--eps", "4/255", "--out", "out")
    assert "77.8% of 9 photographs rightly without an attack (2 misread ones were not attacked" in plain.out
    assert not list(Path("out/pictures").glob("wrong*"))
    assert "2 are misread as they are, and were not attacked" in Path("out/index.html").read_text()


def test_of_several_attacks_the_worst_counts_for_each_photograph(run: Any) -> None:
    said = run(*ATTACK, "--attack", "fgsm,pgd,square", "--eps", "2/255", "--out", "out", "--json")
    found = said.json
    assert list(found["attacks"]) == ["fgsm", "pgd", "square"] and len(found["rows"]) == 24
    assert [one["norm"] for one in found["attacks"].values()] == ["linf"] * 3
    fallen = {row["image"] for row in found["rows"] if row["success"]}
    assert found["worst"]["count"] == 8 - len(fallen) and fallen == FOOLED[2]
    assert not found["attacks"]["square"]["backwards"]


def test_attacks_of_different_limits_have_no_worst_of_them(run: Any) -> None:
    said = run(*ATTACK, "--attack", "fgsm,deepfool", "--eps", "2/255", "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1
    assert "fgsm measures in linf and deepfool in l2, so that one --eps means two things" in said.err
    assert run(*ATTACK, "--attack", "fgsm,deepfool", "--steps", "9", "--out", "out", "--json").json["worst"] is None


def test_with_a_target_right_means_seen_as_what_it_is(run: Any) -> None:
    """What is pushed towards green and falls to blue on the way is no success, and isn't right either."""
    found = run(*ATTACK, "--attack", "pgd", "--eps", "60/255", "--target", "green", "--out", "out", "--json").json
    right = sum(
        not row["wrong"] and row["after"]["index"] == row["label"]["index"] for row in found["rows"] if "after" in row
    )
    assert found["attacks"]["pgd"]["accuracy"]["count"] == right


def test_smallest_changes_need_no_eps_and_are_as_small_as_they_can_be(run: Any) -> None:
    said = run(*ATTACK, "--attack", "deepfool,fab", "--steps", "30", "--out", "out", "--json")
    told = {(row["attack"], row["image"]): row for row in said.json["rows"]}
    assert said.json["attacks"]["deepfool"]["eps"] is said.json["attacks"]["fab"]["eps"] is None
    for name, lead in zip([f"red/r{n}.png" for n in range(4)], LEADS["red"], strict=True):
        # `lead` levels between two means: in L2 each of 2 x 1024 values moves by half of it, in whole levels.
        least, most = (levels * 2048**0.5 / 255 for levels in (lead / 2, int(lead / 2) + 1))
        assert told["deepfool", name]["success"] and least * 0.99 <= told["deepfool", name]["l2"] <= most * 1.01
        assert told["fab", name]["linf"] == pytest.approx((int(lead / 2) + 1) / 255, abs=1e-6)


def test_a_target_is_reached_and_photographs_of_it_are_left_out(run: Any) -> None:
    said = run(*ATTACK, "--target", "green", "--eps", "4/255", "--out", "out", "--json")
    assert said.code == 0 and said.err.count("\n") == 2
    found = said.json
    assert found["target"] == {"index": 1, "name": "green"} and set(found["skipped"]) == {
        "green/g0.png",
        "green/g1.png",
    }
    assert set(found["skipped"].values()) == {"it is of the target's class already"}
    told = [row for row in found["rows"] if "skipped" not in row]
    assert {row["after"]["name"] for row in told if row["success"]} == {"green"} and found["images"] == 6
    assert {row["image"] for row in told if row["success"]} == {"red/r0.png", "red/r1.png", "red/r2.png"}
    plain = run(*ATTACK, "--target", "green", "--eps", "4/255", "--out", "out")
    assert plain.err.count("\n") == 2 and "left out green/g0.png: it is of the target's class already" in plain.err


def test_what_the_network_sees_counts_as_true_where_nothing_says_more(run: Any) -> None:
    Path("flat").mkdir()
    for place, path in enumerate(sorted(Path("photos").rglob("*.png"))):
        shutil.copyfile(path, f"flat/{place}.png")
    said = run("attack", "flat", *NET, "--eps", "4/255", "--out", "out")
    assert said.code == 0 and said.err.count("\n") == 1 and "doesn't say what is true" in said.err
    assert len([row for row in rows("out") if row["success"]]) == 6
    said = run("attack", "flat", *NET, "--eps", "4/255", "--target", "red", "--out", "to red", "--json")
    assert len(said.json["skipped"]) == 4 and "sees the target in it already" in str(said.json["skipped"])


# -- networks of many kinds ---------------------------------------------------------------------------------------------


def test_probabilities_are_found_said_and_attacked(run: Any) -> None:
    said = run("attack", "photos", "--net", "nets.py:soft", "--eps", "4/255", "--out", "out")
    assert said.code == 0 and said.err.count("\n") == 1
    assert "nets.py:soft gives probabilities, not logits" in said.err
    assert {row["image"] for row in rows("out") if row["success"]} == FOOLED[4]


def test_a_step_that_cannot_be_differentiated_is_found_and_a_black_box_is_proposed(run: Any) -> None:
    said = run("attack", "photos", "--net", "nets.py:steps", "--eps", "8/255", "--out", "out")
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
    assert "no gradient" in said.err and "attack it with Square" in said.err and not Path("out").exists()
    said = run(
        "attack", "photos", "--net", "nets.py:steps", "--attack", "square", "--steps", "300", "--eps", "8/255", "--json"
    )
    assert said.code == 0 and said.json["attacks"]["square"]["fooled"] >= 1


def test_a_network_in_train_mode_is_attacked_in_eval_mode(run: Any) -> None:
    words = ("attack", "photos", "--net", "nets.py:train", "--truth", "predicted", "--eps", "4/255", "--json")
    one, two = run(*words, "--out", "a").json, run(*words, "--out", "b").json
    assert one["rows"] == two["rows"] and one["attacks"]["pgd"]["survives"] == one["attacks"]["pgd"]["fooled"] > 0


def test_a_network_that_sees_grey(run: Any) -> None:
    words = ("attack", "photos", "--net", "nets.py:grey", "--truth", "predicted", "--eps", "20/255", "--out", "out")
    found = run(*words, "--json").json
    assert found["attacks"]["pgd"]["fooled"] == found["attacks"]["pgd"]["survives"] > 0
    name = next(row["name"] for row in found["rows"] if row["success"])
    made = pixels(f"out/pictures/{name}--pgd.png")
    assert (made[..., 0] == made[..., 1]).all() and (made[..., 0] == made[..., 2]).all()


# -- the page, the terminal ---------------------------------------------------------------------------------------------


def test_the_page_shows_who_was_fooled_and_links_to_files_that_are_there(run: Any) -> None:
    words = (*ATTACK, "--attack", "pgd,fgsm", "--eps", "2/255", "--out", "out")
    assert run(*words, "-q").code == 0
    page = Path("out/index.html").read_text(encoding="utf-8")
    links = {unquote(link) for link in re.findall(r'(?:src|href)="([^"]*)"', page)} - {"data:,"}
    assert all(Path("out", link).is_file() for link in links)
    assert links == {"accuracy.png"} | {
        f"{place}/{name}--{attack}.{kind}"
        for name in ("g0", "r0", "r1") for attack in ("pgd", "fgsm")
        for place, kind in (("pictures", "png"), ("sheets", "jpg"))
    }  # fmt: skip
    assert page.count("<article") == 3 and "became" not in page and "<script" not in page
    assert re.findall(r'autocomplete="off">([^<]+)</label>', page) == ["pgd", "fgsm"]
    assert f"<code>phosphene {' '.join(words[:-2])}</code>" in page
    assert "3 of 8 by pgd within 2/255, 3 of 8 by fgsm within 2/255" in page


def test_a_page_where_nobody_is_fooled(run: Any) -> None:
    assert run(*ATTACK, "--eps", "0", "--out", "out", "-q").code == 0
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert "<article" not in page and "0 of 8 by pgd" in page and "<fieldset" not in page
    assert not list(Path("out/pictures").iterdir()) and len(rows("out")) == 8


def test_the_terminal_tells_numbers_and_where_the_files_are(run: Any) -> None:
    said = run(*ATTACK, "--attack", "pgd,fgsm", "--eps", "2/255", "--out", "out")
    assert said.code == 0 and said.err == ""
    line = next(line for line in said.out.splitlines() if line.split()[:1] == ["fgsm"])
    assert line.split() == ["fgsm", "2/255", "8", "3", "62.5%", "0.435", "0.0078", "3", "of", "3", "3", "+", "1"]
    assert "the worst of them 62.5%" in said.out
    assert "wrote out/index.html, out/accuracy.png, out/pictures, out/attack.jsonl" in said.out
    assert run(*ATTACK, "--attack", "pgd,fgsm", "--eps", "2/255", "--out", "out", "-q") == type(said)(0, "", "")


def test_attacks_are_listed_without_a_folder(run: Any) -> None:
    listed = run("attack", "--attack", "list", "--json").json["attacks"]
    assert [row["attack"] for row in listed] == list(ATTACKS)
    assert all(name in run("attack", "--attack", "list").out for name in ATTACKS)


def test_photographs_that_cannot_be_read_are_left_out_and_told(run: Any) -> None:
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    said = run(*ATTACK, "--eps", "2/255", "--out", "out")
    assert said.code == 0 and said.err.count("\n") == 1 and "left out red/torn.jpg: " in said.err
    assert run(*ATTACK, "--eps", "2/255", "--out", "out", "--json").json["images"] == 8


def test_so_many_photographs_and_only_one(run: Any, photos: list[str]) -> None:
    found = run(*ATTACK, "--images", "3", "--eps", "4/255", "--out", "a", "--json").json
    assert [row["image"] for row in found["rows"]] == [photos[0], photos[2], photos[5]]
    found = run(*ATTACK, "--only", "red/r1.png", "--eps", "4/255", "--out", "b", "--json").json
    assert "red/r1.png" in [row["image"] for row in found["rows"]]
    said = run(*ATTACK, "--only", "red/r9.png", "--out", "c")
    assert said.code == 2 and "holds no photograph 'red/r9.png'" in said.err and not Path("c").exists()


def test_the_command_line_hands_over_every_option(run: Any) -> None:
    assert run(*ATTACK, "--images", "1", "--out", "out", "-q").code == 0
    found = recipe.read("out/accuracy.png").parameters
    assert set(found) == set(inspect.signature(function_of("attack")).parameters) - {"workshop", "known", "keep"}
    usual = {**defaults("attack"), "attacks": ["pgd"], "folder": "photos", "net": "nets.py:mean", "images": 1}
    assert found == usual


# -- recipes ------------------------------------------------------------------------------------------------------------


def test_pictures_are_made_again_byte_for_byte(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.jobs.attack.TOGETHER", 3)  # several groups
    assert run(*ATTACK, "--attack", "pgd,square", "--eps", "4/255", "--steps", "60", "--out", "out", "-q").code == 0
    made = ["accuracy.png", *(f"pictures/{name}" for name in ("b0--pgd.png", "r0--pgd.png", "r0--square.png"))]
    for name in made:
        assert run("rerun", f"out/{name}", "--check", "--run-code").out == "the same bytes\n", name
    found = recipe.read("out/pictures/r0--square.png")
    assert (found.verb, found.picture) == ("attack", "r0--square")
    assert found.parameters["attacks"] == ["square"] and found.parameters["only"] == "red/r0.png"
    assert set(found.inputs) == {"photos", "nets.py"}
    line = command_line("attack", found.parameters)
    assert line == (
        "phosphene attack photos --attack square --eps 4/255 --net nets.py:mean --only red/r0.png --steps 60"
    )
    said = run(*line.split()[1:], "--out", "again")
    assert said.code == 0
    assert files("again")["pictures/r0--square.png"] == files("out")["pictures/r0--square.png"]


@pytest.mark.parametrize(
    "words",
    [
        ("--target", "green", "--attack", "pgd"),
        ("--attack", "deepfool"),
        ("--norm", "l2", "--eps", "0.7", "--seed", "3"),
        ("--net", "nets.py:soft", "--eps", "4/255"),
        ("--truth", "predicted", "--images", "5", "--eps", "4/255"),
    ],
    ids=" ".join,
)
def test_pictures_of_other_options_are_made_again(run: Any, words: tuple[str, ...]) -> None:
    net = () if "--net" in words else NET
    assert run("attack", "photos", *net, *words, "--out", "out", "-q").code == 0
    made = sorted(Path("out/pictures").glob("*.png"))
    assert made
    assert run("rerun", made[-1], "--check", "--run-code").out == "the same bytes\n"


def test_pictures_of_fgsm_beside_an_attack_with_steps_are_made_again(run: Any) -> None:
    assert run(*ATTACK, "--attack", "fgsm,pgd", "--steps", "5", "--eps", "4/255", "--out", "out", "-q").code == 0
    assert run("rerun", "out/pictures/r0--pgd.png", "--check", "--run-code").code == 0
    said = run("rerun", "out/pictures/r0--fgsm.png", "--check", "--run-code")
    assert said.out == "the same bytes\n"


def test_the_same_seed_gives_the_same_files_and_another_one_others(run: Any) -> None:
    words = (*ATTACK, "--attack", "pgd,square", "--steps", "40", "--eps", "4/255")
    for out, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        assert run(*words, "--seed", seed, "--out", out, "-q").code == 0
    assert files("a") == files("b") and files("a")["pictures/r0--pgd.png"] != files("c")["pictures/r0--pgd.png"]


# -- again, and after an interruption -----------------------------------------------------------------------------------


@pytest.fixture
def start(here: Path) -> Iterator[starter.Start]:
    with starter.starter(here, {"PHOSPHENE_OFFLINE": "1", "PHOSPHENE_CACHE": os.environ["PHOSPHENE_CACHE"]}) as begin:
        yield begin


LONG = (*ATTACK, "--attack", "pgd,square", "--eps", "4/255", "--steps", "40")


def test_killed_at_any_moment_it_goes_on_to_the_same_files(start: starter.Start) -> None:
    assert start(*LONG, "--out", "whole", together=3).code == 0
    whole = files("whole")
    assert len(whole) > 20
    made = 6  # three groups, two attacks
    for turn, (after, missing) in enumerate(
        [(0, 0), (1, 0), (1, 20), (2, 1), (3, 400), (made - 1, 0), (made, 30), (made, 0)]
    ):
        out = f"out{turn}"
        ended = start(*LONG, "--out", out, together=3, rows=[after, missing])
        assert ended.code == -9 and not Path(out, "index.html").exists()
        before = Path(out, "attack.jsonl").read_text().count("\n") if after else 0
        times = {path: path.stat().st_mtime_ns for path in Path(out, "pictures").iterdir()}
        ended = start(*LONG, "--out", out, together=3)
        assert ended.code == 0 and ended.err == "" and files(out) == whole, (after, missing)
        kept = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
        assert bool(kept) == (before >= 3)  # what was noted whole is not made again


def test_killed_again_and_again(start: starter.Start) -> None:
    assert start(*LONG, "--out", "whole", together=3).code == 0
    for missing in (7, 0, 150):
        assert start(*LONG, "--out", "out", together=3, rows=[2, missing]).code == -9
    assert start(*LONG, "--out", "out", together=3).code == 0 and files("out") == files("whole")


def test_ctrl_c_keeps_what_was_made(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.cli.journal import Journal

    monkeypatch.setattr("phosphene.jobs.attack.TOGETHER", 3)
    assert run(*LONG, "--out", "whole", "-q").code == 0
    keep, count = Journal.keep, 0

    def interrupted(self: Journal, made: Any) -> None:
        nonlocal count
        keep(self, made)
        count += 1
        if count == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "keep", interrupted)
        said = run(*LONG, "--out", "out")
    assert said.code == 130 and said.err.count("\n") == 1 and len(rows("out")) == 9
    assert not Path("out/index.html").exists()
    assert run(*LONG, "--out", "out").code == 0 and files("out") == files("whole")


def test_nothing_is_attacked_twice_and_more_attacks_are_added(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*ATTACK, "--eps", "4/255", "--out", "out")
    assert run(*words, "-q").code == 0
    before = files("out")
    with monkeypatch.context() as patch:
        patch.setattr("phosphene.jobs.attack.run_attack", None)
        assert run(*words, "-q").code == 0 and files("out") == before
    assert run(*words, "--attack", "fgsm,pgd", "-q").code == 0
    assert {name: data for name, data in files("out").items() if name in before and "--pgd" in name} == {
        name: data for name, data in before.items() if "--pgd" in name
    }
    assert len(rows("out")) == 16
    assert run(*ATTACK, "--eps", "4/255", "--attack", "fgsm,pgd", "--out", "fresh", "-q").code == 0
    assert files("out") == files("fresh")
    Path("out/pictures/r0--pgd.png").unlink()  # what somebody deletes is made again
    assert run(*words, "--attack", "fgsm,pgd", "-q").code == 0 and files("out") == files("fresh")


def test_a_second_run_tells_the_same(run: Any) -> None:
    words = (*ATTACK, "--eps", "4/255", "--out", "out", "--json")
    assert run(*words).out == run(*words).out


def test_other_options_are_refused_and_what_was_made_is_kept(run: Any) -> None:
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    before = files("out")
    for words in (("--eps", "2/255"), ("--eps", "4/255", "--seed", "1"), ("--eps", "4/255", "--target", "red")):
        said = run(*ATTACK, *words, "--out", "out")
        assert said.code == 2 and said.err.count("\n") == 1 and "give --overwrite" in said.err
        assert files("out") == before
    said = run(*ATTACK, "--eps", "2/255", "--attack", "pgdd", "--out", "out", "--overwrite")
    assert said.code == 2 and files("out") == before  # a typing error costs nothing
    assert run(*ATTACK, "--eps", "2/255", "--out", "out", "--overwrite").code == 0
    assert len(rows("out")) == 8 and {row["image"] for row in rows("out") if row["success"]} == FOOLED[2]


def test_one_photograph_again_leaves_the_page_of_all(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.jobs.attack.TOGETHER", 3)
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    before = files("out")
    assert run(*ATTACK, "--eps", "4/255", "--only", "red/r0.png", "--out", "out", "-q").code == 0
    assert "blue/b0.png" in files("out")["index.html"].decode()
    assert files("out")["accuracy.png"] == before["accuracy.png"]


def test_overwriting_leaves_no_pictures_of_the_run_before(run: Any) -> None:
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    assert run(*ATTACK, "--eps", "2/255", "--out", "out", "--overwrite", "-q").code == 0
    assert run(*ATTACK, "--eps", "2/255", "--out", "fresh", "-q").code == 0
    assert set(files("out")) == set(files("fresh"))


def test_a_photograph_that_changes_is_attacked_anew(run: Any) -> None:
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    colours.photograph(Path("photos/red/r0.png"), "red", 30, seed=99)
    found = run(*ATTACK, "--eps", "4/255", "--out", "out", "--json").json
    told = {row["image"]: row["success"] for row in found["rows"]}
    assert len(found["rows"]) == 8 and {image for image, hit in told.items() if hit} == FOOLED[4] - {"red/r0.png"}


def test_other_code_with_the_same_weights_is_another_network(run: Any) -> None:
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    code = (
        Path("nets.py").read_text().replace("return self.conv(x).mean((2, 3))", "return self.conv(1 - x).mean((2, 3))")
    )
    Path("nets.py").write_text(code)
    said = run(*ATTACK, "--eps", "4/255", "--out", "out", "--json")
    assert said.code == 2 or said.json["clean"]["count"] == 0  # it sees the weakest colour now


def test_other_labels_are_other_classes(run: Any) -> None:
    words = (
        "attack",
        "photos",
        "--net",
        "nets.py:train",
        "--truth",
        "predicted",
        "--labels",
        "names.txt",
        "--images",
        "1",
    )
    words = (*words, "--eps", "4/255", "--out", "out")
    Path("names.txt").write_text("rot\ngruen\nblau\n")
    assert run(*words, "-q").code == 0
    Path("names.txt").write_text("rouge\nvert\nbleu\n")
    said = run(*words, "--json")
    assert said.code == 2 or {row["label"]["name"] for row in said.json["rows"]} <= {"rouge", "vert", "bleu"}


def test_a_photograph_that_is_added_takes_no_ones_picture(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.jobs.attack.TOGETHER", 3)
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    colours.photograph(Path("photos/blue/r2.png"), "blue", 1, seed=77)  # named as one in the last group
    for place in (8, 9):
        colours.photograph(Path(f"photos/blue/z{place}.png"), "blue", 30, seed=place)
    assert run(*ATTACK, "--eps", "4/255", "--out", "out", "-q").code == 0
    made = [(row["image"], row["name"]) for row in rows("out") if row["success"]]
    assert len({name for _, name in made}) == len(made)


# -- several processes --------------------------------------------------------------------------------------------------


def test_two_processes_make_the_files_of_one(here: Path) -> None:
    for place in range(16):  # 24 photographs: one group for each process
        colours.photograph(Path(f"photos/blue/x{place:02}.png"), "blue", 1 + place, seed=50 + place)
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    words = (*ATTACK, "--attack", "pgd,fgsm", "--eps", "4/255", "--device", "cpu")
    one = launch(here, (*words, "--out", "one"))
    two = launch(here, (*words, "--out", "two"), TORCHRUN)
    assert one.returncode == two.returncode == 0, two.stderr
    assert two.stdout == one.stdout.replace("one/", "two/") and two.stderr.count("left out red/torn.jpg") == 1
    assert files("one") == files("two") and len(rows("one")) == 50
    again = launch(here, (*words, "--out", "two"))
    assert again.returncode == 0 and files("one") == files("two")


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD = [
    ((), "there is no folder: give one of photographs"),
    (("cat.png", *NET), "'cat.png' is no folder"),
    (("gone", *NET), "'gone' is no folder"),
    (("empty", *NET), "holds no image files"),
    (("torn", *NET), "none of the 1 photographs could be attacked"),
    (("photos", *NET, "--eps", "8"), "a radius is in units of [0, 1], got '8': did you mean 8/255?"),
    (("photos", *NET, "--eps", "255"), "did you mean 255/255?"),
    (("photos", *NET, "--eps", "300"), "1 reaches every picture"),
    (("photos", *NET, "--eps=-1/255"), "a radius is 0 or more"),
    (("photos", *NET, "--eps", "1.01"), "a radius is in units of [0, 1], got '1.01'"),
    (("photos", *NET, "--eps", "much"), "'much' is no radius"),
    (("photos", *NET, "--eps", "nan"), "'nan' is no radius"),
    (("photos", *NET, "--eps", "8/0"), "'8/0' is no radius"),
    (("photos", *NET, "--eps", ""), "'' is no radius"),
    (("photos", *NET, "--norm", "l2", "--eps", "99"), "did you mean 99/255?"),
    (("photos", *NET, "--attack", "pgdd"), "there is no attack 'pgdd'; did you mean pgd"),
    (("photos", *NET, "--attack", "deepfool", "--norm", "linf"), "deepfool measures in l2, not in linf"),
    (("photos", *NET, "--attack", "fgsm", "--steps", "3"), "fgsm takes one step: leave --steps away"),
    (("photos", *NET, "--attack", "pgd,square", "--target", "red"), "square can't be told which class to reach"),
    (("photos", *NET, "--steps", "0"), "steps start at 1, got 0"),
    (("photos", *NET, "--steps=-4"), "steps start at 1, got -4"),
    (("photos", *NET, "--target", "rad"), "did you mean red"),
    (("photos", *NET, "--target", "3"), "the 3 classes are 0 to 2"),
    (("photos", *NET, "--norm", "l1"), '"l1"'),
    (("photos", *NET, "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
    (("photos", *NET, "--truth", "maybe"), '"maybe"'),
    (("photos", *NET, "--truth", "names"), "knows no class of the file names"),
    (("photos", "--net", "nets.py:named", "--truth", "folders"), "no class of the folder names 'blue', 'green', 'red'"),
    (("outside", *NET, "--truth", "folders"), "no class of the folder name '3'"),
    (("photos", "--net", "nets.py:gone"), "has no function 'gone'"),
    (("photos", *NET, "--only", "nothing.png"), "holds no photograph 'nothing.png'"),
    (("photos", *NET, "--out", "cat.png"), "is one file: --out needs a folder"),
    (("photos", *NET, "--out", "nets.py"), "is one file: --out needs a folder"),
    (("photos", *NET, "--out", "nets.py/deeper"), "can't make the folder"),
]


@pytest.fixture
def more(here: Path) -> None:
    for name in ("empty", "torn", "outside/3"):
        Path(name).mkdir(parents=True)
    Path("torn/torn.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copyfile("cat.png", "outside/3/a.png")


@pytest.mark.parametrize(
    ("words", "message"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_is_one_line_and_changes_nothing(
    run: Any,
    more: None,
    words: tuple[str, ...],
    message: str,
) -> None:
    before = files(".")
    said = run("attack", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("phosphene: ") and said.err.count("\n") == 1 and message in said.err
    assert {name: data for name, data in files(".").items() if "__pycache__" not in name} == before
    assert not Path("phosphene-attack").exists()


def test_a_target_that_all_photographs_have_is_told(run: Any) -> None:
    shutil.rmtree("photos/green")
    shutil.rmtree("photos/blue")
    said = run(*ATTACK, "--target", "red", "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1 and "it is of the target's class already" in said.err


def test_a_refused_target_does_not_stand_in_the_way_of_the_right_one(run: Any) -> None:
    shutil.rmtree("photos/green")
    shutil.rmtree("photos/blue")
    assert run(*ATTACK, "--target", "red", "--out", "out").code == 2
    assert run(*ATTACK, "--target", "green", "--out", "out").code == 0


def test_a_negative_number_of_photographs(run: Any) -> None:
    said = run(*ATTACK, "--images=-2", "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1


@pytest.mark.parametrize("name", ["deepfool", "carlini-wagner"])
def test_eps_is_read_in_the_norm_of_the_attack(run: Any, name: str) -> None:
    assert run(*ATTACK, "--attack", name, "--eps", "1.5", "--norm", "l2", "--steps", "5", "--out", "a", "-q").code == 0
    said = run(*ATTACK, "--attack", name, "--eps", "1.5", "--steps", "5", "--out", "b")
    assert said.code == 0, said.err


def test_names_of_any_bytes(run: Any) -> None:
    try:
        shutil.copyfile("photos/red/r0.png", b"photos/red/\xff.png".decode("utf-8", "surrogateescape"))
    except OSError:
        pytest.skip("this disk has names in UTF-8 only")
    assert run(*ATTACK, "--eps", "2/255", "--out", "out", "-q").code == 0


def test_results_never_become_photographs(run: Any) -> None:
    words = ("attack", "photos", *NET, "--truth", "predicted", "--eps", "4/255", "--out", "photos/out", "--json")
    first = run(*words)
    assert first.code == 2 or run(*words).json["images"] == first.json["images"]


@pytest.mark.parametrize("name", ["index.html", "accuracy.png"])
def test_a_file_of_somebody_else_is_kept(run: Any, name: str) -> None:
    Path("out").mkdir()
    Path("out", name).write_bytes(b"mine")
    run(*ATTACK, "--eps", "2/255", "--out", "out", "-q")
    assert Path("out", name).read_bytes() == b"mine"
