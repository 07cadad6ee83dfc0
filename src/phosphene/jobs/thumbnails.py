"""Many small pictures as one: scattered over a map, in a grid without gaps, or as points."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene import images as pictures
from phosphene.images.text import Block, Style, block
from phosphene.observe.lattice import parted
from phosphene.observe.patches import Pictures

Colour = tuple[int, int, int]

LARGEST = 224  # pixels of a thumbnail's side
BUDGET = 500 * 160**2  # pixels of all of them together: what a page can carry and a phone can show

_WIDE = 2400
_COVER = 0.5  # share of the map's box that thumbnails cover
_MARGIN, _GAP = 36, 20
_INK, _SOFT = (24, 34, 44), (85, 96, 106)
_CATEGORIES = (
    (47, 111, 181), (242, 142, 43), (44, 152, 99), (214, 69, 80), (139, 99, 183), (23, 170, 186), (226, 111, 168),
    (156, 117, 95), (176, 166, 30), (110, 120, 130),
)  # fmt: skip


class Thumbnails:
    """Pictures that leave a small copy behind when they are read: `small [3, S, S]` uint8, by their place."""

    def __init__(self, large: Pictures) -> None:
        self._large = large
        self.side = side_for(len(large))
        self.small: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self._large)

    def __getitem__(self, place: int) -> Tensor:
        """Raises ImageError if the file is no image."""
        image = self._large[place]
        self.small[place] = thumbnail(image, self.side)
        return image


def side_for(count: int) -> int:
    """The side of thumbnails when there are `count` of them: a multiple of 8, as JPEG's blocks are."""
    return max(16, int(min(LARGEST, math.sqrt(BUDGET / max(count, 1)))) // 8 * 8)


def thumbnail(image: Tensor, side: int) -> Tensor:
    """The middle square of `image [3, H, W]` in [0, 1] as `[3, side, side]` uint8."""
    height, width = image.shape[1:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = image[None, :, top : top + short, left : left + short].detach().float().cpu()
    small = pictures.resize(square, (side, side), mode="nearest" if side >= 3 * short else "bicubic")
    return small[0].mul(255).round().to(torch.uint8)


def colours_of(classes: Sequence[str]) -> dict[str, Colour]:
    """A colour for each class, in order of name; beyond ten of them spread over the hues."""
    names = sorted(set(classes))
    if len(names) <= len(_CATEGORIES):
        return dict(zip(names, _CATEGORIES))
    shades = ((0.72, 0.78), (0.55, 0.6), (0.8, 0.92))
    return {
        name: _rgb(colorsys.hsv_to_rgb(place * 0.61803 % 1, *shades[place % len(shades)]))
        for place, name in enumerate(names)
    }


def colours_by(components: np.ndarray) -> list[Colour]:
    """A colour for each of N points by their first three principal components `[N, 3]`: red, green, blue by rank."""
    ranks = components.argsort(0, kind="stable").argsort(0, kind="stable") / max(len(components) - 1, 1)
    return [_rgb(0.1 + 0.75 * row) for row in ranks]


def _rgb(levels: Sequence[float] | np.ndarray) -> Colour:
    red, green, blue = (round(255 * float(level)) for level in levels)
    return red, green, blue


def scattered(small: Tensor, points: np.ndarray, colours: Sequence[Colour] | None) -> Image.Image:
    """Thumbnails `[N, 3, S, S]` at their places in a map `[N, 2]`; those that would hide each other are moved apart."""
    corners, exact = spread(points, width_for(len(points)), LARGEST)
    side = max(round(exact), 16)
    places = np.round(corners).astype(int)
    wide, high = places.max(0) + side
    canvas = Image.new("RGB", (int(wide), int(high)), "white")
    for row, (left, top) in enumerate(places.tolist()):
        canvas.paste(_tile(small[row], side, colours[row] if colours else None), (left, top))
    return canvas


def width_for(count: int) -> float:
    """How wide the map of so many images is drawn: as wide as the largest thumbnails need for few of them."""
    return min(_WIDE, max(640.0, LARGEST * math.sqrt(count / _COVER)))


def spread(points: np.ndarray, width: float, largest: float = math.inf) -> tuple[np.ndarray, float]:
    """Upper left corners `[N, 2]` (from zero, y down) and the side of squares in a map about as wide as `width`.

    They are as large as the map has room for, and moved apart where they would hide one another.
    """
    places = fitted(points)
    area = width * width * max(np.ptp(places[:, 0]) * np.ptp(places[:, 1]), 0.3)
    side = min(math.sqrt(_COVER * area / len(points)), width / 4, largest)
    moved = parted(places * (width - side), side * 0.94)
    return moved - moved.min(0), side


def fitted(points: np.ndarray) -> np.ndarray:
    """Map places `[N, 2]`, y down, in a box of width 1 and of the map's own shape (height 1 at most; then narrower)."""
    low, wide = points.min(0), np.ptp(points, axis=0)
    shares = (points - low) / (wide.max() or 1)
    return np.stack([shares[:, 0], shares[:, 1].max() - shares[:, 1]], 1)


def tiled(small: Tensor, cells: np.ndarray, colours: Sequence[Colour] | None) -> Image.Image:
    """Thumbnails `[N, 3, S, S]` in their cells `[N, 2]` (column, row) of a grid without gaps."""
    columns, rows = (cells.max(0) + 1).tolist()
    side = round(min(max(_WIDE / columns, 24), LARGEST))
    canvas = Image.new("RGB", (columns * side, rows * side), "white")
    for row, (column, line) in enumerate(cells.tolist()):
        canvas.paste(_tile(small[row], side, colours[row] if colours else None), (column * side, line * side))
    return canvas


def _tile(small: Tensor, side: int, colour: Colour | None) -> Image.Image:
    """A thumbnail as large as `side`, in a frame of its class's colour."""
    picture = Image.fromarray(small.permute(1, 2, 0).numpy())
    border = max(2, side // 18) if colour else 0
    inner = side - 2 * border
    if picture.size != (inner, inner):
        grown = inner > 2 * picture.width
        picture = picture.resize((inner, inner), Image.Resampling.NEAREST if grown else Image.Resampling.LANCZOS)
    if not colour:
        return picture
    tile = Image.new("RGB", (side, side), colour)
    tile.paste(picture, (border, border))
    return tile


def dotted(points: np.ndarray, colours: Sequence[Colour]) -> Image.Image:
    """Map places `[N, 2]` as dots."""
    width, finer = _WIDE * 2 // 3, 2
    places = fitted(points)
    radius = min(max(width * 0.16 / math.sqrt(len(points)), 4), 14)
    pad = radius + 3
    high = round((width - 2 * pad) * float(places[:, 1].max()) + 2 * pad)
    canvas = Image.new("RGB", (width * finer, max(high, 300) * finer), "white")
    pen = ImageDraw.Draw(canvas)
    lower = (max(high, 300) - high) / 2
    for (x, y), colour in zip(places.tolist(), colours, strict=True):
        across, down = finer * (pad + x * (width - 2 * pad)), finer * (lower + pad + y * (width - 2 * pad))
        for more, fill in ((1.5, (255, 255, 255)), (0.0, colour)):
            reach = finer * (radius + more)
            pen.ellipse((across - reach, down - reach, across + reach, down + reach), fill=fill)
    return canvas.resize((width, canvas.height // finer), Image.Resampling.LANCZOS)


def framed(picture: Image.Image, title: str, note: str, legend: Mapping[str, Colour] | None = None) -> Tensor:
    """A picture on white, `[3, H, W]` in [0, 1], with a title above it, and the legend and a note below it."""
    width = max(picture.width, 900)
    large = width > 1300
    heading = block(title, Style(38 if large else 24, bold=True, lines=2), width)
    foot = block(note, Style(24 if large else 15, lines=8), width)
    names = _legend(legend or {}, Style(26 if large else 16, lines=1), width)
    height = picture.height + heading.height + names.height + foot.height + 2 * _GAP + 2 * _MARGIN
    canvas = Image.new("RGB", (width + 2 * _MARGIN, height + (_GAP if names.height > 1 else 0)), "white")
    pen = ImageDraw.Draw(canvas)
    heading.draw(pen, _MARGIN, _MARGIN, _INK)
    top = _MARGIN + heading.height + _GAP
    canvas.paste(picture, (_MARGIN + (width - picture.width) // 2, top))
    top += picture.height + _GAP
    if names.height > 1:
        canvas.paste(names, (_MARGIN, top))
        top += names.height + _GAP
    foot.draw(pen, _MARGIN, top, _SOFT)
    return torch.from_numpy(np.array(canvas, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)).contiguous()


def _legend(colours: Mapping[str, Colour], style: Style, width: int) -> Image.Image:
    """The classes beside their colours, in as many rows as they need; one pixel high for none, or for very many."""
    if not 0 < len(colours) <= 40:
        return Image.new("RGB", (width, 1), "white")
    words: list[tuple[Block, float, Colour]] = []
    pen = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for name, colour in colours.items():
        text = block(name, style, width // 3)
        wide = style.size * 2.6 + max((0.64 * style.size * len(line) for line in text.lines), default=0)
        words.append((text, min(wide, width), colour))
    rows, left = [0], 0.0
    places: list[tuple[float, int]] = []
    for _, wide, _colour in words:
        if left + wide > width and left:
            rows.append(len(rows))
            left = 0.0
        places.append((left, len(rows) - 1))
        left += wide
    strip = Image.new("RGB", (width, len(rows) * (style.leading + 6)), "white")
    pen = ImageDraw.Draw(strip)
    for (text, _, colour), (at, row) in zip(words, places, strict=True):
        top = row * (style.leading + 6)
        pen.rounded_rectangle((at, top + 4, at + style.size, top + 4 + style.size), style.size // 4, fill=colour)
        text.draw(pen, round(at + style.size * 1.5), top, _INK)
    return strip
