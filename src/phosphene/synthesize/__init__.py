"""Moving an image towards an objective: canvas, objectives, priors, one ascent loop, and what is made with it."""

from __future__ import annotations

from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import FourierCanvas, PixelCanvas
from phosphene.synthesize.visualize import CanvasName, Settings, Visualization, visualize

__all__ = [
    "Ascent",
    "CanvasName",
    "FourierCanvas",
    "PixelCanvas",
    "Settings",
    "Visualization",
    "ascend",
    "visualize",
]
