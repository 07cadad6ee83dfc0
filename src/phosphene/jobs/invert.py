"""`invert`: the photograph as each of the layers remembers it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe, synthesize
from phosphene.errors import LayerError
from phosphene.images import Panel
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Halt, Job

USUAL = synthesize.InversionSettings()
MOST = 9  # layers, where none are named
JUDGE = "efficientnet_lite0"  # says what it sees where the network itself has no classes


def invert(
    workshop: Workshop,
    *,
    image: str,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    layers: Sequence[str] = (),
    canvas: synthesize.CanvasName = USUAL.canvas,
    steps: int = USUAL.steps,
    rate: float | None = USUAL.rate,
    tv: float | None = USUAL.tv,
    beta: float = USUAL.beta,
    lp: float | None = USUAL.lp,
    p: float = USUAL.p,
    scales: int | None = USUAL.scales,
    noise: float = USUAL.noise,
    patience: int = USUAL.patience,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `invert` (the sheet), and one per layer, named after it. See `synthesize.InversionSettings`.

    Default layers: the network's landmarks, at most nine of them.
    """
    network = workshop.network(net, weights, labels)
    check_seed(seed)
    judge = network if network.classifies else workshop.network(JUDGE)
    photo = network.preprocess(workshop.image(image))
    names = list(dict.fromkeys(layers)) or observe.landmarks(network, MOST)
    for name in names:
        network.tap(name)  # a wrong one is said before the work begins
    settings = synthesize.InversionSettings(canvas, steps, rate, tv, beta, lp, p, scales, noise, patience)
    made: list[tuple[str, synthesize.Inversion]] = []
    silent: list[str] = []
    halted = False
    for name in names:
        try:
            found = yield from synthesize.invert(network, photo, name, settings=settings, seed=seed)
        except synthesize.SilentLayerError:
            silent.append(name)
            continue
        except Halt:  # between two layers
            halted = True
            break
        made.append((name, found))
        halted = found.halted
        if halted:
            break
    if not made:
        if halted:
            raise Halt
        raise LayerError(
            f"{' and '.join(silent)} of {net} say nothing about this photograph: there is nothing to invert"
        )
    return _outcome(net, network, judge, photo, made, silent, len(names) if halted else None)


def _outcome(
    net: str,
    network: Network,
    judge: Network,
    photo: Tensor,
    made: list[tuple[str, synthesize.Inversion]],
    silent: list[str],
    asked: int | None,
) -> Outcome:
    """`asked`: how many layers it should have been, where it was ended early."""
    own = judge.predict(photo, 1)[0]
    panels = [Panel(photo[0].cpu(), "the photograph", f"seen as {own.names[0]}, {own.probabilities[0]:.0%}")]
    parts, rows = [], []
    for name, found in made:
        row = _facts(network, judge, photo, name, found, own.indices[0])
        seen = f"seen as {row['seen']['name']}, {row['seen']['probability']:.0%}"
        caption = f"error {row['error']:.2g}; {seen}"
        rows.append(row)
        panels.append(Panel(found.images[0].cpu(), name, caption))
        parts.append(Picture(name, found.images[0].cpu(), f"The photograph as {name} of {net} remembers it", caption))
    footnote = f"{net}: an image that is to the layer what the photograph is. Error: ||F(x) - F||^2 / ||F||^2."
    if judge is not network:
        footnote += f" Classes: as {judge.name} sees them."
    if silent:
        footnote += f" Silent: {', '.join(silent)}."
    sheet = pictures.sheet(panels, columns=min(5, len(panels)), side=240, footnote=footnote)
    facts: dict[str, Any] = {
        "net": net, "judge": judge.name, "photograph": {"index": own.indices[0], "name": own.names[0]}, "layers": rows,
    }  # fmt: skip
    notes: dict[str, Any] = {}
    restarts = {name: [vars(restart) for restart in found.restarts] for name, found in made if found.restarts}
    if restarts:
        notes["restarts"] = restarts
    if silent:
        facts["silent"] = silent
    if asked is not None:
        facts["stopped"] = (
            f"stopped early, at {made[-1][0]} after step {made[-1][1].steps}; {len(made)} of {asked} layers"
        )
        notes["stopped_at_step"] = made[-1][1].steps
    alt = f"The photograph as {len(made)} layers of {net} remember it, from nearly everything to its gist"
    return Outcome((Picture("invert", sheet, alt, footnote), *parts), facts, {}, notes)


def _facts(
    network: Network, judge: Network, photo: Tensor, name: str, found: synthesize.Inversion, own: int
) -> dict[str, Any]:
    seen = judge.predict(found.images, 1)[0]
    with torch.no_grad():
        share = float(judge.logits(judge.preprocess(found.images)).softmax(1)[0, own])
    return {
        "layer": name,
        "shape": list(network.layer(name).shape),
        "error": float(found.errors[0]),
        "distance": float((found.images - photo).square().mean().sqrt()),
        "steps": found.steps,
        "seen": {"index": seen.indices[0], "name": seen.names[0], "probability": seen.probabilities[0]},
        "recognised": seen.indices[0] == own,
        "own_probability": share,
        "tv": found.settings.tv,
        "lp": found.settings.lp,
    }
