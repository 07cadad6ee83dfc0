"""A contact sheet: pictures in a grid, with titles and captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.images.quantize import to_pil
from phosphene.images.text import Block, Style, block

Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of a sheet: `image` `[3, H, W]` in [0, 1] (None: an empty cell), a title above it, a caption below it."""

    image: Tensor | None
    title: str = ""
    caption: str = ""


@dataclass(frozen=True)
class _Theme:
    """Text sizes and colours for a side and a background."""

    side: int
    background: Colour

    def style(self, size: int, lines: int, *, bold: bool = False) -> Style:
        factor = min(max(math.sqrt(self.side / 224), 0.75), 2.0)
        return Style(round(size * factor), bold, lines)

    def ink(self, strength: float) -> Colour:
        """Black on light and white on dark, mixed into the background."""
        against = 0 if sum(self.background) > 3 * 127 else 255
        red, green, blue = (round(level + strength * (against - level)) for level in self.background)
        return red, green, blue


@dataclass(frozen=True)
class _Cell:
    title: Block
    picture: Image.Image | None
    caption: Block


_PAD = 6  # Pixels between a picture and its texts.


def sheet(
    panels: Sequence[Panel],
    *,
    columns: int | None = None,
    side: int = 224,
    gap: int = 16,
    title: str = "",
    footnote: str = "",
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Tensor:
    """A contact sheet of pictures with titles and captions, aligned row by row.

    Each picture is fitted into `side` x `side` pixels with its aspect kept: Lanczos down, bicubic up to
    twofold, square pixels (nearest) above that. Text is wrapped, and ends in an ellipsis where it would take
    too many lines.

    Args:
        panels: the pictures, row by row.
        columns: panels a row; up to five in one row, else about 4 : 3, where None.
        side: of a picture's cell, in pixels, at least 32.
        gap: pixels between cells; 1.5 times that around the sheet.
        title: above everything.
        footnote: below everything.
        background: RGB in [0, 1]; the text is dark on a light one and light on a dark one.

    Returns:
        `[3, H, W]` in [0, 1].

    Raises:
        PhospheneError: no panels, an image of another shape, a number out of range.
    """
    if not panels:
        raise PhospheneError("a sheet needs at least one panel, got none")
    if side < 32 or gap < 0 or (columns is not None and columns < 1):
        raise PhospheneError(f"side {side}, gap {gap}, columns {columns}: give at least 32, 0 and 1")
    red, green, blue = (round(255 * min(max(level, 0.0), 1.0)) for level in background)
    theme = _Theme(side, (red, green, blue))
    across = min(columns or _columns(len(panels)), len(panels))
    cells = [_cell(panel, theme) for panel in panels]
    rows = [cells[start : start + across] for start in range(0, len(cells), across)]
    width = across * side + (across - 1) * gap
    heading = block(title, theme.style(19, 3, bold=True), width)
    foot = block(footnote, theme.style(11, 6), width)
    picture = _compose(rows, heading, foot, theme, width, gap)
    return torch.from_numpy(np.array(picture, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)).contiguous()


def _columns(count: int) -> int:
    """One row of up to five; more in rows of nearly equal length, about four across to three down."""
    if count <= 5:
        return count
    rows = math.ceil(count / math.ceil(math.sqrt(count * 4 / 3)))
    return math.ceil(count / rows)


def _cell(panel: Panel, theme: _Theme) -> _Cell:
    return _Cell(
        block(panel.title, theme.style(13, 2, bold=True), theme.side),
        None if panel.image is None else _fit(to_pil(panel.image), theme.side),
        block(panel.caption, theme.style(12, 4), theme.side),
    )


def _fit(picture: Image.Image, side: int) -> Image.Image:
    factor = side / max(picture.size)
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if size == picture.size:
        return picture
    if factor >= 2:
        return picture.resize(size, Image.Resampling.NEAREST)
    return picture.resize(size, Image.Resampling.LANCZOS if factor < 1 else Image.Resampling.BICUBIC)


def _compose(rows: list[list[_Cell]], heading: Block, foot: Block, theme: _Theme, width: int, gap: int) -> Image.Image:
    margin = max(8, round(1.5 * gap))
    space = max(gap, 8)
    heights = [_row_height(row) for row in rows]
    below_heading = heading.height + space if heading.lines else 0
    above_foot = foot.height + space if foot.lines else 0
    total = 2 * margin + below_heading + sum(heights) + (len(rows) - 1) * (gap + gap // 2) + above_foot
    sheet_image = Image.new("RGB", (width + 2 * margin, total), theme.background)
    canvas = ImageDraw.Draw(sheet_image)
    heading.draw(canvas, margin, margin, theme.ink(0.87))
    top = margin + below_heading
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet_image, canvas, row, margin, top, theme, gap)
        top += height + gap + gap // 2
    foot.draw(canvas, margin, total - margin - foot.height, theme.ink(0.55))
    return sheet_image


def _row_height(row: list[_Cell]) -> int:
    return _above(row) + max(_height(cell) + _below(cell) for cell in row)


def _height(cell: _Cell) -> int:
    return 0 if cell.picture is None else cell.picture.height


def _above(row: list[_Cell]) -> int:
    """Pixels of the tallest title of a row and the space under it."""
    title = max(cell.title.height for cell in row)
    return title + _PAD if title else 0


def _below(cell: _Cell) -> int:
    """Pixels of a caption and the space over it."""
    return cell.caption.height + _PAD if cell.caption.lines else 0


def _draw_row(
    sheet_image: Image.Image,
    canvas: ImageDraw.ImageDraw,
    row: list[_Cell],
    left: int,
    top: int,
    theme: _Theme,
    gap: int,
) -> None:
    """Titles stand on one line, pictures hang from one line, a caption follows its picture."""
    top += _above(row)
    for cell in row:
        height = _height(cell)
        cell.title.draw(canvas, left, top - _PAD - cell.title.height, theme.ink(0.82))
        if cell.picture is not None:
            canvas.rectangle((left - 1, top - 1, left + cell.picture.width, top + height), outline=theme.ink(0.14))
            sheet_image.paste(cell.picture, (left, top))
        cell.caption.draw(canvas, left, top + height + _PAD, theme.ink(0.62))
        left += theme.side + gap
