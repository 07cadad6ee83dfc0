"""The MNIST network of TRADES: Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy", ICML 2019.

It is that of Carlini & Wagner, "Towards Evaluating the Robustness of Neural Networks", 2017.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


def trades_cnn(channels: int, classes: int, size: tuple[int, int]) -> nn.Module:
    """Four 3x3 convolutions, a pool after two of them each, and 200 - 200 units: 312,202 numbers for MNIST.

    The layers have the names of the authors' code, so that weights which they published fit. As there, convolutions begin
    with He's normal weights, and the last layer with zeros: the first gradient in the picture is zero too, so that an attack
    needs a random start.

    Args:
        channels: of the pictures `[N, channels, height, width]`, which are in [0, 1] in the paper.
        classes: numbers in the logits `[N, classes]`.
        size: height and width of the pictures, at least 16.
    """
    return _begun(TradesCNN(channels, classes, size))


class TradesCNN(nn.Module):
    """SmallCNN: `[N, channels, height, width]` to `[N, classes]`."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int]) -> None:
        super().__init__()
        height, width = (((side - 4) // 2 - 4) // 2 for side in size)
        convolutions: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(channels, 32, 3),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(32, 32, 3),
            relu2=nn.ReLU(),
            maxpool1=nn.MaxPool2d(2),
            conv3=nn.Conv2d(32, 64, 3),
            relu3=nn.ReLU(),
            conv4=nn.Conv2d(64, 64, 3),
            relu4=nn.ReLU(),
            maxpool2=nn.MaxPool2d(2),
        )
        units: OrderedDict[str, nn.Module] = OrderedDict(
            fc1=nn.Linear(64 * height * width, 200),
            relu1=nn.ReLU(),
            drop=nn.Dropout(0.5),
            fc2=nn.Linear(200, 200),
            relu2=nn.ReLU(),
            fc3=nn.Linear(200, classes),
        )
        self.feature_extractor = nn.Sequential(convolutions)
        self.classifier = nn.Sequential(units)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, height, width]` to logits `[N, classes]`."""
        return self.classifier(self.feature_extractor(x).flatten(1))


def _begun(network: TradesCNN) -> TradesCNN:
    for child in network.feature_extractor:
        if isinstance(child, nn.Conv2d) and child.bias is not None:
            nn.init.kaiming_normal_(child.weight)
            nn.init.zeros_(child.bias)
    for value in network.classifier[-1].parameters():
        nn.init.zeros_(value)
    return network
