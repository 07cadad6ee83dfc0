"""Groups of parameters, and how their rates move."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pupils import Pupil, pupil

from phosphene.training.optimiser import optimiser, schedule, set_rates
from phosphene.training.parts import part
from phosphene.training.probe import with_classes
from phosphene.training.settings import FinetuneSettings

SETTINGS = FinetuneSettings(rate=1e-3, head_rate=3.0, decay=0.5, weight_decay=0.05)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_rates_by_depth_and_decay_by_dimension(name: str) -> None:
    network = with_classes(pupil(), ["a", "b"], "top.2", 16)
    made = optimiser(network.module, part(network, "all").parameters, replace(SETTINGS, optimiser=name))  # pyright: ignore
    assert isinstance(made, torch.optim.SGD if name == "sgd" else torch.optim.AdamW)
    names = {id(p): n for n, p in network.module.named_parameters()}
    wanted = {"fc": 3e-3, "top": 1e-3, "body": 5e-4, "stem": 2.5e-4}
    seen: list[str] = []
    for group in made.param_groups:
        for parameter in group["params"]:
            mine = names[id(parameter)]
            seen.append(mine)
            assert group["lr"] == group["peak"] == pytest.approx(wanted[mine.split(".")[0]])
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)
        if name == "sgd":
            assert group["momentum"] == 0.9
    assert sorted(seen) == sorted(names.values())


def test_others_are_frozen() -> None:
    module = Pupil()
    made = optimiser(module, {"fc.weight": 0, "fc.bias": 0, "top.0.bias": 1}, SETTINGS)
    assert {n for n, p in module.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias", "top.0.bias"}
    assert sum(len(group["params"]) for group in made.param_groups) == 3


def test_the_order_of_groups_does_not_hang_on_the_order_of_names() -> None:
    module = Pupil()
    depths = {"fc.weight": 0, "fc.bias": 0, "top.0.weight": 1, "stem.0.weight": 3}
    one = optimiser(module, depths, SETTINGS)
    two = optimiser(module, dict(reversed(depths.items())), SETTINGS)
    assert [[p.shape for p in g["params"]] for g in one.param_groups] == [
        [p.shape for p in g["params"]] for g in two.param_groups
    ]


def test_weights_decay_and_biases_do_not() -> None:
    """Without gradients of any size AdamW multiplies weights by 1 - rate * decay, and leaves the rest."""
    module = Pupil()
    depths = {name: 1 for name, _ in module.named_parameters()}
    made = optimiser(module, depths, replace(SETTINGS, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    for name, parameter in module.named_parameters():
        factor = 1 - 1e-3 * 0.5 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-6, atol=0)


def test_set_rates() -> None:
    made = optimiser(Pupil(), {"fc.weight": 0, "top.0.weight": 1}, SETTINGS)
    for factor in (0.5, 0.1, 1.0):
        set_rates(made, factor)
        assert [group["lr"] for group in made.param_groups] == pytest.approx([3e-3 * factor, 1e-3 * factor])


@given(steps=st.integers(1, 400), warmup=st.floats(0, 0.99))
def test_rates_rise_and_fall(steps: int, warmup: float) -> None:
    factors = [schedule(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    rising = round(warmup * steps)
    assert all(a < b for a, b in pairwise(factors[: rising + 1]))
    assert all(a > b for a, b in pairwise(factors[rising:]))
    if rising < steps:
        assert factors[rising] == 1.0
        assert factors[-1] == pytest.approx(math.sin(math.pi / 2 / (steps - rising)) ** 2)  # near 0 after many steps
    for step in range(rising):
        assert factors[step] == pytest.approx((step + 1) / (rising + 1))


def test_some_factors() -> None:
    assert schedule(0, 1, 0.0) == 1.0
    assert [schedule(step, 4, 0.0) for step in range(4)] == pytest.approx([1, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert [schedule(step, 10, 0.2) for step in range(3)] == pytest.approx([1 / 3, 2 / 3, 1])
    assert schedule(99, 100, 0.1) < 1e-3
