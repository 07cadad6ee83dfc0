"""Backward rules: what replaces the derivative of an operation while a network is being read.

A rule acts in a mode that sees every torch function called in its scope, so it finds a ReLU wherever it hides: `nn.ReLU`,
`F.relu`, `x.relu_()`, a module that is used many times. That it has missed nothing is proved from the graph (`proof`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from phosphene.explain.proof import Proved, note, note_linear_change, refuse_unruled
from phosphene.explain.relus import as_relu
from phosphene.explain.target import Aim, Forward, scores
from phosphene.models import Network


class Rule(Proved, Protocol):
    """A backward rule."""

    def replace(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What stands for the call `func(*args, **kwargs)`; None to leave it as it is."""
        ...


class Ruled(TorchFunctionMode):
    """What runs in its scope obeys a rule on the way back.

    Args:
        rule: the rule.
        noting: also write into the graph what it doesn't show by itself, for the proof.
    """

    def __init__(self, rule: Rule, *, noting: bool = True) -> None:
        super().__init__()
        self._rule = rule
        self._noting = noting

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        replaced = self._rule.replace(func, args, kwargs)
        if replaced is not None:
            return replaced
        result = func(*args, **kwargs)
        if self._noting:
            note(func, args, kwargs, result)
        return result


class _PlainReLU(torch.autograd.Function):
    """min(max(x, 0), high) with its own derivative, from its output; PyTorch's in-place ReLU6 copies its input first."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None, in_place: bool) -> Tensor:
        y = clipped(ctx, x, high, in_place)
        ctx.save_for_backward(y)
        ctx.high = high
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], y, 0.0, ctx.high), None, None


class _GuidedReLU(torch.autograd.Function):
    """min(max(x, 0), high) with guided backpropagation's rule: positive gradients of active units."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None, in_place: bool) -> Tensor:
        y = clipped(ctx, x, high, in_place)
        ctx.save_for_backward(y)  # which the next layer keeps anyway
        ctx.high = high
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (y,) = ctx.saved_tensors
        if ctx.high is None:
            active = torch.ops.aten.threshold_backward(grads[0], y, 0.0)
        else:
            active = torch.ops.aten.hardtanh_backward(grads[0], y, 0.0, ctx.high)
        return active.clamp_(min=0), None, None


class _DeconvReLU(torch.autograd.Function):
    """min(max(x, 0), high) with the deconvnet's rule: positive gradients, whichever units are active."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, high: float | None, in_place: bool) -> Tensor:
        return clipped(ctx, x, high, in_place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].clamp(min=0), None, None


def clipped(ctx: Any, x: Tensor, high: float | None, in_place: bool) -> Tensor:
    """The forward pass of a ReLU, or with an upper bound of a ReLU6, in an autograd function with the context `ctx`."""
    if in_place:
        ctx.mark_dirty(x)
    return F.relu(x, in_place) if high is None else F.hardtanh(x, 0.0, high, in_place)


@dataclass(frozen=True)
class ReLURule:
    """A rule for ReLUs: `relu` is an autograd function of `(x, upper bound or None, in place)` that has it.

    `bounded_only`: leave all but in-place ReLU6 alone.
    """

    name: str
    relu: type[torch.autograd.Function]
    covers: str = "ReLU and ReLU6"
    unknown: frozenset[str] = frozenset()
    bounded_only: bool = False

    @property
    def functions(self) -> tuple[type[torch.autograd.Function], ...]:
        """See `Proved`."""
        return (self.relu,)

    def replace(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """See `Rule`."""
        found = as_relu(func, args, kwargs)
        if found is None or not found[0].requires_grad:
            return None
        x, high, in_place = found
        if self.bounded_only and (high is None or not in_place):
            return None
        part = in_place and x._base is not None  # of another tensor, which autograd lets nobody but itself change
        y = self.relu.apply(x, high, in_place and not part)
        assert isinstance(y, Tensor)
        return overwritten(x, y) if part else y


def overwritten(x: Tensor, y: Tensor) -> Tensor:
    """`x` with the values of `y`, the result of an operation in place."""
    x.copy_(y)
    note_linear_change(x)
    return x


_PLAIN = ReLURule("the gradient", _PlainReLU, bounded_only=True)
GUIDED = ReLURule("guided backpropagation", _GuidedReLU)
DECONVNET = ReLURule("the deconvnet", _DeconvReLU)


def plain_scores(network: Network, images: Tensor, aim: Aim) -> Tensor:
    """`scores` with their own derivative, only faster."""
    with Ruled(_PLAIN, noting=False):
        return scores(network, images, aim)


def ruled(rule: Rule) -> Forward:
    """The forward pass to the scores whose backward pass obeys `rule`.

    Raises (when called):
        RuleError: the network has an operation that the rule is not defined for.
    """
    return partial(scores_by, lambda: rule)


def scores_by(make: Callable[[], Rule], network: Network, images: Tensor, aim: Aim) -> Tensor:
    """The scores `[N, K]` under the rule that `make` makes, anew for each pass.

    The graph is proved once for a rule, a network, a place to read at and a size, and then trusted.
    """
    rule = make()
    proved = _PROVED.setdefault(network.prepared, set())
    key = (rule.name, aim.log, aim.unit and aim.unit.layer, images.shape[2:])
    if key in proved:
        with Ruled(rule, noting=False):
            return scores(network, images, aim)
    with Ruled(rule):
        found = scores(network, images, aim)
    refuse_unruled(found, rule=rule, ruling=Ruled(make()), network=network, images=images)
    if network.prepared is not network.module:  # which its owner may change without our knowing
        proved.add(key)
    return found


_PROVED: WeakKeyDictionary[nn.Module, set[tuple[Hashable, ...]]] = WeakKeyDictionary()
