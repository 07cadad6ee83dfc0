"""Reading pictures in threads, a few batches ahead of who needs them: Pillow decodes without holding Python's lock."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

AHEAD = 2  # batches


def workers() -> int:
    """How many threads read pictures, if nobody says."""
    return min(8, max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2))


def ahead(
    batches: Iterable[Sequence[Item]], make: Callable[[Item], Made], *, threads: int | None = None
) -> Iterator[list[Made]]:
    """`[make(item) for item in batch]` of each batch, in order, made in threads before it is asked for.

    What `make` raises is raised where its batch is due.
    """
    with ThreadPoolExecutor(threads or workers()) as pool:
        waiting: deque[list[Future[Made]]] = deque()
        try:
            for batch in batches:
                waiting.append([pool.submit(make, item) for item in batch])
                if len(waiting) > AHEAD:
                    yield [future.result() for future in waiting.popleft()]
            while waiting:
                yield [future.result() for future in waiting.popleft()]
        finally:
            for futures in waiting:
                for future in futures:
                    future.cancel()
