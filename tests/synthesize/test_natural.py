"""What is natural for a network, against loops written out; and what it does to class images."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import ImageError, PhospheneError
from phosphene.models import Network, Unit, load
from phosphene.progress import run
from phosphene.synthesize import Natural, Settings, measure, natural_layers, visualize
from phosphene.synthesize import natural as module
from phosphene.synthesize.natural import LEAST, Moments, shipped
from phosphene.synthesize.objectives import class_scores
from phosphene.synthesize.visualize import resolved


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    return load(layers, device="cpu", input_size=24)


@pytest.fixture(scope="module")
def pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    coarse = [torch.rand(1, 3, 6, 6, generator=generator) * (0.3 + 0.05 * place) for place in range(12)]
    return [F.interpolate(picture, (24, 24), mode="bilinear")[0] for picture in coarse]


def by_hand(activation: Tensor) -> list[tuple[float, float]]:
    """Mean and standard deviation over the places of each channel."""
    found = []
    for channel in activation:
        values = channel.flatten().tolist()
        mean = sum(values) / len(values)
        found.append((mean, math.sqrt(sum((value - mean) ** 2 for value in values) / len(values) + 1e-6)))
    return found


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_moments_and_their_gradients(form: torch.memory_format) -> None:
    activation = (torch.randn(3, 5, 7, 9, dtype=torch.float64) + 2).to(memory_format=form).requires_grad_()
    deviation, mean = Moments.apply(activation)
    variance, wanted = torch.var_mean(activation, (2, 3), correction=0)
    torch.testing.assert_close(deviation, (variance + 1e-6).sqrt())
    torch.testing.assert_close(mean, wanted)
    assert torch.autograd.gradcheck(Moments.apply, activation)


def test_layers_are_the_landmarks_but_the_last(network: Network) -> None:
    assert natural_layers(network) == ["1", "4"]


def test_the_table_is_what_loops_find(network: Network, pictures: list[Tensor]) -> None:
    found = run(measure(network, pictures)).layers["4"]
    moments = [by_hand(network.record(picture[None], ["4"])["4"][0]) for picture in pictures]
    deviations: list[list[float]] = []
    for row in (0, 1):
        middles, spreads = [], []
        for channel in range(8):
            values = [image[channel][row] for image in moments]
            middle = sum(values) / 12
            middles.append(middle)
            spreads.append(math.sqrt(sum((value - middle) ** 2 for value in values) / 11))
        floor = LEAST * sum(spreads) / 8
        deviations += [middles, [max(spread, floor, 1e-6) for spread in spreads]]
    torch.testing.assert_close(found, torch.tensor(deviations), atol=1e-6, rtol=1e-4)


def test_the_distance_is_the_formula(network: Network, pictures: list[Tensor]) -> None:
    natural = run(measure(network, pictures))
    images = torch.rand(3, 3, 24, 24)
    maps = network.record(images, list(natural.layers))
    found = natural.distance(maps)
    for place in range(3):
        total = 0.0
        for layer, table in natural.layers.items():
            rows = by_hand(maps[layer][place])
            here = [
                ((mean - float(table[0, c])) / float(table[1, c])) ** 2
                + ((deviation - float(table[2, c])) / float(table[3, c])) ** 2
                for c, (mean, deviation) in enumerate(rows)
            ]
            total += sum(here) / len(here)
        assert float(found[place]) == pytest.approx(total / len(natural.layers), rel=1e-4)


def test_photographs_lie_at_two_on_average(network: Network, pictures: list[Tensor]) -> None:
    """(N - 1) / N of a unit variance for each of the two moments, where no spread is at its floor."""
    natural = run(measure(network, pictures))
    maps = network.record(torch.stack(pictures), list(natural.layers))
    assert float(natural.distance(maps).mean()) == pytest.approx(2 * 11 / 12, rel=0.02)


def test_each_image_stands_alone(network: Network, pictures: list[Tensor]) -> None:
    natural = run(measure(network, pictures))
    score = class_scores(network, [1, 3], natural=natural, weight=0.5)
    first, second = torch.rand(1, 3, 24, 24), torch.rand(1, 3, 24, 24)
    together = score(torch.cat([first, second]))
    alone = class_scores(network, [1], natural=natural, weight=0.5)(first)
    torch.testing.assert_close(together[:1], alone, atol=1e-5, rtol=1e-5)
    wanted = (
        network.logits(first)[0, 1]
        - 0.5 * natural.spread * natural.distance(network.record(first, list(natural.layers)))[0]
    )
    torch.testing.assert_close(alone[0], wanted.detach(), atol=1e-5, rtol=1e-5)


def test_an_ascent_with_it_ends_nearer_to_photographs(network: Network, pictures: list[Tensor]) -> None:
    natural = run(measure(network, pictures))
    settings = Settings(steps=60, rate=0.03, jitter=2)

    def distance(weight: float) -> float:
        found = run(
            visualize(network, [2], settings=Settings(**{**vars(settings), "natural": weight}), natural=natural)
        )
        return float(natural.distance(network.record(found.images, list(natural.layers)))[0])

    assert distance(1.0) < 0.3 * distance(0.0)


def test_what_cant_be_read_is_left_out(network: Network, pictures: list[Tensor]) -> None:
    class Some(list[Tensor]):
        def __getitem__(self, place: int) -> Tensor:  # type: ignore[override]
            if place == 3:
                raise ImageError("no image")
            return super().__getitem__(place)

    found = run(measure(network, Some(pictures)))
    wanted = run(measure(network, [*pictures[:3], *pictures[4:]]))
    torch.testing.assert_close(found.layers["1"], wanted.layers["1"], atol=1e-5, rtol=1e-4)


def test_too_few_photographs(network: Network, pictures: list[Tensor]) -> None:
    with pytest.raises(PhospheneError, match="at least 8 photographs, but only 7"):
        run(measure(network, pictures[:7]))


def test_a_table_survives_its_file(network: Network, pictures: list[Tensor], tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "SHIPPED", tmp_path)
    assert shipped(network) is None
    natural = run(measure(network, pictures))
    natural.write(tmp_path / module.file_name(module.digest(network.module.state_dict())))
    found = shipped(network)
    assert found is not None and list(found.layers) == list(natural.layers)
    for layer, table in natural.layers.items():
        torch.testing.assert_close(found.layers[layer], table, atol=1e-4, rtol=1e-3)


def test_the_bundled_networks_have_one(bundled_network: Network, photos: Tensor) -> None:
    natural = shipped(bundled_network)
    assert natural is not None and set(natural.layers) == set(natural_layers(bundled_network))
    sizes = {layer: bundled_network.layer(layer).shape[0] for layer in natural.layers}
    assert {layer: tuple(table.shape) for layer, table in natural.layers.items()} == {
        layer: (4, count) for layer, count in sizes.items()
    }
    distances = natural.distance(bundled_network.record(photos, list(natural.layers)))
    grey = natural.distance(bundled_network.record(torch.full_like(photos[:1], 0.5), list(natural.layers)))
    noise = natural.distance(bundled_network.record(torch.rand_like(photos[:1]), list(natural.layers)))
    assert bool((distances < 6).all()), distances
    assert float(noise) > 3 * float(distances.max()) and float(grey) > 0.5 * float(distances.max())


def test_what_counts(network: Network, squeezenet: Network, pictures: list[Tensor]) -> None:
    usual, known = resolved(squeezenet, Settings(), [3])
    assert usual.natural == 1.5 and isinstance(known, Natural)
    assert resolved(squeezenet, Settings(canvas="pixel"), [3]) == (Settings(canvas="pixel", natural=0.0), None)
    assert resolved(network, Settings(), [3]) == (Settings(natural=0.0), None)  # nobody knows what is natural for it
    natural = run(measure(network, pictures))
    assert resolved(network, Settings(natural=2.0), [3], natural) == (Settings(natural=2.0), natural)
    assert resolved(squeezenet, Settings(), [Unit("features.3", 1)])[1] is None


@pytest.mark.parametrize(
    ("settings", "target", "words"),
    [
        (Settings(natural=1.0), 3, "is not known: give photographs with --like FOLDER"),
        (Settings(natural=1.0), Unit("1", 2), "natural is for classes"),
        (Settings(contrast=1.0), Unit("1", 2), "contrast is for classes"),
        (Settings(natural=-1.0), 3, "natural can't be negative"),
    ],
)
def test_what_cant_be(network: Network, settings: Settings, target: int | Unit, words: str) -> None:
    with pytest.raises(PhospheneError, match=words):
        run(visualize(network, [target], settings=settings))  # type: ignore[list-item]
