"""Fooling 20 photographs to 3 other classes each on both bundled networks; how small the change is, and whether it
survives being saved as PNG and read back.

    python benchmarks/fooling.py [--photos 20]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from samples import batch

import phosphene
from phosphene import images
from phosphene.attacks import fool
from phosphene.progress import run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=int, default=20)
    count = parser.parse_args().photos
    for name in ("efficientnet_lite0", "squeezenet1_1"):
        network = phosphene.load(name, device="cpu")
        photos = batch(network, count).repeat_interleave(3, 0)
        seen = network.logits(photos).argmax(1)
        generator = torch.Generator().manual_seed(0)
        offsets = torch.stack([torch.randperm(999, generator=generator)[:3] + 1 for _ in range(count)]).flatten()
        targets = ((seen + offsets) % 1000).tolist()
        begun = time.perf_counter()
        found = run(fool(network, photos, targets))
        seconds = time.perf_counter() - begun
        with tempfile.TemporaryDirectory() as folder:
            back = [_read_back(picture, Path(folder) / f"{place}.png") for place, picture in enumerate(found.images)]
        again = network.logits(torch.cat(back)).argmax(1)
        survived = int((again == torch.tensor(targets)).sum())
        assert bool(found.success.all()) and survived == len(targets), "one was not fooled, or not after saving"
        print(
            f"{name:<20} fooled {int(found.success.sum())}/{len(targets)}, from PNG {survived}/{len(targets)};"
            f" L2 median {statistics.median(found.l2.tolist()):.2f} (largest {float(found.l2.max()):.2f}),"
            f" Linf median {statistics.median(found.linf.tolist()) * 255:.0f}/255"
            f" (largest {float(found.linf.max()) * 255:.0f}/255);"
            f" steps median {statistics.median(found.steps.tolist()):.0f}; {seconds:.0f} s"
        )


def _read_back(picture: torch.Tensor, path: Path) -> torch.Tensor:
    images.save(picture, path)
    return images.read(path)


if __name__ == "__main__":
    main()
