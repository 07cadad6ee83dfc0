"""A job as the command line that a person would type for it."""

from __future__ import annotations

import inspect
import shlex
from typing import Any

from phosphene.errors import PhospheneError
from phosphene.jobs import VERBS, function_of

_FLAGS = {
    "classes": "class",
    "units": "unit",
    "methods": "method",
    "layers": "layer",
    "class_name": "class",
    "checks": "check",
    "attacks": "attack",
    "shares": "share",
    "masks": "mask",
    "content_layers": "content-layer",
    "style_layers": "style-layer",
}
_OWN_FLAGS = {  # verbs whose option has another name there
    "finetune": {"layers": "layers"},
    "robustness": {"checks": "checks"},
}
RADII = ("eps", "step", "transfer_eps")  # options that are written as 8/255
_POSITIONAL = ("image", "images", "folder", "styles")
_NO_OPTIONS = ("keep", "known", "save", "resume")  # what a caller hands over, and a recipe can't hold


def command_line(verb: str, parameters: dict[str, Any]) -> str:
    """`phosphene VERB IMAGE --option value ...`, without the options that have their default value."""
    usual, flags = defaults(verb), {**_FLAGS, **_OWN_FLAGS.get(verb, {})}
    words = ["phosphene", verb]
    for name in _POSITIONAL:
        given = parameters.get(name) if _is_path(name, parameters.get(name)) else None
        paths = [given] if isinstance(given, str) else given or []
        words += [shlex.quote(f"./{path}" if path.startswith("-") else path) for path in paths]
    for name, value in parameters.items():
        if _is_path(name, value) or value is None or _same(value, usual.get(name, inspect.Parameter.empty)):
            continue
        flag = flags.get(name, name.replace("_", "-"))
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        text = ",".join(_text(name, one) for one in (value if isinstance(value, (list, tuple)) else [value])) or "none"
        between = "=" if text.startswith("-") else " "
        words.append(f"--{flag}{between}{shlex.quote(text)}")
    return " ".join(words)


def _text(name: str, value: Any) -> str:
    return radius_text(value) if name in RADII and isinstance(value, float) else str(value)


def radius_text(eps: float) -> str:
    """`8/255` or `0.5/255` where that is shorter than the number: `radius` of the command line reads both back exactly."""
    levels, plain = f"{eps * 255:g}", f"{eps:g}" if float(f"{eps:g}") == eps else str(eps)
    return f"{levels}/255" if float(levels) / 255 == eps and len(levels) + 4 < len(plain) else plain


def _is_path(name: str, value: Any) -> bool:
    """Whether a parameter stands without a flag; `images` may also be how many."""
    return name in _POSITIONAL and not isinstance(value, int)


def defaults(verb: str) -> dict[str, Any]:
    """The default of each option of the job `verb` that has one. Raises PhospheneError if there is no such job."""
    if verb not in (*VERBS, "predict"):
        raise PhospheneError(f"this version has no command '{verb}'")
    signature = inspect.signature(function_of(verb)).parameters.values()
    return {p.name: p.default for p in signature if p.default is not p.empty and p.name not in _NO_OPTIONS}


def _same(value: Any, default: Any) -> bool:
    return (
        list(value) == list(default)
        if isinstance(value, (list, tuple)) and isinstance(default, tuple)
        else value == default
    )
