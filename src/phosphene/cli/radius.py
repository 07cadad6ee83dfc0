"""Radii as people write them: `8/255`, `0.03`, or several by comma."""

from __future__ import annotations

import math
from typing import Literal

from phosphene.errors import PhospheneError

LEVELS = 255


def radius(text: str, norm: Literal["linf", "l2"] = "linf") -> float:
    """The radius of a ball in units of [0, 1]: `"8/255"` or `"0.03"`.

    Args:
        text: a number, or one divided by another.
        norm: how it is measured; in `linf` 1 reaches every picture, in `l2` a radius may be larger.

    Raises:
        PhospheneError: no number, NaN or infinity, a negative one, or one in units of [0, 255].
    """
    value = _number(text)
    if value < 0:
        raise PhospheneError(f"a radius is 0 or more, got '{text}'")
    if norm == "linf" and value > 1:
        hint = f"did you mean {value:g}/255?" if value <= LEVELS else "1 reaches every picture"
        raise PhospheneError(f"a radius is in units of [0, 1], got '{text}': {hint}")
    return value


def radii(text: str, norm: Literal["linf", "l2"] = "linf") -> list[float]:
    """Several radii by comma: `"1/255,2/255"`. Raises what `radius` does, and a PhospheneError where there is none."""
    found = [radius(part, norm) for part in text.split(",") if part.strip()]
    if not found:
        raise PhospheneError(f"no radius in '{text}': write them like 1/255,2/255")
    return found


def _number(text: str) -> float:
    above, slash, below = text.strip().partition("/")
    try:
        value = float(above) / float(below) if slash else float(above)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise PhospheneError(f"'{text}' is no radius: write it like 8/255 or 0.03")
    return value
