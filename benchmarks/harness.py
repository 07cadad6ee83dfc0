"""Ours and a peer in one process: warmed up, alternating, the median of several rounds, the ratio."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Median seconds of ours and of the peer, and the median of the ratios peer / ours, round by round."""

    name: str
    ours: float
    peer: float
    ratio: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return (
            f"{self.name:<44} ours {self.ours * 1e3:9.1f} ms   peer {self.peer * 1e3:9.1f} ms   "
            f"ratio {self.ratio:5.2f}  ({self.lowest:.2f} to {self.highest:.2f})"
        )


def compare(name: str, ours: Callable[[], object], peer: Callable[[], object], *, rounds: int = 7) -> Timing:
    """Run both in turn `rounds` times, after one warm-up of each, changing who goes first."""
    ours()
    peer()
    mine, theirs = [], []
    for place in range(rounds):
        pairs = [(ours, mine), (peer, theirs)]
        for function, times in pairs if place % 2 == 0 else reversed(pairs):
            begun = time.perf_counter()
            function()
            times.append(time.perf_counter() - begun)
    ratios = [b / a for a, b in zip(mine, theirs, strict=True)]
    return Timing(
        name,
        statistics.median(mine),
        statistics.median(theirs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )
