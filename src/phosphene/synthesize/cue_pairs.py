"""Which shapes meet which textures: the pairs of a set of cue-conflict stimuli, the same for the same seed.

Class pairs take turns, so that any first part of a set is as even as it can be: each turn takes the content image of the
shape's class that has met that texture class least often, with the image of the texture's class that was used least often.

The names are those of Geirhos et al., "ImageNet-trained CNNs are biased towards texture; increasing shape bias improves
accuracy and robustness", ICLR 2019: `cat1-car3` has the shape of the first cat, the texture of the third car.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phosphene.errors import PhospheneError


@dataclass(frozen=True)
class Cue:
    """An image that gives a shape or a texture: its class, its number in the class, its file."""

    category: str
    number: int
    path: Path

    @property
    def name(self) -> str:
        """`cat1`."""
        return f"{self.category}{self.number}"


@dataclass(frozen=True)
class Pair:
    """One stimulus: the image whose shape it has, and the one whose texture."""

    shape: Cue
    texture: Cue

    @property
    def name(self) -> str:
        """`cat1-car3`."""
        return f"{self.shape.name}-{self.texture.name}"


def cue_pairs(
    contents: Sequence[Cue],
    styles: Sequence[Cue],
    *,
    count: int | Literal["all"] | None = None,
    same: bool = False,
    seed: int = 0,
) -> list[Pair]:
    """The pairs, in the order in which they are made; a smaller `count` gives the first of them.

    Args:
        contents: images that give shapes.
        styles: images that give textures.
        count: how many pairs; "all": every combination; None: each content image with one style of each other class.
        same: also pair images of the same class (but no file with itself).
        seed: decides which images meet.

    Raises:
        PhospheneError: no two classes that could be paired, fewer than 1 pair, or more than there are.
    """
    turns = _class_pairs(contents, styles, same)
    possible = sum(len(one.open) for one in turns)
    if not possible:
        raise PhospheneError(_nothing(contents, styles, same))
    if isinstance(count, int) and not 1 <= count <= possible:
        raise PhospheneError(f"there are 1 to {possible:,} pairs of these images, got {count:,}")
    for place, one in enumerate(turns):
        one.shuffle(random.Random(f"{seed} {place}"))  # a text: its generator is the same on all platforms
    found = _in_turn(turns, once=count is None)
    return [pair for pair, _ in zip(found, range(possible if count in (None, "all") else int(count)), strict=False)]


class _ClassPair:
    """All pairs of one shape class with one texture class; `open` are those not taken so far."""

    def __init__(self, shapes: Sequence[Cue], textures: Sequence[Cue]) -> None:
        self.shapes, self.textures = list(shapes), list(textures)
        self.met: Counter[Cue] = Counter()
        self.open = {(shape, texture) for shape in shapes for texture in textures if not _same_file(shape, texture)}

    def shuffle(self, source: random.Random) -> None:
        """Decide between equals."""
        source.shuffle(self.shapes)
        source.shuffle(self.textures)

    def take(self, used: Counter[Cue], once: bool) -> Pair | None:
        """The next pair; None if there is none left, with `once` none of a shape that has met this class."""
        shapes = sorted(self.shapes, key=lambda cue: self.met[cue])
        for shape in shapes:
            if once and self.met[shape]:
                break
            textures = [texture for texture in self.textures if (shape, texture) in self.open]
            if textures:
                texture = min(textures, key=lambda cue: used[cue])
                self.open.discard((shape, texture))
                self.met[shape] += 1
                used[texture] += 1
                return Pair(shape, texture)
        return None


def _same_file(one: Cue, other: Cue) -> bool:
    return os.path.realpath(one.path) == os.path.realpath(other.path)


def _class_pairs(contents: Sequence[Cue], styles: Sequence[Cue], same: bool) -> list[_ClassPair]:
    """In the order of their turns: each shape class with the texture class one place on, two places on, ..."""
    shapes, textures = _by_class(contents), _by_class(styles)
    names = sorted(shapes.keys() | textures.keys())
    found = []
    for shift in [*range(1, len(names)), *([0] if same else [])]:
        for place, shape in enumerate(names):
            texture = names[(place + shift) % len(names)]
            if shape in shapes and texture in textures:
                found.append(_ClassPair(shapes[shape], textures[texture]))
    return found


def _by_class(cues: Sequence[Cue]) -> dict[str, list[Cue]]:
    found: dict[str, list[Cue]] = {}
    for cue in cues:
        found.setdefault(cue.category, []).append(cue)
    return found


def _in_turn(turns: Sequence[_ClassPair], once: bool) -> Iterator[Pair]:
    used: Counter[Cue] = Counter()
    going = list(turns)
    while going:
        still = []
        for one in going:
            pair = one.take(used, once)
            if pair is not None:
                yield pair
                still.append(one)
        going = still


def _nothing(contents: Sequence[Cue], styles: Sequence[Cue], same: bool) -> str:
    names = sorted({cue.category for cue in (*contents, *styles)})
    if same or len(names) != 1:
        return (
            f"no image can be paired with one of another file ({', '.join(names) or 'no classes'}): give more of them"
        )
    return (
        f"all images are of one class ({names[0]}), so no shape meets another texture: give a second class, or --same"
    )
