"""The attack of Carlini and Wagner where the nearest boundary is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lenet import digits, lenet
from planes import SHAPES, bent, done, greys, nearest_boundary, noise, plane, seen

from phosphene.attacks import carlini_wagner, deepfool

QUICK = {"steps": 150, "step": 0.01, "searches": 8, "first": 0.5}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_the_nearest_boundary_of_a_plane(shape: tuple[int, ...], count: int) -> None:
    # Its f follows the leading class: where another boundary is less far though steeper, it may miss that.
    module, images = plane(shape, even=True), greys(shape, count + 30)
    # Where the boundary is nearer than a step of Adam, it can't be met exactly.
    images = images[nearest_boundary(module, images, seen(module, images)) > 0.03][:count]
    labels = seen(module, images)
    least = nearest_boundary(module, images, labels)
    assert len(images) == count
    found = done(carlini_wagner(module, images, labels, **QUICK))
    assert found.success.all()
    assert (found.l2 >= least * 0.999).all()
    assert (found.l2 <= least * 1.05).all(), (found.l2 / least).max()


def test_to_a_class_of_choice() -> None:
    module, images = plane(SHAPES[0], classes=2), greys(SHAPES[0], 8)
    labels = seen(module, images)
    found = done(carlini_wagner(module, images, labels, targets=1 - labels, **QUICK))
    assert found.success.all()
    assert (found.l2 <= nearest_boundary(module, images, labels) * 1.05).all()


@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_the_wrong_class_leads_by_the_confidence(confidence: float) -> None:
    module, images = plane(SHAPES[0]), greys(SHAPES[0], 8)
    labels = seen(module, images)
    found = done(carlini_wagner(module, images, labels, confidence=confidence, **QUICK))
    top = module(found.images).topk(2, dim=1).values
    assert found.success.all() and ((top[:, 0] - top[:, 1]) >= confidence).all()
    assert (top[:, 0] - top[:, 1]).max() < confidence + 0.2


def test_only_the_mask_changes() -> None:
    module, images = plane(SHAPES[1], scale=0.2), greys(SHAPES[1], 6)
    labels = seen(module, images)
    mask = (torch.rand(6, 1, *SHAPES[1][1:]) < 0.5).float()
    found = done(carlini_wagner(module, images, labels, mask=mask, **QUICK))
    assert not (found.images - images)[mask.expand_as(images) == 0].any()
    assert found.success.all() and (found.l2 > nearest_boundary(module, images, labels)).all()


def test_eight_bit_images_fool_as_such() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    found = done(carlini_wagner(module, images, labels, quantize=True, **QUICK))
    assert found.success.all() and torch.equal(found.success, seen(module, found.images) != labels)
    assert torch.equal((found.images * 255).round() / 255, found.images)
    plain = done(deepfool(module, images, labels))
    assert found.l2.mean() <= plain.l2.mean() * 1.2


def test_within_a_radius() -> None:
    module, images = plane(SHAPES[0]), greys(SHAPES[0], 20)
    labels = seen(module, images)
    least = nearest_boundary(module, images, labels)
    eps = float(least.median()) * 1.03
    found = done(carlini_wagner(module, images, labels, eps=eps, **QUICK))
    assert (found.l2 <= eps + 1e-6).all()
    assert found.success[least < eps * 0.94].all() and not found.success[least > eps].any()


def test_black_and_white_pictures_can_be_left() -> None:
    module, images = plane(SHAPES[0]), (greys(SHAPES[0], 6) > 0.5).float()
    labels = seen(module, images)
    found = done(carlini_wagner(module, images, labels, steps=600, step=0.05, searches=3, first=1.0))
    assert found.success.all() and found.images.min() >= 0 and found.images.max() <= 1


def test_images_leave_a_search_when_their_loss_stalls() -> None:
    module, images = plane(SHAPES[0]), greys(SHAPES[0], 8)
    labels = seen(module, images)
    found = done(carlini_wagner(module, images, labels, steps=2000, step=0.02, searches=1, first=1e-6))
    assert (found.backwards < 2000).all() and not found.success.any()


@pytest.mark.shared
def test_on_mnist_it_needs_less_than_deepfool(shared: Path) -> None:
    module = lenet(shared)
    images, labels = digits(shared, 6)
    found = done(carlini_wagner(module, images, labels, steps=100, step=0.05, searches=3, first=1.0))
    assert found.success.all() and torch.equal(seen(module, found.images), found.predicted)
    walked = done(deepfool(module, images, labels))
    assert found.l2.median() < walked.l2.median()
