"""AutoAttack: who goes into which stage, what is counted, and the figures of two known networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import bent, done, noise, plane, seen
from torch import Tensor

from phosphene.attacks import autoattack
from phosphene.attacks.apgd import apgd, apgd_targeted
from phosphene.attacks.autoattack import STAGES, standard
from phosphene.attacks.ball import Norm
from phosphene.attacks.fab import fab_targeted
from phosphene.attacks.square import square
from phosphene.errors import PhospheneError
from phosphene.models import load
from phosphene.progress import Started, run

SHORT: dict[str, Any] = {"steps": 6, "queries": 40}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Tensor, dict]]:
    """What each stage was asked to attack."""
    found: list[tuple[str, Tensor, dict]] = []

    def noted(name: str, attack: Callable) -> Callable:
        def stage(network, images: Tensor, labels: Tensor, **options):
            found.append((name, images, options))
            return attack(network, images, labels, **options)

        return stage

    monkeypatch.setattr(autoattack, "STAGES", {name: noted(name, attack) for name, attack in STAGES.items()})
    return found


def test_each_stage_gets_what_is_still_robust(calls: list) -> None:
    module, images = bent(), noise(24)
    labels = seen(module, images)
    labels[5] = (labels[5] + 1) % 4
    eps = torch.linspace(0.005, 0.04, 24)
    found = done(standard(module, images, labels, eps=eps, seed=3, **SHORT))
    assert [name for name, _, _ in calls] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert [stage.name for stage in found.stages] == [name for name, _, _ in calls]
    left = 23
    for stage, (_, given, options) in zip(found.stages, calls):
        assert stage.attacked == len(given) == len(options["eps"]) == left
        assert not any(torch.equal(one, images[5]) for one in given)
        left -= stage.fooled
        assert stage.accuracy == pytest.approx(left / 24)
    assert found.clean == pytest.approx(23 / 24)
    assert found.result.accuracy == found.stages[-1].accuracy
    assert 0 < found.result.success.sum() < 23
    assert (found.result.linf <= eps + 1e-6).all()
    assert found.result.wrong.nonzero().tolist() == [[5]] and not found.result.success[5]
    assert torch.equal(seen(module, found.result.images), found.result.predicted)


def test_the_worst_case_is_that_of_the_attacks_alone() -> None:
    module, images = bent(double=True), noise(20).double()
    labels = seen(module, images)
    found = done(standard(module, images, labels, eps=0.02, **SHORT)).result
    worst = torch.zeros(20, dtype=torch.bool)
    for attack, steps in ((apgd, 6), (apgd_targeted, 6), (fab_targeted, 6), (square, 40)):
        worst |= done(attack(module, images, labels, eps=0.02, steps=steps)).success
    assert torch.equal(found.success, worst)


def test_no_pass_is_forgotten() -> None:
    module, images = bent(), noise(10)
    labels = seen(module, images)
    module.seen.clear()
    found = done(standard(module, images, labels, eps=0.02, **SHORT))
    assert found.result.forwards.sum() == sum(module.seen)
    assert (found.result.backwards[~found.result.success] > 6).all()


def test_stages_can_be_chosen(calls: list) -> None:
    module, images = bent(), noise(6)
    found = done(standard(module, images, seen(module, images), eps=0.005, stages=["square", "apgd-ce"], **SHORT))
    assert [name for name, _, _ in calls] == [stage.name for stage in found.stages] == ["square", "apgd-ce"]


def test_stages_without_images_are_reported_too(calls: list) -> None:
    module, images = plane((1, 8, 8)), noise(5)
    found = done(standard(module, images, seen(module, images), eps=0.5, **SHORT))
    assert [stage.attacked for stage in found.stages] == [5, 0, 0, 0]
    assert len(calls) == 1 and found.result.accuracy == 0 and found.result.success.all()


def test_success_is_what_the_network_says_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    # A stage that lies: it says that it has fooled what it hasn't touched.
    from dataclasses import replace

    def liar(network, images, labels, **options):
        found = yield from square(network, images, labels, eps=0.0, steps=1)
        return replace(found, success=torch.ones_like(found.success))

    monkeypatch.setattr(autoattack, "STAGES", STAGES | {"apgd-ce": liar})
    module, images = bent(), noise(4)
    found = done(standard(module, images, seen(module, images), eps=0.1, stages=["apgd-ce"]))
    assert found.stages[0].fooled == 4 and not found.result.success.any() and found.result.accuracy == 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_neighbours_do_not_matter(norm: Norm) -> None:
    module, images = bent(double=True), noise(9).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": 0.02 if norm == "linf" else 0.1, "norm": norm, "seed": 4, **SHORT}
    whole = done(standard(module, images, labels, **options)).result
    for batch in ([0], [8, 2, 5], [*reversed(range(9))]):
        part = done(standard(module, images[batch], labels[batch], **options)).result
        assert torch.equal(part.success, whole.success[batch])
        torch.testing.assert_close(part.images, whole.images[batch], atol=1e-6, rtol=0)


def test_networks_of_this_library_and_two_classes() -> None:
    module, images = bent(3, classes=2), noise(8, 3)
    network = load(module, device="cpu", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    labels = seen(module, images)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :6] = 1
    options: dict[str, Any] = {"eps": 8 / 255, "mask": mask, "quantize": True, "keys": [*"abcdefgh"], **SHORT}
    found = done(standard(network, images, labels, **options)).result
    assert torch.equal((found.images * 255).round() / 255, found.images)
    assert torch.equal(found.images[..., 6:], images[..., 6:])
    assert torch.equal(seen(module, found.images), found.predicted)


def test_events_name_the_stages() -> None:
    module, images = bent(), noise(3)
    events: list = []
    run(standard(module, images, seen(module, images), eps=0.0, **SHORT), events.append)
    assert [event.what for event in events if isinstance(event, Started)] == ["apgd-ce", "apgd-t", "fab-t", "square"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stages": ["pgd"]}, "unknown stage 'pgd'"), ({"steps": 0}, "steps"), ({"queries": 0}, "queries")],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        done(standard(bent(), noise(1), torch.tensor([0]), eps=0.1, **options))


@pytest.mark.shared
def test_figures_on_mnist(shared: Path) -> None:
    images, labels = digits(shared, 60)
    clean = done(standard(lenet(shared, "cln"), images, labels, eps=0.3))
    assert clean.result.accuracy == 0 and clean.stages[0].accuracy == 0
    # Weaker than the standard, to be quick; the whole of it leaves 92% of these 60.
    hardened = done(standard(lenet(shared, "adv"), images, labels, eps=0.3, steps=15, queries=60, classes=2))
    assert 0.9 <= hardened.result.accuracy <= 0.97
    assert [stage.accuracy for stage in hardened.stages] == sorted((s.accuracy for s in hardened.stages), reverse=True)


def test_patience_only_spares_passes() -> None:
    module, images = bent(double=True), noise(30).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": 0.02, "steps": 40, "queries": 200}
    whole = done(standard(module, images, labels, patience=None, **options)).result
    quick = done(standard(module, images, labels, **options)).result
    assert (whole.success | ~quick.success).all()  # nobody is fooled who wasn't
    torch.testing.assert_close(quick.images[quick.success], whole.images[quick.success], atol=1e-6, rtol=0)
    assert (quick.success == whole.success).double().mean() > 0.9
    stood = ~whole.success
    assert stood.any() and quick.forwards[stood].sum() < 0.6 * whole.forwards[stood].sum()


@pytest.mark.parametrize("attack", [apgd_targeted, fab_targeted, square])
def test_hopeless_images_leave_their_run(attack: Callable) -> None:
    module, images = plane((1, 8, 8), classes=3), noise(6)
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": 1e-3, "steps": 60}
    found = done(attack(module, images, labels, patience=2.0, **options))
    whole = done(attack(module, images, labels, **options))
    assert not whole.success.any() and not found.success.any()
    assert (found.forwards < 0.6 * whole.forwards).all()
    with pytest.raises(PhospheneError, match="patience"):
        done(attack(module, images, labels, patience=0.0, **options))
