"""The small MNIST network of Wong & Kolter, "Provable Defenses against Adversarial Examples", ICML 2018.

Wong, Rice & Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020, train it by FGSM.
"""

from __future__ import annotations

from torch import nn


def wong_cnn(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
    """Convolutions 4x4 of 16 and 32 in steps of two, and 100 units: 166,406 numbers for MNIST.

    The layers have the names of the authors' code (`0`, `2`, `5`, `7`), so that weights which they published fit.

    Args:
        channels: of the pictures `[N, channels, height, width]`, which are in [0, 1] in the paper.
        classes: numbers in the logits `[N, classes]`.
        size: height and width of the pictures.
    """
    height, width = (side // 4 for side in size)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * height * width, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )
