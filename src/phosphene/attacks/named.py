"""The attacks by name, for whoever chooses one in words: what each does, what it can be asked for, and one way to call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from phosphene.attacks.apgd import apgd, apgd_targeted
from phosphene.attacks.autoattack import AutoAttacked, standard
from phosphene.attacks.ball import Norm
from phosphene.attacks.carlini_wagner import carlini_wagner
from phosphene.attacks.deepfool import deepfool
from phosphene.attacks.fab import fab, fab_targeted
from phosphene.attacks.fgsm import fgsm
from phosphene.attacks.momentum import mi_fgsm, ni_fgsm
from phosphene.attacks.pgd import bim, pgd
from phosphene.attacks.result import Result
from phosphene.attacks.square import square
from phosphene.errors import PhospheneError, did_you_mean
from phosphene.models import Network
from phosphene.progress import Job


@dataclass(frozen=True)
class Named:
    """One attack.

    Attributes:
        name: as the command line calls it.
        function: takes `(network, images, labels, *, eps, norm, ...)`.
        idea: in a line.
        paper: where it comes from.
        norms: what it can measure in, the usual one first.
        smallest: it looks for the smallest change, so that it needs no `eps`.
        aims: it can be told which class to reach (`targets`).
        gradients: it reads the network's gradients.
        counted: the number that says how long it goes on is called so; None: it has none.
    """

    name: str
    function: Callable[..., Job[Result] | Job[AutoAttacked]]
    idea: str
    paper: str
    norms: tuple[Norm, ...] = ("linf", "l2")
    smallest: bool = False
    aims: bool = True
    gradients: bool = True
    counted: str | None = "steps"


_EVERY = (
    Named("fgsm", fgsm, "one step along the sign of the gradient", "Goodfellow et al. 2015", counted=None),
    Named("bim", bim, "many small steps, from the image itself", "Kurakin et al. 2017"),
    Named("pgd", pgd, "many small steps, from a random point of the ball", "Madry et al. 2018"),
    Named("mi-fgsm", mi_fgsm, "steps with momentum, which transfer to other networks", "Dong et al. 2018"),
    Named("ni-fgsm", ni_fgsm, "momentum that looks ahead", "Lin et al. 2020"),
    Named(
        "deepfool", deepfool, "to the nearest boundary, as if all were straight", "Moosavi-Dezfooli et al. 2016",
        norms=("l2",), smallest=True,
    ),
    Named(
        "carlini-wagner", carlini_wagner, "the smallest change by optimisation and bisection", "Carlini & Wagner 2017",
        norms=("l2",), smallest=True,
    ),
    Named("apgd", apgd, "PGD whose steps adapt by themselves", "Croce & Hein 2020", aims=False),
    Named("apgd-targeted", apgd_targeted, "the same, at each likely class in turn", "Croce & Hein 2020", aims=False),
    Named("fab", fab, "along the boundary, back to the image", "Croce & Hein 2020", smallest=True, aims=False),
    Named(
        "fab-targeted", fab_targeted, "the same, at each likely class in turn", "Croce & Hein 2020", smallest=True, aims=False
    ),
    Named(
        "square", square, "random squares, without any gradient", "Andriushchenko et al. 2020", aims=False, gradients=False
    ),
    Named("autoattack", standard, "APGD, APGD-T, FAB-T and Square; the worst counts", "Croce & Hein 2020", aims=False),
)  # fmt: skip

ATTACKS: dict[str, Named] = {attack.name: attack for attack in _EVERY}
"""Name -> attack, from the simplest to the most thorough."""


def named(name: str) -> Named:
    """The attack of that name. Raises a PhospheneError if there is none."""
    if name not in ATTACKS:
        hint = did_you_mean(name, ATTACKS) or ":"
        raise PhospheneError(f"there is no attack '{name}'{hint} There are {', '.join(ATTACKS)}")
    return ATTACKS[name]


def attack(
    name: str,
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None,
    norm: Norm | None = None,
    steps: int | None = None,
    targets: Tensor | Sequence[int] | None = None,
    **shared: Any,
) -> Job[Result]:
    """Run the attack called `name`.

    Args:
        name: one of `ATTACKS`.
        network, images, labels: see `pgd`.
        eps: the radius in units of [0, 1]; None only for those that look for the smallest change.
        norm: None: what is usual for it.
        steps: None: its own number. Square's are queries.
        targets: the classes to reach; None: any but the label.
        shared: `seed`, `keys`, `mask`, `quantize`, `probabilities`, and what only this attack takes.

    Raises:
        PhospheneError, LabelError, NetworkError: an unknown attack, something that it can't be asked for, or see `pgd`.
    """
    chosen = named(name)
    check(chosen, eps=eps, norm=norm, steps=steps, aimed=targets is not None)
    options = dict(shared)
    if steps is not None and chosen.counted is not None:
        options[chosen.counted] = steps
    if targets is not None:
        options["targets"] = targets
    found = yield from chosen.function(network, images, labels, eps=eps, norm=norm or chosen.norms[0], **options)
    return found.result if isinstance(found, AutoAttacked) else found


def check(
    chosen: Named,
    *,
    eps: float | Tensor | None,
    norm: str | None = None,
    steps: int | None = None,
    aimed: bool = False,
) -> None:
    """Raises a PhospheneError for what this attack can't be asked for."""
    if norm is not None and norm not in chosen.norms:
        raise PhospheneError(f"{chosen.name} measures in {' or '.join(chosen.norms)}, not in {norm}")
    if eps is None and not chosen.smallest:
        raise PhospheneError(f"{chosen.name} needs a radius: give --eps, such as 2/255")
    if steps is not None and chosen.counted is None:
        raise PhospheneError(f"{chosen.name} takes one step: leave --steps away")
    if aimed and not chosen.aims:
        aiming = ", ".join(name for name, one in ATTACKS.items() if one.aims)
        raise PhospheneError(f"{chosen.name} can't be told which class to reach; these can: {aiming}")
