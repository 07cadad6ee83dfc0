"""What attacks on a folder of photographs come to, in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from phosphene.observe.shape_bias import wilson


def summary(rows: Sequence[Mapping[str, Any]], attacks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """`images`, `wrong`, `clean`, `attacks` (one entry each) and `worst`; shares with their 95% intervals (Wilson).

    `worst`: the share that is right after all attacks; None where these had different limits, so that it would mean nothing.

    Args:
        rows: one for each photograph and attack, see `jobs.attack`.
        attacks: name -> the keywords it was called with.
    """
    by = {name: [row for row in rows if row["attack"] == name] for name in attacks}
    first = next(iter(by.values()))
    wrong = sum(row["wrong"] for row in first)
    fallen = {row["image"] for row in rows if not (row["wrong"] or _right(row))}
    limits = {(called["eps"], called["norm"]) for called in attacks.values()}
    return {
        "images": len(first),
        "wrong": wrong,
        "clean": share(len(first) - wrong, len(first)),
        "attacks": {name: _one(some, attacks[name]) for name, some in by.items()},
        "worst": share(len(first) - wrong - len(fallen), len(first)) if len(limits) == 1 else None,
    }


def share(count: int, total: int) -> dict[str, float | int]:
    """A share with the ends of its interval."""
    found = wilson(count, total)
    return {"mean": found.mean, "low": found.low, "high": found.high, "count": count}


def _right(row: Mapping[str, Any]) -> bool:
    """Whether a photograph is seen as what it is after the attack; one that wanted a class may have reached a third."""
    return not (row["wrong"] or row["success"]) and row["after"]["index"] == row["label"]["index"]


def _one(rows: Sequence[Mapping[str, Any]], called: Mapping[str, Any]) -> dict[str, Any]:
    attacked = [row for row in rows if not row["wrong"]]
    fooled = [row for row in attacked if row["success"]]
    return {
        "eps": called["eps"],
        "norm": called["norm"],
        "attacked": len(attacked),
        "fooled": len(fooled),
        "accuracy": share(sum(_right(row) for row in rows), len(rows)),
        "survives": sum(row["survives"] for row in fooled),
        "l2": median(row["l2"] for row in fooled) if fooled else None,
        "linf": median(row["linf"] for row in fooled) if fooled else None,
        "forwards": mean(row["forwards"] for row in attacked) if attacked else 0.0,
        "backwards": mean(row["backwards"] for row in attacked) if attacked else 0.0,
    }
