"""Logistic regression on raw features: against scikit-learn on standardised ones, and its C against a slow choice."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import StandardScaler

from phosphene.errors import PhospheneError
from phosphene.training import linear
from phosphene.training.linear import STRENGTHS, Linear, logistic


def problem(count: int, width: int, classes: int, apart: float = 0.8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping clouds of unequal size, each feature with a scale and a mean of its own."""
    random = np.random.default_rng(seed)
    shares = np.arange(1, classes + 1) / np.arange(1, classes + 1).sum()
    labels = np.sort(
        np.concatenate([np.arange(classes).repeat(6), random.choice(classes, count - 6 * classes, p=shares)])
    )
    middles = random.normal(0, apart, (classes, width))
    features = middles[labels] + random.normal(0, 1, (count, width))
    return (features * random.uniform(0.1, 30, width) + random.normal(0, 20, width)).astype(np.float32), labels


def slow(features: np.ndarray, labels: np.ndarray, strength: float, balanced: bool) -> np.ndarray:
    """The probabilities that scikit-learn finds, converged."""
    z = StandardScaler().fit_transform(features.astype(np.float64))
    model = LogisticRegression(C=strength, max_iter=20000, tol=1e-8, class_weight="balanced" if balanced else None)
    return model.fit(z, labels).predict_proba(z)


CASES = [(60, 8, 2), (60, 8, 3), (90, 5, 5), (30, 100, 2), (40, 300, 3), (40, 40, 3)]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("count", "width", "classes"), CASES)
def test_it_is_the_logistic_regression_of_scikit_learn(count: int, width: int, classes: int, balanced: bool) -> None:
    features, labels = problem(count, width, classes, apart=0.8 if width < 50 else 0.15)
    found = logistic(features, labels, classes, balanced=balanced)
    assert found.weight.shape == (classes, width) and found.bias.shape == (classes,)
    assert found.weight.dtype == found.bias.dtype == torch.float32
    wanted = slow(features, labels, found.strength, balanced)
    np.testing.assert_allclose(found.probabilities(features), wanted, atol=1e-3)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_each_strength_is_that_of_scikit_learn(strength: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "STRENGTHS", (strength,))
    for count, width in ((60, 8), (30, 100)):
        features, labels = problem(count, width, 3, apart=0.3)
        found = logistic(features, labels, 3)
        assert found.strength == strength
        np.testing.assert_allclose(found.probabilities(features), slow(features, labels, strength, False), atol=1e-3)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("count", "width", "classes"), [(60, 8, 2), (60, 8, 3), (40, 200, 3)])
def test_the_strength_has_the_least_log_loss_on_held_out_folds(
    count: int, width: int, classes: int, balanced: bool
) -> None:
    features, labels = problem(count, width, classes, apart=0.5 if width < 50 else 0.12, seed=1)
    z = StandardScaler().fit_transform(features.astype(np.float64))
    folds = StratifiedKFold(5, shuffle=True, random_state=3)
    tables, losses = [], []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=20000, class_weight="balanced" if balanced else None)
        table: Any = cross_val_predict(model, z, labels, cv=folds, method="predict_proba")
        tables.append(table)
        losses.append(float(-np.log(table[np.arange(count), labels]).mean()))
    best = int(np.argmin(losses))
    assert 0 < best < len(STRENGTHS) - 1  # a choice that says something
    found = logistic(features, labels, classes, balanced=balanced, seed=3)
    assert found.strength == STRENGTHS[best] and found.log_loss == pytest.approx(losses[best], abs=2e-3)
    assert found.held_out is not None
    np.testing.assert_allclose(found.held_out, tables[best], atol=5e-3)
    assert found.accuracy == pytest.approx((tables[best].argmax(1) == labels).mean(), abs=1.1 / count)


def test_weight_and_bias_act_on_raw_features() -> None:
    features, labels = problem(60, 8, 3)
    found = logistic(features, labels, 3)
    logits = features.astype(np.float64) @ found.weight.double().numpy().T + found.bias.double().numpy()
    raised = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(found.probabilities(features), raised / raised.sum(1, keepdims=True), atol=1e-4)
    assert (found.probabilities(features).argmax(1) == labels).mean() > 0.85
    layer = torch.nn.Linear(8, 3)
    with torch.no_grad():
        layer.weight.copy_(found.weight)
        layer.bias.copy_(found.bias)
        mine = layer(torch.from_numpy(features)).double().softmax(1).numpy()
    np.testing.assert_allclose(found.probabilities(features), mine, atol=1e-5)


def test_units_do_not_matter() -> None:
    features, labels = problem(50, 6, 2)
    other = features * np.array([1e-3, 1e3, 1, 7, 0.1, 50], np.float32) + np.float32(3)
    one, two = logistic(features, labels, 2), logistic(other, labels, 2)
    np.testing.assert_allclose(one.probabilities(features), two.probabilities(other), atol=2e-3)
    assert one.strength == two.strength


@pytest.mark.parametrize(("count", "width"), [(60, 6), (24, 60)])
@pytest.mark.parametrize("value", [0.0, 5.0, 1e4])
def test_a_feature_that_never_changes_has_no_say(count: int, width: int, value: float) -> None:
    features, labels = problem(count, width, 2)
    more = np.concatenate([features, np.full((count, 1), value, np.float32)], 1)
    one, two = logistic(features, labels, 2), logistic(more, labels, 2)
    assert bool(torch.isfinite(two.weight).all()) and float(two.weight[:, -1].abs().max()) < 1e-6
    np.testing.assert_allclose(one.probabilities(features), two.probabilities(more), atol=1e-3)


def test_features_that_are_all_the_same_give_the_priors() -> None:
    labels = np.array([0] * 20 + [1] * 10 + [2] * 10)
    features = np.full((40, 5), 3.0, np.float32)
    np.testing.assert_allclose(logistic(features, labels, 3).probabilities(features)[0], [0.5, 0.25, 0.25], atol=1e-3)
    even = logistic(features, labels, 3, balanced=True).probabilities(features)[0]
    np.testing.assert_allclose(even, [1 / 3] * 3, atol=1e-3)


def test_a_wide_stage_that_gives_always_the_same_gives_the_priors() -> None:
    """Fewer images than numbers, and no direction among them: a stage that is dead."""
    labels = np.array([0] * 20 + [1] * 10 + [2] * 10)
    wide = np.full((40, 90), 3.0, np.float32)
    np.testing.assert_allclose(logistic(wide, labels, 3).probabilities(wide)[0], [0.5, 0.25, 0.25], atol=1e-3)


@pytest.mark.parametrize("rare", [2, 3])
def test_a_class_with_fewer_images_than_folds(rare: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = problem(60, 4, 2)
    kept = np.concatenate([np.flatnonzero(labels == 0)[:rare], np.flatnonzero(labels == 1)])
    folds: list[int] = []
    plain = linear._chosen
    monkeypatch.setattr(linear, "_chosen", lambda z, y, c, f, b, s: folds.append(f) or plain(z, y, c, f, b, s))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn's about classes that are smaller than the folds, too
        found = logistic(features[kept], labels[kept], 2)
    assert folds == [rare] and found.held_out is not None and found.held_out.shape == (len(kept), 2)
    np.testing.assert_allclose(found.held_out.sum(1), 1, atol=1e-9)


def test_a_class_with_one_image() -> None:
    features, labels = problem(60, 4, 3)
    kept = np.concatenate([np.flatnonzero(labels == 0)[:1], np.flatnonzero(labels > 0)])
    found = logistic(features[kept], labels[kept], 3)
    assert found.held_out is None and np.isnan(found.accuracy) and np.isnan(found.log_loss)
    np.testing.assert_allclose(
        found.probabilities(features[kept]), slow(features[kept], labels[kept], found.strength, False), atol=1e-3
    )


@pytest.mark.parametrize(("labels", "classes"), [([0, 0, 0], 1), ([0, 0, 2], 3), ([0, 0, 0], 2), ([0, 1, 2], 2)])
def test_classes_without_images(labels: list[int], classes: int) -> None:
    with pytest.raises(PhospheneError, match="at least two classes with an image each") as caught:
        logistic(np.ones((3, 2), np.float32), np.array(labels), classes)
    assert "\n" not in str(caught.value)


def numbers(found: Linear) -> tuple[Any, ...]:
    assert found.held_out is not None
    return found.weight.tolist(), found.bias.tolist(), found.strength, found.log_loss, found.held_out.tolist()


def test_the_seed_decides_the_folds_alone() -> None:
    features, labels = problem(60, 8, 3, apart=0.5)
    before = features.copy()
    np.random.seed(1)
    one = logistic(features, labels, 3, seed=5)
    np.random.seed(2)
    assert numbers(one) == numbers(logistic(features, labels, 3, seed=5)) and np.array_equal(before, features)
    other = logistic(features, labels, 3, seed=-6)
    assert other.log_loss != one.log_loss
    if other.strength == one.strength:
        torch.testing.assert_close(other.weight, one.weight)


def test_classes_that_are_far_apart_stay_finite() -> None:
    features, labels = problem(60, 8, 3, apart=50.0)
    found = logistic(features, labels, 3)
    assert found.accuracy == 1.0 and found.log_loss < 0.05 and found.strength == max(STRENGTHS)
    assert bool(torch.isfinite(found.weight).all())
