"""The long experiments behind the figures that the project promises. `make test-slow` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from phosphene import images
from phosphene.attacks import fool
from phosphene.models import Network
from phosphene.progress import run
from phosphene.synthesize import Settings, visualize


@pytest.mark.slow
@pytest.mark.parametrize("canvas", ["fourier", "pixel"])
def test_nine_of_ten_class_images_are_their_class_for_the_network_that_made_them(
    squeezenet: Network, canvas: str
) -> None:
    classes = list(range(0, 1000, 20))
    found = run(visualize(squeezenet, classes, settings=Settings(canvas=canvas)))  # type: ignore[arg-type]
    assert found.top is not None
    assert float((found.top == torch.tensor(classes)).float().mean()) >= 0.9
    assert float(found.images.flatten(1).std(1).min()) > 0.05


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
