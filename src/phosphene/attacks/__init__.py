"""Moving an image inside a small set until the network is fooled."""

from __future__ import annotations

from phosphene.attacks.fooling import Fooled, fool
from phosphene.attacks.projected import Ball

__all__ = ["Ball", "Fooled", "fool"]
