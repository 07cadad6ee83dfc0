"""A classifier judged on held-out photographs, and the photographs themselves looked through: for `probe` and `finetune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import images
from phosphene.errors import LayerError, PhospheneError
from phosphene.explain import grad_cam
from phosphene.images import Panel
from phosphene.jobs.outcome import Picture
from phosphene.models import Network
from phosphene.progress import Job, Started, Step
from phosphene.report.learning_plots import confusion_plot, per_class_plot
from phosphene.training.folder import Examples, Photo
from phosphene.training.review import Doubt, Duplicates, Mistake, Twins, mistakes, near_duplicates, suspicious
from phosphene.training.scores import Numbers, scores

SHOWN = 12
"""Mistakes, pairs of duplicates and doubtful labels on a sheet: so many at most."""
_SIDE = 200


@dataclass(frozen=True, eq=False)
class Judgement:
    """Pictures and facts of a judgement, see `judge`."""

    pictures: tuple[Picture, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def picture(self, name: str) -> Picture | None:
        """The picture called `name`, if there is one."""
        return next((picture for picture in self.pictures if picture.name == name), None)


def judge(
    network: Network,
    examples: Examples,
    probabilities: Numbers,
    train_vectors: Tensor,
    val_vectors: Tensor,
    *,
    seed: int,
) -> Job[Judgement]:
    """Judge a network on the photographs of `examples.val`, and look for duplicates and doubtful labels in all.

    Pictures: `confusion` and `classes`; `mistakes`, `duplicates` and `suspicious`, sheets that are there only if there are
    any. Facts: those of `Scores`, and `mistakes`, `duplicates` (between val and train), `twice` (inside train), `suspicious`,
    each a list with file names below the folder; only the mistakes are limited to the most confident ones.

    Args:
        network: classifies `examples.classes`, in their order.
        examples: the folder.
        probabilities: `[M, C]`, of `examples.val` in order.
        train_vectors, val_vectors: features `[N, D]` and `[M, D]` of a late stage that is the same for both.
        seed: of the bootstrap and of the folds.

    Raises:
        PhospheneError: other classes, or shapes that don't match.
        ImageError: a photograph that can't be read any more.
    """
    if tuple(network.labels) != examples.classes:
        raise PhospheneError(f"{network.name} has other classes than '{examples.folder}'")
    labels = [photo.label for photo in examples.val]
    found = scores(probabilities, labels, examples.classes, seed=seed % 2**32)
    wrong = mistakes(probabilities, labels, SHOWN)
    twins = yield from near_duplicates(train_vectors, val_vectors, examples.train, examples.val)
    yield Started("looking for doubtful labels", 1, "pass")
    photos = (*examples.train, *examples.val)
    vectors = torch.cat([train_vectors, val_vectors])
    doubts = suspicious(vectors, [photo.label for photo in photos], examples.classes, seed)
    yield Step(1)
    shown = yield from _mistakes_sheet(network, examples, wrong)
    said = f"the {len(labels):,} held-out photographs"
    sheets = (
        Picture("confusion", confusion_plot(found.confusion, examples.classes), f"What {network.name} says of {said}"),
        Picture("classes", per_class_plot(found), f"Recall and precision of {network.name} for each class"),
        shown,
        _duplicates_sheet(examples, twins),
        _suspicious_sheet(examples, photos, doubts),
    )
    facts = {
        **found.facts(),
        "mistakes": [_mistake(examples, one) for one in wrong],
        "duplicates": [_twins(examples, pair) for pair in twins.between],
        "twice": [_twins(examples, pair) for pair in twins.within],
        "suspicious": [_doubt(examples, photos[one.place], one) for one in doubts],
    }
    return Judgement(tuple(picture for picture in sheets if picture is not None), facts)


# -- sheets -------------------------------------------------------------------------------------------------------------


def _mistakes_sheet(network: Network, examples: Examples, wrong: Sequence[Mistake]) -> Job[Picture | None]:
    """Each photograph as the network sees it, and beside it what speaks for the class that it said."""
    if not wrong:
        return None
    yield Started("explaining mistakes", len(wrong), "image")
    panels = []
    for done, one in enumerate(wrong, start=1):
        path = examples.val[one.place].path
        photo = network.preprocess(images.read(path))
        said, true = examples.classes[one.said], examples.classes[one.true]
        title = f"said {said} {_percent(one.probability)}, is {true}"
        panels += [Panel(photo[0], title, _below(examples, path)), _heat(network, photo, one.said, said)]
        yield Step(done)
    note = (
        f"Left each photograph as {network.name} sees it, right Grad-CAM for the class that it said: red matters most."
    )
    sheet = images.sheet(panels, columns=2 if len(panels) <= 4 else 6, side=_SIDE, footnote=note)
    alt = f"The {len(wrong)} most confident mistakes, each with what speaks for the class that was said"
    return Picture("mistakes", sheet, alt, "The most confident mistakes come first.")


def _heat(network: Network, photo: Tensor, index: int, name: str) -> Panel:
    try:
        found = grad_cam(network, photo.to(network.mean), [index])
    except LayerError:  # a network without maps
        return Panel(None, "", "no layer with a map: no Grad-CAM")
    return Panel(images.overlay(photo.cpu(), found.maps.cpu())[0], "", f"what speaks for {name}")


def _duplicates_sheet(examples: Examples, twins: Duplicates) -> Picture | None:
    """Pairs side by side, those between val and train first."""
    pairs = [*((pair, "val") for pair in twins.between), *((pair, "train") for pair in twins.within)][:SHOWN]
    if not pairs:
        return None
    panels = []
    for pair, side in pairs:
        for photo, part, kind in ((pair.left, side, ""), (pair.right, "train", f"{pair.kind}\n")):
            title = f"{part}: {examples.classes[photo.label]}"
            panels.append(Panel(_small(photo.path), title, f"{kind}{_below(examples, photo.path)}"))
    sheet = images.sheet(panels, columns=2 if len(panels) <= 4 else 6, side=_SIDE)
    alt = f"{len(pairs)} pairs of photographs that show one picture"
    count = f"{len(twins.between):,} between val and train, {len(twins.within):,} inside train"
    return Picture("duplicates", sheet, alt, f"Pairs, two side by side: {count}.")


def _suspicious_sheet(examples: Examples, photos: Sequence[Photo], doubts: Sequence[Doubt]) -> Picture | None:
    if not doubts:
        return None
    panels = []
    for one in doubts[:SHOWN]:
        photo = photos[one.place]
        title = f"{examples.classes[one.label]}? Like {examples.classes[one.suggested]}, {_percent(one.probability)}"
        panels.append(Panel(_small(photo.path), title, _below(examples, photo.path)))
    sheet = images.sheet(panels, columns=None if len(panels) <= 5 else 6, side=_SIDE)
    alt = f"{len(panels)} photographs whose labels the features speak against"
    return Picture("suspicious", sheet, alt, f"The most doubtful of {len(doubts):,} doubtful labels come first.")


def _small(path: Path) -> Tensor:
    """A photograph `[3, H, W]` no larger than a sheet needs, so that a sheet of large ones stays small in memory."""
    picture = images.read(path)
    factor = 2 * _SIDE / max(picture.shape[-2:])
    if factor >= 1:
        return picture[0]
    height, width = (max(1, round(side * factor)) for side in picture.shape[-2:])
    return images.resize(picture, (height, width))[0]


# -- facts --------------------------------------------------------------------------------------------------------------


def _mistake(examples: Examples, one: Mistake) -> dict[str, Any]:
    return {
        "image": _below(examples, examples.val[one.place].path),
        "true": examples.classes[one.true],
        "said": examples.classes[one.said],
        "probability": one.probability,
    }


def _twins(examples: Examples, pair: Twins) -> dict[str, Any]:
    return {
        "image": _below(examples, pair.left.path),
        "other": _below(examples, pair.right.path),
        "label": examples.classes[pair.left.label],
        "other_label": examples.classes[pair.right.label],
        "kind": pair.kind,
        "likeness": pair.likeness,
    }


def _doubt(examples: Examples, photo: Photo, one: Doubt) -> dict[str, Any]:
    return {
        "image": _below(examples, photo.path),
        "label": examples.classes[one.label],
        "suggested": examples.classes[one.suggested],
        "probability": one.probability,
        "own": one.own,
    }


def _below(examples: Examples, path: Path) -> str:
    """The path of a photograph in its folder."""
    try:
        return path.relative_to(examples.folder).as_posix()
    except ValueError:  # a photograph from elsewhere
        return str(path)


def _percent(share: float) -> str:
    """`98%`; never 100% for what is not quite sure."""
    return "> 99%" if 0.995 <= share < 1 else f"{share:.0%}"
