"""Makes the pictures of the README again, by the very commands that the README shows.

python tools/make_pictures.py
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib
import sklearn.datasets
import torch
from PIL import Image, ImageDraw, ImageFont

from phosphene import images
from phosphene.cli import main
from phosphene.images.samples import sample_file

DOCS = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SHARED = Path(__file__).resolve().parents[2] / "shared"
WIDEST = 150  # characters of a drawn terminal
PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
    "horse.png", "hubble_deep_field.jpg", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
FOUR = "hartebeest,station wagon,billiard table,black swan"
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


def run() -> None:
    """Write every picture of `docs/pictures`."""
    spec = find_spec("skimage")
    assert spec is not None and spec.origin is not None
    DOCS.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            data = Path(spec.origin).parent / "data"
            shutil.copyfile(data / "chelsea.png", "cat.png")
            shutil.copyfile(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg", "china.jpg")
            Path("photos").mkdir()
            for name in PHOTOS:
                shutil.copyfile(data / name, Path("photos") / name)
                _tiles(Path("photos") / name, Path("tiles") / Path(name).stem)
            _pictures()
            _terminals()
            _tour()
        finally:
            os.chdir(before)


def _tiles(photo: Path, folder: Path, side: int = 4) -> None:
    """A photograph cut into squares, for a map that has something to sort."""
    folder.mkdir(parents=True)
    with Image.open(photo) as opened:
        picture = opened.convert("RGB")
    edge = min(picture.width, picture.height) // side
    for row in range(side):
        for column in range(side):
            left, top = column * (picture.width - edge) // (side - 1), row * (picture.height - edge) // (side - 1)
            picture.crop((left, top, left + edge, top + edge)).save(folder / f"{row}{column}.png")


def _pictures() -> None:
    _sheet("filters", ["filters", "--net", "squeezenet1_1"])
    _sheet("activations", ["activations", "cat.png", "--channels", "9"])
    _sheet("explain", ["explain", "cat.png"])
    _sheet("methods", ["explain", "cat.png", "--method", "all"])
    _sheet("patches", ["patches", "photos", "--net", "squeezenet1_1", "--layer", "features.9", "--units", "3,17"])
    _sheet("randomise", ["randomise", "cat.png"])
    _sheet("judge-explanations", ["judge-explanations", "photos", "--images", "8", "--mosaics", "8"])
    _sheet("visualize", ["visualize", "--class", FOUR])
    _sheet("fool", ["fool", "cat.png", "--attack", "fgsm", "--eps", "2/255"], part="equation", share=5 / 9)
    _attacks()
    _hardened()
    _sheet("neurons", ["visualize", "--layers", "all", "--per-layer", "9", "--size", "128"])
    _sheet("dream", ["dream", "china.jpg"])
    _sheet("invert", ["invert", "cat.png"])
    _sheet("embed", ["embed", "tiles"])
    _styles()
    _lessons()


def _styles() -> None:
    """Paintings, textures, and the conflict of texture and shape."""
    _sheet("style", ["style", "china.jpg"], part="beside")
    _sheet(
        "style-matrix", ["style", "china.jpg", "--matrix", "--size", "256", "--style-weight", "10", "--steps", "100"]
    )
    _sheet("texture", ["texture", "sample:painting", "--figure"])
    for kind, name in (("cat", "chelsea"), ("rocket", "rocket"), ("cup", "coffee")):
        Path("shapes", kind).mkdir(parents=True)
        shutil.copyfile(sample_file(name), Path("shapes", kind, "1.png"))
    for kind in ("painting", "gravel", "brick"):
        Path("textures", kind).mkdir(parents=True)
        shutil.copyfile(sample_file(kind), Path("textures", kind, "1.png"))
    main(["cue-conflict", "shapes", "textures", "--pairs", "all", "--out", "cues", "--quiet"])
    images.save(images.read(Path("cues") / "cue-conflict.png"), DOCS / "cue-conflict.jpg", quality=85)
    stimuli = SHARED / "data" / "cue_conflict"
    if stimuli.is_dir():
        _sheet("shape-bias", ["shape-bias", str(stimuli)])
    _networks()


def _attacks() -> None:
    """What it takes to fool a network, only where photographs of known classes are."""
    photos = SHARED / "data" / "imagenet_samples"
    if not photos.is_dir():
        return
    known = [str(photos), "--truth", "names", "--quiet"]
    main(["attack", *known, "--images", "40", "--attack", "fgsm,bim,pgd", "--eps", "1/255", "--out", "attack"])
    images.save(images.read(Path("attack") / "accuracy.png"), DOCS / "attack.jpg", quality=88)
    main(["robustness", *known, "--images", "100", "--out", "robustness"])
    images.save(images.read(Path("robustness") / "robustness.png"), DOCS / "robustness.jpg", quality=88)
    images.save(images.read(Path("robustness") / "transfer.png"), DOCS / "transfer-matrix.jpg", quality=88)
    coral = ["--images", "160", "--target", "brain coral", "--eps", "16/255"]
    _sheet("universal", ["universal", str(photos), "--truth", "names", *coral])
    _sheet("patch", ["patch", str(photos), "--truth", "names", "--images", "120", "--target", "toaster"])


def _hardened() -> None:
    """A network that stands, only where MNIST is."""
    digits = SHARED / "data" / "mnist"
    if not digits.is_dir():
        return
    main(["harden", str(digits), "--epochs", "4", "--out", "harden", "--quiet"])
    images.save(images.read(Path("harden") / "robustness.png"), DOCS / "harden.jpg", quality=88)


def _lessons() -> None:
    """What transfer learning makes of ants and bees, only where these photographs are."""
    photos = SHARED / "data" / "hymenoptera"
    if not photos.is_dir():
        return
    main(["probe", str(photos), "--out", "probe", "--quiet"])
    images.save(images.read(Path("probe") / "depth.png"), DOCS / "probe.jpg", quality=88)
    main(["finetune", str(photos), "--size", "288", "--epochs", "4", "--out", "finetune", "--quiet"])
    images.save(images.read(Path("finetune") / "mistakes.png"), DOCS / "finetune.jpg", quality=85)
    main(["advise", str(photos), "--out", "advise", "--quiet"])
    images.save(images.read(Path("advise") / "table.png"), DOCS / "advise.jpg", quality=88)


def _networks() -> None:
    """The same photograph and painting by three networks; VGG-16 only where its weights are."""
    panels = [
        images.Panel(images.read("china.jpg")[0], "photograph"),
        images.Panel(images.read(sample_file("painting"))[0], "style"),
    ]
    for net in ("squeezenet1_1", "efficientnet_lite0", "vgg16"):
        with contextlib.suppress(SystemExit):
            main(["style", "china.jpg", "--net", net, "--out", net, "--quiet"])
            panels.append(images.Panel(images.read(Path(net) / "china-style.png")[0], net))
    images.save(images.sheet(panels, columns=5, side=400), DOCS / "style-networks.jpg", quality=85)


def _sheet(name: str, words: list[str], part: str = "", share: float = 1.0) -> None:
    """Run a command and keep its main picture, the one with the shortest name, or a part of that name, shrunk to a share."""
    main([*words, "--out", name, "--quiet"])
    made = min(Path(name).glob(f"*{part}.png"), key=lambda path: len(path.name))
    picture = images.read(made)
    if share != 1:
        picture = images.resize(picture, round(min(picture.shape[-2:]) * share))
    images.save(picture, DOCS / f"{name}.jpg", quality=85)


def _terminals() -> None:
    os.environ["COLUMNS"] = "100"
    _terminal("predict", ["predict", "cat.png"])
    _terminal("layers", ["layers", "squeezenet1_1"], lines=16)
    _terminal("models", ["models"], lines=16)
    _terminal("recipe", ["recipe", "fool/cat-fool.png"], lines=14)
    _terminal("rerun", ["rerun", "fool/cat-fool.png", "--check"])


def _terminal(name: str, words: list[str], *, lines: int = 40) -> None:
    """Run a command and draw what it prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        main(words)
    text = [line.rstrip() for line in said.getvalue().splitlines()]
    text = [line if len(line) <= WIDEST else line[: WIDEST - 1] + "…" for line in text if line][:lines]
    _draw([f"$ phosphene {' '.join(words)}", "", *text], DOCS / f"{name}.png")


def _draw(lines: list[str], path: Path) -> None:
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSansMono.ttf"), 15)
    width = max(int(font.getlength(line)) for line in lines) + 48
    picture = Image.new("RGB", (width, 22 * len(lines) + 40), "#10141c")
    pen = ImageDraw.Draw(picture)
    for place, line in enumerate(lines):
        pen.text((24, 20 + 22 * place), line, font=font, fill="#f2b04e" if place == 0 else "#d9dee6")
    picture.quantize(32).save(path, optimize=True)


def _tour() -> None:
    """The top of the tour's page, in Chromium."""
    from playwright.sync_api import sync_playwright

    main(["tour", "cat.png", "--out", "tour", "--quiet"])
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM)
        page = browser.new_page(viewport={"width": 1280, "height": 1500})
        page.goto((Path("tour") / "index.html").absolute().as_uri())
        page.wait_for_timeout(500)
        page.screenshot(path="tour.png")
        browser.close()
    shot = images.read("tour.png")
    images.save(torch.nn.functional.interpolate(shot, scale_factor=0.75, mode="area"), DOCS / "tour.jpg", quality=85)


if __name__ == "__main__":
    run()
