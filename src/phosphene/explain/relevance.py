"""The rules of layer-wise relevance propagation, as backward rules.

A neuron hands its relevance R_j down to its inputs in shares. Here c = R / a travels instead of R itself, where a is the
neuron's output: then sums, poolings, concatenations and views share as a gradient does, and only layers with weights and
activations need a rule of their own.

    activation a = f(z):     c_z = c_a f(z) / z                                    (the relevance passes unchanged)
    residual sum a = x + y:  c_x = c_y = c_a                                       (each branch by its share in the sum)
    epsilon:  c_i = sum_j w_ij s_j,   s_j = c_j a_j / (z_j + epsilon sign z_j),    z_j = sum_i x_i w_ij + b_j
    gamma:    the same with w + gamma max(w, 0) in z and in the sum
    box:      R_i = sum_j (x_i w_ij - l_i w_ij^+ - h_i w_ij^-) s_j, for pixels in [l, h]

Bach et al., "On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance Propagation", PLOS ONE
2015 (epsilon); Montavon et al., "Layer-Wise Relevance Propagation: An Overview", 2019 (gamma, composite, c); Andeol et al.,
"Learning Domain Invariant Representations by Joint Wasserstein Distance Minimization", 2021 (gamma for signed inputs);
Montavon et al., "Explaining Nonlinear Classification Decisions with Deep Taylor Decomposition", 2017 (box).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.explain.relus import argument, as_relu, first

TINY = 1e-12  # stands for an input of zero where a relevance is divided by it


@dataclass(frozen=True, eq=False)
class Layer:
    """One call of a layer with weights: `run(x, weight, bias)` is linear in `x` but for the bias."""

    run: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """`W x + b` with a weight and a bias of one's own, or those of the layer (then without bias)."""
        return self.run(x, self.weight if weight is None else weight, bias)

    def back(self, s: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """`W^T s`, of the shape of `x`."""
        with torch.enable_grad():
            leaf = torch.zeros_like(x).requires_grad_()
            return torch.autograd.grad(self.run(leaf, weight, None), leaf, s)[0]


Share: TypeAlias = Callable[[Layer, Tensor, Tensor, Tensor], Tensor]
"""`(layer, x, R, z) -> c of x`: how a layer hands down the relevance `R` of its outputs `z`."""


@dataclass(frozen=True)
class Epsilon:
    """In proportion to x w; `epsilon` takes what outputs near zero would blow up. `bias`: whether biases get their share."""

    epsilon: float
    bias: bool

    def __call__(self, layer: Layer, x: Tensor, relevance: Tensor, z: Tensor) -> Tensor:
        """See `Share`."""
        if layer.bias is not None and not self.bias:
            z = layer(x)
        return layer.back(relevance / stabilised(z, self.epsilon), x, layer.weight)


@dataclass(frozen=True)
class Gamma:
    """As `Epsilon`, but what speaks for the output's own sign counts 1 + `gamma` times."""

    epsilon: float
    gamma: float
    bias: bool

    def __call__(self, layer: Layer, x: Tensor, relevance: Tensor, z: Tensor) -> Tensor:
        """See `Share`."""
        up, down = (layer.weight + self.gamma * layer.weight.clamp(**side) for side in (_POSITIVE, _NEGATIVE))
        b = layer.bias if self.bias else None
        b_up, b_down = (None if b is None else b + self.gamma * b.clamp(**side) for side in (_POSITIVE, _NEGATIVE))
        if not bool((x < 0).any()):
            for_up, for_down = layer(x, up, b_up), layer(x, down, b_down)
        else:  # a negative input speaks for an output through a weight of the output's opposite sign
            plus, minus = x.clamp(min=0), x.clamp(max=0)
            for_up = layer(plus, up, b_up) + layer(minus, down)
            for_down = layer(plus, down, b_down) + layer(minus, up)
        s_up = torch.where(z > 0, relevance / stabilised(for_up, self.epsilon), 0)
        s_down = torch.where(z < 0, relevance / stabilised(for_down, self.epsilon), 0)
        of_plus = layer.back(s_up, x, up) + layer.back(s_down, x, down)
        if not bool((x < 0).any()):
            return of_plus
        return torch.where(x < 0, layer.back(s_up, x, down) + layer.back(s_down, x, up), of_plus)


@dataclass(frozen=True, eq=False)
class Box:
    """For the layer that sees the image, whose inputs lie in [`low`, `high`] and have no zero that means "nothing"."""

    low: Tensor
    high: Tensor
    epsilon: float

    def __call__(self, layer: Layer, x: Tensor, relevance: Tensor, z: Tensor) -> Tensor:
        """See `Share`."""
        low, high = self.low.to(x).expand_as(x), self.high.to(x).expand_as(x)
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        s = relevance / stabilised(layer(x) - layer(low, up) - layer(high, down), self.epsilon)
        shares = x * layer.back(s, x, layer.weight) - low * layer.back(s, x, up) - high * layer.back(s, x, down)
        return shares / no_zeros(x)


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """`z + epsilon sign(z)`, with sign(0) = 1."""
    return torch.where(z < 0, z - epsilon, z + epsilon)


def no_zeros(x: Tensor) -> Tensor:
    """`x` with something tiny in the place of zeros."""
    return x.masked_fill(x == 0, TINY)


_POSITIVE: dict[str, Any] = {"min": 0}
_NEGATIVE: dict[str, Any] = {"max": 0}


class _Weighted(torch.autograd.Function):
    """A layer with weights that hands c down by a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Layer, share: Share) -> Tensor:
        ctx.save_for_backward(x)
        ctx.layer, ctx.share = layer, share
        return layer(x, bias=layer.bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        z = ctx.layer(x, bias=ctx.layer.bias)  # anew: what follows may have worked on it in place
        return ctx.share(ctx.layer, x, grads[0] * z, z), None, None


class _Passing(torch.autograd.Function):
    """An activation f that passes the relevance on unchanged: c_z = c_a f(z) / z."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(z)
        ctx.f = f
        return f(z)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (z,) = ctx.saved_tensors
        a = ctx.f(z)  # anew: what follows may have worked on it in place
        return torch.where(z == 0, 0, grads[0] * a / no_zeros(z)), None


_THROUGH_ZERO = {F.silu, F.hardswish, F.gelu, F.leaky_relu, F.mish, F.elu, F.celu, F.selu, torch.tanh, Tensor.tanh}
"""Other activations with f(0) = 0, so that no relevance is lost where there was none."""


class Propagation:
    """LRP as a backward rule, for one forward pass.

    Args:
        conv, linear: how these layers share.
        image: how the first layer of the pass does; None: as its kind does.
    """

    covers = "ReLU, ReLU6, leaky ReLU, SiLU, hardswish, GELU, Mish, ELU and tanh"
    functions = (_Weighted, _Passing)
    unknown = frozenset({
        "Convolution", "MkldnnConvolution", "CudnnConvolution", "ThnnConv2D", "SlowConv2D", "ConvDepthwise2D", "Addmm",
        "Mm", "Mv", "Bmm", "Baddbmm", "Einsum", "Dot", "Linear", "MkldnnLinear", "NativeBatchNorm", "CudnnBatchNorm",
        "MiopenBatchNorm",
    })  # fmt: skip

    def __init__(self, name: str, conv: Share, linear: Share, norm: Share, image: Share | None = None) -> None:
        self.name = name
        self._conv, self._linear, self._norm, self._image = conv, linear, norm, image

    def replace(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """See `Rule`."""
        found = as_weighted(func, args, kwargs)
        if found is not None and found[0].requires_grad and not found[1].weight.requires_grad:
            x, layer, kind = found
            share = {"conv": self._conv, "linear": self._linear, "norm": self._norm}[kind]
            if self._image is not None and kind != "norm":
                share, self._image = self._image, None
            return _applied(_Weighted, x, layer, share)
        return self._activation(func, args, kwargs)

    def _activation(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        from phosphene.explain.rules import overwritten

        relu = as_relu(func, args, kwargs)
        if relu is not None:
            x, high, in_place = relu
            f: Callable[[Tensor], Tensor] = lambda z: z.clamp(0, high)  # noqa: E731
        elif func in _THROUGH_ZERO:
            x, in_place = first(args, kwargs), bool(kwargs.get("inplace"))
            rest, named = args[1:], {key: value for key, value in kwargs.items() if key not in ("inplace", "input")}
            f = lambda z: func(z, *rest, **named)  # noqa: E731
        else:
            return None
        if not x.requires_grad:
            return None
        y = _applied(_Passing, x.clone() if in_place else x, f)
        return overwritten(x, y) if in_place else y


def _applied(function: type[torch.autograd.Function], *given: Any) -> Tensor:
    made = function.apply(*given)
    assert isinstance(made, Tensor)
    return made


def as_weighted(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Layer, str] | None:
    """`(x, layer, kind)` if this call is a convolution, a linear layer or a batch norm by running statistics; else None."""
    if func is torch.conv2d or func is F.conv2d:
        rest = {
            name: argument(args, kwargs, place, name, usual)
            for place, (name, usual) in enumerate((("stride", 1), ("padding", 0), ("dilation", 1), ("groups", 1)), 3)
        }
        weight, bias = argument(args, kwargs, 1, "weight", None), argument(args, kwargs, 2, "bias", None)
        return first(args, kwargs), Layer(lambda x, w, b: F.conv2d(x, w, b, **rest), weight, bias), "conv"
    if func is F.linear:
        weight, bias = argument(args, kwargs, 1, "weight", None), argument(args, kwargs, 2, "bias", None)
        return first(args, kwargs), Layer(F.linear, weight, bias), "linear"
    if func is F.batch_norm:
        return _as_norm(args, kwargs)
    return None


def _as_norm(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Layer, str] | None:
    """A batch norm is a scale and a shift for each channel."""
    x = first(args, kwargs)
    names = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    usual = (None, None, None, None, False, 0.1, 1e-5)
    mean, variance, weight, bias, training, _, eps = (
        argument(args, kwargs, place, name, value)
        for place, (name, value) in enumerate(zip(names, usual, strict=True), 1)
    )
    if training or mean is None or variance is None:
        return None
    scale = torch.rsqrt(variance + eps) * (1 if weight is None else weight)
    shift = -mean * scale + (0 if bias is None else bias)
    shape = (1, -1, *[1] * (x.ndim - 2))

    def run(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = x * weight.view(shape)
        return y if bias is None else y + bias.view(shape)

    return x, Layer(run, scale, shift), "norm"
