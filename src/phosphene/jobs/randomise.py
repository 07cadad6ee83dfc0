"""`randomise`: what becomes of explanations while the network forgets, layer by layer, what it has learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.errors import PhospheneError, RuleError, did_you_mean
from phosphene.explain import METHODS, Attribution
from phosphene.explain.metrics.randomisation import cascade, likeness
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.painting import paint
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

USUAL = ("saliency", "grad-cam", "guided-backprop")


def randomise(
    workshop: Workshop,
    *,
    image: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    methods: Sequence[str] = (),
    class_name: str | None = None,
    steps: int = 5,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `randomise` (a row for each method, a column for each network). No `methods`: those of `USUAL` that fit."""
    names = list(dict.fromkeys(methods)) or list(USUAL)
    for name in names:
        if name not in METHODS:
            raise PhospheneError(
                f"unknown method '{name}'{did_you_mean(name, METHODS)} (there are {', '.join(METHODS)})"
            )
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    photo = network.preprocess(workshop.image(image))
    index = network.classes([class_name])[0] if class_name is not None else network.predict(photo, 1)[0].indices[0]
    yield Started("drawing the layers anew", steps + 1, "network")
    rows: dict[str, list[pictures.Panel]] = {}
    trained: dict[str, Tensor] = {}
    facts, refused = [], {}
    for name in names:
        try:
            found = _explain(name, network, photo, index, seed)
        except RuleError as refusal:
            if methods:
                raise
            refused[name] = str(refusal)
            continue
        trained[name] = found.maps[0, 0]
        rows[name] = [pictures.Panel(paint(found, photo).images[0], METHODS[name].title, "of the trained network")]
    if not rows:
        raise PhospheneError(next(iter(refused.values())))
    yield Step(1)
    for done, (layer, twin) in enumerate(cascade(network, photo, steps=steps, seed=seed), start=2):
        for name, row in rows.items():
            found = _explain(name, twin, photo, index, seed)
            alike = likeness(trained[name], found.maps[0, 0])
            facts.append({"method": name, "layer": layer, "ssim": alike.ssim, "rank": alike.rank})
            words = f"SSIM {alike.ssim:.2f}, rank correlation {alike.rank:.2f}"
            row.append(pictures.Panel(paint(found, photo).images[0], f"{layer} and later drawn anew", words))
        yield Step(done)
    words = network.labels[index]
    note = f"{net}, explaining {words}. From left to right the network forgets more, from its last layer to its first."
    panels = [panel for row in rows.values() for panel in row]
    sheet = pictures.sheet(panels, columns=len(panels) // len(rows), side=200, footnote=note)
    alt = f"Explanations of {words} by {net} while its layers are drawn anew one after the other"
    return Outcome(
        (Picture("randomise", sheet, alt, note),),
        {"net": net, "target": words, "steps": facts, "refused": refused},
    )


def _explain(name: str, network: Network, photo: Tensor, index: int, seed: int) -> Attribution:
    options = {"seed": seed} if METHODS[name].random else {}
    with torch.inference_mode(False):
        return METHODS[name](network, photo, [[index]], **options)
