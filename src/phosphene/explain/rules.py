"""Backward rules: what replaces the derivative of a non-linearity while a network is being read.

A rule is a mode that sees every torch function called in its scope, so it finds a ReLU wherever it hides: `nn.ReLU`,
`F.relu`, `x.relu_()`, `x.clamp(min=0)`, ReLU6, a module that is used many times. What the mode can't see (a scripted or
C++ op, an activation without a rule) still appears in the autograd graph, which is checked before the backward pass:
no network is ever given a plain gradient under the name of a guided one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from phosphene.errors import RuleError
from phosphene.models import Network
from phosphene.models.prepare import first_tensor

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


class _GuidedReLU(torch.autograd.Function):
    """min(max(x, 0), high) with the guided backward rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None) -> Tensor:
        y = x.clamp(0, high)
        active = y > 0 if high is None else (y > 0) & (y < high)
        ctx.save_for_backward(active)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (active,) = ctx.saved_tensors
        return grads[0].clamp(min=0) * active, None


class ReLURule(TorchFunctionMode):
    """Replaces each ReLU and ReLU6 in its scope by `apply(x, high)`; everything else runs as it is."""

    def __init__(self, apply: Callable[[Tensor, float | None], Tensor]) -> None:
        super().__init__()
        self._apply = apply

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        found = _as_relu(func, args, kwargs)
        if found is None:
            return func(*args, **kwargs)
        x, high, in_place = found
        y = self._apply(x, high)
        return x.copy_(y) if in_place else y


def GuidedRule() -> ReLURule:
    """Guided backpropagation's rule for the forward passes in its scope."""
    return ReLURule(_GuidedReLU.apply)  # type: ignore[arg-type]


def _as_relu(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, float | None, bool] | None:
    """`(x, upper bound, in place)` if this call is max(x, 0) or min(max(x, 0), high); else None."""
    if func in _RELU or func in _RELU6:
        in_place = func in _IN_PLACE or bool(_argument(args, kwargs, 1, "inplace", False))
        return _first(args, kwargs), (6.0 if func in _RELU6 else None), in_place
    if func in _HARDTANH:
        low, high = _argument(args, kwargs, 1, "min_val", -1.0), _argument(args, kwargs, 2, "max_val", 1.0)
        in_place = func in _IN_PLACE or bool(_argument(args, kwargs, 3, "inplace", False))
        return (_first(args, kwargs), float(high), in_place) if low == 0 else None
    if func in _CLAMP:
        low, high = _argument(args, kwargs, 1, "min", None), _argument(args, kwargs, 2, "max", None)
        plain = isinstance(low, (int, float)) and low == 0 and (high is None or isinstance(high, (int, float)))
        return (_first(args, kwargs), None if high is None else float(high), func in _IN_PLACE) if plain else None
    return None


def _first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] if args else kwargs["input"]


def _argument(args: tuple[Any, ...], kwargs: dict[str, Any], place: int, name: str, default: Any) -> Any:
    return args[place] if len(args) > place else kwargs.get(name, default)


# -- proof that nothing was missed ------------------------------------------------------------------------------

_HARMLESS = frozenset({
    "AccumulateGrad", "Alias", "AsStrided", "Clone", "CopyBackwards", "CopySlices", "Contiguous", "ToCopy", "Detach",
    "View", "UnsafeView", "ReshapeAlias", "Reshape", "Permute", "Transpose", "T", "Expand", "Squeeze", "Unsqueeze",
    "Flatten", "Unflatten", "Select", "Slice", "Index", "IndexSelect", "Gather", "Split", "SplitWithSizes", "Chunk",
    "Unbind", "Cat", "Stack", "Roll", "Flip", "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "PixelShuffle",
    "PixelUnshuffle", "Repeat", "Narrow", "Add", "Sub", "Neg", "Mul", "Div", "Sum", "Mean", "Addmm", "Mm", "Mv", "Bmm",
    "Baddbmm", "Einsum", "Dot", "Convolution", "MkldnnConvolution", "CudnnConvolution", "ThnnConv2D", "SlowConv2D",
    "ConvDepthwise2D", "Linear", "MkldnnLinear", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "AvgPool2D",
    "AdaptiveAvgPool2D", "MkldnnAdaptiveAvgPool2D", "MaxPool2DWithIndices", "MkldnnMaxPool2D", "AdaptiveMaxPool2D",
    "Max", "Amax", "UpsampleBilinear2D", "UpsampleNearest2D", "UpsampleBicubic2D", "_GuidedReLU",
})  # fmt: skip
"""Nodes of the autograd graph that are linear in their one input, or choose among its values (poolings)."""


def refuse_unruled(scores: Tensor, *, network: Network, images: Tensor, what: str) -> None:
    """Raise a RuleError if the graph of `scores` holds an operation that `what` has no rule for."""
    bad = _unruled(scores)
    if bad is None:
        return
    module = _module_that_made(bad, network, images)
    where = f"module '{module}' of {network.name}" if module else network.name
    raise RuleError(
        f"{what} has no rule for {_operation(bad)} ({where}): it is defined for ReLU and ReLU6; "
        "saliency and grad-cam work for this network"
    )


def _operation(node: str) -> str:
    return node.rstrip("0123456789").removesuffix("Backward")


def _unruled(scores: Tensor) -> str | None:
    """The name of a node of the graph that is neither linear, nor a pooling, nor a replaced ReLU."""
    stack, seen = [scores.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = _operation(node.name().rsplit("::", 1)[-1])
        active = [parent for parent, _ in node.next_functions if parent is not None]
        gate = name in ("Mul", "Div") and len(active) > 1  # a product of two branches is no linear operation
        if name not in _HARMLESS or gate:
            return node.name()
        stack.extend(active)
    return None


def _module_that_made(node: str, network: Network, images: Tensor) -> str | None:
    """The innermost module whose output was made by a graph node of that name."""
    found: list[str] = []

    def look(name: str, output: object) -> None:
        tensor = first_tensor(output)
        if tensor is not None and tensor.grad_fn is not None and tensor.grad_fn.name() == node:
            found.append(name)

    module: nn.Module = network.prepared
    handles = [
        child.register_forward_hook(lambda _m, _i, out, name=name: look(name, out))
        for name, child in module.named_modules()
        if name
    ]
    try:
        with torch.enable_grad(), GuidedRule():
            network.output(images[:1].to(network.mean).detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None
