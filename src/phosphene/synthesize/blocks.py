"""Reading a picture block by block, such that the features are exactly those of the whole picture.

Each block is read with a halo as wide as the receptive field reaches, begins on the grid of the network's strides, and is
as long as the whole picture modulo these strides, so that strides, paddings and poolings fall as they do in the whole. The
cores of the blocks divide each layer's map among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network
from phosphene.observe.receptive_field import receptive_fields

LARGEST_PROBE = 4  # times the network's input size, at which a receptive field is looked for


@dataclass(frozen=True)
class Reach:
    """A layer's grid: `stride` pixels from one place to the next, each seeing at most `halo` pixels beyond its own."""

    stride: int
    halo: int


@dataclass(frozen=True)
class Span:
    """A block along one side: read `[start, stop)`, of which `[core_start, core_stop)` is its own."""

    start: int
    stop: int
    core_start: int
    core_stop: int

    def on(self, stride: int, length: int, size: int) -> slice:
        """Its own part of a map: of the block's map, for a layer with this stride.

        Args:
            stride: of the layer.
            length: of the block's map.
            size: of the whole picture; the last block has what is left.
        """
        first = (self.core_start - self.start) // stride
        last = length if self.core_stop >= size else (self.core_stop - self.start) // stride
        return slice(first, last)


@dataclass(frozen=True)
class Block:
    """A block of a picture."""

    rows: Span
    columns: Span

    def cut(self, image: Tensor) -> Tensor:
        """The pixels that it reads, `[N, C, h, w]`."""
        return image[..., self.rows.start : self.rows.stop, self.columns.start : self.columns.stop]

    def core(self, features: Tensor, reach: Reach, size: tuple[int, int]) -> Tensor:
        """Its own part of the features of what it reads. `size`: of the whole picture."""
        rows = self.rows.on(reach.stride, features.shape[2], size[0])
        columns = self.columns.on(reach.stride, features.shape[3], size[1])
        return features[..., rows, columns]

    def place(self, features: Tensor, reach: Reach) -> tuple[slice, slice]:
        """Where a core `[N, C, h, w]` lies in the map of the whole picture."""
        top, left = self.rows.core_start // reach.stride, self.columns.core_start // reach.stride
        return slice(top, top + features.shape[2]), slice(left, left + features.shape[3])


_KNOWN: WeakKeyDictionary[nn.Module, dict[str, Reach]] = (
    WeakKeyDictionary()
)  # by prepared copy: new ones have other layers


def reach_of(network: Network, layer: str) -> Reach:
    """The grid of a layer, measured once by following the pixels through the network.

    Raises:
        LayerError: a layer whose every place sees the whole picture (a mean over it, say), or that has no regular grid.
    """
    known = _KNOWN.setdefault(network.prepared, {})
    if layer not in known:
        known[layer] = _measured(network, layer)
    return known[layer]


def _measured(network: Network, layer: str) -> Reach:
    for times in range(1, LARGEST_PROBE + 1):
        size = (network.input_size[0] * times, network.input_size[1] * times)
        boxes = receptive_fields(network, layer, size=size).to(torch.int64)
        if boxes.ndim != 4:
            break
        found = [_along(boxes, side) for side in (0, 1)]
        if all(found):
            strides, halos = zip(*[(reach.stride, reach.halo) for reach in found if reach], strict=True)
            if len(set(strides)) == 1:
                return Reach(strides[0], max(halos))
            break
    raise LayerError(
        f"layer '{layer}' of {network.name} can't be read in blocks: each of its places sees the whole picture, or they"
        " form no regular grid"
    )


def _along(boxes: Tensor, side: int) -> Reach | None:
    """The grid along one side, from the boxes `[C, h, w, 4]`; None where all are cut off by the border."""
    around = 1 - side
    first = boxes[..., side].amin((0, 1 + around))
    last = boxes[..., 2 + side].amax((0, 1 + around))
    # Windows that end where the first or the last one does may be cut off by padding, not at the picture's border alone.
    inside = ((first > first.min()) & (last < last.max())).nonzero().flatten().tolist()
    if len(inside) < 2:
        return None
    steps = {int(first[b] - first[a]) for a, b in itertools.pairwise(inside) if b == a + 1}
    if len(steps) != 1 or (stride := steps.pop()) < 1:
        return None
    places = torch.tensor(inside)
    before = (places * stride - first[places]).max()
    after = (last[places] - (places + 1) * stride).max()
    return Reach(stride, int(max(before, after, 0)))


def blocks(size: tuple[int, int], reaches: Sequence[Reach], side: int) -> list[Block]:
    """The blocks of a picture whose cores are about `side` x `side` pixels.

    Args:
        size: height and width of the picture.
        reaches: of all layers that are read.
        side: of a core, about: edges lie on the grid of the largest stride.

    Raises:
        PhospheneError: strides that don't divide the largest one.
    """
    stride = max(reach.stride for reach in reaches)
    if any(stride % reach.stride for reach in reaches):
        raise PhospheneError(f"layers with strides of {sorted({r.stride for r in reaches})} can't share blocks")
    halo = max(reach.halo for reach in reaches)
    rows = _spans(size[0], stride, halo, side)
    columns = _spans(size[1], stride, halo, side)
    return [Block(row, column) for row in rows for column in columns]


def _spans(length: int, stride: int, halo: int, side: int) -> list[Span]:
    count = max(1, -(-length // max(stride, side)))
    edges = [round(place * length / count / stride) * stride for place in range(count)] + [length]
    edges = sorted(set(edges))
    return [_span(a, b, length, stride, halo) for a, b in itertools.pairwise(edges)]


def _span(core_start: int, core_stop: int, length: int, stride: int, halo: int) -> Span:
    start = max(0, (core_start - halo) // stride * stride)
    spare = max(0, length - (core_stop + halo)) // stride * stride
    return Span(start, length - spare, core_start, core_stop)
