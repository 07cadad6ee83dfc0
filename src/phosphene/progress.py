"""The events of a long job: the terminal, a notebook and the studio show the same job by reading the same generator.

A job is a generator of events that returns its result::

    def job(...) -> Job[Result]:
        yield Started("class image", total=200)
        for step in range(200):
            yield Step(step + 1, loss=...)
        return result

`run` drives one to its end. Closing a job early (`generator.close()`, Ctrl-C) is how it is cancelled: it receives
`GeneratorExit` and releases what it holds. A part that has `keeps` can also be ended with what there is: it takes a `Halt`
(a `Brake` throws it) and returns the result so far.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """A job, or a part of one, begins; `total` steps will follow (None: not known).

    `keeps`: it takes a `Halt` and returns what it has so far.
    """

    what: str
    total: int | None = None
    unit: str = "step"
    keeps: bool = False


@dataclass(frozen=True)
class Step:
    """`done` steps of the part that started last are done. `preview`: images `[N, 3, H, W]` in [0, 1]."""

    done: int
    loss: float | None = None
    preview: Tensor | None = None


@dataclass(frozen=True)
class Finished:
    """The part that started last is complete."""

    what: str = ""


BY_HAND = "ended by hand"
"""What a record says of a job that a `Halt` has ended."""


class Halt(Exception):
    """Thrown into a job at an event: end here. Jobs that don't keep anything let it pass."""


@dataclass
class Brake:
    """Ends a job early, after event number `at` or when it is `pulled`; `used` tells after which event it did."""

    at: int | None = None
    pulled: bool = False
    used: int | None = None

    def holds(self, count: int) -> bool:
        """Whether the job is to end after `count` events. It does so once."""
        if self.used is not None or not (self.pulled or count == self.at):
            return False
        self.used = count
        return True


Event: TypeAlias = Started | Step | Finished
Job: TypeAlias = Generator[Event, None, Result]


def relay(job: Job[Result], change: Callable[[Event], Event]) -> Job[Result]:
    """The same job with its events changed. A `Halt` reaches it."""
    try:
        event = next(job)
        while True:
            try:
                yield change(event)
            except Halt as halt:
                event = job.throw(halt)
            else:
                event = next(job)
    except StopIteration as end:
        return end.value
    finally:
        job.close()


def shifted(event: Event, before: int, count: int = 1) -> Event:
    """A step of a part as one of the whole: `before` came before the part, each of whose steps moves `count` things."""
    return Step(before + event.done * count, event.loss, event.preview) if isinstance(event, Step) else event


def whole(job: Job[Result]) -> Job[Result]:
    """The same job as one that keeps nothing when it is ended early."""
    return relay(job, lambda event: replace(event, keeps=False) if isinstance(event, Started) else event)


def braked(job: Job[Result], brake: Brake) -> Job[Result]:
    """The same job, which gets a `Halt` when the brake says so."""
    count = 0
    try:
        event = next(job)
        while True:
            count += 1
            yield event
            event = job.throw(Halt()) if brake.holds(count) else next(job)
    except StopIteration as end:
        return end.value
    finally:
        job.close()


def run(job: Job[Result], listen: Callable[[Event], None] | None = None) -> Result:
    """Drive `job` to its end, hand each event to `listen`, and return what the job returns."""
    try:
        while True:
            event = next(job)
            if listen is not None:
                listen(event)
    except StopIteration as end:
        return end.value
    finally:
        job.close()
