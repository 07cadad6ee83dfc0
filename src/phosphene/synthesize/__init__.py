"""Moving an image towards an objective: canvas, objectives, priors, one ascent loop, and what is made with it."""

from __future__ import annotations

from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import ColourSpace, FourierCanvas, PixelCanvas
from phosphene.synthesize.dream import Dream, DreamSettings, dream, zoom
from phosphene.synthesize.invert import Inversion, InversionSettings, SilentLayerError, invert
from phosphene.synthesize.natural import Natural, measure, natural_layers
from phosphene.synthesize.pace import Restart
from phosphene.synthesize.settings import CanvasName, ScheduleName, Settings
from phosphene.synthesize.targets import Direction, Target, parse_channels
from phosphene.synthesize.visualize import Visualization, visualize

__all__ = [
    "Ascent",
    "CanvasName",
    "ColourSpace",
    "Direction",
    "Dream",
    "DreamSettings",
    "FourierCanvas",
    "Inversion",
    "InversionSettings",
    "Natural",
    "PixelCanvas",
    "Restart",
    "ScheduleName",
    "Settings",
    "SilentLayerError",
    "Target",
    "Visualization",
    "ascend",
    "dream",
    "invert",
    "measure",
    "natural_layers",
    "parse_channels",
    "visualize",
    "zoom",
]
