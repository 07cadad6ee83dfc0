"""Recording an early layer against running only that prefix by hand, on the same plain module.

    python benchmarks/taps.py

The peer is the best that one writes by hand: the prefix of the very copy that Phosphene prepared, called directly.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from harness import compare
from samples import SHARED, batch
from torch import Tensor

import phosphene
from phosphene.models import Network


def main() -> None:
    os.environ.setdefault("PHOSPHENE_WEIGHTS", str(SHARED / "weights"))
    lite = phosphene.load("efficientnet_lite0", device="cpu")
    _run(lite, "blocks.1", lambda m, x: m.blocks[1](m.blocks[0](m.bn1(m.conv_stem(x)))))
    _run(phosphene.load("squeezenet1_1", device="cpu"), "features.4", lambda m, x: m.features[:5](x))
    if (SHARED / "weights").is_dir():
        vgg = phosphene.load("vgg16", device="cpu")
        _run(vgg, "relu2_2", lambda m, x: m.features[:9](x))


def _run(network: Network, layer: str, prefix) -> None:
    images = batch(network, network.batch_size(network.input_size))
    module: Any = network.prepared

    def by_hand() -> Tensor:
        with torch.no_grad():
            return prefix(module, network.normalise(images).contiguous(memory_format=torch.channels_last))

    def recorded() -> Tensor:
        return network.record(images, [layer])[layer]

    assert torch.equal(recorded(), by_hand())
    timing = compare(f"{network.name} {layer}: record / by hand", recorded, by_hand, rounds=15)
    print(f"{timing}   record costs {1 / timing.ratio:.2f}x the prefix")


if __name__ == "__main__":
    main()
