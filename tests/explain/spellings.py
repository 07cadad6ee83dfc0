"""One network with its ReLUs spelled in every way, and backward rules worked out on it by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input

from phosphene.models import Network

RuleByHand: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""`(R behind a ReLU, its input, its upper bound) -> R before it`."""


class Net(nn.Module):
    """conv - relu - maxpool - conv - relu - residual add - relu - mean - linear; `relu` is how it is spelled."""

    def __init__(self, relu: Callable[[Tensor], Tensor] | nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.relu: Any = relu
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(6, 4)
        with torch.no_grad():
            self.one.weight.mul_(scale)
            self.two.weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.one(x)))
        y = self.relu(self.two(x))
        return self.fc(self.relu(y - 0.5 * x).mean((2, 3)))


def by_hand(rule: RuleByHand, network: Network, images: Tensor, chosen: int, high: float = torch.inf) -> Tensor:
    """Forward and backward of `Net`, written out, with `rule` at each ReLU."""
    net: Any = network.module
    mean, std = network.mean, network.std
    with torch.no_grad():
        a = net.one((images - mean) / std)
        pooled, where = F.max_pool2d(a.clamp(0, high), 2, return_indices=True)
        b = net.two(pooled)
        c = b.clamp(0, high) - 0.5 * pooled
        down = (net.fc.weight[chosen].view(1, -1, 1, 1) / (c.shape[2] * c.shape[3])).expand(c.shape)
        down = rule(down, c, high)
        to_pooled = conv2d_input(list(pooled.shape), net.two.weight, rule(down, b, high), padding=1) - 0.5 * down
        to_a = F.max_unpool2d(to_pooled, where, [2, 2], output_size=list(a.shape[2:]))
        return conv2d_input(list(images.shape), net.one.weight, rule(to_a, a, high)) / std


def guided(relevance: Tensor, before: Tensor, high: float) -> Tensor:
    """R_l = 1[0 < f_l < high] 1[R_l+1 > 0] R_l+1."""
    return relevance * (relevance > 0) * (before > 0) * (before < high)


def deconvolved(relevance: Tensor, _before: Tensor, _high: float) -> Tensor:
    """R_l = 1[R_l+1 > 0] R_l+1."""
    return relevance * (relevance > 0)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x.relu() * 1.0).relu_()


def on_a_view(x: Tensor) -> Tensor:
    x = x * 1.0
    x.flatten(2).relu_()
    return x


def by_assignment(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, :2] = x[:, :2].relu()
    y[:, 2:] = torch.relu(x[:, 2:])
    return y


RELUS: dict[str, Any] = {
    "nn.ReLU": nn.ReLU(), "nn.ReLU in place": nn.ReLU(inplace=True), "F.relu": F.relu, "torch.relu": torch.relu,
    "F.relu in place": lambda x: F.relu(x, inplace=True), "F.relu_": F.relu_, "x.relu": lambda x: x.relu(),
    "x.relu_": lambda x: x.relu_(), "torch.relu_": torch.relu_, "clamp": lambda x: x.clamp(min=0),
    "clamp_": lambda x: x.clamp_(min=0), "clamp by place": lambda x: torch.clamp(x, 0.0),
    "clamp_min": lambda x: x.clamp_min(0), "clamp_min_": lambda x: torch.clamp_min_(x, 0.0),
    "clip": lambda x: torch.clip(x, min=0), "input by name": lambda x: F.relu(input=x), "twice": Doubled(),
    "on a view": on_a_view, "in parts": by_assignment,
}  # fmt: skip
RELU6S: dict[str, Any] = {
    "nn.ReLU6": nn.ReLU6(), "nn.ReLU6 in place": nn.ReLU6(inplace=True), "F.relu6": F.relu6,
    "F.relu6 in place": lambda x: F.relu6(x, inplace=True), "nn.Hardtanh": nn.Hardtanh(0, 6),
    "F.hardtanh": lambda x: F.hardtanh(x, 0.0, 6.0), "F.hardtanh_": lambda x: F.hardtanh_(x, min_val=0.0, max_val=6.0),
    "clamp": lambda x: x.clamp(0, 6), "clamp_": lambda x: x.clamp_(min=0, max=6), "clip": lambda x: torch.clip(x, 0, 6),
}  # fmt: skip
