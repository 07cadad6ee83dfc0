"""The ball: one radius for each image, masks, 8 bits."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.dice import Dice

NORMS: list[Norm] = ["linf", "l2"]


def pair(count: int = 4, levels: bool = False) -> tuple[Tensor, Tensor]:
    start, images = torch.rand(count, 3, 5, 4), torch.rand(count, 3, 5, 4)
    return ((start * 255).round() / 255 if levels else start), images


@pytest.mark.parametrize("norm", NORMS)
def test_each_image_has_its_own_radius(norm: Norm) -> None:
    start, images = pair()
    eps = torch.tensor([0.0, 0.1, 0.5, math.inf])
    together = Ball(norm, eps).project(images, start)
    for n in range(4):
        alone = Ball(norm, float(eps[n])).project(images[n : n + 1], start[n : n + 1])
        assert torch.equal(together[n : n + 1], alone)
    assert torch.equal(together[0], start[0])
    torch.testing.assert_close(together[3], images[3])
    assert Ball(norm, eps).holds(together, start).all()
    assert Ball(norm, eps).holds(images, start).tolist() == [False, False, False, True]
    part = torch.tensor([2, 1])
    assert torch.equal(Ball(norm, eps).at(part).project(images[part], start[part]), together[part])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(1, 1, 5, 4), (4, 1, 5, 4), (1, 3, 5, 4), (4, 3, 5, 4)])
def test_nothing_changes_outside_of_the_mask(norm: Norm, shape: tuple[int, ...]) -> None:
    start, images = pair(levels=True)
    mask = (torch.rand(shape) < 0.5).float()
    ball = Ball(norm, torch.tensor([0.05, 0.1, 0.3, 0.7]), mask)
    outside = mask.expand_as(start) == 0
    for found in (ball.project(images, start), ball.saved(ball.project(images, start), start)):
        assert torch.equal(found[outside], start[outside])
        assert ball.holds(found, start).all()
        assert (found != start).any()
    assert not ball.steepest(images)[outside].any()
    assert not ball.holds(images, start).any()
    chosen = torch.tensor([3, 0])
    found = ball.at(chosen).project(images[chosen], start[chosen])
    assert torch.equal(found, ball.project(images, start)[chosen])


def test_steepest() -> None:
    gradient = torch.randn(3, 1, 4, 4)
    gradient[2] = 0
    assert torch.equal(Ball("linf", 1.0).steepest(gradient), gradient.sign())
    lengths = Ball("l2", 1.0).steepest(gradient).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1.0, 0.0]))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.5 / 255, 1 / 255, 2.6 / 255, 8 / 255, 0.3, 2.0])
def test_saved_images_are_on_the_lattice_and_in_the_ball(norm: Norm, eps: float) -> None:
    start, images = pair(32, levels=True)
    ball = Ball(norm, eps)
    found = ball.saved(ball.project(images, start), start)
    assert torch.equal((found * 255).round() / 255, found)
    assert ball.holds(found, start).all()
    assert found.min() >= 0 and found.max() <= 1
    assert torch.equal(ball.saved(found, start), found)
    if norm == "linf" and eps < 1:
        assert round(float((found - start).abs().max()) * 255) == math.floor(eps * 255 + 1e-4)


def test_in_l2_as_many_values_as_fit_are_rounded_up() -> None:
    # The changes in levels, how far each is rounded when all, some and none of it fits.
    start = torch.zeros(1, 1, 1, 3)
    levels = torch.tensor([1.9, 2.6, 0.7]).view(1, 1, 1, 3)
    for radius in (1.0, 2.3, 2.9, 3.2, 3.61, 3.8, 9.0):
        found = Ball("l2", radius / 255).saved(Ball("l2", radius / 255).project(levels / 255, start), start) * 255
        scaled = levels * min(1.0, radius / float(levels.norm()))
        order = (scaled - scaled.trunc()).flatten().argsort(descending=True).tolist()
        best = scaled.trunc().flatten()
        for place in order:
            trial = best.clone()
            trial[place] += 1
            if scaled.flatten()[place] % 1 >= 0.5 and trial.norm() <= radius:
                best = trial
            else:
                break
        assert found.flatten().round().tolist() == best.tolist()
        assert float(found.norm()) <= radius + 1e-3


@pytest.mark.parametrize("norm", NORMS)
def test_random_points_fill_the_ball(norm: Norm) -> None:
    start = torch.full((2000, 1, 1, 2), 0.5)
    dice = Dice(0, start, range(2000))
    ball = Ball(norm, 0.2)
    points = (dice.inside(ball, start, torch.arange(2000)) - start).flatten(1)
    size = points.abs().amax(1) if norm == "linf" else points.norm(dim=1)
    assert size.max() <= 0.2 + 1e-6
    assert (size <= 0.1).float().mean() == pytest.approx(0.25, abs=0.04)  # half as wide: a quarter of the area
    assert points.mean(0).abs().max() < 0.01


def test_random_points_belong_to_the_image() -> None:
    images = torch.rand(5, 3, 4, 4)
    ball = Ball("linf", 0.1)
    whole = Dice(1, images).inside(ball, images, torch.arange(5))
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
        chosen = torch.tensor(order[:3])
        part = Dice(1, images[chosen]).inside(ball, images[chosen], torch.arange(3))
        assert torch.equal(part, whole[chosen])
    assert not torch.equal(Dice(2, images).inside(ball, images, torch.arange(5)), whole)
    assert not torch.equal(Dice(1, images).inside(ball, images, torch.arange(5), turn=1), whole)
    keyed = Dice(1, images, ["a", "b", "c", "d", "e"]).inside(ball, images, torch.arange(5))
    again = Dice(1, images[:2], ["e", "a"])
    moved = again.inside(ball, images[[4, 0]], torch.arange(2))
    assert torch.equal(moved, keyed[[4, 0]])
