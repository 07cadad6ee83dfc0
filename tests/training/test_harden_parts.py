"""The parts of robust training, each against a slow and obvious one written from its paper, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st
from pupils import values
from sparring import PLAIN, REFERENCES, Sparring, ball, divergence, learned_from, rounds
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.training.harden import METHODS, HardenSettings
from phosphene.training.harden.guard import ABOVE, FALLEN, LOOKS, MOST, Guard
from phosphene.training.harden.inner import anywhere, attacking, climb, cross_entropy, inside
from phosphene.training.harden.kept import LEVELS, Kept
from phosphene.training.harden.methods import LEARN, Lesson, price
from phosphene.training.harden.moves import FARTHEST, Moved
from phosphene.training.harden.settings import Method, Moves
from phosphene.training.split import Split
from phosphene.training.state import Progress

EPS, STEP = 0.08, 0.03


def lesson_of(method: Method, steps: int = 3, kept: bool = False, count: int = 4, seed: int = 0) -> Lesson:
    torch.manual_seed(seed)
    module = Sparring(norm=False).double()
    x = torch.rand((count, 1, 6, 6), dtype=torch.float64)
    x[0, 0, 0], x[0, 0, 1] = 0.0, 1.0  # at the ends of the range
    change = torch.empty_like(x).uniform_(-1.2 * EPS, 1.2 * EPS) if kept else None  # some of it outside the ball
    settings = HardenSettings(method=method, eps=EPS, beta=2.5)
    return Lesson(module, module, x, torch.arange(count) % 3, EPS, STEP, steps, settings, change)


def slopes(module: nn.Module, loss: Tensor) -> list[Tensor]:
    """By a backward pass, as in training."""
    module.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None]


# -- methods ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("steps", "kept"), [(1, False), (4, False), (2, True)])
def test_the_loss_and_its_gradient_are_the_papers(method: Method, steps: int, kept: bool) -> None:
    lesson = lesson_of(method, steps, kept)
    torch.manual_seed(7)
    loss, logits = LEARN[method](lesson)
    mine = slopes(lesson.module, loss)
    torch.manual_seed(7)
    other = lesson_of(method, steps, kept)
    torch.manual_seed(7)
    wanted, attacked, change = REFERENCES[method](other)
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)  # the last sum is in float32
    torch.testing.assert_close(logits.double(), other.module(attacked), rtol=1e-5, atol=1e-6)
    for found, right in zip(mine, slopes(other.module, wanted), strict=True):
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-6)
    if method in ("free", "atta"):
        assert lesson.change is not None and change is not None
        torch.testing.assert_close(lesson.change, change, rtol=1e-9, atol=1e-12)
        assert float(lesson.change.abs().max()) <= EPS + 1e-12
        assert not lesson.change.requires_grad
    else:
        assert lesson.change is None


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_is_that_of_finite_differences_at_the_attacked_pictures(method: Method) -> None:
    """Danskin: the attacked pictures are held where they are."""
    lesson = lesson_of(method)
    seen: list[Tensor] = []
    module = lesson.module

    def called(images: Tensor) -> Tensor:
        seen.append(images.detach())
        return module(images)

    lesson.called = called
    loss, _ = LEARN[method](lesson)
    weight = lesson.module.get_parameter("fc.weight")
    slope = torch.autograd.grad(loss, weight)[0]

    def value() -> float:
        with torch.no_grad():
            if method != "trades":
                return float(learned_from(lesson, seen[0]))
            plain, changed = module(seen[0]).chunk(2)
            apart = sum(float(divergence(p, q)) for p, q in zip(plain, changed, strict=True))
            return float(learned_from(lesson, lesson.x)) + lesson.settings.beta * apart

    assert len(seen) == 1
    for place in ((0, 3), (2, 77)):
        with torch.no_grad():
            weight[place] += 1e-6
            above = value()
            weight[place] -= 2e-6
            below = value()
            weight[place] += 1e-6
        assert float(slope[place]) == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_attack_finds_a_higher_loss(method: Method) -> None:
    lesson = lesson_of(method, steps=8)
    loss, logits = LEARN[method](lesson)
    if method == "trades":
        assert float(loss.detach()) > float(learned_from(lesson, lesson.x).detach())
    elif method == "free":
        begun = float(loss.detach())
        loss.backward()  # the change is known after the same pass
        assert lesson.change is not None
        assert float(learned_from(lesson, lesson.x + lesson.change).detach()) > begun
    else:
        assert float(loss.detach()) > float(learned_from(lesson, lesson.x).detach())
    assert logits.shape == (4, 3)


def test_frees_change_comes_with_the_backward_pass_alone() -> None:
    lesson = lesson_of("free")
    calls = counted(lesson.module)
    loss, _ = LEARN["free"](lesson)
    assert lesson.change is None and len(calls) == 1
    loss.backward()
    assert lesson.change is not None and len(calls) == 1


def counted(module: nn.Module) -> list[tuple[int, bool, bool]]:
    """Of each forward pass: pictures, whether in training mode, whether with gradients."""
    calls: list[tuple[int, bool, bool]] = []
    module.register_forward_hook(lambda m, args, _: calls.append((len(args[0]), m.training, torch.is_grad_enabled())))
    return calls


def test_trades_asks_for_the_natural_answers_once() -> None:
    lesson = lesson_of("trades", steps=5)
    lesson.module.train()
    calls = counted(lesson.module)
    LEARN["trades"](lesson)
    assert calls == [(4, False, False), *[(4, False, True)] * 5, (8, True, True)]


def test_trades_gradient_is_a_number_where_the_network_is_sure() -> None:
    """float32's softmax is 0 from a difference of 104 on."""
    lesson = lesson_of("trades", steps=1)
    with torch.no_grad():
        lesson.module.get_parameter("fc.bias").copy_(torch.tensor([0.0, 150.0, 0.0]))
    lesson = replace(lesson, module=lesson.module.float(), called=lesson.module.float(), x=lesson.x.float())
    loss, _ = LEARN["trades"](lesson)
    assert math.isfinite(float(loss.detach()))
    assert all(bool(torch.isfinite(slope).all()) for slope in slopes(lesson.module, loss))


@pytest.mark.parametrize("method", ["free", "atta"])  # others start at random
@pytest.mark.parametrize("count", [1, 7])
def test_each_picture_is_attacked_as_if_alone(method: Method, count: int) -> None:
    """A batch is no more than its pictures: the sum over them is the same, however they are put together."""
    whole = lesson_of(method, count=count, kept=True)
    loss, _ = LEARN[method](whole)
    parts = 0.0
    assert whole.kept is not None
    for place in range(count):
        cut = slice(place, place + 1)
        one = replace(whole, x=whole.x[cut], labels=whole.labels[cut], kept=whole.kept[cut], change=None)
        parts += float(LEARN[method](one)[0].detach())
    assert float(loss.detach()) == pytest.approx(parts, rel=1e-6)


# -- the inner loop ---------------------------------------------------------------------------------------------


@trials(max_examples=30, deadline=None)
@given(
    eps=st.floats(0.001, 0.49), step=st.floats(0.0005, 2.0), steps=st.integers(1, 6), seed=st.integers(0, 99),
    far=st.booleans(),
)  # fmt: skip
def test_it_stays_in_the_ball_and_in_the_range(eps: float, step: float, steps: int, seed: int, far: bool) -> None:
    torch.manual_seed(seed)
    module, x = Sparring(), torch.rand(3, 1, 6, 6).round(decimals=1)
    start = x + 3 * torch.randn_like(x) if far else anywhere(x, eps)
    found = climb(module, x, start, cross_entropy(torch.arange(3)), eps=eps, step=step, steps=steps)
    assert float((found - x).abs().max()) <= eps + 1e-6
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert not found.requires_grad and found.dtype == torch.float32


@pytest.mark.parametrize("eps", [0.001, 8 / 255, 0.3, 0.49])
def test_a_start_is_anywhere_in_the_ball(eps: float) -> None:
    x = torch.full((1, 1, 100, 100), 0.5)
    start = anywhere(x, eps) - x
    assert float(start.min()) < -0.98 * eps and float(start.max()) > 0.98 * eps
    assert float(start.abs().max()) <= eps + 1e-6
    assert abs(float(start.mean())) < 0.05 * eps
    for end in (torch.zeros(1, 1, 50, 50), torch.ones(1, 1, 50, 50)):
        assert float(anywhere(end, eps).min()) >= 0 and float(anywhere(end, eps).max()) <= 1


def test_inside_is_the_nearest_point() -> None:
    x, point = torch.rand(2, 1, 6, 6, dtype=torch.float64), torch.randn(2, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(inside(point, x, 0.2), ball(point, x, 0.2))


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Fails where modes, buffers, weights, `requires_grad` or gradients are different afterwards."""
    modes = {name: child.training for name, child in module.named_modules()}
    before = values(module)
    grads = {name: (p.grad, None if p.grad is None else p.grad.clone(), p.requires_grad) for name, p in
             module.named_parameters()}  # fmt: skip
    yield
    assert modes == {name: child.training for name, child in module.named_modules()}
    assert all(torch.equal(value, before[name]) for name, value in values(module).items())
    for name, parameter in module.named_parameters():
        same, copy, needs = grads[name]
        assert parameter.grad is same and parameter.requires_grad == needs
        assert copy is None or torch.equal(copy, same)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("graded", [False, True])
def test_it_leaves_modes_running_means_and_gradients_alone(graded: bool) -> None:
    module = Sparring(norm=True, drop=0.5).train()
    module.norm.eval()  # one that its owner had frozen
    module.conv.weight.requires_grad_(False)
    x = torch.rand(4, 1, 6, 6)
    if graded:
        module(x).sum().backward()
    with untouched(module):
        climb(module, x, x, cross_entropy(torch.zeros(4, dtype=torch.int64)), eps=0.1, step=0.1, steps=2)


@pytest.mark.parametrize("method", METHODS)
def test_a_lesson_leaves_gradients_alone_until_its_backward_pass(method: Method) -> None:
    module = Sparring(norm=True, drop=0.5).train()
    module.norm.eval()
    lesson = replace(
        lesson_of(method), module=module, called=module, x=torch.rand(4, 1, 6, 6), kept=torch.zeros(4, 1, 6, 6)
    )
    with untouched(module):
        LEARN[method](lesson)


def test_the_attack_is_not_blinded_by_dropout() -> None:
    module, x = Sparring(drop=0.9).train(), torch.rand(4, 1, 6, 6)
    up = cross_entropy(torch.arange(4) % 3)
    one = climb(module, x, x, up, eps=0.1, step=0.03, steps=4)
    assert torch.equal(one, climb(module, x, x, up, eps=0.1, step=0.03, steps=4)) and module.drop.training


def test_modes_come_back_after_a_failure() -> None:
    module = Sparring(norm=True).train()
    module.norm.eval()

    def fails(_logits: Tensor) -> Tensor:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        climb(module, torch.rand(1, 1, 6, 6), torch.rand(1, 1, 6, 6), fails, eps=0.1, step=0.1, steps=1)
    assert module.training and module.conv.training and not module.norm.training
    with attacking(module):
        assert not any(child.training for child in module.modules())


# -- moves ------------------------------------------------------------------------------------------------------


def numbered(count: int, height: int = 24, width: int = 24) -> Tensor:
    """Pictures without a single 0, no two pixels alike."""
    return torch.arange(1, 1 + count * height * width, dtype=torch.float64).view(count, 1, height, width)


def by_hand(image: Tensor, down: int, right: int, mirror: bool) -> Tensor:
    made = torch.zeros_like(image)
    height, width = image.shape[-2:]
    for row in range(height):
        for column in range(width):
            from_row, from_column = row - down, column - right
            if 0 <= from_row < height and 0 <= from_column < width:
                made[..., row, column] = image[..., from_row, width - 1 - from_column if mirror else from_column]
    return made


@pytest.mark.parametrize("drawn", [(0, 0, False), (2, 0, False), (0, -3, True), (-1, 3, True), (3, 3, False)])
def test_moves_are_shifts_and_mirrors(drawn: tuple[int, int, bool]) -> None:
    images, moved = numbered(2), Moved("shift-flip", 0)
    found = moved.apply(images, [drawn, (0, 0, False)])
    assert torch.equal(found[0], by_hand(images[0], *drawn)) and torch.equal(found[1], images[1])


@pytest.mark.parametrize("kind", ["none", "shift", "shift-flip"])
def test_back_undoes_apply(kind: Moves) -> None:
    images, moved = numbered(30), Moved(kind, 3)
    drawn = moved.draw(torch.arange(30), 5, (24, 24))
    there = moved.apply(images, drawn)
    back = moved.back(there, drawn)
    stayed = back != 0
    assert torch.equal(back[stayed], images[stayed])
    for one, (down, right, _) in zip(stayed, drawn or [(0, 0, False)] * 30, strict=True):
        assert int(one.sum()) == (24 - abs(down)) * (24 - abs(right))  # what has not gone out is all there
    assert torch.equal(moved.apply(back, drawn), there)
    if kind == "none":
        assert drawn == [] and torch.equal(there, images)


def test_moves_follow_from_seed_epoch_and_place_alone() -> None:
    moved = Moved("shift-flip", 1)
    every = moved.draw(torch.arange(200), 2, (24, 24))
    assert moved.draw(torch.tensor([7, 3]), 2, (24, 24)) == [every[7], every[3]]
    torch.manual_seed(99)
    torch.rand(3)
    assert moved.draw(torch.arange(200), 2, (24, 24)) == every
    assert (
        moved.draw(torch.arange(200), 3, (24, 24)) != every
        and Moved("shift-flip", 2).draw(torch.arange(200), 2, (24, 24)) != every
    )


def test_moves_go_an_eighth_of_the_side_in_all_directions() -> None:
    drawn = Moved("shift-flip", 1).draw(torch.arange(600), 0, (28, 28))
    most = 28 // FARTHEST
    assert {d for d, _, _ in drawn} == {r for _, r, _ in drawn} == set(range(-most, most + 1))
    assert 0.4 < sum(m for _, _, m in drawn) / 600 < 0.6
    assert not any(m for _, _, m in Moved("shift", 1).draw(torch.arange(100), 0, (28, 28)))
    assert abs(sum(d for d, _, _ in drawn)) < 250 and abs(sum(r for _, r, _ in drawn)) < 250


def test_drawing_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    Moved("shift-flip", 0).draw(torch.arange(5), 0, (28, 28))
    assert torch.equal(torch.rand(3), wanted)


# -- what is kept -----------------------------------------------------------------------------------------------


def pictures(count: int = 10) -> Split:
    return rounds(count, 2).train


def test_changes_are_kept_in_127ths_of_eps() -> None:
    kept = Kept(replace(PLAIN, method="atta", eps=0.3), pictures())
    changes = torch.empty(4, 1, 6, 6).uniform_(-0.3, 0.3)
    changes[0, 0, 0, :3] = torch.tensor([0.3, -0.3, 0.31])
    places = torch.tensor([7, 2, 9, 0])
    assert kept.get(places, 0) is None
    kept.put(places, changes, 0)
    found = kept.get(torch.tensor([9, 7]), 1)
    assert found is not None and found.dtype == torch.float32
    wanted = (changes[[2, 0]].double() / 0.3 * LEVELS).round().clamp(-LEVELS, LEVELS) / LEVELS * 0.3
    torch.testing.assert_close(found.double(), wanted, atol=1e-7, rtol=0)
    assert float((found - changes[[2, 0]].clamp(-0.3, 0.3)).abs().max()) <= 0.3 / LEVELS / 2 + 1e-7
    again = Kept(replace(PLAIN, method="atta", eps=0.3), pictures())
    again.put(torch.tensor([9, 7]), found, 0)
    assert torch.equal(again.bytes[[9, 7]], kept.bytes[[9, 7]])  # rounding twice changes nothing


@pytest.mark.parametrize("method", ["pgd", "fast", "trades"])
def test_others_keep_nothing(method: Method) -> None:
    kept = Kept(replace(PLAIN, method=method), pictures())
    kept.put(torch.arange(3), torch.zeros(3, 1, 6, 6), 0)
    assert kept.get(torch.arange(3), 0) is None and kept.tensors() == {}


def test_free_begins_anew_with_each_batch() -> None:
    kept = Kept(replace(PLAIN, method="free", replays=3), pictures())
    kept.put(torch.arange(3), torch.full((3, 1, 6, 6), 0.05), 0)
    assert [kept.get(torch.arange(3), step) is None for step in range(7)] == [True, False, False] * 2 + [True]


def test_kept_tensors_are_copies() -> None:
    kept = Kept(replace(PLAIN, method="atta"), pictures())
    kept.put(torch.arange(4), torch.full((4, 1, 6, 6), 0.05), 0)
    taken = kept.tensors()
    before = {name: value.clone() for name, value in taken.items()}
    kept.put(torch.arange(8), torch.full((8, 1, 6, 6), -0.05), 1)
    assert all(torch.equal(taken[name], before[name]) for name in taken)
    kept.restore(taken)
    kept.put(torch.arange(8), torch.full((8, 1, 6, 6), -0.05), 2)
    assert all(torch.equal(taken[name], before[name]) for name in taken)
    kept.restore(taken)
    assert kept.get(torch.tensor([5]), 1) is None and kept.get(torch.tensor([3]), 1) is not None


def test_one_new_picture_does_not_make_the_others_begin_anew() -> None:
    kept = Kept(replace(PLAIN, method="atta"), pictures())
    kept.put(torch.arange(4), torch.full((4, 1, 6, 6), 0.05), 0)
    assert kept.get(torch.tensor([0, 1, 2, 9]), 1) is not None


# -- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "steps", "step"),
    [("pgd", 40, 2.5 * 0.3 / 40), ("fast", 1, 1.25 * 0.3), ("free", 1, 0.3), ("trades", 10, 0.075), ("atta", 1, 0.1)],
)
def test_the_papers_steps(method: Method, steps: int, step: float) -> None:
    settings = HardenSettings(method=method)
    settings.check()
    assert settings.inner == steps and settings.length == pytest.approx(step)
    assert replace(settings, step=0.02).length == 0.02


@pytest.mark.parametrize(
    ("method", "steps", "gradients"),
    [("pgd", 40, 41), ("fast", 1, 2), ("free", 1, 1), ("trades", 10, 12), ("atta", 2, 3)],
)
def test_the_price(method: Method, steps: int, gradients: int) -> None:
    assert price(HardenSettings(method=method), steps) == gradients


BAD: list[tuple[dict[str, Any], str]] = [
    ({"method": "mart"}, "--method is one of pgd, fast, free, trades, atta, not 'mart'"),
    ({"optimiser": "adamw"}, "--optimiser is one of adam, sgd"),
    ({"augment": "light"}, "--augment is one of none, shift, shift-flip"),
    ({"eps": 0.0}, "--eps is a radius above 0"),
    ({"eps": -0.1}, "--eps is a radius above 0"),
    ({"eps": math.nan}, "--eps is a radius above 0"),
    ({"eps": 1.0}, "covers the whole range"),
    ({"eps": 8.0}, "did you mean 8/255?"),
    ({"eps": math.inf}, "covers the whole range"),
    ({"eps": 0.5}, "grey"),
    ({"epochs": 0}, "--epochs starts at 1, got 0"),
    ({"batch": 0}, "--batch starts at 1"),
    ({"method": "pgd", "steps": 0}, "--steps starts at 1, got 0"),
    ({"replays": 0}, "--replays starts at 1"),
    ({"hold": 0}, "--hold starts at 1"),
    ({"judged": 0}, "--judged starts at 1"),
    ({"rate": 0.0}, "--rate is a number above 0"),
    ({"rate": math.inf}, "--rate is a number above 0"),
    ({"rate": math.nan}, "--rate is a number above 0"),
    ({"step": 0.0}, "--step is a number above 0"),
    ({"step": math.nan}, "--step is a number above 0"),
    ({"beta": -1.0}, "--beta is a number above 0"),
    ({"ramp": -1.0}, "--ramp is 0 or more"),
    ({"ramp": math.nan}, "--ramp is 0 or more"),
    ({"weight_decay": math.inf}, "--weight-decay is 0 or more"),
    ({"patience": -1}, "--patience is 0 or more"),
    ({"warmup": 1.0}, "--warmup is at least 0 and below 1"),
    ({"warmup": math.nan}, "--warmup is at least 0"),
    ({"ema": 1.0}, "--ema is at least 0 and below 1"),
    ({"method": "fast", "steps": 2}, "--method fast takes one step"),
    ({"method": "free", "steps": 3}, "--method free takes one step"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_settings_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError) as caught:
        replace(HardenSettings(), **options).check()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_step_beyond_the_range_is_refused() -> None:
    with pytest.raises(PhospheneError, match="--step"):
        HardenSettings(step=8.0).check()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("eps", [8 / 255, 0.001, 0.499])
def test_settings_in_range(method: Method, eps: float) -> None:
    HardenSettings(method=method, eps=eps, warmup=0.0, ema=0.0, ramp=0.0).check()


# -- the guard --------------------------------------------------------------------------------------------------


def seen(shares: list[float], chance: float = 0.1, here: Progress | None = None) -> list[bool]:
    guard, here = Guard(), here or Progress()
    return [bool(guard.sees(share, here, chance)) for share in shares]


def test_a_fall_by_half_is_noticed() -> None:
    assert seen([0.1, 0.5, 0.6, 0.31, 0.29, 0.6, 0.0]) == [False, False, False, False, True, False, True]
    guard, here = Guard(), Progress()
    guard.sees(0.8, here, 0.1)
    assert guard.sees(0.2, here, 0.1) == "accuracy under attack fell from 80% to 20%" and FALLEN == 0.5


def test_no_false_alarm_at_the_start() -> None:
    """A network that guesses has now this accuracy, now that."""
    assert not any(seen([0.0, 0.12, 0.03, 0.2, 0.05, 0.0, 0.1])) and ABOVE == 2.0


def test_it_gives_up_in_the_end() -> None:
    here = Progress(notes={"mended": [{}] * (MOST - 1)})
    assert seen([0.9, 0.0], here=here) == [False, True]
    here.notes["mended"].append({})
    assert seen([0.9, 0.0, 0.0], here=here) == [False] * 3


def test_it_looks_four_times_an_epoch() -> None:
    guard = Guard()
    assert [step for step in range(81) if guard.looks(step, 40)] == list(range(10, 81, 10)) and LOOKS == 4
    assert [step for step in range(5) if guard.looks(step, 2)] == [1, 2, 3, 4]
    assert not any(Guard(on=False).looks(step, 4) for step in range(9))


def test_mending_adds_a_step_each_time() -> None:
    guard, here = Guard(), Progress()
    for wanted in (1, 2, 3):
        guard.mend(here)
        assert guard.more(here) == here.notes["more"] == wanted


def test_a_collapse_with_two_classes_is_noticed() -> None:
    assert seen([0.6, 0.9, 0.0], 0.5) == [False, False, True]
