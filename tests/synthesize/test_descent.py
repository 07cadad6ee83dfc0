"""Descents on losses whose minimum is known, their interruptions, and their ways out."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Brake, Step, braked, run
from phosphene.synthesize.descent import EXPLODES, FIRST, LEAP, MOST_LEAPS, STALLED, Descent, Progress, Switch, descend
from phosphene.synthesize.style_loss import Evaluation

SHAPE = (1, 3, 4, 5)


class Plain:
    """The picture itself as the parameter."""

    def __init__(self, start: Tensor | None = None) -> None:
        self.parameter = (torch.full(SHAPE, 0.5) if start is None else start.clone()).requires_grad_()

    def images(self) -> Tensor:
        return self.parameter * 1.0

    def standardise(self, images: Tensor) -> Tensor:
        return images


def evaluated(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Evaluation]:
    def evaluate(image: Tensor) -> Evaluation:
        leaf = image.detach().requires_grad_()
        total = function(leaf)
        (gradient,) = torch.autograd.grad(total, leaf)
        return Evaluation(float(total.detach()), {}, {}, gradient)

    return evaluate


def target() -> Tensor:
    return 0.1 + 0.8 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(4))


def quadratic() -> Callable[[Tensor], Evaluation]:
    """Fifty times as steep along the steepest direction as along the flattest."""
    steep = torch.logspace(0, math.log10(50), math.prod(SHAPE)).view(SHAPE)
    return evaluated(lambda image: (steep * (image - target()).square()).sum())


def bent() -> Callable[[Tensor], Evaluation]:
    """Neither quadratic nor the same everywhere."""
    return evaluated(lambda image: 3 * (image - target()).square().sum() + 0.1 * (1 + (image * 9).sin()).sum())


def go(evaluate: Callable[[Tensor], Evaluation], steps: int, brake: int | None = None, **options: Any) -> Descent:
    canvas = options.pop("canvas", None) or Plain()
    return run(braked(descend(canvas, evaluate, steps=steps, **options), Brake(brake)))


# -- down -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimiser", "rate", "steps"), [("lbfgs", 1.0, 60), ("lbfgs", 0.5, 80), ("adam", 0.05, 300)])
def test_the_minimum_of_a_quadratic_is_found(optimiser: Any, rate: float, steps: int) -> None:
    found = go(quadratic(), steps, optimiser=optimiser, rate=rate)
    torch.testing.assert_close(found.image, target(), atol=1e-3, rtol=0)
    assert found.last.total < 1e-4 * found.totals[0]
    assert len(found.totals) == steps and not found.switches and not found.halted


def test_the_first_total_is_that_of_the_start_and_the_last_evaluation_that_of_the_picture() -> None:
    loss = bent()
    found = go(loss, 9)
    start = loss(torch.full(SHAPE, 0.5))
    assert found.totals[0] == start.total == found.first.total
    assert torch.equal(found.first.gradient, start.gradient)
    assert found.last.total == loss(found.image).total < 0.8 * start.total


def test_the_first_step_of_lbfgs_goes_straight_down() -> None:
    """Down the gradient, by a length from which something can be learnt."""
    canvas = Plain()
    gradient = quadratic()(canvas.images()).gradient
    go(quadratic(), 1, canvas=canvas, rate=0.5)
    moved = canvas.parameter.detach() - 0.5
    torch.testing.assert_close(moved, -FIRST * gradient / gradient.square().mean().sqrt(), atol=1e-6, rtol=1e-3)


def test_the_rate_of_adam_falls_along_a_cosine() -> None:
    """On an even slope each step of Adam is as long as its rate."""
    images: list[Tensor] = []

    def slope(image: Tensor) -> Evaluation:
        images.append(image.clone())
        return Evaluation(float(image.sum()), {}, {}, torch.ones_like(image))

    go(slope, 10, optimiser="adam", rate=0.01)
    moves = [float((a - b).mean()) for a, b in pairwise(images[:11])]
    wanted = [0.01 * (0.5 + 0.5 * math.cos(math.pi * step / 10)) for step in range(10)]
    assert moves == pytest.approx(wanted, abs=1e-6)


def test_events_tell_steps_losses_and_previews() -> None:
    events: list[Any] = []
    canvas = Plain(torch.full(SHAPE, 1.4))
    found = run(descend(canvas, quadratic(), steps=12, preview_every=5), events.append)
    assert [type(event) for event in events] == [Step] * 12
    assert [event.done for event in events] == list(range(1, 13))
    assert [event.loss for event in events] == found.totals
    assert [event.done for event in events if event.preview is not None] == [5, 10, 12]
    for event in events[4::5]:
        assert event.preview.shape == SHAPE and 0 <= float(event.preview.min()) <= float(event.preview.max()) <= 1


def test_one_evaluation_a_step() -> None:
    calls = []
    loss = quadratic()
    go(lambda image: (calls.append(1), loss(image))[1], 10)
    assert 10 < len(calls) <= 12  # one or two more for the end


def test_no_steps() -> None:
    with pytest.raises(PhospheneError, match="steps start at 1, got 0"):
        go(quadratic(), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_a_loss_that_is_no_number_where_it_begins(value: float, optimiser: Any) -> None:
    with pytest.raises(PhospheneError, match=f"the loss is {value} where it begins"):
        go(lambda image: Evaluation(value, {}, {}, torch.ones_like(image)), 5, optimiser=optimiser)


# -- interrupted ------------------------------------------------------------------------------------------------


def written(progress: Progress) -> Progress:
    """To a file and back, such that it holds nothing but tensors, numbers and names."""
    held = asdict(progress)
    file = io.BytesIO()
    torch.save(held, file)
    file.seek(0)
    found = torch.load(file, weights_only=True)
    found["switches"] = [Switch(**switch) for switch in found["switches"]]
    return Progress(**found)


def kept(evaluate: Callable[[Tensor], Evaluation], steps: int, **options: Any) -> tuple[Descent, list[Progress]]:
    found: list[Progress] = []
    end = go(evaluate, steps, keep=lambda progress: found.append(written(progress)), **options)
    return end, found


@pytest.mark.parametrize("at", [1, 2, 7, 19, 20])
@pytest.mark.parametrize(("optimiser", "rate"), [("lbfgs", 1.0), ("lbfgs", 0.3), ("adam", 0.03)])
def test_going_on_gives_the_same_numbers(optimiser: Any, rate: float, at: int) -> None:
    whole, places = kept(bent(), 20, optimiser=optimiser, rate=rate, history=4)
    assert [place.step for place in places] == list(range(1, 21))
    canvas = Plain(torch.rand(SHAPE))  # what it holds does not matter
    rest = go(bent(), 20, optimiser=optimiser, rate=rate, history=4, progress=places[at - 1], canvas=canvas)
    assert rest.totals == whole.totals and not rest.switches
    assert torch.equal(rest.image, whole.image) and rest.last.total == whole.last.total


def stubborn() -> Callable[[Tensor], Evaluation]:
    """A kink as deep as any place: L-BFGS leaps over it for ever."""
    return evaluated(lambda image: (image - target()).abs().sum() + 1e-3 * image.square().sum())


@pytest.mark.parametrize("after", [-1, 0, 1])
def test_going_on_around_a_switch_gives_the_same_numbers(after: int) -> None:
    whole, places = kept(stubborn(), 140)
    assert [switch.optimiser for switch in whole.switches] == ["lbfgs", "adam"]
    for switch in whole.switches:
        place = places[switch.step - 1 + after]
        rest = go(stubborn(), 140, progress=place)
        assert rest.totals == whole.totals and rest.switches == whole.switches
        assert torch.equal(rest.image, whole.image)


def test_a_halt_returns_what_there_is() -> None:
    whole, places = kept(bent(), 20)
    told: list[tuple[int, bool]] = []
    halted = go(bent(), 20, 7, keep=lambda progress: told.append((progress.step, progress.halted)))
    assert halted.halted and halted.totals == whole.totals[:7]
    assert told == [(step, False) for step in range(1, 8)] + [(7, True)]
    assert not any(place.halted for place in places)
    short = go(bent(), 7)
    assert torch.equal(halted.image, short.image) and not short.halted


def test_a_halted_descent_goes_on() -> None:
    places: list[Progress] = []
    go(bent(), 20, 7, keep=lambda progress: places.append(written(progress)))
    rest, whole = go(bent(), 20, progress=places[-1]), go(bent(), 20)
    assert rest.totals == whole.totals and torch.equal(rest.image, whole.image)


# -- ways out ---------------------------------------------------------------------------------------------------


class Scripted:
    """A gentle slope whose losses are told by `losses(call)`; remembers the pictures."""

    def __init__(self, losses: Callable[[int], float]) -> None:
        self.losses = losses
        self.images: list[Tensor] = []

    def __call__(self, image: Tensor) -> Evaluation:
        self.images.append(image.clone())
        place = torch.arange(image.numel()).view(image.shape)
        gradient = 1e-3 * torch.cos(place + len(self.images))
        return Evaluation(self.losses(len(self.images) - 1), {}, {}, gradient)


def test_a_loss_that_explodes_is_left_for_the_best_picture() -> None:
    """A few times without a word, then it is a switch."""
    calls = [20 + 4 * number for number in range(MOST_LEAPS + 2)]
    scripted = Scripted(lambda call: 1e3 if call in calls else 2.0 - 0.01 * call)
    found = go(scripted, 60)
    for call in calls:
        assert torch.equal(scripted.images[call + 1], scripted.images[call - 1])
        assert not torch.equal(scripted.images[call], scripted.images[call - 1])
    *_, last, beyond = calls
    why = "the loss exploded"
    assert found.switches == (Switch(last + 1, "lbfgs", why), Switch(beyond + 1, "adam", why))


@pytest.mark.parametrize("call", [1, 2, 20])
@pytest.mark.parametrize(("times", "back"), [(1.1 * EXPLODES, True), (0.9 * EXPLODES, False)])
def test_what_counts_as_an_explosion(call: int, times: float, back: bool) -> None:
    scripted = Scripted(lambda number: 5 * times if number == call else 5 - 1e-6 * number)
    found = go(scripted, 25)
    assert not found.switches
    assert torch.equal(scripted.images[call + 1], scripted.images[call - 1]) == back


def test_a_negative_loss_does_not_explode_by_itself() -> None:
    found = go(evaluated(lambda image: (image - target()).square().sum() - 100), 20)
    assert not found.switches
    torch.testing.assert_close(found.image, target(), atol=1e-3, rtol=0)


def test_no_step_of_lbfgs_is_a_leap() -> None:
    """Each is as long as it may be at most, and what L-BFGS takes for its step is what was done."""
    images: list[Tensor] = []
    away = quadratic()

    def far(image: Tensor) -> Evaluation:
        images.append(image.clone())
        return away(image)

    places: list[Progress] = []
    canvas = Plain(torch.full(SHAPE, 2.0))
    found = go(far, 60, canvas=canvas, keep=lambda progress: places.append(written(progress)))
    moves = [float((b - a).square().mean().sqrt()) for a, b in pairwise(images[:60])]
    assert max(moves) == pytest.approx(LEAP, rel=1e-3) and sum(move > 0.99 * LEAP for move in moves) > 5
    for before, after in pairwise(places):
        assert after.state is not None and before.parameter is not None and after.parameter is not None
        known = after.state["state"][0]
        done = (after.parameter - before.parameter).flatten()
        torch.testing.assert_close(known["d"] * known["t"], done, atol=1e-5, rtol=1e-3)
    assert found.last.total < 1e-3 * found.totals[0]


def test_adam_may_leap() -> None:
    images: list[Tensor] = []
    go(lambda image: (images.append(image.clone()), quadratic()(image))[1], 3, optimiser="adam", rate=0.4)
    assert float((images[1] - images[0]).square().mean().sqrt()) == pytest.approx(0.4, rel=1e-3)


def test_a_loss_that_stalls_leads_to_a_new_beginning_and_then_to_adam() -> None:
    scripted = Scripted(lambda call: 1.0 if call == 3 else 1.5)
    found = go(scripted, 100)
    why = f"no lower loss for {STALLED} steps"
    first = 3 + STALLED + 1
    assert found.switches == (Switch(first, "lbfgs", why), Switch(first + STALLED + 1, "adam", why))
    for switch in found.switches:
        assert torch.equal(scripted.images[switch.step], scripted.images[3])


def test_after_all_switches_the_best_picture_is_returned() -> None:
    scripted = Scripted(lambda call: 1.0 if call == 3 else 1.5)
    found = go(scripted, 100)
    assert torch.equal(found.image, scripted.images[3].clamp(0, 1))
    assert torch.equal(scripted.images[-1], found.image)


def test_the_best_picture_is_returned_rather_than_the_last() -> None:
    best = quadratic()(torch.full(SHAPE, 0.5)).total
    found = go(quadratic(), 3, optimiser="adam", rate=0.9)
    assert min(found.totals) == best < max(found.totals)
    assert found.last.total <= best


def test_the_last_picture_is_returned_where_it_is_the_best() -> None:
    canvas = Plain()
    found = go(quadratic(), 30, canvas=canvas)
    assert found.last.total <= min(found.totals)
    assert torch.equal(found.image, canvas.parameter.detach().clamp(0, 1))


def test_a_loss_that_becomes_no_number_is_left_at_once() -> None:
    scripted = Scripted(lambda call: math.nan if call in (4, 6) else 1.0 - 0.01 * call)
    found = go(scripted, 9)
    why = "the loss was no finite number"
    assert found.switches == (Switch(5, "lbfgs", why), Switch(7, "adam", why))
    assert torch.equal(scripted.images[5], scripted.images[3])
    assert math.isfinite(found.last.total) and bool(torch.isfinite(found.image).all())


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_with_adam_there_is_no_other_way_out(optimiser: Any) -> None:
    scripted = Scripted(lambda call: math.nan if call >= 4 else 1.0)
    with pytest.raises(PhospheneError, match=r"no finite number at step .*, also with Adam: use a smaller rate"):
        go(scripted, 20, optimiser=optimiser)


def test_adam_after_lbfgs_has_its_own_rate() -> None:
    scripted = Scripted(lambda call: math.nan if call in (2, 4) else 1.0 - 0.001 * call)
    go(scripted, 40, rate=1.0)
    moves = (scripted.images[6] - scripted.images[5]).abs()
    assert float(moves.max()) == pytest.approx(0.01, rel=0.05)


def test_of_the_last_picture_and_the_best_the_better_one_is_returned() -> None:
    """The lowest loss lies beyond white, where nothing is left of it."""

    def loss(image: Tensor) -> Evaluation:
        beyond = bool((image > 1).any())
        white = bool((image == 1).all())
        total = 1.0 if beyond else 9.0 if white else 2.0
        return Evaluation(total, {}, {}, torch.full_like(image, 1.0 if beyond else -1e-6))

    found = go(loss, 3, canvas=Plain(torch.full(SHAPE, 1.2)), optimiser="adam", rate=0.5)
    assert found.totals == [1.0, 2.0, 2.0]
    assert found.last.total == 2.0


def test_a_progress_belongs_to_its_descent() -> None:
    """It is kept up to date, so whoever wants to keep it copies it."""
    live: list[Progress] = []
    copies: list[Progress] = []
    go(bent(), 6, keep=lambda progress: (live.append(progress), copies.append(copy.deepcopy(progress)))[0])
    assert all(one is live[0] for one in live)
    assert [one.step for one in copies] == [1, 2, 3, 4, 5, 6]
