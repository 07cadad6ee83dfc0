"""Pixels in and out: float32 RGB in [0, 1], `[N, 3, H, W]`; files, colours of heat maps, contact sheets."""

from __future__ import annotations

from phosphene.images import palette
from phosphene.images.colour import Coloured, bar, difference, diverging, overlay, sequential
from phosphene.images.decode import decode, from_array, read
from phosphene.images.files import find
from phosphene.images.layout import Panel, sheet
from phosphene.images.legend import legend
from phosphene.images.notes import read_note
from phosphene.images.quantize import quantize, to_pil, to_uint8
from phosphene.images.resize import ResizeMode, resize
from phosphene.images.save import encode, save
from phosphene.images.tiles import grid, normalise_tiles

__all__ = [
    "Coloured",
    "Panel",
    "ResizeMode",
    "bar",
    "decode",
    "difference",
    "diverging",
    "encode",
    "find",
    "from_array",
    "grid",
    "legend",
    "normalise_tiles",
    "overlay",
    "palette",
    "quantize",
    "read",
    "read_note",
    "resize",
    "save",
    "sequential",
    "sheet",
    "to_pil",
    "to_uint8",
]
