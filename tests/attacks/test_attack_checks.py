"""Bad input, one clear line for each mistake, the same from every attack."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from planes import bent, done, noise, seen
from torch import Tensor, nn

from phosphene.attacks import bim, carlini_wagner, checks, deepfool, fgsm, mi_fgsm, ni_fgsm, pgd
from phosphene.errors import LabelError, NetworkError, PhospheneError
from phosphene.models import load

ATTACKS = [fgsm, bim, pgd, mi_fgsm, ni_fgsm, deepfool, carlini_wagner]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)


def call(attack: Callable, **changes: Any) -> Any:
    """The attack on a small network, with some arguments changed."""
    module, images = bent(), noise(3)
    settings: dict[str, Any] = {"network": module, "images": images, "labels": seen(module, images), "eps": 0.1}
    if "steps" in inspect.signature(attack).parameters:
        settings["steps"] = 2
    settings.update(changes)
    network, images, labels = (settings.pop(name) for name in ("network", "images", "labels"))
    return done(attack(network, images, labels, **settings))


def nan_image() -> Tensor:
    images = noise(3)
    images[1, 0, 2, 2] = torch.nan
    return images


BAD: list[tuple[dict[str, Any], type[PhospheneError], str]] = [
    ({"eps": -0.1}, PhospheneError, "radius of 0 or more, got -0.1"),
    ({"eps": float("nan")}, PhospheneError, "radius of 0 or more, got nan"),
    ({"eps": torch.tensor([0.1, -0.2, 0.1])}, PhospheneError, "got -0.2"),
    ({"eps": torch.tensor([0.1, 0.2])}, PhospheneError, "one for each of the 3 images"),
    ({"labels": torch.zeros(2, dtype=torch.long)}, LabelError, "2 labels for 3 images"),
    ({"labels": torch.zeros(3)}, LabelError, "whole numbers; got float32"),
    ({"labels": torch.zeros(3, dtype=torch.bool)}, LabelError, "whole numbers; got bool"),
    ({"labels": torch.zeros(3, 4, dtype=torch.long)}, LabelError, r"shape \[N\]"),
    ({"labels": [0, 1, 4]}, LabelError, "classes 0 to 3, but 4 is among the labels"),
    ({"labels": [0, -1, 3]}, LabelError, "-1 is among the labels"),
    ({"labels": [0, 1, 2], "targets": [1, 2, 9]}, LabelError, "9 is among the targets"),
    ({"labels": [0, 1, 2], "targets": [1, 1, 0]}, LabelError, "image 1 is of class 1 already"),
    ({"labels": [0, 1, 2], "targets": [1]}, LabelError, "1 targets for 3 images"),
    ({"images": noise(3) * 255}, PhospheneError, "divide by 255"),
    ({"images": noise(3) * 2 - 1}, PhospheneError, "leave normalising to the network"),
    ({"images": (noise(3) * 255).byte()}, PhospheneError, "got uint8"),
    ({"images": noise(3)[:, 0]}, PhospheneError, r"\[N, C, H, W\]"),
    ({"images": noise(3)[:0], "labels": []}, PhospheneError, "no images"),
    ({"images": nan_image()}, PhospheneError, "NaN"),
    ({"images": noise(3, 3)}, NetworkError, r"can't run on images of shape \[3, 3, 8, 8\]"),
    ({"mask": torch.ones(8, 8)}, PhospheneError, r"\[3 or 1, 1 or 1, 8, 8\]"),
    ({"mask": torch.ones(2, 1, 8, 8)}, PhospheneError, "a mask for these images"),
    ({"mask": torch.full((1, 1, 8, 8), 0.5)}, PhospheneError, "other values"),
    ({"keys": ["a"]}, PhospheneError, "1 keys for 3 images"),
    ({"norm": "l7"}, PhospheneError, "l7"),
]


@each_attack
@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input(attack: Callable, changes: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises(error, match=message) as found:
        call(attack, **changes)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("attack", [fgsm, bim, pgd, mi_fgsm, ni_fgsm])
@pytest.mark.parametrize(
    ("eps", "norm", "hint"),
    [
        (8, "linf", "did you mean 8/255"),
        (8.0, "linf", "did you mean 8/255"),
        (torch.tensor([0.1, 4.0, 0.1]), "linf", "did you mean 4/255"),
        (128, "l2", "did you mean 128/255"),
        (float("inf"), "linf", "reaches every picture"),
    ],
)
def test_a_radius_of_pixel_values(attack: Callable, eps: float, norm: str, hint: str) -> None:
    with pytest.raises(PhospheneError, match=f"eps is in units of .*{hint}"):
        call(attack, eps=eps, norm=norm)


@pytest.mark.parametrize("attack", [bim, pgd, mi_fgsm, ni_fgsm, deepfool, carlini_wagner])
@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_steps_that_are_none(attack: Callable, steps: Any) -> None:
    with pytest.raises(PhospheneError, match="steps start at 1"):
        call(attack, steps=steps)


@pytest.mark.parametrize(
    ("attack", "changes", "message"),
    [
        (pgd, {"restarts": 0}, "restarts start at 1"),
        (pgd, {"step": 0.0}, "a step is a number above 0"),
        (pgd, {"restarts": 2, "random_start": False}, "all be the same"),
        (mi_fgsm, {"decay": -1.0}, "a decay is 0 or more"),
        (deepfool, {"norm": "linf"}, "l2"),
        (deepfool, {"overshoot": -1.0}, "overshoot"),
        (deepfool, {"candidates": 0}, "candidates start at 1"),
        (carlini_wagner, {"norm": "linf"}, "l2"),
        (carlini_wagner, {"searches": 0}, "searches start at 1"),
        (carlini_wagner, {"step": float("nan")}, "a step is a number above 0"),
        (carlini_wagner, {"first": 0.0}, "first c"),
        (carlini_wagner, {"confidence": -1.0}, "a confidence is 0 or more"),
    ],
)
def test_each_attacks_own(attack: Callable, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        call(attack, **changes)


def softened(classes: int = 4) -> nn.Module:
    return nn.Sequential(bent(classes=classes), nn.Softmax(dim=1))


@each_attack
def test_probabilities_are_found_and_can_be_accepted(attack: Callable) -> None:
    with pytest.raises(NetworkError, match="probabilities, not logits"):
        call(attack, network=softened())
    told, plain = call(attack, network=softened(), probabilities=True), call(attack)
    assert torch.equal(told.success, plain.success)
    torch.testing.assert_close(told.images, plain.images, atol=1e-3, rtol=0)
    with pytest.raises(NetworkError, match="rows sum to 1, and this one's don't"):
        call(attack, probabilities=True)


class Gives(nn.Module):
    def __init__(self, give: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.give = give

    def forward(self, x: Tensor) -> Any:
        return self.give(x)


@each_attack
@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: x, r"logits \[3, classes\], this one gives a tensor of shape \[3, 1, 8, 8\]"),
        (lambda x: x.flatten(1)[:1], r"this one gives a tensor of shape \[1, 64\]"),
        (lambda x: None, "gives nothing"),
        (lambda x: x.flatten(1)[:, :1], "two classes or more"),
        (lambda x: x.flatten(1)[:, :3] * torch.nan, "NaN"),
    ],
)
def test_networks_that_give_something_else(attack: Callable, give: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        call(attack, network=Gives(give), labels=[0, 0, 0])


def test_a_network_without_classes() -> None:
    features = load(nn.Sequential(nn.Conv2d(3, 4, 3)), device="cpu", input_size=8)
    with pytest.raises(NetworkError, match="an attack needs a network that classifies"):
        call(pgd, network=features, images=noise(3, 3))


@each_attack
def test_an_image_that_is_seen_as_the_target_already_is_wrong(attack: Callable) -> None:
    module, images = bent(), noise(3)
    predicted = seen(module, images)
    labels = predicted.clone()
    labels[1] = (predicted[1] + 1) % 4
    targets = (predicted + 2) % 4
    targets[1] = predicted[1]
    found = call(attack, labels=labels, targets=targets)
    assert found.wrong.tolist() == [False, True, False]
    assert not found.success[1] and not found.l2[1]


@each_attack
def test_labels_as_a_list_and_in_other_types(attack: Callable) -> None:
    labels = seen(bent(), noise(3))
    plain = call(attack)
    for same in (labels.tolist(), labels.int(), labels.to(torch.uint8)):
        assert torch.equal(call(attack, labels=same).images, plain.images)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_radius_that_8_bits_can_hold(norm: str) -> None:
    for eps in (1 / 255, (1 / 255) * (1 - 1e-5), 0.5, 3.0):
        checks.visible(eps, norm)
    for eps in (0.0, 0.99 / 255, -1.0):
        with pytest.raises(
            PhospheneError, match=f"changes by 1/255 or more, got a radius of {eps:g}: give --eps 1/255"
        ):
            checks.visible(eps, norm)
