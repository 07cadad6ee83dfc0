from __future__ import annotations

from collections.abc import Callable

import pytest

from phosphene.progress import Brake, Event, Finished, Halt, Job, Started, Step, braked, relay, run


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


# -- halts --------------------------------------------------------------------------------------------------------


def keeping(total: int, released: list[str]) -> Job[int]:
    """A job that returns how far it has come."""
    done = 0
    try:
        yield Started("keep", total, keeps=True)
        for step in range(total):
            done = step + 1
            yield Step(done)
    except Halt:
        return done
    finally:
        released.append("released")
    return done


def later(event: Event) -> Event:
    return Step(event.done + 100) if isinstance(event, Step) else event


@pytest.mark.parametrize("at", range(1, 7))
def test_a_brake_ends_a_job_after_so_many_events(at: int) -> None:
    events: list[Event] = []
    brake, released = Brake(at), []
    assert run(braked(keeping(5, released), brake), events.append) == at - 1  # the first event is `Started`
    assert len(events) == at and brake.used == at
    assert released == ["released"]


def test_a_brake_beyond_the_end_is_not_used() -> None:
    brake = Brake(7)
    assert run(braked(keeping(5, []), brake)) == 5
    assert brake.used is None


def test_a_brake_that_is_pulled_ends_the_job_after_the_event() -> None:
    brake, events = Brake(), []

    def listen(event: Event) -> None:
        events.append(event)
        brake.pulled = event == Step(3)

    assert run(braked(keeping(5, []), brake), listen) == 3
    assert brake.used == 4 == len(events)


def test_a_brake_is_used_once() -> None:
    """What a job does after it was halted is its own affair."""

    def stubborn() -> Job[list[int]]:
        halted = []
        for step in range(6):
            try:
                yield Step(step)
            except Halt:
                halted.append(step)
        return halted

    brake = Brake(2, pulled=False)
    assert run(braked(stubborn(), brake)) == [1]
    assert not brake.holds(2) and brake.used == 2
    brake = Brake(pulled=True)
    assert run(braked(stubborn(), brake)) == [0]


def test_without_a_brake_a_job_is_as_it_was() -> None:
    plain, events = [], []
    assert run(counting(3, []), plain.append) == run(braked(counting(3, []), Brake()), events.append)
    assert plain == events


def test_jobs_that_keep_nothing_let_a_halt_pass() -> None:
    released: list[str] = []
    with pytest.raises(Halt):
        run(braked(counting(5, released), Brake(3)))
    assert released == ["released"]


def test_a_relay_changes_the_events_and_returns_the_result() -> None:
    events: list[Event] = []
    assert run(relay(keeping(2, []), later), events.append) == 2
    assert events == [Started("keep", 2, keeps=True), Step(101), Step(102)]


def test_a_halt_goes_through_relays() -> None:
    events: list[Event] = []
    released: list[str] = []
    job = relay(relay(keeping(5, released), later), later)
    assert run(braked(job, Brake(3)), events.append) == 2
    assert events[-1] == Step(202) and released == ["released"]


def test_a_halt_that_is_not_caught_leaves_a_relay() -> None:
    released: list[str] = []
    with pytest.raises(Halt):
        run(braked(relay(counting(5, released), later), Brake(2)))
    assert released == ["released"]


def test_a_halt_reaches_the_part_that_runs() -> None:
    def outer() -> Job[list[int]]:
        found = []
        for _ in range(3):
            found.append((yield from relay(keeping(3, []), later)))
        return found

    assert run(braked(outer(), Brake(6))) == [3, 1, 3]


@pytest.mark.parametrize("wrap", [lambda job: relay(job, later), lambda job: braked(job, Brake())])
def test_closing_closes_what_is_inside(wrap: Callable[[Job[int]], Job[int]]) -> None:
    released: list[str] = []
    job = wrap(keeping(5, released))
    next(job)
    next(job)
    job.close()
    assert released == ["released"]


def test_a_change_that_fails_closes_the_job() -> None:
    released: list[str] = []

    def change(event: Event) -> Event:
        raise ValueError("it broke")

    with pytest.raises(ValueError, match="it broke"):
        run(relay(keeping(3, released), change))
    assert released == ["released"]


def test_a_job_without_events() -> None:
    assert run(relay(keeping_nothing(), later)) == "nothing"
    assert run(braked(keeping_nothing(), Brake(1))) == "nothing"


def keeping_nothing() -> Job[str]:
    yield from ()
    return "nothing"
