"""The samples: each is there, each is a picture, an unknown one is told with what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from phosphene import images
from phosphene.errors import ImageError
from phosphene.images import samples
from phosphene.images.samples import ALL, PREFIX, SAMPLES, sample_file, sample_photographs
from phosphene.jobs.workshop import Workshop
from phosphene.recipe import hash_file


@pytest.mark.parametrize("name", SAMPLES)
def test_each_sample_is_a_picture(name: str) -> None:
    image = images.read(sample_file(name))
    assert image.shape[:2] == (1, 3) and min(image.shape[2:]) >= 256
    assert image.std() > 0.02
    assert sample_file(PREFIX + name) == sample_file(name)


def test_the_samples_are_different_pictures() -> None:
    assert len({hash_file(sample_file(name)) for name in SAMPLES}) == len(SAMPLES) >= 9


def test_the_painting_is_large_enough_for_a_style_and_has_colours() -> None:
    image = images.read(sample_file("painting"))
    assert max(image.shape[2:]) >= 512
    assert image[0].flatten(1).std(1).min() > 0.05 and (image.amax(1) - image.amin(1)).mean() > 0.1


def test_a_workshop_takes_a_sample_and_notes_its_bytes() -> None:
    workshop = Workshop("cpu")
    image = workshop.image("sample:brick")
    assert (image - images.read(sample_file("brick"))).abs().max() == 0
    assert workshop.inputs == {"sample:brick": hash_file(sample_file("brick"))}


@pytest.mark.parametrize(("name", "near"), [("bricks", "brick"), ("Painting", "painting"), ("gras", "grass")])
def test_an_unknown_sample_is_told_what_is_near(name: str, near: str) -> None:
    with pytest.raises(ImageError, match=f"no sample '{PREFIX}{name}'; did you mean {near}") as told:
        sample_file(PREFIX + name)
    assert "\n" not in str(told.value) and all(PREFIX + each in str(told.value) for each in SAMPLES)


@pytest.mark.parametrize("name", ["", "zzz", "../brick", "data/brick.png"])
def test_what_is_like_no_sample_is_told_what_there_is(name: str) -> None:
    with pytest.raises(ImageError, match="there is no sample") as told:
        sample_file(PREFIX + name)
    assert all(PREFIX + each in str(told.value) for each in SAMPLES)


@pytest.mark.parametrize("place", [("phosphene", "nowhere/brick.png"), ("no_such_package", "data/brick.png")])
def test_a_package_that_is_not_there_whole(monkeypatch: pytest.MonkeyPatch, place: tuple[str, str]) -> None:
    monkeypatch.setitem(SAMPLES, "brick", place)
    with pytest.raises(ImageError, match=f"comes with {place[0]}, which has no '{place[1]}' here"):
        sample_file("sample:brick")


def test_samples_are_part_of_the_packages_themselves() -> None:
    package = Path(samples.__file__).parent.parent
    assert sample_file("painting").is_relative_to(package)


def test_all_samples_are_the_photographs_in_order() -> None:
    found = sample_photographs()
    assert ALL == "sample:all" and ALL.removeprefix(PREFIX) not in SAMPLES
    assert found == [sample_file(name) for name in sorted(SAMPLES) if name != "painting"]
    assert len({path.stem for path in found}) == len(found) == len(SAMPLES) - 1


def test_all_samples_without_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLES, "brick", ("skimage", "data/nowhere.png"))
    with pytest.raises(ImageError, match="'sample:brick' comes with skimage"):
        sample_photographs()


def test_all_samples_are_no_picture() -> None:
    with pytest.raises(ImageError, match="there is no sample 'sample:all'"):
        Workshop("cpu").image(ALL)
