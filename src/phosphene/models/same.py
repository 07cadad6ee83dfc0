"""Convolutions with TensorFlow's "same" padding, without padding anything.

Such a convolution with stride 2 pads one pixel more after the picture than before it, which no convolution can do by itself;
timm's makes a padded copy of its input, and that copy costs a depthwise convolution most of its time. A kernel with a row and
a column of zeros before it does the same with as much padding on both sides:

    sum_k w_k x_{s i + k - lo}  =  sum_k' (0, w)_k' x_{s i + k' - (lo + 1)}
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class SameConv2d(nn.Module):
    """A depthwise `Conv2dSame` of timm, the same outputs."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.groups = conv.stride, conv.groups
        down = F.pad(conv.weight.detach(), (0, 0, 1, 0))
        weights = {"10": down, "01": F.pad(conv.weight.detach(), (1, 0, 0, 0)), "11": F.pad(down, (1, 0, 0, 0))}
        for name, weight in weights.items():
            self.register_buffer(f"weight_{name}", weight, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C, ceil(H / stride), ceil(W / stride)]`."""
        sides = zip(x.shape[-2:], self.weight.shape[-2:], self.stride, strict=True)
        totals = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size, kernel, stride in sides]
        odd = "".join(str(total % 2) for total in totals)
        weight = self.weight if odd == "00" else getattr(self, f"weight_{odd}")
        padding = [-(-total // 2) for total in totals]
        return F.conv2d(x, weight, self.bias, self.stride, padding, 1, self.groups)


def is_same(module: nn.Module) -> bool:
    """Whether `SameConv2d` can stand for this module."""
    return (
        type(module).__name__ == "Conv2dSame"
        and isinstance(module, nn.Conv2d)
        and module.groups == module.in_channels > 1
        and module.dilation == (1, 1)
    )
