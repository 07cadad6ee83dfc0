"""The two small MNIST networks of shared/weights, and images for them."""

from __future__ import annotations

import gzip
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn


def lenet(shared: Path, kind: str = "cln") -> nn.Module:
    """The network trained on clean (`cln`) or on attacked (`adv`) images: `[N, 1, 28, 28]` in [0, 1] to 10 logits."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(1, 32, 3, padding=1),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(32, 64, 3, padding=1),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flat=nn.Flatten(),
        linear1=nn.Linear(3136, 200),
        relu3=nn.ReLU(),
        linear2=nn.Linear(200, 10),
    )
    module = nn.Sequential(layers)
    module.load_state_dict(load_file(shared / "weights" / f"mnist_lenet5_{kind}.safetensors"))
    return module.eval()


def digits(shared: Path, count: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """`(images [count, 1, 28, 28] in [0, 1], labels [count])` of MNIST's test set."""
    folder = shared / "data" / "mnist"
    pixels = _idx(folder / "t10k-images-idx3-ubyte.gz", 16 + 784 * (start + count))[16 + 784 * start :]
    labels = _idx(folder / "t10k-labels-idx1-ubyte.gz", 8 + start + count)[8 + start :]
    return pixels.view(count, 1, 28, 28).float() / 255, labels.long()


def _idx(file: Path, length: int) -> Tensor:
    with gzip.open(file) as stream:
        return torch.frombuffer(bytearray(stream.read(length)), dtype=torch.uint8)
