"""Restarts, plateaus, halts and schedules of the loop: against Adam by hand, and each image as if it were alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.models import Network, load
from phosphene.progress import Brake, Step, braked, run
from phosphene.synthesize import Ascent, FourierCanvas, PixelCanvas, Restart, ascend, priors, transforms
from phosphene.synthesize.objectives import Objective
from phosphene.synthesize.pace import MOST_RESTARTS

SIZE = (6, 6)
RATE = 0.1
NAN = float("nan")


@pytest.fixture(scope="module")
def network() -> Network:
    """Only its colours matter: pixels of 0 are a grey of 0.5, and the ends of the range are 50 away."""
    torch.manual_seed(0)
    return load(nn.Sequential(nn.Conv2d(3, 2, 3)), device="cpu", input_size=6, mean=(0.5,) * 3, std=(0.01,) * 3)


def climb(network: Network, objective: Objective, count: int = 1, brake: Brake | None = None, **options: Any) -> Ascent:
    settings = {"steps": 40, "rate": RATE, "generator": torch.Generator().manual_seed(0), **options}
    job = ascend(PixelCanvas(network, count, SIZE), objective, **settings)
    return run(braked(job, brake)) if brake is not None else run(job)


def standard(images: Tensor) -> Tensor:
    return (images - 0.5) / 0.01


TARGETS = torch.randn(4, 3, *SIZE, generator=torch.Generator().manual_seed(1)) * 3


def nearness(images: Tensor, which: list[int] | None = None) -> Tensor:
    """One number for each image, which has its top at that image's own target, and no image knows the others."""
    goal = TARGETS[which if which is not None else range(len(images))]
    return -(standard(images) - goal).square().sum((1, 2, 3)) / 100


def breaking(
    events: dict[tuple[int, int], float], objective: Callable[[Tensor], Tensor] = nearness, exploding: bool = False
) -> Objective:
    """The objective; at call `step` it is times (plus, if `exploding`) a number for image `image`."""
    calls = [0]

    def broken(images: Tensor) -> Tensor:
        calls[0] += 1
        values = objective(images)
        for (step, image), number in events.items():
            if step == calls[0]:
                change = torch.zeros(len(values)) if exploding else torch.ones(len(values))
                change[image] = number
                values = values + change if exploding else values * change
        return values

    return broken


def by_hand(target: Tensor, steps: int, bad: set[int]) -> Tensor:
    """Adam in plain numbers, for one image. At a bad step it goes back to what it was at the last multiple of ten."""
    pixels, mean, square = (torch.zeros(3, *SIZE, dtype=torch.float64) for _ in range(3))
    share, kept = 1.0, (pixels, mean, square)
    for step in range(1, steps + 1):
        if step in bad:
            share /= 2
            pixels, mean, square = kept
            continue
        if (step - 1) % 10 == 0:
            kept = (pixels, mean, square)
        gradient = -2 * (pixels - target) / 100
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        pixels = pixels + share * RATE * (mean / (1 - 0.9**step)) / size
    return pixels


# -- restarts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [(), (4,), (13,), (21,), (13, 14), (7, 13, 36)])
def test_restarts_by_hand(network: Network, bad: tuple[int, ...]) -> None:
    found = climb(network, breaking({(step, 0): NAN for step in bad}))
    torch.testing.assert_close(
        standard(found.images[0]).double(), by_hand(TARGETS[0].double(), 40, set(bad)), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("number", [NAN, float("inf"), float("-inf")])
def test_restarts_are_told(network: Network, number: float) -> None:
    found = climb(network, breaking({(13, 1): number, (27, 1): number, (30, 0): number}), count=3)
    assert found.restarts == (
        Restart(1, 13, 10, RATE / 2),
        Restart(1, 27, 20, RATE / 4),
        Restart(0, 30, 20, RATE / 2),
    )
    assert torch.isfinite(found.images).all()
    assert (found.values[-1] > found.values[0]).all()
    assert not found.halted and found.ended == (40, 40, 40)


def test_a_gradient_that_is_not_finite_where_the_value_is(network: Network) -> None:
    calls = [0]

    def objective(images: Tensor) -> Tensor:
        calls[0] += 1
        values = nearness(images)
        if calls[0] == 15:  # the root has no slope at 0
            values = values + (images[:, 0, 0, 0] * torch.tensor([0.0, 1.0])).sqrt()
        return values

    found = climb(network, objective, count=2)
    assert found.restarts == (Restart(0, 15, 10, RATE / 2),)
    assert torch.isfinite(found.images).all()


def test_neighbours_of_what_breaks_get_the_very_same_bytes(network: Network) -> None:
    plain = climb(network, nearness, count=3)
    broken = climb(network, breaking({(11, 1): NAN, (18, 1): NAN, (33, 1): NAN}), count=3)
    assert torch.equal(plain.images[[0, 2]], broken.images[[0, 2]])
    assert torch.equal(plain.values[:, [0, 2]], broken.values[:, [0, 2]])
    assert not torch.equal(plain.images[1], broken.images[1])


def test_neighbours_that_break_too_go_back_no_further_than_alone(network: Network) -> None:
    """Image 0 breaks at the very step in which states are kept."""
    alone = climb(network, breaking({(14, 0): NAN}, lambda images: nearness(images, [1])))
    both = climb(network, breaking({(11, 0): NAN, (14, 1): NAN}), count=2)
    assert alone.restarts == (Restart(0, 14, 10, RATE / 2),)
    assert both.restarts == (Restart(0, 11, 0, RATE / 2), Restart(1, 14, 10, RATE / 2))
    torch.testing.assert_close(both.images[1], alone.images[0])


def test_a_neighbours_trouble_does_not_hide_an_explosion(network: Network) -> None:
    """Heights are watched also in the steps in which another image breaks."""

    def objective(images: Tensor) -> Tensor:
        calls[0] += 1
        values = standard(images).mean((1, 2, 3))
        change = torch.zeros(2)
        change[1] = {12: 1000.0, 13: -1000.0}.get(calls[0], 0.0)
        if calls[0] == 12:
            change[0] = NAN
        return values + change

    calls = [0]
    found = climb(network, objective, count=2, steps=20)
    assert [r.step for r in found.restarts if r.image == 1] == []  # 2000 is not ten times 1000


def test_an_explosion_restarts_like_nan(network: Network) -> None:
    events = {(15, 1): -1e6}
    exploded = climb(network, breaking(events, exploding=True), count=2)
    broken = climb(network, breaking({(15, 1): NAN}), count=2)
    assert exploded.restarts == broken.restarts == (Restart(1, 15, 10, RATE / 2),)
    assert torch.equal(exploded.images, broken.images)
    assert exploded.values[14, 1] < -1e5  # what was seen is told


def test_what_falls_before_its_size_is_known_goes_on(network: Network) -> None:
    assert climb(network, breaking({(5, 0): -1e6}, exploding=True)).restarts == ()


def test_what_falls_by_less_than_ten_times_its_size_goes_on(network: Network) -> None:
    largest = float(nearness(torch.full((1, 3, *SIZE), 0.5)).abs())
    assert climb(network, breaking({(15, 0): -9 * largest}, exploding=True)).restarts == ()
    assert climb(network, breaking({(15, 0): -11 * largest}, exploding=True)).restarts != ()


def test_it_gives_up_after_many_restarts(network: Network) -> None:
    some = {(step, 0): NAN for step in range(3, 3 + MOST_RESTARTS)}
    assert len(climb(network, breaking(some)).restarts) == MOST_RESTARTS
    with pytest.raises(PhospheneError, match=rf"became nan at step {3 + MOST_RESTARTS}.*smaller rate than 0\.1"):
        climb(network, breaking(some | {(3 + MOST_RESTARTS, 0): NAN}))


def test_restarts_are_counted_for_each_image(network: Network) -> None:
    many = {(step, image): NAN for image in range(3) for step in range(3, 3 + MOST_RESTARTS - 2)}
    found = climb(network, breaking(many), count=3)
    assert len(found.restarts) == 3 * (MOST_RESTARTS - 2)
    assert {restart.rate for restart in found.restarts if restart.image == 2} == {
        RATE / 2**times for times in range(1, MOST_RESTARTS - 1)
    }


def test_a_spectrum_restarts_too(network: Network) -> None:
    def job(objective: Objective) -> Ascent:
        canvas = FourierCanvas(network, 2, SIZE)
        return run(ascend(canvas, objective, steps=30, rate=0.01, generator=torch.Generator()))

    values = lambda images: nearness(images) / 100  # noqa: E731
    plain, broken = job(values), job(breaking({(16, 1): NAN}, values))
    assert broken.restarts == (Restart(1, 16, 10, 0.005),)
    assert torch.equal(plain.images[0], broken.images[0])
    assert torch.isfinite(broken.images).all() and broken.values[-1, 1] > broken.values[0, 1]


def test_what_breaks_at_once_has_no_good_state(network: Network) -> None:
    with pytest.raises(PhospheneError, match="where it begins, at step 1"):
        climb(network, breaking({(1, 1): NAN}), count=2)


# -- plateaus ---------------------------------------------------------------------------------------------------


def slow(images: Tensor) -> Tensor:
    """The first image comes to rest at its target; the others rise for ever."""
    heights = standard(images).mean((1, 2, 3))
    resting = 1 - (heights[:1] - 1).square()
    return torch.cat([resting, heights[1:]])


def test_images_that_rise_no_more_end_one_by_one(network: Network) -> None:
    found = climb(network, slow, count=2, steps=120, patience=10)
    assert 20 <= found.ended[0] < 80 and found.ended[1] == 120
    until = climb(network, slow, count=2, steps=found.ended[0])
    assert torch.equal(found.images[0], until.images[0])  # it stands still from there
    assert len(found.values) == 120


@pytest.mark.parametrize("patience", [3, 10])
@pytest.mark.parametrize("tolerance", [0.01, 0.2])
def test_the_end_by_hand(network: Network, patience: int, tolerance: float) -> None:
    found = climb(network, slow, steps=200, patience=patience, tolerance=tolerance)
    heights = climb(network, slow, steps=200).values[:, 0].tolist()
    for step in range(2 * patience, 201):
        recent = sum(heights[step - patience : step]) / patience
        earlier = sum(heights[step - 2 * patience : step - patience]) / patience
        if recent - earlier < tolerance * max(abs(recent), abs(earlier)):
            break
    assert found.ended == (step - 1,)


def test_the_loop_stops_when_all_have_ended(network: Network) -> None:
    events: list[Any] = []
    job = ascend(
        PixelCanvas(network, 1, SIZE), slow, steps=500, rate=RATE, patience=10, generator=torch.Generator()
    )  # fmt: skip
    found = run(job, events.append)
    assert len(found.values) == len(events) == found.ended[0] + 1 < 100
    assert not found.halted


def test_without_patience_nothing_ends(network: Network) -> None:
    found = climb(network, lambda images: images.sum((1, 2, 3)) * 0 + 1, count=2, steps=60)
    assert found.ended == (60, 60) and len(found.values) == 60


def test_penalties_count_for_the_end(network: Network) -> None:
    """f rises for ever, and R nearly as much: f - R rests."""

    def objective(images: Tensor) -> Tensor:
        return 1 + standard(images).mean((1, 2, 3))

    level: priors.Penalty = lambda canvas: 0.9999 * canvas.mean((1, 2, 3))  # noqa: E731
    found = climb(network, objective, steps=100, patience=5, penalties=[level])
    assert found.ended == (9,) and (found.values.diff(dim=0) > 0.01).all()
    assert climb(network, objective, steps=100, patience=5).ended == (100,)


def test_a_restart_begins_the_watch_anew(network: Network) -> None:
    level = lambda images: standard(images).mean((1, 2, 3)) * 1e-6 + 1  # noqa: E731
    assert climb(network, level, patience=6, steps=60).ended == (11,)
    assert climb(network, breaking({(9, 0): NAN}, level), patience=6, steps=60).ended == (20,)


def test_periodic_operations_leave_what_has_ended_alone(network: Network) -> None:
    dim = priors.Periodic(1, lambda pixels, _: pixels * 0.999)
    found = climb(network, slow, count=2, steps=120, patience=10, periodic=[dim])
    until = climb(network, slow, count=2, steps=found.ended[0], periodic=[dim])
    assert found.ended[0] < 100
    assert torch.equal(found.images[0], until.images[0])


def test_what_has_ended_does_not_restart(network: Network) -> None:
    ended = climb(network, slow, count=2, steps=100, patience=10)
    later = ended.ended[0] + 5
    found = climb(network, breaking({(later, 0): NAN}, slow), count=2, steps=100, patience=10)
    assert found.restarts == ()
    assert found.ended == ended.ended
    assert torch.equal(found.images, ended.images)


# -- halts and schedules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 7, 39])
def test_a_halt_returns_the_picture_so_far(network: Network, at: int) -> None:
    found = climb(network, nearness, count=2, brake=Brake(at))
    wanted = climb(network, nearness, count=2, steps=at)
    assert found.halted and not wanted.halted
    assert torch.equal(found.images, wanted.images)
    assert torch.equal(found.values, wanted.values)
    assert found.ended == (at, at)


def test_a_halt_knows_who_had_ended_before(network: Network) -> None:
    whole = climb(network, slow, count=2, steps=120, patience=10)
    at = whole.ended[0] + 7
    assert climb(network, slow, count=2, steps=120, patience=10, brake=Brake(at)).ended == (whole.ended[0], at)


def test_the_schedule_gives_the_share_of_the_rate(network: Network) -> None:
    """Up a constant slope Adam moves by exactly its rate in each step."""
    asked: list[float] = []

    def schedule(share: float) -> float:
        asked.append(share)
        return 1 - share

    found = climb(network, lambda images: standard(images).sum((1, 2, 3)), steps=8, schedule=schedule)
    assert asked == [step / 8 for step in range(8)]
    wanted = torch.full((1, 3, *SIZE), RATE * sum(1 - step / 8 for step in range(8)))
    torch.testing.assert_close(standard(found.images), wanted, atol=1e-4, rtol=1e-4)


def test_a_schedule_and_a_restart_multiply(network: Network) -> None:
    fall = lambda share: 0.5 + 0.5 * math.cos(math.pi * share)  # noqa: E731
    objective = breaking({(13, 0): NAN}, lambda images: standard(images).sum((1, 2, 3)))
    found = climb(network, objective, steps=20, schedule=fall)
    whole, half = sum(fall(step / 20) for step in range(10)), sum(fall(step / 20) for step in range(13, 20))
    assert float(standard(found.images).mean()) == pytest.approx(RATE * (whole + half / 2), rel=0.02)


def test_the_generator_moves_all_images_of_a_batch_alike(network: Network) -> None:
    """Each step draws one movement, whoever has ended or restarted."""
    moves = transforms.jitter(2)
    plain = climb(network, nearness, count=2, transform=moves)
    broken = climb(network, breaking({(13, 1): NAN}), count=2, transform=moves)
    assert torch.equal(plain.images[0], broken.images[0])


def test_steps_are_told_with_what_they_cost(network: Network) -> None:
    losses: list[float] = []

    def listen(event: object) -> None:
        assert isinstance(event, Step) and event.loss is not None
        losses.append(event.loss)

    job = ascend(PixelCanvas(network, 3, SIZE), nearness, steps=6, rate=RATE, generator=torch.Generator())
    found = run(job, listen)
    assert losses == pytest.approx((-found.values.mean(1)).tolist())
