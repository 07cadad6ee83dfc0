"""Masked gradients: each check shouts where a network hides its slope in that way, and honest networks are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import Bent, bent, done, noise, plane, seen
from torch import Tensor, nn

from phosphene.attacks import Finding, Masking, Norm, masking
from phosphene.attacks.masking import at_least
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Started, run

NAMES = ["zero-gradients", "random-outputs", "slope", "uphill", "more-steps", "whole-range", "black-box"]
NORMS: list[tuple[Norm, float]] = [("linf", 0.04), ("l2", 0.2)]
each_norm = pytest.mark.parametrize(("norm", "eps"), NORMS)


class Seen(nn.Module):
    """A small honest network that sees its images through something."""

    def __init__(self, lens: Callable[[Tensor], Tensor], module: nn.Module | None = None) -> None:
        super().__init__()
        self.lens = lens
        self.module = module or bent()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(self.lens(x))


def answering(change: Callable[[Tensor], Tensor]) -> nn.Module:
    """A small honest network whose logits are changed in the end."""
    module = bent()

    def hook(_module: nn.Module, _images: Any, logits: Any) -> Tensor:
        return change(logits)

    module.register_forward_hook(hook)
    return module


class _Swap(torch.autograd.Function):
    """The image as it is, with another gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.change = change
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.change(ctx.saved_tensors[0], gradients[0]), None


def swapped(change: Callable[[Tensor, Tensor], Tensor]) -> Seen:
    return Seen(lambda x: _Swap.apply(x, change))  # type: ignore[return-value]


def ripple(height: float, frequency: float) -> Seen:
    return Seen(lambda x: x + height * torch.sin(frequency * x))


def straight_through(levels: int) -> Seen:
    return Seen(lambda x: x + ((x * levels).round() / levels - x).detach())


def reversed_off_the_lattice(x: Tensor, gradient: Tensor) -> Tensor:
    """Right where images are 8-bit, wrong where an attack has moved them: what training against FGSM alone may end in."""
    on = ((x * 255 - (x * 255).round()).abs() < 1e-3).flatten(1).all(1)
    return torch.where(on.view(-1, 1, 1, 1), gradient, -gradient)


def checked(module: nn.Module, images: Tensor | None = None, **options: Any) -> tuple[Masking, dict[str, Finding]]:
    images = noise(64) if images is None else images
    settings = {"eps": 0.04, "queries": 100, "labels": seen(module, images), **options}
    found = done(masking(module, images, **settings))
    assert [finding.name for finding in found.findings] == NAMES
    return found, {finding.name: finding for finding in found.findings}


def failed(found: Masking) -> list[str]:
    return [finding.name for finding in found.findings if not finding.passed]


@each_norm
@pytest.mark.parametrize("kind", [bent, plane])
def test_honest_networks_are_left_in_peace(kind: Callable, norm: Norm, eps: float) -> None:
    module = bent() if kind is bent else plane((1, 8, 8))
    found, by = checked(module, norm=norm, eps=eps)
    assert not found.masked and found.images == 64
    assert by["zero-gradients"].value == by["random-outputs"].value == by["more-steps"].value == 0
    assert by["slope"].value == pytest.approx(1, abs=0.01)
    assert by["uphill"].value == by["whole-range"].value == 1
    assert by["black-box"].value is not None and by["black-box"].value < 0.05


def test_a_saturated_softmax() -> None:
    found, by = checked(answering(lambda logits: logits * 1e4))
    assert failed(found) == ["zero-gradients"] and found.masked
    assert by["zero-gradients"].value is not None and by["zero-gradients"].value > 0.9
    assert "(of the odds: 0)" in by["zero-gradients"].words and "a loss that stays steep" in by["zero-gradients"].words
    assert by["whole-range"].value == 1  # attacks that climb the odds don't mind


@pytest.mark.parametrize("cut", [torch.round, torch.detach])
def test_no_gradient_at_all(cut: Callable[[Tensor], Tensor]) -> None:
    found, by = checked(Seen(lambda x: cut(x * 16) / 16))
    assert failed(found) == ["zero-gradients", "black-box"]
    assert by["zero-gradients"].value == 1
    assert "Square" in by["zero-gradients"].words and "BPDA" in by["zero-gradients"].words
    for name in ("slope", "uphill", "more-steps", "whole-range"):
        assert by[name].value is None and by[name].passed and by[name].words.startswith("not checked: ")
    assert by["black-box"].value is not None and by["black-box"].value > 0.5 and "PGD alone 0" in by["black-box"].words


def test_a_few_dead_images_are_no_alarm_and_many_are() -> None:
    images, alive = noise(64), torch.arange(64)
    for dead, alarm in ((3, False), (8, True)):
        marked = images.clone()
        marked[:dead, :, 0, 0] = 0
        marked[dead:, :, 0, 0] = 1
        module = Seen(lambda x: torch.where(x[:, :, :1, :1] > 0, x, x.round()))
        found, by = checked(module, marked)
        assert by["zero-gradients"].value == pytest.approx(dead / len(alive))
        assert by["zero-gradients"].passed is not alarm and found.masked >= alarm
        assert not alarm or f"0 or NaN in {dead} of 64 images, whatever the loss" in by["zero-gradients"].words


def test_a_random_network() -> None:
    module = answering(lambda logits: logits + 0.3 * torch.randn_like(logits))
    found, by = checked(module, labels=seen(bent(), noise(64)))
    assert "random-outputs" in failed(found) and "EOT" in by["random-outputs"].words
    assert by["random-outputs"].value is not None and by["random-outputs"].value > 0.01
    assert by["slope"].value is None and "noise" in by["slope"].words
    # Dropout that eval mode switches off is none.
    assert not checked(bent().train())[0].masked


def test_a_gradient_that_points_the_wrong_way() -> None:
    found, by = checked(swapped(lambda _, gradient: -gradient))
    assert failed(found) == ["slope", "uphill", "whole-range", "black-box"]
    assert by["slope"].value == pytest.approx(-1, abs=0.01) and by["uphill"].value == by["whole-range"].value == 0
    assert by["black-box"].value is not None and by["black-box"].value > 0.5


def test_a_gradient_of_noise() -> None:
    found, by = checked(swapped(lambda _, gradient: torch.randn_like(gradient)))
    assert {"slope", "uphill", "black-box"} <= set(failed(found))
    assert by["slope"].value is not None and abs(by["slope"].value) < 0.1
    assert by["uphill"].value is not None and 0.3 < by["uphill"].value < 0.7


def test_ripples() -> None:
    found, by = checked(ripple(5e-4, 2e4))  # of a hundredth of the ball
    assert {"slope", "uphill"} <= set(failed(found)) and "shattered" in by["slope"].words
    assert by["slope"].value is not None and abs(by["slope"].value) < 0.25
    found, by = checked(ripple(5e-3, 2e3))  # of a tenth: the tiny step doesn't see them, but PGD's does
    assert "uphill" in failed(found) and by["uphill"].value is not None and by["uphill"].value < 0.8
    found, _ = checked(ripple(1e-4, 2e3))  # so flat that they turn no gradient over
    assert not found.masked


def test_a_gradient_straight_through_a_threshold() -> None:
    found, by = checked(straight_through(1))
    assert "slope" in failed(found) and by["slope"].value == 0


def test_many_steps_that_find_less_than_one() -> None:
    found, by = checked(swapped(reversed_off_the_lattice))
    assert {"more-steps", "black-box"} <= set(failed(found))
    assert by["slope"].passed and by["uphill"].passed  # at the images themselves all is well
    assert "of 64 images, one step breaks 50, 10 break 0, 40 break 0: many steps" in by["more-steps"].words


def test_only_what_is_seen_rightly_counts() -> None:
    module, images = bent(), noise(20)
    labels = seen(module, images)
    labels[:8] = (labels[:8] + 1) % 4
    found = done(masking(module, images, labels, eps=0.04, queries=20))
    alone = done(masking(module, images[8:], labels[8:], eps=0.04, queries=20))
    assert found.images == 12
    assert [one.words for one in found.findings] == [one.words for one in alone.findings]
    with pytest.raises(PhospheneError, match="none of the 8 images is seen rightly"):
        done(masking(module, images[:8], labels[:8], eps=0.04))


@each_norm
def test_the_order_and_own_radii_do_not_matter(norm: Norm, eps: float) -> None:
    module, images = bent(double=True), noise(24).double()
    labels, radii = seen(module, images), torch.linspace(0.2, 2, 24) * eps
    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    options: dict[str, Any] = {"norm": norm, "queries": 30}
    one = done(masking(module, images, labels, eps=radii, keys=range(24), **options))
    other = done(masking(module, images[order], labels[order], eps=radii[order], keys=order.tolist(), **options))
    for a, b in zip(one.findings, other.findings):
        assert a.words == b.words and a.value == pytest.approx(b.value, abs=1e-6)


def test_probabilities_and_the_network_as_it_was() -> None:
    module = nn.Sequential(bent(), nn.Softmax(1)).train()
    found, by = checked(module, probabilities=True)
    assert not found.masked and by["slope"].value == pytest.approx(1, abs=0.01)
    assert module.training and isinstance(module[0], Bent) and all(p.grad is None for p in module.parameters())


def test_events_and_wrong_arguments() -> None:
    module, images = bent(), noise(4)
    events: list[Any] = []
    run(masking(module, images, seen(module, images), eps=0.01, steps=4, queries=5), events.append)
    names = [event.what for event in events if isinstance(event, Started)]
    assert names == ["gradients", "pgd", "fgsm", "pgd", "bim", "square"]
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"eps": 0.0}, "a radius"), ({"steps": 0}, "steps"), ({"queries": 0}, "queries")
    ]  # fmt: skip
    for options, message in wrong:
        with pytest.raises(PhospheneError, match=message):
            done(masking(module, images, seen(module, images), **{"eps": 0.1, **options}))


def test_chances() -> None:
    assert at_least(5, 5, 0.5) == pytest.approx(1 / 32)
    assert at_least(0, 7, 0.3) == pytest.approx(1) and at_least(2, 2, 0.1) == pytest.approx(0.01)
    from scipy.stats import binom

    for hits, count, chance in ((4, 64, 0.05), (7, 64, 0.05), (30, 100, 0.1), (2600, 5000, 0.5)):
        assert at_least(hits, count, chance) == pytest.approx(float(binom.sf(hits - 1, count, chance)), rel=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize("eps", [0.1, 0.3])
@pytest.mark.parametrize("kind", ["cln", "adv"])
def test_networks_of_mnist_are_honest(shared: Path, kind: str, eps: float) -> None:
    images, labels = digits(shared, 64)
    found = done(masking(lenet(shared, kind), images, labels, eps=eps, queries=200))
    by = {finding.name: finding for finding in found.findings}
    assert not found.masked, failed(found)
    assert found.images >= 63 and by["uphill"].value == by["whole-range"].value == 1
    # Black pixels are equal, where pooling has a kink: less than 1.
    assert by["slope"].value == pytest.approx(0.9 if kind == "cln" else 0.6, abs=0.08)


@pytest.mark.shared
def test_masking_of_mnist_in_l2_is_found(shared: Path) -> None:
    # Hardened in linf, this network's first layer is flat for small changes: in l2, random search finds what PGD doesn't.
    images, labels = digits(shared, 64)
    found = done(masking(lenet(shared, "adv"), images, labels, eps=2.0, norm="l2", queries=500))
    assert failed(found) == ["black-box"]


def test_a_network_of_imagenet_is_honest(squeezenet: Network, photos: Tensor) -> None:
    images = torch.cat([photos, photos.flip(3)])
    labels = squeezenet.logits(images).argmax(1)
    found = done(masking(squeezenet, images, labels, eps=8 / 255, steps=8, queries=20))
    by = {finding.name: finding for finding in found.findings}
    assert not found.masked and found.images == 4
    assert by["slope"].value == pytest.approx(0.9, abs=0.1) and by["uphill"].value == by["whole-range"].value == 1
