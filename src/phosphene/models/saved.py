"""Networks that were trained here, as a folder that every command takes as `--net`: weights, classes, preprocessing.

All that is needed stands in the metadata of `model.safetensors`, so that the file alone is enough.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from phosphene.errors import NetworkError, WeightsError
from phosphene.models import weights
from phosphene.models.heads import HEAD, cut_after, replaced
from phosphene.models.labels import Labels
from phosphene.models.network import Network
from phosphene.models.preprocess import Preprocess

MODEL = "model.safetensors"
KEY = "phosphene"
FORMAT = 1


@dataclass(frozen=True)
class Architecture:
    """How to build a network without its weights.

    Attributes:
        net: the name that `load` takes.
        outputs: of the network that `net` builds.
        features: only its convolutions.
        head: the linear layer that was replaced, or "" where it was cut.
        cut: the layer after which it was cut, or "".
        width: numbers that the new layer is given.
    """

    net: str
    outputs: int
    features: bool = False
    head: str = ""
    cut: str = ""
    width: int = 0


def save_network(network: Network, folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Write `network` as `folder/model.safetensors`, whole or not at all; `about` goes with it.

    Raises:
        NetworkError: it has no classes, or was made from a module of which no name is known.
        OutputError: it can't be written.
    """
    network.need_classifier("saving a trained network")
    made_of = network.architecture
    if made_of is None:
        raise NetworkError(
            f"{network.name} was made from a module, not by name, so that no file could say how to build it: save its"
            " state_dict, or give it as FILE.py:FUNCTION"
        )
    known = {
        "format": FORMAT,
        "architecture": asdict(made_of),
        "classes": list(network.labels),
        "size": list(network.preprocess.size),
        "resize": network.preprocess.resize,
        "interpolation": network.preprocess.interpolation,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "about": about or {},
    }
    return weights.save_state_dict(network.module.state_dict(), folder / MODEL, {KEY: json.dumps(known)})


def saved_file(net: str) -> Path | None:
    """The file of a network that was trained here, if `net` is its folder or the file itself."""
    path = Path(net)
    if path.is_dir() and (path / MODEL).is_file():
        return path / MODEL
    return path if path.suffix == ".safetensors" and path.is_file() else None


def read_saved(path: Path) -> dict[str, Any]:
    """What `save_network` wrote about a network.

    Raises:
        WeightsError: the file is damaged, or of another program or version.
    """
    text = weights.read_metadata(path).get(KEY)
    if text is None:
        raise WeightsError(
            f"'{path}' holds weights, and not what they are of: give the network's name, and the file with --weights"
        )
    try:
        known = json.loads(text)
        if known["format"] != FORMAT:
            raise WeightsError(f"'{path}' was written by another version of Phosphene (format {known['format']})")
        known["architecture"] = Architecture(**known["architecture"])
        Labels(known["classes"])
        return known
    except (ValueError, KeyError, TypeError) as problem:
        raise WeightsError(f"'{path}' does not say what network it holds: {problem}") from problem


def rebuilt(path: Path, skeleton: Any, name: str) -> Network:
    """The network in the file. `skeleton(architecture)` builds the module that it was made of, weights aside."""
    known = read_saved(path)
    made_of: Architecture = known["architecture"]
    module = with_new_head(skeleton(made_of), made_of, len(known["classes"]))
    weights.fit(module, weights.read_state_dict(path), source=f"'{path}'")
    network = Network(
        module.eval(),
        name=name,
        labels=Labels(known["classes"]),
        preprocess=Preprocess(tuple(known["size"]), known["resize"], known["interpolation"]),
        mean=known["mean"],
        std=known["std"],
    )
    network.architecture = made_of
    return network


def with_new_head(module: nn.Module, made_of: Architecture, classes: int) -> nn.Module:
    """A copy of the module with a new layer for `classes` classes, as `made_of` says."""
    if made_of.cut:
        return cut_after(module, made_of.cut, made_of.width, classes)
    return replaced(module, made_of.head, classes) if made_of.head else module


def head_of(module: nn.Module, made_of: Architecture) -> nn.Linear:
    """The new layer."""
    found = module.get_submodule(HEAD if made_of.cut else made_of.head)
    assert isinstance(found, nn.Linear)
    return found


def with_weights(head: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Write `weight [classes, D]` and `bias [classes]` into the layer."""
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
