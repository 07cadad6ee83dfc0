"""Waking a silent unit.

Where every ReLU between the image and the objective is off, the gradient is zero and ascent can't begin. For such images
only, the gradient is let through the units that are off but would be raised by it.

Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017 (the redirected ReLU of their code's optimisation).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phosphene.explain.rules import ReLURule


class _RedirectedReLU(torch.autograd.Function):
    """min(max(x, 0), high); its derivative, except for an image that gets none at all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None) -> Tensor:
        ctx.save_for_backward(x)
        ctx.high = high
        return x.clamp(0, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        on = x > 0 if ctx.high is None else (x > 0) & (x < ctx.high)
        plain = grads[0] * on
        upward = grads[0].clamp(min=0) * (x <= 0)
        silent = plain.flatten(1).abs().amax(1) == 0
        return torch.where(silent.view(-1, *[1] * (x.ndim - 1)), upward, plain), None


def RedirectRule() -> ReLURule:
    """ReLUs in its scope pass an objective's gradient on even where all of them are off."""
    return ReLURule(_RedirectedReLU.apply)  # type: ignore[arg-type]
