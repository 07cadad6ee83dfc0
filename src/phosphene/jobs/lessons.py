"""What `probe`, `finetune` and `advise` share: the folder, the network at the size asked for, and facts about both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from phosphene.errors import PhospheneError
from phosphene.jobs.judged import Judgement, judge
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.models.registry import sized
from phosphene.progress import Job
from phosphene.recipe import hash_file
from phosphene.training.features import StageFeatures
from phosphene.training.folder import Examples, examples

SMALLEST = 16


def gathered(
    workshop: Workshop,
    folder: str,
    source: tuple[str, str | None, str | None],
    size: int | None,
    seed: int,
    skip_bad: bool,
) -> Job[tuple[Network, Examples]]:
    """The network (at another input size, if one is given) and the photographs of the folder."""
    check_seed(seed)
    if size is not None and size < SMALLEST:
        raise PhospheneError(f"--size starts at {SMALLEST} pixels, got {size}")
    network = workshop.network(*source)
    network = network if size is None else sized(network, size)
    there = workshop.find(folder)
    found = yield from examples(there, seed=seed, skip_bad=skip_bad)
    workshop.inputs[folder] = hash_file(there)
    return network, found


def about(examples: Examples) -> dict[str, Any]:
    """What is known of the folder."""
    return {
        "classes": list(examples.classes),
        "photographs": {
            "train": dict(zip(examples.classes, examples.counts(), strict=True)),
            "val": dict(zip(examples.classes, examples.counts(examples.val), strict=True)),
        },
        "split": "its own val" if examples.split is None else f"a fifth of each class held out, seed {examples.split}",
        "skipped": dict(examples.skipped),
    }


def judged(
    network: Network, examples: Examples, probabilities: np.ndarray, features: StageFeatures, stage: str, seed: int
) -> Job[Judgement]:
    """The judgement of a network by its held-out photographs; duplicates and doubts by the features of `stage`."""
    train = torch.from_numpy(features.table(stage, examples.train))
    val = torch.from_numpy(features.table(stage, examples.val))
    return (yield from judge(network, examples, torch.from_numpy(probabilities), train, val, seed=seed))


def said(examples: Examples, probabilities: np.ndarray) -> list[dict[str, Any]]:
    """What is said of each held-out photograph."""
    best = probabilities.argmax(1)
    return [
        {
            "image": photo.path.relative_to(examples.folder).as_posix(),
            "class": examples.classes[photo.label],
            "said": examples.classes[label],
            "probability": float(row[label]),
        }
        for photo, label, row in zip(examples.val, best.tolist(), probabilities, strict=True)
    ]


def told(facts: Mapping[str, Any]) -> list[str]:
    """What the facts say, in sentences."""
    accuracy, counts = facts["accuracy"], facts["photographs"]
    words = [
        f"{facts['net']} on {sum(counts['val'].values()):,} photographs that it did not learn from ({facts['split']}):"
        f" {accuracy['mean']:.1%} right (95% interval {accuracy['low']:.1%} to {accuracy['high']:.1%}), balanced"
        f" {facts['balanced_accuracy']['mean']:.1%}."
    ]
    if facts["duplicates"]:
        words.append(
            f"{len(facts['duplicates'])} of them are also among those to learn from, so that this looks better than it is."
        )
    if facts["suspicious"]:
        words.append(f"{len(facts['suspicious'])} labels are worth a second look: see the report.")
    return words
