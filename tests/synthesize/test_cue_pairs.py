"""Which shapes meet which textures."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from phosphene.errors import PhospheneError
from phosphene.synthesize.cue_pairs import Cue, Pair, cue_pairs


def cues(folder: str, **classes: int) -> list[Cue]:
    return [
        Cue(name, number, Path(folder, name, f"{number}.jpg"))
        for name, count in classes.items()
        for number in range(1, count + 1)
    ]


SHAPES = cues("contents", bird=4, car=3, cat=5)
TEXTURES = cues("styles", car=2, cat=3, dog=4)


def spread(counts: Counter[Cue], of: list[Cue]) -> int:
    return max(counts[cue] for cue in of) - min(counts[cue] for cue in of)


def test_names_are_those_of_geirhos() -> None:
    assert Pair(Cue("cat", 1, Path("a.jpg")), Cue("car", 3, Path("b.jpg"))).name == "cat1-car3"


def test_each_content_meets_each_other_class_once() -> None:
    found = cue_pairs(SHAPES, TEXTURES)
    met = Counter((pair.shape, pair.texture.category) for pair in found)
    wanted = {(cue, name) for cue in SHAPES for name in ("car", "cat", "dog") if name != cue.category}
    assert met == Counter(wanted) and len(found) == 4 * 3 + 3 * 2 + 5 * 2


@pytest.mark.parametrize("seed", range(5))
def test_textures_of_a_class_are_used_evenly(seed: int) -> None:
    used = Counter(pair.texture for pair in cue_pairs(SHAPES, TEXTURES, seed=seed))
    for name in ("car", "cat", "dog"):
        assert spread(used, [cue for cue in TEXTURES if cue.category == name]) <= 1


def test_the_seed_decides_who_meets_and_nothing_else_does() -> None:
    one = cue_pairs(SHAPES, TEXTURES, seed=3)
    assert one == cue_pairs(SHAPES, TEXTURES, seed=3)
    other = cue_pairs(SHAPES, TEXTURES, seed=4)
    assert set(one) != set(other) and len(one) == len(other)
    assert [pair.name for pair in one[:3]] == ["bird1-car2", "car1-cat3", "cat4-dog3"]  # the same on all machines


def test_a_smaller_count_gives_the_first_of_them() -> None:
    whole = cue_pairs(SHAPES, TEXTURES, count="all")
    assert len(set(whole)) == len(whole) == 4 * 9 + 3 * 7 + 5 * 6
    for count in (1, 7, 40, len(whole)):
        assert cue_pairs(SHAPES, TEXTURES, count=count) == whole[:count]


def test_any_first_part_is_even() -> None:
    shapes, textures = cues("a", bird=3, car=3, cat=3, dog=3), cues("b", bird=3, car=3, cat=3, dog=3)
    whole = cue_pairs(shapes, textures, count="all")
    for count in (4, 12, 36, 108):  # all shape classes; all class pairs; all images with each; all
        first = whole[:count]
        classes = Counter((pair.shape.category, pair.texture.category) for pair in first)
        assert len(set(classes.values())) == 1
        assert {pair.shape.category for pair in first} == {pair.texture.category for pair in first}
        assert len(set(Counter(pair.texture.category for pair in first).values())) == 1
    met = Counter((pair.shape, pair.texture.category) for pair in whole[:36])
    assert set(met.values()) == {1} and len(met) == 36
    assert spread(Counter(pair.texture for pair in whole[:36]), textures) <= 1


def test_same_classes_on_request_but_no_file_with_itself(tmp_path: Path) -> None:
    assert all(pair.shape.category != pair.texture.category for pair in cue_pairs(SHAPES, TEXTURES, count="all"))
    found = cue_pairs(SHAPES, TEXTURES, count="all", same=True)
    assert len(found) == 12 * 9
    assert sum(pair.shape.category == pair.texture.category for pair in found) == 3 * 2 + 5 * 3
    both = cues("photos", cat=3)
    assert len(cue_pairs(both, both, count="all", same=True)) == 6
    (tmp_path / "cat.jpg").write_bytes(b"")
    os.symlink(tmp_path / "cat.jpg", tmp_path / "link.jpg")
    with pytest.raises(PhospheneError, match="no image can be paired with one of another file"):
        cue_pairs([Cue("cat", 1, tmp_path / "cat.jpg")], [Cue("cat", 1, tmp_path / "link.jpg")], same=True)


def test_out_of_range() -> None:
    for count in (0, -1, 88):
        with pytest.raises(PhospheneError, match=f"there are 1 to 87 pairs of these images, got {count}"):
            cue_pairs(SHAPES, TEXTURES, count=count)
    with pytest.raises(PhospheneError, match=r"all images are of one class \(cat\)"):
        cue_pairs(cues("a", cat=2), cues("b", cat=2))
    assert len(cue_pairs(cues("a", cat=2), cues("b", cat=2), same=True)) == 2
