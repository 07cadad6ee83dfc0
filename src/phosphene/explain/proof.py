"""The proof that a backward rule has missed nothing.

What a rule's mode can't see (a scripted or C++ op, an activation without a rule) still appears in the autograd graph, which
is checked before the backward pass: no network is ever given a plain gradient under the name of a guided one. Two things
that the graph doesn't show are noted in it while it is made: factors that were made from the image without a gradient,
such as the mask in `x * (x > 0)`, and what kind of change was made in place to a part of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from phosphene.errors import RuleError
from phosphene.models import Network
from phosphene.models.hooks import lent


class Proved(Protocol):
    """What the proof has to know of a rule."""

    @property
    def name(self) -> str:
        """As an error says it."""
        ...

    @property
    def covers(self) -> str:
        """The activations that it is defined for, as an error lists them."""
        ...

    @property
    def functions(self) -> tuple[type[torch.autograd.Function], ...]:
        """What stands in the graph where it has replaced something."""
        ...

    @property
    def unknown(self) -> frozenset[str]:
        """Operations that are harmless to others and not to it, because it would have replaced them."""
        ...


# -- what the graph doesn't show ---------------------------------------------------------------------------------

_ADDS_IN_PLACE = {
    Tensor.copy_, Tensor.add_, Tensor.sub_, Tensor.zero_, Tensor.fill_, Tensor.__iadd__, Tensor.__isub__,
}  # fmt: skip
_LIKE_ANOTHER = ("to", "type_as", "expand_as", "view_as", "reshape_as")  # values of the first, form of the second
_NOTE = "phosphene"  # key in the metadata of a graph node
_MADE_FROM_IMAGE = "_phosphene_made_from_image"


def note(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
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
        note_linear_change(args[0])


def note_linear_change(x: Tensor) -> None:
    """Write into the graph that `x`, or the tensor that it is a part of, was changed in place by something linear."""
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


def refuse_unruled(
    scores: Tensor, *, rule: Proved, ruling: AbstractContextManager[Any], network: Network, images: Tensor
) -> None:
    """Raise a RuleError if the graph of `scores` holds an operation that `rule` is not defined for.

    `ruling` is the mode in which that graph was made: the network runs in it once more to find the module to blame.
    """
    bad = _unruled([scores.grad_fn], rule)
    if bad is not None:
        raise _no_rule(rule, bad, _module_that_made(bad, rule, ruling, network, images), network)


def _no_rule(rule: Proved, bad: str, module: str | None, network: Network) -> RuleError:
    """The error that says which operation, in which module, has no rule, and which methods work."""
    from phosphene.explain.methods import METHODS

    where = f"module '{module}' of {network.name}" if module else network.name
    others = ", ".join(name for name, method in METHODS.items() if not method.needs_rule)
    return RuleError(
        f"{rule.name} has no rule for {bad} ({where}): it is defined for {rule.covers}; for this network there are {others}"
    )


def _kind(node: Any) -> str:
    """`"Convolution"` of a ConvolutionBackward0."""
    return node.name().rsplit("::", 1)[-1].rstrip("0123456789").removesuffix("Backward")


def _unruled(nodes: Iterable[Any], rule: Proved, known: Iterable[Any] = ()) -> str | None:
    """What the graph above `nodes` does that is neither linear, nor a pooling, nor replaced by the rule; up to `known`."""
    stack, seen = list(nodes), set(known)
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (problem := _problem(node, rule)) is not None:
            return problem
        stack.extend(parent for parent, _ in node.next_functions)
    return None


def _problem(node: Any, rule: Proved) -> str | None:
    """What to call this node of the graph, if there is no rule for it."""
    kind = _kind(node)
    if isinstance(node, BackwardCFunction):  # a torch.autograd.Function, which may have any name
        return None if getattr(node, "_forward_cls", None) in rule.functions else kind
    if kind == "CopySlices":
        return None if _notes(node).get(_NOTE) == "linear" else "a change in place of a part of a tensor"
    if kind not in _HARMLESS or kind in rule.unknown:
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


def _module_that_made(
    bad: str, rule: Proved, ruling: AbstractContextManager[Any], network: Network, images: Tensor
) -> str | None:
    """The innermost module that does what `_unruled` calls `bad`."""
    found: list[str] = []
    given: dict[str, list[Any]] = {}

    def enter(name: str, inputs: tuple[Any, ...]) -> None:
        given[name] = [tensor.grad_fn for tensor in _tensors_in(inputs)]

    def leave(name: str, output: object) -> None:
        if not found and _unruled([tensor.grad_fn for tensor in _tensors_in(output)], rule, given[name]) == bad:
            found.append(name)

    handles = []
    for name, child in network.prepared.named_modules():
        if name and not isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            handles.append(child.register_forward_pre_hook(lambda _m, args, name=name: enter(name, args)))
            handles.append(child.register_forward_hook(lambda _m, _i, out, name=name: leave(name, out)))
    with lent(handles), torch.enable_grad(), ruling:
        network.output(images[:1].to(network.mean).detach().requires_grad_())
    return found[0] if found else None
