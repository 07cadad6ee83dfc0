"""Universal perturbations: against the slow way, where the best one is known, and on images that they have never seen."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lenet import digits, lenet
from planes import Bent, bent, done, greys, noise, plane, seen
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene import images as pictures
from phosphene.attacks import Norm, Universal, universal
from phosphene.attacks.universal import fooling_rate
from phosphene.errors import LabelError, NetworkError, PhospheneError
from phosphene.models import Network, Preprocess
from phosphene.progress import Started, Step, run

each_norm = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.8)])


def half_right(module: nn.Module, images: Tensor, classes: int = 4) -> Tensor:
    """Labels `[N]`, of which every second one is not what the network sees."""
    labels = seen(module, images)
    labels[1::2] = (labels[1::2] + 1) % classes
    return labels


def slow(
    module: nn.Module, images: Tensor, labels: Tensor, eps: float, norm: str, steps: int, target: int | None
) -> tuple[Tensor, int]:
    """The change after some steps with all images in each, by autograd through the clamping; and how often a loss ended."""
    change, ended = torch.zeros_like(images[0]), 0
    for step in range(steps):
        leaf = change.clone().requires_grad_()
        logits = module((images + leaf).clamp(0, 1))
        if target is None:
            loss = F.cross_entropy(logits, labels, reduction="none")
            ended += int((loss > 9).sum())
            loss = loss.clamp(max=9)
        else:
            loss = -F.cross_entropy(logits, torch.full_like(labels, target), reduction="none")
        (slope,) = torch.autograd.grad(loss.sum(), leaf)
        unit = slope.sign() if norm == "linf" else slope / slope.norm()
        change = change + 0.5 * eps * (1 - step / steps) * unit
        change = change.clamp(-eps, eps) if norm == "linf" else change * min(1.0, eps / float(change.norm()))
    return change, ended


@each_norm
@pytest.mark.parametrize("target", [None, 2])
def test_against_the_slow_way(norm: Norm, eps: float, target: int | None) -> None:
    module = bent(double=True)
    module.fc.weight.data *= 6
    module.fc.bias.data *= 6
    images = (0.01 + 0.98 * noise(24)).double()  # what the slope is of an image that is black already, is a convention
    kept = seen(module, images) != (-1 if target is None else target)
    images, labels = images[kept], seen(module, images)[kept]
    found = done(universal(module, images, labels, eps=eps, norm=norm, passes=6, together=99, targets=target))
    expected, ended = slow(module, images, labels, eps, norm, 6, target)
    assert found.perturbation.dtype == torch.float64
    torch.testing.assert_close(found.perturbation, expected, atol=1e-9, rtol=0)
    assert target is not None or ended > 0


def test_on_a_plane_it_is_the_best_there_is() -> None:
    # Two classes, all images of one: the best change is eps sign(w) for linf, and eps w / |w| for l2.
    module = plane((3, 10, 6), classes=2)
    images = greys((3, 10, 6), 60)
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    label = int(seen(module, images).mode().values)
    images = images[seen(module, images) == label]
    labels = torch.full((len(images),), label)
    slope = (weights[1 - label] - weights[label]).view(3, 10, 6)
    flat = done(universal(module, images, labels, eps=0.02, together=8))
    torch.testing.assert_close(flat.perturbation, 0.02 * slope.sign(), atol=1e-6, rtol=0)
    short = done(universal(module, images, labels, eps=0.2, norm="l2", together=8))
    torch.testing.assert_close(short.perturbation, 0.2 * slope / slope.norm(), atol=1e-4, rtol=0)


@each_norm
@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_it_stays_in_the_ball(norm: Norm, eps: float, quantize: bool, double: bool) -> None:
    module, images = bent(3, double=double), noise(20, 3).to(torch.float64 if double else torch.float32)
    images[::3] = images[::3].round()  # black and white: clamping has something to do
    labels, eps = half_right(module, images), eps * 1.03
    found = done(universal(module, images, labels, eps=eps, norm=norm, together=4, passes=4, quantize=quantize))
    change = found.perturbation
    size = change.abs().max() if norm == "linf" else change.norm()
    assert 0.5 * eps < float(size) <= eps + 1e-6
    applied = found.apply(images)
    assert applied.dtype == images.dtype and applied.min() >= 0 and applied.max() <= 1
    torch.testing.assert_close(applied, (images + change).clamp(0, 1), atol=1e-6, rtol=0)
    result = found.result
    assert torch.equal(result.images[~result.wrong], applied[~result.wrong])
    assert ((result.linf if norm == "linf" else result.l2) <= eps + 1e-6).all() and (result.l2[~result.wrong] > 0).all()
    if quantize:
        torch.testing.assert_close((change * 255).round() / 255, change, atol=1e-7, rtol=0)
        assert torch.equal(pictures.quantize(applied).to(applied), applied)
    assert found.picture.shape == (1, 3, 8, 8) and found.picture.min() >= 0 and found.picture.max() <= 1


def test_images_that_are_wrong_already_do_not_count() -> None:
    module, images = bent(), noise(20)
    labels = half_right(module, images)
    whole = done(universal(module, images, labels, eps=0.05, together=4))
    right = done(universal(module, images[::2], labels[::2], eps=0.05, together=4))
    assert torch.equal(whole.perturbation, right.perturbation)
    assert whole.result.wrong.tolist() == [False, True] * 10
    assert torch.equal(whole.result.images[1::2], images[1::2]) and not whole.result.success[1::2].any()
    fooled = seen(module, right.apply(images[::2])) != labels[::2]
    assert whole.rate == right.rate == float(fooled.double().mean()) and 0 < whole.rate < 1


def test_neither_order_nor_other_draws_matter_but_the_seed_does() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    order = torch.randperm(12)
    torch.manual_seed(99)
    one = done(universal(module, images, labels, eps=0.05, together=3, seed=4))
    other = done(universal(module, images[order], labels[order], eps=0.05, together=3, seed=4))
    assert torch.equal(one.perturbation, other.perturbation)
    assert torch.equal(one.result.images[order], other.result.images)
    apart = done(universal(module, images, labels, eps=0.05, together=3, seed=5))
    assert not torch.equal(one.perturbation, apart.perturbation)
    keyed = [done(universal(module, images, labels, eps=0.05, together=3, keys=range(k, k + 12))) for k in (0, 0, 50)]
    assert torch.equal(keyed[0].perturbation, keyed[1].perturbation)
    assert not torch.equal(keyed[0].perturbation, keyed[2].perturbation)


def test_every_pass_is_counted() -> None:
    module, images = bent(), noise(14)
    labels = half_right(module, images)
    module.seen.clear()
    events: list[object] = []
    found = run(universal(module, images, labels, eps=0.05, passes=3, together=3), events.append)
    assert sum(module.seen) == int(found.result.forwards.sum())
    assert found.result.forwards.tolist() == [5, 2] * 7  # first look, 3 passes, the last image
    assert found.result.backwards.tolist() == [3, 0] * 7
    assert sorted(module.seen[1:-1]) == [2, 2, 2, 2, 2, 2, 3, 3, 3]  # no batch is much smaller than another
    assert events[0] == Started("universal", 9)
    assert [event.done for event in events if isinstance(event, Step)] == list(range(1, 10))


def test_probabilities_are_attacked_by_their_logarithms() -> None:
    module, images = bent(double=True), noise(12).double()
    labels = seen(module, images)
    plain = done(universal(module, images, labels, eps=0.4, norm="l2"))
    soft = nn.Sequential(module, nn.Softmax(1))
    found = done(universal(soft, images, labels, eps=0.4, norm="l2", probabilities=True))
    torch.testing.assert_close(found.perturbation, plain.perturbation, atol=1e-9, rtol=0)
    assert torch.equal(found.on(soft, images, labels, probabilities=True).success, plain.result.success)


def test_the_network_is_left_as_it_was() -> None:
    module, images = bent(), noise(6)
    labels = seen(module, images)
    module.train()
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    before = copy.deepcopy(module.state_dict())
    job = universal(module, images, labels, eps=0.05)
    next(job)
    next(job)
    job.close()
    done(universal(module, images, labels, eps=0.05))
    assert module.training and module.drop.training and all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.conv.weight.grad is None and (module.fc.weight.grad == 1).all()


class Rounded(Bent):
    """Its gradients are 0 everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x * 255).round() / 255)


def test_what_can_not_be_used_is_one_clear_line() -> None:
    module, images = bent(), noise(4)
    labels = seen(module, images)
    wrong = (labels + 1) % 4
    bad: list[tuple[type[Exception], str, dict]] = [
        (PhospheneError, "eps is in units", {"eps": 8}),
        (PhospheneError, "eps is one number", {"eps": torch.full((4,), 0.1)}),
        (PhospheneError, "unknown norm", {"norm": "l1"}),
        (PhospheneError, "passes start at 1", {"passes": 0}),
        (PhospheneError, "images together start at 1", {"together": 0}),
        (PhospheneError, "a step is a number above 0", {"step": math.nan}),
        (PhospheneError, "wrong about all 4 images", {"labels": wrong}),
        (LabelError, "the class to reach is one whole number", {"targets": [1, 2, 3, 0]}),
        (LabelError, "classes 0 to 3, but 9", {"targets": 9}),
        (LabelError, "already, its target", {"targets": int(labels[0])}),
        (NetworkError, "no gradient", {"network": Rounded().eval()}),
    ]
    for kind, message, options in bad:
        given = {"network": module, "images": images, "labels": labels, "eps": 0.1, **options}
        with pytest.raises(kind, match=message) as raised:
            done(universal(given.pop("network"), given.pop("images"), given.pop("labels"), **given))
        assert "\n" not in str(raised.value)
    found = done(universal(module, images, labels, eps=0.1))
    with pytest.raises(PhospheneError, match=r"is for images \[N, 1, 8, 8\], got \[2, 1, 9, 8\]"):
        found.apply(torch.rand(2, 1, 9, 8))
    assert math.isnan(fooling_rate(found.on(module, images, wrong)))


def of_noise(found: Universal, norm: str) -> Universal:
    """Random noise that is as large as the perturbation: a corner of the cube, or a random direction."""
    drawn = torch.randn(found.perturbation.shape, generator=torch.Generator().manual_seed(2))
    size = found.perturbation.abs().max() if norm == "linf" else found.perturbation.norm()
    return replace(found, perturbation=size * (drawn.sign() if norm == "linf" else drawn / drawn.norm()))


@pytest.mark.shared
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.3), ("l2", 5.0)])
@pytest.mark.parametrize("target", [None, 3])
def test_digits_that_it_has_never_seen_are_fooled(shared: Path, norm: Norm, eps: float, target: int | None) -> None:
    module = lenet(shared)
    images, labels = digits(shared, 600)
    kept = labels != (-1 if target is None else target)
    images, labels = images[kept], labels[kept]
    half = len(images) // 2
    found = done(universal(module, images[:half], labels[:half], eps=eps, norm=norm, targets=target))
    others = images[half:], labels[half:]
    rate = fooling_rate(found.on(module, *others))
    control = fooling_rate(of_noise(found, norm).on(module, *others))
    assert found.rate > 0.65
    assert rate > 0.6 and abs(rate - found.rate) < 0.12
    assert control < rate / 3


@pytest.mark.shared
def test_photographs_that_it_has_never_seen_become_corals(shared: Path, squeezenet: Network) -> None:
    files = sorted((shared / "data" / "imagenet_samples").glob("*.jpg"))[::5]
    photos = torch.cat([Preprocess((224, 224), 256)(pictures.read(file)) for file in files])
    labels = torch.tensor([int(file.name[:3]) for file in files])
    right = torch.cat([squeezenet.logits(part).argmax(1) for part in squeezenet.split(photos)]) == labels
    photos, labels = photos[right], labels[right]
    fit, others = (photos[::2], labels[::2]), (photos[1::2], labels[1::2])
    found = done(universal(squeezenet, *fit, eps=16 / 255, passes=8, together=8, targets=109, quantize=True))
    rate = fooling_rate(found.on(squeezenet, *others))
    control = fooling_rate(of_noise(found, "linf").on(squeezenet, *others))
    assert found.rate > 0.8
    assert rate >= 0.2 and control <= 0.05
