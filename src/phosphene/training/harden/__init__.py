"""Robust training: move the weights against the worst pictures nearby."""

from __future__ import annotations

from phosphene.training.harden.hardening import Hardened, harden
from phosphene.training.harden.settings import METHODS, HardenSettings

__all__ = ["METHODS", "HardenSettings", "Hardened", "harden"]
