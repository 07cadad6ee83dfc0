"""The inner maximisation: a few steps up the loss inside the ball, on the module itself.

    x' <- Project( x' + a sign(grad_x' L) )        |x' - x|_inf <= eps,  0 <= x' <= 1

It reads gradients of the pictures only, of the plain module: inside torchrun's wrapper, every such gradient would be summed
over all processes. The module is in evaluation mode meanwhile: dropout would blind the attack, and running means stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Objective: TypeAlias = Callable[[Tensor], Tensor]
"""Logits `[n, classes]` -> a number to be made large."""


def climb(
    module: nn.Module, x: Tensor, start: Tensor, objective: Objective, *, eps: float, step: float, steps: int
) -> Tensor:
    """The pictures `[n, C, H, W]` after `steps` steps from `start`, within `eps` of `x`."""
    here = start
    with attacking(module):
        for _ in range(steps):
            here = here.detach().requires_grad_()
            (slope,) = torch.autograd.grad(objective(module(here)), here)
            here = inside(here.detach() + step * slope.sign(), x, eps)
    return here.detach()


def inside(images: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest pictures within `eps` of `x`, and in [0, 1]."""
    return images.clamp(x - eps, x + eps).clamp(0, 1)


def anywhere(x: Tensor, eps: float) -> Tensor:
    """A random picture within `eps` of each."""
    return (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)


def cross_entropy(labels: Tensor) -> Objective:
    """The cross-entropy with the labels `[n]`, summed: each picture's gradient is its own."""
    return lambda logits: F.cross_entropy(logits, labels, reduction="sum")


@contextmanager
def attacking(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, then as it was."""
    modes = [(child, child.training) for child in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for child, mode in modes:
            child.training = mode
