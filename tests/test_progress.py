from __future__ import annotations

import pytest

from phosphene.progress import Event, Finished, Job, Started, Step, run


def counting(total: int, released: list[str]) -> Job[str]:
    try:
        yield Started("count", total)
        for step in range(total):
            yield Step(step + 1, loss=float(step))
        yield Finished()
        return "done"
    finally:
        released.append("released")


def test_run_hands_on_every_event_and_returns_the_result() -> None:
    events: list[Event] = []
    released: list[str] = []
    assert run(counting(2, released), events.append) == "done"
    assert events == [Started("count", 2), Step(1, 0.0), Step(2, 1.0), Finished()]
    assert released == ["released"]


def test_nobody_has_to_listen() -> None:
    assert run(counting(3, [])) == "done"


@pytest.mark.parametrize("problem", [KeyboardInterrupt, ValueError])
def test_a_listener_that_fails_closes_the_job(problem: type[BaseException]) -> None:
    released: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Step):
            raise problem

    with pytest.raises(problem):
        run(counting(5, released), listen)
    assert released == ["released"]


def test_a_job_that_fails() -> None:
    def failing() -> Job[None]:
        yield Started("fail")
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        run(failing())


def test_jobs_within_jobs() -> None:
    def outer() -> Job[list[str]]:
        first = yield from counting(1, [])
        second = yield from counting(0, [])
        return [first, second]

    events: list[Event] = []
    assert run(outer(), events.append) == ["done", "done"]
    assert [type(event) for event in events] == [Started, Step, Finished, Started, Finished]
