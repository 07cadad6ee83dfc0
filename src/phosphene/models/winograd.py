"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3).

    Y = A^T [ (G g G^T) * (B^T d B) ] A          (* summed over input channels, for each of the 36 places by itself)

A tile of 4 x 4 outputs is made of 6 x 6 inputs: 36 products for each pair of channels instead of 144. What is done to a tile
before and after costs little against that where there are many channels. The gradient is the same the other way round.

Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4. The result differs from the direct
sum by about 3e-6 of its size in float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

OUT, IN = 4, 6  # sides of a tile
LEAST_CHANNELS = 64
LEAST_PRODUCT = 64 * 128  # of input and output channels: below, what is done to the tiles costs more than it saves
LEAST_TILES = 256
WORKING_SET = 2 << 20  # bytes of tiles that are worked on at once: about what caches hold

_B = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_G = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]],
    dtype=torch.float64,
) / torch.tensor([[24], [24], [24], [24], [24], [24]])
_A = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)
_BB, _GG, _AA = (torch.kron(matrix, matrix) for matrix in (_B, _G, _A))  # of tiles written as columns
_SEEN, _MADE = _BB.float(), _AA.float()  # inputs to 36 numbers, 36 numbers to outputs
_SEEN_BACK, _MADE_BACK = _MADE.T.contiguous(), _SEEN.T.contiguous()  # the same for gradients, the other way round


def fits(module: nn.Module) -> bool:
    """Whether a module is a convolution that this is faster for: plain, 3x3, of many channels, in float32 on a CPU."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == (1, 1)
        and module.padding == (1, 1)
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= LEAST_CHANNELS
        and module.in_channels * module.out_channels >= LEAST_PRODUCT
        and module.weight.dtype == torch.float32
        and module.weight.device.type == "cpu"
    )


def with_winograd(module: nn.Module) -> nn.Module:
    """A twin of a frozen module that shares its tensors, with `WinogradConv2d` where that fits; itself if nowhere."""
    if not any(fits(child) for child in module.modules()):
        return module
    shared = [*module.parameters(), *module.buffers()]
    twin = copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
    made: dict[int, WinogradConv2d] = {}
    for name, child in list(twin.named_modules(remove_duplicate=False)):  # one may stand in several places
        if fits(child):
            assert isinstance(child, nn.Conv2d)
            parent, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(parent), leaf, made.setdefault(id(child), WinogradConv2d(child)))
    return twin


class WinogradConv2d(nn.Module):
    """A 3x3 convolution of stride 1 and padding 1, for reading: its weights are those of `conv` when it was made."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight = conv.weight  # a network may look at it
        self.filters: Tensor | None = None  # four times as large, so they are made when they are needed
        self.bias = conv.bias
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """`[N, C, H, W]` to `[N, C', H, W]`."""
        if self.filters is None:
            self.filters = filters_of(self.weight.detach())
        found = _Winograd.apply(x, self.filters, self.bias)
        assert isinstance(found, Tensor)
        return found


def filters_of(weight: Tensor) -> Tensor:
    """`G g G^T` of each pair of channels, `[36, C, C']`, from `[C', C, 3, 3]`; in double precision, a few at a time."""
    outputs, inputs = weight.shape[:2]
    found = weight.new_empty((IN * IN, inputs, outputs))
    for first in range(0, outputs, 64):
        part = weight[first : first + 64].double().permute(2, 3, 1, 0)
        found[:, :, first : first + 64] = (_GG @ part.reshape(9, -1)).view(IN * IN, inputs, -1).to(weight.dtype)
    return found


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(filters)
        made = _empty(x, filters.shape[2])
        for image, out in zip(_places(x), _places(made), strict=True):
            _convolve(image, filters, out)
        if bias is not None:
            made += bias.view(-1, 1, 1)
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (filters,) = ctx.saved_tensors
        (given,) = gradients
        back = filters.transpose(1, 2)
        made = _empty(given, back.shape[2])
        for image, out in zip(_places(given), _places(made), strict=True):
            _transposed(image, back, out)
        return made, None, None


def _empty(like: Tensor, channels: int) -> Tensor:
    shape = (len(like), channels, *like.shape[2:])
    return torch.empty(shape, dtype=like.dtype, memory_format=torch.channels_last)


def _places(maps: Tensor) -> Tensor:
    return maps.permute(0, 2, 3, 1)


def _rows_at_once(across: int, filters: Tensor) -> int:
    """Rows of tiles that are worked on together: as caches hold, and enough for the filters to be worth reading."""
    tiles = max(LEAST_TILES, WORKING_SET // (IN * IN * 4 * (filters.shape[1] + filters.shape[2])))
    return max(1, round(tiles / across))


def _convolve(image: Tensor, filters: Tensor, out: Tensor) -> None:
    """`[H, W, C]` to `out [H, W, C']`."""
    height, width, channels = image.shape
    down, across = -(-height // OUT), -(-width // OUT)
    padded = F.pad(image, (0, 0, 1, 1 + across * OUT - width, 1, 1 + down * OUT - height))
    row, column, _ = padded.stride()
    step = _rows_at_once(across, filters)
    for top in range(0, down, step):
        rows = min(step, down - top)
        places = (IN, IN, rows, across, channels)
        strides = (row, column, OUT * row, OUT * column, 1)
        tiles = padded.as_strided(places, strides, padded.storage_offset() + top * OUT * row)
        seen = (_SEEN @ tiles.reshape(IN * IN, -1)).view(IN * IN, rows * across, channels)
        made = (_MADE @ torch.bmm(seen, filters).view(IN * IN, -1)).view(OUT, OUT, rows, across, -1)
        _put(made, out, top * OUT)


def _put(tiles: Tensor, out: Tensor, top: int) -> None:
    """Tiles `[4, 4, rows, across, C]` into `out [H, W, C]` from the row `top` on; what hangs over is dropped."""
    _, _, rows, across, channels = tiles.shape
    height, width = min(rows * OUT, len(out) - top), out.shape[1]
    lines = tiles.permute(2, 0, 3, 1, 4)
    if height == rows * OUT and width == across * OUT:
        out[top : top + height].view(rows, OUT, across, OUT, channels).copy_(lines)
    else:
        out[top : top + height] = lines.reshape(rows * OUT, across * OUT, channels)[:height, :width]


def _transposed(image: Tensor, filters: Tensor, out: Tensor) -> None:
    """The gradient `[H, W, C']` of what `_convolve` made, to that of what it was made of, `out [H, W, C]`."""
    height, width, channels = image.shape
    down, across = -(-height // OUT), -(-width // OUT)
    if height % OUT or width % OUT:
        image = F.pad(image, (0, 0, 0, across * OUT - width, 0, down * OUT - height))
    image = image.contiguous()
    kept = filters.shape[2]
    sums = image.new_zeros((down + 1, OUT, across + 1, OUT, kept))
    step = _rows_at_once(across, filters)
    for top in range(0, down, step):
        rows = min(step, down - top)
        lines = image[top * OUT : (top + rows) * OUT].view(rows, OUT, across, OUT, channels)
        seen = (_SEEN_BACK @ lines.permute(1, 3, 0, 2, 4).reshape(OUT * OUT, -1)).view(IN * IN, rows * across, channels)
        made = (_MADE_BACK @ torch.bmm(seen, filters).view(IN * IN, -1)).view(IN, IN, rows, across, kept)
        made = made.permute(2, 0, 3, 1, 4)  # [rows, 6, across, 6, C]
        here, below = sums[top : top + rows], sums[top + 1 : top + rows + 1]
        here[:, :, :-1] += made[:, :OUT, :, :OUT]
        here[:, :, 1:, :2] += made[:, :OUT, :, OUT:]
        below[:, :2, :-1] += made[:, OUT:, :, :OUT]
        below[:, :2, 1:, :2] += made[:, OUT:, :, OUT:]
    whole = sums.view((down + 1) * OUT, (across + 1) * OUT, kept)
    out.copy_(whole[1 : 1 + height, 1 : 1 + width])
