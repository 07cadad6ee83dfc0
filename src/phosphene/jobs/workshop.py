"""Where jobs get their networks and images from, and the record of what they took."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from phosphene import device as devices
from phosphene import images
from phosphene.errors import NetworkError
from phosphene.models import Network, load
from phosphene.models.labels import Labels
from phosphene.models.weights import digest
from phosphene.recipe import Recipe, hash_file, versions


class Workshop:
    """Loads each network and image once, and notes what a job used, for its recipe.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        folder: relative paths that are not found from here are looked for there (beside a picture being made again).
    """

    def __init__(self, device: str = "auto", folder: Path | None = None) -> None:
        self.device = devices.pick(device)
        self.folder = folder
        self.inputs: dict[str, str] = {}
        self.networks: dict[str, str] = {}
        self._loaded: dict[tuple[str, str | None, str | None], tuple[Network, str]] = {}
        self._images: dict[str, tuple[Tensor, str]] = {}

    def fresh(self) -> Workshop:
        """The same shelves with an empty record."""
        other = Workshop.__new__(Workshop)
        other.__dict__.update(self.__dict__)
        other.inputs, other.networks = {}, {}
        return other

    def network(self, net: str, weights: str | None = None, labels: str | None = None) -> Network:
        """`phosphene.load`, once per network. `labels`: a text file with a class name on each line."""
        key = (net, weights, labels)
        if key not in self._loaded:
            names = _read_labels(labels) if labels is not None else None
            network = load(net, weights, self.device, labels=names)
            self._loaded[key] = (network, digest(network.module.state_dict()))
        network, found = self._loaded[key]
        self.networks[net] = found
        return network

    def image(self, path: str) -> Tensor:
        """`images.read`, once per file: `[1, 3, H, W]` in [0, 1]."""
        if path not in self._images:
            there = self._find(path)
            self._images[path] = (images.read(there), hash_file(there))
        image, found = self._images[path]
        self.inputs[path] = found
        return image.to(self.device)

    def recipe(self, verb: str, parameters: dict[str, object], picture: str) -> Recipe:
        """The recipe of one picture, from what has been used since this record began."""
        return Recipe(
            verb=verb,
            parameters=parameters,
            picture=picture,
            inputs=dict(self.inputs),
            networks=dict(self.networks),
            device=self.device.type,
            threads=torch.get_num_threads(),
            versions=versions(),
        )

    def _find(self, path: str) -> Path:
        here = Path(path)
        if not here.exists() and self.folder is not None and (self.folder / here.name).exists():
            return self.folder / here.name
        return here


def _read_labels(path: str) -> Labels:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise NetworkError(f"can't read the labels '{path}': {problem}") from problem
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise NetworkError(f"the labels file '{path}' is empty: it needs one class name on each line")
    return Labels(names)
