"""Moving an image inside a small set until the network is fooled."""

from __future__ import annotations

from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.carlini_wagner import carlini_wagner
from phosphene.attacks.deepfool import deepfool
from phosphene.attacks.fgsm import fgsm
from phosphene.attacks.fooling import Fooled, fool
from phosphene.attacks.momentum import mi_fgsm, ni_fgsm
from phosphene.attacks.pgd import bim, pgd
from phosphene.attacks.result import Result

__all__ = [
    "Ball",
    "Fooled",
    "Norm",
    "Result",
    "bim",
    "carlini_wagner",
    "deepfool",
    "fgsm",
    "fool",
    "mi_fgsm",
    "ni_fgsm",
    "pgd",
]
