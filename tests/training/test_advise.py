"""The lecture's table: its corners from measurements, and each measurement against a slow, obvious one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pupils import fill, found, outcome, pupil

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.explain.metrics.statistics import Interval
from phosphene.models import Network
from phosphene.models.registry import sized
from phosphene.training import stages
from phosphene.training.advise import (
    HIGH,
    MANY,
    MEDIUM,
    RECIPES,
    USUAL,
    Measured,
    advise,
    evidence,
    measure,
    nearest,
)  # fmt: skip
from phosphene.training.features import stage_features
from phosphene.training.folder import Photo
from phosphene.training.usual import COUNTS, Distance, Usual, frechet, sample, shipped, usual

NEAR, FAR = Distance(1.0, 0.01, 0.3, 0.05, 100), Distance(1.6, 0.01, 0.9, 0.9, 100)


def measured(median: float = 50, depth: float = 0.0, knn: float = 0.85, distance: Distance | None = None) -> Measured:
    return Measured(
        classes=2, least=int(median), median=median, stages=("a", "b", "c", "d"), accuracies=(0.5, 0.6, 0.7, 0.8), last="d",
        earlier="b", gain=Interval(-0.2, -0.3, -0.1, 99), depth=depth, depth_error=0.1, knn=knn, neighbours=5, chance=0.5,
        distance=distance,
    )  # fmt: skip


# -- the table ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("median", "depth", "distance", "recipe"),
    [
        (5, 0.6, NEAR, "top"),
        (5, -0.6, FAR, "stages"),
        (500, 0.6, NEAR, "few-layers"),
        (500, -0.6, FAR, "many-layers"),
    ],
)
def test_the_four_corners(median: int, depth: float, distance: Distance, recipe: str) -> None:
    advice = advise(measured(median, depth, 0.95 if depth > 0 else 0.6, distance))
    assert advice.recipe == recipe == RECIPES[advice.amount, advice.kind]
    assert advice.sureness == "high" and advice.probability > 0.9
    assert advise(measured(median, depth)).recipe == recipe  # what a network's own linear classifiers say is enough


def test_the_borders() -> None:
    assert advise(measured(MANY - 1)).amount == "few" and advise(measured(MANY)).amount == "many"
    on_both = advise(measured(MANY, 0.0, 0.85))  # 0.85 is 70% of the way from guessing to always right
    assert on_both.many == 0.5 and on_both.similar == pytest.approx(0.5) and on_both.probability == pytest.approx(0.25)
    assert on_both.sureness == "low"
    assert advise(measured(5, -0.01)).kind == "different" and advise(measured(5, 0.01)).kind == "similar"


def test_further_from_the_borders_is_surer() -> None:
    amounts = [advise(measured(count, 0.5)).probability for count in (50, 80, 150, 400, 5000)]
    little = [advise(measured(count, 0.5)).probability for count in (49, 30, 15, 5, 1)]
    depths = [advise(measured(5, depth)).similar for depth in (-2.0, -0.5, -0.2, -0.1, 0.0, 0.1, 0.2, 0.5)]
    for series in (amounts, little, depths):
        assert series == sorted(series) and series[0] < series[-1]
    assert [advise(measured(5, x)).sureness for x in (0.01, 0.12, 0.5)] == ["low", "medium", "high"]
    assert 0.25 < MEDIUM < HIGH < 1


def test_what_is_less_exact_decides_less() -> None:
    exact, vague = measured(5, -0.5), replace(measured(5, -0.5), depth_error=1.0)
    assert evidence(exact)["depth"] < evidence(vague)["depth"] < 0
    assert advise(exact).probability > advise(vague).probability
    tipped = replace(vague, distance=NEAR, knn=1.0)
    assert advise(vague).kind == "different" and advise(tipped).kind == "similar"
    assert advise(replace(exact, distance=NEAR, knn=1.0)).kind == "different"  # but not what is clear


def test_what_is_not_known_speaks_for_nothing() -> None:
    unknown = replace(measured(1), depth=math.nan, depth_error=math.nan, earlier=None, gain=None)
    assert evidence(unknown)["depth"] == evidence(unknown)["distance"] == 0
    advice = advise(unknown)
    assert advice.amount == "few" and advice.sureness == "low"
    assert any("can't be told" in reason for reason in advice.reasons)
    assert any("not known for this network" in reason for reason in advice.reasons)


def test_reasons_have_the_numbers() -> None:
    said = " ".join(advise(measured(7, -0.5, 0.62, FAR)).reasons)
    for text in (
        "very little to learn from: 7 photographs", "(b) does better than one on the last (d)", "39% lower",
        "60.0% against 80.0%", "-30.0 to -10.0 points", "different data", "are at 1.60 from", "5 neighbours", "62.0%",
    ):  # fmt: skip
        assert text in said, text
    assert "quite a lot to learn from" in " ".join(advise(measured(900, 0.5)).reasons)


# -- neighbours ---------------------------------------------------------------------------------------------------------


def by_hand(features: np.ndarray, labels: np.ndarray, count: int) -> float:
    """The vote, photograph by photograph."""
    centred = features - features.mean(0)
    right = 0
    for place, mine in enumerate(centred):
        alike = [
            (float(mine @ x / np.linalg.norm(mine) / np.linalg.norm(x)), int(labels[k]))
            for k, x in enumerate(centred)
            if k != place
        ]
        votes: dict[int, list[float]] = {}
        for likeness, label in sorted(alike, reverse=True)[:count]:
            votes.setdefault(label, []).append(likeness)
        right += max(votes, key=lambda label: (len(votes[label]), sum(votes[label]))) == labels[place]
    return right / len(labels)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_neighbours_vote_as_counted_by_hand(count: int) -> None:
    random = np.random.default_rng(count)
    labels = random.integers(0, 4, 300)
    features = (random.normal(0, 1, (300, 12)) + 0.7 * np.eye(4, 12)[labels] + 5).astype(np.float32)
    assert nearest(features, labels, count) == pytest.approx(by_hand(features.astype(np.float64), labels, count))


def test_neighbours_at_the_ends() -> None:
    labels = np.repeat([0, 1], 10)
    apart = np.eye(2)[labels] + np.random.default_rng(0).normal(0, 0.01, (20, 2))
    assert nearest(apart, labels) == 1
    assert nearest(apart[[0, 10]], labels[[0, 10]], 5) == 0  # the only other one is of the other class
    assert 0 <= nearest(np.zeros((6, 3)), np.arange(6) % 2) <= 1  # all the same
    with pytest.raises(PhospheneError, match="at least two"):
        nearest(apart[:1], labels[:1])


# -- distance -----------------------------------------------------------------------------------------------------------


def test_the_like_score_one_however_many_they_are() -> None:
    random = np.random.default_rng(0)
    widths = np.exp(random.normal(0, 1, 400))
    draw = lambda count: random.normal(0, widths, (count, 400)) + 2  # noqa: E731
    known = usual(draw(400), (8, 8))
    for count in (2, 3, 6, 12, 50, 300, 5000):
        assert known.distance(draw(count)).mean == pytest.approx(1, abs=0.03 if count > 4 else 0.08), count
    few, many = known.distance(draw(5)), known.distance(draw(300))
    assert few.error > many.error > 0 and many.count == 300


def test_others_score_more() -> None:
    random = np.random.default_rng(0)
    draw = lambda count: random.normal(0, 3, (count, 400)) + 2  # noqa: E731
    known = usual(draw(400), (8, 8))
    moved, wide = known.distance(draw(300) + 3), known.distance(2 + 2 * (draw(300) - 2))
    flat = known.distance(np.full((300, 400), 2.0))
    for one in (moved, wide, flat):
        assert one.mean == pytest.approx(math.sqrt(2), abs=0.04)
    assert moved.shift == pytest.approx(1, abs=0.05) and moved.width < 0.1
    assert wide.width == pytest.approx(1, abs=0.05) and wide.shift < 0.2
    assert flat.width == pytest.approx(1) and flat.error < 1e-9


def test_both_parts_by_hand() -> None:
    z = np.array([[1.0, 0.0], [3.0, 0.0]])
    assert frechet(z) == (2.0, 0.5)  # (2^2 + 0^2) / 2 and ((1 - 1)^2 + (0 - 1)^2) / 2


def test_what_is_usual_is_written_and_found_again(tmp_path: Path) -> None:
    made = usual(np.random.default_rng(0).normal(0, 1, (40, 6)), (16, 24))
    made.write(tmp_path / "x.safetensors")
    assert (tmp_path / "x.safetensors").stat().st_size < 2000
    assert len(made.expected) == len(COUNTS) and made.expected[0] > made.expected[3] > 0
    with pytest.raises(PhospheneError, match="at least 8"):
        usual(np.zeros((7, 3)), (8, 8))
    with pytest.raises(PhospheneError, match="were wanted"):
        made.distance(np.zeros((3, 5)))
    silent = usual(np.zeros((9, 3)), (8, 8))
    assert np.isfinite(silent.std).all() and (silent.std > 0).all()


def test_the_bundled_networks_have_theirs_and_others_have_not(bundled_network: Network) -> None:
    known = shipped(bundled_network)
    assert isinstance(known, Usual) and known.count == 500 and known.size == tuple(bundled_network.input_size)
    assert 0.01 < known.expected[-1] < 0.1 < known.expected[0]
    assert shipped(sized(bundled_network, 128)) is None  # other numbers, for pictures of another size
    assert shipped(pupil()) is None


def test_samples_are_all_or_some() -> None:
    assert list(sample(5, 9, 0)) == [0, 1, 2, 3, 4]
    some = sample(1000, 9, 3)
    assert len(set(some)) == 9 and list(some) == sorted(some) == list(sample(1000, 9, 3)) != list(sample(1000, 9, 4))


def distance_of(network: Network, paths: list[Path]) -> float:
    last = stages(network)[-1]
    photos = [Photo(path, 0, str(path)) for path in paths]
    known = shipped(network)
    assert known is not None
    return known.distance(outcome(stage_features(network, photos, [last])).table(last, photos)).mean


def test_noise_and_flat_colours_are_unlike_photographs(squeezenet: Network, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    for kind in (torch.rand((8, 3, 224, 224), generator=random), torch.rand((8, 3, 1, 1), generator=random)):
        made = [
            images.save(x.expand(3, 224, 224), tmp_path / f"{place}-{kind.shape[-1]}.png")
            for place, x in enumerate(kind)
        ]
        assert distance_of(squeezenet, made) > USUAL


@pytest.mark.shared
def test_photographs_of_imagenet_are_like_it(squeezenet: Network, shared: Path) -> None:
    """Of other photographs of ImageNet, but of ten classes only."""
    paths = [path for path in sorted((shared / "data/imagenette160/val").rglob("*.*")) if path.is_file()][::25]
    assert 10 < len(paths) < 40
    assert 0.9 < distance_of(squeezenet, paths) < 1.2


# -- measuring ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_measured(tmp_path: Path) -> None:
    folder = found(
        fill(tmp_path, {"train": {"red": 12, "green": 8, "blue": 9}, "val": {"red": 2, "green": 2, "blue": 2}})
    )
    network = pupil()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    result: Any = outcome(measure(network, folder))
    assert (result.classes, result.least, result.median, result.neighbours) == (3, 8, 9, 5)
    assert result.chance == pytest.approx(12 / 29) and 0.5 < result.knn <= 1 and result.distance is None
    assert result.stages == tuple(stages(network)) and result.last == result.stages[-1]
    early = result.stages[: min(len(result.stages) - 1, math.ceil(0.75 * len(result.stages)))]
    assert result.earlier in early and len(result.accuracies) == len(result.stages)
    probes = {one.stage: one for one in result.probe.stages}
    rest = [probes[name].linear.log_loss for name in early]
    mine, last = probes[result.earlier].linear, probes[result.last].linear
    assert mine.log_loss == min(rest)
    assert result.depth == pytest.approx(math.log(max(mine.log_loss, 1e-3) / max(last.log_loss, 1e-3)), abs=1e-6)
    assert result.gain.mean == pytest.approx(mine.accuracy - last.accuracy, abs=1e-9)
    assert result.depth_error >= 0
    assert all(torch.equal(value, network.module.state_dict()[name]) for name, value in before.items())
    assert outcome(measure(network, folder, found=result.probe)) == result
    assert advise(result).amount == "few"


def test_one_photograph_of_a_class_leaves_the_depth_unknown(tmp_path: Path) -> None:
    folder = found(fill(tmp_path, {"train": {"red": 1, "green": 1}, "val": {"red": 2, "green": 2}}))
    result = outcome(measure(pupil(), folder))
    assert math.isnan(result.depth) and result.gain is None and result.accuracies == (None,) * len(result.stages)
    assert result.neighbours == 1 and advise(result).recipe in ("top", "stages")
