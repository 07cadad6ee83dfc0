from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene import images, recipe
from phosphene.errors import ImageError, PhospheneError
from phosphene.jobs.workshop import Workshop
from phosphene.recipe import Recipe

FULL = Recipe(
    verb="fool",
    parameters={"image": "ä cat.png", "steps": 3, "confidence": 0.25, "labels": None, "units": ["1", "2:3:4"]},
    picture="fooled",
    inputs={"ä cat.png": "00ff"},
    networks={"squeezenet1_1": "abcd"},
    device="cpu",
    threads=2,
    versions={"torch": "2"},
)


def test_to_json_and_back() -> None:
    assert Recipe.from_json(FULL.to_json()) == FULL
    assert FULL.to_json() == Recipe.from_json(FULL.to_json()).to_json()
    assert list(json.loads(FULL.to_json())) == sorted(json.loads(FULL.to_json()))
    assert FULL.to_json().isascii()  # any encoding of any format can hold it


def test_the_order_of_parameters_does_not_matter() -> None:
    turned = Recipe(**{**FULL.__dict__, "parameters": dict(reversed(FULL.parameters.items()))})
    assert turned.to_json() == FULL.to_json()


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "3", "[]", "null", '{"verb": "x"}', "[" * 100_000),
        '{"verb": "x", "parameters": {}, "picture": "y", "shiny": 1}',
    ],
)
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(PhospheneError, match=r"^here holds no recipe that this version can read"):
        Recipe.from_json(text, "here")


@pytest.mark.parametrize(
    "change",
    [{"verb": 1}, {"parameters": []}, {"threads": "2"}, {"threads": 0}, {"inputs": {"a": 1}}, {"versions": None}],
)
def test_fields_of_another_kind(change: dict[str, Any]) -> None:
    text = json.dumps({**json.loads(FULL.to_json()), **change})
    with pytest.raises(PhospheneError, match=f"its '{next(iter(change))}'"):
        Recipe.from_json(text)


def test_hashes_are_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "file").write_bytes(data)
    assert recipe.hash_file(tmp_path / "file") == hashlib.sha256(data).hexdigest()


def test_versions() -> None:
    found = recipe.versions()
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert {"phosphene", "python", "torchvision", "timm", "pillow", "numpy"} <= set(found)


def test_versions_of_what_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "_LIBRARIES", ("numpy", "no-such-library"))
    assert set(recipe.versions()) == {"python", "phosphene", "numpy"}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_read_prefers_what_is_inside(tmp_path: Path, suffix: str) -> None:
    picture = tmp_path / f"a.{suffix}"
    images.save(torch.rand(3, 8, 8), picture, note=FULL.to_json())
    other = Recipe("explain", {}, "explain")
    recipe.beside(picture).write_text(other.to_json())
    assert recipe.read(picture) == FULL
    assert recipe.read(tmp_path / f"a.{suffix}.json") == other
    images.save(torch.rand(3, 8, 8), picture)
    assert recipe.read(str(picture)) == other
    recipe.beside(picture).unlink()
    with pytest.raises(PhospheneError, match="carries no recipe"):
        recipe.read(picture)


def test_read_what_is_not_there(tmp_path: Path) -> None:
    for name in ("a.png", "a.png.json"):
        with pytest.raises(ImageError, match="does not exist"):
            recipe.read(tmp_path / name)


def test_a_workshop_notes_what_is_used(tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    images.save(torch.rand(3, 8, 8), path)
    workshop = Workshop("cpu")
    image = workshop.image(path)
    assert torch.equal(image, images.read(path))
    found = workshop.recipe("explain", {"image": path}, "saliency")
    assert found.inputs == {path: recipe.hash_file(path)} and found.networks == {}
    fresh = workshop.fresh()
    assert fresh.recipe("explain", {}, "x").inputs == {}
    assert fresh.image(path) is image  # read once
    assert fresh.recipe("explain", {}, "x").inputs == found.inputs
    network = fresh.network("squeezenet1_1")
    assert fresh.network("squeezenet1_1") is network
    assert set(fresh.recipe("explain", {}, "x").networks) == {"squeezenet1_1"}
    assert workshop.recipe("explain", {}, "x").networks == {}
