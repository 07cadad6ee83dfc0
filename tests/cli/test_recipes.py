"""Recipes: in the picture, beside it, as a command line, and made again."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene import images, recipe
from phosphene.explain import rise
from phosphene.jobs.command import command_line

SQUEEZE = ("--net", "squeezenet1_1")

MADE = {
    "filters": ("filters", *SQUEEZE),
    "activations": ("activations", "cat.png", *SQUEEZE, "--layer", "conv1,fire9", "--channels", "4"),
    "explain": ("explain", "cat.png", *SQUEEZE, "--class", "tiger cat", "--method", "saliency,rise,lrp"),
    "unit": ("explain", "cat.png", *SQUEEZE, "--unit", "fire9:3", "--method", "saliency,smoothgrad"),
    "fool": ("fool", "cat.png", *SQUEEZE, "--target", "station wagon", "--seed", "3"),
    "classes": ("visualize", "--class", "black swan,3", "--steps", "3", "--size", "64", "--canvas", "pixel"),
    "units": ("visualize", "--layer", "fire3", "--unit", "2,5:3:4", "--steps", "2", "--size", "64", "--seed=-4"),
    "layers": ("visualize", "--layers", "fire2,fire3", "--per-layer", "2", "--steps", "2", "--size", "48x40"),
    "several": ("visualize", "--layer", "fire2", "--unit", "2-5,0.5*3+4", "--several", "2", "--steps", "2", "--size", "40"),
    "dream": ("dream", "cat.png", "--layers", "fire2,fire3", "--steps", "2", "--octaves", "2", "--size", "96", "--seed", "7"),
    "guided": ("dream", "cat.png", "--layer", "fire3", "--guide", "cat.png", "--steps", "1", "--size", "80"),
    "invert": ("invert", "cat.png", "--layers", "conv1,fire2", "--steps", "2", "--noise", "0.1"),
    "inverted": ("invert", "cat.png", "--layer", "conv1", "--steps", "3", "--canvas", "pixel", "--scales", "2"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """RISE with as many masks as show that they are the same again."""
    defaults = rise.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "masks", 40)


@pytest.mark.parametrize("words", MADE.values(), ids=MADE)
def test_every_picture_can_be_made_again(run: Any, here: Path, words: tuple[str, ...]) -> None:
    pictures = run(*words, "--json", "--out", "made").json["pictures"]
    assert len(pictures) > (words[0] != "filters")
    for picture in pictures:
        before = Path(picture).read_bytes()
        said = run("rerun", picture)
        again = Path(picture).with_name(Path(picture).stem + "-again.png")
        assert said.out == f"wrote {again}: the same bytes\n"
        assert again.read_bytes() == before == Path(picture).read_bytes()
        assert recipe.beside(again).read_bytes() == recipe.beside(Path(picture)).read_bytes()


@pytest.mark.parametrize("words", MADE.values(), ids=MADE)
def test_the_printed_command_makes_the_same_picture(run: Any, words: tuple[str, ...]) -> None:
    pictures = run(*words, "--json", "--out", "made").json["pictures"]
    command, *_ = run("recipe", pictures[-1]).out.splitlines()
    assert run("recipe", pictures[-1], "--json").json["command"] == command
    program, *typed = shlex.split(command)
    assert program == "phosphene" and typed[0] == words[0]
    repeated = run(*typed, "--json", "--out", "repeated").json["pictures"]
    assert [Path(path).read_bytes() for path in repeated] == [Path(path).read_bytes() for path in pictures]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".PNG"])
def test_every_format_carries_it(run: Any, suffix: str) -> None:
    run("explain", "cat.png", *SQUEEZE, "--method", "grad-cam", "--out", f"x{suffix}")
    beside = Path(f"x{suffix}.json").read_text()
    assert images.read_note(f"x{suffix}") == beside.rstrip("\n")
    found = recipe.read(f"x{suffix}")
    assert found == recipe.Recipe.from_json(beside)
    assert (found.verb, found.picture, found.threads) == ("explain", "explain", torch.get_num_threads())
    assert found.inputs == {"cat.png": recipe.hash_file("cat.png")}
    assert list(found.networks) == ["squeezenet1_1"]
    assert {"phosphene", "python", "torch", "pillow", "numpy"} <= set(found.versions)
    assert run("rerun", f"x{suffix}", "--check").code == 0


def test_a_recipe_names_every_option(run: Any) -> None:
    run("visualize", "--class", "3", "--steps", "1", "--size", "32", "--out", "x.png")
    found = recipe.read("x.png").parameters
    assert {"canvas", "rate", "l2", "blur", "clip_norm", "clip_gradient", "jitter", "rotate", "scale"} <= set(found)
    assert (found["steps"], found["size"], found["seed"], found["rotate"]) == (1, "32", 0, 15.0)


def test_no_clock_and_no_output_path(run: Any) -> None:
    run("filters", *SQUEEZE, "--out", "one/a.png")
    run("filters", *SQUEEZE, "--out", "two/b.png")
    assert Path("one/a.png").read_bytes() == Path("two/b.png").read_bytes()


def test_the_json_alone_is_enough(run: Any) -> None:
    run("filters", *SQUEEZE, "--out", "x.png")
    images.save(images.read("x.png")[0], "x.png")  # as a program does that drops what it doesn't know
    assert images.read_note("x.png") is None
    said = run("rerun", "x.png", "--json", "--check")
    assert (said.code, said.json["same_bytes"], said.json["same_pixels"]) == (1, False, True)
    assert run("recipe", "x.png.json").out.startswith("phosphene filters")


def test_check_tells_by_its_exit_code(run: Any, here: Path) -> None:
    run("filters", *SQUEEZE, "--out", "x.png")
    before = sorted(here.iterdir())
    said = run("rerun", "x.png", "--check")
    assert (said.code, said.out) == (0, "the same bytes\n")
    note = images.read_note("x.png")
    images.save(1 - images.read("x.png")[0], "x.png", note=note)
    said = run("rerun", "x.png", "--check")
    assert (said.code, said.out) == (1, "not the same picture\n")
    assert sorted(here.iterdir()) == before


def test_where_it_goes(run: Any, here: Path) -> None:
    run("filters", *SQUEEZE, "--out", "made/x.png")
    assert run("rerun", "made/x.png", "--out", ".").out.startswith("wrote x.png")
    assert run("rerun", "made/x.png", "--out", "other/y.png").code == 0
    assert run("rerun", "made/x.png", "--out", "folder").code == 0
    same = [Path(path).read_bytes() for path in ("made/x.png", "x.png", "other/y.png", "folder/x.png")]
    assert len(set(same)) == 1
    assert "exists and is kept" in run("rerun", "made/x.png", "--out", "x.png").err
    assert run("rerun", "made/x.png", "--out", "x.png", "--overwrite").code == 0


def test_a_folder_that_moved(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "old").mkdir()
    shutil.move("cat.png", "old/cat.png")
    run("explain", "old/cat.png", *SQUEEZE, "--method", "saliency", "--out", "old/x.png")
    shutil.move("old", "new")
    assert run("rerun", "new/x.png", "--check").out == "the same bytes\n"
    # Another picture at the old place is not taken for it.
    (here / "old").mkdir()
    images.save(torch.rand(3, 64, 64), "old/cat.png")
    assert run("rerun", "new/x.png", "--check").out == "the same bytes\n"
    monkeypatch.chdir(here / "new")
    assert run("rerun", "x.png", "--check").out == "the same bytes\n"


def test_labels_and_weights_are_part_of_it(run: Any, here: Path, nets: Path) -> None:
    (here / "names.txt").write_text("\n".join("abcdefghij"))
    words = ("explain", "cat.png", "--net", "nets.py:small", "--labels", "names.txt", "--method", "saliency")
    run(*words, "--out", "x.png")
    assert set(recipe.read("x.png").inputs) == {"cat.png", "names.txt", "nets.py"}
    assert run("rerun", "x.png", "--check", "--run-code").code == 0
    (here / "names.txt").write_text("\n".join("ABCDEFGHIJ"))
    said = run("rerun", "x.png", "--check", "--run-code")
    assert said.code == 2 and "'names.txt' is not the file" in said.err


def test_code_is_run_only_when_asked_for_and_unchanged(run: Any, here: Path, nets: Path) -> None:
    run("filters", "--net", "nets.py:small", "--out", "x.png")
    assert "give --run-code if you trust it" in run("rerun", "x.png", "--check").err
    assert run("rerun", "x.png", "--check", "--run-code").out == "the same bytes\n"
    nets.write_text(nets.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    said = run("rerun", "x.png", "--check", "--run-code")
    assert said.code == 2 and "is not the file that the picture was made from" in said.err


def test_other_versions_are_reported(run: Any) -> None:
    run("filters", *SQUEEZE, "--out", "x.png")
    before = json.loads(Path("x.png.json").read_text())
    before["versions"] |= {"torch": "1.0", "jpeglib": "9"}
    images.save(images.read("x.png")[0], "x.png", note=json.dumps(before))
    said = run("rerun", "x.png", "--json", "--check")
    changed = said.json["changed"]
    assert f"torch 1.0 -> {recipe.versions()['torch']}" in changed and "jpeglib 9 -> none" in changed
    assert (said.code, said.json["same_pixels"], said.json["same_bytes"]) == (1, True, False)


def test_threads_are_those_of_the_recipe(run: Any) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    run("explain", "cat.png", *SQUEEZE, "--method", "saliency", "--out", "x.png")
    torch.set_num_threads(1)
    try:
        assert recipe.read("x.png").threads == 2
        assert run("rerun", "x.png", "--check").out == "the same bytes\n"
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_in_another_process(run: Any) -> None:
    pictures = run(*MADE["fool"], "--json", "--out", "made").json["pictures"]
    words = [sys.executable, "-m", "phosphene", "rerun", pictures[0], "--check"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the same bytes\n", "")


def test_efficientnet_too(run: Any) -> None:
    pictures = run("explain", "cat.png", "--method", "saliency,guided-backprop,grad-cam", "--json").json["pictures"]
    assert [run("rerun", picture, "--check").code for picture in pictures] == [0] * 4


@pytest.mark.parametrize(
    ("verb", "parameters", "line"),
    [
        ("filters", {"net": "efficientnet_lite0", "layer": None}, "phosphene filters"),
        ("explain", {"image": "my cat.jpg", "methods": ["all"]}, "phosphene explain 'my cat.jpg' --method all"),
        ("explain", {"image": "a", "methods": ["saliency", "grad-cam"]}, "phosphene explain a --method saliency,grad-cam"),
        ("explain", {"image": "a", "classes": ["-x", "b"]}, "phosphene explain a --class=-x,b"),
        ("judge-explanations", {"folder": "f", "images": 9}, "phosphene judge-explanations f --images 9"),
        ("explain", {"image": "-a.png"}, "phosphene explain ./-a.png"),
        ("predict", {"images": ["a", "b c"], "top": 5}, "phosphene predict a 'b c'"),
        ("probe", {"folder": "my photos", "layers": ["a", "b"]}, "phosphene probe 'my photos' --layer a,b"),
        ("probe", {"folder": "f", "balanced": False, "size": 64}, "phosphene probe f --no-balanced --size 64"),
        ("probe", {"folder": "f", "balanced": True, "skip_bad": True}, "phosphene probe f --skip-bad"),
        ("finetune", {"folder": "f", "layers": "all", "head_rate": 2.0}, "phosphene finetune f --layers all --head-rate 2.0"),
        ("finetune", {"folder": "f", "balanced": False, "rate": 1e-05}, "phosphene finetune f --no-balanced --rate 1e-05"),
        ("visualize", {"classes": ["a"], "units": [], "clip_norm": 0.1}, "phosphene visualize --class a --clip-norm 0.1"),
        ("visualize", {"layer": "conv1", "units": ["0:1:2"]}, "phosphene visualize --layer conv1 --unit 0:1:2"),
    ],
)  # fmt: skip
def test_command_lines(verb: str, parameters: dict[str, Any], line: str) -> None:
    assert command_line(verb, parameters) == line
