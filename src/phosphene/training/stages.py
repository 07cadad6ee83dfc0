"""The stages of a network: where a linear classifier may be put.

    f_l(I) = mean over the places of layer l's map;   the activations of fully connected layers as they are

A block stands for what is in it, outside of blocks an activation for the convolution before it, and of several that give maps
of one shape the last for all. The last stage is what the network's own classifier is given. "Try linear classifier from
different stages."
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models import Network
from phosphene.models.hooks import lent
from phosphene.models.prepare import first_tensor
from phosphene.observe.landmarks import landmarks

_ACTING = ("ReLU", "ReLU6", "GELU", "SiLU", "Hardswish", "Tanh")


def stages(network: Network) -> list[str]:
    """Names of the layers after which a linear classifier may stand, in order of execution.

    The last is the name of the classifier itself where no other layer gives just what that is given.
    """
    head = last_linear(network)
    end = network.place(head or _weighty(network)) if network.classifies else math.inf
    maps = [name for name in landmarks(network) if network.place(name) < end]
    vectors = [
        layer.name
        for layer in network.layers()
        if layer.leaf and layer.kind in _ACTING and len(layer.shape) == 1 and network.place(layer.name) < end
    ]
    found = [*_merged(network, maps), *vectors]
    if not found:
        raise LayerError(f"{network.name} has no layer before its classifier on which a linear one could stand")
    return [*found, head] if head is not None and not _is_given(network, found[-1], head) else found


def _merged(network: Network, names: Sequence[str]) -> list[str]:
    """Of neighbours with maps of one shape the last."""
    shapes = [network.layer(name).shape for name in names]
    return [name for place, name in enumerate(names) if shapes[place : place + 2] != [shapes[place]] * 2]


def _weighty(network: Network) -> str:
    return [layer.name for layer in network.layers() if layer.leaf and layer.parameters][-1]


def resolve(network: Network, names: Sequence[str]) -> list[str]:
    """The layers called so, or all stages. Raises LayerError."""
    return [_written(network, name) for name in names] if names else stages(network)


def _written(network: Network, name: str) -> str:
    """The name of a layer as `stages` writes it: textbook names resolved, `#k` only for calls that aren't the last."""
    tap, layer = network.tap(name), network.layer(name)
    return tap.name if tap.index == layer.calls else f"{tap.name}#{tap.index}"


def pooled(output: Tensor) -> Tensor:
    """`[N, D]` of a layer's output: maps `[N, D, H, W]` and tokens `[N, T, D]` averaged. Differentiable."""
    if output.ndim == 3:
        return output.mean(1)
    return output.flatten(2).mean(2) if output.ndim > 3 else output.flatten(1)


def read(network: Network, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """The features `[N, D]` of images `[N, 3, H, W]` in [0, 1] at each stage, float32 on the CPU, without gradients."""
    return reader(network, names)(images)


def reader(network: Network, names: Sequence[str]) -> Callable[[Tensor], dict[str, Tensor]]:
    """`read` for many batches: which layer is the network's own classifier is found out once."""
    head = last_linear(network)
    layers = [name for name in names if name != head]

    def read_from(images: Tensor) -> dict[str, Tensor]:
        found = network.record(images, layers) if layers else {}
        vectors = {name: pooled(output).float().cpu() for name, output in found.items()}
        if head is not None and head in names:
            vectors[head] = given(network, head, images).float().cpu()
        return {name: vectors[name] for name in names}

    return read_from


def given(network: Network, layer: str, images: Tensor) -> Tensor:
    """What `layer` is given, `[N, D]`, without gradients."""
    seen: list[Tensor] = []

    def watch(_: nn.Module, inputs: tuple[object, ...]) -> None:
        tensor = first_tensor(inputs)
        if tensor is not None:
            seen.append(pooled(tensor).clone())

    with lent([network.prepared.get_submodule(layer).register_forward_pre_hook(watch)]), torch.no_grad():
        network.output(images)
    if not seen:
        raise LayerError(f"what layer '{layer}' of {network.name} is given can't be seen")
    return seen[-1]


def last_linear(network: Network) -> str | None:
    """The fully connected layer whose output are the logits; None if there is none.

    Replacing it is what tutorials do. Where there is none (SqueezeNet ends with a convolution, a ReLU and an average; a
    feature extractor with a map) a network is cut after a stage instead, see `models.heads`.
    """
    linears = [layer.name for layer in network.layers() if layer.kind == "Linear" and layer.calls == 1]
    if not network.classifies or not linears:
        return None
    image = noise(network)
    made = network.record(image, [linears[-1]])[linears[-1]]
    with torch.no_grad():
        return linears[-1] if torch.equal(made, network.output(image)) else None


def _is_given(network: Network, stage: str, head: str) -> bool:
    """Whether the classifier `head` is given just the averages of `stage`."""
    image = noise(network)
    mine, its = pooled(network.record(image, [stage])[stage]), given(network, head, image)
    return mine.shape == its.shape and bool(torch.allclose(mine, its, rtol=1e-3, atol=1e-4 * float(its.abs().max())))


def noise(network: Network) -> Tensor:
    """One image `[1, 3, H, W]` to try a network with, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, 3, *network.input_size), generator=generator).to(network.mean)
