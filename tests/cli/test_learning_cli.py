"""`probe` and `finetune` as a person runs them: what is written and told, all ways to end and go on, what is refused."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from starter import Ended, Start, starter

from phosphene import recipe
from phosphene.models import load
from phosphene.models.weights import read_metadata

NET = ("--net", "squeezenet1_1", "--size", "64")
PROBE = ("probe", "photos", *NET)
TUNE = ("finetune", "photos", *NET, "--epochs", "3", "--batch", "8")
STEPS = 12  # 39 photographs in batches of 8, three times; 9 are held out
CLASSES = ["cat", "coffee", "rocket"]
SHEETS = {f"{name}.png{end}" for name in ("confusion", "classes") for end in ("", ".json")}
PROBED = {"model.safetensors", "run.json", "val.csv", "index.html", "depth.png", "depth.png.json"} | SHEETS
TUNED = PROBED - {"depth.png", "depth.png.json"} | {"curves.png", "curves.png.json", "metrics.jsonl"}
ALWAYS = {"mistakes.png", "mistakes.png.json", "suspicious.png", "suspicious.png.json"}  # only if there are any
SAME = "the same bytes\n"


def fill(folder: Path, each: int = 16, classes: list[str] | None = None) -> Path:
    """Pieces of three of scikit-image's photographs, 64 x 64, each a class."""
    from skimage import data

    for name in classes or CLASSES:
        photo = {"cat": data.chelsea, "coffee": data.coffee, "rocket": data.rocket}[name]()
        generator = np.random.default_rng(len(name))
        (folder / name).mkdir(parents=True)
        for place in range(each):
            y, x = (int(generator.integers(0, side - 128)) for side in photo.shape[:2])
            Image.fromarray(photo[y : y + 128, x : x + 128]).resize((64, 64)).save(folder / name / f"{place:02}.png")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all of this happens."""
    place = tmp_path_factory.mktemp("learning")
    fill(place / "photos")
    return place


@pytest.fixture(scope="module")
def start(place: Path) -> Iterator[Start]:
    """Commands in processes of their own."""
    keeping = {name: str(place / ".cache" / "weights") for name in ("PHOSPHENE_CACHE", "TORCH_HOME")}
    with starter(place, {**keeping, "PHOSPHENE_WEIGHTS": "", "PHOSPHENE_OFFLINE": "1"}) as start:
        yield start


@pytest.fixture(scope="module")
def probed(place: Path, start: Start) -> Ended:
    """A probe in the folder `probed`."""
    return start(*PROBE, "--out", "probed")


@pytest.fixture(scope="module")
def tuned(place: Path, start: Start) -> Ended:
    """A network in the folder `tuned`, trained without a break."""
    return start(*TUNE, "--out", "tuned")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - ALWAYS


def good(ended: Ended) -> Ended:
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err
    return ended


def line(ended: Ended) -> str:
    """What a command that was refused says: one line."""
    assert ended.code == 2 and ended.out == "", ended
    assert ended.err.startswith("phosphene: ") and ended.err.count("\n") == 1, ended.err
    return ended.err.removeprefix("phosphene: ").rstrip("\n")


def record(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    mine, others = weights(one), weights(other)
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


def contents(folder: Path) -> dict[str, bytes | None]:
    every = [path for path in folder.rglob("*") if ".cache" not in path.parts]
    return {str(path): path.read_bytes() if path.is_file() else None for path in every}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "val.csv", newline="") as file:
        return list(csv.DictReader(file))


def check_page(path: Path, pictures: int) -> None:
    """It holds its pictures itself, and asks for nothing from outside."""
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"""<(?:img|script|link|iframe|source)[^>]*?\b(?:src|href)=["']?([^"'\s>]+)""", text)
    assert len([link for link in links if link.startswith("data:image/")]) >= pictures
    assert all(link.startswith("data:") for link in links)
    assert not re.search(r"https?://|url\((?!['\"]?data:)|@import", text)


# -- probe --------------------------------------------------------------------------------------------------------------


def test_a_probe_writes_a_network_and_a_report_and_tells_of_each_stage(place: Path, probed: Ended) -> None:
    good(probed)
    assert probed.err == "" and names(place / "probed") == PROBED
    facts = record(place / "probed")
    assert facts["verb"] == "probe" and facts["finished"] is True and facts["classes"] == CLASSES
    assert facts["photographs"]["train"] == dict.fromkeys(CLASSES, 13) and facts["computed"] == 48
    for row in facts["stages"]:
        (said,) = [said for said in probed.out.splitlines() if said.split()[:1] == [row["layer"]]]
        assert f" {row['width']} " in said and f" {row['accuracy']['mean']:.1%} " in said
        assert ("*" in said) == (row["layer"] == facts["chosen"])
    assert "the network: --net probed   the report: probed/index.html\n" in probed.out
    assert f"{facts['accuracy']['mean']:.1%} right" in probed.out
    table = rows(place / "probed")
    assert len(table) == 9 and {row["class"] for row in table} == set(CLASSES)
    assert all((place / "photos" / row["image"]).is_file() and 1 / 3 <= float(row["probability"]) <= 1 for row in table)
    assert np.mean([row["class"] == row["said"] for row in table]) == facts["accuracy"]["mean"] > 0.7
    check_page(place / "probed" / "index.html", 3)
    about = json.loads(read_metadata(place / "probed" / "model.safetensors")["phosphene"])
    assert about["classes"] == CLASSES and about["size"] == [64, 64]


def test_a_second_probe_computes_no_features_and_says_the_same(place: Path, start: Start, probed: Ended) -> None:
    said = good(start(*PROBE, "--out", "second", "--json"))
    facts = json.loads(said.out)
    assert facts["computed"] == 0 and said.err == "" and "predictions" not in facts
    assert set(facts["written"]) <= {f"second/{name}" for name in PROBED | ALWAYS}
    for name in ("val.csv", "depth.png", "confusion.png"):
        assert (place / "second" / name).read_bytes() == (place / "probed" / name).read_bytes()
    assert same_weights(place / "second", place / "probed")
    quiet = good(start(*PROBE, "--out", "second", "--overwrite", "--quiet"))
    assert quiet.out == quiet.err == ""


def test_features_of_other_weights_are_not_taken(place: Path, start: Start, probed: Ended) -> None:
    other = {name: value * 1.01 for name, value in load("squeezenet1_1", device="cpu").module.state_dict().items()}
    save_file(other, place / "other.safetensors")
    words = (*PROBE, "--layer", "fire3", "--weights", "other.safetensors", "--json", "--overwrite", "--out", "other")
    assert [json.loads(good(start(*words)).out)["computed"] for _ in range(2)] == [48, 0]
    larger = ("probe", "photos", "--net", "squeezenet1_1", "--layer", "fire3", "--size", "70", "--out", "larger")
    assert json.loads(good(start(*larger, "--json")).out)["computed"] == 48


def test_pictures_of_both_are_made_again_byte_by_byte(place: Path, start: Start, probed: Ended, tuned: Ended) -> None:
    for picture in ("probed/depth.png", "tuned/curves.png"):
        assert good(start("rerun", picture, "--check")).out == SAME
    words = (*PROBE, "--layer", "conv1,fire5", "--no-balanced", "--seed", "3")
    good(start(*words, "--out", "unbalanced"))
    command = start("recipe", "unbalanced/depth.png").out.splitlines()[0]
    assert command == "phosphene probe photos --no-balanced --layer conv1,fire5 --net squeezenet1_1 --seed 3 --size 64"
    page = re.sub("<[^>]+>", "", (place / "unbalanced" / "index.html").read_text())
    assert "--layer conv1,fire5 --size 64 --no-balanced --seed 3" in page
    assert good(start("rerun", "unbalanced/confusion.png", "--check")).out == SAME


# -- what exists --------------------------------------------------------------------------------------------------------


def test_a_run_that_exists_is_kept_and_replaced_without_remains(place: Path, start: Start) -> None:
    twice = shutil.copytree(place / "photos", place / "twice")
    shutil.copyfile(twice / "cat" / "01.png", twice / "cat" / "copy.png")
    tune = (*TUNE[2:], "--layers", "head", "--augment", "none", "--out", "again")
    good(start("finetune", "twice", *tune))
    assert names(place / "again") == TUNED | {"duplicates.png", "duplicates.png.json"}
    before = contents(place / "again")
    assert "'again' holds a run, which is kept: give --overwrite" in line(start(*PROBE, "--out", "again"))
    assert contents(place / "again") == before
    good(start(*PROBE, "--out", "again", "--overwrite"))
    assert names(place / "again") == PROBED
    good(start("finetune", "photos", *tune, "--overwrite"))
    assert names(place / "again") == TUNED


@pytest.mark.parametrize("name", ["index.html", "val.csv", "metrics.jsonl", "curves.png", "confusion.png.json"])
def test_other_files_of_these_names_are_kept(place: Path, start: Start, name: str) -> None:
    folder = place / f"mine {name}"
    folder.mkdir()
    (folder / name).write_text("mine")
    said = line(start(*TUNE, "--out", folder.name))
    assert name in said and "exists and" in said
    assert names(folder) == {name} and (folder / name).read_text() == "mine"


def test_a_run_that_can_not_begin_leaves_the_one_before_as_it_was(place: Path, start: Start) -> None:
    good(start(*TUNE, "--out", "before", hit=2))
    before = contents(place / "before")
    assert any(name.endswith("state.safetensors") for name in before)
    for more in (("--layers", "nonsense"), ("--rate", "nan"), ("--batch", "99")):
        words = [word for word in TUNE if more[0] != "--batch" or word not in ("--batch", "8")]
        line(start(*words, *more, "--out", "before", "--overwrite"))
    assert contents(place / "before") == before


# -- a network for every command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["probed", "tuned", "probed/model.safetensors"])
def test_a_trained_network_is_one_for_every_command(
    place: Path, start: Start, probed: Ended, tuned: Ended, net: str
) -> None:
    found = json.loads(good(start("predict", "photos", "--net", net, "--top", "3", "--json")).out)["predictions"]
    said = {Path(row["image"]).relative_to("photos").as_posix(): row["classes"][0] for row in found}
    assert len(said) == 48
    for row in rows(place / net.partition("/")[0]):
        assert said[row["image"]]["name"] == row["said"]
        assert said[row["image"]]["probability"] == pytest.approx(float(row["probability"]), abs=1e-4)
    layers = json.loads(good(start("layers", "--net", net, "--json")).out)
    assert layers["input_size"] == [64, 64] and layers["layers"][-1]["shape"] == [3]
    words = ("explain", "photos/cat/00.png", "--net", net, "--class", "cat", "--method", "saliency,grad-cam")
    good(start(*words, "--out", "explained", "--overwrite"))
    again = ("finetune", "photos", "--net", net, "--layers", "last:1", "--epochs", "1", "--batch", "8")
    good(start(*again, "--out", "further", "--overwrite"))
    assert record(place / "further")["accuracy"]["mean"] > 0.7
    assert good(start("predict", "photos/cat/00.png", "--net", "further")).out


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_network_is_told_in_a_line(place: Path, start: Start, probed: Ended, damage: str) -> None:
    folder = place / f"damaged-{damage}"
    folder.mkdir()
    whole = (place / "probed" / "model.safetensors").read_bytes()
    data = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"this is no network"}.get(damage)
    if data is None:
        save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    else:
        (folder / "model.safetensors").write_bytes(data)
    for words in (("predict", "photos"), ("finetune", "photos", "--out", "never")):
        assert "model.safetensors" in line(start(*words, "--net", folder.name))
    assert not (place / "never").exists()


def test_a_photograph_on_its_side_is_turned_as_its_tag_says(place: Path, start: Start, probed: Ended) -> None:
    folder = place / "turned"
    folder.mkdir()
    with Image.open(place / "photos" / "rocket" / "03.png") as photo:
        photo.save(folder / "upright.png")
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned to the right
        photo.transpose(Image.Transpose.ROTATE_90).save(folder / "on its side.png", exif=exif)
        photo.transpose(Image.Transpose.ROTATE_90).save(folder / "untagged.png")
    found = json.loads(good(start("predict", "turned", "--net", "probed", "--json")).out)["predictions"]
    side, untagged, upright = (row["classes"] for row in sorted(found, key=lambda row: row["image"].lower()))
    assert side == upright != untagged


# -- finetune -----------------------------------------------------------------------------------------------------------


def test_fine_tuning_writes_a_network_a_report_and_a_record(place: Path, tuned: Ended) -> None:
    good(tuned)
    assert tuned.err == "" and names(place / "tuned") == TUNED
    facts = record(place / "tuned")
    assert facts["finished"] is True and facts["stopped"] is None and facts["repairs"] == [] and facts["steps"] == STEPS
    assert facts["settings"]["batch"] == 8 and facts["probe"]["accuracy"]["mean"] > 0.7
    assert facts["processes"] == 1 and facts["inputs"] == {"photos": recipe.hash_file(place / "photos")}
    lines = [json.loads(row) for row in (place / "tuned" / "metrics.jsonl").read_text().splitlines()]
    assert lines == facts["epochs"] and [row["epoch"] for row in lines] == [1, 2, 3]
    for row in lines:
        (said,) = [said for said in tuned.out.splitlines() if said.split()[:1] == [str(row["epoch"])]]
        assert f" {row['train_loss']:.4f} " in said and f" {row['val_loss']:.4f} " in said
    table = rows(place / "tuned")
    assert len({row["image"] for row in table}) == len(table) == 9
    assert np.mean([row["class"] == row["said"] for row in table]) == lines[-1]["val_accuracy"]
    check_page(place / "tuned" / "index.html", 3)


@pytest.mark.parametrize(
    ("layers", "after"),
    [("head", "features.12"), ("last:1", "features.10"), ("stage:fire7", "features.7"), ("all", None)],
)
def test_what_is_trained(place: Path, start: Start, layers: str, after: str | None) -> None:
    words = ("--layers", layers, "--epochs", "1", "--batch", "16", "--out", "part", "--overwrite")
    (place / "part.json").write_text(good(start("finetune", "photos", *NET, *words, "--json")).out)
    facts = json.loads((place / "part.json").read_text())
    assert facts["frozen_up_to"] == after
    begun, now = load("squeezenet1_1", device="cpu").module.state_dict(), weights(place / "part")
    now = {name: value for name, value in now.items() if not name.startswith("classifier.")}  # the old one
    kept = {name for name in begun if name in now and torch.equal(begun[name], now[name])}
    last = -1 if after is None else int(after.removeprefix("features."))
    assert kept == {name for name in now if name.startswith("features.") and int(name.split(".")[1]) <= last}
    assert facts["trained_numbers"] == sum(value.numel() for name, value in now.items() if name not in kept)


def test_json_and_quiet(place: Path, start: Start, tuned: Ended) -> None:
    words = ("finetune", "photos", *NET, "--batch", "8", "--out", "json", "--overwrite")
    said = good(start(*words, "--epochs", "3", "--json"))
    facts = json.loads(said.out)
    assert said.err == "" and facts["command"] == "finetune" and len(facts["epochs"]) == 3
    assert set(facts["written"]) <= {f"json/{name}" for name in TUNED | ALWAYS}
    quiet = good(start(*words, "--epochs", "1", "-q"))
    assert quiet.out == quiet.err == "" and record(place / "json")["steps"] == STEPS // 3


# -- to end and to go on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 6, STEPS])
def test_ctrl_c_keeps_what_was_learned_and_it_goes_on_to_the_same(
    place: Path, start: Start, tuned: Ended, step: int
) -> None:
    out = f"by-hand-{step}"
    ended = good(start(*TUNE, "--out", out, hit=step))
    assert ended.err == "phosphene: stopping after this step and keeping what there is; Ctrl-C again leaves at once\n"
    assert "ended early: ended by hand; --resume goes on from there\n" in ended.out
    facts = record(place / out)
    assert facts["steps"] == step and facts["finished"] is False and facts["stopped"] == "ended by hand"
    curves = {name for name in TUNED if "curves" in name}
    assert names(place / out) == (TUNED | {"state.safetensors"}) - (curves if step < 4 else set())
    assert good(start("predict", "photos", "--net", out)).out
    assert good(start("rerun", f"{out}/confusion.png", "--check")).out == SAME
    good(start(*TUNE, "--out", out, "--resume"))
    assert names(place / out) == TUNED and same_weights(place / out, place / "tuned")
    assert record(place / out)["finished"] is True and record(place / out)["steps"] == STEPS
    assert (place / out / "val.csv").read_bytes() == (place / "tuned" / "val.csv").read_bytes()


def test_a_picture_of_a_run_ended_by_hand_is_made_again_without_the_features(place: Path, start: Start) -> None:
    good(start(*TUNE, "--seed", "7", "--out", "new-split", hit=5))
    shutil.rmtree(
        place / ".cache" / "weights" / "features"
    )  # which came before, as other events than when they are found
    assert good(start("rerun", "new-split/curves.png", "--check")).out == SAME


def test_there_must_be_a_state_of_this_training_to_resume(place: Path, start: Start, tuned: Ended) -> None:
    assert "nothing to resume: there is no 'none/state" in line(start(*TUNE, "--out", "none", "--resume"))
    assert not (place / "none").exists()
    before = contents(place / "tuned")
    assert "nothing to resume" in line(start(*TUNE, "--out", "tuned", "--resume"))  # it is done
    assert contents(place / "tuned") == before
    good(start(*TUNE, "--out", "half", hit=5))
    before = contents(place / "half")
    for more in (("--rate", "2e-4"), ("--layers", "head"), ("--seed", "1"), ("--no-balanced",)):
        assert "begun with other options, photographs or weights" in line(
            start(*TUNE, *more, "--out", "half", "--resume")
        )
    assert "holds a run, which is kept" in line(start(*TUNE, "--out", "half"))
    assert line(start(*TUNE, "--out", "half")).endswith("; --resume goes on with it")
    assert contents(place / "half") == before
    state = place / "half" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-999])
    assert "can't be read, so it can't be resumed" in line(start(*TUNE, "--out", "half", "--resume"))


def left(folder: Path) -> set[str]:
    return {name for name in names(folder) if not name.startswith(".phosphene-")}


def test_killed_twice_it_ends_the_same(place: Path, start: Start, tuned: Ended) -> None:
    for step in (3, 7):
        more = ("--resume",) if (place / "killed").exists() else ()
        assert start(*TUNE, "--out", "killed", *more, every=0, hit=step, signal="SIGKILL").code == -9
        assert {"state.safetensors", "metrics.jsonl"} >= names(place / "killed")
    good(start(*TUNE, "--out", "killed", "--resume", every=0))
    assert names(place / "killed") == TUNED and same_weights(place / "killed", place / "tuned")
    for mine, wanted in zip(*(record(place / name)["epochs"] for name in ("killed", "tuned")), strict=True):
        assert {n: v for n, v in mine.items() if "second" not in n} == {
            n: v for n, v in wanted.items() if "second" not in n
        }


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_ten_moments_it_ends_the_same(place: Path, start: Start, tuned: Ended, seed: int) -> None:
    generator = random.Random(seed)
    out, killed, useful = f"random-{seed}", 0, 0
    for moment in generator.sample([0] * 4 + [1] * 6, 10):
        more = ("--resume",) if (place / out / "state.safetensors").exists() else ()
        alarm = [moment, generator.uniform(0.001, 0.05 if moment else 1)]  # not known how far it is then
        ended = start(*TUNE, "--out", out, *more, every=0, alarm=alarm)
        if ended.code == 0:
            break
        assert ended.code == -signal.SIGALRM, ended
        killed += 1
        useful += bool(more)
    else:
        more = ("--resume",) if (place / out / "state.safetensors").exists() else ()
        good(start(*TUNE, "--out", out, *more, every=0))
    assert killed > 3 and useful
    assert left(place / out) == TUNED and same_weights(place / out, place / "tuned")


@pytest.mark.parametrize("count", [1, 4])
def test_killed_while_a_state_is_written_the_one_before_stays(
    place: Path, start: Start, tuned: Ended, count: int
) -> None:
    out = f"torn-{count}"
    assert start(*TUNE, "--out", out, every=0, torn=count).code == -9
    (part,) = (name for name in names(place / out) if name.endswith(".part"))
    assert part.startswith(".state")
    good(start(*TUNE, "--out", out, "--resume"))
    assert names(place / out) == TUNED and same_weights(place / out, place / "tuned")


def test_a_full_disk_is_told_once_and_the_training_goes_on(place: Path, start: Start, tuned: Ended) -> None:
    said = good(start(*TUNE, "--out", "full", every=0, full=2))
    assert said.err.count("\n") == 1 and "No space left on device" in said.err
    assert said.err.endswith("; the checkpoint before it stays, and the training goes on\n")
    assert names(place / "full") == TUNED and same_weights(place / "full", place / "tuned")
    ended = start(*TUNE, "--out", "full-and-killed", every=0, full=2, hit=6, signal="SIGKILL")
    assert ended.code == -9 and ended.err.count("\n") == 1
    assert names(place / "full-and-killed") == {"state.safetensors", "metrics.jsonl"}
    good(start(*TUNE, "--out", "full-and-killed", "--resume"))
    assert same_weights(place / "full-and-killed", place / "tuned")


def test_a_loss_that_is_no_number_is_told_and_the_training_goes_on(place: Path, start: Start) -> None:
    said = good(start(*TUNE, "--out", "nan", "--json", nan=[6]))
    assert said.err == (
        "phosphene: the loss was no number at step 5: went back to the last good state, at half the rate\n"
    )
    assert json.loads(said.out)["repairs"] == record(place / "nan")["repairs"] == [5]
    assert record(place / "nan")["rate_factor"] == 0.5 and record(place / "nan")["steps"] == STEPS
    assert all(bool(torch.isfinite(value).all()) for value in weights(place / "nan").values())


def test_a_loss_that_stays_no_number_ends_it(place: Path, start: Start) -> None:
    told = line(start(*TUNE, "--out", "never", "--rate", "1e25"))
    assert told.startswith("the loss was ") and told.endswith("give a lower --rate than 1e+25")
    assert not (place / "never").exists()


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(place: Path, probed: Ended) -> Path:
    """Folders that are no good, and one where nothing can be written."""
    fill(place / "one", 3, ["cat"])
    fill(place / "hollow", 3)
    (place / "hollow" / "zebra").mkdir()
    fill(place / "single", 1)
    (place / "no-classes").mkdir()
    fill(place / "unlike" / "train", 3)
    fill(place / "unlike" / "val", 3, ["cat", "coffee"])
    (place / "unlike" / "val" / "rockets").mkdir()
    shutil.copyfile(place / "photos" / "cat" / "00.png", place / "unlike" / "val" / "rockets" / "a.png")
    fill(place / "only-val" / "val", 3)
    fill(place / "torn", 8)
    for name in ("00", "01"):
        (place / "torn" / "cat" / f"{name}.png").write_bytes(b"\x89PNG\r\n")
    (place / "file.txt").write_text("a file")
    return place


FOLDERS = {
    "gone": "'gone' is no folder",
    "file.txt": "'file.txt' is no folder",
    "no-classes": "has no folders in it",
    "one": "has one class, 'cat'",
    "hollow": "the class folder 'hollow/zebra' holds no images",
    "single": "class 'cat' has one image",
    "unlike": "train and val need the same classes: 'val' lacks rocket; only 'val' has rockets",
    "only-val": "has a 'val' and no 'train'",
    "torn": "2 of 24 images can't be read (torn/cat/00.png",
}
OPTIONS = {
    "--batch 40": "there are 39 images to learn from, fewer than a batch of 40",
    "--batch 0": "--batch starts at 1",
    "--epochs 0": "--epochs starts at 1, got 0",
    "--rate 0": "--rate is a number above 0, got 0",
    "--rate nan": "--rate is a number above 0, got nan",
    "--rate=-1": "--rate is a number above 0, got -1",
    "--size 3": "--size starts at 16 pixels, got 3",
    "--size 16": "can't run on",
    "--layers nonsense": "--layers takes head, last:N, stage:NAME or all, not 'nonsense'",
    "--layers last:": "--layers takes head, last:N",
    "--layers last:99": "squeezenet1_1 has 5 stages, and last:99 asks for more",
    "--layers stage:nosuch": "squeezenet1_1 has no layer 'nosuch'",
    "--layers stage:fire2": "'fire2' is no stage of squeezenet1_1: features.1, ",
    "--ema 1": "--ema is at least 0 and below 1",
    "--optimiser adam": '"adam"',
    "--weights probed/model.safetensors": "does not fit the network: unexpected transfer_head.bias",
    "--weights file.txt": "neither a safetensors file",
    "--net probed --weights tuned/model.safetensors": "'probed' has its own weights, classes and preprocessing",
    "--net nosuch": "unknown network 'nosuch'",
    "--out file.txt": "'file.txt' is one file: --out needs a folder",
    "--out new.png": "'new.png' is one file: --out needs a folder",
    "--out new.json": "'new.json' is one file: --out needs a folder",
    "--out file.txt/deeper": "can't make the folder 'file.txt/deeper'",
    "--out /proc/nowhere": "can't make the folder '/proc/nowhere'",
    "--out photos/cat/00.png": "is one file: --out needs a folder",
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_folders_that_teach_nothing(bad: Path, start: Start, folder: str) -> None:
    before = contents(bad)
    for verb in ("probe", "finetune"):
        assert FOLDERS[folder] in line(start(verb, folder, *NET, "--out", "new/deeper"))
    assert contents(bad) == before


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_are_no_good(bad: Path, start: Start, tuned: Ended, options: str) -> None:
    before = contents(bad)
    given = options.replace("=", " ").split()
    words = ["finetune", "photos", *options.split()]
    for name, value in (("--net", "squeezenet1_1"), ("--size", "64"), ("--batch", "8"), ("--out", "new/deeper")):
        if name not in given and not (name == "--size" and "probed" in given):
            words += [name, value]
    assert OPTIONS[options] in line(start(*words))
    assert contents(bad) == before


def test_a_layer_that_is_not_there_and_a_folder_that_can_not_be_written(
    place: Path, start: Start, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "has no layer 'fire99'; did you mean fire9" in line(start(*PROBE, "--layer", "fire99", "--out", "never"))
    assert not (place / "never").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    (place / "closed").mkdir()
    said = run("finetune", place / "photos", *NET, "--out", place / "closed")
    assert said.code == 2 and said.err.count("\n") == 1 and "can't write into the folder" in said.err
    assert names(place / "closed") == set()


def test_images_that_can_not_be_read_are_left_out_and_listed(bad: Path, start: Start) -> None:
    said = good(start("probe", "torn", *NET, "--layer", "conv1", "--skip-bad", "--out", "whole", "--json"))
    assert said.err.count("\n") == 2
    for name in ("00", "01"):
        assert f"left out torn/cat/{name}.png: " in said.err and said.err.count(f"torn/cat/{name}.png") == 1
    facts = json.loads(said.out)
    assert set(facts["skipped"]) == {"torn/cat/00.png", "torn/cat/01.png"} and facts["computed"] == 22
    assert facts["photographs"]["train"]["cat"] + facts["photographs"]["val"]["cat"] == 6
    few = fill(bad / "few-torn", 8)
    (few / "cat" / "07.png").write_bytes(b"")
    said = good(start("probe", "few-torn", *NET, "--layer", "conv1", "--out", "few"))
    assert said.err.count("\n") == 1 and "left out few-torn/cat/07.png" in said.err
