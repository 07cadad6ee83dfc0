"""The Focus game.

Four images of different classes make a 2 x 2 mosaic. Asked for the class of one of them, an explanation should point at
that quarter:

    Focus = sum of max(map, 0) over the right quarter / sum of max(map, 0) over the mosaic

No boxes have to be drawn by anybody. A map that knows nothing of the network gets 1/4.

Arias-Duart, Pares, Garcia-Gasulla & Gimenez-Abalos, "Focus! Rating XAI Methods and Finding Biases", FUZZ-IEEE 2022. (Theirs
have two images of the target's class; here one, so that two quarters never share an answer.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError


@dataclass(frozen=True)
class Mosaic:
    """`images`: the places in a collection of its four images, in reading order; `quarter`: which of them is asked for."""

    images: tuple[int, ...]
    quarter: int


def choose_mosaics(classes: Sequence[int], count: int, *, seed: int = 0) -> list[Mosaic]:
    """Draw mosaics from a collection whose images have these classes.

    The class that is asked for is in its own quarter only; the other three are of different classes, too, where the
    collection has four. With few images they repeat.

    Args:
        classes: of each image of the collection.
        count: how many mosaics.
        seed: of the draw.

    Raises:
        PhospheneError: all images are of one class, or count is below 1.
    """
    if count < 1:
        raise PhospheneError(f"{count} mosaics: draw at least 1")
    if len(set(classes)) < 2:
        raise PhospheneError("mosaics need images of at least two classes: all of these are of one")
    draw = random.Random(seed)
    by_class: dict[int, list[int]] = {}
    for place, found in enumerate(classes):
        by_class.setdefault(found, []).append(place)
    return [_mosaic(classes, by_class, draw) for _ in range(count)]


def _mosaic(classes: Sequence[int], by_class: dict[int, list[int]], draw: random.Random) -> Mosaic:
    asked = draw.randrange(len(classes))
    others = [found for found in by_class if found != classes[asked]]
    chosen = draw.sample(others, 3) if len(others) >= 3 else draw.choices(others, k=3)
    places = [draw.choice(by_class[found]) for found in chosen]
    quarter = draw.randrange(4)
    places.insert(quarter, asked)
    return Mosaic(tuple(places), quarter)


def mosaic_image(four: Tensor) -> Tensor:
    """Four images `[4, 3, H, W]` in reading order as one, `[3, 2 H, 2 W]`.

    Raises:
        PhospheneError: another shape.
    """
    if four.ndim != 4 or len(four) != 4:
        raise PhospheneError(f"a mosaic is made of four images [4, 3, H, W], got {list(four.shape)}")
    return torch.cat([torch.cat([four[0], four[1]], 2), torch.cat([four[2], four[3]], 2)], 1)


def focus(maps: Tensor, quarters: Sequence[int]) -> Tensor:
    """The share of a map's positive values that lies in the right quarter, `[N]` in [0, 1].

    Args:
        maps: `[N, 2 H, 2 W]`, of mosaics.
        quarters: of each, the quarter that was asked for, 0 to 3 in reading order.

    Returns:
        0 for a map without a positive value: it points nowhere.

    Raises:
        PhospheneError: another shape, an odd size, NaN, or quarters that don't fit.
    """
    if maps.ndim != 3 or len(quarters) != len(maps) or maps.shape[1] % 2 or maps.shape[2] % 2:
        raise PhospheneError(f"expected maps [{len(quarters)}, 2 H, 2 W] of mosaics, got {list(maps.shape)}")
    if not bool(torch.isfinite(maps).all()) or not all(0 <= quarter < 4 for quarter in quarters):
        raise PhospheneError("the maps hold NaN or infinity, or a quarter is not 0 to 3")
    height, width = maps.shape[1] // 2, maps.shape[2] // 2
    sums = maps.double().clamp(min=0).reshape(-1, 2, height, 2, width).sum((2, 4)).flatten(1)
    right = sums.gather(1, torch.tensor(list(quarters), device=maps.device)[:, None])[:, 0]
    total = sums.sum(1)
    return torch.where(total > 0, right / total.clamp(min=1e-300), 0)
