"""`predict`: its table, and what it leaves out of folders."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest

from phosphene import images

NET = ("--net", "nets.py:small", "--top", "2")


def test_a_table_has_a_row_for_each_picture(run: Any, photos: Path) -> None:
    said = run("predict", "photos", "cat.png", *NET, "--csv", "table.csv", "--json")
    with open("table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "image", "class_1", "probability_1", "index_1", "class_2", "probability_2", "index_2",
    ]  # fmt: skip
    assert [row["image"] for row in rows] == [row["image"] for row in said.json["predictions"]] and len(rows) == 7
    for row, told in zip(rows, said.json["predictions"], strict=True):
        for place, found in enumerate(told["classes"], start=1):
            assert row[f"class_{place}"] == found["name"] and int(row[f"index_{place}"]) == found["index"]
            assert float(row[f"probability_{place}"]) == found["probability"]  # all its digits


def test_a_table_that_exists_is_kept(run: Any, nets: Path) -> None:
    assert "wrote table.csv" in run("predict", "cat.png", *NET, "--csv", "table.csv").out
    before = Path("table.csv").read_bytes()
    said = run("predict", "cat.png", "cat.png", *NET, "--csv", "table.csv")
    assert said.code == 2 and "'table.csv' exists and is kept" in said.err and said.out == ""
    assert Path("table.csv").read_bytes() == before
    assert run("predict", "cat.png", "cat.png", *NET, "--csv", "table.csv", "--overwrite").code == 0
    assert Path("table.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(
    ("table", "message"),
    [("photos", "is a folder"), ("no/table.csv", "there is no folder 'no'"), ("cat.png", "is read here")],
)
def test_tables_that_cannot_be_written(run: Any, photos: Path, table: str, message: str) -> None:
    before = Path("cat.png").read_bytes()
    said = run("predict", "cat.png", *NET, "--csv", table, "--overwrite")
    assert said.code == 2 and message in said.err and said.err.count("\n") == 1 and said.out == ""
    assert Path("cat.png").read_bytes() == before and not Path("no").exists()


def test_what_cannot_be_read_in_a_folder_is_left_out_and_told(run: Any, photos: Path) -> None:
    said = run("predict", "photos", *NET, "--csv", "table.csv", "--json")
    assert said.code == 0 and said.err.count("\n") == 1 and said.err.startswith("phosphene: left out photos/torn.jpg: ")
    assert list(said.json["skipped"]) == ["photos/torn.jpg"] and "torn" not in Path("table.csv").read_text()
    assert run("predict", "photos", *NET, "--quiet").err == ""


def test_a_picture_that_was_named_must_be_read(run: Any, photos: Path) -> None:
    for words in (("photos/torn.jpg",), ("photos", "photos/torn.jpg")):
        said = run("predict", *words, *NET, "--csv", "table.csv")
        assert said.code == 2 and said.err.count("\n") == 1 and "photos/torn.jpg is cut short" in said.err
        assert said.out == "" and not Path("table.csv").exists()


def test_a_folder_in_which_nothing_can_be_read(run: Any, photos: Path) -> None:
    Path("torn").mkdir()
    shutil.copyfile("photos/torn.jpg", "torn/a.jpg")
    said = run("predict", "torn", *NET)
    assert said.code == 2 and "none of the 1 images can be read: torn/a.jpg" in said.err
    assert len(images.find("torn")) == 1
