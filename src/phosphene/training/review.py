"""What to look at in a folder of photographs: confident mistakes, photographs that are there twice, doubtful labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.models.network import LUMA
from phosphene.progress import Job, Started, Step
from phosphene.training.folder import Photo
from phosphene.training.scores import Numbers, checked

ALIKE = 0.5
"""Cosine of centred features from which two photographs are compared by their pixels. Of 400 copies (smaller, JPEG at
quality 40, brighter, mirrored, cropped by 5%) in two folders the least had 0.64."""
SAME = 0.97
"""Correlation of fine detail from which two photographs are one picture. The 400 copies had at least 0.98, 4,000 pairs of
alike photographs at most 0.67. Small drawings are more alike: of 3,000 digits of MNIST 4% reach 0.9, and none 0.97."""
NEAREST = 3
"""Of how many most alike photographs the pixels are compared."""
_SIDE = 32
_CUTS = (1.0, 0.975, 0.95, 0.925, 0.9)
_KEPT = 20_000
_BLOCK = 2048
_TOGETHER = 64

DIMENSIONS = 256
"""In how many directions features are told apart: fewer than 1,280 lose little, and cost little for 50,000 photographs."""
_FEWEST = 3
_FOLDS = 5
_STRENGTH = 10.0
"""Inverse of the penalty of the classifier that doubts labels. Of 5% that were made wrong, its list held 78% in Imagenette
and 64% in ants and bees, with 4% and 3% others in it: means of ten draws."""


@dataclass(frozen=True)
class Mistake:
    """A photograph at `place`, of the class `true`, that was `said` to be of another with this probability."""

    place: int
    true: int
    said: int
    probability: float


def mistakes(probabilities: Numbers, labels: Numbers, count: int = 12) -> list[Mistake]:
    """The most confident mistakes, the most confident first; of equals the first.

    Args:
        probabilities: `[M, C]`.
        labels: `[M]`, the true classes.
        count: at most so many.

    Raises:
        PhospheneError: shapes that don't match, or rows that are no probabilities.
    """
    shares, true = checked(probabilities, labels)
    said, sure = shares.argmax(1), shares.max(1)
    wrong = np.flatnonzero(said != true)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:count]
    return [Mistake(int(i), int(true[i]), int(said[i]), float(sure[i])) for i in order]


# -- photographs that are there twice -----------------------------------------------------------------------------------

Kind: TypeAlias = Literal["same file", "same picture", "mirrored"]


@dataclass(frozen=True)
class Twins:
    """Two photographs that show one picture.

    Attributes:
        left, right: the photographs; `left` is of val where they are on both sides, else the earlier one.
        kind: the same bytes, the same picture in another file, or its mirror image.
        likeness: correlation of fine detail, 1 for the same bytes.
    """

    left: Photo
    right: Photo
    kind: Kind
    likeness: float


@dataclass(frozen=True)
class Duplicates:
    """Photographs that are there twice, the most alike first: between val and train, and inside train."""

    between: tuple[Twins, ...]
    within: tuple[Twins, ...]


def near_duplicates(
    train_vectors: Tensor,
    val_vectors: Tensor,
    train_photos: Sequence[Photo],
    val_photos: Sequence[Photo],
    *,
    alike: float = ALIKE,
    same: float = SAME,
) -> Job[Duplicates]:
    """Find photographs of val that are in train, too, and those that train has twice.

    Features say which photographs may be one picture: of each the `NEAREST` whose cosine, after the mean of train is taken
    away, is at least `alike`. Pixels decide: what is finer than a sixth of the picture must correlate by at least `same`, so
    that a like subject or sky is not enough. A smaller or brighter copy is found, stronger compression, a mirror image, and
    up to a tenth cut off around the middle; not one that is turned. Two plain surfaces are never taken for one picture
    unless their files are the same.

    Args:
        train_vectors, val_vectors: features `[N, D]` and `[M, D]`, best of the last stage.
        train_photos, val_photos: N and M photographs.
        alike: in [-1, 1].
        same: in (0, 1].

    Yields:
        progress; returns the pairs.

    Raises:
        PhospheneError: as many features as photographs are needed.
        ImageError: a photograph that can't be read any more.
    """
    _check_vectors(train_vectors, train_photos)
    _check_vectors(val_vectors, val_photos)
    mean = train_vectors.float().mean(0)
    mine, theirs = _unit(train_vectors.float() - mean), _unit(val_vectors.float() - mean)
    yield Started("looking for duplicates", len(val_photos) + len(train_photos), "image")
    details = _Details()
    between = yield from _pairs(theirs, val_photos, mine, train_photos, alike, same, details, 0)
    within = yield from _pairs(mine, train_photos, None, train_photos, alike, same, details, len(val_photos))
    return Duplicates(_ranked(between), _ranked(within))


def _check_vectors(vectors: Tensor, photos: Sequence[object]) -> None:
    if vectors.ndim != 2 or len(vectors) != len(photos):
        raise PhospheneError(f"features {list(vectors.shape)} of {len(photos)} photographs: give a row for each")


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=1)


def _ranked(pairs: Sequence[Twins]) -> tuple[Twins, ...]:
    return tuple(sorted(pairs, key=lambda pair: -pair.likeness))


def _pairs(
    left: Tensor,
    left_photos: Sequence[Photo],
    right: Tensor | None,
    right_photos: Sequence[Photo],
    alike: float,
    same: float,
    details: _Details,
    before: int,
) -> Job[list[Twins]]:
    """Each of `left` against all of `right`, or against those after it in `left` itself, where `right` is None."""
    found: list[Twins] = []
    places = _by_sha(right_photos)
    for start in range(0, len(left), _TOGETHER):
        block = left[start : start + _TOGETHER]
        near = _nearest(block, left if right is None else right, start if right is None else None, alike)
        for row, others in enumerate(near):
            place, photo = start + row, left_photos[start + row]
            first = next(iter(places.get(photo.sha, [])), None)
            if first is not None and right is not None:
                found.append(Twins(photo, right_photos[first], "same file", 1.0))
            elif first is not None and first < place:
                found.append(Twins(right_photos[first], photo, "same file", 1.0))
            unlike = [right_photos[p] for p in others if not (photo.sha and right_photos[p].sha == photo.sha)]
            found += _confirmed(photo, unlike, same, details)
        yield Step(before + min(start + _TOGETHER, len(left)))
    return found


def _by_sha(photos: Sequence[Photo]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for place, photo in enumerate(photos):
        if photo.sha:
            found.setdefault(photo.sha, []).append(place)
    return found


def _nearest(block: Tensor, right: Tensor, own: int | None, alike: float) -> list[list[int]]:
    """For each row of `block` the places of the most alike rows of `right`.

    Blockwise, so that memory stays small. `own`: where the block begins in `right`; then only what is after a row counts.
    """
    best = torch.full((len(block), 0), -2.0)
    places = torch.zeros((len(block), 0), dtype=torch.long)
    for start in range((own or 0) // _BLOCK * _BLOCK, len(right), _BLOCK):
        part = block @ right[start : start + _BLOCK].T
        here = torch.arange(start, start + part.shape[1])
        if own is not None:
            part[here[None, :] <= own + torch.arange(len(block))[:, None]] = -2.0
        values = torch.cat([best, part], 1)
        order = torch.cat([places, here.expand(len(block), -1)], 1)
        best, top = values.topk(min(NEAREST, values.shape[1]), dim=1)
        places = order.gather(1, top)
    rows = zip(best.tolist(), places.tolist(), strict=True)
    return [[place for value, place in zip(*row, strict=True) if value >= alike] for row in rows]


def _confirmed(photo: Photo, others: Sequence[Photo], same: float, details: _Details) -> Iterator[Twins]:
    for other in others:
        likeness, mirrored = details.likeness(photo, other)
        if likeness >= same:
            yield Twins(photo, other, "mirrored" if mirrored else "same picture", likeness)


class _Details:
    """The fine detail of photographs, read once each: of the whole picture, and with a little cut off."""

    def __init__(self) -> None:
        self._known: dict[Path, Tensor] = {}

    def likeness(self, a: Photo, b: Photo) -> tuple[float, bool]:
        """The largest correlation of one picture with a cut of the other, and whether that is mirrored."""
        mine, theirs = self._of(a), self._of(b)
        straight, turned = _correlation(mine, theirs), _correlation(mine.flip(-1), theirs)
        return max(straight, turned), turned > straight

    def _of(self, photo: Photo) -> Tensor:
        found = self._known.get(photo.path)
        if found is None:
            if len(self._known) >= _KEPT:
                del self._known[next(iter(self._known))]  # the oldest
            found = self._known[photo.path] = detail(images.read(photo.path)).half()  # 10 kB
        return found.float()


def _correlation(a: Tensor, b: Tensor) -> float:
    """The largest of one whole picture with the cuts of the other."""
    return max(float((a[0] * b).sum((1, 2)).max()), float((b[0] * a).sum((1, 2)).max()))


def detail(picture: Tensor) -> Tensor:
    """What is finer than a sixth of the picture `[1, 3, H, W]`, as `[cuts, 32, 32]` of length 1, or 0 for plain ones.

    Of the whole picture, and with up to a tenth of it cut off around the middle.
    """
    grey = (picture * picture.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    small = torch.cat([images.resize(_middle(grey, share), (_SIDE, _SIDE), mode="bilinear") for share in _CUTS])
    coarse = F.avg_pool2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), 5, 1)
    fine = small - coarse
    fine = fine * (fine.std((1, 2, 3), keepdim=True) > 1 / 255)
    return (fine / fine.norm(dim=(2, 3), keepdim=True).clamp(min=1e-9))[:, 0]


def _middle(picture: Tensor, share: float) -> Tensor:
    height, width = picture.shape[-2:]
    top, left = (round(side * (1 - share) / 2) for side in (height, width))
    return picture[..., top : height - top, left : width - left]


# -- doubtful labels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Doubt:
    """A label that the features speak against.

    Attributes:
        place: of the photograph.
        label: that it has.
        suggested: the class that others like it have.
        probability: of the suggested class.
        own: probability of its own label.
    """

    place: int
    label: int
    suggested: int
    probability: float
    own: float


def suspicious(vectors: Numbers, labels: Numbers, classes: Sequence[str], seed: int = 0) -> list[Doubt]:
    """Labels that a classifier contradicts which has not seen them, the most doubtful first.

        t_j = mean of p_j over photographs labelled j;   doubtful: p_label < t_label, and p_j >= t_j of another class j

    p are out-of-fold probabilities of a logistic regression on standardised features. It is a hint to look: of labels that
    were made wrong on purpose it finds most, and it also finds photographs that are merely unusual.

    Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 2021.

    Args:
        vectors: features `[N, D]`, best of the last stage.
        labels: `[N]`, 0 to C - 1.
        classes: names, C of them. Photographs of a class with fewer than 3 are left out.
        seed: of the folds.

    Returns:
        doubts, by p_suggested - p_label; none where fewer than two classes are large enough.

    Raises:
        PhospheneError: shapes that don't match, or values that aren't finite.
    """
    data, given = _array(vectors).astype(np.float64), _array(labels).astype(np.int64)
    if data.ndim != 2 or given.shape != data.shape[:1] or not np.isfinite(data).all():
        raise PhospheneError(f"features {data.shape} and labels {given.shape}: give finite [N, D], and [N]")
    sizes = np.bincount(given, minlength=len(classes))
    kept = np.flatnonzero(sizes[given] >= _FEWEST)
    used, mine = np.unique(given[kept], return_inverse=True)
    if len(used) < 2:
        return []
    shares = _out_of_fold(data[kept], mine, min(_FOLDS, int(sizes[used].min())), seed)
    found = [
        Doubt(int(kept[i]), int(used[mine[i]]), int(used[j]), float(shares[i, j]), float(shares[i, mine[i]]))
        for i, j in _contradicted(shares, mine)
    ]
    return sorted(found, key=lambda doubt: doubt.own - doubt.probability)


def _contradicted(shares: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places of doubtful labels, and the most probable of the classes that are above their threshold."""
    rows = np.arange(len(labels))
    own = shares[rows, labels]
    thresholds = np.array([own[labels == label].mean() for label in range(shares.shape[1])])
    above = np.where(shares >= thresholds, shares, -1.0)
    above[rows, labels] = -1.0
    best = above.argmax(1)
    doubtful = (own < thresholds[labels]) & (above[rows, best] >= 0) & (above[rows, best] > own)
    yield from ((int(i), int(best[i])) for i in np.flatnonzero(doubtful))


def _out_of_fold(vectors: np.ndarray, labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Probabilities `[N, C]` of photographs by classifiers that were fitted to the other folds."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    split = StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32)
    model = LogisticRegression(C=_STRENGTH, max_iter=500)
    return np.asarray(cross_val_predict(model, _fewer(vectors), labels, cv=split, method="predict_proba"))


def _fewer(vectors: np.ndarray) -> np.ndarray:
    """Standardised features of length about 1, in at most `DIMENSIONS` directions, those of the largest variance.

    They are not scaled again in these directions: that would make the least of them, which are noise, as loud as the first.
    """
    scale = vectors.std(0) * vectors.shape[1] ** 0.5
    even = (vectors - vectors.mean(0)) / np.where(scale > 0, scale, 1)
    width = min(*vectors.shape, DIMENSIONS)
    if width == vectors.shape[1]:
        return even
    if len(even) >= even.shape[1]:
        return even @ np.linalg.eigh(even.T @ even)[1][:, -width:]
    squares, places = np.linalg.eigh(even @ even.T)
    return places[:, -width:] * np.sqrt(squares[-width:].clip(0))


def _array(values: Numbers) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
