"""Reading what a network has learned and what it computes."""

from __future__ import annotations

from phosphene.observe.activations import Activations, activations, journey, stages
from phosphene.observe.filters import Filters, filters
from phosphene.observe.gabor import GaborFit, fit_gabor, gabor_chance
from phosphene.observe.landmarks import landmarks
from phosphene.observe.patches import Patch, Patches, patches
from phosphene.observe.receptive_field import receptive_fields

__all__ = [
    "Activations",
    "Filters",
    "GaborFit",
    "Patch",
    "Patches",
    "activations",
    "filters",
    "fit_gabor",
    "gabor_chance",
    "journey",
    "landmarks",
    "patches",
    "receptive_fields",
    "stages",
]
