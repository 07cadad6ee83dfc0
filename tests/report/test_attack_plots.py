"""Plots of attacks as pixels: bars, bands and cells are where their numbers say, and no text is cut off."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene.jobs.attack import Made
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.report.attack_gallery import page, sheet, size
from phosphene.report.attack_plots import accuracies, curve_plot, radius_text, transfer_plot
from phosphene.report.robustness import CHECKS, half_text, signs
from phosphene.report.robustness import page as robustness_page

ORANGE, GREEN, RED, GREY = "#c2700a", "#2f6f6a", "#a51e37", "#8d969d"


def share(mean: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {
        "mean": mean, "low": mean * 0.9 if low is None else low, "high": min(1.0, mean + 0.05) if high is None else high,
        "count": round(mean * 100),
    }  # fmt: skip


def near(image: Tensor, colour: str, off: float = 0.04, alpha: float = 1.0) -> np.ndarray:
    """`[H, W]`, whether pixels are of a colour, or of it on white."""
    wanted = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    wanted = alpha * wanted + 1 - alpha
    return np.abs(image.permute(1, 2, 0).numpy() - wanted).max(axis=2) < off


def check_whole(image: Tensor) -> None:
    """A picture on white, nothing of which is cut off at its edges."""
    assert image.ndim == 3 and image.shape[0] == 3 and image.dtype == torch.float32
    assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.05
    for edge in (image[:, :2], image[:, -2:], image[:, :, :2], image[:, :, -2:]):
        assert edge.min() > 0.97


# -- radii --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eps", "norm", "wanted"),
    [
        (2 / 255, "linf", "2/255"), (0.25 / 255, "linf", "0.25/255"),
        (0.125 / 255, "linf", "0.125/255"), (0.3, "linf", "0.3"),
        (0.03, "linf", "0.03"), (1.0, "linf", "1"), (0.5, "l2", "0.5 in L2"), (4.0, "l2", "4 in L2"),
        (8 / 255, "linf", "8/255"),
        (0.0, "linf", "0"),
    ],
)  # fmt: skip
def test_radii_as_one_says_them(eps: float, norm: str, wanted: str) -> None:
    assert radius_text(eps, norm) == wanted


def test_a_radius_in_l2_is_told_shortly() -> None:
    assert len(radius_text(2 / 255, "l2")) < len("0.00784314 in L2")


# -- bars ---------------------------------------------------------------------------------------------------------------


def attacked(
    *means: float, names: tuple[str, ...] = ("pgd", "fgsm", "autoattack"), clean: float = 0.9
) -> dict[str, Any]:
    found = {
        name: {"accuracy": share(mean), "eps": 2 / 255, "norm": "linf"}
        for name, mean in zip(names, means, strict=False)
    }
    return {"clean": share(clean), "attacks": found, "worst": share(min(means)), "images": 40}


def spans(image: Tensor, colour: str) -> list[tuple[int, int, int]]:
    """The bars of a colour from the top: `(first row, first column, last column)`."""
    mask = near(image, colour, alpha=0.85)
    wide = mask.sum(1) > 8
    starts = [row for row in range(len(wide)) if wide[row] and not wide[row - 1]]
    found = []
    for row in starts:
        columns = np.nonzero(mask[row + 2])[0]
        found.append((row, int(columns[0]), int(columns[-1])))
    return found


def test_bars_are_as_long_as_their_shares() -> None:
    image = accuracies(attacked(0.5, 0.25, 0.75))
    check_whole(image)
    (clean,) = spans(image, GREEN)
    bars = spans(image, ORANGE)
    (worst,) = spans(image, RED)
    assert len(bars) == 3
    one = (clean[2] - clean[1]) / 0.9  # pixels of 100%
    assert [(bar[2] - bar[1]) / one for bar in (*bars, worst)] == pytest.approx([0.5, 0.25, 0.75, 0.25], abs=0.01)
    assert len({bar[1] for bar in (clean, *bars, worst)}) == 1  # they begin in one line
    rows = [bar[0] for bar in (clean, *bars, worst)]
    assert rows == sorted(rows) and np.ptp(np.diff(rows)) <= 1


def test_one_attack_needs_no_worst() -> None:
    image = accuracies(attacked(0.5, names=("pgd",)))
    check_whole(image)
    assert len(spans(image, ORANGE)) == 1 and spans(image, RED) == []
    assert accuracies(attacked(0.5, 0.4)).shape[1] > image.shape[1]


@pytest.mark.parametrize("mean", [0.0, 0.01, 0.86, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.3, 0.8])
def test_numbers_and_intervals_stay_inside(mean: float, spread: float) -> None:
    facts = attacked(mean, mean, names=("pgd", "apgd-targeted"))
    for one in (facts["clean"], facts["worst"], *(one["accuracy"] for one in facts["attacks"].values())):
        one |= {"low": max(0.0, one["mean"] - spread), "high": min(1.0, one["mean"] + spread)}
    image = accuracies(facts)
    check_whole(image)
    white = (image.amin(0) > 0.8).numpy()
    for row, first, last in spans(image, RED):
        bar = white[row + 4 : row + 24, first : last + 1]
        assert not bar[:, : last - first - 2].any()  # the numbers stand beside the bars
        assert bool((image[:, row + 4 : row + 24, -60:].amin(0) < 0.5).any())


def test_attacks_without_a_radius_and_with_one_in_l2() -> None:
    facts = attacked(0.5, 0.2, names=("deepfool", "carlini-wagner"))
    facts["attacks"]["deepfool"] |= {"eps": None, "norm": "l2"}
    facts["attacks"]["carlini-wagner"] |= {"eps": 0.5, "norm": "l2"}
    check_whole(accuracies(facts))


def test_a_share_of_nothing_is_seen_where_it_is() -> None:
    """Something of the bar's colour stands at 0."""
    facts = attacked(0.0, names=("pgd",))
    facts["attacks"]["pgd"]["accuracy"] |= {"low": 0.0, "high": 0.49}
    assert near(accuracies(facts), ORANGE, alpha=0.85, off=0.1).any()


# -- the curve ----------------------------------------------------------------------------------------------------------

EPS = [0.0, 1 / 255, 2 / 255, 4 / 255]


def series(*means: float) -> list[dict[str, Any]]:
    return [share(mean, mean - 0.1 if mean > 0.1 else 0.0, min(1.0, mean + 0.1)) for mean in means]


def end(image: Tensor, colour: str) -> float:
    """The row in which a line of a colour ends, at the right."""
    mask = near(image, colour, off=0.1)
    last = np.nonzero(mask.any(0))[0][-1]
    return float(np.nonzero(mask[:, last - 4 : last - 1].any(1))[0].mean())


def test_the_curve_goes_through_its_points() -> None:
    ends = {}
    for mean in (0.0, 0.25, 0.5, 1.0):
        image = curve_plot(EPS, {"pgd": series(0.5, 0.5, 0.5, mean)}, norm="linf")
        check_whole(image)
        ends[mean] = end(image, ORANGE)
    whole = ends[0.0] - ends[1.0]
    assert whole > 200
    assert [(ends[0.0] - ends[mean]) / whole for mean in (0.25, 0.5)] == pytest.approx([0.25, 0.5], abs=0.015)


def test_bands_lie_around_the_lines() -> None:
    image = curve_plot(EPS, {"pgd": series(0.8, 0.8, 0.8, 0.8)}, norm="linf")
    mask = near(image, ORANGE, off=0.03, alpha=0.18)
    rows = np.nonzero(mask.sum(1) > 100)[0]
    height = np.nonzero(near(image, ORANGE, off=0.1).sum(1) > 100)[0].mean()
    assert rows.min() < height < rows.max()
    assert (height - rows.min()) == pytest.approx(rows.max() - height, abs=4)
    wide = curve_plot(EPS, {"pgd": [share(0.8, 0.4, 1.0)] * 4}, norm="linf")
    assert near(wide, ORANGE, off=0.03, alpha=0.18).sum() > 1.8 * mask.sum()


def test_noise_is_quiet_and_each_attack_has_a_colour_of_its_own() -> None:
    both = {
        "pgd": series(1.0, 0.5, 0.2, 0.0),
        "square": series(1.0, 0.8, 0.6, 0.3),
        "noise of the same size": series(1, 1, 1, 1),
    }
    image = curve_plot(EPS, both, norm="l2")
    check_whole(image)
    assert near(image, ORANGE, off=0.06).sum() > 300 and near(image, GREEN, off=0.06).sum() > 300
    alone = curve_plot(EPS, {"pgd": both["pgd"]}, norm="l2")
    assert near(alone, GREEN, off=0.06).sum() < 20
    assert near(image, GREY, off=0.06).sum() > near(alone, GREY, off=0.06).sum() + 300


def test_guessing_has_a_line_where_it_is_worth_one() -> None:
    plain = curve_plot(EPS, {"pgd": series(1.0, 0.5, 0.2, 0.0)}, norm="linf")
    assert torch.equal(curve_plot(EPS, {"pgd": series(1.0, 0.5, 0.2, 0.0)}, norm="linf", chance=0.001), plain)
    image = curve_plot(EPS, {"pgd": series(1.0, 0.5, 0.2, 0.0)}, norm="linf", chance=0.25)
    assert not torch.equal(image, plain) and near(image, GREY, off=0.06).sum() > 100
    check_whole(image)


@pytest.mark.parametrize("count", [1, 7, 14])
def test_more_radii_make_a_wider_picture_and_none_is_cut(count: int) -> None:
    eps = [0.0, *(0.123 * 2**place / 255 for place in range(count))]
    image = curve_plot(eps, {"autoattack": [share(0.5)] * len(eps)}, norm="linf")
    check_whole(image)
    assert image.shape[2] >= max(700, 70 * count)


@pytest.mark.parametrize("count", [7, 14])
def test_words_below_the_axis_do_not_touch(count: int) -> None:
    """Between two radii there is white."""
    eps = [0.0, *(0.125 * 2**place / 255 for place in range(count))]
    image = curve_plot(eps, {"pgd": [share(0.5)] * len(eps)}, norm="linf")
    ink = (image.amin(0) < 0.6).numpy()
    rows = np.nonzero(ink.any(1))[0]
    # From below: the words of the axis, a gap, then the radii.
    gaps = [row for row in range(rows[-1], 0, -1) if not ink[row].any()]
    radii_end = next(row for row in range(gaps[0], 0, -1) if ink[row].any())
    radii_start = next(row for row in range(radii_end, 0, -1) if not ink[row].any())
    columns = "".join("1" if ink[radii_start : radii_end + 1, place].any() else "0" for place in range(ink.shape[1]))
    blanks = [run for run in re.findall("0+", columns) if len(run) >= 6]
    assert len(blanks) >= count  # at the sides, and between count + 1 words


# -- the matrix ---------------------------------------------------------------------------------------------------------


def cells(image: Tensor, rows: int, columns: int) -> np.ndarray:
    """`[rows, columns, 3]`: colours of the cells, off their words."""
    pixels = image.permute(1, 2, 0).numpy()
    marked = np.nonzero((pixels.max(2) - pixels.min(2)) > 0.1)
    top, bottom, left, right = marked[0].min(), marked[0].max() + 1, marked[1].min(), marked[1].max() + 1
    high, wide = (bottom - top) / rows, (right - left) / columns
    return np.array(
        [
            [pixels[int(top + (r + 0.2) * high), int(left + (c + 0.12) * wide)] for c in range(columns)]
            for r in range(rows)
        ]
    )


def test_cells_are_the_darker_the_more_is_fooled() -> None:
    rate = [[1.0, 0.5, 0.1], [0.3, 0.9, 0.2], [0.4, 0.6, 0.8]]
    image = transfer_plot(["one", "two", "three"], rate, [0.3, 0.05, 0.2])
    check_whole(image)
    shades = cells(image, 4, 3).mean(2)
    values = np.array([*rate, [0.3, 0.05, 0.2]])
    order = values.flatten().argsort(kind="stable")
    light = shades.flatten()[order]
    assert (np.diff(light) <= 0.01).all() and light[0] > 0.9 > 0.5 > light[-1]
    assert shades[1, 0] == pytest.approx(shades[3, 0], abs=0.01)  # equal numbers, equal colours


def test_what_is_not_known_is_white_and_says_so() -> None:
    known = transfer_plot(["a", "b"], [[1.0, 1.0], [1.0, 0.0]], [1.0, 1.0])
    image = transfer_plot(["a", "b"], [[1.0, 1.0], [1.0, None]], [1.0, 1.0])
    check_whole(image)
    assert cells(image, 3, 2)[1, 1] == pytest.approx([1, 1, 1], abs=0.02) and not torch.equal(known, image)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("name", ["a", "efficientnet_lite0", "a very long name of a network that goes on and on"])
def test_long_names_are_not_cut_off(count: int, name: str) -> None:
    names = [f"{name} {place}" for place in range(count)]
    image = transfer_plot(names, [[0.5] * count for _ in range(count)], [0.0] * count)
    check_whole(image)
    assert (cells(image, count, count)[0, 0] < 1).any() and image.shape[1] < 1500 and image.shape[2] < 2000


@pytest.mark.parametrize("count", [2, 4])
def test_a_matrix_is_wide_enough_for_its_numbers(count: int) -> None:
    image = transfer_plot([f"efficientnet_lite{n}" for n in range(count)], [[1.0] * count] * count, [1.0] * count)
    pixels = image.permute(1, 2, 0).numpy()
    marked = np.nonzero(((pixels.max(2) - pixels.min(2)) > 0.1).any(0))[0]
    assert (marked.max() - marked.min()) / count >= 90


# -- the sheet and the page of an attack --------------------------------------------------------------------------------


def row(name: str, attack: str = "pgd", **more: Any) -> dict[str, Any]:
    seen = {"before": {"name": "tabby", "probability": 0.91}, "after": {"name": "tiger", "probability": 0.62}}
    return {
        "image": f"in/{name}.jpg", "name": name, "attack": attack, "label": {"index": 1, "name": "tabby"}, "success": True,
        "l2": 1.234, "linf": 3 / 255, **seen, **more,
    }  # fmt: skip


def test_a_sheet_shows_photograph_result_and_difference() -> None:
    original = torch.full((3, 64, 64), 0.25)
    image = original + 3 / 255 * torch.tensor([1.0, 0.0, -1.0]).view(3, 1, 1)
    made = sheet(Made(row("a"), original, image))
    check_whole(made)
    assert made.shape[2] > 3 * 224 and made.shape[1] > 224
    middle = made.shape[1] // 2
    colours = [made[:, middle, int(made.shape[2] * at)] for at in (1 / 6, 1 / 2, 5 / 6)]
    assert colours[0].tolist() == pytest.approx([0.25] * 3, abs=0.01)
    assert colours[1].tolist() == pytest.approx([0.25 + 3 / 255, 0.25, 0.25 - 3 / 255], abs=0.01)
    more, _, less = colours[2].tolist()
    assert more - 0.5 == pytest.approx(0.5 - less, abs=0.02) and more > 0.55


def test_a_sheet_takes_long_names() -> None:
    long = {"name": "a class with a very long name, of which there are many " * 3, "probability": 0.5}
    original = torch.rand(3, 64, 64)
    plain = sheet(Made(row("a"), original, original))
    named = sheet(Made(row("a", before=long, after=long), original, original))
    assert named.shape[2] == plain.shape[2]
    check_whole(named)


def test_sizes_in_words() -> None:
    assert size(row("a")) == "L2 1.23, at most 3/255 per value"


EVIL = "<script>alert('x')</script> & \"more\""


def told(rows: list[dict[str, Any]], **attacks: dict[str, Any]) -> str:
    facts = {"net": EVIL, "images": 9, "wrong": 2, "attacks": attacks, "rows": rows}

    def files(one: dict[str, Any]) -> tuple[str, ...]:
        return (f"pictures/{one['name']}.png", f"sheets/{one['name']}.jpg") if one.get("success") else ()

    return page(facts, {"folder": EVIL, "attacks": list(attacks), "eps": 2 / 255}, files)  # type: ignore[arg-type]


def test_a_page_cannot_be_broken_by_names() -> None:
    one = {"fooled": 1, "attacked": 7, "eps": 2 / 255, "norm": "linf"}
    evil = row("a", image=EVIL, label={"index": 0, "name": EVIL}, after={"name": EVIL, "probability": 0.5})
    text = told([evil, row("b", success=False), {"image": "c", "attack": "pgd", "skipped": "torn"}], pgd=one)
    assert "<script" not in text and text.count("<article") == 1 and "1 of 7 by pgd within 2/255" in text
    assert "9 photographs; 2 are misread as they are, and were not attacked" in text


def test_a_photograph_has_one_card_for_all_attacks() -> None:
    one = {"fooled": 1, "attacked": 7, "eps": None, "norm": "l2"}
    text = told([row("a"), row("a", "deepfool"), row("b", "deepfool")], pgd=one, deepfool=one)
    assert text.count("<article") == 2 and "1 of 7 by deepfool." in text
    assert re.findall(r'autocomplete="off">([^<]+)</label>', text) == ["pgd", "deepfool"]
    assert text.count('class="p-1"') == 1 and text.count('class="p-2"') == 2


def test_the_heading_of_a_card_is_true_of_all_its_pictures() -> None:
    one = {"fooled": 1, "attacked": 7, "eps": None, "norm": "l2"}
    other = row("a", "deepfool", after={"name": "lion", "probability": 0.5})
    text = told([row("a"), other], pgd=one, deepfool=one)
    (heading,) = re.findall("<h2>(.*?)</h2>", text)
    assert "lion" in heading or "tiger" not in heading


# -- the page of a network's robustness ---------------------------------------------------------------------------------


def measured(**more: Any) -> dict[str, Any]:
    shares = [share(mean) for mean in (1.0, 0.5, 0.2, 0.1)]
    finding = {"name": "slope", "passed": True, "value": 1.0, "words": "it rises"}
    across = {"names": ["one", "two"], "eps": 8 / 255, "rate": [[1, 0.5], [0.5, 1]], "count": [[9, 8], [8, 9]]}
    return {
        "net": "one", "images": 9, "eps": EPS, "norm": "linf", "attack": "pgd", "curve": shares, "noise": shares,
        "half": 1 / 255,
        "transfer": {**across, "control": [0.0, 0.0]}, "findings": [finding], "masked": False, **more,
    }  # fmt: skip


def shown(facts: dict[str, Any]) -> str:
    pictures = tuple(Picture(name, torch.rand(3, 40, 60), name) for name in ("robustness", "transfer"))
    return robustness_page(Outcome(pictures, facts), {"folder": "photos", "net": "one"})


def test_the_page_of_robustness_shouts_only_where_a_check_failed() -> None:
    calm = shown(measured())
    assert "too good to be true" not in calm and "FAILED" not in calm and "passed" in calm and ">none<" in calm
    failed = {"name": "slope", "passed": False, "value": 9.0, "words": "it doesn't rise"}
    loud = shown(
        measured(findings=[failed, {"name": "uphill", "passed": True, "value": None, "words": "blind"}], masked=True)
    )
    assert "too good to be true" in loud and loud.count("FAILED") == 1 and "not checked" in loud
    assert "1 of 2 checks shout" in loud and CHECKS["slope"] in loud


@pytest.mark.parametrize(
    ("half", "norm", "wanted"),
    [
        (1.5 / 255, "linf", "1.5/255"), (1 / 255, "linf", "less than 1/255"), (None, "linf", "more than 4/255"),
        (0.01, "l2", "0.01 in L2"), (None, "l2", "more than 0.0157 in L2"),
    ],
)  # fmt: skip
def test_half_in_words(half: float | None, norm: str, wanted: str) -> None:
    assert half_text(measured(half=half, norm=norm)) == wanted


def test_signs_in_words() -> None:
    assert signs(measured(findings=[])) == "not looked for" and signs(measured()) == "none"


def test_half_of_nothing() -> None:
    from phosphene.jobs.robustness import half

    assert half(EPS[1:], [0.0, 0.0, 0.0, 0.0]) is None
