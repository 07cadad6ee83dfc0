"""The long experiments behind the figures that the project promises. `make test-slow` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phosphene import images
from phosphene.attacks import fool
from phosphene.models import Network
from phosphene.progress import run
from phosphene.synthesize import Settings, Visualization, visualize


def hits(network: Network, found: Visualization, classes: list[int], top: int) -> float:
    """The share of pictures whose class is among the network's first `top`."""
    seen = [prediction.indices for prediction in network.predict(found.images, top)]
    return sum(wanted in first for wanted, first in zip(classes, seen, strict=True)) / len(classes)


@pytest.mark.slow
def test_class_images_of_squeezenet_show_the_class_to_another_network(
    squeezenet: Network, efficientnet: Network
) -> None:
    classes = list(range(0, 1000, 10))
    found = run(visualize(squeezenet, classes))
    assert hits(squeezenet, found, classes, 1) >= 0.97
    assert hits(efficientnet, found, classes, 1) >= 0.5
    assert hits(efficientnet, found, classes, 5) >= 0.75
    assert float(found.images.flatten(1).std(1).min()) > 0.05


@pytest.mark.slow
def test_class_images_of_efficientnet_are_their_class_for_it(efficientnet: Network) -> None:
    classes = list(range(0, 1000, 10))
    found = run(visualize(efficientnet, classes))
    assert hits(efficientnet, found, classes, 1) >= 0.97
    assert float(found.images.flatten(1).std(1).min()) > 0.05


@pytest.mark.slow
def test_nine_of_ten_class_images_on_pixels_are_their_class(squeezenet: Network) -> None:
    classes = list(range(0, 1000, 20))
    found = run(visualize(squeezenet, classes, settings=Settings(canvas="pixel")))
    assert hits(squeezenet, found, classes, 1) >= 0.9


@pytest.mark.slow
@pytest.mark.shared
def test_twenty_photographs_are_fooled_to_three_classes_each_and_stay_so_in_a_file(
    bundled_network: Network, shared: Path, tmp_path: Path
) -> None:
    files = sorted((shared / "data" / "imagenet_samples").glob("*.jpg"))[::25]
    assert len(files) == 20
    photos = torch.cat([bundled_network.preprocess(images.read(file)) for file in files]).repeat_interleave(3, 0)
    seen = bundled_network.logits(photos).argmax(1)
    offsets = torch.cat([torch.randperm(999)[:3] + 1 for _ in files])
    targets = (seen + offsets) % 1000
    found = run(fool(bundled_network, photos, targets.tolist()))
    assert bool(found.success.all())
    assert float(found.l2.median()) < 1.5
    for place, picture in enumerate(found.images):
        path = images.save(picture, tmp_path / f"{place}.png")
        assert bundled_network.predict(images.read(path), 1)[0].indices[0] == int(targets[place])
