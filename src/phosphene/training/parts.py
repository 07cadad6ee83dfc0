"""Which part of a network is trained, and the network without the part that isn't.

    f = g_theta . h,   h frozen: run without gradients, and where nothing random precedes it, once for each picture

The frozen part keeps its batch norms' statistics; it is the same afterwards, bit for bit.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network
from phosphene.models.prepare import first_tensor
from phosphene.models.saved import head_of
from phosphene.training.stages import last_linear, noise, resolve, stages


@dataclass(frozen=True)
class Part:
    """What is trained.

    Attributes:
        after: the last frozen stage; None where everything is trained.
        parameters: names of those that are trained -> how many stages lie between their own and the new layer (0: itself).
    """

    after: str | None
    parameters: dict[str, int]


def part(network: Network, layers: str) -> Part:
    """What `head`, `last:N` (the last N stages and the head), `stage:NAME` (from there on) or `all` mean for a network.

    Args:
        network: with a new layer on it, see `probe.with_classes`.
        layers: one of these.

    Raises:
        PhospheneError: something else, or too many stages.
        LayerError: no such stage.
    """
    found = stages(network)
    head = _head(network)
    found = [name for name in found if name != head]
    first = _first(network, layers, found)  # of the stages that are trained
    after = None if first == 0 else found[first - 1]
    order = {layer.name: network.place(layer.name) for layer in network.layers()}
    ends = [network.place(name) for name in found]
    start = -1 if after is None else ends[first - 1]
    trained: dict[str, int] = {}
    for owner, module in network.module.named_modules():
        place = _place(owner, order)
        if place is None or place <= start:
            continue
        stage = sum(end < place for end in ends)
        for name, _ in module.named_parameters(recurse=False):
            trained[f"{owner}.{name}" if owner else name] = len(ends) - stage
    return Part(after, trained)


def _head(network: Network) -> str:
    if network.architecture is None:
        raise PhospheneError(f"{network.name} has no new layer yet")
    wanted = head_of(network.module, network.architecture)
    return next(name for name, child in network.module.named_modules() if child is wanted)


def _first(network: Network, layers: str, found: list[str]) -> int:
    word, _, value = layers.partition(":")
    if layers == "all":
        return 0
    if layers == "head":
        return len(found)
    if word == "last" and value.isdecimal():
        count = int(value)
        if count > len(found):
            raise PhospheneError(f"{network.name} has {_stages(len(found))}, and last:{count} asks for more: give all")
        return len(found) - count
    if word == "stage" and value:
        name = resolve(network, [value])[0]
        if name not in found:
            raise LayerError(f"'{value}' is no stage of {network.name}: {', '.join(found)} are")
        return found.index(name)
    raise PhospheneError(f"--layers takes head, last:N, stage:NAME or all, not '{layers}'")


def _stages(count: int) -> str:
    return f"{count} stage{'' if count == 1 else 's'}"


def check_layers(network: Network, layers: str) -> None:
    """Raise what `part` will raise, before the network has its new layer."""
    own = last_linear(network)
    _first(network, layers, [name for name in stages(network) if name != own])


def _place(owner: str, order: dict[str, int]) -> int | None:
    """When a module first works: the first of what is in it; None if it never does."""
    inside = [place for name, place in order.items() if name == owner or name.startswith(f"{owner}.") or not owner]
    return min(inside, default=None)


class Rest(nn.Module):
    """A copy of a network's module from after the stage `after` on; all before it is gone.

    Its forward takes what that stage gives (with None: normalised images) and gives logits. Names are the network's own.

    Args:
        network: whose module is copied.
        after: a stage, or None.
    """

    def __init__(self, network: Network, after: str | None) -> None:
        super().__init__()
        self.module = copy.deepcopy(network.module)
        self.after = after
        if after is None:
            return
        order = {layer.name: network.place(layer.name) for layer in network.layers()}
        for name in _before(order, network.place(after)):
            parent, _, leaf = name.rpartition(".")
            setattr(self.module.get_submodule(parent), leaf, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """To logits `[N, classes]`."""
        output = first_tensor(self.module(x))
        assert output is not None
        return output


def _before(order: dict[str, int], end: int) -> list[str]:
    """The outermost modules all of which has run when the layer at `end` has."""
    whole = [name for name in order if name and all(p <= end for n, p in order.items() if _in(n, name))]
    return [name for name in whole if not any(name != other and _in(name, other) for other in whole)]


def _in(name: str, other: str) -> bool:
    return name == other or name.startswith(f"{other}.")


def rest(network: Network, after: str | None) -> Rest:
    """`Rest`, if it is proved to give what the whole network gives; else the whole module, with `after` None.

    Networks that don't pass one stage's output alone to the next (DenseNet inside of a block) can't be taken apart.
    """
    whole = Rest(network, None)
    if after is None:
        return whole
    image = noise(network)
    try:
        made = Rest(network, after).eval()
        with torch.no_grad():
            mine, right = made(network.record(image, [after])[after]), network.output(image)
    except Exception:  # whatever a forward does that has lost its first layers
        return whole
    same = mine.shape == right.shape and bool((mine - right).abs().max() <= 1e-3 * right.abs().max().clamp(min=1e-3))
    return made if same else whole
