"""Which layers make a good style: for the networks that were looked at, and by depth for any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from phosphene.models import Network
from phosphene.observe.landmarks import landmarks
from phosphene.synthesize.settings import CanvasName


@dataclass(frozen=True)
class LayerChoice:
    """Layers of a network for style and content.

    Attributes:
        style: layer -> share of the style loss where the picture begins.
        content: layers of the content loss, all alike.
    """

    style: Mapping[str, float]
    content: tuple[str, ...]


def _alike(*style: str, content: str) -> LayerChoice:
    return LayerChoice(dict.fromkeys(style, 1.0), (content,))


CHOICES: dict[str, LayerChoice] = {
    # conv1_1, conv2_1, conv3_1, conv4_1, conv5_1 and conv4_2, after their ReLU, as in the paper.
    "vgg16": _alike("features.1", "features.6", "features.11", "features.18", "features.25", content="features.20"),
    "vgg19": _alike("features.1", "features.6", "features.11", "features.20", "features.29", content="features.22"),
    # Of these many were looked at: earlier last layers leave the strokes thin, later ones lose the content.
    "squeezenet1_1": _alike("features.1", "features.4", "features.7", "features.9", content="features.6"),
    "efficientnet_lite0": _alike("bn1", "blocks.0.0", "blocks.1.1", "blocks.2.1", "blocks.3.1", content="blocks.2.1"),
}
"""By the network's name."""


def layers_for(network: Network) -> LayerChoice:
    """The layers for a network: chosen for those that are known, else five down to two thirds of its depth.

    Raises:
        LayerError: a network without a layer that gives a map.
    """
    if network.name in CHOICES:
        return CHOICES[network.name]
    found = landmarks(network)
    deepest = max(1, round(len(found) * 2 / 3))
    places = sorted({round(place * (deepest - 1) / 4) for place in range(5)})
    return LayerChoice({found[place]: 1.0 for place in places}, (found[max(0, deepest - 2)],))


CANVASES: dict[str, CanvasName] = {"squeezenet1_1": "fourier", "efficientnet_lite0": "fourier"}
"""The canvas that suits a network, where it isn't pixels."""
