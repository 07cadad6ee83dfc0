"""What is explained: the score of a class, or one neuron. And its gradient with respect to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.errors import LabelError
from phosphene.models import Network, Unit

Target: TypeAlias = int | Sequence[int] | Tensor | Unit
"""One class for all images, one class per image, or a unit (its most active place where it names no position)."""


def per_image(target: Target, count: int, network: Network) -> Tensor | Unit:
    """Classes as a tensor `[count]`; a unit is checked and returned as it is. Raises LabelError, LayerError."""
    if isinstance(target, Unit):
        return target.check(network)
    network.need_classifier("explaining a class")
    classes = torch.as_tensor(target, device=network.device).flatten()
    if classes.numel() and (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool):
        raise LabelError(f"classes are whole numbers, got {classes.tolist()}")
    classes = classes.long().clone()
    if classes.numel() == 1:
        classes = classes.expand(count)
    if classes.numel() != count or not count:
        raise LabelError(f"{classes.numel()} classes for {count} images: give one for all, or one for each")
    if int(classes.min()) < 0 or int(classes.max()) >= len(network.labels):
        raise LabelError(f"classes go from 0 to {len(network.labels) - 1}, got {classes.tolist()}")
    return classes


def scores(network: Network, images: Tensor, target: Tensor | Unit) -> Tensor:
    """The explained value of each image `[N]`: the unnormalised class score S_c, or the neuron's activation."""
    if isinstance(target, Unit):
        return target.values(network.activations(images, target.layer))
    return network.logits(images).gather(1, target[:, None])[:, 0]


def input_gradient(
    network: Network,
    images: Tensor,
    target: Target,
    *,
    rule: Callable[[], AbstractContextManager[object]] = nullcontext,
    inspect: Callable[[Tensor], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """`(gradient [N, 3, H, W], scores [N])`: d score / d pixel for pixels in [0, 1].

    Args:
        network: the network.
        images: `[N, 3, H, W]` in [0, 1].
        target: see `Target`.
        rule: opens a backward rule that holds during the forward pass.
        inspect: is shown the scores before the backward pass, and may refuse.
    """
    gradients, values, start = [], [], 0
    with torch.inference_mode(False), torch.enable_grad():
        wanted = per_image(target, images.shape[0], network)
        for piece in network.split(images):
            own = wanted if isinstance(wanted, Unit) else wanted[start : start + len(piece)]
            start += len(piece)
            leaf = piece.to(network.mean).detach().clone().requires_grad_()
            with rule():
                score = scores(network, leaf, own)
            if inspect is not None:
                inspect(score)
            gradients.append(torch.autograd.grad(score.sum(), leaf)[0])
            values.append(score.detach())
    return torch.cat(gradients), torch.cat(values)
