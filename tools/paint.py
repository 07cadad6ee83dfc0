"""Paints synthesize/data/painting.jpg, the bundled picture that `phosphene style` can take its style from.

Nothing goes in but a seed, and the same seed paints the same picture::

    python tools/paint.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from evening_bay import EDGE, HEIGHT, SHAPE, WIDTH, WOOD, Array, Scene, bump
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

OUTPUT = Path(__file__).parents[1] / "src/phosphene/synthesize/data/painting.jpg"
SEED = 12
STEP = 6  # pixels from one point of a stroke to the next
# From the ground up: a brush's width, a stroke's length, and the share of strokes left out to show the layer below.
LAYERS = ((60, 300, 0.0), (44, 270, 0.0), (32, 220, 0.3), (20, 160, 0.55))


def inside(places: Array) -> NDArray[np.bool_]:
    """Which places (row, column) are on the canvas."""
    return np.all((places >= 0) & (places < SHAPE), axis=-1)


def trace(scene: Scene, place: Array, length: float) -> Array:
    """The points of a stroke from a place on, until the brush would leave the thing it paints, or the canvas."""
    points, at = [place], tuple(place.astype(int))
    thing = scene.thing[at]
    while len(points) * STEP < abs(length):
        place = place + np.sign(length) * STEP * scene.way[at]
        at = tuple(place.astype(int))
        if not inside(place) or scene.thing[at] != thing:
            break
        points.append(place)
    return np.array(points)


class Painting:
    """Wet paint: its colour, its thickness, and the one brush that lays it."""

    def __init__(self, rng: np.random.Generator, wash: Array) -> None:
        self.rng, self.colour, self.thickness = rng, wash, np.zeros(SHAPE)
        bristles = gaussian_filter(rng.normal(size=(900, 400)), (45, 1.7), mode="wrap")
        self.bristles = bristles / bristles.std()

    def stroke(self, way: Array, width: float, colour: Array) -> None:
        """Lay a stroke along points: bristles leave grooves, run dry one by one, and drag the paint below along."""
        s, t = np.linspace(0, 1, int(len(way) * STEP * 1.6))[:, None], np.linspace(-1, 1, int(width * 1.6))[None]
        way = gaussian_filter(way, (1.5, 0), mode="nearest")
        middle = np.stack([np.interp(s[:, 0], np.linspace(0, 1, len(way)), axis) for axis in way.T], axis=-1)
        ahead = np.gradient(middle, axis=0)
        ahead /= np.hypot(*ahead.T)[:, None] + 1e-9
        reach = t * width / 2 * np.minimum(1, s / 0.12 + 0.35) ** 0.5 * np.minimum(1, (1 - s) / 0.3 + 0.15) ** 0.6
        spots = (middle[:, None] + (ahead[:, ::-1] * (1, -1))[:, None] * reach[..., None]).astype(int)
        shift = tuple(-self.rng.integers(0, self.bristles.shape))
        bristle = np.roll(self.bristles, shift, (0, 1))[: s.size, : t.size]
        wet = bristle + 2.6 - 4 * s**4 - 1.6 * t**6 - 2.2 * np.maximum(0, 1 - s / 0.08)
        laid = (wet > 0) & inside(spots)
        at = tuple(spots[laid].T)
        paint = colour + self.rng.normal(0, 10, 3) * t[..., None] + 15 * bristle[..., None] * (1.0, 0.95, 0.85)
        cover = 0.55 + 0.4 * np.clip(wet[laid], 0, 1)
        self.colour[at] += (paint[laid] - self.colour[at]) * cover[:, None]
        ridge = 0.7 + 0.4 * bristle + 0.6 * bump(abs(t), 0.82, 0.12) - 0.4 * s
        self.thickness[at] = 0.35 * self.thickness[at] + width / 20 * ridge[laid]

    def lit(self) -> Image.Image:
        """The picture as it hangs: light from the upper left on the paint's relief."""
        down, across = np.gradient(gaussian_filter(self.thickness, 1.2))
        light = 0.5 * np.tanh(-2 * down - 1.6 * across)[EDGE:-EDGE, EDGE:-EDGE, None]
        shaded = self.colour[EDGE:-EDGE, EDGE:-EDGE] * (1 + 0.75 * light) + 36 * np.maximum(0, light - 0.1)
        large = Image.fromarray(np.clip(shaded, 0, 255).astype(np.uint8))
        return large.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def paint(seed: int) -> Image.Image:
    """The whole picture, from large strokes to small ones."""
    rng = np.random.default_rng(seed)
    scene = Scene(rng)
    painting = Painting(rng, gaussian_filter(scene.colour, (9, 9, 0)) * 0.8)
    for width, length, bare in LAYERS:
        places = np.mgrid[0 : SHAPE[0] : width * 0.65, 0 : SHAPE[1] : width * 1.15].reshape(2, -1).T
        places = np.clip(places + rng.uniform(-0.45, 0.45, places.shape) * width, 0, np.array(SHAPE) - 1)
        for place in rng.permutation(places):
            small = scene.thing[tuple(place.astype(int))] >= WOOD
            size = rng.uniform(0.7, 1.2) * (0.65 if small else 1)
            way = trace(scene, place, length * size * rng.choice((-1, 1)))
            if len(way) > 3 and (small or rng.random() >= bare):
                colour = scene.colour[tuple(way[len(way) // 2].astype(int))] + rng.normal(0, 9, 3) + rng.normal(0, 7)
                painting.stroke(way, min(width * size, 0.7 * len(way) * STEP), colour)
    return painting.lit()


if __name__ == "__main__":
    paint(SEED).save(OUTPUT, quality=92)
