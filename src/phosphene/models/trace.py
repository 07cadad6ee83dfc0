"""Which modules run, in which order, how often, and what they give: one dry run, watched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene.models.hooks import lent
from phosphene.models.prepare import first_tensor


@dataclass(frozen=True)
class Call:
    """One call of a module that gave a tensor: `index` counts the calls of the same module from 1."""

    name: str
    index: int
    shape: tuple[int, ...]
    leaf: bool


@dataclass(frozen=True)
class Trace:
    """The calls of one forward pass in order of completion."""

    calls: tuple[Call, ...]
    activation_bytes: int

    def count(self, name: str) -> int:
        """How often the module `name` is called."""
        return sum(call.name == name for call in self.calls)

    def position(self, name: str, index: int) -> int:
        """The place of the `index`-th call of `name` in the order of completion."""
        return next(i for i, call in enumerate(self.calls) if call.name == name and call.index == index)


def trace(module: nn.Module, example: Tensor) -> Trace:
    """Run `module` once on `example` `[1, C, H, W]` without gradients and list what ran."""
    calls: list[Call] = []
    counts: dict[str, int] = {}
    total = 0

    def watch(name: str, child: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        nonlocal total
        tensor = first_tensor(output)
        if tensor is None:
            return
        counts[name] = counts.get(name, 0) + 1
        leaf = next(child.children(), None) is None
        if leaf and not (inputs and tensor is inputs[0]):  # identities and sleeping dropouts cost nothing
            total += tensor.numel() * tensor.element_size()
        calls.append(Call(name, counts[name], tuple(tensor.shape), leaf))

    handles = [
        child.register_forward_hook(lambda _m, given, out, name=name, child=child: watch(name, child, given, out))
        for name, child in module.named_modules()
        if name and not isinstance(child, torch.jit.ScriptModule)  # which takes no hooks
    ]
    with lent(handles), torch.no_grad():
        module(example)
    return Trace(tuple(calls), total)
