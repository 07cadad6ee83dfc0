"""A classifier judged: pictures and facts of a folder in which a duplicate and a wrong label were planted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.jobs.judged import SHOWN, Judgement, _percent, judge
from phosphene.models import Network, Preprocess
from phosphene.models.labels import Labels
from phosphene.progress import Event, Started, Step, run
from phosphene.training.folder import Examples, Photo

COLOURS = {"blue": (0, 0, 1), "green": (0, 1, 0), "red": (1, 0, 0)}


class Colour(nn.Module):
    """Says which colour a picture has most of."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.map.weight.copy_(8 * torch.tensor(list(COLOURS.values())).float()[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x).relu().mean((2, 3))


def network(names: tuple[str, ...] = tuple(COLOURS)) -> Network:
    labels, size = Labels(list(names)), Preprocess((32, 32), 32)
    return Network(Colour().eval(), name="colours", labels=labels, preprocess=size, mean=(0, 0, 0), std=(1, 1, 1))


def photograph(path: Path, colour: str, seed: int) -> Photo:
    random = np.random.default_rng(seed)
    noise = np.asarray(Image.fromarray(random.integers(0, 120, (8, 8, 3), dtype=np.uint8)).resize((80, 60)))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((noise + 100 * np.array(COLOURS[colour])).astype(np.uint8)).save(path)
    return described(path, list(COLOURS).index(colour))


def described(path: Path, label: int) -> Photo:
    return Photo(path, label, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    root = tmp_path_factory.mktemp("colours")
    train, val = (
        [
            photograph(root / part / name / f"{k}.png", name, seed + 100 * k + place)
            for place, name in enumerate(COLOURS)
            for k in range(count)
        ]
        for part, count, seed in (("train", 8, 0), ("val", 4, 5000))
    )
    return Examples(root, tuple(COLOURS), tuple(train), tuple(val), {})


def vectors(net: Network, photos: tuple[Photo, ...]) -> Tensor:
    from phosphene.training.folder import Pictures

    pictures = torch.stack([Pictures(photos, net.preprocess)[place] for place in range(len(photos))])
    return torch.cat([pictures.mean((2, 3)), torch.nn.functional.adaptive_avg_pool2d(pictures, 6).flatten(1)], 1)


def judgement(net: Network, found: Examples, events: list[Event] | None = None) -> Judgement:
    from phosphene.training.folder import Pictures

    with torch.no_grad():
        pictures = torch.stack([Pictures(found.val, net.preprocess)[place] for place in range(len(found.val))])
        shares = net.logits(pictures).softmax(1)
    job = judge(net, found, shares, vectors(net, found.train), vectors(net, found.val), seed=0)
    return run(job, None if events is None else events.append)


def test_without_anything_to_see_there_are_two_pictures(folder: Examples) -> None:
    found = judgement(network(), folder)
    assert [picture.name for picture in found.pictures] == ["confusion", "classes"]
    assert found.facts["accuracy"]["mean"] == 1 and found.facts["images"] == 12
    assert [found.facts[key] for key in ("mistakes", "duplicates", "twice", "suspicious")] == [[], [], [], []]
    assert found.picture("mistakes") is None and found.picture("classes") is found.pictures[1]


def test_what_was_planted_is_found_and_shown(folder: Examples) -> None:
    train, val = list(folder.train), list(folder.val)
    val[1] = replace(val[1], label=2)  # blue, and said to be red
    train[9] = replace(train[9], label=0)  # green, and said to be blue
    copy = folder.folder / "val" / "red" / "copy.jpg"
    Image.open(train[-1].path).resize((48, 36)).save(copy, quality=90)
    val.append(described(copy, 2))
    twin = folder.folder / "train" / "blue" / "twin.png"
    twin.write_bytes(train[0].path.read_bytes())
    train.append(described(twin, 0))
    events: list[Event] = []
    found = judgement(network(), replace(folder, train=tuple(train), val=tuple(val)), events)
    facts = json.loads(json.dumps(found.facts, allow_nan=False))

    assert [picture.name for picture in found.pictures] == [
        "confusion",
        "classes",
        "mistakes",
        "duplicates",
        "suspicious",
    ]
    assert facts["accuracy"]["mean"] == pytest.approx(12 / 13)
    (mistake,) = facts["mistakes"]
    assert (mistake["image"], mistake["true"], mistake["said"]) == ("val/blue/1.png", "red", "blue")
    (pair,) = facts["duplicates"]
    assert (pair["image"], pair["other"], pair["kind"]) == ("val/red/copy.jpg", "train/red/7.png", "same picture")
    (twins,) = facts["twice"]
    assert (twins["image"], twins["other"], twins["kind"]) == ("train/blue/0.png", "train/blue/twin.png", "same file")
    doubts = {row["image"]: row["suggested"] for row in facts["suspicious"]}
    assert doubts["train/green/1.png"] == "green" and doubts["val/blue/1.png"] == "blue" and len(doubts) == 2

    for picture in found.pictures:
        assert picture.image.shape[0] == 3 and picture.alt and 0 <= picture.image.min() <= picture.image.max() <= 1
    parts = [event.what for event in events if isinstance(event, Started)]
    assert parts == ["looking for duplicates", "looking for doubtful labels", "explaining mistakes"]
    totals = [event.total for event in events if isinstance(event, Started)]
    assert [event.done for event in events if isinstance(event, Step)][-1] == totals[-1] == 1


def test_sheets_show_the_first_of_many(folder: Examples) -> None:
    """All mistakes are facts only up to the length of a sheet, and a sheet stays a sheet."""
    val = tuple(replace(photo, label=(photo.label + 1) % 3) for photo in (*folder.val, *folder.val))
    found = judgement(network(), replace(folder, val=val))
    assert found.facts["accuracy"]["mean"] == 0 and len(found.facts["mistakes"]) == SHOWN
    sheet = found.picture("mistakes")
    assert sheet is not None and sheet.image.shape[2] < 1400


def test_grad_cam_is_for_the_class_that_was_said(folder: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    from phosphene.jobs import judged

    asked: list[list[int]] = []
    real = judged.grad_cam

    def watched(net: Network, photo: Tensor, target: list[int]) -> object:
        asked.append(target)
        return real(net, photo, target)

    monkeypatch.setattr(judged, "grad_cam", watched)
    val = [replace(photo, label=1) for photo in folder.val]
    judgement(network(), replace(folder, val=tuple(val)))
    assert sorted(asked) == [[0]] * 4 + [[2]] * 4


def test_a_network_without_maps_is_shown_without_heat(folder: Examples) -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(x.mean((2, 3)))

    net = Network(Flat().eval(), name="flat", labels=Labels(list(COLOURS)), preprocess=Preprocess((32, 32), 32))
    found = judgement(net, folder)
    assert found.picture("mistakes") is not None


def test_other_classes_are_refused(folder: Examples) -> None:
    with pytest.raises(PhospheneError, match="other classes"):
        judgement(network(("red", "green", "blue")), folder)


@pytest.mark.parametrize(("share", "text"), [(0.984, "98%"), (0.999, "> 99%"), (1.0, "100%"), (0.5, "50%")])
def test_percents_never_promise_more_than_there_is(share: float, text: str) -> None:
    assert _percent(share) == text


def test_the_same_judgement_again_is_the_same(folder: Examples) -> None:
    one, two = judgement(network(), folder), judgement(network(), folder)
    assert one.facts == two.facts
    assert all(torch.equal(a.image, b.image) for a, b in zip(one.pictures, two.pictures, strict=True))
