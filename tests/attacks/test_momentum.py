"""MI-FGSM and NI-FGSM against the slow way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import slow
import torch
from planes import bent, done, noise, seen

from phosphene.attacks import Norm, bim, mi_fgsm, ni_fgsm

NORMS: list[tuple[Norm, float]] = [("linf", 0.04), ("l2", 0.2)]


@pytest.mark.parametrize(("norm", "eps"), NORMS)
@pytest.mark.parametrize("attack", [mi_fgsm, ni_fgsm])
@pytest.mark.parametrize("decay", [0.5, 1.0])
def test_against_the_slow_way(attack: Callable, decay: float, norm: Norm, eps: float) -> None:
    module, images = bent(double=True), noise(10).double()
    labels = seen(module, images)
    found = done(attack(module, images, labels, eps=eps, norm=norm, steps=7, step=eps / 4, decay=decay))
    for n, image in enumerate(images):
        label, ahead = int(labels[n]), attack is ni_fgsm
        settings = {"eps": eps, "norm": norm, "steps": 7, "step": eps / 4, "decay": decay, "ahead": ahead}
        expected = slow.climb(module, image, label, **settings)  # type: ignore[arg-type]
        assert bool(found.success[n]) == slow.is_fooled(module, expected, label)
        if found.success[n]:
            torch.testing.assert_close(found.images[n], expected, atol=1e-9, rtol=0)
    assert 0 < found.success.sum() < 10


@pytest.mark.parametrize("attack", [mi_fgsm, ni_fgsm])
def test_without_memory_it_is_bim(attack: Callable) -> None:
    module, images = bent(), noise(10)
    labels = seen(module, images)
    found = done(attack(module, images, labels, eps=0.04, steps=6, step=0.01, decay=0.0))
    plain = done(bim(module, images, labels, eps=0.04, steps=6, step=0.01))
    assert torch.equal(found.success, plain.success)
    torch.testing.assert_close(found.images, plain.images, atol=1e-6, rtol=0)


def test_fooled_images_leave() -> None:
    module, images = bent(), noise(16)
    found = done(mi_fgsm(module, images, seen(module, images), eps=0.04, steps=10))
    assert found.backwards[~found.success].unique().tolist() == [10]
    assert found.backwards[found.success].min() < 6


def test_steps_are_a_share_of_each_radius() -> None:
    module, images = bent(), noise(3)
    radii = torch.tensor([0.002, 0.004, 0.006])
    found = done(mi_fgsm(module, images, seen(module, images), eps=radii, steps=1))
    torch.testing.assert_close(found.linf, radii, atol=1e-6, rtol=0)
