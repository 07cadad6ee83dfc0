"""The commands as pure jobs: parameters in, pictures and facts out.

A job calls the techniques and lays out what they return. It takes a `Workshop` and keyword parameters that fit into
JSON, yields progress events and returns an `Outcome`; it parses, prints and writes nothing. The command line, the tour
and `rerun` all run these same functions, which is why a recipe can make its picture again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phosphene.errors import PhospheneError

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import Job

VERBS = (
    "activations",
    "advise",
    "attack",
    "cue-conflict",
    "dream",
    "embed",
    "explain",
    "filters",
    "finetune",
    "fool",
    "harden",
    "invert",
    "judge-explanations",
    "patch",
    "patches",
    "probe",
    "randomise",
    "robustness",
    "shape-bias",
    "style",
    "texture",
    "universal",
    "visualize",
)
"""The verbs that make pictures."""


def function_of(verb: str) -> Callable[..., Job[Outcome]]:
    """The job of a verb: the function of its name in the module of its name, hyphens as underscores."""
    name = verb.replace("-", "_")
    return getattr(importlib.import_module(f"phosphene.jobs.{name}"), name)


def job(verb: str, workshop: Workshop, parameters: dict[str, Any]) -> Job[Outcome]:
    """The job of `verb` with its parameters. Raises PhospheneError for an unknown verb or parameters it doesn't take."""
    if verb not in VERBS:
        raise PhospheneError(f"no command '{verb}' makes pictures: {', '.join(VERBS)} do")
    try:
        return function_of(verb)(workshop, **parameters)
    except TypeError as problem:
        raise PhospheneError(f"'{verb}' was recorded with other options than this version has: {problem}") from problem
