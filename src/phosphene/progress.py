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

from collections.abc import Callable, Generator
from dataclasses import dataclass
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
