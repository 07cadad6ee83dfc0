"""The page in a real browser: it fits a phone, can be read in both themes, prints, asks nobody anything."""

from collections.abc import Iterator
from typing import Any

import pytest

from phosphene.report.page import render

from .sample import page

# For each piece of text that can be seen: its contrast with the nearest background that is not transparent.
CONTRASTS = """() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const clear = (colour) => { const alpha = numbers(colour)[3]; return alpha !== undefined && alpha < 1; };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || element.closest("script") || !element.checkVisibility()) continue;
    let behind = element;
    while (behind && clear(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
    found.push([texts.currentNode.data.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("report") / "tour.html"
    file.write_text(render(page()), encoding="utf-8")
    return file.as_uri()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Any]:
    """Open the page: `visit(width, theme)`. At the end nothing may have been logged or asked for."""
    contexts, complaints, requests = [], [], []

    def open_page(width: int = 1440, theme: str = "light", scripts: bool = True) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, java_script_enabled=scripts
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(address)
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("width", [320, 390, 700, 1000, 1440])
def test_nothing_is_wider_than_the_screen(visit: Any, width: int) -> None:
    tab = visit(width)
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beyond = tab.evaluate(
        """() => [...document.querySelectorAll("main *, header *, footer *, nav *")]
          .filter((e) => !e.closest(".table") && !e.closest(".formula") && !e.closest(".unseen"))
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
          .map((e) => e.outerHTML.slice(0, 120))"""
    )
    assert beyond == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(visit: Any, theme: str) -> None:
    contrasts = visit(theme=theme).evaluate(CONTRASTS)
    assert len(contrasts) > 80
    assert [(text, ratio) for text, ratio in contrasts if ratio < 4.5] == []


def test_the_themes_differ(visit: Any) -> None:
    colour = "getComputedStyle(document.body).color"
    assert visit(theme="light").evaluate(colour) != visit(theme="dark").evaluate(colour)


@pytest.mark.parametrize("width", [390, 1440])
def test_labels_are_not_clipped(visit: Any, width: int) -> None:
    clipped = visit(width).evaluate(
        """() => [...document.querySelectorAll(".label, figcaption, dd, th, td, .command pre")]
          .filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline")
          .map((e) => e.textContent)"""
    )
    assert clipped == []


@pytest.mark.parametrize(
    ("key", "rows"), [("predict", 1), ("explain", 1), ("fool", 1), ("visualize", 1), ("activations", 2)]
)
def test_pictures_stand_in_even_rows(visit: Any, key: str, rows: int) -> None:
    boxes = visit(1440).evaluate(
        """key => [...document.querySelectorAll(`#${key} img`)]
          .map((e) => e.getBoundingClientRect().toJSON())""",
        key,
    )
    tops = [round(box["top"]) for box in boxes]
    assert len(set(tops)) == rows
    assert len({tops.count(top) for top in tops}) == 1
    assert len({round(box["width"]) for box in boxes}) == 1


def test_pictures_have_their_room_before_they_load(visit: Any) -> None:
    ratios = visit(1440).evaluate(
        """() => [...document.images].map((e) => [e.getAttribute("width") / e.getAttribute("height"),
          e.getBoundingClientRect().width / e.getBoundingClientRect().height])"""
    )
    assert all(given == pytest.approx(drawn, rel=0.02) for given, drawn in ratios)


def test_formulas_are_drawn(visit: Any) -> None:
    sizes = visit(1440).evaluate(
        """() => [...document.querySelectorAll("math")].map((e) => e.getBoundingClientRect().toJSON())"""
    )
    assert len(sizes) >= 9
    assert all(size["width"] > 20 and size["height"] > 15 for size in sizes)


@pytest.mark.parametrize("scripts", [True, False])
def test_a_click_enlarges_a_picture_and_another_puts_it_back(visit: Any, scripts: bool) -> None:
    tab = visit(1440, scripts=scripts)
    picture, box = tab.locator("#fool img").first, tab.locator("#fool .zoom input").first
    before = picture.bounding_box()["width"]
    box.click()
    assert picture.bounding_box()["width"] == 1440
    box.click()
    assert picture.bounding_box()["width"] == before


def test_the_keyboard_is_enough(visit: Any) -> None:
    tab = visit(1440)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    box = tab.locator("#fool .zoom input").first
    box.focus()
    tab.keyboard.press("Space")
    assert box.is_checked()
    assert tab.evaluate("getComputedStyle(document.querySelector('#fool .zoom')).outlineStyle") == "solid"
    tab.keyboard.press("Escape")
    assert not box.is_checked()


def test_commands_are_copied(visit: Any) -> None:
    tab = visit(1440)
    tab.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.locator("#fool button").click()
    tab.locator("#fool button", has_text="Copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == "phosphene fool 'my photo.jpg' --seed 0"


def test_commands_can_be_selected_by_hand(visit: Any) -> None:
    selected = visit(390).evaluate(
        """() => { getSelection().selectAllChildren(document.querySelector("#fool .command code"));
          return getSelection().toString(); }"""
    )
    assert selected == "phosphene fool 'my photo.jpg' --seed 0"


def test_without_scripts_there_are_no_dead_buttons(visit: Any) -> None:
    tab = visit(1440, scripts=False)
    assert tab.locator("button:visible").count() == 0
    assert tab.locator(".command code:visible").count() == 6


def test_it_prints_light_and_with_its_commands(visit: Any) -> None:
    tab = visit(1440, theme="dark")
    assert tab.pdf(format="A4").startswith(b"%PDF-")
    tab.emulate_media(media="print", color_scheme="dark")
    assert [(text, ratio) for text, ratio in tab.evaluate(CONTRASTS) if ratio < 4.5] == []
    for place in ("body", ".hero"):
        background = tab.evaluate(f"getComputedStyle(document.querySelector('{place}')).backgroundColor")
        assert background == "rgb(255, 255, 255)"
    assert tab.evaluate("getComputedStyle(document.querySelector('figure')).breakInside") == "avoid"
    assert tab.locator(".command code:visible").count() == 6
    assert tab.locator("button:visible").count() == 0
