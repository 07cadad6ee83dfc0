"""The same network with average pooling instead of max pooling: smoother gradients, as Gatys et al. used it."""

from __future__ import annotations

import copy

from torch import nn

from phosphene.errors import NetworkError
from phosphene.models.network import Network


def with_average_pooling(network: Network) -> Network:
    """A twin of `network`, of the same weights, whose max poolings take the mean of what lies inside the picture.

    Raises:
        NetworkError: it has no max pooling module, one with dilation, or can't be copied.
    """
    try:
        module = copy.deepcopy(network.module)
    except Exception as problem:  # locks, handles: each raises its own
        raise NetworkError(f"{network.name} can't be copied, so its poolings can't be replaced: {problem}") from problem
    if not _replace(module):
        raise NetworkError(
            f"{network.name} has no max pooling layer to replace by an average: leave the pooling as it is"
        )
    twin = Network(
        module,
        name=network.name,
        labels=network.labels if network.classifies else None,
        preprocess=network.preprocess,
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        why_features=network.why_features,
    )
    return twin.to(network.device)


def _replace(module: nn.Module) -> int:
    """How many were replaced."""
    count = 0
    for name, child in module._modules.items():  # also what stands in several places
        if child is None:
            continue
        if isinstance(child, nn.MaxPool2d):
            if child.dilation not in (1, (1, 1)):
                raise NetworkError(
                    "a max pooling with gaps (dilation) has no average to take its place: leave it as it is"
                )
            mean = nn.AvgPool2d(
                child.kernel_size, child.stride, child.padding, ceil_mode=child.ceil_mode, count_include_pad=False
            )
            setattr(module, name, mean.train(child.training))
            count += 1
        else:
            count += _replace(child)
    return count
