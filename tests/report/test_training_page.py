"""The page of a training: what is known is told, what is not known is left out, and names are only names."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from phosphene.jobs.outcome import Outcome, Picture
from phosphene.report import training
from phosphene.report.training import ROWS, page
from phosphene.training.scores import scores

PARAMETERS = {"folder": "photos/insects", "net": "squeezenet1_1"}


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "command_line", lambda verb, parameters: f"phosphene {verb} {parameters['folder']}")


def facts(names: tuple[str, ...] = ("ants", "bees"), **more: Any) -> dict[str, Any]:
    labels = np.arange(40) % len(names)
    said = np.where(np.arange(40) < 3, (labels + 1) % len(names), labels)
    found = scores(np.eye(len(names))[said], labels, names).facts()
    return {**found, "net": "squeezenet1_1", "mistakes": [], "duplicates": [], "twice": [], "suspicious": [], **more}


def made(known: dict[str, Any], *names: str, verb: str = "probe") -> str:
    pictures = tuple(Picture(name, torch.rand(3, 40, 60), f"Picture of {name}") for name in names)
    return page(verb, Outcome(pictures, known), PARAMETERS)


def keys(html: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)"', html)


def pair(k: int = 0, other_label: str = "ants") -> dict[str, Any]:
    row = {"image": f"val/ants/{k}.jpg", "other": f"train/ants/{k}.jpg", "kind": "mirrored", "likeness": 0.99}
    return {**row, "label": "ants", "other_label": other_label}


def doubt(k: int = 0) -> dict[str, Any]:
    return {"image": f"train/bees/{k}.jpg", "label": "bees", "suggested": "ants", "probability": 0.98, "own": 0.02}


def test_all_that_is_known_has_a_section_in_order() -> None:
    recipes = [{"name": "probe", "accuracy": {"mean": 0.9, "low": 0.8, "high": 0.95}, "balanced": 0.91, "seconds": 7.2}]
    known = facts(recipes=recipes, duplicates=[pair()], twice=[pair(1)], suspicious=[doubt()])
    html = made(known, "depth", "curves", "confusion", "classes", "mistakes", "duplicates", "suspicious")
    order = ["depth", "curves", "advice", "confusion", "classes", "mistakes", "duplicates", "suspicious"]
    assert keys(html) == order
    assert html.count("<img") == 1 + 7  # the hero, and each picture
    assert "90.0% (80.0 to 95.0)" in html and "7 s" in html
    assert html.startswith("<!doctype html>") and not re.search(r'(src|href)="(?!data:|#)', html)


def test_what_is_not_known_is_left_out() -> None:
    html = made(facts(), "confusion")
    assert keys(html) == ["confusion", "classes", "mistakes", "duplicates", "suspicious"]
    assert "None of the 40 held-out photographs" in html and "No label is clearly contradicted" in html
    assert "No held-out photograph was found among those to learn from, and none of these twice" in html


def test_the_numbers_stand_on_top() -> None:
    known = facts()
    html = made(known, "confusion", "classes")
    found = known["accuracy"]
    assert found["mean"] == 37 / 40
    assert f"92.5% ({100 * found['low']:.1f} to {100 * found['high']:.1f})" in html
    for text in ("Balanced accuracy", "squeezenet1_1", "photos/insects", "<span>phosphene</span> <span>probe</span>"):
        assert text in html
    assert html.count("<span>probe</span>") == 1
    assert "also in train" not in html and "40, 2 of them also in train" in made(
        facts(duplicates=[pair(), pair(1)]), "confusion"
    )


def test_duplicates_of_different_labels_tell_both_and_why_they_matter() -> None:
    html = made(facts(duplicates=[pair(other_label="bees")]), "confusion", "duplicates")
    assert "ants and bees" in html and "1 held-out photograph is among" in html and "looks better than it is" in html
    html = made(facts(twice=[pair(), pair(1)]), "confusion", "duplicates")
    assert "2 pairs show one picture" in html and "No held-out photograph was found" in html


def test_doubts_are_a_hint_and_long_lists_are_cut() -> None:
    html = made(facts(suspicious=[doubt(k) for k in range(ROWS + 12)]), "confusion", "suspicious")
    assert "a hint to look, not a verdict" in html and f"The first {ROWS} of 42 labels." in html
    assert f"train/bees/{ROWS - 1}.jpg" in html and f"train/bees/{ROWS}.jpg" not in html


def test_many_classes_show_their_confusions_and_the_worst_of_them() -> None:
    names = tuple(f"class {k}" for k in range(40))
    html = made(facts(names), "confusion", "classes")
    assert "The most frequent confusions" in html and f"The first {ROWS} of 40 classes." in html
    assert "The most frequent confusions" not in made(facts(), "confusion")  # two classes: the matrix says it all


def test_names_of_classes_and_files_are_only_text() -> None:
    evil = "<script>alert('x')</script>"
    html = made(facts((evil, "bees", "wasps"), suspicious=[{**doubt(), "image": evil, "label": evil}]), "confusion")
    assert evil not in html and "&lt;script&gt;" in html


def test_a_class_without_photographs_has_dashes() -> None:
    found = scores(np.eye(3)[[0, 1]], [0, 1], ["a", "b", "c"]).facts()
    known = {**facts(), **found}
    assert re.search(
        r'<th scope="row">c</th><td>0</td><td>–</td><td>–</td><td>–</td>', made(known, "confusion", "classes")
    )


def test_each_verb_has_its_title() -> None:
    assert "A linear probe" in made(facts(), "confusion") and "A fine-tuned network" in made(
        facts(), "confusion", verb="finetune"
    )
