"""Reading what a network has learned and what it computes."""

from __future__ import annotations

from phosphene.observe.activations import Activations, activations, stages
from phosphene.observe.filters import Filters, filters

__all__ = ["Activations", "Filters", "activations", "filters", "stages"]
