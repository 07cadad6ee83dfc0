"""`shape-bias` as a job: what the facts say is what the decisions are, and the picture is the same each time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene import images
from phosphene.errors import ImageError, LabelError, NetworkError, PhospheneError
from phosphene.jobs import job
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.shape_bias import told
from phosphene.jobs.workshop import Workshop
from phosphene.observe.shape_bias import published, wilson
from phosphene.progress import run

NETS = """
import torch
from torch import nn

CAT, CAR, KNIFE = 281, 817, 499

class Mean(nn.Module):
    def __init__(self, classes=1000, only=None):
        super().__init__()
        self.last = nn.Linear(3, classes, bias=False)
        with torch.no_grad():
            self.last.weight.zero_()
            if classes == 1000:
                for place, index in enumerate((CAT, CAR, KNIFE)):
                    self.last.weight[only or index, place] = 9

    def forward(self, images):
        return self.last(images.mean((2, 3)))

def colours():
    return Mean()

def knives():
    return Mean(only=KNIFE)

def ten():
    return Mean(10)
"""
SHADES = {"red": (1.0, 0.0, 0.0), "green": (0.0, 1.0, 0.0), "blue": (0.0, 0.0, 1.0)}  # cat, car, knife
SHOWN = {
    "cat/cat1-car1.png": "red", "cat/cat1-car2.png": "green", "cat/cat2-dog1.png": "green", "cat/cat3-cat1.png": "red",
    "dog/dog1-cat1.png": "red", "dog/dog4-oven1.png": "green", "knife1-car1.png": "blue", "knife1-cat1.png": "red",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eight one-coloured images, and nets.py: a red image is a cat, a green one a car, a blue one a knife."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    for name, shade in SHOWN.items():
        path = tmp_path / "cues" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        images.save(torch.tensor(SHADES[shade])[:, None, None].expand(3, 224, 224), path)
    return tmp_path / "cues"


def make(**parameters: Any) -> Outcome:
    given = {"folder": "cues", "net": "nets.py:colours", **parameters}
    return run(job("shape-bias", Workshop("cpu"), given))


def test_facts_count_the_decisions(folder: Path) -> None:
    facts = make().facts
    assert json.loads(json.dumps(facts)) == facts and facts["net"] == "nets.py:colours" and facts["aggregate"] == "mean"
    assert [row["image"] for row in facts["decisions"]] == [Path(name).name for name in SHOWN]
    assert [row["decision"] for row in facts["decisions"]] == ["cat", "car", "car", "cat", "cat", "car", "knife", "cat"]
    conflicting = [row for row in facts["decisions"] if row["shape"] != row["texture"]]
    counts = Counter(
        next((cue for cue in ("shape", "texture") if row["decision"] == row[cue]), "neither") for row in conflicting
    )
    assert counts == {"shape": 2, "texture": 3, "neither": 2}
    assert (facts["images"], facts["agreeing"], facts["neither"]) == (7, 1, 2 / 7)
    assert (facts["by_shape"], facts["by_texture"], facts["by_neither"]) == (2, 3, 2)
    bias = wilson(2, 5)
    assert facts["shape_bias"] == {"mean": bias.mean, "low": bias.low, "high": bias.high}
    assert {name: (row["by_shape"], row["by_texture"], row["images"]) for name, row in facts["categories"].items()} == {
        "cat": (1, 1, 3), "dog": (0, 1, 2), "knife": (1, 1, 2),
    }  # fmt: skip


def test_published_figures_are_over_the_shapes_in_the_folder(folder: Path) -> None:
    facts = make().facts
    rows = {row["name"]: row for row in facts["published"]}
    known = {one.name: one for one in published()}
    assert rows.keys() == {name for name in known if not name.startswith("subject-")}
    for name, row in rows.items():
        own = known[name].over(["cat", "dog", "knife"])
        assert (row["images"], row["by_shape"], row["by_texture"]) == (own.images, own.shape, own.texture)
    assert rows["resnet50"]["images"] == 225 and rows["humans"]["images"] == 2250
    assert 0.8 < facts["people"]["least"] < rows["humans"]["shape_bias"]["mean"] < facts["people"]["most"] <= 1


def test_the_picture_is_the_same_each_time_and_its_caption_tells_the_figures(folder: Path) -> None:
    one, again = make(), make()
    (picture,) = one.pictures
    assert picture.name == "shape-bias" and torch.equal(picture.image, again.pictures[0].image)
    assert picture.image.shape[0] == 3 and min(picture.image.shape[1:]) > 300
    assert picture.caption == (
        "Of 7 images whose shape and texture differ, nets.py:colours decides 2 by shape, 3 by texture and 2 (28.6%) by"
        " neither. Left out: 1 image whose cues agree. Shape bias 40.0%, 95% interval 11.8% to 76.9%."
    )
    edge = torch.cat(
        [picture.image[:, :4].flatten(), picture.image[:, :, :4].flatten(), picture.image[:, :, -4:].flatten()]
    )
    assert edge.min() == 1  # nothing runs over the edge
    assert not torch.equal(picture.image, make(net="nets.py:knives").pictures[0].image)


def test_nothing_decided_by_either_cue(folder: Path) -> None:
    for path in folder.glob("knife*"):
        path.unlink()
    outcome = make(net="nets.py:knives")
    assert outcome.facts["shape_bias"] is None and outcome.facts["neither"] == 1
    assert told(outcome.facts)[1] == "Nothing is decided by either cue, so there is no shape bias."


def test_a_name_that_looks_like_a_broken_formula(folder: Path) -> None:
    name = "_$\\frac$.py"
    Path(name).write_text(NETS)
    outcome = make(net=f"{name}:colours")
    assert outcome.facts["net"] == f"{name}:colours" and outcome.pictures[0].image.min() < 0.2


def test_a_torn_image_is_left_out(folder: Path) -> None:
    (folder / "dog" / "dog9-cat1.png").write_bytes(b"\x89PNG torn")
    facts = make().facts
    assert list(facts["skipped"]) == ["cues/dog/dog9-cat1.png"] and facts["images"] == 7


def test_aggregations_are_handed_on(folder: Path) -> None:
    assert make(aggregate="max").facts["aggregate"] == "max"
    with pytest.raises(PhospheneError, match="aggregated by 'median'"):
        make(aggregate="median")


def test_refusals(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"ImageNet's 1,000 classes, and nets.py:ten has 10 others"):
        make(net="nets.py:ten")
    (tmp_path / "names.txt").write_text("\n".join(f"class {place}" for place in range(1000)))
    with pytest.raises(NetworkError, match="classes of a labels file come without synsets, so give none"):
        make(labels="names.txt")
    with pytest.raises(LabelError, match=r"gone\.txt"):
        make(labels="gone.txt")
    (folder / "photo.png").write_bytes(b"")
    with pytest.raises(ImageError, match="1 of 9 file names tell no shape and texture"):
        make()
    with pytest.raises(ImageError, match="does not exist"):
        make(folder="gone")


@pytest.mark.shared
def test_squeezenet_on_the_published_images(shared: Path) -> None:
    outcome = run(job("shape-bias", Workshop("cpu"), {"folder": str(shared / "data" / "cue_conflict")}))
    facts = outcome.facts
    assert (facts["net"], facts["images"], facts["agreeing"]) == ("squeezenet1_1", 150, 10)
    assert list(facts["categories"]) == ["cat", "elephant"] and facts["shape_bias"]["high"] < 0.3
    assert {row["images"] for row in facts["published"]} == {150, 1500}
