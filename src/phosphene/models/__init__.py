"""Networks: finding them, reading them, naming their layers and classes."""

from __future__ import annotations

from phosphene.models.labels import Labels
from phosphene.models.network import Layer, Network, Prediction
from phosphene.models.preprocess import Preprocess
from phosphene.models.registry import DEFAULT, load
from phosphene.models.small import small
from phosphene.models.units import Unit, parse_unit

__all__ = ["DEFAULT", "Labels", "Layer", "Network", "Prediction", "Preprocess", "Unit", "load", "parse_unit", "small"]
