"""Where NaN begins."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from phosphene.errors import ImageError, NetworkError
from phosphene.models import Network
from phosphene.models.hooks import lent
from phosphene.models.prepare import first_tensor


def refuse_nan(network: Network, images: Tensor) -> NoReturn:
    """Raise an error that says where the NaN or infinity in a result comes from: the images, a weight, or a layer.

    Raises:
        ImageError: the images hold it.
        NetworkError: a weight holds it, or a layer makes it; the message names the first.
    """
    if not bool(torch.isfinite(images).all()):
        raise ImageError("the image has NaN or infinity in it: an image is finite, in [0, 1]")
    tensors = {**dict(network.module.named_parameters()), **dict(network.module.named_buffers())}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            layer, _, kind = name.rpartition(".")
            of = f"of layer '{layer}' of {network.name}" if layer else f"of {network.name}"
            raise NetworkError(f"the {kind} {of} has NaN or infinity in it: load others")
    layer = _first_layer(network, images)
    where = f"begin in layer '{layer}'" if layer else "begin in its gradients"
    raise NetworkError(f"{network.name} gives NaN or infinity for this image: they {where}")


def _first_layer(network: Network, images: Tensor) -> str | None:
    """The first layer, in order of execution, that makes something else than numbers of numbers."""
    found: list[str] = []

    def leave(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if not found and tensor is not None and not bool(torch.isfinite(tensor).all()):
            found.append(name)

    handles = [
        child.register_forward_hook(lambda _m, _i, out, name=name: leave(name, out))
        for name, child in network.prepared.named_modules()
        if name and not isinstance(child, torch.jit.ScriptModule)
    ]
    with lent(handles), torch.no_grad():
        for piece in network.split(images):
            network.output(piece)
    return found[0] if found else None
