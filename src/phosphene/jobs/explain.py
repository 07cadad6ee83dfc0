"""`explain`: which pixels matter for classes or a unit, by several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from phosphene import explain as methods
from phosphene import images as pictures
from phosphene.errors import LayerError, PhospheneError, RuleError, did_you_mean
from phosphene.explain import METHODS, Attribution, LogProbability, Target
from phosphene.explain.health import refuse_nan
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.painting import Painted, paint
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network, parse_unit
from phosphene.names import file_names
from phosphene.progress import Job, Started, Step

USUAL = ("saliency", "guided-backprop", "lrp", "occlusion", "grad-cam")
"""A method of each kind, together some seconds on a laptop."""

COMPLETE = 0.01
"""The completeness error that integrated gradients may have: they take more steps where it is larger."""

Score = Literal["logit", "log-probability"]


def explain(
    workshop: Workshop,
    *,
    image: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    unit: str | None = None,
    layer: str | None = None,
    score: Score = "logit",
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `explain` (the sheet), and one per method (and class), named after it.

    No `classes`: the predicted one. No `methods`: the usual ones; `all`: all. Of these two, methods that this network can't
    have are left out, with the reason in the facts; one that was named is an error.
    """
    names, named = _known(methods)
    if layer is not None and not any(METHODS[name].takes_layer for name in names):
        takers = ", ".join(name for name, method in METHODS.items() if method.takes_layer)
        raise PhospheneError(
            f"--layer is for {takers}: name one of them with --method (a unit is --unit LAYER:CHANNEL)"
        )
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    photo = network.preprocess(workshop.image(image))
    target, words = _target(network, photo, classes, unit, score)
    yield Started("explain", len(names), "method")
    found: dict[str, tuple[Attribution, Painted]] = {}
    refused: dict[str, str] = {}
    for done, name in enumerate(names, start=1):
        try:
            attribution = _attribute(name, network, photo, target, layer, seed)
        except (RuleError, LayerError) as refusal:
            if named or layer is not None:
                raise
            refused[name] = str(refusal)
        else:
            found[name] = attribution, paint(attribution, photo)
        yield Step(done)
    if not found:
        raise PhospheneError(next(iter(refused.values())))
    return _outcome(net, photo, words, found, refused, several=len(words) > 1)


def _known(names: Sequence[str]) -> tuple[list[str], bool]:
    """The methods of these names, and whether each was named by itself."""
    if not names:
        return list(USUAL), False
    if list(names) == ["all"]:
        return list(METHODS), False
    for name in names:
        if name not in METHODS:
            raise PhospheneError(
                f"unknown method '{name}'{did_you_mean(name, METHODS)} (there are {', '.join(METHODS)}, or all)"
            )
    return list(dict.fromkeys(names)), True


def _target(
    network: Network, photo: Tensor, classes: Sequence[str], unit: str | None, score: Score
) -> tuple[Target, list[str]]:
    """What is explained, and its name for each class."""
    if unit is not None:
        if classes:
            raise PhospheneError("explain either classes (--class) or a unit (--unit), not both")
        return parse_unit(unit).check(network), [f"unit {unit}"]
    if score not in ("logit", "log-probability"):
        raise PhospheneError(f"no score '{score}': explain a class's logit or its log-probability")
    seen = list(dict.fromkeys(network.classes(classes))) if classes else []
    with torch.no_grad():
        shares = network.logits(photo).softmax(1)[0]
    if not bool(torch.isfinite(shares).all()):
        refuse_nan(network, photo)
    seen = seen or list(network.predict(photo, 1)[0].indices)
    words = [f"{network.labels[index]} ({float(shares[index]):.1%})" for index in seen]
    return LogProbability([seen]) if score == "log-probability" else [seen], words


def _attribute(name: str, network: Network, photo: Tensor, target: Target, layer: str | None, seed: int) -> Attribution:
    method = methods.METHODS[name]
    options: dict[str, Any] = {}
    if method.takes_layer and layer is not None:
        options["layer"] = layer
    if method.random:
        options["seed"] = seed
    if name == "integrated-gradients":
        options["tolerance"] = COMPLETE
    found = method(network, photo, target, **options)
    if found.maps.ndim == 4:
        return found
    several = {key: None if value is None else value[:, None] for key, value in _tensors(found).items()}
    return Attribution(method=found.method, layer=found.layer, **several)  # type: ignore[arg-type]


def _tensors(found: Attribution) -> dict[str, Tensor | None]:
    names = ("maps", "scores", "gradient", "layer_maps", "error")
    return {name: getattr(found, name) for name in names}


def _outcome(
    net: str,
    photo: Tensor,
    words: list[str],
    found: dict[str, tuple[Attribution, Painted]],
    refused: dict[str, str],
    *,
    several: bool,
) -> Outcome:
    panels, parts = [], []
    classes = file_names(word.rpartition(" (")[0] or word for word in words)
    for row, word in enumerate(words):
        panels.append(pictures.Panel(photo[0].cpu(), word if several else "image", "" if several else word))
        for name, (_, painted) in found.items():
            panels.append(pictures.Panel(painted.images[row], METHODS[name].title, painted.caption))
            part = f"{name}-{classes[row]}" if several else name
            alt = f"{METHODS[name].title}: which pixels speak for {word}"
            parts.append(Picture(part, painted.images[row], alt, painted.caption))
    across = len(found) + 1 if several or len(found) < 5 else None
    every = " and ".join(words)
    note = f"{net}, explaining {every}. Colours end at the clip, the 99.5th percentile of the sizes in a method's maps."
    side = 280 if len(panels) <= 8 else 224
    sheet = pictures.sheet(panels, columns=across, side=side, footnote=note)
    kinds = list(dict.fromkeys(painted.kind for _, painted in found.values()))
    sheet = torch.cat([sheet, pictures.legend(kinds, sheet.shape[2])], 1)
    alt = f"The photograph and {len(found)} explanations of why {net} sees {every}"
    facts = {
        "net": net,
        "target": every,
        "targets": words,
        "methods": [
            {
                "method": name,
                "scores": attribution.scores[0].tolist(),
                "layer": attribution.layer,
                "clip": painted.limit,
                "error": None if attribution.error is None else attribution.error[0].tolist(),
            }
            for name, (attribution, painted) in found.items()
        ],
        "refused": refused,
    }
    maps = {name: attribution.maps[0].cpu() for name, (attribution, _) in found.items()}
    return Outcome((Picture("explain", sheet, alt, note), *parts), facts, maps)
