"""Folders of labelled photographs: how they lie, what is held out, and what is wrong with them."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pupils import coloured, fill, found, write

from phosphene import images
from phosphene.errors import ImageError, PhospheneError
from phosphene.models import Preprocess
from phosphene.progress import Started, Step, run
from phosphene.training.folder import Examples, Photo, Pictures, _split, batches, examples


def names(part: tuple[Photo, ...], root: Path) -> list[str]:
    return [photo.path.relative_to(root).as_posix() for photo in part]


def damage(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:60])
    return path


# -- how they lie -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn", ["train", "training"])
@pytest.mark.parametrize("judge", ["val", "valid", "validation", "test"])
def test_two_folders(tmp_path: Path, learn: str, judge: str) -> None:
    fill(tmp_path, {learn: {"red": 2, "blue": 3}, judge: {"blue": 1, "red": 2}})
    there = found(tmp_path)
    assert there.classes == ("blue", "red") and there.split is None and not there.skipped
    wanted = [*(f"{learn}/blue/00{i}.png" for i in range(3)), *(f"{learn}/red/00{i}.png" for i in range(2))]
    assert names(there.train, tmp_path) == wanted
    assert names(there.val, tmp_path) == [f"{judge}/blue/000.png", f"{judge}/red/000.png", f"{judge}/red/001.png"]
    assert [photo.label for photo in there.train] == [0, 0, 0, 1, 1] and [p.label for p in there.val] == [0, 1, 1]
    assert there.counts() == [3, 2] and there.counts(there.val) == [1, 2] and there.folder == tmp_path


@pytest.mark.parametrize("part", ["train", ""])
def test_one_folder_is_split(tmp_path: Path, part: str) -> None:
    fill(tmp_path, {part: {"red": 10, "blue": 15}})
    there = found(tmp_path, seed=4)
    assert there.split == 4 and there.classes == ("blue", "red")
    assert there.counts() == [12, 8] and there.counts(there.val) == [3, 2]
    both = names(there.train, tmp_path) + names(there.val, tmp_path)
    assert len(set(both)) == 25 and all(name.startswith(part) for name in both)
    for some in (there.train, there.val):
        assert names(some, tmp_path) == sorted(names(some, tmp_path))  # in the folder's order


def test_val_wins_over_test_and_other_folders_are_no_classes(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 2, "blue": 2}, "val": {"red": 1, "blue": 1}, "test": {"red": 3, "blue": 3}})
    (tmp_path / "notes").mkdir()
    there = found(tmp_path)
    assert len(there.val) == 2 and all("val" in photo.path.parts for photo in there.val)


def test_what_is_hidden_and_what_is_no_image_is_passed_over(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 5, "blue": 5}})
    write(tmp_path / "red" / ".hidden.png", coloured("red", 50))
    write(tmp_path / "red" / ".thumbs" / "a.png", coloured("red", 51))
    write(tmp_path / ".cache" / "a.png", coloured("red", 52))
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / "read.me").write_text("no folder")
    there = found(tmp_path)
    assert there.classes == ("blue", "red") and len(there.train) + len(there.val) == 10 and not there.skipped


def test_nested_folders_belong_to_their_class(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 2, "blue": 2}, "val": {"red": 1, "blue": 1}})
    write(tmp_path / "train" / "red" / "bright" / "more" / "a.PNG", coloured("red", 60))
    there = found(tmp_path)
    assert there.counts() == [2, 3]
    deep = next(photo for photo in there.train if photo.path.name == "a.PNG")
    assert there.classes[deep.label] == "red"


@given(st.lists(st.text("abAB1_ é", min_size=1, max_size=4), min_size=2, max_size=5, unique_by=str.casefold))
@settings(max_examples=15, deadline=None)
def test_classes_are_in_alphabetical_order(tmp_path_factory: pytest.TempPathFactory, classes: list[str]) -> None:
    root = tmp_path_factory.mktemp("order")
    for number, name in enumerate(classes):
        for place in range(2):
            write(root / "c" / f"x{name}x" / f"{place}.png", coloured("red", number * 2 + place, (5, 5)))
    there = found(root / "c")
    assert there.classes == tuple(sorted(f"x{name}x" for name in classes))
    assert all(there.classes[photo.label] == photo.path.parent.name for photo in [*there.train, *there.val])


def test_progress_counts_images(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 40, "blue": 30}})
    events = []
    run(examples(tmp_path), events.append)
    assert events == [Started("checking images", 70, "image"), Step(64), Step(70)]


def test_batches() -> None:
    assert [list(part) for part in batches(5, 2)] == [[0, 1], [2, 3], [4]] and not list(batches(0, 2))


# -- what is held out -------------------------------------------------------------------------------------------


@given(st.lists(st.integers(2, 40), min_size=2, max_size=5), st.integers(0, 99))
def test_a_fifth_of_each_class_is_held_out(counts: list[int], seed: int) -> None:
    classes = [f"class {label}" for label in range(len(counts))]
    photos = [Photo(Path(f"{label}/{place}"), label) for label, count in enumerate(counts) for place in range(count)]
    train, val = _split(photos, classes, seed)
    assert sorted([*train, *val], key=photos.index) == photos and not set(train) & set(val)
    for label, count in enumerate(counts):
        held = sum(photo.label == label for photo in val)
        assert 1 <= held < count and abs(held - count / 5) <= 0.5 + (count < 3)
    assert (train, val) == _split(photos, classes, seed)


def test_another_seed_holds_out_others_and_another_class_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 20, "blue": 20}})
    splits = [frozenset(names(found(tmp_path, seed=seed).val, tmp_path)) for seed in range(5)]
    assert len(set(splits)) == 5
    assert splits[0] == frozenset(names(found(tmp_path, seed=0).val, tmp_path))
    fill(tmp_path, {"": {"green": 10}})
    more = names(found(tmp_path, seed=0).val, tmp_path)
    assert {name for name in more if not name.startswith("green")} == splits[0]


# -- hashes -----------------------------------------------------------------------------------------------------


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 3, "blue": 2}, "val": {"red": 1, "blue": 1}})
    there = found(tmp_path)
    for photo in [*there.train, *there.val]:
        assert photo.sha == hashlib.sha256(photo.path.read_bytes()).hexdigest()
    assert len(there.hash()) == 64 and there.hash() == found(tmp_path).hash()


def test_the_hash_of_all_follows_what_there_is_to_learn_and_not_its_names(tmp_path: Path) -> None:
    root = fill(tmp_path / "one", {"train": {"red": 3, "blue": 2}, "val": {"red": 1, "blue": 1}})
    other = fill(tmp_path / "other", {"training": {"red": 3, "blue": 2}, "test": {"red": 1, "blue": 1}})
    wanted = found(root).hash()
    assert found(other).hash() == wanted
    seen = {wanted}
    (other / "test" / "red" / "000.png").rename(other / "training" / "red" / "999.png")
    write(other / "test" / "red" / "000.png", coloured("red", 77))
    seen.add(found(other).hash())
    (root / "train" / "red" / "000.png").rename(root / "train" / "blue" / "999.png")  # another label
    seen.add(found(root).hash())
    (root / "train" / "red").rename(root / "train" / "rot")
    (root / "val" / "red").rename(root / "val" / "rot")  # another class
    seen.add(found(root).hash())
    assert len(seen) == 4


# -- what is wrong ----------------------------------------------------------------------------------------------


def refused(root: Path, kind: type[PhospheneError] = ImageError, **options: bool) -> str:
    with pytest.raises(kind) as caught:
        found(root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    assert "is no folder" in refused(tmp_path / "nowhere")
    write(tmp_path / "a.png", coloured("red", 0))
    assert "is no folder" in refused(tmp_path / "a.png")


def test_no_class_folders(tmp_path: Path) -> None:
    write(tmp_path / "a.png", coloured("red", 0))
    assert "has no folders in it" in refused(tmp_path)
    (tmp_path / "train").mkdir()
    assert f"{tmp_path / 'train'}' has no folders in it" in refused(tmp_path)


def test_one_class(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 5}})
    assert "has one class, 'red'" in refused(tmp_path)


def test_an_empty_class(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 5, "blue": 5}})
    (tmp_path / "green").mkdir()
    (tmp_path / "green" / "notes.txt").write_text("soon")
    assert f"the class folder '{tmp_path / 'green'}' holds no images" in refused(tmp_path)


def test_a_class_with_one_image_cannot_be_split(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 5, "blue": 1}})
    assert "class 'blue' has one image" in refused(tmp_path)


def test_classes_that_differ(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 2, "blue": 2, "green": 2}, "val": {"red": 1, "yellow": 1, "blue": 1}})
    message = refused(tmp_path, PhospheneError)
    assert "same classes" in message and "'val' lacks green" in message and "only 'val' has yellow" in message
    assert "red" not in message.replace(str(tmp_path), "")


def test_many_classes_that_differ_are_counted(tmp_path: Path) -> None:
    for place in range(8):
        write(tmp_path / "train" / f"c{place}" / "a.png", coloured("red", place))
    for place in range(1, 3):
        write(tmp_path / "test" / f"d{place}" / "a.png", coloured("red", place))
    assert "'test' lacks c0, c1, c2, c3, c4 and 3 more; only 'test' has d1, d2" in refused(tmp_path, PhospheneError)


def test_val_without_train(tmp_path: Path) -> None:
    fill(tmp_path, {"val": {"red": 2, "blue": 2}})
    assert "has a 'val' and no 'train' beside it" in refused(tmp_path)


def test_a_few_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 20, "blue": 18}, "val": {"red": 1, "blue": 1}})
    broken = damage(tmp_path / "train" / "red" / "003.png")
    text = tmp_path / "train" / "blue" / "000.png"
    text.write_text("this is no image")
    there = found(tmp_path)
    assert set(there.skipped) == {str(broken), str(text)} and there.counts() == [17, 19]
    assert all(str(path) in why and "\n" not in why for path, why in there.skipped.items())
    assert not {broken, text} & {photo.path for photo in there.train}


def test_a_file_that_is_too_small_or_a_link_to_nowhere_is_unreadable(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 30, "blue": 30}})
    write(tmp_path / "red" / "thin.png", coloured("red", 1, (1, 40)))
    (tmp_path / "blue" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    there = found(tmp_path)
    assert {Path(name).name for name in there.skipped} == {"thin.png", "gone.png"}
    assert "is 40 x 1 pixels" in there.skipped[str(tmp_path / "red" / "thin.png")]


@pytest.mark.parametrize(("bad", "is_error"), [(2, False), (3, True)])
def test_more_than_five_per_cent_are_an_error(tmp_path: Path, bad: int, is_error: bool) -> None:
    fill(tmp_path, {"": {"red": 20, "blue": 20}})
    for place in range(bad):
        damage(tmp_path / "red" / f"{place:03}.png")
    if is_error:
        message = refused(tmp_path)
        assert f"{bad} of 40 images can't be read" in message and "--skip-bad" in message and "000.png" in message
    there = found(tmp_path, skip_bad=True)
    assert len(there.skipped) == bad and len(there.train) + len(there.val) == 40 - bad


def test_many_unreadable_images_are_not_all_listed(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 9, "blue": 9}})
    for place in range(8):
        damage(tmp_path / "red" / f"{place:03}.png")
    message = refused(tmp_path)
    assert message.count(".png") == 5 and "; ...)" in message


def test_a_class_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 40, "blue": 1}, "val": {"red": 30, "blue": 1}})
    damage(tmp_path / "train" / "blue" / "000.png")
    assert "no image of blue in train can be read" in refused(tmp_path)
    fill(tmp_path, {"train": {"blue": 1}})
    damage(tmp_path / "val" / "blue" / "000.png")
    assert "no image of blue in val can be read" in refused(tmp_path)


def test_a_class_of_one_folder_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path, {"": {"red": 40, "blue": 2}})
    for place in range(2):
        damage(tmp_path / "blue" / f"{place:03}.png")
    assert "no image of blue in the folder can be read" in refused(tmp_path)


def test_a_val_of_which_nothing_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path, {"train": {"red": 40, "blue": 40}, "val": {"red": 1, "blue": 1}})
    for name in ("red", "blue"):
        damage(tmp_path / "val" / name / "000.png")
    assert "in val can be read" in refused(tmp_path)


# -- reading ----------------------------------------------------------------------------------------------------


def test_pictures_are_upright_and_of_the_networks_size(tmp_path: Path) -> None:
    pixels = coloured("red", 0, (12, 20))
    pixels[:, :10] = (0, 0, 255)
    picture = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "plain.png")
    way = Preprocess((10, 10), 10)
    photos = [Photo(tmp_path / "turned.png", 0), Photo(tmp_path / "plain.png", 0)]
    turned, plain = Pictures(photos, way)
    assert turned.shape == plain.shape == (3, 10, 10)
    assert turned[2, :4].mean() > 0.9 > turned[2, 6:].mean() and plain[2, :, :3].mean() > 0.9 > plain[2, :, 7:].mean()
    by_hand = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(turned, way(by_hand.rot90(-1, (2, 3)))[0], atol=1e-6, rtol=0)
    assert len(Pictures(photos, way)) == 2


def test_pictures_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    there: Examples = found(fill(tmp_path, {"": {"red": 5, "blue": 5}}))
    pictures = Pictures(there.train, Preprocess((16, 16), 16))
    torch.testing.assert_close(pictures[2], Preprocess((16, 16), 16)(images.read(there.train[2].path))[0])
    there.train[2].path.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        pictures[2]
    assert Counter(photo.label for photo in there.train) == {0: 4, 1: 4}
