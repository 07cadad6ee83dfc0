"""ReLUs, however they are spelled: `nn.ReLU`, `F.relu`, `x.relu_()`, `x.clamp(min=0)`, ReLU6, ..."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_RELU = {F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
_RELU6 = {F.relu6}
_HARDTANH = {F.hardtanh, F.hardtanh_}
_CLAMP = {
    torch.clamp, torch.clamp_, Tensor.clamp, Tensor.clamp_,
    torch.clip, torch.clip_, Tensor.clip, Tensor.clip_,
    torch.clamp_min, torch.clamp_min_, Tensor.clamp_min, Tensor.clamp_min_,
}  # fmt: skip
_IN_PLACE = {
    torch.relu_, Tensor.relu_, F.hardtanh_, torch.clamp_, Tensor.clamp_, torch.clip_, Tensor.clip_,
    torch.clamp_min_, Tensor.clamp_min_,
}  # fmt: skip


def as_relu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, float | None, bool] | None:
    """`(x, upper bound, in place)` if this call is max(x, 0) or min(max(x, 0), high); else None."""
    if func in _RELU or func in _RELU6:
        in_place = func in _IN_PLACE or bool(argument(args, kwargs, 1, "inplace", False))
        return first(args, kwargs), (6.0 if func in _RELU6 else None), in_place
    if func in _HARDTANH:
        low, high = argument(args, kwargs, 1, "min_val", -1.0), argument(args, kwargs, 2, "max_val", 1.0)
        in_place = func in _IN_PLACE or bool(argument(args, kwargs, 3, "inplace", False))
        return (first(args, kwargs), float(high), in_place) if low == 0 else None
    if func in _CLAMP:
        low, high = argument(args, kwargs, 1, "min", None), argument(args, kwargs, 2, "max", None)
        plain = isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float)))
        return (first(args, kwargs), None if high is None else float(high), func in _IN_PLACE) if plain else None
    return None


def first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The tensor that a call works on."""
    return args[0] if args else kwargs["input"]


def argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any) -> Any:
    """An argument of a call, given by place or by name."""
    return args[place] if len(args) > place else kwargs.get(name, default)
