"""The slide's equation: a photograph, plus a little of a direction, is another class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.images import to_pil
from phosphene.images.text import Block, Style, block

SIDE = 448
"""Pixels that the longer side of a panel is about."""

_INK, _SOFT, _EDGE = (24, 34, 44), (95, 104, 112), (214, 216, 218)
_MARGIN, _BELOW = 28, 14
_SIGN, _NAME, _WORDS = Style(54), Style(28, bold=True, lines=2), Style(21, lines=2)


@dataclass(frozen=True, eq=False)
class Term:
    """A picture of the equation, `[3, H, W]` in [0, 1], with a title and a line of words below it."""

    image: Tensor
    title: str
    words: str = ""
    exact: bool = False  # pixels stay squares: between them there is nothing


def direction(original: Tensor, changed: Tensor) -> tuple[Tensor, float]:
    """The change over its largest value, and that value: 0 is mid grey, -1 black, 1 white.

    Of an attack that takes one step along the sign of a gradient, it is this sign.

    Args:
        original, changed: `[3, H, W]` in [0, 1], on the 8-bit lattice.

    Returns:
        `([3, H, W] in [0, 1], the largest change in units of [0, 1])`; grey and 0 where nothing changed.
    """
    levels = ((changed - original) * 255).round()  # whole numbers, so that -1, 0 and 1 are exact
    most = float(levels.abs().max())
    return 0.5 + levels / (2 * max(most, 1.0)), most / 255


def equation(original: Term, way: Term, result: Term, amount: float) -> Tensor:
    """`original + amount x way = result`, from left to right, as the slide has it.

    Args:
        original, way, result: pictures of one size; they are enlarged by a whole number, or made smaller, to about `SIDE`.
        amount: what the direction is multiplied with.

    Returns:
        `[3, H', W']` in [0, 1].
    """
    terms = (original, way, result)
    panels = [_sized(term) for term in terms]
    wide, high = panels[0].size
    texts = [_texts(term, max(wide, 200)) for term in terms]
    signs = [block(f"+ {coefficient(amount)} ×", _SIGN, SIDE), block("=", _SIGN, SIDE)]
    between = [sign.width + _SIGN.size for sign in signs]
    column = max(wide, *(part.width for text in texts for part in text))
    below = _BELOW + max(sum(part.height for part in text) for text in texts)
    canvas = Image.new("RGB", (2 * _MARGIN + 3 * column + sum(between), 2 * _MARGIN + high + below), "white")
    pen = ImageDraw.Draw(canvas)
    middle = _MARGIN + column // 2
    for place, (panel, text) in enumerate(zip(panels, texts, strict=True)):
        _panel(canvas, pen, panel, text, middle)
        if place < len(signs):
            at = middle + (column + between[place]) // 2
            signs[place].draw_centred(pen, at, _MARGIN + (high - signs[place].height) // 2, _INK)
            middle += column + between[place]
    pixels = np.array(canvas, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(pixels).contiguous()


def coefficient(amount: float) -> str:
    """`.007`, as the slide writes it."""
    return f"{amount:.3f}".removeprefix("0") if amount else "0"


def _sized(term: Term) -> Image.Image:
    """Enlarged by a whole number, so that each value of the direction is a square; larger ones are made smaller."""
    picture = to_pil(term.image)
    longest = max(picture.size)
    factor = max(1, round(SIDE / longest)) if longest < 1.5 * SIDE else SIDE / longest
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    if size == picture.size:
        return picture
    smooth = Image.Resampling.BICUBIC if factor > 1 else Image.Resampling.LANCZOS
    squares = factor > 1 and (term.exact or factor > 2)
    return picture.resize(size, Image.Resampling.NEAREST if squares else smooth)


def _texts(term: Term, width: int) -> tuple[Block, Block]:
    return block(term.title, _NAME, width), block(term.words, _WORDS, width)


def _panel(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, panel: Image.Image, texts: Sequence[Block], middle: int
) -> None:
    """A picture in a hair-thin frame, and its texts centred below it."""
    left, top = middle - panel.width // 2, _MARGIN
    pen.rectangle((left - 1, top - 1, left + panel.width, top + panel.height), outline=_EDGE)
    canvas.paste(panel, (left, top))
    top += panel.height + _BELOW
    for colour, text in zip((_INK, _SOFT), texts, strict=True):
        text.draw_centred(pen, middle, top, colour)
        top += text.height
