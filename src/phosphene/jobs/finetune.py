"""`finetune`: the last stages of a network, or all of it, learn the classes of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TypeAlias

from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.jobs.lessons import about, gathered, judged, said
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.probe import stage_facts
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import Brake, Job
from phosphene.report.learning_plots import curves_plot
from phosphene.training.features import features_folder, stage_features
from phosphene.training.features import key as features_key
from phosphene.training.finetune import Finetuned
from phosphene.training.finetune import finetune as tune
from phosphene.training.folder import Examples
from phosphene.training.settings import FinetuneSettings
from phosphene.training.stages import stages
from phosphene.training.state import State

ENDED = "ended_after_step"
"""The note of a training that was ended early, by hand."""

Save: TypeAlias = Callable[[Callable[[], State], bool, str], None]
"""Told after each step: what makes the state of this moment, whether an epoch has ended, and the run's key."""


def finetune(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layers: str = "last:2",
    start: str = "probe",
    epochs: int = 10,
    batch: int = 32,
    rate: float | None = None,
    head_rate: float = 1.0,
    decay: float = 0.8,
    optimiser: str = "adamw",
    weight_decay: float = 1e-2,
    warmup: float = 0.1,
    augment: str = "light",
    norms: str = "frozen",
    smoothing: float = 0.0,
    balanced: bool = True,
    ema: float = 0.0,
    patience: int = 5,
    precision: str = "auto",
    size: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
    save: Save | None = None,
    resume: tuple[State, str] | None = None,
) -> Job[Outcome]:
    """Pictures: `curves` and those of `judged.judge`. It makes a network. For the options see `FinetuneSettings`.

    `save` is told where the training is, in the first process only; `resume` is the state that it made, with its key.
    """
    chosen: dict[str, Any] = {
        "layers": layers, "start": start, "epochs": epochs, "batch": batch, "rate": rate, "head_rate": head_rate,
        "decay": decay, "optimiser": optimiser, "weight_decay": weight_decay, "warmup": warmup, "augment": augment,
        "norms": norms, "smoothing": smoothing, "balanced": balanced, "ema": ema, "patience": patience,
        "precision": precision, "seed": seed,
    }  # fmt: skip
    settings = FinetuneSettings(**chosen)
    settings.check()
    network, examples = yield from gathered(workshop, folder, (net, weights, labels), size, seed, skip_bad)
    key = run_key(network, examples, settings)
    found = yield from tune(
        network, examples, settings=settings, folder=features_folder(), resume=resumed(resume, key),
        keep=None if save is None else lambda state, ended: save(state, ended, key),
    )  # fmt: skip
    processes.leave()
    last = stages(network)[-1]
    features = yield from stage_features(network, [*examples.train, *examples.val], [last], folder=features_folder())
    judgement = yield from judged(found.network, examples, found.probabilities, features, last, seed)
    facts = {
        "net": net, "folder": folder, **about(examples), "settings": asdict(settings), "frozen_up_to": found.after,
        "trained_numbers": found.trained, "epochs": list(found.rows), "steps": found.progress.step,
        "seconds": round(found.progress.seconds, 1), "stopped": found.progress.stopped or None,
        "repairs": list(found.progress.repairs), "rate_factor": found.progress.slower,
        "probe": None if found.probe is None else stage_facts(found.probe.chosen), **judgement.facts,
        "predictions": said(examples, found.probabilities),
    }  # fmt: skip
    pictures = judgement.pictures
    if found.rows:
        alt = f"Losses, accuracy and learning rate of {len(found.rows)} epochs of fine-tuning {net}"
        pictures = (Picture("curves", curves_plot(found.rows), alt, told_of(found, net)), *pictures)
    notes: dict[str, Any] = {}
    if workshop.brake.used is not None and found.progress.stopped:
        # The step, not the event, tells where: how many events came before depends on what features were there already.
        notes, workshop.brake = {ENDED: found.progress.step}, Brake()
    return Outcome(pictures, facts, notes=notes, network=found.network)


def run_key(network: Network, examples: Examples, settings: FinetuneSettings) -> str:
    """64 hex digits that tell a training from all others: what it learns, from where, and how."""
    known = [features_key(network, []), examples.hash(), asdict(settings)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def resumed(resume: tuple[State, str] | None, key: str) -> State | None:
    """The state to go on from, which the first process has read. Under torchrun also after a restart."""
    given = processes.gather(resume if processes.first() else None)[0]
    if given is None:
        return None
    state, its = given
    if its != key and processes.restarted():  # of an older run, which this one was to replace
        return None
    if its != key:
        raise PhospheneError(
            "this run was begun with other options, photographs or weights: give the same to go on, or --overwrite instead"
            " of --resume to begin anew"
        )
    return state


def told_of(found: Finetuned, net: str) -> str:
    """What the curves show, in a sentence."""
    last, begun = found.rows[-1], "" if found.probe is None else f" from the linear probe's {_percent(found.probe)}"
    frozen = "all of it" if found.after is None else f"what comes after {found.after}"
    return (
        f"{net}, {frozen}: {found.trained:,} numbers trained in {last['step']} steps{begun};"
        f" held out: {found.scores.accuracy.mean:.1%}."
    )


def _percent(probe: Any) -> str:
    return f"{probe.chosen.scores.accuracy.mean:.1%}"
