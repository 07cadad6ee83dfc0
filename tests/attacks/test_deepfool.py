"""DeepFool where the nearest boundary is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lenet import digits, lenet
from planes import SHAPES, bent, done, greys, nearest_boundary, noise, plane, seen

from phosphene.attacks import deepfool, pgd


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 7, 64])
def test_the_nearest_boundary_of_a_plane(shape: tuple[int, ...], count: int) -> None:
    module, images = plane(shape), greys(shape, count)
    labels = seen(module, images)
    least = nearest_boundary(module, images, labels)
    found = done(deepfool(module, images, labels))
    assert found.success.all()
    assert (found.l2 >= least * 0.999).all() and (found.l2 <= least * 1.05).all()
    assert found.backwards.unique().tolist() == [2 * 4]  # one step, one look at its end; four other classes


def test_to_a_class_of_choice() -> None:
    module, images = plane(SHAPES[0], classes=2), greys(SHAPES[0], 8)
    labels = seen(module, images)
    found = done(deepfool(module, images, labels, targets=1 - labels))
    assert found.success.all()
    assert (found.l2 <= nearest_boundary(module, images, labels) * 1.05).all()
    many = plane(SHAPES[1], classes=6)
    images = greys(SHAPES[1], 8)
    labels = seen(many, images)
    targets = (labels + 2) % 6
    found = done(deepfool(many, images, labels, targets=targets))
    assert found.success.all() and torch.equal(found.predicted, targets)
    assert (found.l2 >= nearest_boundary(many, images, labels, targets) * 0.999).all()


def test_only_the_mask_changes() -> None:
    module, images = plane(SHAPES[1], scale=0.2), greys(SHAPES[1], 6)
    labels = seen(module, images)
    mask = (torch.rand(6, 1, *SHAPES[1][1:]) < 0.5).float()
    found = done(deepfool(module, images, labels, mask=mask))
    assert not (found.images - images)[mask.expand_as(images) == 0].any()
    assert found.success.all() and (found.l2 > nearest_boundary(module, images, labels)).all()


def test_eight_bit_images_fool_as_such() -> None:
    module, images = bent(), noise(16)
    labels = seen(module, images)
    found = done(deepfool(module, images, labels, quantize=True))
    assert found.success.all() and torch.equal(found.success, seen(module, found.images) != labels)
    assert torch.equal((found.images * 255).round() / 255, found.images)
    plain = done(deepfool(module, images, labels))
    assert found.l2.median() <= plain.l2.median() * 1.3 + 0.02


def test_within_a_radius() -> None:
    module, images = plane(SHAPES[0]), greys(SHAPES[0], 40)
    labels = seen(module, images)
    least = nearest_boundary(module, images, labels)
    eps = float(least.median()) * 1.03
    found = done(deepfool(module, images, labels, eps=eps, steps=6))
    assert (found.l2 <= eps + 1e-6).all()
    assert found.success[least < eps * 0.97].all() and not found.success[least > eps].any()


def test_fooled_images_leave() -> None:
    module, images = bent(), noise(16)
    module.fc.bias.data += torch.tensor([1.0, 0, 0, 0])
    found = done(deepfool(module, images, seen(module, images), candidates=2))
    assert found.success.all()
    assert len(found.backwards.unique()) > 1 and (found.backwards % 2 == 0).all()


@pytest.mark.shared
def test_on_mnist_changes_are_small(shared: Path) -> None:
    module = lenet(shared)
    images, labels = digits(shared, 20)
    found = done(deepfool(module, images, labels))
    assert (found.success | found.wrong).all() and 0.8 < found.l2.median() < 1.8  # foolbox 3.3.4: 1.62 on the first 200
    assert torch.equal(seen(module, found.images), found.predicted)
    wide = done(pgd(module, images, labels, eps=float(found.l2.median()), norm="l2", steps=20))
    assert 5 <= wide.success.sum() <= 15  # PGD needs about as much
