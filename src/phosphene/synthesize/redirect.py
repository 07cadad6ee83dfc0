"""Waking a silent unit.

Where every ReLU between the image and the objective is off, the gradient is zero and ascent can't begin. For such images
only, the gradient is let through the units that are off but would be raised by it.

Olah, Mordvintsev & Schubert, "Feature Visualization", Distill 2017 (the redirected ReLU of their code's optimisation).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from phosphene.explain.rules import ReLURule, Ruled, clipped


class _RedirectedReLU(torch.autograd.Function):
    """min(max(x, 0), high); its derivative, except for an image that gets none at all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None, in_place: bool) -> Tensor:
        y = clipped(ctx, x, high, in_place)
        ctx.save_for_backward(y)
        ctx.high = high
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        on = y > 0 if ctx.high is None else (y > 0) & (y < ctx.high)
        plain = grads[0] * on
        upward = grads[0].clamp(min=0) * (y <= 0)
        silent = plain.flatten(1).abs().amax(1) == 0
        return torch.where(silent.view(-1, *[1] * (y.ndim - 1)), upward, plain), None, None


def RedirectRule() -> Ruled:
    """ReLUs in its scope pass an objective's gradient on even where all of them are off."""
    return Ruled(ReLURule("the redirected ReLU", _RedirectedReLU), noting=False)
