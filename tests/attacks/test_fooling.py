"""Fooling images: on a linear network, whose best perturbation is known, and on the bundled ones."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from phosphene import images
from phosphene.attacks import Ball, Fooled, fool
from phosphene.errors import LabelError, NetworkError, PhospheneError
from phosphene.models import Network, load
from phosphene.progress import Step, run

SIZE = 24


def linear(classes: int = 2, scale: float = 0.05, size: int = SIZE) -> Network:
    torch.manual_seed(1)
    layer = nn.Linear(3 * size * size, classes)
    layer.weight.data = torch.randn(layer.weight.shape) * scale
    layer.bias.data.zero_()
    module = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Flatten(), layer)
    module[0].weight.data = torch.eye(3)[:, :, None, None]  # networks are told by their convolutions
    return load(module, device="cpu", input_size=size, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope="module")
def network() -> Network:
    return linear()


@pytest.fixture
def grey() -> Tensor:
    """Images around grey, so that [0, 1] is far away."""
    return 0.4 + 0.2 * torch.rand(4, 3, SIZE, SIZE)


def other(network: Network, pictures: Tensor) -> list[int]:
    return (1 - network.logits(images.quantize(pictures)).argmax(1)).tolist()


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.4])
def test_the_change_is_nearly_the_smallest(network: Network, grey: Tensor, confidence: float) -> None:
    # p_t >= c is one half-space for two classes: w.x + b >= log(c / (1 - c)), and its distance is known.
    targets = other(network, grey)
    found = run(fool(network, grey, targets, confidence=confidence))
    logits = network.logits(found.originals)
    rows = torch.arange(len(grey))
    odds = logits[rows, targets] - logits[rows, 1 - torch.tensor(targets)]
    weights = network.module[2].weight  # type: ignore[index]
    needed = (math.log(confidence / (1 - confidence)) - odds) / (weights[0] - weights[1]).norm()
    assert found.success.all()
    assert (needed > 0).any()
    for size, least in zip(found.l2.tolist(), needed.tolist(), strict=True):
        if least > 0:
            assert least * 0.99 <= size <= 1.3 * least + 0.05
        else:
            assert size == 0


def check(found: Fooled, network: Network, targets: list[int], confidence: float = 0.5) -> None:
    """What holds for every result."""
    levels = found.images * 255
    assert torch.equal(levels.round() / 255, found.images)
    assert found.images.min() >= 0 and found.images.max() <= 1
    change = (found.images - found.originals).flatten(1)
    torch.testing.assert_close(found.l2, change.norm(dim=1))
    torch.testing.assert_close(found.linf, change.abs().amax(1))
    chance = network.logits(found.images).softmax(1)[torch.arange(len(targets)), targets]
    torch.testing.assert_close(found.confidence, chance, atol=1e-5, rtol=0)
    assert torch.equal(found.success, found.confidence >= confidence - 1e-6)


def test_results_are_pictures_and_survive_a_file(network: Network, grey: Tensor) -> None:
    targets = other(network, grey)
    found = run(fool(network, grey, targets))
    check(found, network, targets)
    assert found.success.all()
    for image, target in zip(found.images, targets, strict=True):
        back = images.decode(images.encode(image))
        assert torch.equal(back[0], image)
        assert network.predict(back, 1)[0].indices == (target,)


def test_what_is_fooled_already_is_left_alone(network: Network, grey: Tensor) -> None:
    targets = [1 - other_one for other_one in other(network, grey)]
    found = run(fool(network, grey, targets))
    assert found.success.all() and not found.l2.any() and not found.steps.any()


@pytest.mark.parametrize("ball", [Ball("linf", 2.3 / 255), Ball("linf", 3 / 255), Ball("l2", 0.3), Ball("l2", 0.111)])
def test_it_stays_in_the_ball(grey: Tensor, ball: Ball) -> None:
    network = linear(scale=0.003)  # flat: it would take more than that
    targets = other(network, grey)
    found = run(fool(network, grey, targets, confidence=0.99, ball=ball, steps=40))
    check(found, network, targets, 0.99)
    assert not found.success.all()
    size = found.linf if ball.norm == "linf" else found.l2
    assert size.max() <= ball.eps + 1e-6
    assert size.max() > 0.5 * ball.eps
    if ball == Ball("linf", 3 / 255):
        assert found.linf.max() == pytest.approx(ball.eps, rel=1e-4)  # the ball's own surface can be reached


def test_it_fools_within_a_ball_that_is_wide_enough(network: Network, grey: Tensor) -> None:
    targets = other(network, grey)
    free = run(fool(network, grey, targets))
    found = run(fool(network, grey, targets, ball=Ball("l2", 2 * float(free.l2.max()) + 0.2)))
    check(found, network, targets)
    assert found.success.all()


def test_a_batch_gives_what_each_gives_alone(network: Network, grey: Tensor) -> None:
    targets = other(network, grey)
    whole = run(fool(network, grey, targets))
    for n in range(len(grey)):
        alone = run(fool(network, grey[n : n + 1], targets[n : n + 1]))
        assert (alone.images - whole.images[n : n + 1]).abs().max() <= 1.01 / 255
        assert alone.steps[0] == whole.steps[n]


def test_it_gives_up_and_says_so(network: Network, grey: Tensor) -> None:
    found = run(fool(network, grey, other(network, grey), confidence=0.9999, step=0.02, steps=2))
    assert not found.success.any()
    assert found.steps.tolist() == [2] * 4


def test_the_network_is_left_as_it_was(grey: Tensor) -> None:
    network = linear()
    network.module.train()
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    run(fool(network, grey, [0, 0, 0, 0]))
    assert network.module.training
    assert all(p.grad is None and p.requires_grad for p in network.module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_each_step_is_an_event(network: Network, grey: Tensor) -> None:
    events: list[object] = []
    found = run(fool(network, grey, other(network, grey)), events.append)
    steps = [event.done for event in events if isinstance(event, Step)]
    assert steps == [*range(1, int(found.steps.max()) + 1), int(found.steps.max())]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"targets": [0]}, LabelError, "1 targets for 4 images"),
        ({"targets": [0, 0, 0, 2]}, LabelError, "0 to 1"),
        ({"confidence": 1.0}, PhospheneError, "between 0 and 1"),
        ({"confidence": float("nan")}, PhospheneError, "between 0 and 1"),
        ({"step": 0.0}, PhospheneError, "positive length"),
        ({"steps": 0}, PhospheneError, "steps start at 1"),
    ],
)
def test_wrong_arguments(network: Network, grey: Tensor, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        run(fool(network, grey, **{"targets": [0, 0, 0, 0], **options}))


def test_a_network_without_classes() -> None:
    features = load(nn.Sequential(nn.Conv2d(3, 4, 3)), device="cpu", input_size=8)
    with pytest.raises(NetworkError, match="classifies"):
        run(fool(features, torch.rand(1, 3, 8, 8), [0]))


TARGETS = ["black swan", "iPod"]


@pytest.mark.shared
def test_photographs_are_fooled_by_changes_that_nobody_sees(bundled_network: Network, shared: Path) -> None:
    files = sorted((shared / "data" / "imagenet_samples").glob("*.jpg"))
    files = files[:: len(files) // 3][:3]
    photos = torch.cat([bundled_network.preprocess(images.read(file)) for file in files])
    found = run(fool(bundled_network, photos.repeat(2, 1, 1, 1), [name for name in TARGETS for _ in files]))
    indices = [bundled_network.labels.resolve(name) for name in TARGETS for _ in files]
    check(found, bundled_network, indices)
    assert found.success.all()
    assert found.l2.max() < 4
    assert bundled_network.logits(found.images).argmax(1).tolist() == indices
