"""BIM and PGD: against the slow way, and whatever else is in the batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import slow
import torch
from lenet import digits, lenet
from planes import bent, done, noise, plane, seen
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.attacks import Ball, Norm, Result, bim, carlini_wagner, deepfool, mi_fgsm, ni_fgsm, pgd
from phosphene.attacks.dice import Dice
from phosphene.models import load
from phosphene.progress import Started, Step, run

NORMS: list[tuple[Norm, float]] = [("linf", 0.04), ("l2", 0.2)]
each_norm = pytest.mark.parametrize(("norm", "eps"), NORMS)


@each_norm
@pytest.mark.parametrize("targeted", [False, True])
def test_bim_against_the_slow_way(norm: Norm, eps: float, targeted: bool) -> None:
    module, images = bent(double=True), noise(10).double()
    labels = seen(module, images)
    targets = (labels + 1) % 4 if targeted else None
    found = done(bim(module, images, labels, eps=eps, norm=norm, steps=6, step=eps / 3, targets=targets))
    for n, image in enumerate(images):
        label, target = int(labels[n]), int(targets[n]) if targets is not None else None
        expected = slow.climb(module, image, label, eps=eps, norm=norm, steps=6, step=eps / 3, target=target)
        assert bool(found.success[n]) == slow.is_fooled(module, expected, label, target)
        if found.success[n]:
            torch.testing.assert_close(found.images[n], expected, atol=1e-9, rtol=0)
    assert 0 < found.success.sum() < 10


@each_norm
def test_of_several_starts_the_worst_counts(norm: Norm, eps: float) -> None:
    module, images = bent(double=True), noise(40).double()
    labels, which, eps = seen(module, images), torch.arange(40), eps * 0.5
    settings = {"eps": eps, "norm": norm, "steps": 1, "step": eps / 20}
    found = done(pgd(module, images, labels, restarts=4, seed=9, **settings))
    dice, ball = Dice(9, images), Ball(norm, eps)
    starts = [dice.inside(ball, images, which, turn) for turn in range(4)]
    hits = torch.zeros(4, 40, dtype=torch.bool)
    for turn, n in [(turn, n) for turn in range(4) for n in range(40)]:
        label = int(labels[n])
        x = slow.climb(module, images[n], label, start=starts[turn][n], **settings)  # type: ignore[arg-type]
        hits[turn, n] = slow.is_fooled(module, x, label)
    assert found.success.tolist() == hits.any(0).tolist()
    assert hits.any(0).sum() > hits.sum(1).max()  # no single start finds all of them
    one = done(pgd(module, images, labels, restarts=1, seed=9, **settings))
    assert one.success.tolist() == hits[0].tolist()


@each_norm
def test_each_image_has_its_own_radius(norm: Norm, eps: float) -> None:
    module, images = bent(), noise(6)
    labels = seen(module, images)
    radii = torch.tensor([0.0, 0.25, 0.5, 1.0, 2.0, 4.0]) * eps
    found = done(pgd(module, images, labels, eps=radii, norm=norm, steps=5))
    size = found.linf if norm == "linf" else found.l2
    assert (size <= radii + 1e-6).all() and not found.success[0] and found.success[5]
    for n in range(6):
        alone = done(pgd(module, images[n : n + 1], labels[n : n + 1], eps=float(radii[n]), norm=norm, steps=5))
        torch.testing.assert_close(alone.images[0], found.images[n], atol=1e-5, rtol=0)


@each_norm
def test_only_the_mask_changes(norm: Norm, eps: float) -> None:
    module, images = bent(3), noise(6, 3)
    labels = seen(module, images)
    mask = torch.zeros(6, 1, 8, 8)
    for n in range(6):
        mask[n, :, : n + 2] = 1
    for quantize in (False, True):
        found = done(pgd(module, images, labels, eps=3 * eps, norm=norm, steps=8, mask=mask, quantize=quantize))
        change = found.images - images
        assert not change[mask.expand_as(change) == 0].any() and (found.l2 > 0).all()
        assert found.success.any()
        assert ((found.linf if norm == "linf" else found.l2) <= 3 * eps + 1e-6).all()


@each_norm
@pytest.mark.parametrize("name", ["pgd", "mi", "ni"])
def test_eight_bit_images_fool_as_such(name: str, norm: Norm, eps: float) -> None:
    attack: Callable = {"pgd": pgd, "mi": mi_fgsm, "ni": ni_fgsm}[name]
    module, images = bent(), noise(32)
    labels = seen(module, images)
    found = done(attack(module, images, labels, eps=eps * 1.07, norm=norm, steps=20, quantize=True))
    assert torch.equal((found.images * 255).round() / 255, found.images)
    assert ((found.linf if norm == "linf" else found.l2) <= eps * 1.07 + 1e-6).all()
    assert torch.equal(found.success, seen(module, found.images) != labels)
    plain = done(attack(module, images, labels, eps=eps * 1.07, norm=norm, steps=20))
    assert found.success.any() and found.success.sum() >= plain.success.sum() - 4


def test_originals_are_rounded_where_results_are() -> None:
    module, images = bent(), torch.rand(3, 1, 8, 8)
    found = done(pgd(module, images, seen(module, images), eps=4 / 255, steps=3, quantize=True))
    assert torch.equal(found.originals, (images * 255).round() / 255)
    assert found.linf.max() <= 4 / 255 + 1e-6


def test_fooled_images_leave_at_once() -> None:
    module, images = bent(), noise(16)
    labels = seen(module, images)
    module.seen.clear()
    found = done(pgd(module, images, labels, eps=0.04, steps=12, random_start=False, step=0.004))
    assert module.seen[0] == 16 and module.seen[-1] == 16
    inside = module.seen[1:-1]
    assert inside == sorted(inside, reverse=True) and inside[0] == 16 and inside[-1] < 16
    assert sum(module.seen) == int(found.forwards.sum())
    assert found.forwards[~found.success].unique().tolist() == [15]  # first look, 12 steps, the last image, asked again
    assert found.backwards[~found.success].unique().tolist() == [12]
    assert found.forwards[found.success].max() <= 15 and found.forwards[found.success].min() < 10


def test_each_step_is_an_event() -> None:
    events: list[object] = []
    module, images = bent(), noise(4)
    run(pgd(module, images, seen(module, images), eps=1e-6, steps=3, restarts=2), events.append)
    assert events[0] == Started("pgd", 6)
    assert [event.done for event in events if isinstance(event, Step)] == [1, 2, 3, 3, 4, 5, 6, 6]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 6)])
def test_on_a_plane_it_finds_out_whether_the_ball_reaches_the_boundary(shape: tuple[int, ...]) -> None:
    # In linf the best change of a linear network is eps sign(w): what is fooled is known exactly.
    module = plane(shape, classes=2)
    images = 0.4 + 0.2 * torch.rand(64, *shape)
    labels = seen(module, images)
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    rows = torch.arange(64)
    logits = module(images).detach()
    gap = (logits[rows, labels] - logits[rows, 1 - labels]) / (weights[0] - weights[1]).abs().sum()
    eps = float(gap.median()) + 1e-5
    found = done(pgd(module, images, labels, eps=eps, steps=30))
    assert found.success.tolist() == (gap < eps).tolist()


ATTACKS: list[tuple[Callable, dict]] = [
    (pgd, {"eps": 0.1, "steps": 10, "restarts": 2}),
    (pgd, {"eps": 1.2, "norm": "l2", "steps": 10, "quantize": True}),
    (mi_fgsm, {"eps": 0.1, "steps": 10}),
    (ni_fgsm, {"eps": 0.1, "steps": 10}),
    (deepfool, {"eps": 1.5, "steps": 12, "candidates": 3}),
    (carlini_wagner, {"eps": 1.5, "steps": 10, "step": 0.1, "searches": 2, "first": 1.0}),
]


@pytest.mark.shared
@pytest.mark.parametrize(("attack", "options"), ATTACKS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_batch_does_not_matter(shared: Path, attack: Callable, options: dict) -> None:
    module = lenet(shared)
    images, labels = digits(shared, 32, start=20)
    whole = done(attack(module, images, labels, seed=3, **options))
    assert 0 < whole.success.sum() < 32
    assert agrees(whole, done(attack(module, images.repeat(2, 1, 1, 1), labels.repeat(2), seed=3, **options)), 32)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    for size in (1, 7):
        for part in order[: 6 * size].split(size):
            found = done(attack(module, images[part], labels[part], seed=3, **options))
            assert agrees(found, part_of(whole, part), len(part))


def part_of(result: Result, which: Tensor) -> Result:
    return Result(*(getattr(result, name)[which] for name in Result.__dataclass_fields__))


def agrees(one: Result, other: Result, count: int) -> bool:
    """Decisions are equal; images almost, for a sign turns over where a gradient is 0 up to rounding."""
    assert torch.equal(one.success[:count], other.success[:count])
    assert torch.equal(one.predicted[:count], other.predicted[:count])
    off = (one.images[:count] - other.images[:count]).abs().flatten(1)
    assert off.mean() < 1e-3, off.mean()
    torch.testing.assert_close(one.l2[:count], other.l2[:count], atol=0.02, rtol=0.02)
    return True


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "count"), [("cln", 25), ("adv", 100)])
def test_mnist_against_a_plain_loop(shared: Path, kind: str, count: int) -> None:
    module = lenet(shared, kind)
    images, labels = digits(shared, count)
    found = done(pgd(module, images, labels, eps=0.3, steps=40, step=0.01))
    start = Dice(0, images).inside(Ball("linf", 0.3), images, torch.arange(count))
    assert abs(found.accuracy - plain_pgd(module, images, labels, start)) <= 1 / count + 1e-9
    assert found.linf.max() <= 0.3 + 1e-6


def plain_pgd(module: nn.Module, images: Tensor, labels: Tensor, start: Tensor) -> float:
    """Robust accuracy after 40 steps of 0.01 in the ball of 0.3, as Madry's code does it."""
    x = start
    for _ in range(40):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(module(x), labels), x)
        x = (images + (x.detach() + 0.01 * gradient.sign() - images).clamp(-0.3, 0.3)).clamp(0, 1)
    return float((seen(module, x) == labels).double().mean())


def test_a_network_and_its_module_are_fooled_alike() -> None:
    module = bent(3)
    network = load(module, device="cpu", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    images = noise(20, 3)
    labels = seen(module, images)
    one = done(pgd(network, images, labels, eps=0.02, steps=8))
    other = done(pgd(module, images, labels, eps=0.02, steps=8))
    assert torch.equal(one.success, other.success) and 0 < one.success.sum() < 20
    torch.testing.assert_close(one.images, other.images, atol=1e-3, rtol=0)
