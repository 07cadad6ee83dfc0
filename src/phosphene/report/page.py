"""One self-contained HTML page that tells a story in pictures: what `phosphene tour` writes.

A page is plain data, and `render` is a pure function from it to HTML. Pictures come encoded and are inlined;
the page asks the network for nothing, and its Content-Security-Policy makes the browser hold it to that.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from phosphene.report.math import mathml, parts

MEDIA_TYPES = ("image/png", "image/jpeg", "image/webp", "image/gif", "image/avif", "image/svg+xml")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture, already encoded.

    Attributes:
        image: the bytes of the file.
        media_type: one of `MEDIA_TYPES`.
        alt: what the picture shows, for a reader who can't see it.
        width, height: its size in pixels, so that the page doesn't jump while it loads.
        caption: a line below it; with the same markup as a section's words.
        wide: gives it a row of its own, as wide as the page.
        pixelated: enlarges it with hard pixel edges, as filters and other small tiles want it.
    """

    image: bytes
    media_type: str
    alt: str
    width: int
    height: int
    caption: str = ""
    wide: bool = False
    pixelated: bool = False

    def __post_init__(self) -> None:
        if self.media_type not in MEDIA_TYPES:
            raise ValueError(f"a figure can't be '{self.media_type}': choose one of {', '.join(MEDIA_TYPES)}")
        if not self.alt.strip():
            raise ValueError("a figure needs an alternative text")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a figure can't be {self.width} x {self.height} pixels")

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return f"data:{self.media_type};base64,{base64.b64encode(self.image).decode('ascii')}"


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: a class and its probability, from 0 to 1."""

    label: str
    value: float
    highlight: bool = False

    @property
    def share(self) -> float:
        """How much of its track the bar fills, from 0 to 1."""
        return min(1.0, max(0.0, self.value)) if math.isfinite(self.value) else 0.0

    @property
    def percent(self) -> str:
        """The value in words: `87.3%`, `< 0.1%`."""
        if not math.isfinite(self.value):
            return "not a number"
        return "< 0.1%" if 0 < self.value < 0.0005 else f"{self.value:.1%}"


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row names the row."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"a row of {len(row)} cells in a table of {len(self.header)} columns")


@dataclass(frozen=True, kw_only=True)
class Section:
    """One technique: its formula, its pictures, the words about them, and how to make it alone.

    Attributes:
        key: its name in the page's address, as in `tour.html#grad-cam`: small letters, digits and hyphens.
        title: its heading.
        slide: the name of the lecture's slide that it comes from.
        command: the command line that makes this section's pictures alone.
        seconds: how long it took.
        formula: LaTeX, each set on a line of its own above the pictures.
        words: paragraphs below the pictures, in plain text with `` `code` `` and `*emphasis*`.
        figures: its pictures.
        bars: predictions; beside the picture if there is only one.
        tables: tables below the pictures.
        note: a remark, set apart; with the same markup as the words.
    """

    key: str
    title: str
    slide: str
    command: str
    seconds: float
    formula: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    bars: tuple[Bar, ...] = ()
    tables: tuple[Table, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", self.key):
            raise ValueError(f"a section can't have the key '{self.key}': use a-z, 0-9 and hyphens")
        if self.key.startswith("page-"):
            raise ValueError(f"a section can't have the key '{self.key}': the page keeps 'page-' for itself")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: the photograph and what is known about it, the sections, and how it was all made.

    Attributes:
        title: its heading.
        lead: the paragraph below it, with the same markup as a section's words.
        hero: the photograph.
        facts: names and values beside the photograph; the first, the top prediction, is set large.
        sections: the story.
        footer: names and values at the end: versions, seed, device.
    """

    title: str
    lead: str
    hero: Figure
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    footer: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        keys = [section.key for section in self.sections]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ValueError(f"two sections have the key '{twice}'")


def render(page: Page) -> str:
    """The page as one HTML document, which needs no other file and no network."""
    script_hash = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    return _environment().get_template("template.html.j2").render(
        page=page, style=Markup(_read("style.css")), script=Markup(_SCRIPT), script_hash=script_hash
    )  # fmt: skip


def duration(seconds: float) -> str:
    """A time in words: `0.04 s`, `12.3 s`, `2 min 5 s`."""
    if seconds < 0.995:
        return f"{seconds:.2f} s" if seconds >= 0.005 else "< 0.01 s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


_MARKS = re.compile(r"`([^`]+)`|(?<![\w*])\*(?=[^\s*])([^*]*)(?<=\S)\*(?![\w*])")


def inline(text: str) -> Markup:
    """Plain text as HTML: `` `code` `` and `*emphasis*` are marked up, and all else is escaped."""
    pieces, end = [], 0
    for mark in _MARKS.finditer(text):
        pieces.append(escape(text[end : mark.start()]))
        code, emphasis = mark.groups()
        tag, content = ("code", code) if code else ("em", emphasis)
        pieces.append(Markup(f"<{tag}>{{}}</{tag}>").format(content))
        end = mark.end()
    return Markup("").join([*pieces, escape(text[end:])])


def columns(count: int) -> int:
    """How many pictures stand side by side on a wide screen, so that `count` of them fill even rows."""
    if count <= 5:
        return max(1, count)
    return min((3, 4, 5), key=lambda width: (-count % width, abs(width - 4)))


def formulas(latex: str) -> list[Markup]:
    """A formula as MathML, in the parts that a narrow screen sets one below the other."""
    return [Markup(mathml(part)) for part in parts(latex)]


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(inline=inline, duration=duration, columns=columns, formulas=formulas)
    return environment


# The page works without it: it adds the copy buttons, and the Escape key to leave an enlarged picture.
_SCRIPT = """
for (const box of document.querySelectorAll(".command")) {
  const button = box.querySelector("button");
  const said = button.querySelector("span");
  const code = box.querySelector("code");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = document.execCommand("copy") ? "Copied" : "Selected";
    }
    setTimeout(() => { said.textContent = "Copy"; }, 1600);
  });
}
addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const box of document.querySelectorAll(".zoom input:checked")) box.checked = false;
});
"""
