"""What `universal` and `patch` share: photographs to make one thing from, others to try it on, and what came of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene.attacks import Result
from phosphene.attacks.many import everyones
from phosphene.attacks.trial import attacked
from phosphene.attacks.victim import gives_probabilities
from phosphene.errors import ImageError, PhospheneError
from phosphene.images import Panel
from phosphene.jobs.attacked import share
from phosphene.jobs.labelled import coloured, labelled, photograph
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network

KEPT_BACK = 4
"""Every so many-th photograph is not made from, but tried on."""

SHOWN = 4
"""Photographs on the sheet that it was tried on."""


@dataclass(frozen=True, eq=False)
class Photos:
    """Photographs that the network sees rightly, with their classes.

    Attributes:
        made_on, tried_on: `[N, C, H, W]` and `[M, C, H, W]` in [0, 1].
        made_labels, tried_labels: `[N]` and `[M]`.
        wrong: how many others are misread as they are.
        aimed: how many are of the target's class already.
        skipped: path -> why it can't be read.
        truth: where the classes come from, see `labelled`.
        probabilities: the network gives probabilities.
    """

    made_on: Tensor
    made_labels: Tensor
    tried_on: Tensor
    tried_labels: Tensor
    wrong: int
    aimed: int
    skipped: Mapping[str, str]
    truth: str
    probabilities: bool


def gather(
    workshop: Workshop, network: Network, folder: str, truth: str, images: int, target: int | None, what: str
) -> Photos:
    """Read a folder, leave out what is misread or of the target's class, and keep a quarter back.

    Raises:
        PhospheneError: too few photographs are left; or see `labelled`.
    """
    found = labelled(workshop, folder, network, truth).first(images)
    photos: list[Tensor] = []
    truths: list[int | None] = []
    skipped: dict[str, str] = {}
    for place, path in enumerate(found.paths):
        try:
            photos.append(photograph(network, path))
            truths.append(found.labels[place])
        except ImageError as problem:
            skipped[found.shown(place)] = str(problem)
    if not photos:
        raise PhospheneError(f"none of the {len(found.paths)} photographs can be read: {next(iter(skipped.values()))}")
    batch = torch.stack(photos)
    seen = [one.indices[0] for one in network.predict(batch, 1)]
    labels = [guess if label is None else label for guess, label in zip(seen, truths, strict=True)]
    right = [place for place, guess in enumerate(seen) if guess == labels[place]]
    going = [place for place in right if labels[place] != target]
    if len(going) < KEPT_BACK:
        aimed = f" ({len(right) - len(going)} more are of the target's class)" if len(right) > len(going) else ""
        raise PhospheneError(
            f"{what} is made from {KEPT_BACK} photographs or more that the network sees rightly: there are"
            f" {len(going)}{aimed}"
        )
    back = going[KEPT_BACK - 1 :: KEPT_BACK]
    made = [place for place in going if place not in set(back)]
    chosen = torch.tensor(labels, device=network.device)
    return Photos(
        batch[made], chosen[made], batch[back], chosen[back], len(photos) - len(right), len(right) - len(going), skipped,
        found.truth, gives_probabilities(network),
    )  # fmt: skip


def changed(network: Network, photos: Photos, images: Tensor, target: int | None) -> Result:
    """What the network makes of `images`, which stand for the photographs that were kept back."""
    aims = everyones(target, len(images))
    with attacked(
        network, photos.tried_on, photos.tried_labels, eps=None, norm="linf", targets=aims, quantize=True,
        probabilities=photos.probabilities,
    ) as trial:  # fmt: skip
        trial.images = images
        return trial.result()


def fooled(result: Result) -> dict[str, float | int]:
    """The share that is fooled, of those that were right, with its interval."""
    right = ~result.wrong
    return share(int(result.success.sum()), int(right.sum()))


def counted(count: int) -> str:
    """`1 photograph`, `12 photographs`."""
    return f"{count} photograph" if count == 1 else f"{count} photographs"


def facts(network: Network, net: str, photos: Photos, target: int | None) -> dict[str, Any]:
    """What both tell of their photographs."""
    return {
        "net": net,
        "truth": photos.truth,
        "probabilities": photos.probabilities,
        "target": None if target is None else {"index": target, "name": network.labels[target]},
        "made_on": len(photos.made_on),
        "tried_on": len(photos.tried_on),
        "wrong": photos.wrong,
        "aimed": photos.aimed,
        "skipped": dict(photos.skipped),
    }


def panels(network: Network, result: Result) -> list[Panel]:
    """Some of the photographs that it was tried on, those that fool first."""
    order = result.success.long().argsort(descending=True, stable=True)[:SHOWN]
    before = network.predict(result.originals[order], 1)
    after = network.predict(result.images[order], 1)
    return [
        Panel(
            coloured(result.images[place]),
            f"{one.names[0]} {one.probabilities[0]:.0%}",
            f"was {was.names[0]} {was.probabilities[0]:.0%}",
        )
        for place, was, one in zip(order, before, after, strict=True)
    ]
