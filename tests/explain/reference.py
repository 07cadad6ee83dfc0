"""Guided backpropagation and the deconvnet the slow way: in float64, on an unfolded copy, by hooks on the ReLU modules."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.models import Network
from phosphene.models.prepare import first_tensor


class HookedReLU(nn.Module):
    """A ReLU (with an upper bound, a ReLU6) as a module of its own, whose backward hook applies one of the two rules."""

    def __init__(self, high: float | None, *, guided: bool) -> None:
        super().__init__()
        self.high = high
        self.register_full_backward_hook(self.guide if guided else self.deconvolve)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.threshold(x, 0.0, 0.0)
        return y if self.high is None else torch.minimum(y, torch.full_like(y, self.high))

    @staticmethod
    def guide(_module: nn.Module, to_input: Any, _to_output: Any) -> Any:
        return (to_input[0].clamp(min=0),)

    @staticmethod
    def deconvolve(_module: nn.Module, _to_input: Any, to_output: Any) -> Any:
        return (to_output[0].clamp(min=0),)


def plain_copy(module: nn.Module, *, guided: bool) -> nn.Module:
    """A float64 copy in eval mode, its ReLUs replaced by fresh hooked ones wherever a module holds one."""
    twin = copy.deepcopy(module).double().eval()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (nn.ReLU, nn.ReLU6)):
                setattr(parent, name, HookedReLU(6.0 if isinstance(child, nn.ReLU6) else None, guided=guided))
    return twin


def logits64(network: Network, module: nn.Module, images: Tensor) -> Tensor:
    """Logits of a float64 module for images in [0, 1]."""
    logits = first_tensor(module((images - network.mean.double()) / network.std.double()))
    assert logits is not None
    return logits


def hooked_guided(network: Network, images: Tensor, classes: list[int]) -> Tensor:
    """`[N, 3, H, W]`: the guided gradient, by backward hooks. For networks whose ReLUs are modules that run once."""
    return _hooked(network, images, classes, guided=True)


def hooked_deconvnet(network: Network, images: Tensor, classes: list[int]) -> Tensor:
    """`[N, 3, H, W]`: the deconvnet's, by backward hooks. For networks whose ReLUs are modules that run once."""
    return _hooked(network, images, classes, guided=False)


def _hooked(network: Network, images: Tensor, classes: list[int], *, guided: bool) -> Tensor:
    leaf = images.double().requires_grad_()
    logits = logits64(network, plain_copy(network.module, guided=guided), leaf)
    (gradient,) = torch.autograd.grad(logits[range(len(classes)), classes].sum(), leaf)
    return gradient


def plain_gradient(network: Network, images: Tensor, classes: list[int]) -> Tensor:
    """`[N, 3, H, W]`: the gradient in float64, by nothing but autograd."""
    leaf = images.double().requires_grad_()
    logits = logits64(network, copy.deepcopy(network.module).double().eval(), leaf)
    (gradient,) = torch.autograd.grad(logits[range(len(classes)), classes].sum(), leaf)
    return gradient


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a part of the largest value."""
    assert ours.shape == theirs.shape, f"{list(ours.shape)} against {list(theirs.shape)}"
    return float((ours.double() - theirs.double()).abs().max() / theirs.abs().max().clamp(min=1e-30))


def angle(ours: Tensor, theirs: Tensor) -> float:
    """1 - cosine, of the worst image."""
    a, b = ours.double().flatten(1), theirs.double().flatten(1)
    return float((1 - torch.nn.functional.cosine_similarity(a, b, eps=1e-30)).max())
