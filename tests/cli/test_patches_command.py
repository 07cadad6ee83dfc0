"""`patches` in detail: the squares are cut out of the photographs, units that are silent are told, runs can be repeated."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import phosphene
from phosphene import images, recipe

NET = ("--net", "nets.py:small")
LAYER1 = ("patches", "photos", *NET, "--layer", "1")
DULL = """

def dull():
    module = small()
    with torch.no_grad():
        module[0].bias[2:5] = -99
    return module
"""


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def dull(nets: Path) -> None:
    """nets.py:dull, whose units 2 to 4 of layer 1 are silent."""
    nets.write_text(nets.read_text() + DULL)


def test_a_sheet_and_a_picture_of_each_unit_all_made_again_byte_for_byte(run: Any, photos: Path) -> None:
    found = run(*LAYER1, "--unit", "5,0,5", "--count", "3", "--out", "p", "--json").json
    names = ["nets.py-small-patches.png", *(f"nets.py-small-patches-unit-{unit}.png" for unit in (5, 0))]
    assert found["pictures"] == [f"p/{name}" for name in names] and found["layer"] == "1"
    for path in found["pictures"]:
        assert recipe.read(path).inputs.keys() == {"photos", "nets.py"}
        assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"
    shutil.copyfile("cat.png", "photos/one more.png")
    said = run("rerun", found["pictures"][0], "--check", "--run-code")
    assert said.code == 2 and "'photos' is not the file that the picture was made from" in said.err


def test_the_patches_are_cut_out_of_the_photographs(run: Any, photos: Path) -> None:
    for method in ("guided-backprop", "gradient"):
        words = (*LAYER1, "--unit", "3", "--count", "4", "--method", method, "--out", method, "--json")
        (unit,) = run(*words).json["units"]
    network = phosphene.load("nets.py:small", device="cpu")
    shown = pixels("guided-backprop/nets.py-small-patches-unit-3.png")
    for place, patch in enumerate(unit["patches"]):
        top, left, bottom, right = patch["box"]
        crop = network.preprocess(images.read(patch["image"]))[0, :, top:bottom, left:right]
        wanted = (crop.permute(1, 2, 0).numpy() * 255).round()
        row, column = divmod(place, 2)
        tile = shown[row * 116 : row * 116 + 112, column * 116 : column * 116 + 112]
        centres = np.round((np.arange(3) + 0.5) * 112 / 3).astype(int)
        assert np.abs(tile[np.ix_(centres, centres)] - wanted).max() <= 1
    other = pixels("gradient/nets.py-small-patches-unit-3.png")
    assert np.array_equal(shown[:, :228], other[:, :228])  # the photographs are the same, whatever stands beside them


def test_patches_come_from_different_images_and_no_more_than_there_are(run: Any, photos: Path) -> None:
    (unit,) = run(*LAYER1, "--unit", "0", "--count", "50", "--json").json["units"]
    found = [patch["image"] for patch in unit["patches"]]
    assert sorted(found) == sorted({str(path.relative_to(Path.cwd())) for path in photos.rglob("*.png")})


def test_eight_units_where_none_are_named(run: Any, photos: Path) -> None:
    found = run("patches", "photos", *NET, "--layer", "3", "--count", "1", "--json").json
    assert [unit["unit"] for unit in found["units"]] == list(range(0, 16, 2))


def test_units_without_a_map_see_all_that_the_convolutions_read(run: Any, photos: Path) -> None:
    (unit,) = run("patches", "photos", *NET, "--layer", "6", "--unit", "4", "--count", "2", "--json").json["units"]
    assert [(patch["position"], patch["box"]) for patch in unit["patches"]] == [
        (None, [0, 0, 223, 223])
    ] * 2  # of stride 2


def test_a_silent_unit_beside_others_has_no_picture(run: Any, photos: Path, dull: None) -> None:
    words = ("patches", "photos", "--net", "nets.py:dull", "--layer", "1", "--count", "2")
    found = run(*words, "--units", "1,3", "--json").json
    assert {unit["unit"]: len(unit["patches"]) for unit in found["units"]} == {1: 2, 3: 0}
    assert found["pictures"] == ["nets.py-dull-patches.png", "nets.py-dull-patches-unit-1.png"]


def test_what_is_left_out_is_told_unless_all_is_quiet(run: Any, photos: Path) -> None:
    words = (*LAYER1, "--unit", "0", "--count", "1", "--overwrite")
    said = run(*words)
    assert said.err.startswith("phosphene: left out photos/torn.jpg: ") and said.err.count("\n") == 1
    assert run(*words, "-q") == type(said)(0, "", "")
    assert list(run(*words, "--json").json["skipped"]) == ["photos/torn.jpg"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "1", "--units", "2,3,4"), "units 2, 3, 4 of '1' are silent in all images: name others"),
        (("--layer", "1", "--units=-1"), "units 0 to 7"),
        (("--layer", "1", "--units", "1.5"), "channel numbers such as 3,17, got '1.5'"),
        (("--layer", "1", "--method", "lrp"), "lrp"),
        (("--layer", "1", "--count=-3"), "give at least one of each"),
        (("--layer", "relu"), "has no layer 'relu'"),
        (("--units", "1"), "--layer requires an argument"),
        (("--layer", "1", "--out", "x.gif"), "can't be written as .gif"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Any, photos: Path, dull: None, words: tuple[str, ...], message: str
) -> None:
    before = sorted(Path().rglob("*"))
    said = run("patches", "photos", "--net", "nets.py:dull", *words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    shutil.rmtree("__pycache__", ignore_errors=True)
    assert sorted(Path().rglob("*")) == before


def test_a_folder_where_nothing_can_be_read(run: Any, photos: Path) -> None:
    for path in photos.rglob("*.png"):
        path.write_bytes(b"\x89PN")
    said = run(*LAYER1, "--unit", "0")
    assert said.code == 2 and "none of the 7 images can be read: photos/" in said.err and said.err.count("\n") == 1


def test_no_rule_beside_the_patches_of_a_smooth_network(run: Any, photos: Path) -> None:
    words = ("patches", "photos", "--net", "nets.py:silu", "--layer", "1", "--unit", "0", "--count", "1")
    said = run(*words)
    assert said.code == 2 and "has no rule for Silu" in said.err and said.err.count("\n") == 1
    assert run(*words, "--method", "gradient").code == 0
