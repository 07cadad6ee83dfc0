"""Gradients of what is explained with respect to the pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.explain.health import refuse_nan
from phosphene.explain.rules import plain_scores
from phosphene.explain.target import Aim, Forward, pieces
from phosphene.models import Network


def input_gradient(
    network: Network, images: Tensor, aim: Aim, forward: Forward = plain_scores
) -> tuple[Tensor, Tensor]:
    """`(gradients [N, K, 3, H, W], scores [N, K])`: d score / d pixel for pixels in [0, 1].

    The classes of an image share one forward pass; each costs a backward pass of its own. Of a single image, its classes
    are a batch: that costs a forward pass each, and is faster all the same, as one image alone leaves a CPU half idle.

    Raises:
        NetworkError: NaN or infinity on the way; the message names the layer where they begin.
    """
    if len(images) == 1 < aim.width <= network.batch_size(images.shape[-2:]):
        copies = images.expand(aim.width, -1, -1, -1)
        gradient, values = one_gradient(network, copies, aim.spread(), forward)
        return gradient.transpose(0, 1), values.T
    gradients, values = zip(*(one_gradient(network, *piece, forward) for piece in pieces(network, images, aim)))
    return torch.cat(gradients), torch.cat(values)


def one_gradient(network: Network, images: Tensor, aim: Aim, forward: Forward = plain_scores) -> tuple[Tensor, Tensor]:
    """`input_gradient` of a batch that fits into memory as a whole."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = images.to(network.mean).detach().clone().requires_grad_()
        found = forward(network, leaf, aim)
        columns = found.sum(0)
        last = len(columns) - 1
        parts = [torch.autograd.grad(s, leaf, retain_graph=k < last)[0] for k, s in enumerate(columns)]
    gradient = torch.stack(parts, 1) if last else parts[0][:, None]
    if not (bool(torch.isfinite(found).all()) and bool(torch.isfinite(gradient.sum()))):
        refuse_nan(network, images)
    return gradient, found.detach()
