"""What Phosphene raises when its input is wrong: one line that says what was wrong and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PhospheneError(ValueError):
    """Input that can't be used. The message is one line, fit for a terminal: the command line prints it and exits with 2."""


class ImageError(PhospheneError):
    """A file that can't be read or written as an image."""


class NetworkError(PhospheneError):
    """A network that can't be found, built or used for what was asked."""


class WeightsError(NetworkError):
    """Weights that can't be read, can't be trusted, or don't fit the network."""


class LayerError(PhospheneError):
    """A layer, unit or position that the network doesn't have."""


class LabelError(PhospheneError):
    """A class that the network doesn't have, or a name that means several."""


class RuleError(PhospheneError):
    """A backward rule (guided backpropagation, ...) met an operation that it is not defined for."""


class OutputError(PhospheneError):
    """A file or folder that can't be written, or that exists and would be overwritten."""


def nearest(wrong: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` names of `known` most like `wrong`: those that contain it first, then by edit similarity."""
    names = list(dict.fromkeys(known))
    lowered = wrong.lower()
    containing = sorted((name for name in names if lowered and lowered in name.lower()), key=len)
    similar = difflib.get_close_matches(lowered, [name.lower() for name in names], n=count * 2, cutoff=0.5)
    by_lower = {name.lower(): name for name in reversed(names)}
    return list(dict.fromkeys(containing + [by_lower[name] for name in similar]))[:count]


def did_you_mean(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """`'; did you mean a, b or c?'`, or an empty string when nothing is near."""
    near = nearest(wrong, known, count)
    if not near:
        return ""
    return "; did you mean " + (", ".join(near[:-1]) + " or " + near[-1] if len(near) > 1 else near[0]) + "?"
