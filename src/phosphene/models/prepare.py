"""A network made ready for reading: a frozen copy that gives the same outputs and is about twice as fast on a CPU.

The copy is in eval mode, its parameters ask for no gradient, its memory layout is channels_last, "same" padding
costs nothing, and each batch norm that directly follows a convolution is folded into it:

    BN(W x + b) = g (W x + b - mean) / sqrt(var + eps) + beta  =  W' x + b'

The user's module is never touched.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.models.hooks import lent
from phosphene.models.same import SameConv2d, is_same

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Prepared:
    """`module`: the copy. `folded`: convolution name -> name of the batch norm that it has swallowed."""

    module: nn.Module
    folded: dict[str, str] = field(default_factory=dict)

    def changed(self, name: str) -> bool:
        """Whether the module `name` gives something else than in the user's network.

        That is so for a folded convolution, and for a container of it that doesn't hold the batch norm, too.
        """
        inside = f"{name}."
        return name in self.folded or any(
            conv.startswith(inside) and not norm.startswith(inside) for conv, norm in self.folded.items()
        )


class CopyError(Exception):
    """A module that `copy.deepcopy` can't copy."""


class FoldedNormAct(nn.Module):
    """What is left of timm's BatchNormAct2d once its affine part lives in the convolution before it."""

    def __init__(self, drop: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.drop = drop
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to the same shape."""
        return self.act(self.drop(x))


def prepare(module: nn.Module, example: Tensor, *, fold: bool = True) -> Prepared:
    """Copy `module` for inference. `example`: one normalised input `[1, C, H, W]` on the module's device.

    Folding is kept only if it is proved harmless: the outputs for `example` differ by at most 1e-4 of their largest
    value. Modules whose forward looks into its batch norms, or that use a convolution's output twice, stay unfolded.

    Raises:
        CopyError: the module can't be copied.
    """
    plain = _frozen_copy(module)
    if not fold:
        return Prepared(plain)
    pairs = _conv_bn_pairs(plain, example)
    same = [name for name, child in plain.named_modules() if name and is_same(child)]
    if not pairs and not same:
        return Prepared(plain)
    folded = _frozen_copy(plain)
    try:
        for conv_name, bn_name in pairs.items():
            _fold(folded, conv_name, bn_name)
        for name in same:
            _replace(folded, name, SameConv2d(folded.get_submodule(name)))
        agreed = _agree(plain, _channels_last(folded), example)
    except Exception:
        agreed = False  # a forward that reads attributes of its batch norms: leave the network as it is
    return Prepared(folded, pairs) if agreed else Prepared(plain)


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor of a module's output: itself, or the first found in a tuple, list or dict; else None."""
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else ()
    return next((found for item in items if (found := first_tensor(item)) is not None), None)


def _frozen_copy(module: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(module)
    except Exception as problem:  # locks, handles, weights that are no leaves of the graph: each raises its own
        raise CopyError(str(problem)) from problem
    for child in twin.modules():
        child.training = False
    for parameter in twin.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return _channels_last(twin)


def _channels_last(module: nn.Module) -> nn.Module:
    """In place. Not `module.to`, which refuses a network that also has weights of five dimensions."""
    return module._apply(lambda t: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t)


def _conv_bn_pairs(module: nn.Module, example: Tensor) -> dict[str, str]:
    """Names of the convolutions whose output object is exactly what a batch norm reads, each of them called once."""
    made_by: dict[int, tuple[str, int]] = {}
    alive: list[Tensor] = []  # keeps ids from being used again
    pairs: dict[str, str] = {}
    calls: dict[str, int] = {}

    def after_conv(name: str, output: Any) -> None:
        calls[name] = calls.get(name, 0) + 1
        made_by[id(output)] = name, output._version
        alive.append(output)

    def before_norm(name: str, x: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        conv, version = made_by.get(id(x), ("", 0))
        if conv and version == x._version:  # nothing has worked on it in place
            pairs[conv] = name

    handles = []
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d):
            handles.append(child.register_forward_hook(lambda _m, _i, out, name=name: after_conv(name, out)))
        elif _foldable_norm(child):
            handles.append(child.register_forward_pre_hook(lambda _m, args, name=name: before_norm(name, args[0])))
    with lent(handles), torch.no_grad():
        module(example)
    return {conv: norm for conv, norm in pairs.items() if calls[conv] == 1 and calls[norm] == 1}


def _foldable_norm(module: nn.Module) -> bool:
    known = type(module) is nn.BatchNorm2d or (
        type(module).__name__ == "BatchNormAct2d" and hasattr(module, "drop") and hasattr(module, "act")
    )
    return known and getattr(module, "running_mean", None) is not None


def _fold(root: nn.Module, conv_name: str, bn_name: str) -> None:
    conv: Any = root.get_submodule(conv_name)
    norm: Any = root.get_submodule(bn_name)
    with torch.no_grad():
        scale = torch.rsqrt(norm.running_var.double() + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight.double()
        bias = -norm.running_mean.double() * scale
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        if conv.bias is not None:
            bias = bias + conv.bias.double() * scale
        weight = conv.weight.double() * scale.view(-1, 1, 1, 1)
        conv.weight = nn.Parameter(weight.to(conv.weight).contiguous(memory_format=torch.channels_last), False)
        conv.bias = nn.Parameter(bias.to(conv.weight), False)
    rest = nn.Identity() if type(norm) is nn.BatchNorm2d else FoldedNormAct(norm.drop, norm.act)
    _replace(root, bn_name, rest)


def _replace(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(root.get_submodule(parent), leaf, module.eval())


def _agree(one: nn.Module, other: nn.Module, example: Tensor) -> bool:
    with torch.no_grad():
        a, b = first_tensor(one(example)), first_tensor(other(example))
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= TOLERANCE * a.abs().max().clamp(min=1e-3))


class Stamp:
    """Tells whether a module is still what it was: its parts, and its tensors' places, versions and values.

    Of the values a few of each tensor are compared, for writes through `.data`, which no version counts.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = list(module.modules())
        self._tensors = _tensors(self._parts)
        self._probes = [probes for group in _by_kind(self._tensors) if (probes := _probes(group))]
        self._places = _places(self._tensors)
        self._values = [_bits(probes) for probes in self._probes]

    def holds(self, module: nn.Module) -> bool:
        """Whether nothing has been replaced, moved or written to."""
        parts = list(module.modules())
        return (
            len(parts) == len(self._parts)
            and all(one is other for one, other in zip(parts, self._parts))
            and _places(_tensors(parts)) == self._places
            and all(torch.equal(_bits(probes), bits) for probes, bits in zip(self._probes, self._values))
        )


def _tensors(parts: Iterable[nn.Module]) -> list[Tensor]:
    held = (itertools.chain(part._parameters.values(), part._buffers.values()) for part in parts)
    return [tensor for tensor in itertools.chain.from_iterable(held) if tensor is not None]


def _places(tensors: Iterable[Tensor]) -> list[tuple[int, int]]:
    return [(tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version) for tensor in tensors]


def _by_kind(tensors: Iterable[Tensor]) -> Iterable[list[Tensor]]:
    """Those with values to look at, by type and place."""
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.numel() and not tensor.is_meta and not tensor.is_quantized:
            groups.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return groups.values()


def _probes(tensors: list[Tensor]) -> list[Tensor]:
    """Views of up to four values of each tensor, the first among them."""
    views = []
    for tensor in tensors:
        count = min(4, tensor.numel())
        step = (tensor.numel() - 1) // max(1, count - 1)
        last = tensor.storage_offset() + (count - 1) * step
        if (last + 1) * tensor.element_size() <= tensor.untyped_storage().nbytes():
            views.append(tensor.detach().as_strided((count,), (step,)))
    return views


def _bits(probes: list[Tensor]) -> Tensor:
    return torch.cat(probes).view(torch.uint8)  # bits, so that a NaN equals itself


@contextmanager
def borrowed(module: nn.Module) -> Iterator[nn.Module]:
    """`module` itself in eval mode and without parameter gradients, for the rare module that can't be copied.

    Every mode and every `requires_grad` is given back afterwards, on exceptions too.
    """
    modes = [(child, child.training) for child in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for child, _ in modes:
            child.training = False
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield module
    finally:
        for child, mode in modes:
            child.training = mode
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
