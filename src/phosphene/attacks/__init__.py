"""Moving an image inside a small set until the network is fooled."""

from __future__ import annotations

from phosphene.attacks.apgd import apgd, apgd_targeted
from phosphene.attacks.autoattack import AutoAttacked, Stage, standard
from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.carlini_wagner import carlini_wagner
from phosphene.attacks.control import noisy
from phosphene.attacks.curve import Curve, curve
from phosphene.attacks.deepfool import deepfool
from phosphene.attacks.fab import fab, fab_targeted
from phosphene.attacks.fgsm import fgsm
from phosphene.attacks.fooling import Fooled, fool
from phosphene.attacks.masking import Finding, Masking, masking
from phosphene.attacks.momentum import mi_fgsm, ni_fgsm
from phosphene.attacks.named import ATTACKS, Named, attack
from phosphene.attacks.patch import Patched, patch
from phosphene.attacks.pgd import bim, pgd
from phosphene.attacks.result import Result
from phosphene.attacks.square import square
from phosphene.attacks.transfer import Transfer, transfer
from phosphene.attacks.universal import Universal, universal

__all__ = [
    "ATTACKS",
    "AutoAttacked",
    "Ball",
    "Curve",
    "Finding",
    "Fooled",
    "Masking",
    "Named",
    "Norm",
    "Patched",
    "Result",
    "Stage",
    "Transfer",
    "Universal",
    "apgd",
    "apgd_targeted",
    "attack",
    "bim",
    "carlini_wagner",
    "curve",
    "deepfool",
    "fab",
    "fab_targeted",
    "fgsm",
    "fool",
    "masking",
    "mi_fgsm",
    "ni_fgsm",
    "noisy",
    "patch",
    "pgd",
    "square",
    "standard",
    "transfer",
    "universal",
]
