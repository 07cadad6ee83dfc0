"""Attacks written out the slow and obvious way: one image at a time, float64, autograd on the cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def gradient(module: nn.Module, image: Tensor, label: int, target: int | None = None) -> Tensor:
    """Where to go: up the cross-entropy with the label, or down that with the target. `[C, H, W]`."""
    leaf = image.clone().requires_grad_()
    aim = torch.tensor([label if target is None else target])
    loss = F.cross_entropy(module(leaf[None]), aim)
    loss.backward()
    assert leaf.grad is not None
    return leaf.grad if target is None else -leaf.grad


def unit(direction: Tensor, norm: str) -> Tensor:
    return direction.sign() if norm == "linf" else direction / direction.norm()


def project(image: Tensor, start: Tensor, eps: float, norm: str) -> Tensor:
    change = image - start
    if norm == "linf":
        change = change.clamp(-eps, eps)
    elif change.norm() > eps:
        change = change * eps / change.norm()
    return (start + change).clamp(0, 1)


def is_fooled(module: nn.Module, image: Tensor, label: int, target: int | None = None) -> bool:
    with torch.no_grad():
        predicted = int(module(image[None]).argmax())
    return predicted != label if target is None else predicted == target


def fgsm(module: nn.Module, image: Tensor, label: int, eps: float, norm: str, target: int | None = None) -> Tensor:
    return project(image + eps * unit(gradient(module, image, label, target), norm), image, eps, norm)


def climb(
    module: nn.Module,
    image: Tensor,
    label: int,
    *,
    eps: float,
    norm: str,
    steps: int,
    step: float,
    start: Tensor | None = None,
    decay: float | None = None,
    ahead: bool = False,
    target: int | None = None,
) -> Tensor:
    """PGD, or with `decay` MI-FGSM, or with `ahead` NI-FGSM; the first image that fools, else the last."""
    x = image if start is None else start
    memory = torch.zeros_like(image)
    for _ in range(steps):
        if is_fooled(module, x, label, target):
            return x
        if decay is None:
            memory = gradient(module, x, label, target)
        else:
            place = x + step * decay * memory if ahead else x
            found = gradient(module, place, label, target)
            memory = decay * memory + found / found.abs().mean()
        x = project(x + step * unit(memory, norm), image, eps, norm)
    return x
