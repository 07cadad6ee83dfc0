"""Backward rules: what replaces the derivative of a non-linearity while a network is being read.

A rule is a mode that sees every torch function called in its scope, so it finds a ReLU wherever it hides: `nn.ReLU`,
`F.relu`, `x.relu_()`, `x.clamp(min=0)`, ReLU6, a module that is used many times. What the mode can't see (a scripted or
C++ op, an activation without a rule) still appears in the autograd graph, which is checked before the backward pass:
no network is ever given a plain gradient under the name of a guided one. Two things that the graph doesn't show are
noted in it by the mode: factors that were made from the image without a gradient, such as the mask in `x * (x > 0)`,
and what kind of change was made in place to a part of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from phosphene.errors import RuleError
from phosphene.models import Network
from phosphene.models.hooks import lent

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
        if found is None or not found[0].requires_grad:
            result = func(*args, **kwargs)
            _note(func, args, kwargs, result)
            return result
        x, high, in_place = found
        y = self._apply(x, high)
        if not in_place:
            return y
        x.copy_(y)
        _note_linear_change(x)
        return x


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


# -- what the graph doesn't show ---------------------------------------------------------------------------------

_ADDS_IN_PLACE = {
    Tensor.copy_, Tensor.add_, Tensor.sub_, Tensor.zero_, Tensor.fill_, Tensor.__iadd__, Tensor.__isub__,
}  # fmt: skip
_LIKE_ANOTHER = ("to", "type_as", "expand_as", "view_as", "reshape_as")  # values of the first, form of the second
_NOTE = "phosphene"  # key in the metadata of a graph node
_MADE_FROM_IMAGE = "_phosphene_made_from_image"


def _note(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Write into the graph what it doesn't show of the call `result = func(*args, **kwargs)`."""
    name = getattr(func, "__name__", "")
    if name.startswith("new_") or name.endswith("_like"):
        return  # constants
    given = list(_tensors_in(args[0] if name in _LIKE_ANOTHER else (args, kwargs)))
    active = any(tensor.requires_grad for tensor in given)
    hidden = any(hasattr(tensor, _MADE_FROM_IMAGE) for tensor in given)
    for made in _tensors_in(result) if active or hidden else ():
        if not made.requires_grad:
            setattr(made, _MADE_FROM_IMAGE, True)
        elif hidden and made.grad_fn is not None and _kind(made.grad_fn) in (*_FACTORS, "Add", "Sub", "Rsub"):
            _notes(made.grad_fn)[_NOTE] = "factor"
    if func in _ADDS_IN_PLACE or (func is Tensor.__setitem__ and not any(True for _ in _tensors_in(args[1]))):
        _note_linear_change(args[0])


def _note_linear_change(x: Tensor) -> None:
    for changed in (x, x._base):
        if changed is not None and changed.grad_fn is not None and _kind(changed.grad_fn) == "CopySlices":
            _notes(changed.grad_fn)[_NOTE] = "linear"


def _notes(node: Any) -> dict[str, str]:
    return node.metadata


def _tensors_in(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (tuple, list, dict)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _tensors_in(value)


# -- proof that nothing was missed ------------------------------------------------------------------------------

_HARMLESS = frozenset({
    "AccumulateGrad", "Alias", "AsStrided", "Clone", "CopyBackwards", "Contiguous", "ToCopy", "Detach",
    "View", "UnsafeView", "ReshapeAlias", "Reshape", "Permute", "Transpose", "T", "Expand", "Squeeze", "Unsqueeze",
    "Flatten", "Unflatten", "Select", "Slice", "Index", "IndexSelect", "Gather", "Split", "SplitWithSizes", "Chunk",
    "Unbind", "Cat", "Stack", "Roll", "Flip", "ConstantPadNd", "ReflectionPad2D", "ReplicationPad2D", "PixelShuffle",
    "PixelUnshuffle", "Repeat", "Narrow", "Add", "Sub", "Rsub", "Neg", "Mul", "Div", "Sum", "Mean", "Addmm", "Mm",
    "Mv", "Bmm", "Baddbmm", "Einsum", "Dot", "Convolution", "MkldnnConvolution", "CudnnConvolution", "ThnnConv2D",
    "SlowConv2D", "ConvDepthwise2D", "Linear", "MkldnnLinear", "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm",
    "AvgPool2D", "AdaptiveAvgPool2D", "MkldnnAdaptiveAvgPool2D", "MaxPool2DWithIndices", "MkldnnMaxPool2D",
    "AdaptiveMaxPool2D", "Max", "Amax", "UpsampleBilinear2D", "UpsampleNearest2D", "UpsampleBicubic2D",
})  # fmt: skip
"""Nodes of the autograd graph that are linear in their one input, or choose among its values (poolings, maxout)."""

_FACTORS = {
    "Mul": (0, 1), "Div": (0, 1), "Mm": (0, 1), "Mv": (0, 1), "Dot": (0, 1), "Bmm": (0, 1), "Addmm": (1, 2),
    "Baddbmm": (1, 2), "Linear": (0, 1), "MkldnnLinear": (0, 1), "Convolution": (0, 1), "MkldnnConvolution": (0, 1),
    "CudnnConvolution": (0, 1), "ThnnConv2D": (0, 1), "SlowConv2D": (0, 1), "ConvDepthwise2D": (0, 1),
    "NativeBatchNorm": (0, 1), "CudnnBatchNorm": (0, 1), "MiopenBatchNorm": (0, 1),
}  # fmt: skip
"""Of the nodes that multiply, which inputs are the factors: linear only where one of them alone is made from the image."""


def refuse_unruled(scores: Tensor, *, network: Network, images: Tensor, what: str) -> None:
    """Raise a RuleError if the graph of `scores` holds an operation that `what` has no rule for."""
    bad = _unruled([scores.grad_fn])
    if bad is None:
        return
    module = _module_that_made(bad, network, images)
    where = f"module '{module}' of {network.name}" if module else network.name
    raise RuleError(
        f"{what} has no rule for {bad} ({where}): it is defined for ReLU and ReLU6; "
        "saliency and grad-cam work for this network"
    )


def _kind(node: Any) -> str:
    """`"Convolution"` of a ConvolutionBackward0."""
    return node.name().rsplit("::", 1)[-1].rstrip("0123456789").removesuffix("Backward")


def _unruled(nodes: Iterable[Any], known: Iterable[Any] = ()) -> str | None:
    """What the graph above `nodes` does that is neither linear, nor a pooling, nor a replaced ReLU; up to `known`."""
    stack, seen = list(nodes), set(known)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (problem := _problem(node)) is not None:
            return problem
        stack.extend(parent for parent, _ in node.next_functions)
    return None


def _problem(node: Any) -> str | None:
    """What to call this node of the graph, if there is no rule for it."""
    kind = _kind(node)
    if isinstance(node, BackwardCFunction):  # a torch.autograd.Function, which may have any name
        return None if getattr(node, "_forward_cls", None) is _GuidedReLU else kind
    if kind == "CopySlices":
        return None if _notes(node).get(_NOTE) == "linear" else "a change in place of a part of a tensor"
    if kind not in _HARMLESS:
        return kind
    if _notes(node).get(_NOTE) == "factor":
        return f"{kind} of two things made from the image"
    if getattr(node, "_saved_training", False):
        return f"{kind} by the image's own statistics"
    if kind in _FACTORS:
        active = [parent is not None for parent, _ in node.next_functions]
        factors = [place < len(active) and active[place] for place in _FACTORS[kind]]
        if all(factors) or (kind == "Div" and factors[1]):
            return f"{kind} of two things made from the image"
    return None


def _module_that_made(bad: str, network: Network, images: Tensor) -> str | None:
    """The innermost module that does what `_unruled` calls `bad`."""
    found: list[str] = []
    given: dict[str, list[Any]] = {}

    def enter(name: str, inputs: tuple[Any, ...]) -> None:
        given[name] = [tensor.grad_fn for tensor in _tensors_in(inputs)]

    def leave(name: str, output: object) -> None:
        if not found and _unruled([tensor.grad_fn for tensor in _tensors_in(output)], given[name]) == bad:
            found.append(name)

    handles = []
    for name, child in network.prepared.named_modules():
        if name and not isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            handles.append(child.register_forward_pre_hook(lambda _m, args, name=name: enter(name, args)))
            handles.append(child.register_forward_hook(lambda _m, _i, out, name=name: leave(name, out)))
    with lent(handles), torch.enable_grad(), GuidedRule():
        network.output(images[:1].to(network.mean).detach().requires_grad_())
    return found[0] if found else None
