"""Class images of 50 classes: does the generating network see the class in its own picture, and does another one?

python benchmarks/class_images.py [--net squeezenet1_1] [--canvas fourier] [--classes 50] [--out sheet.png]
"""

from __future__ import annotations

import argparse
import time

import torch

import phosphene
from phosphene import images
from phosphene.progress import run
from phosphene.synthesize import Settings, visualize


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--net", default="squeezenet1_1")
    parser.add_argument("--canvas", default="fourier", choices=["fourier", "pixel"])
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--out")
    options = parser.parse_args()
    network = phosphene.load(options.net, device="cpu")
    judge = phosphene.load("squeezenet1_1" if options.net != "squeezenet1_1" else "efficientnet_lite0", device="cpu")
    classes = [place * 1000 // options.classes for place in range(options.classes)]
    begun = time.perf_counter()
    found = run(visualize(network, classes, settings=Settings(canvas=options.canvas)))
    seconds = time.perf_counter() - begun
    assert found.top is not None
    wanted = torch.tensor(classes)
    own = float((found.top == wanted).float().mean())
    other = torch.cat([judge.logits(part) for part in judge.split(found.images)]).topk(5).indices == wanted[:, None]
    print(
        f"{options.net} {options.canvas}: top-1 on itself {own:.0%}; on {judge.name} top-1"
        f" {float(other[:, 0].float().mean()):.0%}, top-5 {float(other.any(1).float().mean()):.0%};"
        f" {seconds / len(classes):.1f} s per picture"
    )
    assert own >= 0.9, "fewer than 90% are their class for the network that made them"
    if options.out:
        panels = [
            images.Panel(picture, network.labels[index]) for picture, index in zip(found.images, classes, strict=True)
        ]
        images.save(images.sheet(panels, columns=10, side=160), options.out)


if __name__ == "__main__":
    main()
