"""Which way to reuse a network for a folder of photographs: the lecture's table, read from measurements.

                     very similar dataset             very different dataset
    very little      linear classifier on top layer   linear classifier from different stages
    quite a lot      fine-tune a few layers           fine-tune a larger number of layers

How much there is, is counted; how similar it is, is measured by what a network's features are worth for it:

    log odds of "similar" = depth + distance + neighbours

    depth       ln(L_earlier / L_last) / sqrt(e^2 + 0.15^2), within 4: L is the cross-validated log loss of a linear
                classifier after the best earlier stage and after the last one, e the standard error of the logarithm
    distance    (1.4 - d) / 0.1, within 1: d is the distance of the features to those of ImageNet photographs, see `usual`
    neighbours  (r - 0.7) / 0.2, within 0.5: r is how often the five nearest photographs name the class, 0 for guessing

Depth decides, because it measures the thing itself: where the last stage serves best, the network's own way of seeing fits.
Its border, 0, is the point at which an earlier stage does better, and not tuned. The other two can tip the scales where there
are too few photographs for that to be clear. Similarity is none of them alone: a folder may look unlike ImageNet and still be
told apart best by the last stage, and the reverse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.statistics import Interval
from phosphene.models import Network
from phosphene.progress import Job, Started, Step
from phosphene.training.features import stage_features
from phosphene.training.folder import Examples
from phosphene.training.probe import Probe, StageProbe, probe, targets
from phosphene.training.usual import Distance, sample, shipped

Recipe: TypeAlias = Literal["top", "stages", "few-layers", "many-layers"]
Sureness: TypeAlias = Literal["low", "medium", "high"]

MANY = 50
"""Training photographs of a class from which there is "quite a lot of data". A round number between what clearly is little
and what may be a lot: with 5 and 20 digits of MNIST a class fine-tuning lost to a linear classifier on an earlier stage. On
data like ImageNet it mattered little, with 5 to 150. Where it lies exactly nobody knows: hence its slope."""
SLOPE = 2.0
"""Log odds of "quite a lot" for each doubling: at half or twice `MANY` they are 1 : 7."""
USUAL = 1.4
"""Distance from which photographs are unlike ImageNet's. Those of ImageNet score 1. With the two bundled networks, of folders
of one or ten of its classes, of insects and of cue-conflict images none had more than 1.3, and of digits, noise, stripes and
flat colours none less than 1.5."""
KNOWN = 0.7
"""Share of what neighbours can be right beyond guessing, from which the last stage's features know the classes."""
_DEPTH, _DISTANCE, _KNOWN = 0.15, 0.1, 0.2  # how blurred the borders are
_MOST_DEPTH, _MOST_DISTANCE, _MOST_KNOWN = 4.0, 1.0, 0.5  # how much each may count
EARLIER = 0.75
"""Share of the stages that are earlier ones. Those after it are much like the last, but narrower, and so often do better than
it by chance where there are few photographs."""
NEIGHBOURS = 5
SAMPLE = 500
"""Photographs at most whose distance to ImageNet's is measured."""
HIGH, MEDIUM = 0.8, 0.6
"""Probability of the cell of the table from which the advice is quite, or fairly, sure. A blind guess has 0.25."""
_BLOCK = 256


@dataclass(frozen=True)
class Measured:
    """What was measured of a folder, with one network.

    Attributes:
        classes: how many.
        least, median: training photographs of the smallest class, and of the middle one.
        stages: the layers, in order.
        accuracies: of a linear classifier after each, cross-validated on train; None where there are too few photographs.
        last, earlier: the last stage, and the best one by log loss of the first three quarters.
        gain: by how much more the earlier stage's classifier is right than the last's (cross-validated), with a 95% interval.
        depth: ln(L_earlier / L_last): above 0 the last stage does better. NaN where it isn't known.
        depth_error: standard error of it.
        knn: leave-one-out accuracy of the nearest neighbours' vote at the last stage.
        neighbours: how many vote.
        chance: accuracy of always saying the largest class.
        distance: of the features to those of ImageNet photographs; None where that is not known of the network.
        probe: the linear classifiers themselves.
    """

    classes: int
    least: int
    median: float
    stages: tuple[str, ...]
    accuracies: tuple[float | None, ...]
    last: str
    earlier: str | None
    gain: Interval | None
    depth: float
    depth_error: float
    knn: float
    neighbours: int
    chance: float
    distance: Distance | None = None
    probe: Probe | None = field(default=None, compare=False, repr=False)

    @property
    def known(self) -> float:
        """How often neighbours are right beyond guessing: 0 for guessing, 1 for always."""
        return (self.knn - self.chance) / max(1 - self.chance, 1e-9)


@dataclass(frozen=True)
class Advice:
    """What to do.

    Attributes:
        recipe: `top`, `stages`, `few-layers` or `many-layers`.
        many: probability that there is quite a lot of data; in a cell of the table with the bottom row if above 1/2.
        similar: probability that it is similar to ImageNet; the left column if above 1/2.
        reasons: sentences.
    """

    recipe: Recipe
    many: float
    similar: float
    reasons: tuple[str, ...]

    @property
    def amount(self) -> Literal["few", "many"]:
        """The row of the table."""
        return "many" if self.many >= 0.5 else "few"

    @property
    def kind(self) -> Literal["similar", "different"]:
        """Its column."""
        return "similar" if self.similar >= 0.5 else "different"

    @property
    def probability(self) -> float:
        """Of this cell of the table: 0.25 on both borders, towards 1 far from them."""
        return max(self.many, 1 - self.many) * max(self.similar, 1 - self.similar)

    @property
    def sureness(self) -> Sureness:
        """In a word."""
        return "high" if self.probability >= HIGH else "medium" if self.probability >= MEDIUM else "low"


RECIPES: dict[tuple[str, str], Recipe] = {
    ("few", "similar"): "top",
    ("few", "different"): "stages",
    ("many", "similar"): "few-layers",
    ("many", "different"): "many-layers",
}
"""The table."""


# -- measuring ----------------------------------------------------------------------------------------------------------


def measure(
    network: Network,
    examples: Examples,
    *,
    native: Network | None = None,
    found: Probe | None = None,
    seed: int = 0,
    folder: Path | None = None,
) -> Job[Measured]:
    """Measure what the advice is read from. Only training photographs have a say in it.

    Args:
        network: any network.
        examples: photographs.
        native: the same network at its own input size, where `network` is shown pictures of another: statistics of ImageNet
            photographs belong to it.
        found: linear classifiers after all stages, where they are there already.
        seed: of folds and samples.
        folder: where features are kept; None keeps none.

    Raises:
        NetworkError: NaN or infinity in the features.
    """
    if found is None:
        found = yield from probe(network, examples, seed=seed, folder=folder)
    last = found.stages[-1]
    labels = targets(examples.train)
    yield Started("nearest neighbours", 1, "pass")
    counts = examples.counts()
    voters = max(1, min(NEIGHBOURS, int(np.median(counts)) - 1))
    knn = nearest(found.features.table(last.stage, examples.train), labels, voters)
    yield Step(1)
    distance = yield from _distance(native or network, network, examples, found, seed, folder)
    earlier = _earlier(found.stages)
    depth, error = (math.nan, math.nan) if earlier is None else _depth(earlier, last, labels)
    return Measured(
        len(examples.classes), min(counts), float(np.median(counts)), tuple(one.stage for one in found.stages),
        tuple(None if math.isnan(one.linear.accuracy) else one.linear.accuracy for one in found.stages), last.stage,
        None if earlier is None else earlier.stage, None if earlier is None else _gain(earlier, last, labels), depth, error,
        knn, voters, max(counts) / len(labels), distance, found,
    )  # fmt: skip


def nearest(features: np.ndarray, labels: np.ndarray, count: int = NEIGHBOURS) -> float:
    """Leave-one-out accuracy of the vote of the `count` nearest photographs by the cosine of centred features.

    Of classes with as many votes the one whose voters are nearer is said.

    Args:
        features: `[N, D]`, at least two.
        labels: `[N]`.
        count: voters; no more than there are others.
    """
    if len(features) < 2 or count < 1:
        raise PhospheneError(f"{len(features)} photographs with {count} neighbours: at least two and one are needed")
    centred = features.astype(np.float64) - features.mean(0, dtype=np.float64)
    vectors = (centred / np.linalg.norm(centred, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
    count, right = min(count, len(features) - 1), 0
    for start in range(0, len(vectors), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(vectors)))
        alike = vectors[rows] @ vectors.T
        alike[np.arange(len(rows)), rows] = -np.inf
        near = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        votes = np.zeros((len(rows), int(labels.max()) + 1))
        for column in near.T:
            votes[np.arange(len(rows)), labels[column]] += 1 + alike[np.arange(len(rows)), column] / (4 * count)
        right += int((votes.argmax(1) == labels[rows]).sum())
    return right / len(labels)


def _distance(
    native: Network, network: Network, examples: Examples, found: Probe, seed: int, folder: Path | None
) -> Job[Distance | None]:
    """To the ImageNet photographs, if they are known for this network."""
    known = shipped(native)
    if known is None or len(examples.train) < 2:
        return None
    last = found.stages[-1].stage
    photos = [examples.train[place] for place in sample(len(examples.train), SAMPLE, seed)]
    features = found.features
    if tuple(native.input_size) != tuple(network.input_size):
        features = yield from stage_features(native, photos, [last], folder=folder)
    return known.distance(features.table(last, photos))


def _earlier(found: Sequence[StageProbe]) -> StageProbe | None:
    """The best by cross-validation of the first three quarters of the stages; None if there are none, or it is unknown."""
    before = found[: min(len(found) - 1, math.ceil(EARLIER * len(found)))]
    if not before or found[-1].linear.held_out is None:
        return None
    return min(before, key=lambda one: one.linear.log_loss)


def _depth(earlier: StageProbe, last: StageProbe, labels: np.ndarray) -> tuple[float, float]:
    """ln(L_earlier / L_last), and its standard error, by the delta method for paired means."""
    mine, theirs = _losses(earlier, labels), _losses(last, labels)
    a, b = max(mine.mean(), 1e-3), max(theirs.mean(), 1e-3)  # losses that small are nothing to tell apart
    return float(np.log(a / b)), float((mine / a - theirs / b).std() / len(labels) ** 0.5)


def _losses(one: StageProbe, labels: np.ndarray) -> np.ndarray:
    assert one.linear.held_out is not None
    return -np.log(one.linear.held_out[np.arange(len(labels)), labels].clip(1e-12))


def _gain(earlier: StageProbe, last: StageProbe, labels: np.ndarray) -> Interval:
    """Of accuracy, with the normal interval of paired differences."""
    right = []
    for one in (earlier, last):
        assert one.linear.held_out is not None
        right.append((one.linear.held_out.argmax(1) == labels).astype(np.float64))
    gains = right[0] - right[1]
    half = 1.96 * float(gains.std()) / len(gains) ** 0.5
    return Interval(float(gains.mean()), float(gains.mean()) - half, float(gains.mean()) + half, len(gains))


# -- advising -----------------------------------------------------------------------------------------------------------


def advise(measured: Measured) -> Advice:
    """The cell of the table in which a folder lies, and why. See the top of this file."""
    many = _logistic(SLOPE * math.log2(max(measured.median, 1) / MANY))
    similar = _logistic(sum(evidence(measured).values()))
    amount, kind = "many" if many >= 0.5 else "few", "similar" if similar >= 0.5 else "different"
    return Advice(RECIPES[amount, kind], many, similar, _reasons(measured, amount))


def evidence(measured: Measured) -> dict[str, float]:
    """What speaks for "similar" (above 0) and against it, in log odds: `depth`, `distance`, `neighbours`."""
    found = {"depth": 0.0, "distance": 0.0}
    if not math.isnan(measured.depth):
        found["depth"] = _within(measured.depth / math.hypot(measured.depth_error, _DEPTH), _MOST_DEPTH)
    if measured.distance is not None:
        found["distance"] = _within(
            (USUAL - measured.distance.mean) / math.hypot(_DISTANCE, measured.distance.error), _MOST_DISTANCE
        )
    return {**found, "neighbours": _within((measured.known - KNOWN) / _KNOWN, _MOST_KNOWN)}


def _within(value: float, most: float) -> float:
    return max(-most, min(most, value))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def _reasons(measured: Measured, amount: str) -> tuple[str, ...]:
    return (_amount(measured, amount), _depth_words(measured), _distance_words(measured), _knn_words(measured))


def _amount(measured: Measured, amount: str) -> str:
    said = "quite a lot" if amount == "many" else "very little"
    least = f" ({measured.least:,} of the smallest)" if measured.least != measured.median else ""
    return f"There is {said} to learn from: {measured.median:,.0f} photographs of a class{least}; the border is about {MANY}."


def _depth_words(measured: Measured) -> str:
    if measured.gain is None or measured.earlier is None:
        return (
            "Whether an earlier stage does better can't be told: for that each class needs two photographs, and the network"
            " several stages."
        )
    gain = measured.gain
    accuracy = dict(zip(measured.stages, measured.accuracies, strict=True))
    mine, last = accuracy[measured.earlier], accuracy[measured.last]
    lower = measured.depth < 0
    change = f"{abs(math.expm1(measured.depth)):.0%} {'lower' if lower else 'higher'}"
    return (
        f"In cross-validation a linear classifier on the best earlier stage ({measured.earlier}) does"
        f" {'better' if lower else 'no better'} than one on the last ({measured.last}): its log loss is {change}, and it is"
        f" right in {mine:.1%} against {last:.1%} (difference {100 * gain.low:+.1f} to {100 * gain.high:+.1f} points)."
        f" That speaks for {'different' if lower else 'similar'} data."
    )


def _distance_words(measured: Measured) -> str:
    if measured.distance is None:
        return (
            "How far the features lie from those of ImageNet photographs is not known for this network, and left out."
        )
    found = measured.distance
    speaks = "similar" if found.mean < USUAL else "different"
    return (
        f"The features of these photographs are at {found.mean:.2f} from those of ImageNet's, which are at 1 from one another"
        f" (one kind of thing: up to 1.3; unlike from about {USUAL:g}): that speaks for {speaks} data."
    )


def _knn_words(measured: Measured) -> str:
    knows = "already know these classes" if measured.known >= KNOWN else "don't know these classes well"
    voters = "the nearest photograph names" if measured.neighbours == 1 else f"{measured.neighbours} neighbours name"
    return (
        f"At the last stage {voters} the class of {measured.knn:.1%} of the photographs (guessing: {measured.chance:.1%}):"
        f" its features {knows}."
    )
