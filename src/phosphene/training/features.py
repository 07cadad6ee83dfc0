"""Features of every stage of a network, computed once for each photograph and kept on disk.

A store belongs to one network as it is: its key is the SHA-256 of weights, preprocessing, normalisation, stages, and the
version of what computes them; a photograph's key is that of its bytes. Features of other weights are never found. They lie in
segments, each written whole before it is named, and are mapped into memory, not read.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from phosphene import images
from phosphene.errors import OutputError, PhospheneError
from phosphene.explain.health import refuse_nan
from phosphene.models import Network, cache
from phosphene.models.weights import digest
from phosphene.progress import Job, Started, Step
from phosphene.training.folder import Photo, batches
from phosphene.training.loading import ahead
from phosphene.training.stages import noise, read, reader

SEGMENT = 512
"""Photographs after which what has been computed is written."""
_FORMAT = "1"


@dataclass(eq=False)
class Store:
    """The features of one network that are there already.

    Attributes:
        folder: of the segments; None keeps them in memory only.
        widths: stage -> numbers.
        segments: arrays `[n, sum of widths]`, mapped from the disk.
        places: hash of a photograph -> (segment, row).
    """

    folder: Path | None
    widths: Mapping[str, int]
    segments: list[np.ndarray] = field(default_factory=list)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def load(self) -> None:
        """Map the segments of earlier runs; one that is damaged is passed over, and computed again."""
        if self.folder is None or not self.folder.is_dir():
            return
        for listed in sorted(self.folder.glob("*.json")):
            with suppress(OSError, ValueError, EOFError, TypeError):
                names = json.loads(listed.read_text(encoding="utf-8"))
                rows = np.load(listed.with_suffix(".npy"), mmap_mode="r")
                if rows.shape == (len(names), sum(self.widths.values())) and rows.dtype == np.float32:
                    self._take(names, rows)

    def add(self, names: Sequence[str], rows: np.ndarray) -> None:
        """Keep the features of more photographs."""
        if not names:
            return
        if self.folder is None:
            self._take(names, rows)
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = secrets.token_hex(8)
            part = self.folder / f".{name}.part"
            try:
                with part.open("wb") as file:
                    np.save(file, rows)
                part.replace(self.folder / f"{name}.npy")
                part.write_text(json.dumps(list(names)), encoding="utf-8")
                part.replace(self.folder / f"{name}.json")
            finally:
                part.unlink(missing_ok=True)
        except OSError as problem:
            raise OutputError(
                f"can't keep features in '{self.folder}': {problem.strerror or problem}; free some space there, or name"
                " another folder with PHOSPHENE_CACHE"
            ) from problem
        self._take(names, np.load(self.folder / f"{name}.npy", mmap_mode="r"))

    def _take(self, names: Sequence[str], rows: np.ndarray) -> None:
        self.segments.append(rows)
        self.places.update((name, (len(self.segments) - 1, row)) for row, name in enumerate(names))

    def rows(self, names: Sequence[str], stage: str) -> np.ndarray:
        """`[N, D]` of these photographs at one stage, float32."""
        start = 0
        for name, width in self.widths.items():
            if name == stage:
                break
            start += width
        width = self.widths[stage]
        found = np.empty((len(names), width), np.float32)
        where = [self.places[name] for name in names]
        for place, segment in enumerate(self.segments):
            here = [row for row, (number, _) in enumerate(where) if number == place]
            if here:
                found[here] = segment[:, start : start + width][[where[row][1] for row in here]]
        return found


@dataclass(frozen=True, eq=False)
class StageFeatures:
    """The features of some photographs: `table(stage, photos)` gives `[N, D]`. `computed`: how many were not there yet."""

    store: Store
    computed: int

    @property
    def widths(self) -> Mapping[str, int]:
        """Stage -> numbers."""
        return self.store.widths

    def table(self, stage: str, photos: Sequence[Photo]) -> np.ndarray:
        """`[N, D]` float32."""
        return self.store.rows([photo.sha for photo in photos], stage)


def features_folder() -> Path:
    """Where features are kept: `features` in `$PHOSPHENE_CACHE`, else beside the folder of weights."""
    return cache.folder() / "features" if os.environ.get("PHOSPHENE_CACHE") else cache.folder().parent / "features"


def stage_features(
    network: Network, photos: Sequence[Photo], stages: Sequence[str], *, folder: Path | None = None
) -> Job[StageFeatures]:
    """Features of photographs at each stage; those that are in the store already are not computed again.

    Args:
        network: any network.
        photos: with their hashes.
        stages: names of layers, see `stages.stages`.
        folder: of all stores; None keeps nothing.

    Raises:
        NetworkError: NaN or infinity.
        OutputError: the folder can't be written to.
    """
    if not all(photo.sha for photo in photos):
        raise PhospheneError("photographs need the hash of their bytes, by which features are kept: see `examples`")
    read_from = reader(network, stages)
    widths = {name: table.shape[1] for name, table in read_from(noise(network)).items()}
    store = Store(None if folder is None else folder / key(network, stages)[:32], widths)
    store.load()
    missing = list({photo.sha: photo for photo in photos if photo.sha not in store.places}.values())
    yield Started("features of every stage", len(photos), "image")
    done = len(photos) - len(missing)
    if done:
        yield Step(done)
    together = network.batch_size(network.input_size)
    parts = [missing[part.start : part.stop] for part in batches(len(missing), together)]
    kept: list[Photo] = []
    rows: list[np.ndarray] = []
    for part, pictures in zip(
        parts, ahead(parts, lambda photo: network.preprocess(images.read(photo.path))), strict=True
    ):
        batch = torch.cat(pictures).to(network.mean)
        found = read_from(batch)
        table = torch.cat([found[name] for name in stages], 1)
        if not bool(torch.isfinite(table).all()):
            bad = int((~torch.isfinite(table).all(1)).nonzero()[0])
            refuse_nan(network, batch[bad][None])
            raise PhospheneError(f"{network.name} gives NaN or infinity for {part[bad].path}")
        rows.append(table.numpy())
        kept += part
        done += len(part)
        if len(kept) >= SEGMENT:
            store.add([photo.sha for photo in kept], np.concatenate(rows))
            kept, rows = [], []
        yield Step(done)
    if kept:
        store.add([photo.sha for photo in kept], np.concatenate(rows))
    return StageFeatures(store, len(missing))


def key(network: Network, stages: Sequence[str]) -> str:
    """64 hex digits that tell features of this network, as it is, from all others."""
    parts = (
        _FORMAT,
        repr(network.module),  # strides and activations, which weights don't tell
        _source(network.module),
        digest(network.module.state_dict()),
        repr(network.preprocess),
        network.mean.flatten().tolist(),
        network.std.flatten().tolist(),
        str(network.dtype),
        network.device.type,
        list(stages),
        torch.__version__,
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _source(module: nn.Module) -> str:
    """SHA-256 of the code of all classes in a module: a `forward` may change while names and weights stay."""
    total = hashlib.sha256()
    for kind in sorted(
        {type(child) for child in module.modules()}, key=lambda kind: (kind.__module__, kind.__qualname__)
    ):
        with suppress(OSError, TypeError):  # made by hand, where no file holds it
            total.update(inspect.getsource(kind).encode())
    return total.hexdigest()


def width(network: Network, name: str) -> int:
    """How many numbers a stage gives."""
    return read(network, noise(network), [name])[name].shape[1]
