"""`embed` as a person runs it: files, what is told, what is refused, and that every picture can be made again."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import recipe

NET = ("--net", "nets.py:small")
EMBED = ("embed", "photos", *NET)
FILES = ["embed.npz", "embed.png", "embed.png.json", "grid.png", "grid.png.json", "index.html", "points.csv", "points.png",
         "points.png.json"]  # fmt: skip
NAN = """

def nan():
    module = small()
    with torch.no_grad():
        module[2].weight.fill_(float("nan"))
    return module
"""


@pytest.fixture
def classes(photos: Path) -> Path:
    """The photos in two folders, and one more."""
    for place, path in enumerate(sorted(photos.rglob("*.png"))):
        folder = photos / ("dark" if place < 3 else "light")
        folder.mkdir(exist_ok=True)
        path.rename(folder / f"{place}.png")
    return photos


def test_a_folder_becomes_a_page_pictures_and_numbers(run: Any, photos: Path) -> None:
    said = run(*EMBED)
    assert said.code == 0 and sorted(path.name for path in Path("phosphene-embed").iterdir()) == FILES
    assert said.err.startswith("phosphene: left out photos/torn.jpg: ") and said.err.count("\n") == 1
    assert "t-SNE of 6 images by nets.py:small: what '6' is given, 16 numbers" in said.out
    assert "Perplexity 1.66667, lowered from 30, as there are only 6 images." in said.out
    assert re.search(r"Two principal components keep \d+\.\d% of the variance", said.out)
    assert re.search(r"among its nearest in the map \(40\.0% by chance\); trustworthiness \d\.\d{3}", said.out)
    assert "wrote phosphene-embed/index.html, phosphene-embed/embed.png" in said.out
    with open("phosphene-embed/points.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with np.load("phosphene-embed/embed.npz") as numbers:
        assert set(numbers) == {"features", "tsne", "pca", "grid", "neighbours", "distances", "names"}
        assert numbers["features"].shape == (6, 16)
        assert [row["name"] for row in rows] == numbers["names"].tolist() == sorted(numbers["names"])
        assert [[float(row["x"]), float(row["y"])] for row in rows] == numbers["tsne"].tolist()
    assert {row["class"] for row in rows} == {""} and "more/photo1.png" in {row["name"] for row in rows}


def test_every_picture_is_made_again_byte_for_byte(run: Any, photos: Path) -> None:
    words = (*EMBED, "--query", "cat.png", "--neighbours", "3", "--seed", "5", "--json")
    found = run(*words, "--out", "one").json
    pictures = [path for path in found["written"] if path.endswith(".png")]
    assert [Path(path).stem for path in pictures] == ["embed", "grid", "points", "neighbours"]
    for path in pictures:
        kept = recipe.read(path)
        assert kept.inputs.keys() == {"photos", "nets.py", "cat.png"} and "scikit-learn" in kept.notes
        assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"
    run(*words, "--out", "two")
    for path in Path("one").iterdir():
        assert path.read_bytes() == (Path("two") / path.name).read_bytes(), path
    command, *_ = run("recipe", pictures[0]).out.splitlines()
    assert command == "phosphene embed photos --neighbours 3 --net nets.py:small --query cat.png --seed 5"
    shutil.copyfile("cat.png", "photos/one more.png")
    said = run("rerun", pictures[0], "--check", "--run-code")
    assert said.code == 2 and "'photos' is not the file that the picture was made from" in said.err


def test_classes_and_a_query_are_told(run: Any, classes: Path) -> None:
    said = run(*EMBED, "--query", "photos/dark/1.png", "--method", "pca", "--neighbours", "2")
    assert re.search(r"The 5 nearest name the class of \d+\.\d% of the images by features", said.out)
    assert "50.0% are of the largest class" in said.out and "nearest to the query" in said.out
    assert "PCA of 6 images" in said.out and "Perplexity" not in said.out
    table = Path("phosphene-embed/points.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["dark"] * 3 + ["light"] * 3
    found = run(*EMBED, "--query", "photos/dark/1.png", "--json", "--overwrite").json
    assert len(found["query"]["neighbours"]) == 5
    assert "dark/1.png" not in {row["name"] for row in found["query"]["neighbours"]}


def test_quiet_is_quiet_and_json_is_json(run: Any, photos: Path) -> None:
    assert run(*EMBED, "-q") == type(run(*EMBED, "-q", "--overwrite"))(0, "", "")
    said = run(*EMBED, "--json", "--overwrite")
    assert json.loads(said.out)["command"] == "embed" and list(said.json["skipped"]) == ["photos/torn.jpg"]


def test_any_layer_and_any_network(run: Any, photos: Path) -> None:
    for net, layer, wide in (("small", "0", 8), ("grey", None, 16), ("features", None, 16), ("flat", "3", 10)):
        words = (
            "embed",
            "photos",
            "--net",
            f"nets.py:{net}",
            *(("--layer", layer) if layer else ()),
            "--method",
            "pca",
        )
        assert run(*words, "--json", "--out", net).json["dimensions"] == wide


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("photos", "--neighbours", "6"), "6 neighbours of one of 6 images: give 1 to 5"),
        (("photos", "--neighbours", "7"), "7 neighbours of one of 7 images"),
        (("photos/more",), "a map needs at least 3 images, and there is 1"),
        (("empty",), "holds no image files"),
        (("cat.png",), "'cat.png' is no folder"),
        (("gone",), "'gone' is no folder"),
        (("photos", "--layer", "conv9"), "has no layer 'conv9'"),
        (("photos", "--perplexity", "0"), "perplexity 0 is out of range"),
        (("photos", "--perplexity=-2"), "perplexity -2 is out of range"),
        (("photos", "--query", "nets.py"), "nets.py is not an image"),
        (("photos", "--query", "gone.png"), "gone.png"),
        (("photos", "--method", "umap"), "umap"),
        (("photos", "--out", "cat.png"), "'cat.png' is one file: --out needs a folder"),
        (("photos", "--out", "nets.py"), "'nets.py' is one file: --out needs a folder"),
        (("photos", "--out", "nets.py/deep"), "can't make the folder 'nets.py/deep'"),
        (("photos", "--seed", str(2**70)), "a seed is"),
        (("photos", "--net", "nets.py:nan"), "the weight of layer '2' of nets.py:nan has NaN or infinity"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Any, photos: Path, words: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    with open("nets.py", "a", encoding="utf-8") as file:
        file.write(NAN)
    net = () if "--net" in words else NET
    before = sorted(Path().rglob("*"))
    said = run("embed", *words, *net)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    shutil.rmtree("__pycache__", ignore_errors=True)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("name", ["index.html", "embed.png", "grid.png", "embed.npz", "points.csv"])
def test_what_exists_is_kept(run: Any, photos: Path, name: str) -> None:
    file = Path("phosphene-embed") / name
    file.parent.mkdir()
    file.write_text("mine")
    said = run(*EMBED)
    assert said.code == 2 and f"'{file}' exists and is kept: give --overwrite" in said.err
    assert file.read_text() == "mine" and list(file.parent.iterdir()) == [file]
    assert run(*EMBED, "--overwrite").code == 0 and file.stat().st_size > 100


def test_a_perplexity_above_the_number_of_images_is_lowered_and_said(run: Any, photos: Path) -> None:
    assert "lowered from 400" in run(*EMBED, "--perplexity", "400").out


def test_pictures_have_the_size_of_their_map(run: Any, photos: Path) -> None:
    run(*EMBED, "-q")
    for name in ("embed", "grid", "points"):
        with Image.open(f"phosphene-embed/{name}.png") as picture:
            assert min(picture.size) > 400 and max(picture.size) < 3000
