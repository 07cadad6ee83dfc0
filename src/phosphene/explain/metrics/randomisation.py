"""Cascading randomisation: does an explanation depend on what the network has learned?

The layers are drawn anew one after the other, from the last to the first, and the map of the same class is compared with
that of the trained network. A map that stays as it was explains the picture and the architecture, not the network.

Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim, "Sanity Checks for Saliency Maps", NeurIPS 2018, section 3.1.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Network


@dataclass(frozen=True)
class Likeness:
    """How like two maps are: `ssim` (structural similarity) and `rank` (Spearman's correlation), at most 1."""

    ssim: float
    rank: float


def weighted_layers(network: Network) -> list[str]:
    """The layers with weights of their own, in order of execution."""
    return [layer.name for layer in network.layers() if layer.leaf and layer.parameters]


def cascade(network: Network, images: Tensor, *, steps: int = 8, seed: int = 0) -> Iterator[tuple[str, Network]]:
    """`(layer, the network with that layer and all later ones drawn anew)`, from the last layer to the first.

    Convolutions and linear layers get He's initialisation; batch norms the scale 1, the shift 0 and the statistics of the
    redrawn network on `images`, so that signals neither die nor explode. The Network given is not touched; the one that
    comes out is one copy, changed further in each step.

    Args:
        network: a trained network.
        images: `[N, 3, H, W]` in [0, 1], for the batch norms' statistics.
        steps: how many networks to give; the layers are taken in that many groups of about one size.
        seed: of the weights.

    Raises:
        PhospheneError: steps below 1.
        NetworkError: the network has no layers with weights, or can't be copied; a batch norm sees one value per channel
            (after a global pooling, of one image), which has no spread.
    """
    if steps < 1:
        raise PhospheneError(f"{steps} steps: a cascade needs at least 1")
    layers = weighted_layers(network)
    if not layers:
        raise NetworkError(f"{network.name} has no layer with weights: there is nothing to draw anew")
    try:
        twin = copy.deepcopy(network)
    except Exception as problem:  # a user's module may hold anything
        raise NetworkError(f"{network.name} can't be copied, so it can't be randomised: {problem}") from problem
    twin.module.eval()
    generator = torch.Generator().manual_seed(seed)
    steps = min(steps, len(layers))
    bounds = [round(len(layers) * step / steps) for step in range(steps + 1)]
    backwards = layers[::-1]
    for begin, end in itertools.pairwise(bounds):
        for name in backwards[begin:end]:
            _redraw(twin.module.get_submodule(name), generator)
        _settle(twin, [twin.module.get_submodule(name) for name in backwards[:end]], images)
        yield backwards[end - 1], twin


def likeness(one: Tensor, other: Tensor) -> Likeness:
    """How like two maps `[H, W]` are in their absolute values, each scaled to its own maximum.

    SSIM is Wang et al.'s (IEEE TIP 2004) with windows of 7 pixels; Spearman's correlation gives equal values their mean
    rank, and is 0 where a map is constant.

    Raises:
        PhospheneError: shapes that differ, maps of less than 7 pixels a side.
    """
    from scipy.stats import rankdata
    from skimage.metrics import structural_similarity

    if one.shape != other.shape or one.ndim != 2 or min(one.shape) < 7:
        raise PhospheneError(
            f"expected two maps of one shape, 7 pixels or more, got {list(one.shape)}, {list(other.shape)}"
        )
    a, b = (_scaled(found) for found in (one, other))
    ssim = float(np.asarray(structural_similarity(a, b, data_range=1.0)))
    ranks = [rankdata(found.ravel()) for found in (a, b)]
    spread = [float(found.std()) for found in ranks]
    rank = float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if min(spread) > 0 else 0.0
    return Likeness(ssim, rank)


def _scaled(found: Tensor) -> np.ndarray:
    sizes = found.detach().double().abs().cpu().numpy()
    return sizes / max(float(sizes.max()), 1e-300)


def _redraw(layer: nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                drawn = torch.randn(parameter.shape, generator=generator) * math.sqrt(2 / fan_in)
                parameter.copy_(drawn)
            else:
                parameter.fill_(1.0 if name == "weight" else 0.0)


def _settle(twin: Network, redrawn: list[nn.Module], images: Tensor) -> None:
    """Give the batch norms among `redrawn` the statistics of this network on `images`."""
    norms = [
        layer for layer in redrawn if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    if not norms:
        return
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over what follows
        layer.train()
    with torch.no_grad():
        for piece in twin.split(images):
            try:
                twin(piece.to(twin.mean))
            except PhospheneError:
                raise
            except ValueError as problem:  # PyTorch's, of norms that see a single value
                raise NetworkError(
                    f"a batch norm of {twin.name} can't be drawn anew: {problem}: give more images"
                ) from problem
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
        layer.eval()
