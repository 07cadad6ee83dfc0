"""Reading what a network has learned and what it computes."""

from __future__ import annotations

from phosphene.observe.activations import Activations, activations, stages
from phosphene.observe.filters import Filters, filters
from phosphene.observe.patches import Patch, Patches, patches
from phosphene.observe.receptive_field import receptive_fields

__all__ = [
    "Activations",
    "Filters",
    "Patch",
    "Patches",
    "activations",
    "filters",
    "patches",
    "receptive_fields",
    "stages",
]
