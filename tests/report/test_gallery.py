"""The page over many explanations, and the page of a judgement: as text, and in a real browser from a file."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest
import skimage
import torch

from phosphene import images
from phosphene.cli import main
from phosphene.explain.judge import BETTER
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.report.gallery import gallery
from phosphene.report.judging import WORDS, page

EVIL = "<script>alert('x')</script> & \"more\""
PARTS = ("explain", "saliency", "grad-cam", "grad-cam++", "gradient-x-input")


def row(name: str, parts: tuple[str, ...] = PARTS, **more: object) -> dict[str, Any]:
    made = [
        {"file": f"pictures/{name}--{part}.png", "name": part, "alt": f"{part} of {name}", "caption": f"clip of {part}"}
        for part in parts
    ]
    return {"image": f"in/{name}.jpg", "target": f"class {name}", "maps": f"maps/{name}.npz", "pictures": made, **more}


def shown(text: str) -> list[str]:
    """What can be chosen."""
    return re.findall(r'autocomplete="off">([^<]+)</label>', text)


def classes(text: str, part: str) -> set[str]:
    return set(re.findall(rf'<figure class="([^"]+)"><a href="pictures/[^"]*--{re.escape(part)}\.png"', text))


# -- as text ------------------------------------------------------------------------------------------------------------


def test_there_is_a_choice_for_each_method_and_a_figure_for_each_picture() -> None:
    text = gallery("Looks", [row("a"), row("b")])
    assert shown(text) == ["all side by side", *PARTS[1:]]
    for place, part in enumerate(PARTS, start=1):
        wanted = part.replace("+", "%2B")
        assert classes(text, wanted) == {f"p-{place}"}
        assert f"body:has(#m-{place}:checked) .p-{place} {{ display: block; }}" in text
    assert text.count("<article") == 2 and text.count("<img") == 2 * len(PARTS) and "2 images." in text


def test_classes_of_one_method_are_one_choice() -> None:
    parts = ("explain", *(f"{m}-{c}" for c in ("tabby", "x-input") for m in ("gradient", "grad-cam", "grad-cam++")))
    text = gallery("Looks", [row("a", parts)])
    assert shown(text) == ["all side by side", "gradient", "grad-cam", "grad-cam++", "gradient-x-input"]
    assert classes(text, "grad-cam-x-input") == classes(text, "grad-cam-tabby") == {"p-3"}


def test_methods_that_one_image_alone_has_are_there_to_choose() -> None:
    text = gallery("Looks", [row("a", PARTS[:2]), row("b", ("explain", "lrp"))])
    assert shown(text) == ["all side by side", "saliency", "lrp"]


def test_names_can_not_break_the_page_nor_its_links() -> None:
    evil = row("a", image=EVIL, target=EVIL)
    evil["pictures"][1] |= {"alt": EVIL, "caption": EVIL, "file": "pictures/ä #1?.png"}
    text = gallery(EVIL, [evil])
    assert "<script" not in text and text.count("&lt;script&gt;alert(") == 6
    assert 'src="pictures/%C3%A4%20%231%3F.png"' in text


def test_it_asks_nobody_anything_and_runs_nothing() -> None:
    text = gallery("Looks", [row("a")])
    assert "default-src 'none'" in text and "<script" not in text and " onclick" not in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert len(links) == 2 + 2 * len(PARTS) and all(re.match(r"pictures/|maps/|data:,", link) for link in links)


def test_captions_stand_below_methods_and_not_below_sheets() -> None:
    text = gallery("Looks", [row("a")])
    assert "<figcaption>clip of explain" not in text
    assert all(f"<figcaption>clip of {part}</figcaption>" in text for part in PARTS[1:])


# -- the page of a judgement --------------------------------------------------------------------------------------------


def judged(*checks: str) -> Outcome:
    found = {"mean": 0.25, "low": 0.125, "high": 0.375, "count": 3}
    methods = {"lrp": dict.fromkeys(checks, found), "centre": {checks[0]: {**found, "mean": 0.5}}}
    pictures = [
        Picture("judge", torch.rand(3, 80, 120), "Judged"),
        Picture("randomisation", torch.rand(3, 60, 90), "Anew"),
    ]
    randomised = "ssim" in checks
    facts = {"net": "small", "better": BETTER, "methods": methods, "randomisation": {}, "refused": {}, "skipped": {}}
    return Outcome(tuple(pictures[: 1 + randomised]), facts)


PARAMETERS = {"folder": "my photos", "images": 20, "mosaics": 7, "methods": ["lrp"], "net": "small"}
OPTIONS = ("--mosaics 7", "--method lrp", "--net small")  # 20 images are the default


def test_a_judgement_tells_each_number_and_explains_the_checks_that_were_asked() -> None:
    text = page(judged("insertion", "focus"), PARAMETERS)
    assert text.count("0.250 (0.125 to 0.375)") == 2 and "0.500 (0.125 to 0.375)" in text and "<td>–</td>" in text
    assert "Insertion AUC" in text and "Deletion AUC" not in text
    asked = [check for check, words in WORDS.items() if f"<em>{words.split('*')[1]}</em>" in text]
    assert asked == ["insertion", "focus"]
    (command,) = set(re.findall(r"<pre><code>(.*?)</code></pre>", text))
    words = html.unescape(re.sub(r"<[^>]*>", "", command))
    assert words == f"phosphene judge-explanations 'my photos' {' '.join(OPTIONS)}"
    assert "lrp, 25%" in text and "Which maps forget" not in text


def test_the_curves_have_a_section_where_networks_were_drawn_anew() -> None:
    text = page(judged("insertion", "ssim"), PARAMETERS)
    assert "Which maps forget with the network?" in text and "not asked" in text  # the best of Focus


def test_a_judgement_needs_no_other_file() -> None:
    text = page(judged("focus", "ssim"), PARAMETERS)
    assert "default-src 'none'" in text
    assert all(link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', text))


# -- in a browser -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three explained photographs, as the command writes them, one of them with a name that a link has to escape."""
    folder = tmp_path_factory.mktemp("explained")
    (folder / "in").mkdir()
    data = Path(skimage.__file__).parent / "data"
    for source, name in (("chelsea.png", "cat & 100% ü"), ("coffee.png", "coffee"), ("rocket.jpg", "c++")):
        shutil.copyfile(data / source, folder / "in" / f"{name}{Path(source).suffix}")
    words = ("--net", "squeezenet1_1", "--method", "saliency,grad-cam,grad-cam++", "--class", "281,missile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main(["explain", "in", *words, "--out", "out", "-q"])
    shutil.rmtree(folder / "in")  # the page needs none of it
    return (folder / "out").rename(folder / "moved away")


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a file: `visit(path)`. At the end nothing may have been logged, asked for elsewhere, or not been found."""
    contexts, complaints, requests = [], [], []

    def open_page(path: Path, scripts: bool = True, width: int = 1200) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, java_script_enabled=scripts)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("requestfailed", lambda request: complaints.append(request.url))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


LOADED = """async () => {
  const seen = [...document.images].filter((e) => e.checkVisibility());
  for (const e of seen) { e.loading = "eager"; await e.decode(); }
  return seen.map((e) => [decodeURIComponent(e.getAttribute("src")), e.naturalWidth, e.alt]);
}"""


def test_choosing_a_method_shows_its_pictures_only(visit: Any, folder: Path) -> None:
    tab = visit(folder / "index.html")
    names = ["c++", "cat-100-ü", "coffee"]
    found = tab.evaluate(LOADED)
    assert [src for src, *_ in found] == [f"pictures/{name}.png" for name in names]
    assert all(width > 600 for _, width, _ in found)
    for method in ("saliency", "grad-cam", "grad-cam++"):
        tab.get_by_text(method, exact=True).first.click()
        found = tab.evaluate(LOADED)
        parts = [f"{method}-{name}" for name in ("tabby", "missile")]
        assert [src for src, *_ in found] == [f"pictures/{name}--{part}.png" for name in names for part in parts]
        assert all(width == 224 for _, width, _ in found) and len(found) == 6
    tab.get_by_text("all side by side").click()
    assert len(tab.evaluate(LOADED)) == 3


def test_the_keyboard_chooses_and_no_script_is_needed(visit: Any, folder: Path) -> None:
    tab = visit(folder / "index.html", scripts=False)
    tab.keyboard.press("Tab")
    for count in (6, 6, 6, 3):
        tab.keyboard.press("ArrowRight")
        assert tab.locator("img:visible").count() == count
    assert tab.locator("label:has(:checked)").inner_text() == "all side by side"


@pytest.mark.parametrize("width", [320, 1200])
def test_nothing_is_wider_than_the_screen(visit: Any, folder: Path, width: int) -> None:
    tab = visit(folder / "index.html", width=width)
    for method in ("all side by side", "grad-cam++"):
        tab.get_by_text(method, exact=True).first.click()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_links_lead_to_the_picture_and_to_the_raw_maps(visit: Any, folder: Path) -> None:
    tab = visit(folder / "index.html")
    links = tab.evaluate("() => [...document.querySelectorAll('.card a')].map((e) => e.href)")
    assert len(links) == 3 * (1 + 6 + 1)
    paths = [Path(unquote(urlparse(link).path)) for link in links]
    assert all(path.is_file() and folder in path.parents for path in paths)
    assert sum(path.suffix == ".npz" for path in paths) == 3
    assert images.read_note(next(path for path in paths if "grad-cam++" in path.name))


@pytest.mark.parametrize("width", [360, 1440])
def test_a_judgement_shows_its_pictures_in_a_browser(visit: Any, tmp_path: Path, width: int) -> None:
    (tmp_path / "index.html").write_text(page(judged("insertion", "focus", "ssim"), PARAMETERS), encoding="utf-8")
    tab = visit(tmp_path / "index.html", width=width)
    assert [natural for _, natural, _ in tab.evaluate(LOADED)] == [90, 120, 90]  # the hero, the dots, the curves
    drawn = tab.evaluate("() => [...document.images].map((e) => e.getBoundingClientRect().width)")
    assert all(0 < wide <= width for wide in drawn)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
