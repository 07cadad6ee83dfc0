"""`cue-conflict` as a person runs it: names, folders, recipes, going on where it ended, and what is refused."""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image

from phosphene import images, recipe
from phosphene.jobs import function_of

NET = """
def tiny():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""
OPTIONS = ("--net", "nets.py:tiny", "--size", "64", "--steps", "6", "--out", "set")
MAKE = ("cue-conflict", "contents", "styles", *OPTIONS)
PHOTOS = ("chelsea", "coffee", "astronaut", "rocket", "brick", "grass", "gravel")
CONTENTS = {"cat/a.png": "chelsea", "cat/b.png": "coffee", "dog/photo.png": "astronaut"}
STYLES = {"car/wall.png": "brick", "cat/fur.png": "grass"}
NAMES = ["cat/cat1-car1.png", "cat/cat2-car1.png", "dog/dog1-car1.png", "dog/dog1-cat1.png"]


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-image's photographs, 96 pixels high."""
    folder = tmp_path_factory.mktemp("small")
    for name in PHOTOS:
        (file,) = (Path(skimage.__file__).parent / "data").glob(f"{name}.*")
        with Image.open(file) as photo:
            photo.convert("RGB").resize((120, 96)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def photo(here: Path, small_photos: Path) -> Callable[[str, str], Path]:
    """Put a photograph somewhere."""

    def put(where: str, name: str) -> Path:
        path = here / where
        path.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(small_photos / f"{name}.png", path))

    return put


@pytest.fixture(autouse=True)
def folders(nets: Path, photo: Callable[[str, str], Path]) -> None:
    with open(nets, "a", encoding="utf-8") as file:
        file.write(NET)
    for folder, files in (("contents", CONTENTS), ("styles", STYLES)):
        for where, name in files.items():
            photo(f"{folder}/{where}", name)


def made(folder: str = "set") -> list[str]:
    return sorted(
        path.relative_to(Path(folder) / "stimuli").as_posix() for path in Path(folder).rglob("stimuli/*/*.png")
    )


def times() -> dict[str, int]:
    return {name: (Path("set/stimuli") / name).stat().st_mtime_ns for name in made()}


def test_stimuli_in_the_layout_of_geirhos_and_a_contact_sheet(run: Any) -> None:
    said = run(*MAKE)
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        "4 stimuli in set/stimuli; contact sheet: set/cue-conflict.png\n"
        "next: phosphene shape-bias set/stimuli --net nets.py:tiny\n"
    )
    assert made() == NAMES
    for name in NAMES:
        with Image.open(Path("set/stimuli") / name) as stimulus:
            assert stimulus.size == (64, 64) and np.asarray(stimulus).std() > 3
    sheet = images.read("set/cue-conflict.png")
    assert (
        sheet.shape[3] == 3 * 128 + 2 * 8 + 2 * 12 and sheet.shape[2] > 4 * 128
    )  # 3 shapes and 2 textures, and their heads


def test_a_stimulus_is_nearer_to_its_texture_than_the_photograph(run: Any) -> None:
    run(*MAKE)
    stimulus, content, texture = (
        images.resize(images.read(path), (64, 64)).flatten(2)[0]
        for path in ("set/stimuli/cat/cat1-car1.png", "contents/cat/a.png", "styles/car/wall.png")
    )
    far = [float((colours.mean(1) - texture.mean(1)).abs().max()) for colours in (stimulus, content)]
    assert far[0] < far[1]


def test_a_stimulus_is_made_again_byte_for_byte(run: Any) -> None:
    run(*MAKE)
    path = Path("set/stimuli/dog/dog1-cat1.png")
    kept = recipe.read(path)
    assert (kept.verb, kept.picture) == ("cue-conflict", "cue-conflict")
    assert kept.inputs.keys() == {"contents/dog/photo.png", "styles/cat/fur.png", "nets.py"}
    assert (kept.parameters["image"], kept.parameters["styles"]) == ("contents/dog/photo.png", "styles/cat/fur.png")
    assert set(kept.parameters) == set(inspect.signature(function_of("cue-conflict")).parameters) - {"workshop"}
    assert recipe.beside(path).is_file()
    assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"


def test_run_again_it_keeps_what_is_there(run: Any) -> None:
    run(*MAKE)
    before = times()
    (Path("set/stimuli") / NAMES[1]).unlink()
    said = run(*MAKE)
    assert said.code == 0 and "4 stimuli in set/stimuli, 3 of them made before" in said.out
    after = times()
    assert {name for name in NAMES if before[name] != after[name]} == {NAMES[1]}
    found = run(*MAKE, "--pairs", "2", "--json").json  # fewer: they are there, too
    assert found["kept"] == 2 and len(made()) == 4


def test_what_was_made_in_another_way_is_kept_unless_told_otherwise(
    run: Any, photo: Callable[[str, str], Path]
) -> None:
    run(*MAKE)
    before = times()
    said = run(*MAKE, "--style-weight", "3")
    assert said.code == 2 and said.err.count("\n") == 1
    assert re.search(r"'set/stimuli/\w+/\w+-\w+\.png' was made in another way, and is kept: give --overwrite", said.err)
    photo("styles/car/wall.png", "gravel")  # the same name with other bytes
    assert "was made in another way" in run(*MAKE).err and times() == before
    said = run(*MAKE, "--overwrite", "--json")
    assert said.json["kept"] == 1  # the one with the fur
    assert run(*MAKE, "--json").json["kept"] == 4


def test_a_foreign_file_is_kept(run: Any, photo: Callable[[str, str], Path]) -> None:
    kept = photo("set/stimuli/cat/cat1-car1.png", "chelsea").read_bytes()
    assert "was made in another way" in run(*MAKE).err and made() == NAMES[:1]
    assert Path("set/stimuli/cat/cat1-car1.png").read_bytes() == kept
    shutil.rmtree("set")
    photo("set/cue-conflict.png", "chelsea")
    assert "'set/cue-conflict.png' exists and is kept" in run(*MAKE).err and made() == []


def test_ctrl_c_keeps_what_is_done(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.synthesize import style_loss

    calls, real = 0, style_loss.StyleLoss.__call__

    def interrupted(*given: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if len(made()) == 2:
            raise KeyboardInterrupt
        return real(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(style_loss.StyleLoss, "__call__", interrupted)
        said = run(*MAKE)
    assert (said.code, said.out) == (130, "") and calls > 2
    assert said.err == (
        "phosphene: 2 of 4 stimuli are done; the same command goes on from there\n"
        "phosphene: interrupted; nothing half-written was kept\n"
    )
    before = times()
    assert len(before) == 2 and not Path("set/cue-conflict.png").exists()
    assert "4 stimuli in set/stimuli, 2 of them made before" in run(*MAKE).out
    assert {name: times()[name] for name in before} == before and made() == NAMES


def test_number_and_kind_of_pairs(run: Any) -> None:
    everything = [row["file"] for row in run(*MAKE, "--pairs", "all", "--json").json["stimuli"]]
    assert len(everything) == 4
    found = run(*MAKE, "--pairs", "3", "--json").json
    assert [row["file"] for row in found["stimuli"]] == everything[:3] and found["kept"] == 3
    said = run(*MAKE, "--same")
    assert "6 stimuli in set/stimuli, 4 of them made before, 2 with both cues of one class;" in said.out
    assert {"cat/cat1-cat1.png", "cat/cat2-cat1.png"} < set(made())


def test_a_flat_folder_keeps_its_numbers(run: Any, photo: Callable[[str, str], Path]) -> None:
    for name, shown in (("cat7.png", "chelsea"), ("dog12.png", "coffee"), ("notes.png", "rocket")):
        photo(f"flat/{name}", shown)
    said = run("cue-conflict", "flat", "styles", *OPTIONS)
    assert said.code == 0 and made() == ["cat/cat7-car1.png", "dog/dog12-car1.png", "dog/dog12-cat1.png"]
    assert said.err == (
        "phosphene: left out flat/notes.png: its name tells no class, as that of cat1.jpg does: or put it into a folder of"
        " its class\n"
    )


def test_what_can_not_be_used_is_left_out_and_told(run: Any, photo: Callable[[str, str], Path]) -> None:
    Path("contents/cat/a.png").write_bytes(b"\x89PNG torn")
    photo("contents/loose.png", "rocket")
    Path("contents/empty").mkdir()
    found = run(*MAKE, "--json")
    assert sorted(found.json["skipped"]) == ["contents/cat/a.png", "contents/empty", "contents/loose.png"]
    assert found.err.count("\n") == 3 and "contents/loose.png: it lies in none of the class folders" in found.err
    assert made() == NAMES[1:]  # cat2 is still cat2


def test_classes_that_shape_bias_does_not_know(run: Any, photo: Callable[[str, str], Path]) -> None:
    photo("styles/zebra/1.png", "gravel")
    said = run(*MAKE)
    assert said.err == "phosphene: shape-bias knows 16 categories only, and not zebra: it refuses their stimuli\n"
    assert "next:" not in said.out and "cat/cat1-zebra1.png" in made()


def test_quiet_is_quiet(run: Any) -> None:
    Path("contents/cat/a.png").write_bytes(b"")
    said = run(*MAKE, "-q")
    assert (said.code, said.out, said.err) == (0, "", "")


def test_shape_bias_reads_them(run: Any) -> None:
    run(*MAKE)
    said = run("shape-bias", "set/stimuli", "--net", "squeezenet1_1", "--json")
    assert said.code == 0 and said.json["images"] == 4
    assert {(row["shape"], row["texture"]) for row in said.json["decisions"]} == {
        ("cat", "car"), ("dog", "car"), ("dog", "cat"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gone", "styles"), "'gone' is no folder: give one with a folder of photographs for each class"),
        (("contents", "cat.png"), "'cat.png' is a file: give the folder that holds the classes"),
        (("contents", "empty"), "holds no image files"),
        (
            ("flat", "styles"),
            "'flat' has no folder for each class, and no file in it tells its class, as cat1.jpg does",
        ),
        (("hyphen", "styles"), "a class is named by the letters a to z"),
        (("contents", "digits"), "and not 'x5' (digits/x5/a.png)"),
        (("cats", "cats"), "all images are of one class (cat), so no shape meets another texture"),
        (("torn", "styles"), "no image of 'torn' can be read: torn/cat/a.png is empty"),
        (("contents", "styles", "--pairs", "5"), "there are 1 to 4 pairs of these images, got 5"),
        (("contents", "styles", "--pairs", "0"), "there are 1 to 4 pairs of these images, got 0"),
        (("contents", "styles", "--pairs", "some"), "--pairs takes a number or all, got 'some'"),
        (("contents", "styles", "--size", "8"), "a stimulus has 32 to 4096 pixels a side, got 8"),
        (("contents", "styles", "--steps", "0"), "steps start at 1"),
        (("contents", "styles", "--style-weight", "-1"), "a style weight is a number from 0 up"),
        (("contents", "styles", "--out", "cat.png"), "'cat.png' is one file: --out needs a folder"),
        (("contents", "styles", "--out", "nets.py"), "'nets.py' is one file: --out needs a folder"),
        (("contents", "styles", "--net", "squeezenet1_1", "--size", "64"), "use a larger picture"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    run: Any, photo: Callable[[str, str], Path], words: tuple[str, ...], message: str
) -> None:
    Path("empty").mkdir()
    photo("flat/notes.png", "rocket")
    photo("hyphen/polar-bear/a.png", "rocket")
    photo("digits/x5/a.png", "rocket")
    photo("cats/cat/a.png", "chelsea")
    photo("cats/cat/b.png", "coffee")
    photo("torn/cat/a.png", "chelsea").write_bytes(b"")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    given = {"--net": "nets.py:tiny", "--size": "64", "--steps": "6", "--out": "set"}
    rest = [word for name, value in given.items() if name not in words for word in (name, value)]
    said = run("cue-conflict", *words, *rest)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    after = {
        path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert after == before and not Path("set").exists()
