"""Scores against scikit-learn's, and against drawing photograph by photograph."""

from __future__ import annotations

import json
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from phosphene.errors import PhospheneError
from phosphene.observe.shape_bias import wilson
from phosphene.training.scores import Scores, balanced_accuracy, calibration_error, scores


def guesses(seed: int, images: int, classes: int, sure: float = 2.0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, images)
    logits = random.normal(size=(images, classes))
    logits[np.arange(images), labels] += sure
    shares = np.exp(logits)
    return shares / shares.sum(1, keepdims=True), labels, [f"class {place}" for place in range(classes)]


def judged(seed: int, images: int = 80, classes: int = 4) -> tuple[Scores, np.ndarray, np.ndarray]:
    shares, labels, names = guesses(seed, images, classes)
    return scores(shares, labels, names, draws=50), shares, labels


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(2, 7))
def test_all_numbers_are_those_of_scikit_learn(seed: int, images: int, classes: int) -> None:
    found, shares, labels = judged(seed, images, classes)
    said, every = shares.argmax(1), list(range(classes))
    assert found.accuracy.mean == pytest.approx(metrics.accuracy_score(labels, said))
    assert found.log_loss == pytest.approx(metrics.log_loss(labels, shares, labels=every))
    assert (found.confusion == metrics.confusion_matrix(labels, said, labels=every)).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that were said and are not there
        assert found.balanced.mean == pytest.approx(metrics.balanced_accuracy_score(labels, said))
    none: Any = 0  # what scikit-learn gives where there is nothing to divide by
    rows: Any = metrics.precision_recall_fscore_support(labels, said, labels=every, zero_division=none)
    for one, p, r, f, n in zip(found.classes, *rows, strict=True):
        assert one.images == n and one.said == (said == every[found.classes.index(one)]).sum()
        assert one.precision == (pytest.approx(p) if one.said else None)
        assert (one.recall is None) == (n == 0) and (one.recall is None or one.recall.mean == pytest.approx(r))
        assert one.f1 == (pytest.approx(f) if n or one.said else None)


def test_intervals_of_shares_are_wilsons() -> None:
    found, shares, labels = judged(3)
    right = int((shares.argmax(1) == labels).sum())
    assert found.accuracy == wilson(right, len(labels))
    for place, one in enumerate(found.classes):
        mine = labels == place
        assert one.recall == wilson(int((shares.argmax(1)[mine] == place).sum()), int(mine.sum()))


def test_the_bootstrap_draws_photographs_of_each_class() -> None:
    """Binomial numbers against photographs that are drawn one by one."""
    shares, labels, names = guesses(0, 120, 3, sure=1.2)
    right = shares.argmax(1) == labels
    random = np.random.default_rng(1)
    means = []
    for _ in range(4000):
        recalls = [random.choice(right[labels == place], int((labels == place).sum())).mean() for place in range(3)]
        means.append(np.mean(recalls))
    low, high = np.quantile(means, [0.025, 0.975])
    found = scores(shares, labels, names, draws=4000).balanced
    assert found.low == pytest.approx(low, abs=0.012) and found.high == pytest.approx(high, abs=0.012)
    assert found.low < found.mean < found.high


def test_the_bootstrap_interval_holds_the_true_value_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    held = 0
    for seed in range(300):
        right = random.binomial([100, 40], [0.9, 0.6])
        found = balanced_accuracy(np.array([[right[0], 100 - right[0]], [40 - right[1], right[1]]]), seed=seed)
        held += found.low <= 0.75 <= found.high
    assert 0.91 <= held / 300 <= 0.98


def test_the_same_seed_gives_the_same_interval() -> None:
    shares, labels, names = guesses(5, 90, 3)
    one, same, other = (scores(shares, labels, names, seed=seed).balanced for seed in (1, 1, 2))
    assert one == same and one.mean == other.mean and one != other


def test_a_thousand_draws_of_ten_thousand_photographs_take_no_time() -> None:
    shares, labels, names = guesses(0, 10_000, 100)
    start = time.perf_counter()
    scores(shares, labels, names)
    assert time.perf_counter() - start < 2


def test_calibration_error_bin_by_bin() -> None:
    shares, labels, _ = guesses(2, 300, 3, sure=0.5)
    sure, right = shares.max(1), shares.argmax(1) == labels
    total = 0.0
    for k in range(15):
        inside = (sure > k / 15) & (sure <= (k + 1) / 15)
        if inside.any():
            total += inside.sum() / 300 * abs(right[inside].mean() - sure[inside].mean())
    assert calibration_error(shares, labels) == pytest.approx(total)
    certain = np.eye(2)[[0, 1, 1]]
    assert calibration_error(certain, np.array([0, 1, 1])) == 0
    assert calibration_error(certain, np.array([1, 0, 0])) == 1


def test_certain_and_wrong_costs_much_and_not_infinity() -> None:
    found = scores(np.eye(2), [1, 0], ["a", "b"])
    assert 30 < found.log_loss < 40 and found.accuracy.mean == 0 and found.balanced.high == 0


def test_tensors_and_arrays_are_the_same() -> None:
    shares, labels, names = guesses(0, 20, 3)
    mine = scores(torch.from_numpy(shares), torch.from_numpy(labels), names).facts()
    assert mine == scores(shares, labels, names).facts()


def test_facts_are_json_and_large_matrices_are_left_out() -> None:
    found, _, _ = judged(0, 10, 6)
    facts = json.loads(json.dumps(found.facts(), allow_nan=False))
    assert facts["images"] == 10 and facts["confusion"] == found.confusion.tolist() and len(facts["per_class"]) == 6
    shares, labels, names = guesses(0, 300, 101)
    assert "confusion" not in scores(shares, labels, names).facts()


def test_the_most_frequent_confusions_come_first() -> None:
    said = [0, 0, 1, 1, 1, 2, 0]
    true = [0, 1, 0, 0, 0, 1, 1]
    found = scores(np.eye(3)[said], true, ["a", "b", "c"])
    assert found.confused() == [
        {"true": "a", "said": "b", "images": 3},
        {"true": "b", "said": "a", "images": 2},
        {"true": "b", "said": "c", "images": 1},
    ]
    assert len(found.confused(1)) == 1


@pytest.mark.parametrize(
    ("shares", "labels"),
    [
        ([[0.5, 0.5]], [0, 1]),
        ([[0.5, 0.6]], [0]),
        ([[1.5, -0.5]], [0]),
        ([[float("nan"), 1.0]], [0]),
        ([[0.5, 0.5]], [2]),
        ([[0.5, 0.5]], [-1]),
        ([[0.2, 0.3, 0.5]], [0]),
        (np.zeros((0, 2)), np.zeros(0, dtype=int)),
    ],
)
def test_what_is_no_judgement_is_refused(shares: object, labels: object) -> None:
    with pytest.raises(PhospheneError):
        scores(shares, labels, ["a", "b"])  # pyright: ignore[reportArgumentType]
