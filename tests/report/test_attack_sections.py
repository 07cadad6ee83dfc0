"""The tour's sections on how little is enough, and on who else is fooled: they say what was measured, and nothing else."""

from __future__ import annotations

import io
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from phosphene import images
from phosphene.attacks import noisy
from phosphene.cli.radius import radii
from phosphene.jobs import job
from phosphene.jobs.workshop import Workshop
from phosphene.models import load
from phosphene.progress import run
from phosphene.report.page import Section
from phosphene.report.sections import SECTIONS, maker, robustness, title, transfer
from phosphene.report.stage import Stage

DATA = Path(skimage.__file__).parent / "data"
CAT = str(DATA / "chelsea.png")
OWN = """
import torch
from torch import nn
from phosphene import load

def net(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes),
    )

def stubborn(classes=5):
    module = net(classes)
    with torch.no_grad():
        module[-1].bias[2] += 99
    return module

def lonely():
    return net(1)

def features():
    return net(5)[:2]

class Step(nn.Module):
    def forward(self, x):
        return (x > 0).float()

def blind(classes=3):
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), Step(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )

def known(module, kind=lambda labels: labels):  # knows ImageNet's classes
    labels = kind(load("squeezenet1_1", device="cpu").labels)
    return load(module, device="cpu", input_size=64, labels=labels)

def sure():
    return known(stubborn(1000))

def listed():
    return known(net(1000), list)

def dark():
    return known(blind(1000))
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def made(name: str, net: str, folder: str | None = None, seed: int = 0) -> tuple[Section | None, Stage]:
    stage = Stage(Workshop("cpu"), CAT, net, None, None, seed, folder)
    return run(maker(name)(stage)), stage


def shares(*means: float) -> list[dict[str, float]]:
    return [{"mean": mean} for mean in means]


def test_they_come_last_in_the_order_of_the_lecture() -> None:
    assert SECTIONS.index("robustness") == SECTIONS.index("fgsm") + 1 == SECTIONS.index("transfer") - 1
    assert title("robustness") == "How little is enough?" and title("transfer") == "Does it fool others?"


@pytest.mark.parametrize("section", ["robustness", "transfer"])
@pytest.mark.parametrize("name", ["lonely", "features", "blind", "dark"])
def test_networks_without_another_class_or_a_gradient_have_none(own: str, section: str, name: str) -> None:
    found, stage = made(section, f"{own}:{name}")
    assert found is None and stage.made == []


# -- how little is enough -----------------------------------------------------------------------------------------------


def test_the_curve_of_photographs_that_come_along(thirty: str) -> None:
    section, stage = made("robustness", thirty, seed=4)
    assert section is not None and section.key == "robustness"
    assert [one.name for one in stage.made] == ["robustness"]
    recipe = stage.made[0].recipe
    assert recipe.parameters["eps"] == list(robustness.RADII) and recipe.parameters["others"] == []
    assert recipe.parameters["folder"] == "sample:all" and recipe.parameters["seed"] == 4
    assert section.words[0].startswith("8 photographs of pictures that come along, attacked by 10 steps")
    words = shlex.split(section.command)
    assert words[:3] == ["phosphene", "robustness", "sample:all"] and "--no-checks" in words
    assert words[words.index("--others") + 1] == "none" and words[words.index("--seed") + 1] == "4"
    assert tuple(radii(words[words.index("--eps") + 1])) == robustness.RADII  # what is typed is what was run


def test_it_says_what_was_measured(squeezenet: Any) -> None:
    section, _ = made("robustness", "squeezenet1_1")
    assert section is not None
    parameters = {
        "folder": "sample:all", "net": "squeezenet1_1", "eps": list(robustness.RADII), "steps": robustness.STEPS,
        "others": [], "checks": False, "truth": "predicted", "images": robustness.IMAGES,
    }  # fmt: skip
    facts = run(job("robustness", Workshop("cpu"), parameters)).facts
    place = next(at for at, one in enumerate(facts["curve"]) if one["mean"] <= 0.5)
    assert f"A change of {round(facts['eps'][place] * 255, 4):g}/255 per value is enough for half" in section.words[1]
    assert f"leaves {facts['noise'][place]['mean']:.0%} of them right" in section.words[1]
    assert ("No 8-bit file could hold" in section.words[1]) == (facts["eps"][place] < 0.5 / 255)


def test_the_tours_folder_is_taken_if_there_is_one(thirty: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("coffee.png", "astronaut.png"):
        shutil.copyfile(DATA / name, tmp_path / "photos" / name)
    (tmp_path / "photos" / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    section, stage = made("robustness", thirty, folder=str(tmp_path / "photos"))
    assert section is not None and section.words[0].startswith("2 photographs of the folder, attacked by")
    assert stage.made[0].recipe.parameters["folder"] == str(tmp_path / "photos")


def test_a_folder_of_one_photograph(thirty: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    shutil.copyfile(DATA / "coffee.png", tmp_path / "photos" / "coffee.png")
    section, _ = made("robustness", thirty, folder=str(tmp_path / "photos"))
    assert section is not None and not section.words[0].startswith("1 photographs")


def test_a_network_that_stands_is_said_to_stand(own: str) -> None:
    section, _ = made("robustness", f"{own}:stubborn")
    assert section is not None
    assert section.words[1] == "More than half of them stand even at 4/255. It doesn't always take little."


@pytest.mark.parametrize(
    ("curve", "noise", "parts"),
    [
        ((1, 0.9, 0.5, 0.2), (1, 1, 0.75, 0.5), ("change of 0.25/255", "No 8-bit file", "leaves 75%", "4/255 still 50%")),
        ((1, 0.9, 0.8, 0.0), (1, 1, 1, 0.1), ("A change of 4/255", "leaves 10%", "at 4/255 still 10%")),
        ((1, 0.9, 0.8, 0.6), (1, 1, 1, 1), ("More than half of them stand even at 4/255",)),
    ],
)  # fmt: skip
def test_where_half_has_fallen(curve: Any, noise: Any, parts: tuple[str, ...]) -> None:
    facts = {"eps": [0.0, 1 / 16 / 255, 1 / 4 / 255, 4 / 255], "curve": shares(*curve), "noise": shares(*noise)}
    text = robustness._told(facts)
    assert all(part in text for part in parts)
    assert ("No 8-bit file" in text) == ("No 8-bit file" in parts)


# -- does it fool others ------------------------------------------------------------------------------------------------


def test_another_network_with_the_same_classes_is_shown_the_result(efficientnet: Any, squeezenet: Any) -> None:
    section, stage = made("transfer", "squeezenet1_1", seed=2)
    assert section is not None and section.key == "transfer"
    pictures = {one.name: one.picture.image for one in stage.made}
    assert {"fool-transfer", "fool-transfer-original", "fool-transfer-fooled"} < set(pictures)
    original, fooled = (pictures[f"fool-transfer-{name}"][None] for name in ("original", "fooled"))
    change = (fooled - original).abs().max()
    assert float(change) <= transfer.EPS + 1e-6
    (table,) = section.tables
    assert table.header == ("what it sees", "squeezenet1_1", "efficientnet_lite0")
    noise = noisy(original, float(change), "linf", seed=2)
    for row, image in zip(table.rows, (original, fooled, noise), strict=True):
        for told, network in zip(row[1:], (squeezenet, efficientnet), strict=True):
            found = network.predict(image, 1)[0]
            assert told == f"{found.names[0]}, {found.probabilities[0]:.1%}", row[0]
    assert [row[0] for row in table.rows][1] == "changed against squeezenet1_1"
    words = shlex.split(section.command)
    assert words[:2] == ["phosphene", "fool"] and words[words.index("--others") + 1] == "efficientnet_lite0"
    assert words[words.index("--eps") + 1] == "8/255" and words[words.index("--attack") + 1] == "mi-fgsm"
    for shown, image in zip(section.figures, (original, fooled), strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(shown.image)).convert("RGB")).copy()
        assert torch.equal(torch.from_numpy(pixels).permute(2, 0, 1) / 255, images.quantize(image)[0])
    assert set(stage.made[0].recipe.networks) == {"squeezenet1_1", "efficientnet_lite0"}


def test_no_network_with_the_same_classes_no_section(thirty: str) -> None:
    section, stage = made("transfer", thirty)
    assert section is None and stage.made == []


def test_it_says_so_if_the_network_itself_was_not_fooled(own: str) -> None:
    section, _ = made("transfer", f"{own}:sure")
    assert section is not None
    (table,) = section.tables
    assert table.header[2:] == ("efficientnet_lite0", "squeezenet1_1")
    assert table.rows[0][1].split(",")[0] == table.rows[1][1].split(",")[0]  # as it was
    assert any(words in " ".join(section.words) for words in ("not fooled", "not fool", "n't fool", "withstands"))


def test_a_network_whose_classes_have_the_same_names_is_compared(own: str) -> None:
    section, _ = made("transfer", f"{own}:listed")
    assert section is not None


def seen(before: int, after: int, noise: int) -> dict[str, Any]:
    names = ("cat", "dog", "cow")
    return {
        key: {"index": place, "name": names[place], "probability": 0.5 + place / 10}
        for key, place in (("before", before), ("after", after), ("noise", noise))
    }


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (seen(0, 0, 0), "Here `net` stays with *cat*, 50% before and 50% after."),
        (seen(1, 1, 2), "Here `net` stays with *dog*, 60% before and 60% after."),
        (seen(0, 1, 2), "Here `net` changes its mind to *dog*, but it does so under noise of that size, too."),
        (
            seen(0, 1, 0),
            "Here `net`, which nobody attacked, changes its mind from *cat* to *dog* (60%);"
            " noise of that size doesn't do it.",
        ),
    ],
)
def test_the_verdict(found: dict[str, Any], text: str) -> None:
    assert transfer._verdict("net", found) == text


def test_the_networks_compared_are_the_bundled_ones() -> None:
    first, second = (load(name, device="cpu").labels for name in ("squeezenet1_1", "efficientnet_lite0"))
    assert list(first) == list(second)
