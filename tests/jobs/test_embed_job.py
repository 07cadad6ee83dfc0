"""`embed` as a job: what the pictures show, what the facts say, and that both are the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from phosphene.errors import ImageError, LayerError, NetworkError, PhospheneError
from phosphene.jobs import embed as module
from phosphene.jobs import job
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.thumbnails import (
    colours_by,
    colours_of,
    framed,
    scattered,
    side_for,
    spread,
    thumbnail,
    tiled,
    width_for,
)
from phosphene.jobs.workshop import Workshop
from phosphene.observe import embedding, lattice, trust
from phosphene.progress import run

NETS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))

def broken():
    module = small()
    with torch.no_grad():
        module[0].weight.fill_(float("nan"))
    return module
"""
SHADES = {"red": (1, 0.1, 0.1), "green": (0.1, 1, 0.1), "blue": (0.1, 0.1, 1)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six pictures of each of three colours, in folders of two halves; nets.py."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    generator = np.random.default_rng(0)
    for place in range(18):
        name = list(SHADES)[place % 3]
        half = tmp_path / "photos" / ("train" if place < 12 else "val") / name
        half.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(120, 256, (40, 48, 3)) * np.array(SHADES[name])
        Image.fromarray(pixels.astype(np.uint8)).save(half / f"{name}{place}.png")
    return tmp_path / "photos"


def make(**parameters: Any) -> Outcome:
    given = {"folder": "photos", "net": "nets.py:small", **parameters}
    return run(job("embed", Workshop("cpu"), given))


def test_facts_are_the_figures_of_the_arrays(folder: Path) -> None:
    outcome = make()
    facts, arrays = outcome.facts, {name: array.numpy() for name, array in outcome.arrays.items()}
    unit = embedding.directions(arrays["features"])
    classes = [row["class"] for row in facts["points"]]
    assert json.loads(json.dumps(facts)) == facts
    assert [picture.name for picture in outcome.pictures] == ["embed", "grid", "points"]
    assert (facts["images"], facts["dimensions"], facts["neighbours"], facts["drawn"]) == (18, 8, 10, 18)
    assert facts["layer"] == "what '4' is given" and facts["trust"]["chance"] == 8 / 17
    assert classes == [row["name"].split("/")[1] for row in facts["points"]] and set(classes) == set(SHADES)
    assert [[row["x"], row["y"]] for row in facts["points"]] == arrays["tsne"].tolist()
    near = trust.nearest(unit, 10)
    assert np.array_equal(arrays["neighbours"], near.places)
    cosine = 1 - (unit[:, None] * unit[near.places]).sum(2)
    np.testing.assert_allclose(arrays["distances"], cosine, atol=1e-9)
    assert facts["variance"] == pytest.approx(embedding.pca(unit).shares.sum())
    for name in ("tsne", "pca"):
        found, here = facts["trust"]["maps"][name], trust.nearest(arrays[name], 10).places
        assert found["preservation"] == trust.preservation(near.places[:, :8], here[:, :8])
        assert found["trustworthiness"] == trust.trustworthiness(unit, here[:, :8])
        assert found["accuracy"] == trust.accuracy(here[:, :5], classes)
    assert facts["trust"]["accuracy"] == 1 and facts["trust"]["largest_class"] == 1 / 3
    assert np.array_equal(arrays["grid"], lattice.assign(arrays["tsne"]))


def test_the_same_seed_makes_the_same_and_every_caption_tells_the_figures(folder: Path) -> None:
    one, again, other = make(seed=1), make(seed=1), make(seed=2)
    for picture in one.pictures:
        assert torch.equal(picture.image, again.picture(picture.name).image)
        for figure in ("100.0% of the images by features", "Perplexity 5.66667, lowered from 30", "47.1% by chance"):
            assert figure in picture.caption
    assert not torch.equal(one.arrays["tsne"], other.arrays["tsne"])
    assert torch.equal(one.arrays["pca"], other.arrays["pca"])


def test_pca_alone_has_no_perplexity(folder: Path) -> None:
    outcome = make(method="pca")
    assert "tsne" not in outcome.arrays and list(outcome.facts["trust"]["maps"]) == ["pca"]
    assert outcome.facts["perplexity"] is None and "Perplexity" not in outcome.pictures[0].caption
    assert [[row["x"], row["y"]] for row in outcome.facts["points"]] == outcome.arrays["pca"].tolist()


def test_classes_are_the_folders_that_hold_images(folder: Path) -> None:
    assert {row["class"] for row in make(folder="photos/val", method="pca").facts["points"]} == set(SHADES)
    flat = make(folder="photos/train/red", method="pca").facts
    assert {row["class"] for row in flat["points"]} == {None} and "accuracy" not in flat["trust"]
    (folder / "train" / "red" / "red0.png").rename(folder / "red0.png")
    assert {row["class"] for row in make(method="pca").facts["points"]} == {*SHADES, "photos"}


def test_a_query_has_its_neighbours_and_is_not_its_own(folder: Path) -> None:
    query = "photos/train/green/green1.png"
    outcome = make(query=query, neighbours=4, method="pca")
    names = [row["name"] for row in outcome.facts["points"]]
    own = names.index("train/green/green1.png")
    found = outcome.facts["query"]
    assert [row["name"] for row in found["neighbours"]] == [
        names[p] for p in outcome.arrays["neighbours"][own].tolist()
    ]
    wanted = outcome.arrays["distances"][own].tolist()
    assert [row["distance"] for row in found["neighbours"]] == pytest.approx(wanted, abs=1e-6)
    assert {row["class"] for row in found["neighbours"]} == {"green"} and outcome.pictures[-1].name == "neighbours"
    Image.open(query).save("copy.png")
    first = make(query="copy.png", neighbours=4, method="pca").facts["query"]["neighbours"][0]
    assert first["name"] == "train/green/green1.png" and first["distance"] == pytest.approx(0, abs=1e-6)


def test_three_images_have_a_map_and_two_have_none(folder: Path) -> None:
    for path in sorted(folder.rglob("*.png"))[3:]:
        path.unlink()
    outcome = make()
    assert outcome.facts["images"] == 3 and outcome.facts["neighbours"] == 2 and outcome.facts["perplexity"] == 1
    next(folder.rglob("*.png")).unlink()
    with pytest.raises(PhospheneError, match="a map needs at least 3 images, and there are 2"):
        make()


def test_duplicates_have_a_map(folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    for path in paths[1:]:
        path.write_bytes(paths[0].read_bytes())
    for method in ("tsne", "pca"):
        outcome = make(method=method)
        assert outcome.facts["variance"] == 0
        assert all(bool(torch.isfinite(picture.image).all()) for picture in outcome.pictures)


def test_images_that_are_left_out_are_told_and_counted(folder: Path) -> None:
    (folder / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    outcome = make(method="pca")
    assert list(outcome.facts["skipped"]) == ["photos/torn.jpg"] and outcome.facts["images"] == 18
    with pytest.raises(PhospheneError, match="18 neighbours of one of 18 images: give 1 to 17"):
        make(neighbours=18)


def test_of_very_many_a_sample_is_drawn(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DRAWN", 10)
    outcome = make(method="pca")
    assert outcome.facts["drawn"] == 10 and "Thumbnails are of 10 images" in outcome.pictures[0].caption
    assert int(torch.isfinite(outcome.arrays["grid"]).all(1).sum()) == 10
    assert torch.equal(outcome.arrays["grid"].isnan(), make(method="pca").arrays["grid"].isnan())


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"method": "umap"}, PhospheneError, "no map by 'umap': tsne, pca are there"),
        ({"perplexity": 0.0}, PhospheneError, "perplexity 0 is out of range"),
        ({"neighbours": 18}, PhospheneError, "18 neighbours of one of 18 images: give 1 to 17"),
        ({"neighbours": 0}, PhospheneError, "0 neighbours of one of 18 images"),
        ({"layer": "conv9"}, LayerError, "has no layer 'conv9'"),
        ({"query": "nets.py"}, ImageError, "nets.py is not an image"),
        ({"net": "nets.py:broken"}, NetworkError, "the weight of layer '0' of nets.py:broken has NaN or infinity"),
        ({"seed": 2**64}, PhospheneError, "a seed is"),
    ],
)  # fmt: skip
def test_bad_input_is_an_error_line(
    folder: Path, parameters: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**parameters)


# -- drawing --------------------------------------------------------------------------------------------------------------


def plain(count: int, side: int = 32) -> Tensor:
    """Thumbnails of one level each."""
    levels = torch.arange(count) * (200 // count) + 20
    return levels[:, None, None, None].expand(-1, 3, side, side).to(torch.uint8)


def test_a_thumbnail_is_the_middle_square() -> None:
    image = torch.zeros(3, 40, 80)
    image[:, :, 20:60] = 1
    assert (thumbnail(image, 32) == 255).all()
    assert thumbnail(torch.rand(3, 8, 8), 32).unique().numel() <= 3 * 64  # few pixels are shown as they are
    assert [side_for(count) for count in (1, 300, 500, 3000, 100_000)] == [224, 200, 160, 64, 16]


def test_the_grid_has_every_picture_in_its_cell() -> None:
    cells = lattice.cells(7)[::-1]
    small = plain(7)
    picture = np.asarray(tiled(small, cells, None))
    side = picture.shape[1] // 4
    for row, (column, line) in enumerate(cells.tolist()):
        part = picture[line * side : (line + 1) * side, column * side : (column + 1) * side]
        assert (part == int(small[row, 0, 0, 0])).all()
    assert (picture[side:, 3 * side :] == 255).all()  # 7 of 8


def test_scattered_pictures_lie_where_the_map_puts_them() -> None:
    points = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    small, colours = plain(4), [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
    picture = np.asarray(scattered(small, points, colours))
    corners, side = spread(points, width_for(4), 224)
    assert (np.argsort(corners[:, 1])[:2] >= 2).all()  # y goes up
    for row, (left, top) in enumerate(np.round(corners).astype(int).tolist()):
        assert tuple(picture[top, left]) == colours[row]
        assert (picture[top + int(side) // 2, left + int(side) // 2] == int(small[row, 0, 0, 0])).all()


def test_colours_tell_classes_apart() -> None:
    assert list(colours_of(["b", "a", "b"])) == ["a", "b"]
    for count in (2, 10, 30):
        assert len(set(colours_of([f"{place:03}" for place in range(count)]).values())) == count
    shades = colours_by(np.random.default_rng(0).normal(size=(50, 3)))
    assert len(set(shades)) == 50


def test_the_frame_holds_long_texts_and_many_classes() -> None:
    picture = Image.new("RGB", (300, 200), (7, 7, 7))
    alone = framed(picture, "title", "note")
    more = framed(picture, "title", "note " * 200, {f"a class with a long name {n}": (0, 0, 0) for n in range(30)})
    assert more.shape[2] == alone.shape[2] == 972 and more.shape[1] > alone.shape[1] + 200
    assert framed(picture, "title", "note", dict.fromkeys(map(str, range(900)), (0, 0, 0))).shape == alone.shape
