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

from phosphene.errors import NetworkError, PhospheneError, WeightsError
from phosphene.models import weights
from phosphene.models.heads import HEAD, cut_after, replaced
from phosphene.models.labels import Labels
from phosphene.models.network import Network
from phosphene.models.preprocess import Preprocess

MODEL = "model.safetensors"
KEY = "phosphene"
FORMAT = 1
LARGEST, WIDEST = 10_000, 1_000_000  # pixels of a side, and numbers of a layer, that a file may ask for


@dataclass(frozen=True)
class Architecture:
    """How to build a network without its weights.

    Attributes:
        net: the name that `load` takes; "" for a module that was made in Python.
        outputs: of the network that `net` builds.
        features: only what comes before its classifier.
        head: the linear layer that was replaced, or "".
        cut: the layer after which it was cut (after that, where it was both), or "".
        width: numbers that the new layer is given, where it was cut.
        outputs_then: of the replaced layer, in a network that was cut later; 0 elsewhere.
    """

    net: str
    outputs: int
    features: bool = False
    head: str = ""
    cut: str = ""
    width: int = 0
    outputs_then: int = 0


def save_network(network: Network, folder: Path, about: dict[str, Any] | None = None) -> Path:
    """Write `network` as `folder/model.safetensors`, whole or not at all; `about` goes with it.

    Raises:
        NetworkError: it has no classes, or was made from a module of which no name is known.
        OutputError: it can't be written.
    """
    network.need_classifier("saving a trained network")
    made_of = network.architecture
    if made_of is None or not made_of.net:
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


def own_file(path: str | Path) -> Path | None:
    """The file of a network that was trained here; None for weights that don't say what they are of."""
    file = saved_file(str(path))
    return file if file is not None and KEY in weights.read_metadata(file) else None


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
        version = known["format"]
        if version == FORMAT:
            return _read(known)
    except (ValueError, KeyError, TypeError, RecursionError, PhospheneError) as problem:
        raise WeightsError(f"'{path}' does not say what network it holds: {problem}") from problem
    raise WeightsError(f"'{path}' was written by another version of Phosphene (format {version})")


def _read(known: dict[str, Any]) -> dict[str, Any]:
    """The same, with its parts as what they stand for."""
    mean, std = [float(value) for value in known["mean"]], [float(value) for value in known["std"]]
    if len(mean) != len(std) or len(mean) not in (1, 3) or not min(std) > 0:
        raise ValueError(f"mean {mean} and std {std}")
    height, width = known["size"]
    if not all(0 < int(side) <= LARGEST for side in (height, width, known["resize"])):
        raise ValueError(f"pictures of {height} x {width}")
    return {
        **known,
        "architecture": _architecture(Architecture(**known["architecture"])),
        "labels": Labels(known["classes"]),
        "preprocess": Preprocess((int(height), int(width)), int(known["resize"]), str(known["interpolation"])),
        "mean": mean,
        "std": std,
    }


def _architecture(found: Architecture) -> Architecture:
    """The same. Raises ValueError if a field holds something else than it should: it comes out of a file."""
    for name, kind in (("net", str), ("head", str), ("cut", str), ("features", bool)):
        if not isinstance(getattr(found, name), kind):
            raise ValueError(f"its '{name}' is {getattr(found, name)!r}")
    for name in ("outputs", "width", "outputs_then"):
        value = getattr(found, name)
        if not isinstance(value, int) or not 0 <= value <= WIDEST:
            raise ValueError(f"its '{name}' is {value!r}")
    return found


def rebuilt(path: Path, skeleton: Any, name: str) -> Network:
    """The network in the file. `skeleton(architecture)` builds the module that it was made of, weights aside."""
    known = read_saved(path)
    made_of: Architecture = known["architecture"]
    try:
        module = with_new_head(skeleton(made_of), made_of, len(known["labels"]))
    except (ValueError, AttributeError, TypeError, KeyError, RuntimeError, OSError, PhospheneError) as problem:
        line = " ".join(str(problem).split())[:200]  # whatever a name from a file leads to
        raise WeightsError(f"'{path}' was made of '{made_of.net}', which can't be built here: {line}") from problem
    weights.fit(module, weights.read_state_dict(path), source=f"'{path}'")
    network = Network(
        module.eval(),
        name=name,
        labels=known["labels"],
        preprocess=known["preprocess"],
        mean=known["mean"],
        std=known["std"],
    )
    network.architecture = made_of
    return network


def with_new_head(module: nn.Module, made_of: Architecture, classes: int) -> nn.Module:
    """A copy of the module with a new layer for `classes` classes, as `made_of` says."""
    if made_of.head:
        module = replaced(module, made_of.head, made_of.outputs_then if made_of.cut else classes)
    return cut_after(module, made_of.cut, made_of.width, classes) if made_of.cut else module


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
