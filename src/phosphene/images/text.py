"""Text in pictures: DejaVu Sans, wrapped to a width, with an ellipsis where there is too much of it."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from PIL import ImageDraw, ImageFont

_ELLIPSIS = "…"


@dataclass(frozen=True)
class Style:
    """A size in pixels, a weight, and the most lines that a text may take."""

    size: int
    bold: bool = False
    lines: int = 2

    @property
    def leading(self) -> int:
        """Pixels from one line to the next."""
        return round(self.size * 1.4)


@dataclass(frozen=True)
class Block:
    """A text set in lines that fit a width."""

    lines: tuple[str, ...]
    style: Style

    @property
    def height(self) -> int:
        """Pixels from the top of the first line to the bottom of the last; 0 for no text."""
        return len(self.lines) * self.style.leading

    @property
    def width(self) -> int:
        """Pixels of the longest line."""
        return math.ceil(max((_width(line, self.style) for line in self.lines), default=0))

    def draw(self, canvas: ImageDraw.ImageDraw, left: int, top: int, colour: tuple[int, int, int]) -> None:
        """Draw the lines, flush left, with the block's upper left corner at (left, top)."""
        self._set(canvas, left, top, colour, "ls")

    def draw_centred(self, canvas: ImageDraw.ImageDraw, middle: int, top: int, colour: tuple[int, int, int]) -> None:
        """Draw the lines, each centred on `middle`, the first one from `top`."""
        self._set(canvas, middle, top, colour, "ms")

    def _set(
        self, canvas: ImageDraw.ImageDraw, across: int, top: int, colour: tuple[int, int, int], anchor: str
    ) -> None:
        face = _face(self.style.size, self.style.bold)
        baseline = top + round(self.style.leading * 0.76)
        for line in self.lines:
            canvas.text((across, baseline), line, fill=colour, font=face, anchor=anchor)
            baseline += self.style.leading


def block(text: str, style: Style, width: int) -> Block:
    """`text` wrapped at spaces, and inside words that are too long; an ellipsis stands for lines too many."""
    wrapped = (line for paragraph in text.splitlines() for line in _wrap(paragraph.split(), style, width))
    lines = list(islice(wrapped, style.lines + 1))
    if len(lines) > style.lines:
        lines = [*lines[: style.lines - 1], _shorten(lines[style.lines - 1], style, width)]
    return Block(tuple(lines), style)


def _wrap(words: list[str], style: Style, width: int) -> Iterator[str]:
    line = ""
    for word in words:
        joined = f"{line} {word}".strip()
        if _width(joined, style) <= width:
            line = joined
            continue
        if line:
            yield line
        line = word
        while _width(line, style) > width and len(line) > 1:
            end = _break(line, style, width)
            yield line[:end]
            line = line[end:]
    if line:
        yield line


def _break(word: str, style: Style, width: int) -> int:
    """Where to cut a word that is too long: after punctuation, as in `block.3.conv`, or else anywhere."""
    ends = range(1, len(word))
    fitting = max(1, bisect_right(ends, width, key=lambda end: _width(word[:end], style)))
    after_punctuation = [end for end in range(fitting, fitting // 2, -1) if word[end - 1] in "._-/"]
    return after_punctuation[0] if after_punctuation else fitting


def _shorten(line: str, style: Style, width: int) -> str:
    line = line.rstrip()
    while line and _width(line + _ELLIPSIS, style) > width:
        line = line[:-1].rstrip()
    return line + _ELLIPSIS


def _width(text: str, style: Style) -> float:
    return _face(style.size, style.bold).getlength(text)


@lru_cache(maxsize=32)
def _face(size: int, bold: bool) -> ImageFont.FreeTypeFont:
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
