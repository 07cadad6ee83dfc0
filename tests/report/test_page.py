import base64
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from phosphene.report.page import Bar, Figure, Page, Section, Table, columns, duration, inline, render

from .sample import EVIL, figure, page, section

VOID = {"meta", "link", "img", "input", "br", "hr", "circle"}


class Reader(HTMLParser):
    """The elements of a page, its text, and the nesting, which must close as it opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return render(page())


@pytest.fixture(scope="module")
def read(html: str) -> Reader:
    return Reader(html)


def test_user_text_is_escaped() -> None:
    whole = Page(
        title=EVIL,
        lead=EVIL,
        hero=figure(caption=EVIL, alt=f'"{EVIL}'),
        facts=((EVIL, EVIL),),
        sections=(
            section(
                "evil",
                title=EVIL,
                slide=EVIL,
                command=EVIL,
                words=(EVIL, f"`{EVIL}` *{EVIL}*"),
                note=EVIL,
                figures=(figure(caption=EVIL, alt=EVIL),),
                bars=(Bar(EVIL, 0.5),),
                formula=(r"\text{" + EVIL + "}",),
                tables=(Table((EVIL,), ((EVIL,),), EVIL),),
            ),
        ),
        footer=((EVIL, EVIL),),
    )
    html = render(whole)
    assert EVIL not in html
    assert html.count("<script") == 1
    assert "".join(Reader(html).text).count(EVIL) >= 15


def test_nothing_from_outside(html: str, read: Reader) -> None:
    for tag, attributes in read.elements:
        for name in ("src", "href", "srcset", "poster", "action", "data", "xlink:href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, name)
    assert "@import" not in html
    assert not re.search(r"url\((?!['\"]?data:)", html)
    assert "://" not in re.sub(r'"data:[^"]*"', "", html)
    (policy,) = [meta["content"] for meta in read.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'; img-src data:")


def test_every_picture_is_inlined_once(html: str, read: Reader) -> None:
    pictures = [page().hero, *(figure for section in page().sections for figure in section.figures)]
    sources = Counter(image["src"] for image in read.all("img"))
    assert sources == Counter(figure.source for figure in pictures)
    for image, shown in zip(read.all("img"), pictures):
        assert image["alt"] == shown.alt
        assert (image["width"], image["height"]) == (str(shown.width), str(shown.height))
        assert image["decoding"] == "async"
        assert base64.b64decode(image["src"].split(",")[1]) == shown.image
    assert ["loading" in image for image in read.all("img")] == [False] + [True] * (len(pictures) - 1)
    assert len(html) < sum(len(figure.source) for figure in pictures) + 80_000


def test_landmarks_and_headings(read: Reader) -> None:
    assert read.all("html") == [{"lang": "en"}]
    for landmark in ("header", "nav", "main", "footer", "h1", "title"):
        assert len(read.all(landmark)) == 1, landmark
    assert len(read.all("h2")) == 1 + len(page().sections)
    assert not read.all("h3")
    identifiers = Counter(attributes["id"] for _, attributes in read.elements if "id" in attributes)
    assert set(identifiers.values()) == {1}
    for _, attributes in read.elements:
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in identifiers
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in identifiers
    assert [link["href"] for link in read.all("a")][1:-1] == [f"#{section.key}" for section in page().sections]


def test_every_formula_is_set(read: Reader) -> None:
    written = " ".join(math["alttext"] for math in read.all("math"))
    for item in page().sections:
        for latex in item.formula:
            assert all(piece.strip() in written for piece in latex.split(r"\quad"))


def test_every_command_caption_and_number_is_there(read: Reader) -> None:
    text = "".join(read.text)
    for item in page().sections:
        assert item.command in text
        assert item.title in text
        assert item.slide in text
        assert all(figure.caption in text for figure in item.figures)
        assert all(bar.label in text and bar.percent in text for bar in item.bars)
        assert all(cell in text for table in item.tables for row in (table.header, *table.rows) for cell in row)
    for name, value in (*page().facts, *page().footer):
        assert name in text
        assert value in text


def test_missing_parts_leave_no_boxes() -> None:
    bare = Section(key="bare", title="Bare", slide="", command="", seconds=0)
    html = render(replace(page(), lead="", facts=(), sections=(bare,), footer=()))
    for name in (
        "lead",
        "facts",
        "formula",
        "figures",
        "beside",
        "bars",
        "table",
        "below",
        "words",
        "command",
    ):
        assert f'class="{name}' not in html
    assert "<dl" not in html
    assert "<nav" not in render(replace(page(), sections=()))


def test_one_picture_stands_beside_its_bars() -> None:
    def beside(item: Section) -> bool:
        return 'class="beside"' in render(replace(page(), sections=(item,)))

    bars = (Bar("cat", 0.5),)
    assert beside(section("a", 1, bars=bars))
    assert not beside(section("a", 2, bars=bars))
    assert not beside(section("a", 1))
    assert not beside(section("a", figures=(figure(wide=True),), bars=bars))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("a *b c* d", "a <em>b c</em> d"),
        ("run `a *b* c`, then", "run <code>a *b* c</code>, then"),
        ("2 * 3 * 4", "2 * 3 * 4"),
        ("a*b*c", "a*b*c"),
        ("*one*, *two*.", "<em>one</em>, <em>two</em>."),
        ("an ` alone and an * alone", "an ` alone and an * alone"),
        ("**", "**"),
        ("*<b>* & `<i>`", "<em>&lt;b&gt;</em> &amp; <code>&lt;i&gt;</code>"),
    ],
)
def test_inline(text: str, html: str) -> None:
    assert str(inline(text)) == html


@pytest.mark.parametrize(
    ("value", "percent", "share"),
    [
        (0.873, "87.3%", 0.873),
        (0, "0.0%", 0),
        (1, "100.0%", 1),
        (0.0004, "< 0.1%", 0.0004),
        (1.00001, "100.0%", 1),
        (-0.5, "-50.0%", 0),
        (float("nan"), "not a number", 0),
        (float("inf"), "not a number", 0),
    ],
)
def test_bar(value: float, percent: str, share: float) -> None:
    assert Bar("x", value).percent == percent
    assert Bar("x", value).share == share


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "< 0.01 s"),
        (0.043, "0.04 s"),
        (0.999, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min"),
        (75, "1 min 15 s"),
        (3600.2, "60 min"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "wide"),
    [(0, 1), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 3), (8, 4), (9, 3), (10, 5), (12, 4)],
)
def test_columns(count: int, wide: int) -> None:
    assert columns(count) == wide


def test_figures_are_checked() -> None:
    good = {"image": b"", "media_type": "image/png", "alt": "x", "width": 1, "height": 1}
    Figure(**good)
    for wrong, message in (
        ({"media_type": 'image/png" onload="'}, "choose one of image/png"),
        ({"alt": " "}, "alternative text"),
        ({"width": 0}, "0 x 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Figure(**{**good, **wrong})


def test_keys_are_checked() -> None:
    for key in ("", "Über", "a b", '"><b', "1st", "page-story"):
        with pytest.raises(ValueError, match="can't have the key"):
            section(key)
    with pytest.raises(ValueError, match="two sections have the key 'a'"):
        replace(page(), sections=(section("a"), section("b"), section("a")))


def test_tables_are_checked() -> None:
    with pytest.raises(ValueError, match="a row of 1 cells in a table of 2 columns"):
        Table(("a", "b"), (("c",),))


def test_the_same_page_gives_the_same_html(html: str) -> None:
    assert render(page()) == html
