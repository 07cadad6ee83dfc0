"""Where each image falls: against separate attacks at each radius, and against boundaries that are known exactly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import bent, done, greys, nearest_boundary, noise, plane, seen
from torch import Tensor, nn

from phosphene.attacks import Curve, Norm, attack, curve
from phosphene.errors import LabelError, NetworkError, PhospheneError
from phosphene.progress import Started, Step, run

LINF = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
L2 = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5)
NORMS: list[tuple[Norm, tuple[float, ...]]] = [("linf", LINF), ("l2", L2)]
each_norm = pytest.mark.parametrize(("norm", "eps"), NORMS)


def separate(module: nn.Module, images: Tensor, labels: Tensor, eps: tuple[float, ...], **options: Any) -> Tensor:
    """`[N]`, the number of the first radius at which an attack of its own has success; every image is attacked at each."""
    name = options.pop("attack", "pgd")
    falls = torch.full((len(images),), len(eps) + 1)
    for place in reversed(range(len(eps))):
        falls[done(attack(name, module, images, labels, eps=eps[place], **options)).success] = place + 1
    falls[seen(module, images) != labels] = 0
    return falls


def size(found: Curve, images: Tensor, norm: Norm) -> Tensor:
    change = (found.images - images).flatten(1)
    return change.abs().amax(1) if norm == "linf" else change.norm(dim=1)


def check_pictures(module: nn.Module, found: Curve, images: Tensor, labels: Tensor, norm: Norm) -> None:
    """What is returned fools where it says so, inside the ball that it says, and is the original elsewhere."""
    radii = torch.tensor([0.0, *found.eps, 0.0], dtype=images.dtype)
    fallen = (found.falls > 0) & (found.falls <= len(found.eps))
    assert torch.equal(seen(module, found.images)[fallen] != labels[fallen], torch.ones_like(fallen[fallen]))
    assert torch.equal(found.images[~fallen], images[~fallen])
    assert (size(found, images, norm) <= radii[found.falls] + 2e-6).all()
    assert found.images.min() >= 0 and found.images.max() <= 1


# -- where the boundary is known ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pgd", "fgsm", "bim", "apgd", "mi-fgsm"])
def test_on_a_plane_each_image_falls_where_its_ball_reaches_the_boundary_linf(name: str) -> None:
    module, images = plane((3, 10, 6), classes=2), greys((3, 10, 6), 40)
    labels = seen(module, images)
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    rows, logits = torch.arange(40), module(images).detach()
    gap = (logits[rows, labels] - logits[rows, 1 - labels]) / (weights[0] - weights[1]).abs().sum()
    eps = torch.linspace(0, float(gap.max()) * 0.9, 9)[1:].tolist()
    wanted = 1 + torch.bucketize(gap, torch.tensor(eps))
    found = done(curve(module, images, labels, eps=eps, attack=name))
    assert found.falls.tolist() == wanted.tolist() and len(set(wanted.tolist())) >= 5
    check_pictures(module, found, images, labels, "linf")


@pytest.mark.parametrize("name", ["pgd", "fgsm", "deepfool", "carlini-wagner"])
def test_on_a_plane_each_image_falls_where_its_ball_reaches_the_boundary_l2(name: str) -> None:
    module, images = plane((1, 8, 8), classes=2), greys((1, 8, 8), 40)
    labels = seen(module, images)
    gap = nearest_boundary(module, images, labels)
    eps = torch.linspace(0, float(gap.max()) * 0.9, 8)[1:].tolist()
    clear = (gap[:, None] / torch.tensor(eps)[None] - 1).abs().amin(1) > 0.02  # an optimiser stops a little off
    found = done(curve(module, images, labels, eps=eps, norm="l2", attack=name))
    wanted = 1 + torch.bucketize(gap, torch.tensor(eps))
    assert found.falls[clear].tolist() == wanted[clear].tolist() and clear.sum() >= 30
    assert (found.falls - wanted)[~clear].abs().max() <= 1 if (~clear).any() else True
    check_pictures(module, found, images, labels, "l2")


def test_eight_bits_fall_where_whole_levels_reach_the_boundary() -> None:
    module, images = plane((3, 10, 6), classes=2), (greys((3, 10, 6), 40) * 255).round() / 255
    labels = seen(module, images)
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    rows, logits = torch.arange(40), module(images).detach()
    gap = (logits[rows, labels] - logits[rows, 1 - labels]) / (weights[0] - weights[1]).abs().sum() * 255
    middle = int(gap.median())
    whole = torch.tensor([0, *(middle + step for step in (-3, -1, 0, 1, 3))])
    levels = (0.5, *(int(one) + part for one, part in zip(whole[1:], (0, 0.7, 0, 0, 0.2), strict=True)))
    found = done(curve(module, images, labels, eps=[one / 255 for one in levels], quantize=True))
    for radius, falls in zip(gap.tolist(), found.falls.tolist(), strict=True):
        assert falls == 1 + next((at for at, most in enumerate(whole.tolist()) if most > radius), len(levels))
    assert found.falls.min() >= 2 and len(found.falls.unique()) >= 5  # half a level moves nothing in a file
    assert torch.equal((found.images * 255).round() / 255, found.images)
    check_pictures(module, found, images, labels, "linf")


# -- against separate attacks -------------------------------------------------------------------------------------------


@each_norm
@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("name", ["pgd", "fgsm", "apgd"])
def test_it_is_as_strong_as_separate_attacks(norm: Norm, eps: tuple[float, ...], quantize: bool, name: str) -> None:
    module, images = bent(), noise(48)
    labels = seen(module, images)
    labels[::7] = (labels[::7] + 1) % 4
    options: dict[str, Any] = {"norm": norm, "quantize": quantize} | ({} if name == "fgsm" else {"steps": 20})
    found = done(curve(module, images, labels, eps=eps, attack=name, **options))
    slow = separate(module, images, labels, eps, attack=name, **options)
    assert (found.falls == 0).tolist() == (slow == 0).tolist() and (slow == 0).sum() == 7
    # It may find more than they do, by what it shrinks; next to never less.
    assert (found.falls <= slow).double().mean() >= 0.97 and (found.falls - slow).max() <= 1
    assert (found.falls - slow).abs().max() <= 2 and (found.falls == slow).double().mean() > 0.8
    assert len(set(slow.tolist())) >= 4
    check_pictures(module, found, images, labels, norm)


@pytest.mark.shared
@pytest.mark.parametrize(("kind", "norm", "eps"), [
    ("cln", "linf", (0.02, 0.05, 0.1, 0.15, 0.2)), ("adv", "linf", (0.1, 0.2, 0.3, 0.4)),
    ("cln", "l2", (0.5, 1.0, 1.5, 2.0)), ("adv", "l2", (0.5, 1.0, 2.0, 3.0)),
])  # fmt: skip
def test_mnist_against_separate_attacks(shared: Path, kind: str, norm: Norm, eps: tuple[float, ...]) -> None:
    module = lenet(shared, kind)
    images, labels = digits(shared, 48, start=100)
    found = done(curve(module, images, labels, eps=eps, norm=norm, steps=15))
    slow = separate(module, images, labels, eps, norm=norm, steps=15)
    accuracy = [float((slow > place).double().mean()) for place in range(len(eps) + 1)]
    assert found.accuracy[0] == accuracy[0] and accuracy[0] - accuracy[-1] >= (0.08 if kind == "adv" else 0.5)
    assert found.accuracy == pytest.approx(accuracy, abs=0.05)
    check_pictures(module, found, images, labels, norm)
    assert found.backwards.sum() < 0.6 * 15 * 48 * len(eps)  # what separate attacks may cost


# -- what it costs ------------------------------------------------------------------------------------------------------


@each_norm
def test_no_image_pays_for_two_attacks_without_success(
    norm: Norm, eps: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, images = bent(), noise(32)
    labels = seen(module, images)
    labels[3] = (labels[3] + 1) % 4
    asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def noted(name: str, network: nn.Module, given: Tensor, truth: Tensor, **options: Any) -> Any:
        found = yield from attack(name, network, given, truth, **options)
        asked.append((given, options["eps"], found.success))
        return found

    monkeypatch.setattr(sys.modules["phosphene.attacks.curve"], "run_attack", noted)  # a function has the module's name
    found = done(curve(module, images, labels, eps=eps, norm=norm, steps=12))
    tried: dict[int, list[tuple[float, bool]]] = {n: [] for n in range(32)}
    for given, radii, success in asked:
        for one, radius, hit in zip(given, radii.tolist(), success.tolist(), strict=True):
            tried[next(n for n in range(32) if torch.equal(images[n], one))].append((radius, hit))
    assert tried[3] == [] and found.falls[3] == 0
    for n, attempts in tried.items():
        radii = [radius for radius, _ in attempts]
        assert radii == sorted(radii, reverse=True) and len(set(radii)) == len(radii)  # downwards, each once
        assert sum(not hit for _, hit in attempts) <= 1 and not any(not hit for _, hit in attempts[:-1])
        place = int(found.falls[n])
        if place > 1:  # it isn't guessed: it has stood just below
            assert attempts[-1] == (pytest.approx(eps[min(place - 2, len(eps) - 1)]), False)
    assert any(len(attempts) > 1 for attempts in tried.values())


def test_no_pass_is_forgotten() -> None:
    module, images = bent(), noise(20)
    labels = seen(module, images)
    module.seen.clear()
    found = done(curve(module, images, labels, eps=LINF, steps=8))
    assert sum(module.seen) == int(found.forwards.sum())
    stands = found.falls == len(LINF) + 1
    assert (
        found.backwards[stands].unique().tolist() == [1 + 8] and stands.any()
    )  # one look along the gradient, one attack
    assert found.backwards.min() >= 1


def test_square_looks_for_no_gradient() -> None:
    module, images = bent(), noise(12)
    labels = seen(module, images)
    found = done(curve(module, images, labels, eps=LINF, attack="square", steps=60))
    assert not found.backwards.any() and 0 < found.accuracy[-1] < 1
    check_pictures(module, found, images, labels, "linf")


# -- what it returns ----------------------------------------------------------------------------------------------------


@each_norm
def test_accuracy_falls_and_counts_all_images(norm: Norm, eps: tuple[float, ...]) -> None:
    module, images = bent(), noise(40)
    labels = seen(module, images)
    labels[:10] = (labels[:10] + 1) % 4
    found = done(curve(module, images, labels, eps=eps, norm=norm, steps=10))
    assert found.accuracy[0] == 0.75 and len(found.accuracy) == len(eps) + 1
    assert list(found.accuracy) == sorted(found.accuracy, reverse=True) and found.accuracy[-1] < found.accuracy[0]
    falls = found.falls.tolist()
    assert [found.standing(place) for place in range(len(eps) + 1)] == [
        sum(one > place for one in falls) for place in range(len(eps) + 1)
    ]
    assert falls[:10] == [0] * 10 and found.backwards[:10].tolist() == [0] * 10
    assert torch.equal(found.images[:10], images[:10]) and torch.equal(found.labels, labels)


@each_norm
@pytest.mark.parametrize("quantize", [False, True])
def test_neighbours_and_their_order_do_not_matter(norm: Norm, eps: tuple[float, ...], quantize: bool) -> None:
    module, images = bent(double=True), noise(14).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": eps, "norm": norm, "steps": 9, "seed": 5, "quantize": quantize}
    whole = done(curve(module, images, labels, **options))
    for batch in ([4], [9, 2, 5, 0], [*reversed(range(14))]):
        part = done(curve(module, images[batch], labels[batch], **options))
        assert part.falls.tolist() == whole.falls[batch].tolist()
        torch.testing.assert_close(part.images, whole.images[batch], atol=1e-7, rtol=0)
        assert part.backwards.tolist() == whole.backwards[batch].tolist()
    again = done(curve(module, images, labels, **{**options, "eps": eps[::-1]}))  # in any order
    assert again.eps == eps and torch.equal(again.falls, whole.falls) and torch.equal(again.images, whole.images)


def test_a_seed_and_keys_decide_the_random_starts() -> None:
    module, images = bent(), noise(30)
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": LINF, "steps": 3}
    first = done(curve(module, images, labels, seed=1, **options))
    again = done(curve(module, images, labels, seed=1, **options))
    other = done(curve(module, images, labels, seed=2, **options))
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, other.images)
    keys = [f"k{n}" for n in range(30)]
    named = done(curve(module, images, labels, keys=keys, **options))
    part = done(curve(module, images[10:20], labels[10:20], keys=keys[10:20], **options))
    assert torch.equal(part.falls, named.falls[10:20]) and not torch.equal(named.images, first.images)


def test_what_is_misread_everywhere_costs_one_look() -> None:
    module, images = bent(), noise(6)
    found = done(curve(module, images, (seen(module, images) + 1) % 4, eps=LINF))
    assert found.accuracy == (0.0,) * 7 and found.forwards.tolist() == [1] * 6 and not found.backwards.any()


def test_a_module_is_given_back_as_it_was() -> None:
    module = bent().train()
    images = noise(8)
    labels = seen(bent(), images)
    one = done(curve(module, images, labels, eps=LINF, steps=5))
    assert module.training and module.drop.training and all(p.grad is None for p in module.parameters())
    assert torch.equal(one.falls, done(curve(bent(), images, labels, eps=LINF, steps=5)).falls)


def test_probabilities_are_attacked_through_their_logarithms() -> None:
    module, images = bent(), noise(20)
    labels = seen(module, images)
    soft = nn.Sequential(module, nn.Softmax(1)).eval()
    with pytest.raises(NetworkError, match="gives probabilities, not logits"):
        done(curve(soft, images, labels, eps=LINF))
    found = done(curve(soft, images, labels, eps=LINF, steps=10, probabilities=True))
    plain = done(curve(module, images, labels, eps=LINF, steps=10))
    assert (found.falls == plain.falls).double().mean() >= 0.9


def test_its_progress_counts_images_that_are_done() -> None:
    module, images = bent(), noise(10)
    events: list[object] = []
    run(curve(module, images, seen(module, images), eps=LINF, steps=4), events.append)
    steps = [event.done for event in events if isinstance(event, Step)]
    assert events[0] == Started("curve", 10, "image") and steps == sorted(steps) and steps[-1] == 10


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": []}, PhospheneError, "a curve needs a radius"),
        ({"eps": [0.0, 0.1]}, PhospheneError, "radii are above 0, got 0"),
        ({"eps": [-0.1, 0.1]}, PhospheneError, "radii are above 0, got -0.1"),
        ({"eps": [float("nan")]}, PhospheneError, "radii are above 0"),
        ({"eps": [0.1, 0.2, 0.1]}, PhospheneError, "one is given twice"),
        ({"eps": [1, 8]}, PhospheneError, "did you mean 8/255"),
        ({"eps": [0.1], "attack": "pdg"}, PhospheneError, "did you mean pgd"),
        ({"eps": [0.1], "attack": "deepfool"}, PhospheneError, "deepfool measures in l2"),
        ({"eps": [0.1], "attack": "fgsm", "steps": 3}, PhospheneError, "takes one step"),
        ({"eps": [0.1], "norm": "l1"}, PhospheneError, "linf or l2"),
        ({"eps": [0.0001], "steps": 0}, PhospheneError, "steps start at 1"),
        ({"eps": [0.1], "labels": [0, 1, 9]}, LabelError, "classes 0 to 3, but 9"),
        ({"eps": [0.1], "labels": [0, 1]}, LabelError, "2 labels for 3 images"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    module, images = bent(), noise(3)
    labels = options.pop("labels", seen(module, images))
    with pytest.raises(error, match=message):
        done(curve(module, images, labels, **options))


class Rounding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = bent()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 64).round() / 64)


def test_a_network_without_gradients_is_found_and_square_can_be_taken() -> None:
    module, images = Rounding().eval(), noise(10)
    labels = seen(module, images)
    with pytest.raises(NetworkError, match="attack it with Square"):
        done(curve(module, images, labels, eps=(0.05, 0.1)))
    found = done(curve(module, images, labels, eps=(0.05, 0.1), attack="square", steps=100))
    assert found.accuracy[-1] < 1
