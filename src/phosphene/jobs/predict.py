"""`predict`: the most probable classes of each image."""

from __future__ import annotations

from collections.abc import Sequence

from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
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
    rows = []
    for done, path in enumerate(images, start=1):
        found = network.predict(workshop.image(path), top)[0]
        classes = [
            {"index": index, "name": name, "synset": network.labels.synset(index), "probability": probability}
            for index, name, probability in zip(found.indices, found.names, found.probabilities, strict=True)
        ]
        rows.append({"image": path, "classes": classes})
        yield Step(done)
    return Outcome(facts={"net": net, "predictions": rows})
