"""Maps of many points in two dimensions: principal components, and t-SNE.

    PCA:   y_i = W (x_i - mean),  W the two directions of largest variance
    t-SNE: minimises sum_{i != j} p_ij log (p_ij / q_ij),  q_ij ~ 1 / (1 + ||y_i - y_j||^2)

PCA keeps distances as well as a projection can; t-SNE keeps who is near whom, and neither the sizes of clusters nor the
distances between them.

Pearson, "On Lines and Planes of Closest Fit", 1901; van der Maaten & Hinton, "Visualizing Data using t-SNE", JMLR 2008; the
start from principal components: Kobak & Berens, "The art of using t-SNE", Nature Communications 2019.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from phosphene.errors import PhospheneError
from phosphene.progress import Job, Started, Step

COMPONENTS = 50
"""What t-SNE sees of the points: their principal components, as in its paper. They hold nearly all, with less noise."""

LARGE = 10_000
"""Above so many points t-SNE is openTSNE's, whose time grows linearly."""

_ROUNDS = {"early": 250, "late": 500}
_SMALL = 1000  # the smaller side of a matrix up to which its singular values are found exactly, all of them


@dataclass(frozen=True, eq=False)
class Projection:
    """Principal components: `points [N, K]`, and the share of the variance that each of the K keeps, in [0, 1]."""

    points: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True, eq=False)
class Map:
    """A map `points [N, 2]`, and the perplexity that it was made with (0: none)."""

    points: np.ndarray
    perplexity: float = 0.0


def directions(features: np.ndarray) -> np.ndarray:
    """Features `[N, D]` scaled to length 1, in float64, so that half of a squared distance is the cosine distance.

    How long a feature vector is tells of the contrast of the image more than of what it shows. Zeros stay zeros.
    """
    wide = np.asarray(features, dtype=np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)


def pca(points: np.ndarray, count: int = 2) -> Projection:
    """The first `count` principal components of points `[N, D]`; columns of zeros where there are fewer.

    The signs are fixed: the largest entry of each direction is positive.

    Raises:
        PhospheneError: fewer than 2 points, NaN or infinity.
    """
    _check(points, 2)
    wide = np.asarray(points, dtype=np.float64)
    shape = (len(wide), count)
    if not np.ptp(wide, axis=0).any():  # all the same: there is no variance to share
        return Projection(np.zeros(shape), np.zeros(count))
    from sklearn.decomposition import PCA
    from threadpoolctl import threadpool_limits

    least = min(wide.shape)
    kept = min(count, least)
    solver: Any = "full" if least <= _SMALL else "arpack"
    with threadpool_limits(1):  # the order of sums must not depend on the machine's cores
        fitted: Any = PCA(kept, svd_solver=solver, random_state=0).fit(wide)
        found = (wide - fitted.mean_) @ fitted.components_.T
    largest = np.abs(fitted.components_).argmax(1)
    signs = np.sign(fitted.components_[np.arange(kept), largest])
    padding = ((0, 0), (0, count - kept))
    return Projection(np.pad(found * signs, padding), np.pad(fitted.explained_variance_ratio_, padding[1]))


def fitting_perplexity(perplexity: float, count: int) -> float:
    """The perplexity that `count` points can have: a third of a point's neighbours at most, and 1 at least.

    Raises:
        PhospheneError: a perplexity below 1; it is the number of neighbours that a point cares for.
    """
    if not (math.isfinite(perplexity) and perplexity >= 1):
        raise PhospheneError(
            f"perplexity {perplexity:g} is out of range: it is about the number of neighbours that count, from 1 to 50"
        )
    return max(1.0, min(perplexity, (count - 1) / 3))


def tsne(points: np.ndarray, *, perplexity: float = 30.0, seed: int = 0) -> Job[Map]:
    """A map of points `[N, D]` by t-SNE of their first `COMPONENTS` principal components.

    It starts from the first two, with a little noise by which equal points can part. The same points and seed give the same
    map.

    Args:
        points: at least 3.
        perplexity: about how many neighbours a point cares for; lowered by `fitting_perplexity` for few points.
        seed: of the noise.

    Yields:
        progress; returns the map.

    Raises:
        PhospheneError: fewer than 3 points, NaN, a perplexity below 1, or more than `LARGE` points without openTSNE.
    """
    _check(points, 3)
    perplexity = fitting_perplexity(perplexity, len(points))
    check_count(len(points))
    optimise = _large if len(points) > LARGE else _exact
    reduced = pca(points, COMPONENTS).points
    reduced = reduced[:, : max(2, min(COMPONENTS, *points.shape))]
    found = yield from optimise(reduced, _start(reduced, seed), perplexity)
    return Map(found, perplexity)


def check_count(count: int) -> None:
    """Raise a PhospheneError if t-SNE of so many points needs openTSNE, and it is not there."""
    if count > LARGE and importlib.util.find_spec("openTSNE") is None:
        raise PhospheneError(
            f"t-SNE of {count} points needs openTSNE: pip install 'phosphene[tsne]', or take --method pca"
        )


def _start(reduced: np.ndarray, seed: int) -> np.ndarray:
    """Principal components as small as t-SNE wants its start, with noise a hundredth of that."""
    first = reduced[:, :2]
    spread = first[:, 0].std()
    noise = np.random.default_rng(seed % 2**64).normal(0, 1e-6 if spread > 0 else 1e-4, first.shape)
    return first / (spread or 1) * 1e-4 + noise


def _exact(reduced: np.ndarray, start: np.ndarray, perplexity: float) -> Job[np.ndarray]:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    yield Started("t-SNE", 1, "map")
    with threadpool_limits(1):
        first: Any = start.astype(np.float32)
        made = TSNE(2, perplexity=perplexity, init=first, random_state=0, n_jobs=1)
        found = made.fit_transform(reduced)
    yield Step(1)
    return np.asarray(found, dtype=np.float64)


def _large(reduced: np.ndarray, start: np.ndarray, perplexity: float) -> Job[np.ndarray]:
    from openTSNE import TSNEEmbedding, affinity  # pyright: ignore[reportMissingImports]

    yield Started("t-SNE", sum(_ROUNDS.values()), "step")
    near: Any = affinity.PerplexityBasedNN(reduced, perplexity=perplexity, n_jobs=1, random_state=0)  # type: ignore[arg-type]
    found: Any = TSNEEmbedding(start, near, n_jobs=1, random_state=0)
    done = 0
    for rounds, options in (
        (_ROUNDS["early"], {"exaggeration": 12, "momentum": 0.5}),
        (_ROUNDS["late"], {"momentum": 0.8}),
    ):
        for _ in range(rounds // 25):
            found = found.optimize(25, **options)
            done += 25
            yield Step(done)
    return np.asarray(found, dtype=np.float64)


def _check(points: np.ndarray, least: int) -> None:
    if points.ndim != 2 or len(points) < least or not points.shape[1]:
        raise PhospheneError(f"a map needs at least {least} images, got {len(points)}")
    if not np.isfinite(points).all():
        raise PhospheneError("the features hold NaN or infinity: no map can be made of them")
