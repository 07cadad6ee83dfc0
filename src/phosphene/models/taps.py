"""Taps: read what a network computes at named layers, and run no more of it than that needs.

A tap is a forward hook that lives inside a context manager. When all layers asked for have run, the forward pass is
stopped. Where a gradient with respect to an inner layer is wanted, the pass is *cut* there: everything before runs
without a graph, and the layer's output becomes the leaf that the gradient is taken for.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models.prepare import first_tensor


class Stop(BaseException):
    """Ends a forward pass early. Not an Exception: a model's own `except Exception` must not swallow it."""


@dataclass(frozen=True)
class Tap:
    """The output of the `index`-th call of module `name` (counted from 1)."""

    name: str
    index: int


@dataclass(frozen=True)
class Recording:
    """`layers`: what the taps read. `output`: the network's own output, None when the pass was stopped early."""

    layers: dict[Tap, Tensor]
    output: Tensor | None


def read(
    module: nn.Module,
    x: Tensor,
    taps: Sequence[Tap],
    *,
    to_end: bool = False,
    cut: Tap | None = None,
    cloned: set[Tap] | None = None,
) -> Recording:
    """Run `module` on `x` (normalised, `[N, C, H, W]`) and record `taps`.

    Args:
        module: the prepared network.
        x: its input.
        taps: what to record; none with `to_end` is a plain forward pass.
        to_end: go on to the network's output instead of stopping after the last tap.
        cut: of the taps, the one whose output becomes a leaf that requires a gradient; what lies before is run without
            a graph.
        cloned: taps whose output something later overwrites in place: they are copied. Kept up to date here, so
            hand in the same set each time.

    Raises:
        LayerError: a tapped layer did not run.
    """
    cloned = set() if cloned is None else cloned
    seen = _Seen(taps, to_end=to_end, cut=cut, cloned=cloned)
    output = None
    with _hooked(module, seen), suppress(Stop):
        output = first_tensor(module(x))
    missing = [tap for tap in taps if tap not in seen.outputs]
    if missing:
        raise LayerError(f"layer '{missing[0].name}' did not run for an input of {x.shape[-2]}x{x.shape[-1]} pixels")
    overwritten = {tap for tap in taps if seen.outputs[tap]._version != seen.versions[tap]}
    if overwritten:
        # Seen once per network: something after the tap works in place. Copy from now on, and run again.
        cloned |= overwritten
        return read(module, x, taps, to_end=to_end, cut=cut, cloned=cloned)
    return Recording(seen.outputs, output)


class _Seen:
    """What one forward pass has shown so far."""

    def __init__(self, taps: Sequence[Tap], *, to_end: bool, cut: Tap | None, cloned: set[Tap]) -> None:
        self.wanted = set(taps)
        self.stops = bool(taps) and not to_end
        self.cut = cut
        self.cloned = cloned
        self.calls: dict[str, int] = {}
        self.outputs: dict[Tap, Tensor] = {}
        self.versions: dict[Tap, int] = {}
        self.thread = threading.get_ident()

    def see(self, name: str, output: Any) -> Any:
        tensor = first_tensor(output)
        if tensor is None or threading.get_ident() != self.thread:  # another reader's pass through the same copy
            return None
        self.calls[name] = self.calls.get(name, 0) + 1
        tap = Tap(name, self.calls[name])
        if tap not in self.wanted:
            return None
        replacement = None
        if tap == self.cut:
            tensor = tensor.detach().clone().requires_grad_()  # of its own: what follows may work in place
            replacement = _replace_first(output, tensor.clone())
        elif tap in self.cloned:
            tensor = tensor.clone()
        self.outputs[tap] = tensor
        self.versions[tap] = tensor._version
        if self.stops and len(self.outputs) == len(self.wanted):
            raise Stop
        return replacement


@contextmanager
def _hooked(module: nn.Module, seen: _Seen) -> Iterator[None]:
    names = {tap.name for tap in seen.wanted}
    with ExitStack() as stack:
        for name in names:
            child = module.get_submodule(name)
            handle = child.register_forward_hook(lambda _m, _i, out, name=name: seen.see(name, out))
            stack.callback(handle.remove)
        yield


def _replace_first(output: Any, tensor: Tensor) -> Any:
    """`output` with its first tensor replaced."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, dict):
        key = next(k for k, v in output.items() if first_tensor(v) is not None)
        twin = copy.copy(output)  # of the same class: its makers may read it by attribute
        twin[key] = _replace_first(output[key], tensor)
        return twin
    items = list(output)
    place = next(i for i, item in enumerate(items) if first_tensor(item) is not None)
    items[place] = _replace_first(items[place], tensor)
    return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
