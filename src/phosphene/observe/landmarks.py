"""The layers of a network that one would name on a map of it: its blocks, and the activations outside of blocks."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from phosphene.errors import LayerError
from phosphene.models import Network

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_ACTIVATIONS = (
    "ReLU",
    "ReLU6",
    "LeakyReLU",
    "PReLU",
    "ELU",
    "CELU",
    "SELU",
    "GELU",
    "SiLU",
    "Mish",
    "Hardswish",
    "Swish",
)
_NORMS_THAT_ACT = ("BatchNormAct2d", "GroupNormAct", "LayerNormAct2d", "FrozenBatchNormAct2d")


def landmarks(network: Network, most: int | None = None) -> list[str]:
    """Names of the layers that do something new and give a map, in order of execution.

    A block (a module of several convolutions with a shape of its own, such as a residual or a fire module) stands for all
    that is in it; outside of blocks an activation stands for the convolution before it. A network that has neither gives
    its convolutions.

    Args:
        network: any network with maps.
        most: no more than so many, evenly spread, the last one among them.

    Raises:
        LayerError: the network has no layer with a map.
    """
    blocks = _blocks(network.module)
    maps = network.spatial_layers()
    modules = {name: name.partition("#")[0] for name in maps}  # one that runs several times is named each time
    kinds = {layer.name: layer.kind for layer in network.layers()}
    acting = {name for name in modules.values() if kinds.get(name) in _NORMS_THAT_ACT}
    activations = {name for name in modules.values() if kinds.get(name) in _ACTIVATIONS and not _within(name, acting)}
    outside = {name for name in acting | activations if not _within(name, blocks)}
    chosen = [name for name in maps if modules[name] in blocks | outside]
    chosen = chosen or [name for name in maps if kinds.get(modules[name]) == "Conv2d"] or maps
    if not chosen:
        raise LayerError(f"{network.name} has no layer with a spatial map")
    if most is None or len(chosen) <= most:
        return chosen
    last = len(chosen) - 1
    return [chosen[round(place * last / max(1, most - 1))] for place in range(most)] if most > 1 else chosen[-1:]


def _blocks(module: nn.Module) -> set[str]:
    """Names of the innermost modules that are no plain containers and hold several convolutions, or else one."""
    holds = {name: _convolutions(child) for name, child in module.named_modules() if name and _is_block(child)}
    several = _innermost({name for name, count in holds.items() if count >= 2})
    single = _innermost({name for name, count in holds.items() if count == 1 and not _within(name, several)})
    return several | {name for name in single if not any(inner.startswith(f"{name}.") for inner in several)}


def _is_block(module: nn.Module) -> bool:
    return not isinstance(module, (*_CONTAINERS, nn.Conv2d)) and type(module).__name__ not in _NORMS_THAT_ACT


def _innermost(names: set[str]) -> set[str]:
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(child, nn.Conv2d) for child in module.modules())


def _within(name: str, blocks: Iterable[str]) -> bool:
    return any(name.startswith(f"{block}.") for block in blocks)
