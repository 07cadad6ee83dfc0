"""A film strip through a network: the photograph, a frame of channels for each layer, and the classes at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.images import to_pil
from phosphene.images.text import Block, Style, block

CHANNELS = 6
"""Tiles in a frame, at most."""

_INK, _SOFT, _FILM, _LIGHT = (24, 34, 44), (95, 104, 112), (30, 29, 33), (246, 243, 236)
_GLOW, _QUIET = (194, 112, 10), (196, 190, 178)
_MARGIN, _GAP, _BETWEEN, _SPROCKETS, _ARROW, _BARS = 20, 4, 12, 20, 42, 230
_NAME, _SIZE, _CLASS = Style(13, bold=True, lines=12), Style(12, lines=4), Style(14, lines=2)


@dataclass(frozen=True, eq=False)
class Frame:
    """One layer: its name, its size in words, and its channels' pictures `[k, 3, h, w]` in [0, 1]."""

    name: str
    size: str
    tiles: Tensor


def strip(photo: Tensor, frames: Sequence[Frame], classes: Sequence[tuple[str, float]] = ()) -> Tensor:
    """The strip, from left to right in the order of `frames`.

    Args:
        photo: `[3, H, W]` in [0, 1].
        frames: a column each, with as many tiles as the first `CHANNELS` of its channels.
        classes: names and probabilities for bars at the right end; none: no bars.

    Returns:
        `[3, H', W']` in [0, 1].
    """
    tile = _tile(photo, len(frames))
    heads = [(block(f.name, _NAME, tile[0]), block(f.size, _SIZE, tile[0])) for f in frames]
    above = max(name.height + size.height for name, size in heads) + 6
    rows = min(CHANNELS, max(len(frame.tiles) for frame in frames))
    film = 2 * _SPROCKETS + rows * (tile[1] + _GAP) - _GAP
    high = max(film, _lowest(classes))
    picture = to_pil(photo)
    scale = min(280 / max(picture.size), high / picture.height)
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
    left = _MARGIN + picture.width + _ARROW
    wide = len(frames) * (tile[0] + _BETWEEN) + _BETWEEN
    total = left + wide + (_ARROW + _BARS if classes else 0) + _MARGIN
    canvas = Image.new("RGB", (total, above + high + 2 * _MARGIN), "white")
    pen = ImageDraw.Draw(canvas)
    top = _MARGIN + above
    middle = top + film // 2
    canvas.paste(picture, (_MARGIN, max(top, middle - picture.height // 2)))
    _arrow(pen, left - _ARROW, middle)
    _film(pen, left, top, wide, film)
    for place, (frame, head) in enumerate(zip(frames, heads, strict=True)):
        across = left + _BETWEEN + place * (tile[0] + _BETWEEN)
        _head(pen, head, across, top)
        _frame(canvas, frame.tiles[:CHANNELS], tile, across, top + _SPROCKETS)
    if classes:
        _arrow(pen, left + wide, middle)
        _bars(pen, classes, left + wide + _ARROW, max(top, middle - _lowest(classes) // 2))
    pixels = np.array(canvas, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(pixels).contiguous()


def _tile(photo: Tensor, columns: int) -> tuple[int, int]:
    """Width and height of a tile: of the photograph's shape, smaller where there are many."""
    side = 104 if columns <= 8 else 88 if columns <= 14 else 76
    height, width = photo.shape[-2:]
    return max(56, round(side * min(1, width / height))), max(24, round(side * min(1, height / width)))


def _head(pen: ImageDraw.ImageDraw, head: tuple[Block, Block], left: int, bottom: int) -> None:
    """A name over a size; both stand on the film."""
    name, size = head
    size.draw(pen, left, bottom - 6 - size.height, _SOFT)
    name.draw(pen, left, bottom - 6 - size.height - name.height, _INK)


def _film(pen: ImageDraw.ImageDraw, left: int, top: int, wide: int, high: int) -> None:
    """A dark band with holes along both edges."""
    pen.rectangle((left, top, left + wide - 1, top + high - 1), fill=_FILM)
    step, hole = 22, (11, 8)
    for across in range(left + (wide - 1) % step // 2 + 5, left + wide - hole[0], step):
        for down in (top + 6, top + high - 6 - hole[1]):
            pen.rounded_rectangle((across, down, across + hole[0], down + hole[1] - 1), 2, fill=_LIGHT)


def _frame(canvas: Image.Image, tiles: Tensor, size: tuple[int, int], left: int, top: int) -> None:
    """Channels one below the other: small maps in whole blocks of pixels, large ones averaged."""
    for tile in tiles:
        small = tile.shape[2] <= size[0] and tile.shape[1] <= size[1]
        way = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
        canvas.paste(to_pil(tile).resize(size, way), (left, top))
        top += size[1] + _GAP


def _arrow(pen: ImageDraw.ImageDraw, left: int, middle: int) -> None:
    start, end = left + 9, left + _ARROW - 9
    pen.line((start, middle, end - 6, middle), fill=_SOFT, width=3)
    pen.polygon([(end - 9, middle - 7), (end, middle), (end - 9, middle + 7)], fill=_SOFT)


def _bars(pen: ImageDraw.ImageDraw, classes: Sequence[tuple[str, float]], left: int, top: int) -> None:
    for place, (name, share) in enumerate(classes):
        text = block(f"{name}, {share:.1%}", _CLASS, _BARS)
        text.draw(pen, left, top, _INK)
        top += text.height + 3
        pen.rectangle((left, top, left + _BARS - 1, top + 9), fill=(238, 234, 226))
        pen.rectangle((left, top, left + max(2, round(_BARS * share)) - 1, top + 9), fill=_QUIET if place else _GLOW)
        top += 10 + _MARGIN


def _lowest(classes: Sequence[tuple[str, float]]) -> int:
    """Pixels that the bars are high."""
    texts = (block(f"{name}, {share:.1%}", _CLASS, _BARS) for name, share in classes)
    return sum(text.height + 13 + _MARGIN for text in texts)
