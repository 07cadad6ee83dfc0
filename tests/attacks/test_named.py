"""Attacks chosen by name, and the option of going on after success."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planes import bent, done, noise, seen

from phosphene.attacks import ATTACKS, attack, bim, mi_fgsm, ni_fgsm, pgd
from phosphene.errors import PhospheneError

EPS = {"linf": 0.3, "l2": 4.0}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_runs_by_its_name_and_stays_in_the_ball(name: str) -> None:
    module, images = bent(3), noise(6, 3)
    labels = seen(module, images)
    for norm in ATTACKS[name].norms:
        steps = None if ATTACKS[name].counted is None else 20
        found = done(attack(name, module, images, labels, eps=EPS[norm], norm=norm, steps=steps))
        size = found.linf if norm == "linf" else found.l2
        assert bool((size[found.success] <= EPS[norm] + 1e-5).all())
        assert float(found.success.double().mean()) >= 0.5  # the ball is wide for this network


def test_the_steps_given_are_the_steps_taken() -> None:
    module, images = bent(), noise(4)
    labels = seen(module, images)
    for steps in (3, 7):  # nothing is fooled in a ball without extent
        found = done(attack("pgd", module, images, labels, eps=0.0, steps=steps))
        assert found.backwards.tolist() == [steps] * 4
    queries = done(attack("square", module, images, labels, eps=0.0, steps=12))
    assert int(queries.forwards.max()) <= 12 + 3


def test_those_that_look_for_the_smallest_change_need_no_radius() -> None:
    module, images = bent(), noise(4)
    labels = seen(module, images)
    for name, one in ATTACKS.items():
        if one.smallest:
            found = done(attack(name, module, images, labels, eps=None, steps=30))
            assert bool(found.success.all()), name
        else:
            with pytest.raises(PhospheneError, match=f"{name} needs a radius: give --eps, such as 2/255"):
                done(attack(name, module, images, labels, eps=None))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgdd", {}, r"there is no attack 'pgdd'; did you mean pgd"),
        ("deepfool", {"norm": "linf"}, "deepfool measures in l2, not in linf"),
        ("pgd", {"norm": "l1"}, "pgd measures in linf or l2, not in l1"),
        ("fgsm", {"steps": 3}, "fgsm takes one step"),
        ("square", {"targets": [0, 0]}, "square can't be told which class to reach; these can: fgsm, bim"),
    ],
)
def test_what_an_attack_cannot_be_asked_for(name: str, options: dict[str, Any], message: str) -> None:
    module, images = bent(), noise(2)
    with pytest.raises(PhospheneError, match=message):
        done(attack(name, module, images, seen(module, images), eps=0.1, **options))


@pytest.mark.parametrize("method", [pgd, bim, mi_fgsm, ni_fgsm])
def test_an_exhausted_attack_takes_all_steps_and_ends_surer(method: Any) -> None:
    module, images = bent(3), noise(8, 3)
    labels = seen(module, images)
    first = done(method(module, images, labels, eps=0.3, steps=10))
    whole = done(method(module, images, labels, eps=0.3, steps=10, exhaust=True))
    assert bool((whole.success >= first.success).all())
    assert bool((whole.linf <= 0.3 + 1e-6).all())
    assert whole.backwards.tolist() == [10] * 8
    assert int(first.backwards.sum()) < 80
    rows = torch.arange(8)
    with torch.no_grad():
        sure, unsure = (module(found.images).softmax(1)[rows, labels] for found in (whole, first))
    assert bool((sure <= unsure + 1e-6).all())
    assert float(sure.mean()) < 0.7 * float(unsure.mean())
