"""`advise`: which way to reuse a network for a folder of photographs, and with `verify` whether that was right."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phosphene.errors import PhospheneError
from phosphene.jobs.command import command_line
from phosphene.jobs.lessons import about, gathered
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.probe import stage_facts
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import Job, whole
from phosphene.report.advice_plots import CELLS, recipes_plot, table_plot
from phosphene.report.learning_plots import depth_plot
from phosphene.training.advise import MANY, Advice, Measured, Recipe, evidence, measure
from phosphene.training.advise import advise as judge
from phosphene.training.features import features_folder
from phosphene.training.finetune import finetune
from phosphene.training.folder import Examples
from phosphene.training.probe import Probe
from phosphene.training.probe import probe as fit_probe
from phosphene.training.scores import Scores, ends
from phosphene.training.settings import BOLD, FinetuneSettings

WITHIN = 0.01
"""The advice is right if no recipe is more accurate than the advised one by more than this."""
_FEW = 2
_BATCH = FinetuneSettings.batch
_STEPS = 4
"""Steps of an epoch at least: with few photographs batches are smaller."""


def advise(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    verify: bool = False,
    epochs: int = 10,
    size: int | None = None,
    skip_bad: bool = False,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `table` (the lecture's, with the folder in it), `depth` (a linear classifier at each stage), `recipes`.

    `verify`: run all four recipes, and judge them by the same held-out photographs; `epochs`: of the two that fine-tune.
    """
    if epochs < 1:
        raise PhospheneError(f"--epochs starts at 1, got {epochs}")
    network, examples = yield from gathered(workshop, folder, (net, weights, labels), size, seed, skip_bad)
    begun = time.monotonic()
    found = yield from fit_probe(network, examples, seed=seed, folder=features_folder())
    seconds = time.monotonic() - begun
    native = workshop.network(net, weights, labels)
    measured = yield from measure(network, examples, native=native, found=found, seed=seed, folder=features_folder())
    advice = judge(measured)
    given = {"folder": folder, "net": net, "weights": weights, "labels": labels, "size": size, "skip_bad": skip_bad,
             "seed": seed}  # fmt: skip
    facts: dict[str, Any] = {
        "net": net, "folder": folder, **about(examples), **_facts(measured, advice),
        "commands": commands(given, measured, examples),
        "stages": [stage_facts(one) for one in found.stages], "best_stage": found.chosen.stage,
    }  # fmt: skip
    facts["command"] = facts["commands"][advice.recipe]
    pictures = [_table(measured, advice, examples), _depth(found, examples, net)]
    if verify:
        rows = yield from _verified(network, examples, found, seconds, epochs, seed)
        facts |= verdict(rows, advice.recipe)
        pictures.append(_recipes(rows, advice, facts))
    return Outcome(tuple(pictures), facts)


# -- the four recipes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """One recipe: its `name`, the command's `verb`, and its `options`."""

    name: str
    verb: str
    options: Mapping[str, Any]


def ways(stages: Sequence[str], photographs: int, epochs: int = FinetuneSettings.epochs) -> dict[Recipe, Way]:
    """The four recipes for a network with these stages, and so many photographs to learn from.

    All layers are trained where data is different: there the features have to change, which takes the bold rate.
    """
    layers = f"last:{max(1, min(_FEW, len(stages) - 1))}"
    more = {"batch": batch_of(photographs), "epochs": epochs}
    return {
        "top": Way("linear classifier on the top layer", "probe", {"layers": [stages[-1]]}),
        "stages": Way("linear classifier on the best stage", "probe", {}),
        "few-layers": Way(f"fine-tune a few layers ({layers})", "finetune", {"layers": layers, **more}),
        "many-layers": Way("fine-tune all layers", "finetune", {"layers": "all", "rate": BOLD, **more}),
    }


def batch_of(photographs: int) -> int:
    """The usual batch, or the largest power of two that still makes four steps of an epoch."""
    return min(_BATCH, max(2, 2 ** int(math.log2(max(photographs // _STEPS, 1)))), max(photographs, 1))


def commands(given: Mapping[str, Any], measured: Measured, examples: Examples) -> dict[str, str]:
    """The command line of each recipe."""
    every = ways(measured.stages, len(examples.train)).items()
    return {recipe: command_line(way.verb, {**given, **way.options}) for recipe, way in every}


def _verified(
    network: Network, examples: Examples, found: Probe, seconds: float, epochs: int, seed: int
) -> Job[list[dict[str, Any]]]:
    """How each recipe does on the held-out photographs. The linear classifiers are there already, from one pass."""
    rows: list[dict[str, Any]] = []
    for recipe, way in ways([one.stage for one in found.stages], len(examples.train), epochs).items():
        if way.verb == "probe":
            chosen = found.stages[-1] if recipe == "top" else found.chosen
            rows.append(_row(recipe, f"{way.name} ({chosen.stage})", chosen.scores, seconds))
            continue
        begun = time.monotonic()
        settings = FinetuneSettings(**way.options, seed=seed)
        tuned = yield from whole(finetune(network, examples, settings=settings, folder=features_folder()))
        rows.append(_row(recipe, way.name, tuned.scores, time.monotonic() - begun))
    return rows


def _row(recipe: str, name: str, scores: Scores, seconds: float) -> dict[str, Any]:
    return {
        "recipe": recipe, "name": name, "accuracy": ends(scores.accuracy), "balanced": ends(scores.balanced),
        "log_loss": scores.log_loss, "seconds": round(seconds, 1),
    }  # fmt: skip


def verdict(rows: list[dict[str, Any]], advised: str) -> dict[str, Any]:
    """Facts: `recipes`, the most accurate one as `best`, by how much it is ahead of the advised (`behind`), and `right`.

    `may_be_chance`: whether the interval of the advised one reaches as far as the best.
    """
    best = max(rows, key=lambda row: row["accuracy"]["mean"])
    mine = next(row for row in rows if row["recipe"] == advised)
    behind = best["accuracy"]["mean"] - mine["accuracy"]["mean"]
    return {
        "recipes": rows, "best": advised if behind == 0 else best["recipe"], "behind": behind,
        "right": behind <= WITHIN + 1e-9, "may_be_chance": best["accuracy"]["mean"] <= mine["accuracy"]["high"],
    }  # fmt: skip


# -- facts and pictures -------------------------------------------------------------------------------------------------


def _facts(measured: Measured, advice: Advice) -> dict[str, Any]:
    distance, known = measured.distance, not math.isnan(measured.depth)
    return {
        "measured": {
            "images_per_class": {"least": measured.least, "median": measured.median},
            "cross_validated": dict(zip(measured.stages, measured.accuracies, strict=True)),
            "last": measured.last,
            "earlier": measured.earlier,
            "gain": None if measured.gain is None else ends(measured.gain),
            "depth": measured.depth if known else None,
            "depth_error": measured.depth_error if known else None,
            "knn": measured.knn,
            "neighbours": measured.neighbours,
            "chance": measured.chance,
            "distance": None if distance is None else asdict(distance),
        },
        "evidence": evidence(measured),
        "corner": [advice.amount, advice.kind],
        "recipe": advice.recipe,
        "slide": CELLS[advice.amount, advice.kind].replace("\n", " "),
        "many": advice.many,
        "similar": advice.similar,
        "probability": advice.probability,
        "sureness": advice.sureness,
        "reasons": list(advice.reasons),
    }


def _table(measured: Measured, advice: Advice, examples: Examples) -> Picture:
    name = examples.folder.resolve().name
    image = table_plot(
        images=measured.median, similar=advice.similar, many=MANY, amount=advice.amount, kind=advice.kind,
        label=name if len(name) <= 28 else f"{name[:27]}…",
    )  # fmt: skip
    cell = CELLS[advice.amount, advice.kind].replace("\n", " ")
    data = f"{'very little' if advice.amount == 'few' else 'quite a lot of'} data, very {advice.kind}"
    return Picture("table", image, f"The lecture's table of four recipes; {name} lies in the cell {data}: {cell}")


def _depth(found: Probe, examples: Examples, net: str) -> Picture:
    rows = [stage_facts(one) for one in found.stages]
    chance = max(examples.counts(examples.val)) / len(examples.val)
    alt = f"Accuracy of a linear classifier after each of {len(rows)} stages of {net}; best after {found.chosen.stage}"
    return Picture("depth", depth_plot(rows, best=found.chosen.stage, chance=chance), alt)


def _recipes(rows: list[dict[str, Any]], advice: Advice, facts: Mapping[str, Any]) -> Picture:
    alt = f"Accuracy of the four recipes; the advice is {'right' if facts['right'] else 'not the best'}"
    return Picture("recipes", recipes_plot(rows, advised=advice.recipe), alt)


def told(facts: Mapping[str, Any]) -> list[str]:
    """What the facts say, in sentences."""
    words = [
        f"{facts['slide']}. ({_data(facts)}; sureness {facts['sureness']}, {facts['probability']:.0%})",
        *facts["reasons"],
        f"Try: {facts['command']}",
    ]
    return words if "recipes" not in facts else [*words, said_of(facts)]


def _data(facts: Mapping[str, Any]) -> str:
    amount, kind = facts["corner"]
    return f"{'very little' if amount == 'few' else 'quite a lot of'} data, very {kind} to ImageNet's".replace(
        "different to", "different from"
    )


def said_of(facts: Mapping[str, Any]) -> str:
    """Whether the advice was right, in a sentence."""
    names = {row["recipe"]: row["name"] for row in facts["recipes"]}
    count = sum(facts["photographs"]["val"].values())
    if facts["behind"] <= 0:
        return f"The advice was right: of the four recipes none is more accurate on the {count:,} held-out photographs."
    points = f"{100 * facts['behind']:.1f} points behind the best, {names[facts['best']]}"
    if facts["right"]:
        return f"The advice was right within a point: it is {points}."
    more = "; that may be chance, for its interval reaches so far" if facts["may_be_chance"] else ""
    return f"The advice was not the best: it is {points}{more}."
