"""`predict`: the most probable classes of each image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from phosphene import processes
from phosphene.errors import ImageError, PhospheneError
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network, Prediction
from phosphene.progress import Job, Started, Step


def predict(
    workshop: Workshop,
    *,
    images: Sequence[str],
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    top: int = 5,
    spare: Collection[str] = (),
) -> Job[Outcome]:
    """Facts: `{"predictions": [{"image", "classes": [{"index", "name", "synset", "probability"}]}], "skipped": {path: why}}`.

    Images among `spare` are skipped if they can't be read; another such image is an ImageError. Processes that torchrun
    started share the images; all but the first leave at the end.
    """
    network = workshop.network(net, weights, labels)
    network.need_classifier("predict")
    yield Started("predict", len(images), "image")
    rows: dict[int, dict[str, Any]] = {}
    skipped: dict[int, str] = {}
    for chunk in processes.mine(len(images), network.batch_size(network.input_size)):
        read = _read(workshop, network, {place: images[place] for place in chunk}, spare, skipped)
        if read:
            for place, found in zip(read, network.predict(torch.cat(list(read.values())), top), strict=True):
                rows[place] = {"image": images[place], "classes": _classes(network, found)}
        yield Step(chunk.stop)
    rows, skipped = processes.merged(rows), processes.merged(skipped)
    processes.leave()
    if skipped and not rows:
        raise PhospheneError(f"none of the {len(images)} images can be read: {next(iter(skipped.values()))}")
    why = {images[place]: reason for place, reason in skipped.items()}
    return Outcome(facts={"net": net, "predictions": list(rows.values()), "skipped": why})


def _read(
    workshop: Workshop, network: Network, paths: dict[int, str], spare: Collection[str], skipped: dict[int, str]
) -> dict[int, Tensor]:
    """The images by place, preprocessed; why others can't be read goes into `skipped`."""
    read: dict[int, Tensor] = {}
    for place, path in paths.items():
        try:
            read[place] = network.preprocess(workshop.image(path))
        except ImageError as problem:
            if path not in spare:
                raise
            skipped[place] = str(problem)
    return read


def _classes(network: Network, found: Prediction) -> list[dict[str, Any]]:
    return [
        {"index": index, "name": name, "synset": network.labels.synset(index), "probability": probability}
        for index, name, probability in zip(found.indices, found.names, found.probabilities, strict=True)
    ]
