"""Is the advice right? The four corners of the lecture's table, from real data, with all four recipes run on each.

python benchmarks/advice.py [--net efficientnet_lite0] [--size 128] [--epochs 5] [--only NAME] [--draws 1]

Ants and bees, ten classes of ImageNet, and MNIST as images, each as it is and with few photographs per class. `size` is what
the networks are shown, for speed: what linear classifiers and fine-tuning do is measured at that size, and the distance to
ImageNet's photographs at the network's own. Needs ../shared.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from phosphene.jobs import job
from phosphene.jobs.workshop import Workshop
from phosphene.progress import run

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
JUDGED = 300
"""Held-out photographs at most."""


@dataclass(frozen=True)
class Case:
    """One data set: `build(folder, per_class, draw)` makes it."""

    name: str
    build: Callable[[Path, int, int], None]
    per_class: int


def photographs(source: str) -> Callable[[Path, int, int], None]:
    """A folder of shared/, with so many training photographs of each class."""

    def build(folder: Path, per_class: int, draw: int) -> None:
        for part in ("train", "val"):
            classes = sorted(path for path in (SHARED / source / part).iterdir() if path.is_dir())
            for place in classes:
                paths = sorted(place.iterdir())
                random.Random(f"{part} {place.name}{draw or '' if part == 'train' else ''}").shuffle(paths)
                most = per_class if part == "train" else JUDGED // len(classes)
                (folder / part / place.name).mkdir(parents=True)
                for path in paths[:most]:
                    os.symlink(path, folder / part / place.name / path.name)

    return build


def digits(folder: Path, per_class: int, draw: int) -> None:
    """MNIST as PNG images."""
    for part, kind, most, first in (("train", "train", per_class, draw * per_class), ("val", "t10k", JUDGED // 10, 0)):
        pixels, labels = (idx(SHARED / "mnist" / f"{kind}-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
        for digit in range(10):
            place = folder / part / str(digit)
            place.mkdir(parents=True)
            for number in np.flatnonzero(labels == digit)[first : first + most]:
                Image.fromarray(pixels[number]).save(place / f"{number:05}.png")


def idx(path: Path) -> np.ndarray:
    """An array of MNIST's format."""
    data = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(data[4 * k : 4 * k + 4], "big") for k in range(1, data[3] + 1)]
    return np.frombuffer(data, np.uint8, offset=4 * len(shape) + 4).reshape(shape)


CASES = [
    Case("hymenoptera", photographs("hymenoptera"), 10),
    Case("imagenette", photographs("imagenette160"), 5),
    Case("imagenette", photographs("imagenette160"), 20),
    Case("mnist", digits, 5),
    Case("mnist", digits, 20),
    Case("hymenoptera", photographs("hymenoptera"), 1000),
    Case("imagenette", photographs("imagenette160"), 150),
    Case("mnist", digits, 200),
]


def line(case: Case, facts: dict[str, Any]) -> str:
    """Measurements, advice, the four accuracies, right or not."""
    found, odds = facts["measured"], facts["evidence"]
    distance = "-" if found["distance"] is None else f"{found['distance']['mean']:.2f}"
    depth = "-" if found["depth"] is None else f"{found['depth']:+.2f} +- {found['depth_error']:.2f}"
    accuracies = "  ".join(f"{100 * row['accuracy']['mean']:5.1f}" for row in facts["recipes"])
    seconds = "  ".join(f"{row['seconds']:4.0f}" for row in facts["recipes"])
    verdict = "right" if facts["right"] else f"WRONG by {100 * facts['behind']:.1f}"
    return (
        f"{case.name:12} {found['images_per_class']['median']:5.0f}  depth {depth:14} knn {found['knn']:.2f}"
        f" distance {distance}  odds {sum(odds.values()):+.2f}  {facts['recipe']:11} {facts['sureness']:6}"
        f" {facts['probability']:.2f}  |  {accuracies}  |  {verdict}, best {facts['best']}  ({seconds} s)"
    )


def main() -> None:
    """Run all cases and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose names, as mnist-200, have this in them")
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--draws", type=int, default=1, help="of photographs to learn from; the held-out ones stay")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if options.only in f"{case.name}-{case.per_class}"]
    draws = range(options.first, options.first + options.draws)
    workshop, right = Workshop("cpu"), 0
    print("accuracies: linear on the top layer, on the best stage, fine-tuned last:2, fine-tuned all")
    for case, draw in itertools.product(cases, draws):
        with tempfile.TemporaryDirectory() as root:
            case.build(Path(root), case.per_class, draw)
            parameters = {"net": options.net, "size": options.size, "epochs": options.epochs, "verify": True}
            facts = dict(run(job("advise", workshop.fresh(), {"folder": root, **parameters})).facts)
        right += facts["right"]
        print(line(case, facts), flush=True)
    print(f"the advice is best or within one point of it in {right} of {len(cases) * len(draws)}")


if __name__ == "__main__":
    main()
