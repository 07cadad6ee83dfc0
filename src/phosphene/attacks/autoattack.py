"""AutoAttack: four attacks that fail for different reasons, one after the other, and the worst counts.

    APGD-CE  ->  APGD-T (targeted DLR)  ->  FAB-T  ->  Square

Each one gets the images that are still robust. There is nothing to tune, so that numbers can be compared.

Most of the time goes into images that nothing will ever fool. A run of the last three gives an image up once it is hopeless:
if ten times what the last phase has gained would not fool the network, though gains shrink from phase to phase. Phases go
from checkpoint to checkpoint (APGD-T), are 5 steps (FAB-T) or a tenth of the queries (Square). `patience=None` is the paper
to the letter; whatever is fooled with patience is fooled without, too.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020,
section 6.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks.apgd import apgd, apgd_targeted
from phosphene.attacks.ball import Norm
from phosphene.attacks.fab import fab_targeted
from phosphene.attacks.result import Result
from phosphene.attacks.square import square
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job

Name: TypeAlias = Literal["apgd-ce", "apgd-t", "fab-t", "square"]
STANDARD: tuple[Name, ...] = get_args(Name)
STAGES: dict[Name, Callable[..., Job[Result]]] = {
    "apgd-ce": apgd,
    "apgd-t": apgd_targeted,
    "fab-t": fab_targeted,
    "square": square,
}


@dataclass(frozen=True)
class Stage:
    """One attack of the sequence.

    Attributes:
        name: which.
        attacked: how many images it got.
        fooled: how many of them it fooled.
        accuracy: share of all images that are right before and after it.
    """

    name: Name
    attacked: int
    fooled: int
    accuracy: float


@dataclass(frozen=True)
class AutoAttacked:
    """What came of all stages.

    Attributes:
        result: the worst case, with the passes of all stages.
        stages: what each one did, in their order.
        clean: share of the images that are right before any attack.
    """

    result: Result
    stages: tuple[Stage, ...]
    clean: float


def standard(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 100,
    queries: int = 5000,
    classes: int = 9,
    patience: float | None = 10.0,
    stages: Sequence[Name] = STANDARD,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[AutoAttacked]:
    """The paper's standard version, but for what is hopeless; with `patience=None` to the letter, for published comparisons.

    Args:
        network: a network, or any module that takes images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1], for all images or `[N]`.
        norm: `linf` or `l2`.
        steps: of APGD and FAB, for each class aimed at.
        queries: of Square.
        classes: how many classes APGD-T and FAB-T aim at; at most all but the label.
        patience: how many times the last phase's gain may be hoped for, see above. None: without end.
        stages: which attacks, in which order.
        seed: decides all random numbers.
        keys, mask, quantize, probabilities: see `trial.attacked`.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or numbers or stages that make no sense.
    """
    checks.count(steps, "steps")
    checks.count(queries, "queries")
    checks.count(classes, "classes")
    for name in stages:
        if name not in STAGES:
            raise PhospheneError(f"unknown stage '{name}': choose from {', '.join(STANDARD)}")
    towards = {"steps": steps, "classes": classes, "patience": patience}
    options: dict[Name, dict[str, Any]] = {
        "apgd-ce": {"steps": steps},
        "apgd-t": towards,
        "fab-t": towards,
        "square": {"steps": queries, "patience": patience},
    }
    shared = {"norm": norm, "seed": seed, "quantize": quantize, "probabilities": probabilities}
    with attacked(network, images, labels, eps=eps, keys=keys, mask=mask, **shared) as trial:
        done = []
        for name in stages:
            done.append((yield from _stage(trial, name, keys, shared | options[name])))
        clean = 1 - float(trial.wrong.double().mean())
        return AutoAttacked(trial.result(), tuple(done), clean)


def _stage(trial: Trial, name: Name, keys: Sequence[int | str] | None, options: dict[str, Any]) -> Job[Stage]:
    """One attack on what is still robust; what it finds goes into the trial."""
    which = trial.open()
    fooled = 0
    if len(which):
        ball = trial.ball.at(which)
        found = yield from STAGES[name](
            trial.victim.network,
            trial.originals[which],
            trial.labels[which],
            eps=ball.eps,
            mask=ball.mask,
            keys=None if keys is None else [keys[place] for place in which.tolist()],
            **options,
        )
        fooled = _taken(trial, which, found)
    robust = float((~(trial.wrong | trial.fooled)).double().mean())
    return Stage(name, len(which), fooled, robust)


def _taken(trial: Trial, which: Tensor, found: Result) -> int:
    """Note what fools, or the best try, and the passes that it took; how many images were fooled."""
    places = which.cpu()
    trial.victim.forwards[places] += found.forwards
    trial.victim.backwards[places] += found.backwards
    got = found.success
    trial.images[which] = found.images
    trial.fooled[which] = got
    return int(got.sum())
