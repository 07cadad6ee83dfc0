"""Where jobs get their networks and images from, and the record of what they took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from phosphene import device as devices
from phosphene import images
from phosphene.errors import LabelError, PhospheneError
from phosphene.images.samples import PREFIX, sample_file
from phosphene.models import Network, load
from phosphene.models.labels import Labels
from phosphene.models.weights import digest
from phosphene.progress import Brake, Event
from phosphene.recipe import Recipe, hash_file, versions


class Workshop:
    """Loads each network and image once, and notes what a job used, for its recipe.

    Args:
        device: `auto`, `cpu`, `cuda` or `mps`.
        folder: files that are not found at their path are looked for there (beside a picture being made again).
        expected: path -> SHA-256 that the file should have.
    """

    def __init__(
        self, device: str = "auto", folder: Path | None = None, expected: Mapping[str, str] | None = None
    ) -> None:
        self.device = devices.pick(device)
        self.folder = folder
        self.expected = dict(expected or {})
        self.inputs: dict[str, str] = {}
        self.networks: dict[str, str] = {}
        self._loaded: dict[tuple[str, str | None, str | None], tuple[Network, str]] = {}
        self._images: dict[str, tuple[Tensor, str]] = {}
        self.listen: Callable[[Event], None] | None = None  # is told the progress of downloads
        self.brake = Brake()
        self.events_before = 0  # of a job that goes on where it was left

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
            names = _read_labels(self.find(labels), labels) if labels is not None else None
            file = self.find(weights) if weights is not None else None
            code = code_file(net)
            there = net if code is None else f"{self.find(code)}:{net.rpartition(':')[2]}"
            network = load(there, file, self.device, labels=names, name=net, listen=self.listen)
            self._loaded[key] = (network, digest(network.module.state_dict()))
        network, found = self._loaded[key]
        other = self.networks.get(net, found) != found  # the same network, by name, with other weights
        self.networks[f"{net} ({weights or 'its own weights'})" if other else net] = found
        if labels is not None:
            self.inputs[labels] = hash_file(self.find(labels))
        if (code := code_file(net)) is not None:
            self.inputs[code] = hash_file(self.find(code))
        return network

    def image(self, path: str) -> Tensor:
        """`images.read`: `[1, 3, H, W]` in [0, 1]. The last one is kept, for the next job on the same photograph."""
        if path not in self._images:
            there = self.find(path)
            self._images.clear()
            self._images[path] = (images.read(there), hash_file(there))
        image, found = self._images[path]
        self.inputs[path] = found
        return image.to(self.device)

    def file(self, path: str) -> Path:
        """Where another input lies. Raises PhospheneError if it isn't there."""
        there = self.find(path)
        if not there.is_file():
            raise PhospheneError(f"there is no file '{path}'")
        self.inputs[path] = hash_file(there)
        return there

    def images(self, folder: str, network: Network) -> Collection:
        """The images of a folder, preprocessed for `network` and read when they are asked for."""
        there = self.find(folder)
        found = Collection(images.find(there), network)
        self.inputs[folder] = hash_file(there)
        return found

    def recipe(
        self, verb: str, parameters: dict[str, object], picture: str, notes: Mapping[str, object] | None = None
    ) -> Recipe:
        """The recipe of one picture, from what has been used since this record began, and the job's notes."""
        stopped = {} if self.brake.used is None else {STOPPED: self.events_before + self.brake.used}
        return Recipe(
            verb=verb,
            parameters=parameters,
            picture=picture,
            inputs=dict(self.inputs),
            networks=dict(self.networks),
            device=self.device.type,
            threads=torch.get_num_threads(),
            versions=versions(),
            notes={**(notes or {}), **stopped},
        )

    def find(self, path: str) -> Path:
        """Where the file `path` lies: there, or by its name in `folder` or the folder above that.

        One that is expected to have other bytes isn't the one. `sample:NAME` lies in a package.
        """
        if path.startswith(PREFIX):
            return sample_file(path)
        here = Path(path)
        if self.folder is None:
            return here
        found = [file for file in (here, self.folder / here.name, self.folder.parent / here.name) if file.exists()]
        wanted = self.expected.get(path)
        right = [file for file in found if wanted is None or hash_file(file) == wanted]
        return (right or found or [here])[0]


STOPPED = "stopped_after_event"
"""The note of a picture whose making was ended early: how many of the job's events there had been."""


class Collection:
    """Image files as tensors: `collection[i]` is `[3, H, W]` in [0, 1] at the network's input size."""

    def __init__(self, paths: Sequence[Path], network: Network) -> None:
        self.paths, self._network = list(paths), network

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        """Raises ImageError if the file is no image."""
        return self._network.preprocess(images.read(self.paths[place]))[0]


def code_file(net: str) -> str | None:
    """The file of a `FILE.py:FUNCTION`; None for other networks."""
    return net.rpartition(":")[0] if ".py:" in net else None


def check_seed(seed: int) -> None:
    """Raise a PhospheneError for a seed that PyTorch can't take."""
    if not -(2**63) <= seed < 2**63:
        raise PhospheneError(f"a seed is a number of up to 18 digits, got {seed}")


def _read_labels(file: Path, path: str) -> Labels:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as problem:
        raise LabelError(f"can't read the labels '{path}': {problem.strerror or problem}") from problem
    except UnicodeDecodeError as problem:
        raise LabelError(
            f"the labels file '{path}' is no text in UTF-8: it needs one class name on each line"
        ) from problem
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise LabelError(f"the labels file '{path}' is empty: it needs one class name on each line")
    return Labels(names)
