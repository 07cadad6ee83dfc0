"""Moving an image towards an objective: canvas, objectives, priors, one ascent loop, and what is made with it."""

from __future__ import annotations

from phosphene.synthesize.ascent import Ascent, ascend
from phosphene.synthesize.canvas import ColourSpace, FourierCanvas, PixelCanvas
from phosphene.synthesize.dream import Dream, DreamSettings, dream, zoom
from phosphene.synthesize.invert import Inversion, InversionSettings, SilentLayerError, invert
from phosphene.synthesize.natural import Natural, measure, natural_layers
from phosphene.synthesize.pace import Restart
from phosphene.synthesize.settings import CanvasName, ScheduleName, Settings
from phosphene.synthesize.style import Checkpoint, Losses, Stylization, style
from phosphene.synthesize.style_layers import layers_for
from phosphene.synthesize.style_settings import Colours, Pooling, Start, StyleSettings
from phosphene.synthesize.targets import Direction, Target, parse_channels
from phosphene.synthesize.texture import texture
from phosphene.synthesize.visualize import Visualization, visualize

__all__ = [
    "Ascent",
    "CanvasName",
    "Checkpoint",
    "ColourSpace",
    "Colours",
    "Direction",
    "Dream",
    "DreamSettings",
    "FourierCanvas",
    "Inversion",
    "InversionSettings",
    "Losses",
    "Natural",
    "PixelCanvas",
    "Pooling",
    "Restart",
    "ScheduleName",
    "Settings",
    "SilentLayerError",
    "Start",
    "StyleSettings",
    "Stylization",
    "Target",
    "Visualization",
    "ascend",
    "dream",
    "invert",
    "layers_for",
    "measure",
    "natural_layers",
    "parse_channels",
    "style",
    "texture",
    "visualize",
    "zoom",
]
