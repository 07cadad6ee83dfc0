"""What the network says of one class: the number that most judgements of an explanation watch."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.errors import LabelError
from phosphene.explain.health import refuse_nan
from phosphene.explain.target import Target, aim_at
from phosphene.models import Network


def one_class(network: Network, images: Tensor, target: Target) -> Tensor:
    """The class of each image, `[N]`.

    Raises:
        LabelError: a unit, or several classes per image: explanations are judged for one class of each image.
        NetworkError: a network without classes.
    """
    aim = aim_at(network, images, target)
    if aim.classes is None or aim.several:
        raise LabelError("explanations are judged for one class of each image: give an index, or one per image")
    return aim.classes[:, 0]


def probability(network: Network, images: Tensor, classes: Tensor) -> Tensor:
    """Softmax probability of one class per image, `[N]` in float64, in batches that fit into memory.

    Raises:
        NetworkError: NaN or infinity on the way; the message names the layer where they begin.
    """
    found, start = [], 0
    with torch.inference_mode(False), torch.no_grad():
        for piece in network.split(images):
            own = classes[start : start + len(piece), None].to(network.device)
            found.append(network.logits(piece).double().softmax(1).gather(1, own)[:, 0])
            start += len(piece)
    values = torch.cat(found)
    if not bool(torch.isfinite(values).all()):
        refuse_nan(network, images)
    return values
