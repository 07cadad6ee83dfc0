"""FGSM against the slow way."""

from __future__ import annotations

import pytest
import slow
import torch
from planes import bent, done, noise, seen

from phosphene.attacks import Norm, fgsm

NORMS: list[tuple[Norm, float]] = [("linf", 0.05), ("l2", 0.3)]


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@pytest.mark.parametrize("targeted", [False, True])
def test_it_is_one_step(norm: Norm, eps: float, targeted: bool) -> None:
    module, images = bent(double=True), noise(12).double()
    labels = seen(module, images)
    targets = (labels + 1) % 4 if targeted else None
    found = done(fgsm(module, images, labels, eps=eps, norm=norm, targets=targets))
    for n, image in enumerate(images):
        target = int(targets[n]) if targets is not None else None
        expected = slow.fgsm(module, image, int(labels[n]), eps, norm, target)
        torch.testing.assert_close(found.images[n], expected, atol=1e-9, rtol=0)
        assert bool(found.success[n]) == slow.is_fooled(module, expected, int(labels[n]), target)
    assert found.forwards.tolist() == [3] * 12 and found.backwards.tolist() == [1] * 12
    assert not targeted or found.success.sum() < 12


def test_it_goes_on_where_the_cross_entropy_is_flat() -> None:
    # 600 nats ahead, float32's softmax is exactly 1 and its gradient exactly 0.
    module, images = bent(), noise(4)
    module.fc.weight.data *= 3000
    labels = seen(module, images)
    assert (module(images).softmax(1).amax(1) == 1).all()
    found = done(fgsm(module, images, labels, eps=0.05))
    assert (found.linf > 0.04).all()


def test_a_radius_of_nothing_fools_nobody() -> None:
    module, images = bent(), noise(4)
    found = done(fgsm(module, images, seen(module, images), eps=0))
    assert torch.equal(found.images, images) and not found.success.any() and found.accuracy == 1


def test_what_is_wrong_already_is_not_attacked() -> None:
    module, images = bent(), noise(6)
    labels = seen(module, images)
    labels[[1, 4]] = (labels[[1, 4]] + 1) % 4
    found = done(fgsm(module, images, labels, eps=0.2))
    assert found.wrong.nonzero()[:, 0].tolist() == [1, 4]
    assert not found.success[[1, 4]].any() and not found.robust[[1, 4]].any() and not found.l2[[1, 4]].any()
    assert found.backwards.tolist() == [1, 0, 1, 1, 0, 1]
    nobody = done(fgsm(module, images, (seen(module, images) + 1) % 4, eps=0.2))
    assert nobody.wrong.all() and nobody.accuracy == 0 and torch.equal(nobody.images, images)
