"""The plots of a judgement: points lie where the numbers say, lines and panels are those that were asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene.explain.judge import BETTER
from phosphene.explain.metrics.statistics import Interval
from phosphene.report.plots import _GLOW, _QUIET, TITLES, curves, dots


def pixels_of(picture: Tensor, colour: str) -> Tensor:
    """`[N, 2]`: row and column of each pixel that has exactly this colour."""
    wanted = torch.tensor(list(bytes.fromhex(colour[1:])))
    return ((picture * 255).round() == wanted[:, None, None]).all(0).nonzero()


def runs(positions: Tensor) -> int:
    """How many runs without a gap there are among row or column numbers."""
    return 1 + int((positions.unique().diff() > 1).sum())


def table(mean: float, **more: Interval) -> dict[str, dict[str, Interval]]:
    fixed = {"gradient": Interval(0.0, 0.0, 0.0, 3), "lrp": Interval(1.0, 1.0, 1.0, 3)}
    rows = {**fixed, "saliency": Interval(mean, mean - 0.1, mean + 0.1, 3), **more}
    return {name: {"focus": found} for name, found in rows.items()}


def test_titles_and_the_better_end_are_known_of_the_same_checks() -> None:
    assert set(TITLES) == set(BETTER)


def test_a_dot_moves_by_what_its_mean_moves() -> None:
    centres = []
    for mean in (0.2, 0.4, 0.8):
        found = pixels_of(dots(table(mean)), _GLOW)
        rows = found[:, 0].unique()
        last = rows[int((rows.diff() > 8).nonzero()[-1]) + 1 :]  # of the third method, drawn lowest
        centres.append(float(found[torch.isin(found[:, 0], last), 1].float().mean()))
    assert centres[2] - centres[1] == pytest.approx(2 * (centres[1] - centres[0]), rel=0.03)
    assert centres[1] > centres[0]


def test_an_interval_is_as_long_as_it_is() -> None:
    wide, narrow = (
        dots({"saliency": {"focus": Interval(0.5, 0.5 - half, 0.5 + half, 9)}, **_ends()}) for half in (0.4, 0.2)
    )
    lengths = []
    for picture in (wide, narrow):
        found = pixels_of(picture, _GLOW)
        top = found[found[:, 0] < int(found[:, 0].min()) + 12]
        lengths.append(int(top[:, 1].max() - top[:, 1].min()))
    assert lengths[0] == pytest.approx(2 * lengths[1], rel=0.03)


def _ends() -> dict[str, dict[str, Interval]]:
    return {name: {"focus": Interval(x, x, x, 9)} for name, x in (("gradient", 0.0), ("lrp", 1.0))}


def test_the_dashed_line_stands_at_the_better_baseline() -> None:
    for check, better in (("insertion", 0.6), ("deletion", 0.2)):
        rows = {"gradient": 0.0, "lrp": 1.0, "centre": 0.2, "random": 0.6}
        picture = dots({name: {check: Interval(x, x, x, 4)} for name, x in rows.items()})
        glow = pixels_of(picture, _GLOW).float()
        zero, one = (_mean_of_run(glow[:, 1], first=first) for first in (True, False))
        inside = (1 - picture.mean(0))[round(float(glow[:, 0].min())) : round(float(glow[:, 0].max()))]
        ink = inside[:, round(zero) + 9 : round(one) - 9].sum(0)
        line = round(zero) + 9 + int(ink.argmax())
        assert (line - zero) / (one - zero) == pytest.approx(better, abs=0.02), check


def _mean_of_run(columns: Tensor, *, first: bool) -> float:
    middle = (columns.min() + columns.max()) / 2
    return float(columns[columns < middle].mean() if first else columns[columns > middle].mean())


def test_without_baselines_there_is_no_line() -> None:
    assert len(pixels_of(dots(table(0.5)), _QUIET)) == 0


def test_a_panel_for_each_check_a_row_for_each_method() -> None:
    checks = list(TITLES)
    one = Interval(0.5, 0.4, 0.6, 3)
    for count, across in ((1, 1), (3, 3), (4, 4), (5, 4), (8, 4)):
        picture = dots({name: dict.fromkeys(checks[:count], one) for name in ("gradient", "saliency")})
        found = pixels_of(picture, _GLOW)
        assert runs(found[:, 1]) == across, count
        assert runs(found[:, 0]) == 2 * -(-count // 4), count
    tall, short = (dots({f"m{i}": {"focus": one} for i in range(n)}) for n in (12, 3))
    assert tall.shape[1] > short.shape[1] + 150 and tall.shape[0] == 3
    assert tall.min() >= 0 and tall.max() <= 1


def test_a_check_that_a_method_does_not_have_leaves_its_row_empty() -> None:
    one = Interval(0.5, 0.4, 0.6, 3)
    both = dots({"lrp": {"focus": one, "completeness": one}, "saliency": {"focus": one, "completeness": one}})
    less = dots({"lrp": {"focus": one, "completeness": one}, "saliency": {"focus": one}})
    assert both.shape == less.shape
    middle = both.shape[2] // 2
    left, right = (int((pixels_of(p, _GLOW)[:, 1] > middle).sum()) for p in (both, less))
    assert left == pytest.approx(2 * right, rel=0.1)


def test_curves_begin_at_one_and_go_where_the_numbers_are() -> None:
    steady = {"c": 1.0, "b": 1.0, "a": 1.0}
    falling = {"c": 0.5, "b": 0.0, "a": 0.0}
    picture = curves({"ssim": {"saliency": falling}, "rank": {"saliency": steady}})
    blue = pixels_of(picture, "#1f77b4")
    middle = picture.shape[2] * 0.45
    left, right = blue[blue[:, 1] < middle], blue[(blue[:, 1] > middle) & (blue[:, 1] < picture.shape[2] * 0.86)]
    assert left[:, 0].max() - left[:, 0].min() > 200  # from 1 to 0
    assert right[:, 0].max() - right[:, 0].min() < 12  # stays at 1
    start, end = left[left[:, 1].argmin()], left[left[:, 1].argmax()]
    assert abs(int(start[0]) - int(right[:, 0].float().mean())) < 8 and end[0] > start[0] + 200
    half = left[(left[:, 1] - (2 * left[:, 1].min() + left[:, 1].max()) / 3).abs() < 4][:, 0].float().mean()
    assert (half - start[0]) / (end[0] - start[0]) == pytest.approx(0.5, abs=0.05)


def test_each_method_has_its_own_line_and_correlations_may_be_negative() -> None:
    methods = {"gradient": {"a": 0.9}, "lrp": {"a": 0.1}, "saliency": {"a": -0.6}}
    picture = curves({"rank": methods})
    assert picture.shape[0] == 3 and all(len(pixels_of(picture, c)) > 50 for c in ("#1f77b4", "#aec7e8", "#ff7f0e"))
    lowest = [int(pixels_of(picture, c)[:, 0].max()) for c in ("#1f77b4", "#ff7f0e")]
    assert lowest[1] > lowest[0] + 100


def test_the_same_numbers_are_the_same_picture() -> None:
    assert torch.equal(dots(table(0.3)), dots(table(0.3)))
    assert not torch.equal(dots(table(0.3)), dots(table(0.35)))
