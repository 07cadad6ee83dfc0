"""Shadows: beside every number that a network computes, the box of pixels that it was computed from.

A mode watches each operation of a forward pass and does to the boxes what the operation does to the numbers: a
convolution or a pooling gives the smallest box around those in its window, a sum the smallest box around its terms.
Shadows lie in a memory of their own, one for each storage, laid out as the numbers are: a view of a tensor is a view of
its shadow, and what is written in place into a part of a tensor casts its shadow there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NOWHERE = torch.iinfo(torch.int16).max
"""Each edge of the empty box, the shadow of a constant."""

Boxes: TypeAlias = dict[int, Tensor]
"""The id of a tensor -> its boxes."""


class Shadows(TorchDispatchMode):
    """Follows the pixels of `image` `[1, C, H, W]` through every operation in its scope.

    A box is four numbers, `(top, left, -bottom, -right)` with the last two exclusive, so that the smallest box around
    several is the minimum of each of the four. What an operation that is not known here gives has the smallest box
    around all that went in: never too small.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self._memory: dict[tuple[torch.device, int], tuple[torch.UntypedStorage, Tensor]] = {}
        height, width = image.shape[-2:]
        rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
        edges = [edge.expand(height, width) for edge in (rows, columns, -1 - rows, -1 - columns)]
        self._cast(image, torch.stack(edges)[:, None, None].to(image.device))

    def boxes(self, tensor: Tensor) -> Tensor | None:
        """The boxes of the numbers in `tensor`, int16 `[4, *its shape]`; None if nothing was computed from the image."""
        shadow = self._memory.get(_place(tensor), (None, None))[1] if tensor.layout == torch.strided else None
        if shadow is None:
            return None
        size = _size(tensor)
        if size != shadow.shape[1]:  # its bits, read as another type
            return shadow.amin(1)[(..., *[None] * tensor.ndim)].expand(4, *tensor.shape)
        return shadow.as_strided((4, *tensor.shape), (size, *tensor.stride()), tensor.storage_offset())

    def _cast(self, tensor: Tensor, boxes: Tensor) -> None:
        """Give the numbers of `tensor` their `boxes`, of a shape that expands to `[4, *its shape]`."""
        place = _place(tensor)
        if place not in self._memory:
            empty = torch.full((4, _size(tensor)), NOWHERE, dtype=torch.int16, device=tensor.device)
            self._memory[place] = tensor.untyped_storage(), empty  # kept, so that its address isn't used again
        _, shadow = self._memory[place]
        if _size(tensor) != shadow.shape[1]:  # its bits, written as another type
            shadow.copy_(torch.minimum(shadow, boxes.reshape(4, -1).amin(1, keepdim=True)))
            return
        mine = self.boxes(tensor)
        assert mine is not None
        mine.copy_(boxes)

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run `func`, and do the same to the boxes."""
        kwargs = kwargs or {}
        given = [t for t in _tensors((args, kwargs)) if t.numel()]
        known = {id(t): boxes for t in given if (boxes := self.boxes(t)) is not None}
        result = func(*args, **kwargs)
        if known and torch.Tag.inplace_view not in func.tags and _name(func) not in _MAKE_CONSTANTS:
            fresh = (made for made in _tensors(result) if self.boxes(made) is None)  # a view has its shadow already
            for made in itertools.chain(_written(func, args, kwargs), fresh):
                self._cast(made, _moved(_Call(func, args, kwargs, known, made)))
        return result


class _Call:
    """A call of `func` that made `made` of tensors of which some have `known` boxes."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], known: Boxes, made: Tensor) -> None:
        self.func, self.args, self.kwargs, self.known, self.made = func, args, kwargs, known, made

    @property
    def given(self) -> list[Tensor]:
        """The boxes of all that went in."""
        return [self.known[id(t)] for t in _tensors((self.args, self.kwargs)) if id(t) in self.known]

    def __getitem__(self, name: str) -> Any:
        """The argument called `name`, or its default value; None if there is no such argument."""
        for place, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return self.args[place] if place < len(self.args) else self.kwargs.get(name, argument.default_value)
        return None

    def boxes(self, name: str) -> Tensor | None:
        """The boxes of the argument called `name`."""
        return self.known.get(id(self[name]))


def _moved(call: _Call) -> Tensor:
    """The boxes of what was made, in a shape that expands to it: by the operation's own rule, or around everything."""
    rule = _RULES.get(_name(call.func))
    if rule is None and torch.Tag.pointwise in call.func.tags:
        rule = _pointwise
    found = rule(call) if rule is not None else None
    if found is None or not _expands(found.shape[1:], call.made.shape):
        found = _around([boxes.reshape(4, -1).amin(1) for boxes in call.given])
        found = found[(..., *[None] * call.made.ndim)]
    return found


def _around(boxes: Sequence[Tensor]) -> Tensor:
    """The smallest boxes around those of several tensors that have one shape."""
    return torch.stack(list(boxes)).amin(0)


# -- rules: the boxes of what a call made, or None where that is the box around everything ------------------------


def _pointwise(call: _Call) -> Tensor | None:
    """Around the terms, place by place."""
    given, onto = call.given, call.made.shape
    if not all(_expands(boxes.shape[1:], onto) for boxes in given):
        return None
    return _around([_with_dimensions(boxes, len(onto)).expand(4, *onto) for boxes in given])


def _batch_norm(call: _Call) -> Tensor | None:
    """Place by place, where mean, variance and weights are constants."""
    return None if call["training"] or call.boxes("input") is None or len(call.given) > 1 else _pointwise(call)


def _copy(call: _Call) -> Tensor | None:
    """Those of the source, for a copy into a tensor, or of the value that it is filled with."""
    source = call.boxes("value" if call["src"] is None else "src")
    if source is None:
        source = torch.full((4,), NOWHERE, dtype=torch.int16, device=call.made.device)
    return _with_dimensions(source, call.made.ndim)


def _rearranged(call: _Call) -> Tensor | None:
    """The boxes rearranged by the operation itself."""
    if any(id(t) in call.known and not t.is_floating_point() for t in _tensors((call.args, call.kwargs))):
        return None  # the image itself decides where they go
    name = _name(call.func)
    args = (*call.args[:2], float(NOWHERE)) if name == "constant_pad_nd" else call.args

    def edge(number: int) -> Tensor:
        def shadow(item: Any) -> Any:
            if id(item) in call.known:
                return call.known[id(item)][number].float()
            constant = isinstance(item, Tensor) and not name.startswith("index")
            return torch.full_like(item, NOWHERE, dtype=torch.float) if constant else item

        return call.func(*tree_map(shadow, args), **tree_map(shadow, call.kwargs))

    return torch.stack([edge(number) for number in range(4)])


def _convolution(call: _Call) -> Tensor | None:
    """Around a filter's window in the input channels of its group."""
    boxes, (filters, _, *kernel) = call.boxes("input"), call["weight"].shape
    if boxes is None or len(call.given) > 1 or call["transposed"] or len(kernel) != 2:
        return None
    groups: int = call["groups"]
    rows, columns = call["padding"]
    by_group = boxes.unflatten(2, (groups, -1)).amin(3)
    padded = F.pad(by_group.flatten(0, 1), (columns, columns, rows, rows), value=NOWHERE)
    found = _least_in_window(padded, kernel, call["stride"], 0, call["dilation"])
    return found.unflatten(0, (4, -1)).repeat_interleave(filters // groups, 2)


def _pooling(call: _Call) -> Tensor | None:
    """Around a window of one channel."""
    boxes, kernel = call.boxes("self"), call["kernel_size"]
    if boxes is None:
        return None
    stride, dilation = call["stride"] or kernel, call["dilation"] or 1
    found = _least_in_window(boxes.flatten(0, -4), kernel, stride, call["padding"], dilation, call["ceil_mode"])
    return found.reshape(4, *call.made.shape)


def _least_in_window(boxes: Tensor, *window: Any) -> Tensor:
    return -F.max_pool2d(-boxes.float(), *window)


def _adaptive_pooling(call: _Call) -> Tensor | None:
    """Around the window that adaptive poolings give to each place."""
    boxes = call.boxes("self")
    if boxes is None:
        return None
    return -F.adaptive_max_pool2d(-boxes.flatten(0, -4).float(), call["output_size"]).reshape(4, *call.made.shape)


def _reduction(call: _Call) -> Tensor | None:
    """Around what is summed up, or compared."""
    boxes, over = call.boxes("self"), call["dim"]
    if boxes is None or over in (None, []) or boxes.ndim == 1:
        return None
    axes = [axis % (boxes.ndim - 1) + 1 for axis in (over if isinstance(over, (list, tuple)) else [over])]
    return boxes.amin(axes, keepdim=bool(call["keepdim"]))


def _layer_norm(call: _Call) -> Tensor | None:
    """Around what is normalised together."""
    boxes, shape = call.boxes("input"), call["normalized_shape"]
    if boxes is None or len(call.given) > 1:
        return None
    return boxes.amin([-1 - axis for axis in range(len(shape))], keepdim=True)


def _times_matrix(call: _Call) -> Tensor | None:
    """Around a row of the left matrix, where the right one holds weights."""
    left = next((name for name in ("mat1", "input", "self") if call[name] is not None), "")
    boxes = call.boxes(left)
    return None if boxes is None or len(call.given) > 1 else boxes.amin(-1, keepdim=True)


def _rules(rule: Callable[[_Call], Tensor | None], names: str) -> dict[str, Callable[[_Call], Tensor | None]]:
    return dict.fromkeys(names.split(), rule)


_RULES = {
    **_rules(_pointwise, "_to_copy clone prelu _prelu_kernel hardswish hardsigmoid"),
    **_rules(_batch_norm, "native_batch_norm _native_batch_norm_legit_no_training cudnn_batch_norm miopen_batch_norm"),
    **_rules(_copy, "copy fill zero"),
    **_rules(
        _rearranged, "cat stack constant_pad_nd reflection_pad2d replication_pad2d flip roll repeat index index_select"
    ),
    **_rules(_rearranged, "pixel_shuffle pixel_unshuffle upsample_nearest2d channel_shuffle native_channel_shuffle"),
    **_rules(_convolution, "convolution"),
    **_rules(_pooling, "max_pool2d_with_indices mkldnn_max_pool2d max_pool2d avg_pool2d"),
    **_rules(_adaptive_pooling, "_adaptive_avg_pool2d adaptive_max_pool2d mkldnn_adaptive_avg_pool2d"),
    **_rules(_reduction, "mean sum amax amin max min var std"),
    **_rules(_layer_norm, "native_layer_norm _fused_rms_norm"),
    **_rules(_times_matrix, "mm addmm bmm linear"),
}
"""By the names of PyTorch's own operations, to which all others come down."""

_MAKE_CONSTANTS = {"empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"} | {
    f"new_{kind}" for kind in ("empty", "empty_strided", "zeros", "ones", "full")
}
"""Operations that take a tensor's form and none of its numbers."""


def _name(func: Any) -> str:
    """`"relu"` of `aten::relu_`."""
    return func._schema.name.rpartition("::")[2].removesuffix("_")


def _tensors(values: Any) -> list[Tensor]:
    return [item for item in tree_leaves(values) if isinstance(item, Tensor)]


def _written(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The arguments that `func` writes into."""
    own = func._schema.arguments
    names = [argument.name for argument in own if argument.alias_info and argument.alias_info.is_write]
    return _tensors([{**dict(zip((argument.name for argument in own), args)), **kwargs}.get(name) for name in names])


def _place(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def _size(tensor: Tensor) -> int:
    """How many numbers of its type the storage of `tensor` holds."""
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _with_dimensions(boxes: Tensor, count: int) -> Tensor:
    return boxes.reshape(4, *[1] * (count + 1 - boxes.ndim), *boxes.shape[1:])


def _expands(shape: Sequence[int], onto: Sequence[int]) -> bool:
    """Whether a tensor of `shape` expands to the shape `onto`."""
    ends = zip(reversed(shape), reversed(onto))
    return len(shape) <= len(onto) and all(own in (1, other) for own, other in ends)
