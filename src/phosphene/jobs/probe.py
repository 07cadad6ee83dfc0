"""`probe`: a linear classifier on every stage of a network, for the classes of a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from phosphene.jobs.lessons import about, gathered, judged, said
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.progress import Job
from phosphene.report.learning_plots import depth_plot
from phosphene.training.features import features_folder
from phosphene.training.probe import Probe, StageProbe
from phosphene.training.probe import probe as fit_probe


def probe(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layers: Sequence[str] = (),
    size: int | None = None,
    balanced: bool = True,
    skip_bad: bool = False,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `depth` (accuracy at each stage) and those of `judged.judge`, for the best stage. It makes a network.

    `layers`: the stages; default: all. `size`: of the square that the network is shown; default: its own.
    """
    network, examples = yield from gathered(workshop, folder, (net, weights, labels), size, seed, skip_bad)
    found = yield from fit_probe(
        network, examples, stages=layers, balanced=balanced, seed=seed, folder=features_folder()
    )
    chosen = found.chosen
    judgement = yield from judged(
        found.network, examples, chosen.probabilities, found.features, found.stages[-1].stage, seed
    )
    rows = [stage_facts(one) for one in found.stages]
    chance = max(examples.counts(examples.val)) / len(examples.val)
    depth = depth_plot(rows, best=chosen.stage, chance=chance)
    alt = f"Accuracy of a linear classifier after each of {len(rows)} stages of {net}; best after {chosen.stage}"
    facts = {
        "net": net, "folder": folder, **about(examples), "stages": rows, "chosen": chosen.stage, "chance": chance,
        "computed": found.features.computed, **judgement.facts, "predictions": said(examples, chosen.probabilities),
    }  # fmt: skip
    pictures = (Picture("depth", depth, alt, told_of(found, net)), *judgement.pictures)
    return Outcome(pictures, facts, network=found.network)


def stage_facts(one: StageProbe) -> dict[str, Any]:
    """How a stage does, for tables and plots."""
    facts = one.scores.facts()
    known = not math.isnan(one.linear.accuracy)
    return {
        "layer": one.stage,
        "width": one.width,
        "accuracy": facts["accuracy"],
        "balanced_accuracy": facts["balanced_accuracy"],
        "log_loss": facts["log_loss"],
        "cross_validated": one.linear.accuracy if known else None,
        "cross_validated_log_loss": one.linear.log_loss if known else None,
        "strength": one.linear.strength,
    }


def told_of(found: Probe, net: str) -> str:
    """What the plot shows, in a sentence."""
    chosen = found.chosen
    return (
        f"A linear classifier after each stage of {net}, which stays as it is. After {chosen.stage}"
        f" ({chosen.width} numbers) it does best in cross-validation; held out: {chosen.scores.accuracy.mean:.1%}."
    )
