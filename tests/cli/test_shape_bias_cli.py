"""`shape-bias` as a person runs it: table, picture with its recipe, CSV, JSON, and what is refused."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene import recipe

NET = ("--net", "nets.py:colours")
BIAS = ("shape-bias", "cues", *NET)
COLOURS = """

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 1000, bias=False)
        with torch.no_grad():
            self.last.weight.zero_()
            for place, index in enumerate((281, 817, 499)):  # cat, car, knife
                self.last.weight[index, place] = 9

    def forward(self, images):
        return self.last(images.mean((2, 3)))

def colours():
    return Mean()
"""
SHOWN = {
    "cat1-car1": (255, 0, 0), "cat1-car2": (0, 255, 0), "cat2-dog1": (0, 255, 0), "cat3-cat1": (255, 0, 0),
    "dog1-cat1": (255, 0, 0), "dog4-oven1": (0, 255, 0),
}  # fmt: skip
COLUMNS = ["subj", "session", "trial", "rt", "object_response", "category", "condition", "imagename"]


@pytest.fixture
def cues(here: Path, nets: Path) -> Path:
    """Six one-coloured images, and in nets.py a network that takes red for a cat, green for a car."""
    with open(nets, "a", encoding="utf-8") as file:
        file.write(COLOURS)
    for name, colour in SHOWN.items():
        path = here / "cues" / re.split(r"\d", name)[0] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (224, 224), colour).save(path)
    return here / "cues"


def test_tables_and_the_picture(run: Any, cues: Path) -> None:
    said = run(*BIAS)
    assert (said.code, said.err) == (0, "") and "wrote nets.py-colours-shape-bias.png" in said.out
    assert re.search(r"cat +1 +1 +1 +50\.0% +9\.5% to 90\.5%", said.out)
    assert re.search(r"dog +0 +1 +1 +0\.0% +0\.0% to 79\.3%", said.out)
    assert "Published, the 150 images of these shapes only: cat, dog" in said.out
    assert re.search(r"nets\.py:colours, here +1 +2 +2 +33\.3%", said.out)
    assert (
        said.out.index("Humans") < said.out.index("ResNet-50 on Stylized-ImageNet") < said.out.index("VGG-16 (Caffe)")
    )
    assert re.search(r"The shape bias of ten people is \d+\.\d% to \d+\.\d%", said.out)
    assert "decides 1 by shape, 2 by texture and 2 (40.0%) by neither. Left out: 1 image whose cues agree." in said.out
    assert "Shape bias 33.3%, 95% interval 6.1% to 79.2%." in said.out
    pixels = np.asarray(Image.open("nets.py-colours-shape-bias.png").convert("RGB"))
    assert min(pixels.shape[:2]) > 300 and pixels.std() > 3


def test_one_shape_has_no_table_of_shapes(run: Any, cues: Path) -> None:
    said = run("shape-bias", "cues/cat", *NET)
    assert "by the category of the shape" not in said.out and "of these shapes only: cat" in said.out


def test_the_picture_is_made_again_byte_for_byte(run: Any, cues: Path) -> None:
    (path,) = run(*BIAS, "--aggregate", "max", "--out", "out", "--json").json["pictures"]
    kept = recipe.read(path)
    assert (kept.verb, kept.picture) == ("shape-bias", "shape-bias") and kept.inputs.keys() == {"cues", "nets.py"}
    assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"
    command, *_ = run("recipe", path).out.splitlines()
    assert command == "phosphene shape-bias cues --aggregate max --net nets.py:colours"
    Image.new("RGB", (224, 224)).save("cues/cat9-dog1.png")
    said = run("rerun", path, "--check", "--run-code")
    assert said.code == 2 and "'cues' is not the file that the picture was made from" in said.err


def test_the_csv_is_in_the_format_of_the_published_data(run: Any, cues: Path) -> None:
    found = run(*BIAS, "--csv", "tables/own.csv", "--json").json
    text = Path("tables/own.csv").read_bytes()
    assert text.startswith(",".join(COLUMNS).encode() + b"\n") and b"\r" not in text
    with open("tables/own.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(SHOWN) == len(found["decisions"])
    for trial, (row, name, told) in enumerate(zip(rows, SHOWN, found["decisions"], strict=True), start=1):
        assert (row["subj"], row["session"], row["trial"], row["rt"], row["condition"]) == (
            "nets.py:colours", "1", str(trial), "NaN", "0",
        )  # fmt: skip
        assert row["imagename"] == f"{trial:04d}_s5n_dnn_0_{row['category']}_00_{name}.png"
        assert (row["object_response"], row["category"]) == (told["decision"], told["shape"])
        assert row["imagename"].split("_")[6].split("-")[1] == f"{name.split('-')[1]}.png"  # where their analysis looks
    assert rows[0]["object_response"] == "cat" and rows[1]["object_response"] == "car"


def test_a_csv_is_kept_unless_told_otherwise(run: Any, cues: Path) -> None:
    Path("own.csv").write_text("mine")
    said = run(*BIAS, "--csv", "own.csv", "--out", "out")
    assert said.code == 2 and "'own.csv' exists and is kept" in said.err and not Path("out").exists()
    assert Path("own.csv").read_text() == "mine"
    assert run(*BIAS, "--csv", "own.csv", "--out", "out", "--overwrite").code == 0
    assert Path("own.csv").read_text().startswith("subj,")
    assert sorted(path.name for path in Path().glob("*.part")) == []


def test_quiet_is_quiet_and_json_is_json(run: Any, cues: Path) -> None:
    assert run(*BIAS, "-q", "--csv", "own.csv") == type(run("--version"))(0, "", "")
    (cues / "dog9-cat1.png").write_bytes(b"\x89PNG torn")
    said = run(*BIAS, "--json", "--overwrite")
    assert json.loads(said.out)["command"] == "shape-bias" and list(said.json["skipped"]) == ["cues/dog9-cat1.png"]
    assert said.err.startswith("phosphene: left out cues/dog9-cat1.png: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("gone", *NET), "'gone' is no folder"),
        (("cat.png", *NET), "'cat.png' is no folder"),
        (("empty", *NET), "holds no image files"),
        (
            (".", *NET),
            "1 of 7 file names tell no shape and texture, as cat1-car3.png does: cat.png; the categories are",
        ),
        (("same", *NET), "in none of the 1 images do shape and texture differ"),
        (("cues", "--net", "nets.py:small"), "ImageNet's 1,000 classes, and nets.py:small has 10 others"),
        (("cues", "--net", "nets.py:features"), "shape bias needs a network that classifies"),
        (("cues", *NET, "--aggregate", "median"), "median"),
        (("cues", *NET, "--csv", "table.png"), "'table.png' is the name of a picture"),
        (("cues", *NET, "--csv", "same"), "'same' is a folder"),
        (("cues", *NET, "--csv", "nets.py/own.csv"), "'nets.py' is no folder"),
        (("cues", *NET, "--out", "cues/cat/cat1-car1.png", "--overwrite"), "lies among the images, which are kept"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Any, cues: Path, words: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("same").mkdir()
    if words[0] == "same":
        Image.new("RGB", (32, 32)).save("same/cat1-cat2.png")
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    said = run("shape-bias", *words, *(() if "--csv" in words else ("--csv", "new/own.csv")))
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    after = {
        path: path.read_bytes() for path in Path().rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert after == before and not Path("new").exists()


@pytest.mark.shared
def test_the_published_images(run: Any, here: Path, shared: Path) -> None:
    said = run("shape-bias", shared / "data" / "cue_conflict", "--out", "one.png")
    assert said.code == 0 and "the 150 images of these shapes only: cat, elephant" in said.out
    assert re.search(r"squeezenet1_1, here +\d+ +\d+ +\d+ +1\d\.\d%", said.out)
    assert run("rerun", "one.png", "--check").out == "the same bytes\n"
