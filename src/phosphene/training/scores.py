"""How good a classifier is on photographs that it did not learn from, and how sure that is.

    accuracy = mean over photographs [said = true],   balanced accuracy = mean over classes of their recall

Where classes differ in size the second tells more: always to say the largest class is right often, and balanced 1 / C.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.statistics import Interval
from phosphene.observe.shape_bias import wilson

Numbers: TypeAlias = "Tensor | np.ndarray | Sequence[Any]"

BINS = 15
DRAWS = 1000
MATRIX = 100
"""The most classes whose whole confusion matrix is a fact; of more there are only the most frequent confusions."""
_LISTED = 20


@dataclass(frozen=True)
class ClassScore:
    """How one class fares.

    Attributes:
        name: of the class.
        images: photographs of it.
        said: photographs that were said to be of it.
        precision: share of those said that are right; None where it was never said.
        recall: share of its photographs that were recognised, with its Wilson interval; None where it has none.
        f1: harmonic mean of both, 2 right / (said + images); None where there is neither.
    """

    name: str
    images: int
    said: int
    precision: float | None
    recall: Interval | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class Scores:
    """What `scores` found.

    Attributes:
        classes: one for each, in order.
        accuracy: with its 95% Wilson interval.
        balanced: balanced accuracy with a 95% bootstrap interval, see `balanced_accuracy`.
        log_loss: mean of -log of the true class's probability; guessing has log C.
        calibration_error: expected calibration error, by how much the probability of what is said misses how often it is
            right.
        confusion: int64 `[C, C]`: photographs by true class (row) and said class (column).
    """

    classes: tuple[ClassScore, ...]
    accuracy: Interval
    balanced: Interval
    log_loss: float
    calibration_error: float
    confusion: np.ndarray

    def facts(self) -> dict[str, Any]:
        """As JSON: `images`, `accuracy`, `balanced_accuracy`, `log_loss`, `calibration_error`, `per_class`, `confused`.

        `confused` are the most frequent confusions; up to 100 classes there is the whole matrix, too, as `confusion`.
        """
        found: dict[str, Any] = {
            "images": int(self.confusion.sum()),
            "accuracy": ends(self.accuracy),
            "balanced_accuracy": ends(self.balanced),
            "log_loss": self.log_loss,
            "calibration_error": self.calibration_error,
            "per_class": [_row(one) for one in self.classes],
            "confused": self.confused(),
        }
        if len(self.classes) <= MATRIX:
            found["confusion"] = self.confusion.tolist()
        return found

    def confused(self, count: int = _LISTED) -> list[dict[str, Any]]:
        """The most frequent confusions, the most frequent first: `true`, `said`, `images`."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        names = [one.name for one in self.classes]
        rows, columns = np.unravel_index(order, wrong.shape)
        return [
            {"true": names[row], "said": names[column], "images": int(wrong[row, column])}
            for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
            if wrong[row, column]
        ]


def scores(
    probabilities: Numbers, labels: Numbers, classes: Sequence[str], *, seed: int = 0, draws: int = DRAWS
) -> Scores:
    """Judge a classifier.

    Args:
        probabilities: `[M, C]`, each row in [0, 1] and of sum 1.
        labels: `[M]`, the true classes, 0 to C - 1.
        classes: names, C of them.
        seed: of the bootstrap.
        draws: of the bootstrap.

    Raises:
        PhospheneError: shapes that don't match, no photographs, or rows that are no probabilities.
    """
    shares, true = checked(probabilities, labels)
    if shares.shape[1] != len(classes):
        raise PhospheneError(f"probabilities of {shares.shape[1]} classes, and names of {len(classes)}")
    said = shares.argmax(1)
    count = len(classes)
    confusion = np.bincount(true * count + said, minlength=count * count).reshape(count, count)
    return Scores(
        tuple(_class_score(confusion, place, name) for place, name in enumerate(classes)),
        wilson(int((said == true).sum()), len(true)),
        balanced_accuracy(confusion, seed=seed, draws=draws),
        log_loss(shares, true),
        calibration_error(shares, true),
        confusion,
    )


def checked(probabilities: Numbers, labels: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 `[M, C]` and int64 `[M]`. Raises PhospheneError, see `scores`."""
    shares, true = _numpy(probabilities).astype(np.float64), _numpy(labels)
    if shares.ndim != 2 or true.shape != shares.shape[:1] or not len(true):
        raise PhospheneError(f"probabilities {list(shares.shape)} and labels {list(true.shape)}: give [M, C] and [M]")
    if not (np.isfinite(shares).all() and shares.min() >= 0 and np.abs(shares.sum(1) - 1).max() < 1e-3):
        raise PhospheneError("the numbers are no probabilities: each row must be in [0, 1], with the sum 1")
    if true.min() < 0 or true.max() >= shares.shape[1]:
        raise PhospheneError(f"a label is none of 0 to {shares.shape[1] - 1}")
    return shares, true.astype(np.int64)


def balanced_accuracy(confusion: np.ndarray, *, seed: int = 0, draws: int = DRAWS, level: float = 0.95) -> Interval:
    """The mean recall of the classes that have photographs, and its stratified percentile bootstrap interval.

    Each class is drawn anew from its own photographs. How many of n draws are right is then binomial, so that no photograph
    needs to be drawn by itself. A class without mistakes never varies: with few photographs the interval is too narrow.

    Args:
        confusion: `[C, C]`, rows true.
        seed: of the draws.
        draws: at least 1.
        level: in (0, 1).
    """
    sizes = confusion.sum(1)
    sizes, right = sizes[sizes > 0], np.diag(confusion)[sizes > 0]
    found = float((right / sizes).mean())
    means = np.random.default_rng(seed).binomial(sizes, right / sizes, (draws, len(sizes))) / sizes
    low, high = np.quantile(means.mean(1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(found, min(found, float(low)), max(found, float(high)), int(sizes.sum()))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean of -log p of the true class; a probability of 0 counts as the least step of float64."""
    mine = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(mine.clip(np.finfo(np.float64).eps, 1)).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error: sum_b n_b / M |accuracy_b - mean probability_b| over equally wide bins.

    A photograph belongs to the bin of the probability of the class that is said.

    Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.ceil(sure * bins).astype(np.int64).clip(1, bins) - 1  # (0, 1/15], (1/15, 2/15], ...
    gaps = np.bincount(place, right - sure, minlength=bins)  # n_b (accuracy_b - mean probability_b)
    return float(np.abs(gaps).sum() / len(labels))


def _class_score(confusion: np.ndarray, place: int, name: str) -> ClassScore:
    right, images, said = (int(x) for x in (confusion[place, place], confusion[place].sum(), confusion[:, place].sum()))
    return ClassScore(
        name,
        images,
        said,
        right / said if said else None,
        wilson(right, images) if images else None,
        2 * right / (said + images) if said + images else None,
    )


def _row(one: ClassScore) -> dict[str, Any]:
    return {
        "name": one.name,
        "images": one.images,
        "said": one.said,
        "precision": one.precision,
        "recall": None if one.recall is None else ends(one.recall),
        "f1": one.f1,
    }


def ends(found: Interval) -> dict[str, float]:
    """An interval as JSON."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _numpy(values: Numbers) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
