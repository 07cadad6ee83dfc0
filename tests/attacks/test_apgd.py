"""APGD: its schedule, the optimum of a linear network, and what holds for every attack."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import SHAPES, bent, done, greys, noise, plane, seen

from phosphene.attacks.apgd import Run, apgd, apgd_targeted, checkpoints
from phosphene.attacks.ball import Norm
from phosphene.attacks.scores import margin
from phosphene.errors import PhospheneError
from phosphene.progress import Started, Step, run

both = pytest.mark.parametrize("attack", [apgd, apgd_targeted])


@pytest.mark.parametrize("steps", [1, 2, 10, 33, 50, 100, 1000])
def test_checkpoints(steps: int) -> None:
    p = [Fraction(0), Fraction(22, 100)]
    while p[-1] <= 1:
        p.append(p[-1] + max(p[-1] - p[-2] - Fraction(3, 100), Fraction(6, 100)))
    assert checkpoints(steps) == [math.ceil(share * steps) for share in p[1:-1]]
    if steps == 100:
        assert checkpoints(steps) == [22, 41, 57, 70, 80, 87, 93, 99]


def begun(rises: list[int], best: list[float], marked: list[float], halved: list[bool]) -> Run:
    n = len(rises)
    x, value = torch.zeros(n, 1, 1, 1), torch.full((n,), -1.0)
    return Run(
        which=torch.arange(n),
        x=x,
        before=x,
        value=value,
        gradient=x,
        best=x + 7,
        best_value=torch.tensor(best),
        best_gradient=x + 3,
        eta=torch.full((n, 1, 1, 1), 0.5),
        rises=torch.tensor(rises),
        halved=torch.tensor(halved),
        marked=torch.tensor(marked),
    )


def test_the_two_conditions() -> None:
    #            few rises, enough and better, enough but no better, that after a halving
    state = begun([7, 8, 8, 8], [2.0, 2.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [False, False, False, True])
    state.check(10)
    assert state.halved.tolist() == [True, False, True, False]
    assert state.eta.flatten().tolist() == [0.25, 0.5, 0.25, 0.5]
    assert state.x.flatten().tolist() == [7, 0, 7, 0]  # back to the best point
    assert state.gradient.flatten().tolist() == [3, 0, 3, 0]
    assert state.value.tolist() == [2, -1, 1, -1]
    assert not state.rises.any() and state.marked.tolist() == [2, 2, 1, 1]


@both
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_optimum_of_a_linear_network(attack: Callable, shape: tuple[int, ...], norm: Norm) -> None:
    module, images = plane(shape, classes=2), greys(shape, 6)
    labels = seen(module, images)
    weights: torch.Tensor = module[1].weight.detach()  # type: ignore[index]
    slope = (weights[0] - weights[1]).norm(1 if norm == "linf" else 2)
    before = margin(module(images).detach(), labels)
    eps = 0.8 * float((-before).min() / slope)  # no way to fool one
    found = done(attack(module, images, labels, eps=eps, norm=norm, steps=40))
    assert not found.success.any()
    after = margin(module(found.images).detach(), labels)
    torch.testing.assert_close(after - before, (eps * slope).expand(6), rtol=0.01, atol=1e-4)


@both
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_what_can_be_fooled(attack: Callable, norm: Norm) -> None:
    module, images = plane((3, 8, 8)), greys((3, 8, 8), 9)
    labels = seen(module, images)
    found = done(attack(module, images, labels, eps=0.3 if norm == "linf" else 5.0, norm=norm, steps=20))
    assert found.success.all() and found.accuracy == 0
    assert torch.equal(seen(module, found.images), found.predicted)


@both
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.2)])
def test_images_stay_in_the_ball_and_wrong_ones_as_they_were(attack: Callable, norm: Norm, eps: float) -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    labels[3] = (labels[3] + 1) % 4
    found = done(attack(module, images, labels, eps=eps, norm=norm, steps=12))
    size = found.linf if norm == "linf" else found.l2
    assert size.max() <= eps + 1e-6 and found.images.min() >= 0 and found.images.max() <= 1
    assert found.wrong.tolist() == [row == 3 for row in range(12)]
    assert not found.success[3] and torch.equal(found.images[3], images[3])
    assert found.backwards[3] == 0
    assert 0 < found.success.sum() < 11


@both
def test_neighbours_do_not_matter(attack: Callable) -> None:
    module, images = bent(double=True), noise(9).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": 0.04, "steps": 10, "seed": 4}
    whole = done(attack(module, images, labels, **options))
    for batch in ([0], [8, 2, 5], [*reversed(range(9))]):
        part = done(attack(module, images[batch], labels[batch], **options))
        torch.testing.assert_close(part.images, whole.images[batch], atol=1e-9, rtol=0)
        assert torch.equal(part.success, whole.success[batch])
        assert torch.equal(part.forwards, whole.forwards[batch])
    other = done(attack(module, images, labels, **options | {"seed": 5}))
    assert not torch.equal(other.images, whole.images)


def test_fooled_images_leave() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    module.seen.clear()
    found = done(apgd(module, images, labels, eps=0.03, steps=10, restarts=2))
    assert sum(module.seen) == found.forwards.sum()
    assert found.forwards[found.success].max() <= 24
    assert (found.forwards[~found.success] == 24).all()  # two looks, and twice a start and 10 steps
    assert module.seen[-2] <= int((~found.success).sum())


def test_more_restarts_are_never_weaker() -> None:
    module, images = bent(), noise(30)
    labels = seen(module, images)
    one = done(apgd(module, images, labels, eps=0.02, steps=3))
    more = done(apgd(module, images, labels, eps=0.02, steps=3, restarts=4))
    assert (more.success | ~one.success).all()


def test_each_image_has_its_own_radius() -> None:
    module, images = bent(), noise(4)
    eps = torch.tensor([0.0, 0.01, 0.02, 0.3])
    found = done(apgd(module, images, seen(module, images), eps=eps, steps=5))
    assert (found.linf <= eps + 1e-6).all() and found.linf[0] == 0


def test_masks_and_files() -> None:
    module, images = bent(3), noise(4, 3)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    found = done(apgd(module, images, seen(module, images), eps=8 / 255, steps=5, mask=mask, quantize=True))
    assert torch.equal((found.images * 255).round() / 255, found.images)
    assert torch.equal(found.images[..., 4:], found.originals[..., 4:]) and found.linf.max() > 0


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted"])
def test_few_classes(classes: int, loss: str) -> None:
    module, images = plane((1, 8, 8), classes=classes), greys((1, 8, 8), 4)
    labels = seen(module, images)
    attack = apgd_targeted if loss == "targeted" else apgd
    options: dict[str, Any] = {} if loss == "targeted" else {"loss": loss}
    assert done(attack(module, images, labels, eps=0.4, steps=10, **options)).success.all()


def test_events_count_the_steps() -> None:
    module, images = bent(), noise(3)
    events: list = []
    run(apgd_targeted(module, images, seen(module, images), eps=0.0, steps=4, classes=2), events.append)
    assert events[0] == Started("apgd-t", 8)
    assert [event.done for event in events if isinstance(event, Step)] == [*range(1, 9)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse"}, "choose ce or dlr"),
        ({"steps": 0}, "steps start at 1"),
        ({"restarts": 0}, "restarts start at 1"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        done(apgd(bent(), noise(1), torch.tensor([0]), eps=0.1, **options))


@pytest.mark.shared
def test_figures_on_mnist(shared: Path) -> None:
    images, labels = digits(shared, 60)
    clean = done(apgd(lenet(shared, "cln"), images, labels, eps=0.3, steps=20))
    assert clean.accuracy == 0
    hardened = done(apgd(lenet(shared, "adv"), images, labels, eps=0.3, steps=20))
    assert hardened.accuracy == pytest.approx(0.95, abs=0.04)
