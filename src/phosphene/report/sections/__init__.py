"""The sections of the tour, in the order of the lecture. A new one is a module here and a line in `SECTIONS`."""

from __future__ import annotations

import importlib

from phosphene.report.stage import Maker

SECTIONS = (
    "predictions",
    "filters",
    "activations",
    "last_layer",
    "explanations",
    "trust",
    "class_images",
    "neurons",
    "dream",
    "inversion",
    "texture",
    "style",
    "texture_shape",
    "fooling",
    "fgsm",
    "robustness",
    "transfer",
)
"""Modules of this package; each has `TITLE` and a function `make(stage)`."""


def title(name: str) -> str:
    """The section's heading."""
    return importlib.import_module(f"{__name__}.{name}").TITLE


def maker(name: str) -> Maker:
    """The section's `make`."""
    return importlib.import_module(f"{__name__}.{name}").make
