"""FAB: nearly the smallest change on linear networks, whose smallest is known, and never a false report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import SHAPES, bent, done, greys, noise, plane, seen
from torch import Tensor, nn

from phosphene.attacks.ball import Norm
from phosphene.attacks.fab import fab, fab_targeted
from phosphene.errors import PhospheneError
from phosphene.progress import Started, Step, run

both = pytest.mark.parametrize("attack", [fab, fab_targeted])


def smallest(module: nn.Module, images: Tensor, labels: Tensor, norm: Norm) -> Tensor:
    """`[N]`, the distance to the nearest other class of a linear network, 0 and 1 being far away."""
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    logits = module(images).detach()
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = (weights[labels, None] - weights[None]).norm(1 if norm == "linf" else 2, dim=2)
    return (gaps / slopes.clamp(min=1e-9)).scatter(1, labels[:, None], torch.inf).amin(1)


@both
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 7, 64])
@pytest.mark.parametrize("final", [True, False])
def test_the_change_is_nearly_the_smallest(
    attack: Callable, norm: Norm, shape: tuple[int, ...], count: int, final: bool
) -> None:
    module, images = plane(shape), greys(shape, count)
    labels = seen(module, images)
    found = done(attack(module, images, labels, norm=norm, steps=10, final=final))
    best = smallest(module, images, labels, norm)
    size = found.linf if norm == "linf" else found.l2
    assert found.success.all()
    assert torch.equal(seen(module, found.images), found.predicted)
    assert (size >= best * 0.999).all()
    assert (size <= best * (1.001 if final else 1.05) + 1e-5).all()


@both
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_box_is_kept_where_it_is_near(attack: Callable, norm: Norm) -> None:
    module = plane((1, 8, 8))
    images = noise(20).round()  # black and white: half of all directions are closed
    labels = seen(module, images)
    found = done(attack(module, images, labels, norm=norm, steps=20))
    assert found.success.all()
    assert found.images.min() >= 0 and found.images.max() <= 1
    size = found.linf if norm == "linf" else found.l2
    assert (size >= smallest(module, images, labels, norm) * 0.999).all()


@both
def test_with_a_radius_images_leave_and_others_are_given_back(attack: Callable) -> None:
    module, images = bent(), noise(16)
    labels = seen(module, images)
    labels[3] = (labels[3] + 1) % 4
    free = done(attack(module, images, labels, steps=15))
    eps = float(free.linf[free.success].median())
    found = done(attack(module, images, labels, eps=eps, steps=15))
    assert found.success.sum() >= free.success.sum() // 2
    assert found.linf.max() <= eps + 1e-6
    assert torch.equal(found.images[~found.success], images[~found.success])
    assert found.forwards[found.success].double().mean() < free.forwards[found.success].double().mean()
    for one in (free, found):
        assert one.wrong.tolist() == [row == 3 for row in range(16)] and not one.success[3]
        assert torch.equal(one.images[3], images[3]) and one.backwards[3] == 0


def test_the_final_search_only_shortens() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    short = done(fab(module, images, labels, norm="l2", steps=4, final=False))
    final = done(fab(module, images, labels, norm="l2", steps=4))
    assert torch.equal(short.success, final.success)
    assert (final.l2 <= short.l2).all() and (final.l2 < short.l2).any()
    assert torch.equal(seen(module, final.images), final.predicted)


def test_restarts_never_make_it_longer() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    one = done(fab(module, images, labels, steps=4, final=False))
    more = done(fab(module, images, labels, steps=4, restarts=3, final=False))
    assert (more.success | ~one.success).all()
    assert (more.linf[one.success] <= one.linf[one.success]).all()


@both
def test_neighbours_do_not_matter(attack: Callable) -> None:
    module, images = bent(double=True), noise(7).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"steps": 6, "restarts": 2, "seed": 4}
    whole = done(attack(module, images, labels, **options))
    for batch in ([0], [6, 2, 5], [*reversed(range(7))]):
        part = done(attack(module, images[batch], labels[batch], **options))
        torch.testing.assert_close(part.images, whole.images[batch], atol=1e-6, rtol=0)
        assert torch.equal(part.success, whole.success[batch])


@both
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(attack: Callable, classes: int) -> None:
    module, images = plane((1, 8, 8), classes=classes), greys((1, 8, 8), 4)
    labels = seen(module, images)
    found = done(attack(module, images, labels, steps=5))
    assert found.success.all()
    assert (found.linf <= smallest(module, images, labels, "linf") * 1.01).all()


def test_a_mask_is_kept() -> None:
    module, images = plane((3, 8, 8)), greys((3, 8, 8), 4)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    found = done(fab(module, images, seen(module, images), norm="l2", steps=10, mask=mask))
    assert found.success.all()
    assert torch.equal(found.images[..., 4:], images[..., 4:])


def test_files() -> None:
    module, images = bent(3), noise(4, 3)
    found = done(fab(module, images, seen(module, images), eps=16 / 255, steps=10, quantize=True))
    assert torch.equal((found.images * 255).round() / 255, found.images)
    assert found.success.any()
    assert torch.equal(seen(module, found.images), found.predicted)


def test_events_count_the_steps() -> None:
    module, images = bent(), noise(3)
    events: list = []
    run(fab_targeted(module, images, seen(module, images), steps=4, classes=2), events.append)
    assert events[0] == Started("fab-t", 8)
    assert [event.done for event in events if isinstance(event, Step)] == [*range(1, 9)]


@pytest.mark.parametrize("name", ["steps", "restarts", "classes"])
def test_wrong_arguments(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(PhospheneError, match=f"{name} start at 1"):
        done(fab(bent(), noise(1), torch.tensor([0]), **options))


@pytest.mark.shared
def test_figures_on_mnist(shared: Path) -> None:
    images, labels = digits(shared, 50)
    module = lenet(shared, "cln")
    found = done(fab_targeted(module, images, labels, steps=10, classes=3))
    assert (found.success | found.wrong).all() and found.wrong.sum() <= 1
    assert found.linf.median() < 0.12
    assert done(fab_targeted(module, images, labels, eps=0.3, steps=10)).accuracy == 0
