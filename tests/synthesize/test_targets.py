"""Directions, how channels are written, and what keeps several pictures of one target apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models import Network, Unit, load
from phosphene.progress import run
from phosphene.synthesize import Direction, PixelCanvas, ascend, parse_channels
from phosphene.synthesize.objectives import Objective, class_scores, different, unit_activations

CHANNELS = 48


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 5)
    )
    return load(module, device="cpu", input_size=12)


def gradients(objective: Objective, images: Tensor) -> tuple[Tensor, Tensor]:
    leaf = images.clone().requires_grad_()
    values = objective(leaf)
    (gradient,) = torch.autograd.grad(values.sum(), leaf)
    return values.detach(), gradient


# -- how channels are written -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("12", Unit("0", 12)),
        ("0", Unit("0", 0)),
        ("12:3:4", Unit("0", 12, (3, 4))),
        ("12:3,4", Unit("0", 12, (3, 4))),
        ("47:9:0", Unit("0", 47, (9, 0))),
    ],
)
def test_a_channel_or_a_neuron(network: Network, text: str, unit: Unit) -> None:
    assert parse_channels(network, "0", text) == unit


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("12-40", {12: 1, 40: -1}),
        ("12+40", {12: 1, 40: 1}),
        ("-3", {3: -1}),
        ("+3", {3: 1}),
        ("2*5", {5: 2}),
        ("0.5*12+7-40", {12: 0.5, 7: 1, 40: -1}),
        ("-1.25*3-0.5*4", {3: -1.25, 4: -0.5}),
        ("7+7-9", {7: 2, 9: -1}),
    ],
)
def test_channels_added_and_taken_away(network: Network, text: str, weights: dict[int, float]) -> None:
    found = parse_channels(network, "0", text)
    assert isinstance(found, Direction)
    assert {place: weight for place, weight in enumerate(found.vector.tolist()) if weight} == weights
    assert len(found.vector) == CHANNELS
    assert str(found) == f"0:{text}"


@pytest.mark.parametrize(
    "text",
    ["", "a", "12-", "12--40", "12 - 40", "12:3", "12:3:4:5", "12:3,4-7", "*3", "3*", "1e3*4", ".5*3", "3*4*5", "-", "12,3",
     "0x3", "3.5"],
)  # fmt: skip
def test_text_that_is_no_unit(network: Network, text: str) -> None:
    with pytest.raises(LayerError, match=r"is no unit of '0': write a channel"):
        parse_channels(network, "0", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("48", "units 0 to 47"),
        ("3-48", "units 0 to 47"),
        ("12:10:0", "no position"),
        ("3-3", "finite weights that are not all zero"),
        ("0*3", "finite weights that are not all zero"),
        ("9" * 400 + "*3", "finite weights that are not all zero"),
    ],
)
def test_channels_that_are_not_there(network: Network, text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        parse_channels(network, "0", text)


def test_channels_of_no_layer(network: Network) -> None:
    for text in ("1", "1-2"):
        with pytest.raises(LayerError, match="no layer 'nowhere'"):
            parse_channels(network, "nowhere", text)


# -- directions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (torch.ones(47), r"48 channels.*got \[47\]"),
        (torch.ones(1, 48), r"48 channels.*got \[1, 48\]"),
        (torch.tensor(1.0), r"48 channels.*got \[\]"),
        (torch.zeros(48), "not all zero"),
        (torch.full((48,), float("nan")), "finite"),
        (torch.full((48,), float("inf")), "finite"),
    ],
)
def test_vectors_that_are_no_direction(network: Network, vector: Tensor, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        Direction("0", vector).check(network)
    with pytest.raises(LayerError, match=message):
        unit_activations(network, [Unit("0", 1), Direction("0", vector)])


def test_a_direction_is_the_mean_of_weighted_channels(network: Network) -> None:
    images, vectors = torch.rand(2, 3, 12, 12), torch.randn(2, CHANNELS)
    maps = network.record(images, ["0"])["0"]
    found = unit_activations(network, [Direction("0", vector) for vector in vectors])(images)
    wanted = [sum(float(vectors[n, c]) * float(maps[n, c].double().mean()) for c in range(CHANNELS)) for n in range(2)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)


def test_a_direction_of_a_layer_that_gives_vectors(network: Network) -> None:
    images, vector = torch.rand(2, 3, 12, 12), torch.randn(5)
    found = unit_activations(network, [Direction("4", vector), Direction("4", -vector)])(images)
    logits = network.logits(images)
    torch.testing.assert_close(found, torch.stack([logits[0] @ vector, -(logits[1] @ vector)]))


def test_units_and_directions_share_a_pass(network: Network) -> None:
    images, vector = torch.rand(4, 3, 12, 12), torch.randn(CHANNELS)
    units = [Unit("1", 3), Direction("1", vector), Unit("1", 5, (2, 7)), parse_channels(network, "1", "0.5*3-5")]
    maps = network.record(images, ["1"])["1"]
    wanted = [maps[0, 3].mean(), maps[1].mean((1, 2)) @ vector, maps[2, 5, 2, 7],
              (0.5 * maps[3, 3] - maps[3, 5]).mean()]  # fmt: skip
    torch.testing.assert_close(unit_activations(network, units)(images), torch.stack(wanted))


def test_a_direction_along_one_channel_is_that_channel(network: Network) -> None:
    images = torch.rand(2, 3, 12, 12)
    along = Direction("0", torch.eye(CHANNELS)[7])
    as_units = gradients(unit_activations(network, [Unit("0", 7)] * 2), images)
    as_directions = gradients(unit_activations(network, [along] * 2), images)
    torch.testing.assert_close(as_units, as_directions)


# -- several pictures that differ -------------------------------------------------------------------------------


def cosine(one: Tensor, other: Tensor) -> float:
    """Of the Gram matrices of two activations `[C, H, W]`, number by number."""
    grams = []
    for maps in (one, other):
        flat = maps.flatten(1).double()
        grams.append([float((flat[a] * flat[b]).sum()) for a in range(len(flat)) for b in range(len(flat))])
    dot = sum(a * b for a, b in zip(*grams, strict=True))
    return dot / (sum(a * a for a in grams[0]) * sum(b * b for b in grams[1])) ** 0.5


def test_what_pictures_have_in_common_is_taken_off(network: Network) -> None:
    images = torch.rand(5, 3, 8, 8)
    groups = [0, 1, 0, 0, 2]
    plain = class_scores(network, [1] * 5)
    maps, values = network.record(images, ["1"])["1"], plain(images)
    wanted = []
    for n in range(5):
        others = [m for m in range(5) if m != n and groups[m] == groups[n]]
        alike = sum(cosine(maps[n], maps[m]) for m in others) / max(1, len(others))
        wanted.append(float(values[n]) - 0.7 * abs(float(values[n])) * alike)
    found = different(network, plain, "1", groups, 0.7)(images)
    assert found.tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert found[1] == values[1] and found[4] == values[4]  # they are alone


def test_groups_do_not_influence_each_other(network: Network) -> None:
    images = torch.rand(4, 3, 8, 8)
    both = gradients(different(network, class_scores(network, [1, 1, 2, 2]), "1", [0, 0, 1, 1], 1.0), images)
    alone = gradients(different(network, class_scores(network, [1, 1]), "1", [0, 0], 1.0), images[:2])
    torch.testing.assert_close(both[0][:2], alone[0])
    torch.testing.assert_close(both[1][:2], alone[1])


def test_a_group_that_is_not_finite_leaves_the_others_alone(network: Network) -> None:
    images = torch.rand(4, 3, 8, 8)
    objective = different(network, class_scores(network, [1, 1, 2, 2]), "1", [0, 0, 1, 1], 1.0)
    whole = gradients(objective, images)
    images[3, 0, 2, 2] = float("nan")
    found = gradients(objective, images)
    assert not torch.isfinite(found[0][3])
    torch.testing.assert_close(found[0][:2], whole[0][:2])
    torch.testing.assert_close(found[1][:2], whole[1][:2])


def test_pictures_of_one_unit_are_pushed_apart(network: Network) -> None:
    units = [Unit("1", 3)] * 3

    def climb(objective: Objective) -> Tensor:
        noise = 0.1 * torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
        canvas = PixelCanvas(network, 3, (12, 12), noise=noise)
        return run(ascend(canvas, objective, steps=30, rate=0.1, generator=torch.Generator())).images

    def alike(images: Tensor) -> float:
        maps: Any = network.record(images, ["1"])["1"]
        return sum(cosine(maps[a], maps[b]) for a, b in ((0, 1), (0, 2), (1, 2))) / 3

    plain = unit_activations(network, units)
    together, apart = climb(plain), climb(different(network, plain, "1", [0, 0, 0], 2.0))
    assert alike(apart) < alike(together) - 0.05
    assert (plain(apart) > plain(torch.full((3, 3, 12, 12), 0.5))).all()  # and still show the unit
