"""Small networks that papers on adversarial training use, one a file, each a function of channels, classes and size."""

from __future__ import annotations

from phosphene.models.papers.madry import madry_cnn
from phosphene.models.papers.preact import preact_resnet18
from phosphene.models.papers.trades import trades_cnn
from phosphene.models.papers.wong import wong_cnn

__all__ = ["madry_cnn", "preact_resnet18", "trades_cnn", "wong_cnn"]
