"""Top-1 and top-5 of the bundled networks on the 500 ImageNet sample images.

python benchmarks/accuracy.py
"""

from __future__ import annotations

import torch
from samples import SHARED, label, paths

import phosphene
from phosphene import images

LEAST = {"efficientnet_lite0": 0.86, "squeezenet1_1": 0.58}


def main() -> None:
    if not (SHARED / "data" / "imagenet_samples").is_dir():
        print(f"no sample images at {SHARED}: nothing to measure")
        return
    files = paths()
    truth = torch.tensor([label(path) for path in files])
    pictures = [images.read(path) for path in files]
    for name in ("efficientnet_lite0", "squeezenet1_1"):
        network = phosphene.load(name, device="cpu")
        with torch.no_grad():
            inputs = torch.cat([network.preprocess(picture) for picture in pictures])
            logits = torch.cat([network.logits(part) for part in network.split(inputs)])
        hits = logits.topk(5).indices == truth[:, None]
        top1, top5 = float(hits[:, 0].float().mean()), float(hits.any(1).float().mean())
        assert top1 >= LEAST[name], f"{name} recognises {top1:.1%}, expected {LEAST[name]:.0%}"
        print(f"{name:<20} {len(files)} images   top-1 {top1:.1%}   top-5 {top5:.1%}")


if __name__ == "__main__":
    main()
