"""Receptive fields: which part of the picture a neuron sees."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.models import Network
from phosphene.observe.shadow import Shadows


def receptive_fields(network: Network, layer: str, *, size: tuple[int, int] | None = None) -> Tensor:
    """The smallest box around the pixels that each neuron of a layer is computed from.

    The boxes are followed through the operations that really run (see `shadow`), whatever they are called in: a branch
    that is concatenated has its own, zero padding is no pixel, and a neuron that depends on a mean over the whole
    picture (squeeze-and-excitation, say) sees the whole picture. Operations without a rule of their own (transposed
    convolutions, bilinear upsampling, softmax) get the box around all that went in.

    Args:
        network: any network.
        layer: a layer of it.
        size: height and width of the picture; default: the network's input size.

    Returns:
        int16 `[*shape of the layer, 4]`, `[C, h, w, 4]` of a map: top, left, bottom, right, the last two exclusive,
        clipped at the picture. A neuron that sees nothing (a window in the padding) has the whole picture.

    Raises:
        LayerError: no such layer.
    """
    height, width = size or network.input_size
    image = torch.full((1, 3, height, width), 0.5, device=network.device, dtype=network.dtype)
    network.record(image, [layer], as_written=True)  # whatever has to be prepared is, before anything is watched
    shadows = Shadows(image)
    with shadows, torch.inference_mode(False):
        output = network.record(image, [layer], as_written=True)[layer]
    boxes = shadows.boxes(output)
    whole = torch.tensor([0, 0, height, width], dtype=torch.int16)
    if boxes is None:  # made somewhere else, in numpy say
        return whole.expand(*output.shape[1:], 4).clone()
    top, left, bottom, right = boxes[:, 0].cpu()
    found = torch.stack([top, left, -bottom, -right], dim=-1)
    return torch.where((top < height)[..., None], found, whole)
