"""Mistakes, duplicates that were planted, and labels that were made wrong on purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import run
from phosphene.training import review
from phosphene.training.folder import Examples, Photo, Pictures, examples
from phosphene.training.review import Duplicates, Mistake, detail, mistakes, near_duplicates, suspicious
from phosphene.training.stages import read, stages

# -- mistakes -----------------------------------------------------------------------------------------------------------


def test_the_most_confident_mistakes_come_first() -> None:
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.05, 0.95], [0.2, 0.8]])
    found = mistakes(shares, [0, 0, 0, 1, 0])
    assert found == [Mistake(2, 0, 1, 0.8), Mistake(4, 0, 1, 0.8), Mistake(1, 0, 1, 0.6)]
    assert mistakes(torch.from_numpy(shares), torch.tensor([0, 0, 0, 1, 0]), 1) == found[:1]
    assert mistakes(shares[:1], [0]) == []


# -- duplicates ---------------------------------------------------------------------------------------------------------

Change = Callable[[Image.Image], Image.Image]
CHANGES: dict[str, Change] = {
    "resized": lambda image: image.resize((max(8, image.width * 3 // 5), max(8, image.height * 3 // 5))),
    "jpeg": lambda image: image,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "mirrored": ImageOps.mirror,
    "cropped": lambda image: image.crop(
        (image.width // 40, image.height // 40, image.width - image.width // 40, image.height - image.height // 40)
    ),
}


def photo(path: Path, label: int = 0) -> Photo:
    return Photo(path, label, hashlib.sha256(path.read_bytes()).hexdigest())


def copy_of(source: Path, name: str, folder: Path) -> Photo:
    path = folder / f"{name}-{source.stem}.jpg"
    CHANGES[name](Image.open(source).convert("RGB")).save(path, quality=40 if name == "jpeg" else 92)
    return photo(path)


def scene(seed: int, path: Path) -> Photo:
    """A picture of its own: blobs of several sizes."""
    random = np.random.default_rng(seed)
    layers = [Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (4, 9, 20)]
    picture = np.mean([np.asarray(layer.resize((120, 90), Image.Resampling.BICUBIC)) for layer in layers], axis=0)
    Image.fromarray(picture.astype(np.uint8)).save(path, quality=92)
    return photo(path)


def toy_vectors(photos: list[Photo]) -> Tensor:
    """As a network's features: what does not change with size, brightness or mirroring."""
    found = []
    for one in photos:
        small = images.resize(images.read(one.path), (8, 8), mode="bilinear")[0]
        small = (small + small.flip(-1)).flatten()
        found.append(small - small.mean())
    return torch.stack(found)


def search(train: list[Photo], val: list[Photo]) -> Duplicates:
    return run(near_duplicates(toy_vectors(train), toy_vectors(val), train, val))


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_and_nothing_else(change: str, tmp_path: Path) -> None:
    train = [scene(seed, tmp_path / f"{seed}.jpg") for seed in range(8)]
    val = [scene(100, tmp_path / "other.jpg"), copy_of(train[3].path, change, tmp_path)]
    found = search(train, val)
    assert [(pair.left, pair.right) for pair in found.between] == [(val[1], train[3])]
    assert found.between[0].kind == ("mirrored" if change == "mirrored" else "same picture")
    assert 0.97 <= found.between[0].likeness <= 1.0001
    assert found.within == ()


def test_the_same_bytes_are_the_same_file_and_pairs_inside_train_are_told_apart(tmp_path: Path) -> None:
    train = [scene(seed, tmp_path / f"{seed}.jpg") for seed in range(6)]
    for name in ("copy-a.jpg", "copy-b.jpg"):
        (tmp_path / name).write_bytes(train[2].path.read_bytes())
        train.append(photo(tmp_path / name))
    train.append(copy_of(train[4].path, "resized", tmp_path))
    (tmp_path / "val.jpg").write_bytes(train[0].path.read_bytes())
    val = [photo(tmp_path / "val.jpg", 1)]
    found = search(train, val)
    assert [(pair.left, pair.right, pair.kind, pair.likeness) for pair in found.between] == [
        (val[0], train[0], "same file", 1)
    ]
    within = {(train.index(pair.left), train.index(pair.right), pair.kind) for pair in found.within}
    assert within == {(2, 6, "same file"), (2, 7, "same file"), (4, 8, "same picture")}


def test_plain_surfaces_are_no_duplicates_unless_their_bytes_are_the_same(tmp_path: Path) -> None:
    paths = [tmp_path / f"{level}.png" for level in (0, 1, 128)]
    for path in paths:
        Image.new("RGB", (64, 64), (int(path.stem),) * 3).save(path)
    assert not detail(images.read(paths[0])).any()
    black = [photo(path) for path in paths]
    ones = torch.ones(3, 4) + torch.arange(3.0)[:, None]
    assert run(near_duplicates(ones, ones, black, black)).within == ()
    assert all(pair.kind == "same file" for pair in run(near_duplicates(ones, ones, black, black)).between)


def test_blocks_give_what_one_product_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(review, "_BLOCK", 7)
    vectors = torch.nn.functional.normalize(torch.randn(40, 3), dim=1)
    cosines = vectors @ vectors.T
    for own in (None, 16):
        found = review._nearest(vectors[16:24], vectors, own, 0.5)
        for row, places in enumerate(found):
            mine = cosines[16 + row].clone()
            if own is not None:
                mine[: 16 + row + 1] = -2
            best = [p for p in mine.argsort(descending=True)[: review.NEAREST].tolist() if mine[p] >= 0.5]
            assert places == best


def test_features_without_their_photographs_are_refused() -> None:
    with pytest.raises(PhospheneError, match="a row for each"):
        run(near_duplicates(torch.zeros(2, 3), torch.zeros(0, 3), [Photo(Path("a"), 0)], []))


# -- doubtful labels ----------------------------------------------------------------------------------------------------


def clusters(sizes: list[int], seed: int = 0, width: int = 20) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    centres = random.normal(size=(len(sizes), width)) * 2
    return centres[labels] + random.normal(size=(len(labels), width)), labels


def test_labels_that_were_made_wrong_are_found_with_the_right_suggestion() -> None:
    vectors, labels = clusters([60, 60, 60])
    wrong = labels.copy()
    wrong[[5, 70, 130]] = [1, 2, 0]
    found = suspicious(vectors, wrong, ["a", "b", "c"])
    assert {doubt.place for doubt in found[:3]} == {5, 70, 130} and len(found) <= 4
    for doubt in found[:3]:
        assert doubt.suggested == labels[doubt.place] and doubt.label == wrong[doubt.place]
        assert doubt.own < doubt.probability
    gaps = [doubt.probability - doubt.own for doubt in found]
    assert gaps == sorted(gaps, reverse=True)


def test_doubts_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(3), 200)
    labels = random.integers(0, 3, 200)
    found = dict(review._contradicted(shares, labels))
    thresholds = [np.mean([shares[i, j] for i in range(200) if labels[i] == j]) for j in range(3)]
    for i in range(200):
        own = shares[i, labels[i]]
        above = [j for j in range(3) if j != labels[i] and shares[i, j] >= thresholds[j] and shares[i, j] > own]
        doubtful = own < thresholds[labels[i]] and above
        assert (i in found) == bool(doubtful)
        if doubtful:
            assert found[i] == max(above, key=lambda j: shares[i, j])


def test_small_classes_are_left_out_and_one_class_says_nothing() -> None:
    vectors, labels = clusters([30, 2, 30])
    found = suspicious(vectors, labels, ["a", "b", "c", "empty"])
    assert all(doubt.label != 1 and doubt.suggested != 1 for doubt in found)
    assert suspicious(vectors[:32], labels[:32], ["a", "b"]) == []


def test_more_directions_than_photographs_are_turned_without_loss() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 40))
    few = review._fewer(vectors)
    assert few.shape == (12, 12)
    even = (vectors - vectors.mean(0)) / vectors.std(0) / 40**0.5
    assert np.allclose(few @ few.T, even @ even.T)


@pytest.mark.parametrize(("images_", "width"), [(400, 300), (30, 5)])
def test_directions_of_the_largest_variance_are_kept(images_: int, width: int) -> None:
    vectors = np.random.default_rng(0).normal(size=(images_, width))
    few = review._fewer(vectors)
    assert few.shape == (images_, min(width, review.DIMENSIONS))
    kept = np.sort(np.linalg.svd((vectors - vectors.mean(0)) / vectors.std(0) / width**0.5)[1])[::-1][: few.shape[1]]
    assert np.allclose(np.sort(np.linalg.norm(few, axis=0))[::-1], kept) or width <= review.DIMENSIONS


def test_doubts_are_the_same_with_the_same_seed() -> None:
    vectors, labels = clusters([20, 20], width=2)
    wrong = np.where(np.arange(40) % 9 == 0, 1 - labels, labels)
    assert suspicious(vectors, wrong, ["a", "b"], 3) == suspicious(torch.from_numpy(vectors), wrong, ["a", "b"], 3)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(PhospheneError, match="finite"):
        suspicious(np.full((6, 2), np.nan), [0, 0, 0, 1, 1, 1], ["a", "b"])


# -- photographs --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def insects(shared: Path, squeezenet: Network) -> tuple[Examples, Tensor, Tensor]:
    """30 photographs of ants and 30 of bees to learn from, 20 others, and their features."""
    every = run(examples(shared / "data" / "hymenoptera"))
    train = tuple(p for label in (0, 1) for p in [p for p in every.train if p.label == label][:30])
    val = tuple(p for label in (0, 1) for p in [p for p in every.val if p.label == label][:10])
    found = replace(every, train=train, val=val)
    return found, features(squeezenet, train), features(squeezenet, val)


def features(network: Network, photos: tuple[Photo, ...]) -> Tensor:
    last = stages(network)[-1]
    pictures = Pictures(photos, network.preprocess)
    return read(network, torch.stack([pictures[place] for place in range(len(pictures))]), [last])[last]


@pytest.mark.shared
def test_planted_copies_of_photographs_are_found_and_no_others(
    insects: tuple[Examples, Tensor, Tensor], squeezenet: Network, tmp_path: Path
) -> None:
    found, train, val = insects
    planted = [copy_of(found.train[7 * k].path, name, tmp_path) for k, name in enumerate(CHANGES)]
    both = (*found.val, *planted)
    vectors = torch.cat([val, features(squeezenet, tuple(planted))])
    twins = run(near_duplicates(train, vectors, found.train, both))
    wanted = {(copy.path, found.train[7 * k].path) for k, copy in enumerate(planted)}
    assert {(pair.left.path, pair.right.path) for pair in twins.between} == wanted
    assert twins.within == ()


@pytest.mark.shared
def test_wrong_labels_of_photographs_are_found(shared: Path, efficientnet: Network) -> None:
    folder = shared / "data" / "imagenette160" / "train"
    names = sorted(path.name for path in folder.iterdir())[:4]
    photos = tuple(Photo(path, k) for k, name in enumerate(names) for path in images.find(folder / name)[:25])
    labels = np.array([photo.label for photo in photos])
    wrong = labels.copy()
    wrong[::20] = (wrong[::20] + 1) % 4
    found = suspicious(features(efficientnet, photos), wrong, names)
    made = {doubt.place for doubt in found} & set(range(0, 100, 20))
    assert len(made) >= 4 and len(found) <= len(made) + 2
