"""The tour's section on one step along the sign of the gradient: it says what the networks do, and what they don't."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from phosphene import images
from phosphene.attacks import fgsm
from phosphene.jobs.workshop import Workshop
from phosphene.progress import run
from phosphene.report.page import Section
from phosphene.report.sections import SECTIONS, title
from phosphene.report.sections.fgsm import LEVELS, make
from phosphene.report.stage import Stage

CAT = str(Path(skimage.__file__).parent / "data" / "chelsea.png")
OTHERS = """
import torch
from torch import nn

def net(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes),
    )

def stubborn():
    module = net(5)
    with torch.no_grad():
        module[-1].bias += torch.tensor([0.0, 0.0, 99.0, 0.0, 0.0])
    return module

def lonely():
    return net(1)

class Step(nn.Module):
    def forward(self, x):
        return (x > 0).float()

def blind():
    return nn.Sequential(nn.Conv2d(3, 4, 5, stride=4), Step(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


@pytest.fixture
def others(tmp_path: Path) -> str:
    (tmp_path / "others.py").write_text(OTHERS)
    return str(tmp_path / "others.py")


def made(net: str) -> tuple[Section | None, Stage]:
    stage = Stage(Workshop("cpu"), CAT, net, None, None, 0)
    return run(make(stage)), stage


def test_it_follows_the_section_on_fooling() -> None:
    assert SECTIONS.index("fgsm") == SECTIONS.index("fooling") + 1
    assert title("fgsm") == "One small step"


@pytest.mark.parametrize("net", ["squeezenet1_1", "thirty"])
def test_it_takes_the_smallest_radius_that_fools(net: str, thirty: str) -> None:
    section, stage = made(thirty if net == "thirty" else net)
    assert section is not None
    (eps,) = {found.recipe.parameters["eps"] for found in stage.made}
    network = stage.network
    photo = images.quantize(network.preprocess(images.read(CAT)))
    seen = network.predict(photo, 1)[0].indices
    success = [bool(run(fgsm(network, photo, seen, eps=n / 255, quantize=True)).success[0]) for n in LEVELS]
    assert eps == LEVELS[success.index(True)] / 255
    assert f"--attack fgsm --eps {LEVELS[success.index(True)]}/255" in section.command
    assert f"ε is {LEVELS[success.index(True)]}/255, the smallest of 1, 2, 4, 8" in section.words[1]
    (table,) = section.tables
    rows = {row[0]: row[1] for row in table.rows}
    assert rows["the photograph"] == network.labels[seen[0]] != rows["after the step"]
    assert rows["after the step"] == rows["the result, saved as PNG and read back"]
    noise = rows["random signs of the same size instead"]
    assert ("leave it at" in section.words[1]) == (noise == rows["the photograph"]) and f"*{noise}*" in section.words[1]


def test_its_picture_is_the_equation_and_all_are_written(thirty: str) -> None:
    section, stage = made(thirty)
    assert section is not None
    names = [found.name for found in stage.made]
    assert names == [
        "fool-fgsm", *(f"fool-fgsm-{x}" for x in ("original", "fooled", "difference", "difference-10x", "equation"))
    ]  # fmt: skip
    (shown,) = section.figures
    equation = stage.made[-1].picture.image
    pixels = torch.from_numpy(np.array(Image.open(io.BytesIO(shown.image)).convert("RGB"))).permute(2, 0, 1) / 255
    assert torch.equal(pixels, images.quantize(equation)) and shown.wide


def test_it_says_so_if_no_radius_is_enough(others: str) -> None:
    section, stage = made(f"{others}:stubborn")
    assert section is not None
    assert stage.made[0].recipe.parameters["eps"] == 8 / 255
    assert "one step is not enough, even where each value may move by 8 of 255 (tried: 1, 2, 4, 8)" in section.words[1]
    assert "too." in section.words[1] and "*class 2*" in section.words[1]


@pytest.mark.parametrize("name", ["lonely", "blind"])
def test_networks_without_another_class_or_a_gradient_have_none(others: str, name: str) -> None:
    section, stage = made(f"{others}:{name}")
    assert section is None and stage.made == []
