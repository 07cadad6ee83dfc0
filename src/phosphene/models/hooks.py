"""Hooks live inside a context manager and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def lent(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Keep hooks for the body, and take every one of them away afterwards, on exceptions too."""
    kept = list(handles)
    try:
        yield
    finally:
        for handle in kept:
            handle.remove()
