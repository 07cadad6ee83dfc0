"""`advise` as a job: the facts agree with one another, the commands run, and the recipes are judged alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from phosphene.errors import PhospheneError
from phosphene.jobs import job
from phosphene.jobs.advise import batch_of, said_of, told, verdict, ways
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.progress import run
from phosphene.report.advice import page
from phosphene.report.advice_plots import table_plot

SQUEEZE = {"net": "squeezenet1_1", "size": 64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blots on noise, two classes that differ in colour."""
    root, random = tmp_path_factory.mktemp("data") / "my & blots", np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for place, name in enumerate(("<cold>", "warm")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.normal(110, 40, (48, 48, 3))
                pixels[10:38, 10:38, 2 * place] += 50
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / part / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOSPHENE_CACHE", str(tmp_path_factory.mktemp("cache") / "weights"))
        yield


@pytest.fixture(scope="module")
def verified(folder: Path, cache: Any) -> Outcome:
    return run(job("advise", Workshop("cpu"), {"folder": str(folder), **SQUEEZE, "verify": True, "epochs": 1}))


def test_the_facts_agree(verified: Outcome, folder: Path) -> None:
    facts = verified.facts
    assert json.loads(json.dumps(facts))["corner"] == facts["corner"]
    assert facts["measured"]["images_per_class"] == {"least": 8, "median": 8.0}
    assert list(facts["measured"]["cross_validated"]) == [row["layer"] for row in facts["stages"]]
    assert facts["corner"][0] == "few" and facts["recipe"] in ("top", "stages")
    assert (facts["recipe"] == "top") == (facts["corner"][1] == "similar") == (sum(facts["evidence"].values()) >= 0)
    assert 0.25 <= facts["probability"] <= 1 and facts["sureness"] in ("low", "medium", "high")
    assert facts["measured"]["distance"]["count"] == 16  # measured at the network's own size
    assert facts["command"] == facts["commands"][facts["recipe"]]


def test_all_four_recipes_are_judged_by_the_same_photographs(verified: Outcome) -> None:
    facts = verified.facts
    rows = {row["recipe"]: row for row in facts["recipes"]}
    assert list(rows) == ["top", "stages", "few-layers", "many-layers"]
    for row in rows.values():
        accuracy = row["accuracy"]
        assert accuracy["low"] <= accuracy["mean"] <= accuracy["high"] and (8 * accuracy["mean"]) % 1 == 0
        assert row["seconds"] >= 0 and 0 <= row["balanced"]["mean"] <= 1
    best = max(row["accuracy"]["mean"] for row in rows.values())
    assert facts["behind"] == best - rows[facts["recipe"]]["accuracy"]["mean"]
    assert facts["right"] == (facts["behind"] <= 0.01) and rows[facts["best"]]["accuracy"]["mean"] == best
    last = facts["stages"][-1]
    assert rows["top"]["accuracy"] == last["accuracy"] and last["layer"] in rows["top"]["name"]
    assert [picture.name for picture in verified.pictures] == ["table", "depth", "recipes"]
    for picture in verified.pictures:
        assert picture.image.shape[0] == 3 and picture.image.std() > 0.01


def test_the_commands_are_whole(verified: Outcome, folder: Path) -> None:
    commands = verified.facts["commands"]
    begin = f"'{folder}' --net squeezenet1_1 --size 64"
    assert commands["top"] == f"phosphene probe {begin} --layer features.12"
    assert commands["stages"] == f"phosphene probe {begin}"
    assert commands["few-layers"] == f"phosphene finetune {begin} --batch 4"
    assert commands["many-layers"] == f"phosphene finetune {begin} --layers all --rate 0.0003 --batch 4"


def test_without_verify_nothing_is_trained(folder: Path, cache: Any) -> None:
    parameters = {"folder": str(folder), **SQUEEZE}
    first, again = (run(job("advise", Workshop("cpu"), parameters)) for _ in range(2))
    assert "recipes" not in first.facts and "right" not in first.facts
    assert [picture.name for picture in first.pictures] == ["table", "depth"]
    assert first.facts == again.facts
    assert all(bool((a.image == b.image).all()) for a, b in zip(first.pictures, again.pictures, strict=True))


def test_the_page_tells_it(verified: Outcome, folder: Path) -> None:
    html = page(verified, {"folder": str(folder), **SQUEEZE, "verify": True, "epochs": 1})
    assert html.startswith("<!doctype html>") and html.count("<img") == 3
    for text in ("Was the advice right?", "my &amp; blots", "features.12", "log loss", "finetune", "Log odds"):
        assert text in html, text
    assert "<cold>" not in html
    plain = Outcome(verified.pictures[:2], {k: v for k, v in verified.facts.items() if k != "recipes"})
    assert "Was the advice right?" not in page(plain, {"folder": str(folder), **SQUEEZE})


def rows(**accuracies: float) -> list[dict[str, Any]]:
    return [
        {"recipe": key.replace("_", "-"), "name": key, "accuracy": {"mean": value, "high": value + 0.015}}
        for key, value in accuracies.items()
    ]


@pytest.mark.parametrize(
    ("top", "right", "best", "said"),
    [
        (0.95, True, "top", "none is more accurate"),
        (0.94, True, "many-layers", "right within a point: it is 1.0 points behind the best, many_layers"),
        (
            0.938,
            False,
            "many-layers",
            "not the best: it is 1.2 points behind the best, many_layers; that may be chance",
        ),
        (0.93, False, "many-layers", "not the best: it is 2.0 points behind the best, many_layers."),
    ],
)
def test_the_verdict(top: float, right: bool, best: str, said: str) -> None:
    found = verdict(rows(many_layers=0.95, top=top), "top")
    assert (found["right"], found["best"]) == (right, best)
    assert said in said_of({**found, "photographs": {"val": {"a": 3, "b": 4}}})


def test_what_is_said(verified: Outcome) -> None:
    lines = told(verified.facts)
    assert lines[0].startswith(verified.facts["slide"]) and "sureness" in lines[0] and "very little data" in lines[0]
    assert lines[-2] == f"Try: {verified.facts['command']}" and lines[-1].startswith("The advice was ")


@pytest.mark.parametrize(("count", "batch"), [(1, 1), (2, 2), (8, 2), (16, 4), (20, 4), (50, 8), (128, 32), (9999, 32)])
def test_batches_of_few_photographs_are_small(count: int, batch: int) -> None:
    assert batch_of(count) == batch


def test_networks_with_few_stages() -> None:
    assert ways(["a"], 99)["few-layers"].options["layers"] == "last:1"
    assert ways(["a", "b", "c", "d"], 99)["few-layers"].options["layers"] == "last:2"


@pytest.mark.parametrize("images", [1, 3, 49, 51, 120, 10**6])
@pytest.mark.parametrize("similar", [0.0, 0.5, 1.0])
def test_the_mark_stays_in_the_table(images: int, similar: float) -> None:
    picture = table_plot(images=images, similar=similar, many=50, amount="few", kind="similar", label="x_$y$" * 5)
    orange = (picture[0] > 0.7) & (picture[1] < 0.5) & (picture[2] < 0.1)
    assert orange.sum() > 100 and not orange[:, -2:].any() and not orange[-2:].any()


def test_refused(folder: Path) -> None:
    with pytest.raises(PhospheneError, match="--epochs starts at 1"):
        run(job("advise", Workshop("cpu"), {"folder": str(folder), **SQUEEZE, "epochs": 0}))
