"""Measure what is natural for the bundled networks, from a folder of photographs, into the package.

python tools/measure_natural.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import phosphene
from phosphene import images, synthesize
from phosphene.jobs.workshop import Collection
from phosphene.models.bundled import BUNDLED
from phosphene.models.weights import digest
from phosphene.progress import run
from phosphene.synthesize import natural


def main(folder: str) -> None:
    """Write a table for each bundled network."""
    paths = images.find(Path(folder))
    for name in BUNDLED:
        network = phosphene.load(name, device="cpu")
        found = run(synthesize.measure(network, Collection(paths, network)))
        file = natural.SHIPPED / natural.file_name(digest(network.module.state_dict()))
        found.write(file)
        print(f"{name}: {len(found.layers)} layers, {len(paths)} images, {file.stat().st_size} bytes, {file.name}")


if __name__ == "__main__":
    main(sys.argv[1])
