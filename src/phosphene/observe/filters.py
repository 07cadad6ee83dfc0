"""First-layer filters: the only weights that can be looked at as pictures, because they act on colours.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 2014 (the slide's AlexNet).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models import Network


@dataclass(frozen=True)
class Filters:
    """`weights`: `[filters, channels, h, w]`, signed, as they act on an image in [0, 1]; `layer`: whose they are."""

    layer: str
    weights: Tensor


def filters(network: Network, layer: str | None = None) -> Filters:
    """The weights of the first convolution, per unit of [0, 1] (divided by the network's std).

    Args:
        network: any network with a convolution that sees the image.
        layer: another layer than the first; it must act on colours (3 channels) or on grey (1).

    Raises:
        LayerError: no convolution, or one that acts on features rather than on the image.
    """
    name, convolution = _convolution(network, layer)
    weights = convolution.weight.detach()
    if not weights.shape[1] == convolution.in_channels == network.channels:
        first, _ = _convolution(network, None)
        raise LayerError(
            f"the filters of '{name}' act on {convolution.in_channels} features, not on the image: only those of"
            f" '{first}' are pictures (what deeper units look for: `phosphene visualize`)"
        )
    return Filters(name, weights / network.std.to(weights))


def _convolution(network: Network, layer: str | None) -> tuple[str, nn.Conv2d]:
    if layer is not None:
        name = network.tap(layer).name
        module = network.module.get_submodule(name)
        if not isinstance(module, nn.Conv2d):
            raise LayerError(f"layer '{name}' is a {type(module).__name__}, which has no filters")
        return name, module
    for known in network.layers():
        module = network.module.get_submodule(known.name)
        if isinstance(module, nn.Conv2d):
            return known.name, module
    raise LayerError(f"{network.name} has no convolution")
