"""Layer-wise relevance propagation (LRP).

    R_i = sum_j  (x_i w_ij / z_j) R_j

The score is handed down from each neuron to its inputs, by their shares in it, until it reaches the pixels. `relevance`
has the rules, their formulas and where they come from.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from phosphene.errors import PhospheneError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import input_gradient
from phosphene.explain.relevance import Box, Epsilon, Gamma, Propagation, Share, as_weighted, no_zeros
from phosphene.explain.rules import scores_by
from phosphene.explain.target import Aim, Target, aim_at
from phosphene.models import Network
from phosphene.models.network import LUMA

Composite: TypeAlias = Literal["composite", "epsilon", "gamma"]


def lrp(
    network: Network,
    images: Tensor,
    target: Target,
    *,
    rule: Composite = "composite",
    epsilon: float = 1e-6,
    gamma: float = 0.25,
    bias: bool = True,
) -> Attribution:
    """The score handed down to the pixels, neuron by neuron.

    `composite` takes the box rule for the first layer (of several that see the image, the one that runs first), gamma for
    the other convolutions and epsilon for linear layers: what the overview of the method advises. `epsilon` and `gamma`
    take one rule everywhere. Batch norms are folded into their convolutions where they can be, and are layers of their own
    elsewhere; the branches of a residual sum get what they contribute to it.

    Args:
        network: any network of convolutions, linear layers, batch norms, poolings and activations with f(0) = 0.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`.
        rule: `composite`, `epsilon` or `gamma`.
        epsilon: added to a neuron's output where it divides, with its sign; at least 0.
        gamma: how much more what speaks for a neuron counts; at least 0.
        bias: whether biases take their share of the relevance. They are no pixels, so the map then adds up to less (or
            more) than the score. Without their share it adds up to the score, at the price of a noisier map.

    Returns:
        Attribution with the relevances `gradient [N, 3, H, W]` (`[N, 1, H, W]` for a grey network); `maps [N, H, W]` is
        their sum over the colours; `error [N]` is the conservation error |sum R - S| / |S|.

    Raises:
        PhospheneError: an unknown rule, a negative epsilon or gamma.
        RuleError: the network has an operation that no rule is defined for; the message names it.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    if rule not in get_args(Composite):
        raise PhospheneError(f"no rule '{rule}' for LRP: there are {', '.join(get_args(Composite))}")
    if not (0 <= epsilon < float("inf") and 0 <= gamma < float("inf")):
        raise PhospheneError(f"epsilon {epsilon}, gamma {gamma}: give 0 or more")
    aim = aim_at(network, images, target)
    images = _as_seen(network, images.to(network.mean))
    forward = partial(_forward, rule, epsilon, gamma, bias)
    c, scores = input_gradient(network, images, aim, forward)
    std = network.std.to(c)[:, None]
    relevance = c * std * no_zeros(network.normalise(images))[:, None]
    error = (relevance.double().sum((2, 3, 4)) - scores).abs() / scores.abs().double().clamp(min=1e-12)
    return attribution("lrp", aim, relevance.sum(2), scores, gradient=relevance, error=error)


def _forward(
    rule: Composite, epsilon: float, gamma: float, bias: bool, network: Network, images: Tensor, aim: Aim
) -> Tensor:
    """The scores `[N, K]`; their gradient is c = R / x of the normalised pixels x, over the standard deviation."""
    by_epsilon, by_gamma = Epsilon(epsilon, bias), Gamma(epsilon, gamma, bias)
    conv: Share = by_epsilon if rule == "epsilon" else by_gamma
    linear: Share = by_gamma if rule == "gamma" else by_epsilon
    image = Box(*_bounds(network, images), epsilon) if rule == "composite" else None
    return scores_by(partial(Propagation, "LRP", conv, linear, by_epsilon, image), network, images, aim)


def _as_seen(network: Network, images: Tensor) -> Tensor:
    """The image in the network's own number of channels: what pixels are shared out of."""
    if network.channels == images.shape[1]:
        return images
    if network.channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _bounds(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the first layer gets for a black and for a white image, whatever is done to them before (padding, say)."""
    black, white = (
        _first_input(network, torch.full_like(images[:1], level, requires_grad=False)) for level in (0.0, 1.0)
    )
    return torch.minimum(black, white), torch.maximum(black, white)


class _Reached(BaseException):
    """Ends the pass at the first layer. No Exception, so that a network's own `except` can't swallow it."""


class _FirstLayer(TorchFunctionMode):
    """Stops the pass at the first layer with weights, and keeps what it was given."""

    x: Tensor

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        found = as_weighted(func, args, kwargs or {})
        if found is not None and found[2] != "norm":
            self.x = found[0]
            raise _Reached
        return func(*args, **(kwargs or {}))


def _first_input(network: Network, images: Tensor) -> Tensor:
    mode = _FirstLayer()
    with torch.no_grad(), mode:
        try:
            network.output(images)
        except _Reached:
            return mode.x
    raise PhospheneError(f"{network.name} has no convolution or linear layer: there is nothing to hand relevance down")
