"""Judging explanations: every method on the same images, by every check, beside maps that know nothing.

| check | asks | better |
|---|---|---|
| insertion, deletion | does the probability rise, or fall, early when the best pixels are shown, or taken away? | high, low |
| drop, increase | what does the network say of the picture darkened where the map is low? | low, high |
| focus | does the map of a mosaic point at the right quarter? | high |
| completeness | do the values add up to what they promise to explain? | low |
| randomisation | does the map change when the network's layers are drawn anew? | low |

No check is the truth about an explanation, and they don't agree. What fails the last one should not be trusted at all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from phosphene.errors import ImageError, LayerError, PhospheneError, RuleError, did_you_mean
from phosphene.explain.methods import METHODS
from phosphene.explain.metrics.baselines import BASELINES
from phosphene.explain.metrics.confidence import confidence
from phosphene.explain.metrics.focus import Mosaic, choose_mosaics, focus, mosaic_image
from phosphene.explain.metrics.perturbation import deletion, insertion
from phosphene.explain.metrics.randomisation import cascade, likeness
from phosphene.explain.metrics.statistics import Interval, interval
from phosphene.explain.target import LogProbability
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

PERTURBING = ("insertion", "deletion", "drop", "increase", "completeness")
CHECKS = (*PERTURBING, "focus", "randomisation")
BETTER = {
    "insertion": "high", "deletion": "low", "drop": "low", "increase": "high", "focus": "high", "completeness": "low",
    "ssim": "low", "rank": "low",
}  # fmt: skip
TOGETHER = 8  # images a step: what is kept when the job is interrupted
RANDOMISED = 8  # images of the randomisation, which makes all of its networks with the same ones


class Pictures(Protocol):
    """Images that are read when they are needed: `collection[i]` is `[3, H, W]` in [0, 1] at the network's input size."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        method: a method or a baseline.
        check: insertion, deletion, drop, increase, focus, completeness, ssim or rank.
        item: which image or mosaic.
        value: the number.
        layer: for ssim and rank: down to which layer the network was drawn anew.
    """

    method: str
    check: str
    item: int
    value: float
    layer: str = ""


@dataclass(frozen=True)
class Plan:
    """What to judge, by what, on how much: it decides every number.

    Attributes:
        methods: names of methods and baselines (`centre`, `random`).
        checks: of `CHECKS`.
        images: how many images, at most.
        mosaics: how many mosaics.
        steps: how many networks the randomisation makes.
        seed: of mosaics, noise and weights.
        score: what is explained, the class's `logit` or its `log-probability`.
    """

    methods: tuple[str, ...]
    checks: tuple[str, ...] = CHECKS
    images: int = 20
    mosaics: int = 20
    steps: int = 8
    seed: int = 0
    score: str = "logit"

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in METHODS and name not in BASELINES:
                known = [*METHODS, *BASELINES]
                raise PhospheneError(
                    f"unknown method '{name}'{did_you_mean(name, known)} (there are {', '.join(known)})"
                )
        for name in self.checks:
            if name not in CHECKS:
                raise PhospheneError(
                    f"unknown check '{name}'{did_you_mean(name, CHECKS)} (there are {', '.join(CHECKS)})"
                )
        if self.score not in ("logit", "log-probability"):
            raise PhospheneError(f"no score '{self.score}': explain a class's logit or its log-probability")
        if not self.methods or not self.checks or min(self.images, self.mosaics, self.steps) < 1:
            raise PhospheneError("judging needs at least one method, check, image, mosaic and step")


@dataclass(frozen=True)
class Judgement:
    """`records`: all measurements. `refused`: methods that this network can't have, and why. `skipped`: unreadable images."""

    records: tuple[Record, ...]
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)

    def table(self, seed: int = 0) -> dict[str, dict[str, Interval]]:
        """Method -> check -> mean with its 95% interval over images (over layers and images for ssim and rank)."""
        found: dict[str, dict[str, list[float]]] = {}
        for record in self.records:
            found.setdefault(record.method, {}).setdefault(record.check, []).append(record.value)
        return {
            method: {check: interval(values, seed=seed) for check, values in checks.items()}
            for method, checks in found.items()
        }

    def cascade(self, check: str) -> dict[str, dict[str, float]]:
        """Method -> layer, from the last to the first -> mean `ssim` or `rank` to the trained network's map."""
        found: dict[str, dict[str, list[float]]] = {}
        for record in self.records:
            if record.check == check and record.layer:
                found.setdefault(record.method, {}).setdefault(record.layer, []).append(record.value)
        return {
            method: {layer: sum(values) / len(values) for layer, values in layers.items()}
            for method, layers in found.items()
        }


def judge(
    network: Network,
    images: Pictures,
    plan: Plan,
    *,
    known: Collection[Record] = (),
    keep: Callable[[Sequence[Record]], None] | None = None,
) -> Job[Judgement]:
    """Judge explanations of what the network itself sees in each image: its most probable class.

    Args:
        network: a network that classifies.
        images: the collection. `plan.images` of it, evenly spread, are explained; mosaics are drawn from up to four images
            for each.
        plan: what to do.
        known: records of an earlier, interrupted run of the same plan: what they hold is not measured again.
        keep: is told each step's records as soon as they are there.

    Yields:
        progress; returns the judgement.

    Raises:
        PhospheneError: a folder without images; all of them of one class, for mosaics.
        NetworkError: a network without classes; NaN on the way.
    """
    network.need_classifier("judging explanations")
    if not len(images):
        raise PhospheneError("there are no images to judge explanations on")
    bench = _Bench(network, images, plan, known, keep)
    yield from bench.look()
    yield from bench.perturb()
    if "focus" in plan.checks:
        yield from bench.mosaics()
    if "randomisation" in plan.checks:
        yield from bench.randomise()
    return Judgement(tuple(bench.records), bench.refused, bench.skipped)


class _Bench:
    """The work in progress."""

    def __init__(
        self,
        network: Network,
        images: Pictures,
        plan: Plan,
        known: Collection[Record],
        keep: Callable[[Sequence[Record]], None] | None,
    ) -> None:
        self.network, self.images, self.plan, self.keep = network, images, plan, keep
        self.records = list(known)
        self.done = {(record.method, record.check, record.item, record.layer) for record in known}
        self.refused: dict[str, str] = {}
        self.skipped: dict[int, str] = {}
        self.classes: dict[int, int] = {}
        self.chosen = _spread(plan.images, len(images))
        self.drawn: list[Mosaic] = []

    def look(self) -> Job[None]:
        """Note what the network sees in the images that are needed, and draw the mosaics."""
        game = _spread(4 * self.plan.mosaics, len(self.images)) if "focus" in self.plan.checks else []
        places = sorted({*self.chosen, *game})
        yield Started("looking at the images", len(places), "image")
        for done, part in enumerate(_parts(places, TOGETHER), start=1):
            readable = self._readable(part)
            if readable:
                found = self.network.predict(self.batch(readable), 1)
                self.classes.update(zip(readable, (row.indices[0] for row in found), strict=True))
            yield Step(min(done * TOGETHER, len(places)))
        if not self.classes:
            raise PhospheneError(f"no image can be read: {next(iter(self.skipped.values()))}")
        self.chosen = [place for place in self.chosen if place in self.classes]
        game = [place for place in game if place in self.classes]
        if game:
            drawn = choose_mosaics([self.classes[place] for place in game], self.plan.mosaics, seed=self.plan.seed)
            self.drawn = [Mosaic(tuple(game[i] for i in mosaic.images), mosaic.quarter) for mosaic in drawn]

    def _readable(self, places: list[int]) -> list[int]:
        for place in places:
            try:
                self.images[place]
            except ImageError as problem:
                self.skipped[place] = str(problem)
        return [place for place in places if place not in self.skipped]

    def batch(self, places: Sequence[int]) -> Tensor:
        """`[N, 3, H, W]`."""
        return torch.stack([self.images[place] for place in places]).to(self.network.mean)

    def explain(self, method: str, network: Network, images: Tensor, classes: Sequence[int], first: int) -> Any:
        """`(maps, error or None)`, or None where the network can't have this method."""
        if method in BASELINES:
            return BASELINES[method](images, first, self.plan.seed), None
        try:
            options = {"seed": self.plan.seed} if METHODS[method].random else {}
            target = LogProbability(list(classes)) if self.plan.score == "log-probability" else list(classes)
            found = METHODS[method](network, images, target, **options)
        except (RuleError, LayerError) as refusal:
            self.refused.setdefault(method, str(refusal))
            return None
        return found.maps, found.error

    def add(self, records: Sequence[Record]) -> None:
        """Keep what is new."""
        new = [r for r in records if (r.method, r.check, r.item, r.layer) not in self.done]
        self.done.update((r.method, r.check, r.item, r.layer) for r in new)
        self.records += new
        if new and self.keep is not None:
            self.keep(new)

    def missing(self, method: str, checks: Sequence[str], items: Sequence[int]) -> list[str]:
        """Which of the checks are not known yet for all of these items."""
        return [check for check in checks if any((method, check, item, "") not in self.done for item in items)]

    def methods(self) -> list[str]:
        """Those that have not been refused."""
        return [name for name in self.plan.methods if name not in self.refused]

    def perturb(self) -> Job[None]:
        """Insertion, deletion, drop, increase and completeness, image by image."""
        checks = [check for check in PERTURBING if check in self.plan.checks]
        if not checks:
            return
        places = self.chosen
        yield Started("insertion, deletion, confidence", len(places) * len(self.plan.methods), "map")
        done = 0
        for part in _parts(places, TOGETHER):
            images = self.batch(part)
            for method in self.plan.methods:
                done += len(part)
                wanted = self.missing(method, checks, part) if method not in self.refused else []
                if [check for check in wanted if check != "completeness"] or (wanted and _promises(method)):
                    self._perturb(method, images, part, wanted)
                yield Step(done)

    def _perturb(self, method: str, images: Tensor, part: list[int], checks: Sequence[str]) -> None:
        classes = [self.classes[place] for place in part]
        explained = self.explain(method, self.network, images, classes, part[0])
        if explained is None:
            return
        maps, error = explained
        found: dict[str, Tensor] = {}
        for name, walk in (("insertion", insertion), ("deletion", deletion)):
            if name in checks:
                found[name] = walk(self.network, images, classes, maps).auc
        if "drop" in checks or "increase" in checks:
            seen = confidence(self.network, images, classes, maps)
            found |= {"drop": seen.drop, "increase": seen.increase}
        if error is not None:
            found["completeness"] = error
        self.add(
            [
                Record(method, check, place, float(value))
                for check, values in found.items()
                if check in checks
                for place, value in zip(part, values.tolist(), strict=True)
            ]
        )

    def mosaics(self) -> Job[None]:
        """The Focus game."""
        mosaics = self.drawn
        methods = self.methods()
        yield Started("focus", len(mosaics) * len(methods), "mosaic")
        done = 0
        for part in _parts(list(range(len(mosaics))), max(1, TOGETHER // 4)):
            chosen = [mosaics[place] for place in part]
            images, asked = self._mosaic_batch(chosen)
            for method in methods:
                done += len(part)
                if method not in self.refused and self.missing(method, ["focus"], part):
                    explained = self.explain(method, self.network, images, asked, part[0])
                    if explained is not None:
                        shares = focus(explained[0], [mosaic.quarter for mosaic in chosen])
                        self.add(
                            [Record(method, "focus", p, float(v)) for p, v in zip(part, shares.tolist(), strict=True)]
                        )
                yield Step(done)

    def _mosaic_batch(self, mosaics: Sequence[Mosaic]) -> tuple[Tensor, list[int]]:
        images = torch.stack([mosaic_image(self.batch(mosaic.images)) for mosaic in mosaics])
        return images, [self.classes[mosaic.images[mosaic.quarter]] for mosaic in mosaics]

    def randomise(self) -> Job[None]:
        """Adebayo's cascade, on the first images."""
        places = self.chosen[:RANDOMISED]
        images, classes = self.batch(places), [self.classes[place] for place in places]
        methods = [name for name in self.methods() if name in METHODS]
        yield Started("drawing the layers anew", self.plan.steps * len(methods), "map")
        trained: dict[str, Tensor] = {}
        done = 0
        for layer, twin in cascade(self.network, images, steps=self.plan.steps, seed=self.plan.seed):
            for method in methods:
                done += 1
                known = all((method, check, p, layer) in self.done for p in places for check in ("ssim", "rank"))
                if not known and method not in self.refused:
                    if method not in trained and (first := self.explain(method, self.network, images, classes, 0)):
                        trained[method] = first[0]
                    again = self.explain(method, twin, images, classes, 0) if method in trained else None
                    if again is not None:
                        self.add(list(_likenesses(method, layer, places, trained[method], again[0])))
                yield Step(done)


def _likenesses(method: str, layer: str, places: Sequence[int], one: Tensor, other: Tensor) -> Iterator[Record]:
    for place, before, after in zip(places, one, other, strict=True):
        if not bool(after.any()):
            continue  # the class is dead in this network: there is no explanation that could be like the trained one's
        found = likeness(before, after)
        yield Record(method, "ssim", place, found.ssim, layer)
        yield Record(method, "rank", place, found.rank, layer)


def _promises(method: str) -> bool:
    return method in METHODS and METHODS[method].complete


def _spread(count: int, total: int) -> list[int]:
    """Up to `count` places of `total`, evenly spread: a folder is sorted, and its first images may all be of one class."""
    count = min(count, total)
    return [place * total // count for place in range(count)]


def _parts(places: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
