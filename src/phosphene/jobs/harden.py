"""`harden`: a network that stands against small changes, and how far it does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from phosphene import processes
from phosphene.attacks import attack, curve, masking, noisy
from phosphene.errors import PhospheneError
from phosphene.jobs.attacked import share
from phosphene.jobs.finetune import ENDED, resumed
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.models.small import is_small, small
from phosphene.models.weights import digest
from phosphene.progress import Brake, Job, Started, Step, relay
from phosphene.recipe import hash_file
from phosphene.report.attack_plots import curve_plot, hardening_plot
from phosphene.training.datasets import read_data
from phosphene.training.harden import Hardened, HardenSettings
from phosphene.training.harden import harden as train
from phosphene.training.harden.settings import Method, Moves
from phosphene.training.split import Data
from phosphene.training.state import State

Save: TypeAlias = Callable[[Callable[[], State], bool, str], None]

USUAL = {"mnist": 0.3, "fashion-mnist": 0.1}
"""The radius where none is given, by data set."""

OTHERS = 8 / 255
"""For all others."""

RADII = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
"""Of the curve, in units of the radius that it was hardened for."""

CURVE, CHECKED, TOGETHER = 300, 64, 250
"""Test pictures for the curve and for the checks for masked gradients, at most; pictures that are looked at together."""


def harden(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "trades_cnn",
    weights: str | None = None,
    labels: str | None = None,
    method: Method = "atta",
    eps: float | None = None,
    steps: int | None = None,
    step: float | None = None,
    replays: int = 5,
    beta: float = 1.0,
    ramp: float = 1.0,
    epochs: int = 15,
    batch: int = 100,
    rate: float = 2e-3,
    optimiser: Literal["adam", "sgd"] = "adam",
    weight_decay: float = 0.0,
    warmup: float = 0.3,
    augment: Moves = "none",
    ema: float = 0.999,
    hold: int = 1000,
    patience: int = 0,
    guard: bool = True,
    size: int | None = None,
    judge: str = "pgd",
    tested: int = 1000,
    seed: int = 0,
    save: Save | None = None,
    resume: tuple[State, str] | None = None,
) -> Job[Outcome]:
    """Pictures: `curves` (of the training) and `robustness` (accuracy against eps). It makes a network.

    For the options see `HardenSettings`; `judge`: `pgd` or `autoattack`, on the first `tested` test pictures. Facts: `test`,
    with the shares of test pictures that are right as they are (`clean`, of all), under the judge's attack (`robust`) and
    under noise (`noise`); `epochs`, `best`, `gradients`, `mended` (by the guard), `curve`, `findings` and `masked`.

    `save` is told where the training is, in the first process only; `resume` is the state that it made, with its key.
    """
    check_seed(seed)
    settings = HardenSettings(
        method=method, eps=OTHERS if eps is None else eps, steps=steps, step=step, replays=replays,
        beta=beta, ramp=ramp, epochs=epochs, batch=batch,
        rate=rate, optimiser=optimiser, weight_decay=weight_decay, warmup=warmup, augment=augment, ema=ema, hold=hold,
        patience=patience, guard=guard, seed=seed,
    )  # fmt: skip
    settings.check()
    if judge not in ("pgd", "autoattack"):
        raise PhospheneError(f"--judge is pgd or autoattack, not '{judge}'")
    if tested < 1:
        raise PhospheneError(f"--tested is a number of test pictures from 1, got {tested}")
    learned = None if is_small(net) and weights is None else workshop.network(net, weights, labels)
    data = yield from read_data(workshop.find(folder) if Path(folder).is_dir() else folder, size=size, seed=seed)
    if eps is None:
        settings = replace(settings, eps=USUAL.get(data.name, OTHERS))
    if workshop.find(folder).is_dir():
        workshop.inputs[folder] = hash_file(workshop.find(folder))
    network = learned or _anew(workshop, net, data, seed)
    key = run_key(network, data, settings)
    found = yield from train(
        network, data, settings=settings, resume=resumed(resume, key),
        keep=None if save is None else lambda state, ended: save(state, ended, key),
    )  # fmt: skip
    processes.leave()
    judged = yield from _judged(found.network, data, settings, judge, tested)
    facts = {
        "net": net, "folder": folder, "data": data.name, "classes": list(data.classes),
        "pictures": {"train": len(data.train) - settings.hold, "held_out": settings.hold, "test": len(data.test)},
        "settings": asdict(settings), "epochs": list(found.rows), "best": found.best,
        "eps": settings.eps, "gradients": round(found.gradients, 2), "steps": found.progress.step,
        "seconds": round(found.progress.seconds, 1), "stopped": found.progress.stopped or None,
        "repairs": list(found.progress.repairs), "mended": list(found.progress.notes.get("mended", [])), **judged,
    }  # fmt: skip
    notes: dict[str, Any] = {}
    if workshop.brake.used is not None and found.progress.stopped:
        notes, workshop.brake = {ENDED: found.progress.step}, Brake()
    return Outcome(_pictures(found, facts, net), facts, notes=notes, network=found.network)


def run_key(network: Network, data: Data, settings: HardenSettings) -> str:
    """64 hex digits that tell a training from all others: what it learns, from where, and how."""
    known = [str(network.architecture), digest(network.module.state_dict()), data.hash(), asdict(settings)]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _anew(workshop: Workshop, net: str, data: Data, seed: int) -> Network:
    """A paper's network, made for these pictures."""
    shape = {} if ":" in net else {"channels": data.channels, "size": data.size}
    network = small(net, labels=data.classes, seed=seed % 2**63, **shape).to(workshop.device)
    workshop.networks[net] = digest(network.module.state_dict())
    return network


# -- how far it stands --------------------------------------------------------------------------------------------------


def _judged(network: Network, data: Data, settings: HardenSettings, judge: str, tested: int) -> Job[dict[str, Any]]:
    """Facts about the test pictures."""
    eps, seed = settings.eps, settings.seed
    yield Started("judging", len(data.test), "image")
    right = 0
    for images, labels in data.test.batches(TOGETHER):
        right += int((_seen(network, images) == labels).sum())
        yield Step(right)
    images, labels = (part.to(network.device) for part in data.test.batch(slice(0, tested)))
    result = yield from attack(
        "autoattack" if judge == "autoattack" else "pgd", network, images, labels, eps=eps, seed=seed
    )
    shaken = int((_seen(network, noisy(images, eps, "linf", seed=seed)) == labels.cpu()).sum())
    radii = [eps * factor for factor in RADII if eps * factor < 1]
    some = images[:CURVE], labels[:CURVE]
    drawn = yield from relay(curve(network, *some, eps=radii, seed=seed), lambda event: event)
    total = len(some[0])
    test = {
        "clean": share(right, len(data.test)),
        "robust": share(int(result.robust.sum()), len(images)),
        "noise": share(shaken, len(images)),
        "judge": judge,
    }
    falls = [share(drawn.standing(place), total) for place in range(len(radii) + 1)]
    facts = {"test": test, "radii": [0.0, *radii], "curve": falls, "findings": [], "masked": False}
    good = (_seen(network, images) == labels.cpu()).nonzero()[:CHECKED, 0].to(images.device)
    if len(good):
        checked = yield from masking(network, images[good], labels[good], eps=eps, seed=seed)
        facts |= {"findings": [asdict(one) for one in checked.findings], "masked": checked.masked}
    return facts


def _seen(network: Network, images: Tensor) -> Tensor:
    with torch.no_grad():
        return network.logits(images.to(network.device)).argmax(1).cpu()


def _pictures(found: Hardened, facts: dict[str, Any], net: str) -> tuple[Picture, ...]:
    plot = curve_plot(
        facts["radii"], {f"{net}, hardened": facts["curve"]}, norm="linf", chance=1 / len(facts["classes"])
    )
    alt = f"Accuracy of {net} against eps, hardened for {found.network.name}"
    made = [Picture("robustness", plot, alt)]
    if found.rows:
        said = f"Accuracy of {net} in training: as the pictures are, and attacked"
        made.insert(0, Picture("curves", hardening_plot(found.rows, found.best), said))
    return tuple(made)
