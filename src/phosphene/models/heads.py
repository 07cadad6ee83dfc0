"""New classes on an old network: its last layer replaced, or the network cut after a layer and a linear one put there.

logits = W mean_places(f_l(I)) + b
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models.hooks import lent
from phosphene.models.prepare import first_tensor

HEAD = "transfer_head"


class _Reached(BaseException):  # no `except Exception` of a network's own may hold it
    """The layer after which a network is cut has run."""


class Cut:
    """Mixed into a network's own class: its pass ends after the layer `cut`, on whose averages a linear layer stands."""

    cut: str

    def forward(self, *args: Any) -> Tensor:
        """What the network takes, to logits `[N, classes]`."""
        found: list[Tensor | None] = []

        name, _, number = self.cut.partition("#")

        def stop(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found.append(first_tensor(output))
            if len(found) == int(number or 1):
                raise _Reached

        module: Any = self
        with lent([module.get_submodule(name).register_forward_hook(stop)]), suppress(_Reached):
            super().forward(*args)  # pyright: ignore[reportAttributeAccessIssue]
        if len(found) < int(number or 1) or found[-1] is None:
            raise LayerError(f"layer '{self.cut}', after which the network is cut, did not run")
        output = found[-1]
        output = output.mean(1) if output.ndim == 3 else output.flatten(2).mean(2) if output.ndim > 3 else output
        return getattr(module, HEAD)(output.flatten(1))


def replaced(module: nn.Module, layer: str, classes: int) -> nn.Module:
    """A copy of `module` whose linear layer `layer` gives `classes` numbers; that layer is new and random.

    Raises:
        LayerError: it is no linear layer.
    """
    old = module.get_submodule(layer)
    if not isinstance(old, nn.Linear):
        raise LayerError(f"'{layer}' is a {type(old).__name__}, and only a linear layer can be replaced")
    twin = copy.deepcopy(module)
    parent, _, leaf = layer.rpartition(".")
    new = nn.Linear(old.in_features, classes, device=old.weight.device, dtype=old.weight.dtype)
    setattr(twin.get_submodule(parent), leaf, new)
    return twin


def cut_after(module: nn.Module, layer: str, width: int, classes: int) -> nn.Module:
    """A copy of `module` that ends after `layer`, on whose `width` averages a new linear layer stands.

    `layer` is `name`, its first call, or `name#k`. All other layers keep their names; those that no longer run stay, so that
    weights fit as before.
    """
    twin: Any = copy.deepcopy(module)
    twin.get_submodule(layer.partition("#")[0])  # raises AttributeError for an unknown one
    if not issubclass(type(twin), Cut):
        own = type(twin).__name__
        twin.architecture = getattr(twin, "architecture", own)
        twin.__class__ = type(f"Cut{own}", (Cut, type(twin)), {})
    twin.cut = layer
    like = next(twin.parameters())
    twin.add_module(HEAD, nn.Linear(width, classes, device=like.device, dtype=like.dtype))
    return twin
