"""`cue-conflict` as a job: one stimulus, between its two photographs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from skimage import data
from torch import Tensor

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.jobs import job
from phosphene.jobs.cue_conflict import squared
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import run
from phosphene.synthesize.style_layers import layers_for

SIDE = 128


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A cat, and a brick wall."""
    folder = tmp_path_factory.mktemp("photos")
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255
    brick = torch.from_numpy(data.brick())[None, :200, :150].expand(3, -1, -1) / 255
    return str(images.save(cat, folder / "cat.png")), str(images.save(brick, folder / "brick.png"))


def make(photos: tuple[str, str], **parameters: Any) -> Outcome:
    given = {"image": photos[0], "styles": photos[1], "size": SIDE, "steps": 25, **parameters}
    return run(job("cue-conflict", Workshop("cpu"), given))


@pytest.fixture(scope="module")
def made(photos: tuple[str, str]) -> Outcome:
    return make(photos)


def gram_distance(network: Network, one: Tensor, other: Tensor) -> float:
    """Between the correlations of channels, over the style layers, relative to those of `other`."""
    layers = list(layers_for(network).style)
    total = 0.0
    for layer in layers:
        grams = []
        for image in (one, other):
            features = network.record(image, [layer])[layer].flatten(2)[0]
            grams.append(features @ features.T / features.shape[1])
        total += float((grams[0] - grams[1]).norm() / grams[1].norm())
    return total / len(layers)


def test_it_has_the_shape_of_one_and_the_texture_of_the_other(
    made: Outcome, photos: tuple[str, str], squeezenet: Network
) -> None:
    content, texture = (squared(images.read(path), SIDE) for path in photos)
    stimulus = made.picture("cue-conflict").image[None]
    before, after = gram_distance(squeezenet, content, texture), gram_distance(squeezenet, stimulus, texture)
    assert after < before / 3  # far nearer to the bricks than the cat was
    (layer,) = layers_for(squeezenet).content
    own, cat, brick = (squeezenet.record(one, [layer])[layer].flatten() for one in (stimulus, content, texture))
    likeness = torch.nn.functional.cosine_similarity
    assert likeness(own, cat, dim=0) > likeness(own, brick, dim=0) + 0.1  # what is where is still the cat's


def test_its_facts_and_pictures(made: Outcome, photos: tuple[str, str]) -> None:
    assert [picture.name for picture in made.pictures] == ["cue-conflict", "beside"]
    assert made.pictures[0].image.shape == (3, SIDE, SIDE)
    assert made.pictures[0].alt == "The shape of cat with the texture of brick"
    facts = json.loads(json.dumps(made.facts))
    assert (facts["shape"], facts["texture"], facts["net"]) == (*photos, "squeezenet1_1")
    assert (facts["steps"], facts["sizes"]) == (25, [[SIDE, SIDE]])
    assert all(now < before for before, now in facts["style_losses"].values())


def test_weights_move_it_between_the_two(made: Outcome, photos: tuple[str, str], squeezenet: Network) -> None:
    texture = squared(images.read(photos[1]), SIDE)
    found = {
        weight: gram_distance(squeezenet, make(photos, style_weight=weight).pictures[0].image[None], texture)
        for weight in (0.2, 200.0)
    }
    assert found[200.0] < gram_distance(squeezenet, made.pictures[0].image[None], texture) < found[0.2]


def test_middle_squares() -> None:
    wide = torch.linspace(0, 1, 200).expand(1, 3, 100, 200)
    found = squared(wide, 50)
    assert found.shape == (1, 3, 50, 50)
    torch.testing.assert_close(found[0, 0, 0], torch.linspace(0.25, 0.75, 51)[:50] + 0.005, atol=0.005, rtol=0)
    assert squared(wide.transpose(2, 3), 50).shape == (1, 3, 50, 50)
    middle = wide[..., 50:150]
    torch.testing.assert_close(squared(middle, 100), middle)  # one that fits already stays as it is


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"size": 31}, "32 to 4096 pixels a side, got 31"),
        ({"size": 5000}, "32 to 4096 pixels a side"),
        ({"steps": 0}, "steps start at 1"),
        ({"style_weight": -1.0}, "a style weight is a number from 0 up"),
        ({"content_weight": 0.0, "style_weight": 0.0}, "nothing would move"),
        ({"styles": "gone.png"}, "does not exist"),
    ],
)
def test_refusals(photos: tuple[str, str], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        make(photos, **wrong)


def test_the_same_each_time(photos: tuple[str, str]) -> None:
    one, again = (make(photos, steps=3).pictures[0].image for _ in range(2))
    assert torch.equal(one, again)
