"""Measure what the last stage of the bundled networks says of a folder of photographs, into the package.

python tools/measure_features.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import phosphene
from phosphene import images
from phosphene.models.bundled import BUNDLED
from phosphene.models.weights import digest
from phosphene.progress import run
from phosphene.recipe import hash_file
from phosphene.training import usual
from phosphene.training.features import stage_features
from phosphene.training.folder import Photo
from phosphene.training.stages import stages


def main(folder: str) -> None:
    """Write a table for each bundled network."""
    photos = [Photo(path, 0, hash_file(path)) for path in images.find(Path(folder))]
    for name in BUNDLED:
        network = phosphene.load(name, device="cpu")
        last = stages(network)[-1]
        table = run(stage_features(network, photos, [last])).table(last, photos)
        height, width = network.input_size
        found = usual.usual(table, (height, width))
        file = usual.SHIPPED / usual.file_name(digest(network.module.state_dict()))
        found.write(file)
        print(
            f"{name}: after {last}, {len(found.mean)} numbers, {found.count} images, {file.stat().st_size} bytes, {file.name}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
