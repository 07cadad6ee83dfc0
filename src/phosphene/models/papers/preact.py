"""PreActResNet-18 for small pictures: He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016.

The network of Rice, Wong & Kolter, "Overfitting in adversarially robust deep learning", ICML 2020. That of Wong et al., "Fast
is better than free", ICLR 2020, lacks the last batch norm and takes its shortcuts before the first: its weights don't fit.
"""

from __future__ import annotations

from torch import Tensor, nn


def preact_resnet18(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
    """A 3x3 stem and eight blocks of 64 to 512 channels, each BN-ReLU-conv twice: 11,172,170 numbers for CIFAR-10.

    The layers have the names of Rice's code, so that weights which were published fit.

    Args:
        channels: of the pictures `[N, channels, height, width]`.
        classes: numbers in the logits `[N, classes]`.
        size: height and width of the pictures; the last maps are averaged, so that it changes no weight.
    """
    del size
    return PreActResNet(channels, classes)


class PreActResNet(nn.Module):
    """`[N, channels, height, width]` to `[N, classes]`."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(Block(64, 64, 1), Block(64, 64, 1))
        self.layer2 = nn.Sequential(Block(64, 128, 2), Block(128, 128, 1))
        self.layer3 = nn.Sequential(Block(128, 256, 2), Block(256, 256, 1))
        self.layer4 = nn.Sequential(Block(256, 512, 2), Block(512, 512, 1))
        self.bn = nn.BatchNorm2d(512)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, height, width]` to logits `[N, classes]`."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.conv1(x)))))
        return self.linear(self.pool(self.relu(self.bn(x))).flatten(1))


class Block(nn.Module):
    """Two convolutions, each after a batch norm and a ReLU, added to what came in.

    Where the shape changes, a 1x1 convolution of the first ReLU's output is added instead.
    """

    def __init__(self, channels: int, wide: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(channels, wide, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wide)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.shortcut: nn.Sequential | None = None
        if stride != 1 or channels != wide:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, H, W]` to `[N, wide, ceil(H / stride), ceil(W / stride)]`."""
        ready = self.relu1(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(ready)
        return self.conv2(self.relu2(self.bn2(self.conv1(ready)))) + kept
