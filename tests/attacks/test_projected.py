"""The projected loop, on steps that can be followed by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene.attacks import Ball
from phosphene.attacks.projected import move_until_done
from phosphene.errors import PhospheneError
from phosphene.progress import Step, run


def nearest_in_ball(images: Tensor, start: Tensor, ball: Ball) -> Tensor:
    """Slow and obvious: bisection for the largest share of the change (l2), value by value (linf)."""
    out = images.clone().double()
    for n in range(len(images)):
        change = (images[n] - start[n]).double()
        if ball.norm == "linf":
            flat = [max(-ball.eps, min(ball.eps, float(v))) for v in change.flatten()]
            out[n] = start[n] + torch.tensor(flat).view_as(change)
        else:
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                low, high = (middle, high) if float((middle * change).norm()) <= ball.eps else (low, middle)
            out[n] = start[n] + low * change
    return out.clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.5, 100.0])
def test_projection(norm: str, eps: float) -> None:
    start, images = torch.rand(3, 3, 5, 4), torch.randn(3, 3, 5, 4)
    images[1] = start[1]
    ball = Ball(norm, eps)  # type: ignore[arg-type]
    found = ball.project(images, start)
    torch.testing.assert_close(found.double(), nearest_in_ball(images, start, ball), atol=1e-6, rtol=0)
    torch.testing.assert_close(ball.project(found, start), found, atol=1e-6, rtol=0)
    assert found.min() >= 0 and found.max() <= 1
    size = (found - start).flatten(1)
    assert (size.norm(dim=1) if norm == "l2" else size.abs().amax(1)).max() <= eps + 1e-5


@pytest.mark.parametrize(("norm", "eps"), [("l1", 1.0), ("linf", -0.1), ("l2", float("nan"))])
def test_balls_that_are_none(norm: str, eps: float) -> None:
    with pytest.raises(PhospheneError, match=r"norm|radius"):
        Ball(norm, eps)  # type: ignore[arg-type]


def towards(goals: Tensor, sizes: list[int]):
    """Add 1/32 until the image has been moved as often as `goals` says; note which images were asked about."""

    def move(images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        sizes.append(len(which))
        taken = (images.flatten(1).mean(1) * 32).round()
        return torch.full_like(images, 1 / 32), taken >= goals[which]

    return move


def test_finished_images_leave_and_stay_as_they_are() -> None:
    goals, sizes = torch.tensor([3, 0, 7, 3]), []
    found = run(move_until_done(torch.zeros(4, 3, 2, 2), towards(goals, sizes), steps=20))
    assert found.steps.tolist() == goals.tolist()
    assert found.done.all()
    assert torch.equal(found.images, (goals / 32).view(4, 1, 1, 1).expand(4, 3, 2, 2))
    assert sizes == [4, 3, 3, 3, 1, 1, 1, 1]


def test_it_gives_up() -> None:
    found = run(move_until_done(torch.zeros(2, 3, 2, 2), towards(torch.tensor([2, 9]), []), steps=4))
    assert found.done.tolist() == [True, False]
    assert found.steps.tolist() == [2, 4]
    assert found.images[1].unique().tolist() == [4 / 32]


def test_the_last_step_counts() -> None:
    found = run(move_until_done(torch.zeros(1, 3, 2, 2), towards(torch.tensor([4]), []), steps=4))
    assert found.done.tolist() == [True] and found.steps.tolist() == [4]


def test_images_stay_in_range_and_in_the_ball() -> None:
    start = torch.full((1, 3, 2, 2), 0.9)
    push = lambda images, which: (torch.ones_like(images), torch.tensor([False]))  # noqa: E731
    assert run(move_until_done(start, push, steps=3)).images.max() == 1
    inside = run(move_until_done(start, push, steps=3, ball=Ball("linf", 0.05))).images
    assert inside.unique().tolist() == pytest.approx([0.95])


def test_the_start_is_not_changed() -> None:
    start = torch.zeros(2, 3, 2, 2)
    run(move_until_done(start, towards(torch.tensor([1, 2]), []), steps=4))
    assert not start.any()


def test_events_count_the_steps() -> None:
    events: list[object] = []
    run(move_until_done(torch.zeros(3, 3, 2, 2), towards(torch.tensor([1, 2, 3]), []), steps=9), events.append)
    assert all(isinstance(event, Step) for event in events)
    assert [event.done for event in events] == [1, 2, 3, 3]  # type: ignore[attr-defined]
    assert [event.loss for event in events] == [3, 2, 1, 0]  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch", [[0], [2, 0], [3, 2, 1, 0]])
def test_neighbours_do_not_matter(batch: list[int]) -> None:
    generator = torch.Generator().manual_seed(5)
    start = torch.rand(4, 3, 6, 6, generator=generator)
    weights = torch.randn(4, 3, 6, 6, generator=generator)

    def move_of(rows: Tensor):
        def move(images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
            mine = weights[rows][which]
            score = (images * mine).flatten(1).sum(1)
            return 0.1 * mine / mine.flatten(1).norm(dim=1).view(-1, 1, 1, 1), score > 3

        return move

    ball = Ball("l2", 2.0)
    whole = run(move_until_done(start, move_of(torch.arange(4)), steps=40, ball=ball))
    part = run(move_until_done(start[batch], move_of(torch.tensor(batch)), steps=40, ball=ball))
    assert torch.equal(part.images, whole.images[batch])
    assert torch.equal(part.steps, whole.steps[batch])
