"""The motif of tools/paint.py: a bay in the evening, with whirls in the sky, a boat and a pine that the wind has bent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating]
WIDTH, HEIGHT = 720, 540
SCALE, EDGE = 2, 50  # painted this much larger, for smooth edges, and this many pixels over the edge of the canvas
SHAPE = (HEIGHT * SCALE + 2 * EDGE, WIDTH * SCALE + 2 * EDGE)
SKY, HILLS, SEA, LAND, WOOD, LEAF, HULL, SAIL = range(8)
SUN = (0.93, 0.40)  # all places are in heights of the picture, from its top left corner
# The sky's whirls: x, y, radius, and strength, whose sign is the sense of rotation.
WHIRLS = ((0.5, 0.2, 0.17, 1.5), (0.8, 0.14, 0.09, -1.2), (1.18, 0.17, 0.12, 1.3), (0.66, 0.43, 0.08, -1.1),
          (0.08, 0.12, 0.11, -1.3), (1.26, 0.46, 0.07, -1.0), (*SUN, 0.12, 1.8))  # fmt: skip
# The pine's boughs: x, y, half the width, half the height.
PADS = ((0.23, 0.41, 0.14, 0.05), (0.17, 0.31, 0.1, 0.045), (0.33, 0.34, 0.15, 0.06), (0.44, 0.42, 0.14, 0.042))
NIGHT = ((12, 24, 74), (24, 52, 128), (34, 92, 168), (38, 138, 168), (126, 186, 184), (226, 226, 190))
FIRE = ((176, 62, 34), (222, 104, 34), (240, 150, 44), (246, 190, 84), (252, 226, 150), (255, 244, 208))
WATER = ((8, 26, 62), (14, 56, 98), (18, 92, 122), (40, 134, 146), (120, 182, 170))
DUSK = ((34, 30, 84), (58, 52, 122), (84, 84, 150), (196, 108, 90))
FIELD = ((44, 62, 48), (96, 104, 44), (176, 122, 34), (224, 152, 44), (240, 190, 92), (178, 74, 34))
BARK = ((34, 18, 34), (78, 38, 40), (150, 76, 44), (228, 140, 66))
PINE = ((10, 20, 40), (12, 44, 56), (22, 80, 74), (84, 124, 62), (222, 160, 60))


def ramp(colours: tuple[tuple[int, int, int], ...], amount: Array) -> Array:
    """The colours' blend at amounts from 0 (the first) to 1 (the last)."""
    at = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(amount, at, channel) for channel in np.array(colours, float).T], axis=-1)


def noise(rng: np.random.Generator, rows: int, columns: int) -> Array:
    """A smooth random surface over the picture, of about unit spread, with so many bumps each way."""
    coarse = Image.fromarray(rng.normal(size=(rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((SHAPE[1], SHAPE[0]), Image.Resampling.BICUBIC), float)


def bump(x: Array, middle: float | Array, width: float | Array) -> Array:
    """A bell of height 1."""
    return np.exp(-(((x - middle) / width) ** 2))


class Scene:
    """What is to be painted: at every pixel a thing, its colour, and a stream whose level lines the brush follows."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.y, self.x = (np.mgrid[: SHAPE[0], : SHAPE[1]] - EDGE) / (HEIGHT * SCALE)
        self.broad, self.fine, self.grain = noise(rng, 3, 4), noise(rng, 8, 11), noise(rng, 26, 34)
        self.thing, self.colour, self.stream = np.zeros(SHAPE, int), np.zeros((*SHAPE, 3)), np.zeros(SHAPE)
        self.add_sky()
        self.add_bay(noise(rng, 40, 6))
        self.add_shore()
        self.add_pine()
        down, across = np.gradient(self.stream)
        self.way = np.stack([-across, down], axis=-1) / (np.hypot(across, down)[..., None] + 1e-12)

    def lay(self, where: NDArray[np.bool_], thing: int, colour: Array, stream: Array) -> None:
        """Put a thing in front of all there is."""
        self.thing[where], self.colour[where], self.stream[where] = thing, colour[where], stream[where]

    def add_sky(self) -> None:
        """The low sun, and bands of cool and warm that wind around the whirls."""
        x, y, sun = self.x, self.y, np.hypot(self.x - SUN[0], self.y - SUN[1])
        stream = 0.9 * y + 0.035 * np.sin(7 * x + 5 * y) + 0.02 * self.broad + 0.006 * self.fine
        turn = 0.5 * self.fine
        for left, top, radius, strength in WHIRLS:
            near = bump(np.hypot(x - left, y - top), 0, radius)
            stream += strength * radius * near
            # Shifting the bands with the angle makes spirals of what would be rings.
            turn += np.sign(strength) * np.arctan2(y - top, x - left) * np.sqrt(near)
        band = 0.5 + 0.5 * np.sin(46 * stream + turn)
        warm = np.clip(1.25 * bump(sun, 0, 0.36) + 0.55 * bump(y, 0.56, 0.1) + 0.08 * self.fine, 0, 1)
        night = ramp(NIGHT, 0.62 * band**1.4 + 0.28 * y + 0.07 * self.grain)
        fire = ramp(FIRE, 0.5 * band + 0.55 * bump(sun, 0, 0.16) + 0.5 * (sun < 0.06) + 0.07 * self.grain)
        glow = np.clip(4 * warm + 1.8 * band - 2.4, 0, 1)[..., None]
        self.lay(y < 9, SKY, night + (fire - night) * glow, stream)

    def add_bay(self, swell: Array) -> None:
        """The far hills, the waves, which grow as they come near, with the sun's path on them, and a boat."""
        x, y, depth = self.x, self.y, np.clip((self.y - 0.585) / 0.415, 0, 1)
        ridge = 0.575 - 0.085 * bump(x, 0.28, 0.22) - 0.05 * bump(x, 1.3, 0.13) - 0.008 * np.sin(13 * x)
        lit = 0.4 + 0.3 * np.sin(60 * (y - ridge) + 9 * x) + 0.12 * self.grain + 0.2 * bump(x, SUN[0], 0.4)
        self.lay(y > ridge, HILLS, ramp(DUSK, lit), y - 0.8 * ridge + 0.004 * self.fine)
        waves = y + (0.004 + 0.01 * depth) * np.sin(16 * x + 3 * self.broad + 20 * depth) + 0.003 * self.fine
        crest = 0.5 + 0.5 * np.sin(150 * waves / (0.6 + depth) + 1.4 * swell)
        path = bump(x, SUN[0] - 0.02 * swell, 0.07 + 0.16 * depth) * (0.55 + 0.6 * crest) + 0.1 * swell
        water = ramp(WATER, 0.8 * crest * (1 - 0.3 * depth) + 0.1 * self.grain + 0.08)
        water += (ramp(FIRE, 0.15 + 0.75 * crest - 0.25 * depth) - water) * np.clip(4 * path - 1.8, 0, 1)[..., None]
        self.lay(y > 0.585, SEA, water, waves)
        right, down = x - 0.68, y - 0.7
        sails = (down < -0.008) & (right < 0.42 * (down + 0.19)) & (right > -0.34 * (down + 0.16))
        self.lay(sails, SAIL, ramp(FIRE, 0.3 + 0.5 * (right > 0) + 3 * abs(right)), right - 0.25 * down)
        hull = (abs(right - 0.01) < 0.085 - 1.2 * down) & (down > -0.008) & (down < 0.03)
        self.lay(hull, HULL, ramp(BARK, 0.1 + 12 * down), down - 0.3 * right**2)

    def add_shore(self) -> None:
        """A field on either side, in rows that roll."""
        shore = 0.985 - 0.24 * bump(self.x, 0, 0.52) - 0.11 * bump(self.x, 1.4, 0.22) + 0.006 * np.sin(21 * self.x)
        slope = self.y - 0.9 * shore + 0.03 * np.sin(9 * self.x + 14 * self.y) + 0.01 * self.fine
        rows = ramp(FIELD, 0.5 + 0.42 * np.sin(55 * slope + 1.2 * self.fine) + 0.1 * self.grain)
        self.lay(self.y > shore, LAND, rows, slope)

    def add_pine(self) -> None:
        """A pine that the wind has bent."""
        for lean, foot in ((0.0, 0.88), (0.5, 0.62), (-0.35, 0.56)):
            rise = np.clip(foot - self.y, 0, 1)
            off = self.x - 0.19 - 0.3 * (0.88 - self.y) ** 2 - lean * rise - 0.012 * np.sin(14 * self.y)
            thick = 0.006 + 0.05 * np.clip(self.y - 0.45, 0, 1) ** 1.2
            wood = (abs(off) < thick) & (self.y > 0.36) & (rise > 0)
            self.lay(wood, WOOD, ramp(BARK, 0.35 + 25 * off + 0.2 * self.grain), off)
        for left, top, wide, high in PADS:
            right, down = (self.x - left) / wide, (self.y - top) / high + 0.25 * (self.x - left) / wide
            crown = np.hypot(right, down * np.where(down > 0, 1.5, 1)) + 0.12 * self.fine
            tuft = np.arctan2(right, 1.2 - down)  # the brush flicks up and out from below the bough's middle
            light = 0.4 - 0.25 * down + 0.25 * right + 0.38 * np.sin(14 * tuft + 4 * crown) + 0.1 * self.grain
            self.lay(crown < 1, LEAF, ramp(PINE, light), 0.1 * tuft + 0.03 * crown)
