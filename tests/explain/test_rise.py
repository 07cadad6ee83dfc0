from __future__ import annotations

import math

import pytest
import torch
from reference import distance
from torch import Tensor
from toys import pictures, small

from phosphene.errors import PhospheneError
from phosphene.explain import rise
from phosphene.explain.variants import generator
from phosphene.models import Unit


def bilinear(cells: int, side: int) -> Tensor:
    """`[side, cells]`: what each of `side` pixels takes from each of `cells` cells that are enlarged to them."""
    weights = torch.zeros(side, cells)
    for pixel in range(side):
        place = max((pixel + 0.5) * cells / side - 0.5, 0.0)
        low = min(int(place), cells - 1)
        high = min(low + 1, cells - 1)
        weights[pixel, low] += 1 - (place - low)
        weights[pixel, high] += place - low
    return weights


def masks(count: int, size: tuple[int, int], cells: int, p: float, seed: int) -> Tensor:
    """`[count, H, W]`, by the recipe of the paper: open cells, enlarged, and cut out at a random shift of up to a cell."""
    height, width = (math.ceil(side / cells) for side in size)
    made = []
    for number in range(count):
        random = generator(seed, number)
        cell_open = (torch.rand(1, 1, cells, cells, generator=random) < p).float()[0, 0]
        grown = bilinear(cells, (cells + 1) * height) @ cell_open @ bilinear(cells, (cells + 1) * width).T
        top, left = (int(torch.randint(side, (), generator=random)) for side in (height, width))
        made.append(grown[top : top + size[0], left : left + size[1]])
    return torch.stack(made).double()


@pytest.mark.parametrize(("cells", "p"), [(3, 0.5), (7, 0.2), (1, 0.9), (30, 0.5)])
def test_it_is_the_loop_over_masks(cells: int, p: float) -> None:
    net, images, classes = small(), pictures(2, 22)[:, :, :20], [2, 0]
    chosen = masks(19, (20, 22), cells, p, seed=5)
    total = torch.zeros(2, 20, 22, dtype=torch.float64)
    for mask in chosen:
        for place in range(2):
            total[place] += net.logits(images[[place]] * mask).softmax(1)[0, classes[place]] * mask
    found = rise(net, images, classes, masks=19, cells=cells, p=p, seed=5)
    assert distance(found.maps, total / (19 * p)) < 1e-6  # the masks are made in float32
    assert distance(found.scores, net.logits(images).softmax(1)[[0, 1], classes]) < 1e-12


def test_a_units_activation_is_read_where_it_is_most_active_in_the_whole_image() -> None:
    net, images = small(), pictures(2)
    best = net.record(images, ["last"])["last"][:, 3].flatten(1).argmax(1).tolist()
    total = torch.zeros(2, 20, 20, dtype=torch.float64)
    for mask in masks(12, (20, 20), 4, 0.5, seed=0):
        for place in range(2):
            activation = net.record(images[[place]] * mask, ["last"])["last"][0, 3].flatten()
            total[place] += activation[best[place]] * mask
    found = rise(net, images, Unit("last", 3), masks=12, cells=4)
    assert distance(found.maps, total / 6) < 1e-6


def test_masks_are_open_with_probability_p_and_smooth() -> None:
    """A network that says the same of every image: the map is the mean mask over p, one everywhere but at the noise."""
    net = small()
    with torch.no_grad():
        net.module.get_parameter("fc.weight").zero_()
    found = rise(net, pictures(1), 1, masks=600, cells=4, p=0.3)
    level = found.maps / found.scores[:, None, None]
    assert abs(float(level.mean()) - 1) < 0.05
    assert float((level - 1).abs().max()) < 0.3
    jumps = (found.maps[0, 1:] - found.maps[0, :-1]).abs().max()
    assert float(jumps) < 0.1 * float(found.maps.max())


def test_the_first_masks_do_not_depend_on_how_many_follow() -> None:
    net, images = small(), pictures(1)
    nine, ten = (rise(net, images, 1, masks=n, cells=3, seed=1).maps * n for n in (9, 10))
    last = masks(10, (20, 20), 3, 0.5, seed=1)[9]
    seen = net.logits(images * last).softmax(1)[0, 1]
    assert distance(ten - nine, (seen * last / 0.5)[None]) < 1e-5


@pytest.mark.parametrize(
    "options",
    [{"masks": 0}, {"cells": 0}, {"p": 0.0}, {"p": 1.0}, {"p": -0.5}, {"p": float("nan")}, {"masks": -5}],
)
def test_bad_options_are_error_lines(options: dict[str, float]) -> None:
    with pytest.raises(PhospheneError, match="give at least 1, 1 and a p between 0 and 1"):
        rise(small(), pictures(1), 1, **options)  # type: ignore[arg-type]
