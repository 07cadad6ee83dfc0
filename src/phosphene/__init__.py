"""Phosphene: see what convolutional networks see.

Importing the package is cheap; its parts load when they are first used::

    import phosphene

    network = phosphene.load("efficientnet_lite0")
    image = phosphene.images.read("photo.jpg")
    print(network.predict(image))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBMODULES = (
    "attacks", "cli", "device", "errors", "explain", "images", "jobs", "models", "observe", "progress", "recipe",
    "report", "synthesize", "training",
)  # fmt: skip
_NAMES = {"load": "phosphene.models", "Network": "phosphene.models", "PhospheneError": "phosphene.errors"}

if TYPE_CHECKING:
    from phosphene import (  # noqa: F401
        attacks,
        device,
        errors,
        explain,
        images,
        jobs,
        models,
        observe,
        progress,
        recipe,
        report,
        synthesize,
        training,
    )  # fmt: skip
    from phosphene.errors import PhospheneError
    from phosphene.models import Network, load

__all__ = ["Network", "PhospheneError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _SUBMODULES:
        return importlib.import_module(f"phosphene.{name}")
    raise AttributeError(f"module 'phosphene' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *_SUBMODULES, *_NAMES])
