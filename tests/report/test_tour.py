"""The tour: its page, its pictures, its commands, in a browser, and with networks of one's own."""

from __future__ import annotations

import html
import io
import json
import re
import shlex
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import Image

from phosphene import recipe
from phosphene.cli import main
from phosphene.jobs import VERBS
from phosphene.jobs.command import defaults

from .conftest import STEPS

SECTIONS = [
    "predictions", "filters", "activations", "explanations", "trust", "class-images", "neurons", "dream", "inversion",
    "texture", "style", "texture-shape", "fooling", "fgsm", "robustness", "transfer",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(toured: Path) -> str:
    return (toured / "index.html").read_text(encoding="utf-8")


def sections(page: str) -> dict[str, str]:
    return dict(re.findall(r'<section id="([\w-]+)"(.*?)</section>', page, re.DOTALL))


def commands(page: str) -> dict[str, str]:
    found = {}
    for key, text in sections(page).items():
        (inside,) = re.findall(r"<pre><code>(.*?)</code></pre>", text, re.DOTALL)
        found[key] = html.unescape(re.sub(r"<[^>]+>", "", inside))
    return found


# -- the page ---------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_else(page: str) -> None:
    for address in re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]+)""", page):
        assert address.startswith(("data:", "#")), address
    assert not re.search(r"@import|url\((?!['\"]?data:)", page)
    assert "default-src 'none'" in page


def test_all_sections_in_the_order_of_the_lecture(page: str) -> None:
    assert list(sections(page)) == SECTIONS


@pytest.mark.parametrize("key", SECTIONS)
def test_each_section_is_whole(page: str, key: str) -> None:
    text = sections(page)[key]
    assert ("<math" in text) == (key != "transfer")
    assert "<h2" in text and "Slide: " in text
    assert len(re.sub(r"<[^>]+>|\s+", " ", re.findall(r'class="words">(.*?)</div>', text, re.DOTALL)[0])) > 200
    assert re.search(r"\d (s|ms|min)\b|\d (s|ms|min)</span>", text)
    pictures = re.findall(r"<img [^>]*>", text)
    assert pictures
    for picture in pictures:
        (alt,) = re.findall(r'alt="([^"]*)"', picture)
        assert len(alt) > 5


def test_its_pictures_are_pictures(page: str) -> None:
    import base64

    found = re.findall(r'src="data:image/(?:webp|jpeg);base64,([^"]+)"', page)
    assert len(found) >= 20
    for data in found:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
        assert min(pixels.shape[:2]) >= 50
    assert len(set(found)) >= len(found) - 2  # only the photograph may come again


def test_what_it_says_is_what_the_network_says(page: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["predict", "my cat.png", "--net", "squeezenet1_1", "--json"])
    best = json.loads(capsys.readouterr().out)["predictions"][0]["classes"][0]
    words = sections(page)["predictions"]
    assert best["name"] in words and f"{best['probability']:.0%}" in words
    assert f"{best['name']}, {best['probability']:.1%}" in page


# -- its commands and pictures ----------------------------------------------------------------------------------


def test_every_command_is_one_that_a_user_can_type(page: str) -> None:
    found = commands(page)
    verbs = [shlex.split(line)[:2] for line in found.values()]
    assert verbs == [
        ["phosphene", verb]
        for verb in (
            "predict", "filters", "activations", "explain", "randomise", "visualize", "visualize", "dream", "invert",
            "texture", "style", "style", "fool", "fool", "robustness", "fool",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("key", SECTIONS)
def test_its_commands_make_its_pictures(
    page: str, there: Path, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, verb, *words = shlex.split(commands(page)[key])
    if key == "class-images":
        words += ["--steps", str(STEPS)]  # the default, which the tests have lowered
    if verb == "predict":
        main([verb, *words, "--json"])
        assert len(json.loads(capsys.readouterr().out)["predictions"]) == 1
        return
    main([verb, *words, "--out", str(tmp_path), "--json"])
    told = json.loads(capsys.readouterr().out)
    made = [path for path in map(Path, told.get("pictures") or told["written"]) if path.suffix == ".png"]
    assert made
    base = {
        "filters": "filters-squeezenet1_1", "neurons": "visualize-neurons", "texture-shape": "style-conflict",
        "fgsm": "fool-fgsm", "transfer": "fool-transfer",
    }.get(key, verb)  # fmt: skip
    for path in made:
        part = path.stem.partition(f"-{verb}")[2]
        assert path.read_bytes() == (there / "pictures" / f"{base}{part}.png").read_bytes()


def test_every_picture_carries_its_whole_recipe(there: Path) -> None:
    pictures = sorted((there / "pictures").glob("*.png"))
    assert len(pictures) >= 25
    assert {path.with_suffix("") for path in (there / "pictures").glob("*.json")} == set(pictures)
    for picture in pictures:
        found = recipe.read(picture)
        assert found == recipe.read(recipe.beside(picture))
        assert found.verb in VERBS
        assert set(defaults(found.verb)) <= set(found.parameters)


@pytest.mark.parametrize(
    "name",
    ["filters-squeezenet1_1", "filters-efficientnet_lite0", "explain", "explain-saliency", "explain-lrp", "randomise",
     "explain-grad-cam", "fool", "fool-fooled", "fool-difference", "fool-equation", "fool-fgsm-equation",
     "fool-transfer", "fool-transfer-fooled", "robustness", "visualize", "visualize-pixel-black-swan",
     "visualize-neurons", "dream", "dream-beside", "invert", "texture", "texture-to-features.4", "style", "style-beside",
     "style-conflict"],
)  # fmt: skip
def test_pictures_can_be_made_again(there: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = there / "pictures" / f"{name}.png"
    main(["rerun", str(picture), "--out", str(tmp_path), "--json"])
    assert json.loads(capsys.readouterr().out)["same_bytes"] is True
    assert (tmp_path / picture.name).read_bytes() == picture.read_bytes()


def test_a_report_that_exists_is_kept(there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (there / "index.html").read_bytes()
    with pytest.raises(SystemExit) as end:
        main(["tour", "my cat.png", "--out", "lecture"])
    assert end.value.code == 2 and "exists and is kept" in capsys.readouterr().err
    assert (there / "index.html").read_bytes() == before


# -- in a browser -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser(browser: Any, toured: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    try:
        tab = context.new_page()
        complaints, requests = [], []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto((toured / "index.html").as_uri())
        tab.evaluate("() => { for (const image of document.images) image.loading = 'eager'; }")
        tab.wait_for_function("[...document.images].every((image) => image.complete)")
        assert tab.evaluate("[...document.images].map((image) => image.naturalWidth).filter((w) => w === 0)") == []
        assert tab.evaluate("document.images.length") >= 20
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert complaints == []
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    finally:
        context.close()


# -- networks of one's own --------------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn
from phosphene import load

def net(activation, channels, classes=10):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 3, stride=2), activation(), nn.Conv2d(6, 8, 3, stride=2), activation(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )

def digits():
    labels = [f"digit {n}" for n in range(10)]
    return load(net(nn.ReLU, 1), device="cpu", input_size=28, mean=(0.1,), std=(0.3,), labels=labels)

def silu():
    return net(nn.SiLU, 3)

def lonely():
    return net(nn.ReLU, 3, classes=1)

def features():
    return net(nn.ReLU, 3)[:4]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_steps: None, toured: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("phosphene.report.sections.class_images.SLIDE", ("black swan",))
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "cat.png").write_bytes((toured.parent / "my cat.png").read_bytes())
    return tmp_path


def tour_of(net: str) -> str:
    main(["tour", "cat.png", "--net", f"own.py:{net}", "--out", net, "--quiet"])
    return Path(net, "index.html").read_text(encoding="utf-8")


def test_a_small_grey_network_of_ones_own(own: Path) -> None:
    page = tour_of("digits")
    assert list(sections(page)) == SECTIONS[:-1]  # no bundled network knows its classes
    assert "28 × 28 × 1 numbers" in page and "10 classes" in page
    found = commands(page)
    assert "--net own.py:digits" in found["explanations"]
    assert re.search(r"--target 'digit \d'", found["fooling"])
    assert list(Path("digits/pictures").glob("filters-own.py-digits.png"))
    _, *words = shlex.split(found["fooling"])
    with suppress(SystemExit):  # whether or not untrained weights can be fooled, the picture is the same
        main([*words, "--out", "again.png", "--quiet"])
    assert list(Path("digits/pictures").glob("visualize-own-*.png"))  # its own picture of what it predicts
    assert Path("again.png").read_bytes() == Path("digits/pictures/fool-fooled.png").read_bytes()


def test_a_network_without_a_rule_for_guided_backprop(own: Path) -> None:
    text = sections(tour_of("silu"))["explanations"]
    assert re.search(
        r'class="note">No Guided backpropagation here: guided backpropagation has no rule for (Silu|SiLU)', text
    )
    assert "Guided backpropagation" not in re.sub(r'class="note">[^<]*', "", text).replace("guided) backprop", "")
    assert len(re.findall(r"<img ", text)) == 4  # saliency, LRP, occlusion, Grad-CAM
    assert len(re.findall(r'class="formula"', text)) == 2
    assert "--method" not in commands(Path("silu/index.html").read_text())["explanations"]


def test_a_network_of_one_class(own: Path) -> None:
    assert list(sections(tour_of("lonely"))) == SECTIONS[:-4]


def test_a_photograph_too_small_for_textures_has_a_tour_without_them(own: Path) -> None:
    with Image.open("cat.png") as cat:
        cat.convert("RGB").resize((96, 40)).save("cat.png")
    text = tour_of("silu")
    assert list(sections(text)) == [key for key in SECTIONS if key not in ("texture", "style", "transfer")]
    assert "--size 192" in commands(text)["texture-shape"]  # is made larger
    assert not list(Path("silu/pictures").glob("texture*"))


def test_a_feature_extractor_is_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        tour_of("features")
    assert end.value.code == 2
    assert "the tour needs a network that classifies; own.py:features gives a tensor" in capsys.readouterr().err
    assert not Path("features").exists()


# -- with a folder ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(own: Path) -> Path:
    """Five photographs of scikit-image's, and the tour's own."""
    photos = own / "photos"
    photos.mkdir()
    data = Path(skimage.__file__).parent / "data"
    for name in ("astronaut.png", "coffee.png", "chelsea.png", "camera.png", "moon.png"):
        shutil.copyfile(data / name, photos / name)
    return photos


def test_a_folder_becomes_a_map_of_the_last_layer(
    own: Path, folder: Path, capsys: pytest.CaptureFixture[str], browser: Any
) -> None:
    words = [
        "tour",
        "cat.png",
        "--net",
        "own.py:silu",
        "--folder",
        "photos",
        "--out",
        "lecture",
        "--seed",
        "3",
        "--json",
    ]
    main(words)
    made = json.loads(capsys.readouterr().out)
    page = Path("lecture/index.html").read_text(encoding="utf-8")
    order = [*SECTIONS[:3], "map", *SECTIONS[3:-1]]
    assert list(sections(page)) == list(made["sections"]) == order
    text = sections(page)["map"]
    assert len(re.findall("<img ", text)) == 3 and "<math" in text and "what &#39;6&#39; is given" in text
    figures = html.unescape(re.sub(r"<[^>]+>", "", text))
    assert "t-SNE of 5 images by own.py:silu" in figures and "trustworthiness" in figures
    command = commands(page)["map"]
    assert command == "phosphene embed photos --net own.py:silu --query cat.png --seed 3"
    main([*shlex.split(command)[1:], "--out", "map", "--json"])
    own_map = json.loads(capsys.readouterr().out)
    near = own_map["query"]["neighbours"]
    assert near[0]["name"] == "chelsea.png" and near[0]["distance"] < 1e-6  # the tour's photograph is a copy of it
    for name in ("embed", "grid", "points", "neighbours"):
        there = Path("lecture/pictures") / ("embed.png" if name == "embed" else f"embed-{name}.png")
        assert str(there) in made["pictures"]
        assert there.read_bytes() == (Path("map") / f"{name}.png").read_bytes()
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto((own / "lecture" / "index.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert tab.locator("nav a[href='#map'], a[href='#map']").count() >= 1
    tab.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [("gone", "'gone' is no folder"), ("cat.png", "'cat.png' is no folder"), ("few", "a map needs at least 3 images")],
)
def test_a_folder_that_makes_no_map(own: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    (own / "few").mkdir()
    shutil.copyfile("cat.png", "few/cat.png")
    with pytest.raises(SystemExit) as end:
        main(["tour", "cat.png", "--net", "own.py:silu", "--folder", words, "--out", "lecture"])
    said = capsys.readouterr()
    assert end.value.code == 2 and message in said.err and said.err.count("\n") == 1
    assert not Path("lecture").exists()
