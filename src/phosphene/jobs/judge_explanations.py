"""`judge-explanations`: every method on the same folder of photographs, by every check."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from phosphene.errors import PhospheneError
from phosphene.explain import METHODS
from phosphene.explain.judge import BETTER, CHECKS, Judgement, Plan, Record, judge
from phosphene.explain.metrics.baselines import BASELINES
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.progress import Job
from phosphene.report.plots import curves, dots

AFFORDABLE = 200  # passes of the network per image; the slower methods run when they are named


def judge_explanations(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    methods: Sequence[str] = (),
    checks: Sequence[str] = (),
    images: int = 20,
    mosaics: int = 20,
    steps: int = 8,
    seed: int = 0,
    score: str = "logit",
    known: Collection[Record] = (),
    keep: Callable[[Sequence[Record]], None] | None = None,
) -> Job[Outcome]:
    """Pictures: `judge` (dots with intervals for each check) and `randomisation` (curves). Facts: the table.

    No `methods`: all that cost up to some 200 passes of the network; `all`: all. The two baselines are always there.
    """
    check_seed(seed)
    plan = Plan(_methods(methods), tuple(dict.fromkeys(checks)) or CHECKS, images, mosaics, steps, seed, score)
    network = workshop.network(net, weights, labels)
    try:
        collection = workshop.images(folder, network)
        judgement = yield from judge(network, collection, plan, known=known, keep=keep)
    except PhospheneError as problem:
        if "mosaics need images" in str(problem):
            raise PhospheneError(f"{problem}: give a folder with more, or --check without focus") from None
        raise
    skipped = {str(collection.paths[place]): why for place, why in judgement.skipped.items()}
    return _outcome(net, judgement, skipped)


def _methods(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        chosen = [name for name, method in METHODS.items() if method.passes <= AFFORDABLE]
    else:
        chosen = list(METHODS) if list(names) == ["all"] else list(names)
    return tuple(dict.fromkeys([*chosen, *BASELINES]))


def _outcome(net: str, judgement: Judgement, skipped: dict[str, str]) -> Outcome:
    table = judgement.table()
    order = [name for name in (*METHODS, *BASELINES) if name in table]
    table = {name: table[name] for name in order}
    pictures = [
        Picture("judge", dots(table), f"Explanations of {net}, judged", "Mean over images, with its 95% interval.")
    ]
    cascades = {check: judgement.cascade(check) for check in ("ssim", "rank")}
    if cascades["ssim"]:
        alt = f"How like the explanations of {net} stay while its layers are drawn anew"
        pictures.append(
            Picture("randomisation", curves(cascades), alt, "A map that stays does not explain the network.")
        )
    facts: dict[str, Any] = {
        "net": net,
        "better": BETTER,
        "methods": {
            name: {
                check: {"mean": found.mean, "low": found.low, "high": found.high, "count": found.count}
                for check, found in row.items()
            }
            for name, row in table.items()
        },
        "randomisation": cascades,
        "refused": judgement.refused,
        "skipped": skipped,
    }
    return Outcome(tuple(pictures), facts)
