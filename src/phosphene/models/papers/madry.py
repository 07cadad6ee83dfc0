"""The MNIST network of Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn


def madry_cnn(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
    """Convolutions 5x5 of 32 and 64, a 2x2 max pool after each, and 1,024 units: 3,274,634 numbers for MNIST.

    The paper's pictures are in [0, 1], with no other normalisation. Its weights begin as TensorFlow's tutorial had them
    (normal, 0.1, which is ten times PyTorch's for the 1,024 units); here they begin as PyTorch's do.

    Args:
        channels: of the pictures `[N, channels, height, width]`.
        classes: numbers in the logits `[N, classes]`.
        size: height and width of the pictures.
    """
    height, width = (math.ceil(side / 4) for side in size)  # TensorFlow's pools round up
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(channels, 32, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2, ceil_mode=True),
        conv2=nn.Conv2d(32, 64, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2, ceil_mode=True),
        flat=nn.Flatten(),
        fc1=nn.Linear(64 * height * width, 1024),
        relu3=nn.ReLU(),
        fc2=nn.Linear(1024, classes),
    )
    return nn.Sequential(layers)
