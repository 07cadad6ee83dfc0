"""Moving an image towards an objective: canvas, objectives, priors, one ascent loop, and what is made with it."""

from __future__ import annotations

from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import FourierCanvas, PixelCanvas
from phosphene.synthesize.pace import Restart
from phosphene.synthesize.targets import Direction, Target, parse_channels
from phosphene.synthesize.visualize import CanvasName, Settings, Visualization, visualize

__all__ = [
    "Ascent",
    "CanvasName",
    "Direction",
    "FourierCanvas",
    "PixelCanvas",
    "Restart",
    "Settings",
    "Target",
    "Visualization",
    "ascend",
    "parse_channels",
    "visualize",
]
