"""What the colours of a contact sheet mean: a strip of labelled bars to put below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.images.colour import bar
from phosphene.images.quantize import to_pil
from phosphene.images.text import Style, block

KINDS = {
    "diverging": ("-clip", "0", "+clip", "signed map: blue speaks against, red for"),
    "sequential": ("0", "", "clip", "size only"),
    "overlay": ("0", "", "max", "heat over the picture, which stays as it is at 0"),
    "colours": ("-clip", "0", "+clip", "signed, each colour by itself: grey is 0"),
}
"""Kind -> the labels at the left, middle and right of its bar, and what it is."""

_BAR, _HIGH, _GAP, _MARGIN, _COLUMN = 190, 14, 5, 24, 330
_SMALL = Style(12, lines=1)


def legend(kinds: Sequence[str], width: int) -> Tensor:
    """A white strip `[3, H, width]` with a bar for each of `kinds` (see `KINDS`), in as many rows as they need.

    Raises:
        PhospheneError: an unknown kind, none, or a width that holds no bar.
    """
    if not kinds or any(kind not in KINDS for kind in kinds) or width < _BAR + 2 * _MARGIN:
        raise PhospheneError(
            f"no legend of {', '.join(kinds) or 'nothing'} in {width} pixels: there are {', '.join(KINDS)}"
        )
    across = max(1, (width - 2 * _MARGIN) // _COLUMN)
    rows = -(-len(kinds) // across)
    high = _HIGH + 2 * _SMALL.leading + 2 * _GAP
    strip = Image.new("RGB", (width, rows * (high + _GAP) + _MARGIN), "white")
    pen = ImageDraw.Draw(strip)
    for place, kind in enumerate(kinds):
        _draw(strip, pen, kind, _MARGIN + place % across * _COLUMN, place // across * (high + _GAP))
    return torch.from_numpy(np.array(strip, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)).contiguous()


def _draw(strip: Image.Image, pen: ImageDraw.ImageDraw, kind: str, left: int, top: int) -> None:
    ink = (70, 70, 70)
    *labels, meaning = KINDS[kind]
    block(meaning, _SMALL, _COLUMN - 10).draw(pen, left, top, ink)
    top += _SMALL.leading + _GAP
    strip.paste(to_pil(_colours(kind)), (left, top))
    pen.rectangle((left - 1, top - 1, left + _BAR, top + _HIGH), outline=(200, 200, 200))
    for share, label in zip((0.0, 0.5, 1.0), labels, strict=True):
        text = block(label, _SMALL, _BAR)
        wide = pen.textlength(label) * 1.15
        text.draw(pen, round(left + share * (_BAR - wide)), top + _HIGH + _GAP - 2, ink)


def _colours(kind: str) -> Tensor:
    if kind == "colours":
        return torch.linspace(0, 1, _BAR).expand(3, _HIGH, _BAR)
    return bar(kind, _BAR, _HIGH)  # type: ignore[arg-type]
