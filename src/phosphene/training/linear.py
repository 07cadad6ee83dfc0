"""A linear classifier on features: logistic regression, its regularisation chosen by cross-validation.

    min_{W, b}  1/2 |W|^2 + C sum_i c_{y_i} log(1 / softmax(W z_i + b)_{y_i}),   z = (f - mean) / std

C is the one with the least log loss on held-out folds; it and W are found by scikit-learn. What stands after the features is
written back as one linear layer, without z.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import PhospheneError

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""The C that are tried."""
FOLDS = 5
_ITERATIONS = 200
_ALONE = 1e-2  # the C where there is too little to choose one by


@dataclass(frozen=True, eq=False)
class Linear:
    """`logits = features @ weight.T + bias`.

    Attributes:
        weight: `[classes, D]` float32.
        bias: `[classes]`.
        strength: the C that was chosen.
        accuracy: on held-out folds, with that C; NaN where there are too few images.
        log_loss: the same way.
        held_out: `[N, classes]`, the probabilities of each image where it was held out; None likewise.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    accuracy: float
    log_loss: float
    held_out: np.ndarray | None

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """`[N, classes]` of features `[N, D]`."""
        logits = torch.from_numpy(np.ascontiguousarray(features, np.float32)) @ self.weight.T + self.bias
        return logits.double().softmax(1).numpy()


def logistic(
    features: np.ndarray, labels: np.ndarray, classes: int, *, balanced: bool = False, folds: int = FOLDS, seed: int = 0
) -> Linear:
    """Fit it.

    Args:
        features: `[N, D]` float32.
        labels: `[N]`, each of 0 to classes - 1 at least once.
        classes: how many.
        balanced: weigh the classes as if each had as many images.
        folds: of the cross-validation, at most; no more than the rarest class has images.
        seed: of the folds.

    Raises:
        PhospheneError: fewer than two classes, or a class without an image.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels, minlength=classes)
    if classes < 2 or counts.min() == 0 or len(counts) > classes:
        raise PhospheneError(f"a classifier needs at least two classes with an image each, got {counts.tolist()}")
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    std = np.where(std > 1e-6 * (np.abs(mean) + 1), std, 1.0)
    z = ((features - mean) / std).astype(np.float32)
    basis = _basis(z)
    inner = z if basis is None else z @ basis
    folds = min(folds, int(counts.min()))
    strength, accuracy, loss, held_out = _ALONE, float("nan"), float("nan"), None
    if folds >= 2:
        strength, held_out = _chosen(inner, labels, classes, folds, balanced, seed)
        accuracy = float((held_out.argmax(1) == labels).mean())
        loss = _log_loss(held_out, labels)
    weight, bias = _fit(inner, labels, strength, balanced, None)
    if basis is not None:
        weight = weight @ basis.T.astype(np.float64)
    weight = weight / std
    bias = bias - weight @ mean
    return Linear(
        torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(bias.astype(np.float32)), strength, accuracy, loss,
        held_out,
    )  # fmt: skip


def _basis(z: np.ndarray) -> np.ndarray | None:
    """Directions `[D, N]` that span all images, where there are fewer images than numbers.

    The optimum lies among them and its |W|^2 is the same there, so the fit is exact and has less to do.
    """
    count, width = z.shape
    if count >= width:
        return None
    values, vectors = np.linalg.eigh(z @ z.T)
    kept = values > 1e-6 * max(float(values[-1]), 1e-12)
    return (z.T @ vectors[:, kept]) / np.sqrt(values[kept]) if kept.any() else None


def _chosen(
    z: np.ndarray, labels: np.ndarray, classes: int, folds: int, balanced: bool, seed: int
) -> tuple[float, np.ndarray]:
    """The C with the least log loss on held-out folds, and the probabilities there. Each C begins from the one before."""
    from sklearn.model_selection import StratifiedKFold

    found = np.zeros((len(STRENGTHS), len(z), classes))
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(z, labels):
        start = None
        for place, strength in enumerate(STRENGTHS):
            start = _fit(z[train], labels[train], strength, balanced, start)
            found[place, test] = _softmax(z[test] @ start[0].T + start[1])
    losses = [_log_loss(table, labels) for table in found]
    best = int(np.argmin(losses))
    return STRENGTHS[best], found[best]


def _fit(
    z: np.ndarray, labels: np.ndarray, strength: float, balanced: bool, start: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray]:
    """`weight [classes, D]`, `bias [classes]`, float64."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength, max_iter=_ITERATIONS, class_weight="balanced" if balanced else None, warm_start=start is not None
    )
    if start is not None:
        two = len(start[1]) == 2
        model.coef_ = (start[0][1:] - start[0][:1]) if two else start[0].copy()
        model.intercept_ = (start[1][1:] - start[1][:1]) if two else start[1].copy()
        model.classes_ = np.unique(labels)
    with (
        warnings.catch_warnings(),
        _threads().limit(limits=1),
    ):  # its products are so small that threads wait for one another
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits of a weak regularisation decide nothing
        model.fit(z, labels)
    weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(weight) == 1:  # two classes: one row says how much more the second is likely
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return weight, bias


@cache
def _threads() -> ThreadpoolController:
    """Looking for the libraries that have threads takes longer than a fit."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(probabilities[np.arange(len(labels)), labels].clip(1e-12)).mean())
