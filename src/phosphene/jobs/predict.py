"""`predict`: the most probable classes of each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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
) -> Job[Outcome]:
    """Facts: `{"predictions": [{"image", "classes": [{"index", "name", "synset", "probability"}]}]}`."""
    network = workshop.network(net, weights, labels)
    network.need_classifier("predict")
    yield Started("predict", len(images), "image")
    rows: list[dict[str, Any]] = []
    together = network.batch_size(network.input_size)
    for start in range(0, len(images), together):
        paths = images[start : start + together]
        batch = torch.cat([network.preprocess(workshop.image(path)) for path in paths])
        for path, found in zip(paths, network.predict(batch, top), strict=True):
            rows.append({"image": path, "classes": _classes(network, found)})
        yield Step(len(rows))
    return Outcome(facts={"net": net, "predictions": rows})


def _classes(network: Network, found: Prediction) -> list[dict[str, Any]]:
    return [
        {"index": index, "name": name, "synset": network.labels.synset(index), "probability": probability}
        for index, name, probability in zip(found.indices, found.names, found.probabilities, strict=True)
    ]
