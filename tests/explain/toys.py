"""Small networks in float64, cheap options for every method, and snapshots of what reading must leave as it was."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.explain import METHODS, Attribution, Target
from phosphene.models import Labels, Network, Preprocess

SIZE = 20
CLASSES = 4
CHEAP: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 3}, "integrated-gradients": {"steps": 4}, "occlusion": {"window": (9, 8), "stride": (7, 8)},
    "rise": {"masks": 11, "cells": 3},
}  # fmt: skip

every_method = pytest.mark.parametrize("method", METHODS)
every_cam = pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.takes_layer])
every_rule = pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.needs_rule])


class Small(nn.Module):
    """Convolution, batch norm, and one ReLU used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 6, 3)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x)))
        return self.fc(self.relu(self.last(x)).mean((2, 3)))


class Act(nn.Module):
    """Any module deep inside of a network."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 6, 3), nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), act, nn.Conv2d(6, 6, 3))
        self.end = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.block(self.relu(self.stem(x))))


def network(module: nn.Module, size: int = SIZE, name: str = "net", **options: Any) -> Network:
    """In float64, its batch norms as after training."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, nn.BatchNorm2d) and child.running_mean is not None and child.running_var is not None:
                child.running_mean.normal_(0, 0.2)
                child.running_var.uniform_(0.5, 1.5)
                child.weight.uniform_(0.5, 1.5)
                child.bias.normal_(0, 0.2)
    ready = Preprocess((size, size), size)
    return Network(module, name=name, labels=Labels.generic(CLASSES), preprocess=ready, **options).double()


def small() -> Network:
    return network(Small(), name="small")


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, dtype=torch.float64)


def explained(method: str, net: Network, images: Tensor, target: Target, **options: Any) -> Attribution:
    """By a method at a low price."""
    return METHODS[method](net, images, target, **{**CHEAP.get(method, {}), **options})


def parts(found: Attribution) -> dict[str, Tensor]:
    """The tensors of an explanation by name."""
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def state(module: nn.Module) -> dict[str, Any]:
    """All that reading must leave as it was: hooks, modes, gradients and their flags, values."""
    found: dict[str, Any] = {}
    for name, child in module.named_modules():
        hooks = {key: list(value) for key, value in vars(child).items() if "hooks" in key and hasattr(value, "__len__")}
        found[f"module {name}"] = (id(child), child.training, getattr(child, "inplace", None), hooks)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        grad = None if tensor.grad is None else tensor.grad.tolist()
        found[f"tensor {name}"] = (id(tensor), tensor.requires_grad, grad, str(tensor.tolist()))
    return found
