"""The events of a long job: the terminal, a notebook and the studio show the same job by reading the same generator.

A job is a generator of events that returns its result::

    def job(...) -> Job[Result]:
        yield Started("class image", total=200)
        for step in range(200):
            yield Step(step + 1, loss=...)
        return result

`run` drives one to its end. Closing a job early (`generator.close()`, Ctrl-C) is how it is cancelled: it receives
`GeneratorExit` and releases what it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """A job, or a part of one, begins; `total` steps will follow (None: not known)."""

    what: str
    total: int | None = None
    unit: str = "step"


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


Event: TypeAlias = Started | Step | Finished
Job: TypeAlias = Generator[Event, None, Result]


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


@dataclass
class Rate:
    """Steps per second and seconds left, from the clock."""

    total: int | None
    started: float = field(default_factory=time.monotonic)
    done: int = 0

    def update(self, done: int) -> None:
        """Say that `done` steps are done in all."""
        self.done = done

    @property
    def per_second(self) -> float:
        """Steps per second since the start; 0 before the first step."""
        elapsed = time.monotonic() - self.started
        return self.done / elapsed if elapsed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `total` at the present rate; None where either is unknown."""
        if self.total is None or self.per_second == 0:
            return None
        return (self.total - self.done) / self.per_second
