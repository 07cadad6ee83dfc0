from __future__ import annotations

import pytest
import torch
from reference import distance, plain_gradient
from toys import pictures, small

from phosphene.errors import PhospheneError
from phosphene.explain import gradient, smoothgrad
from phosphene.explain.variants import generator


def test_it_is_the_mean_of_gradients_at_noisy_copies() -> None:
    net, images, classes = small(), pictures(2) * 0.5, [3, 0]
    images[1] *= 0.5
    spread = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    total = torch.zeros_like(images)
    for sample in range(10):
        noise = torch.randn(3, 20, 20, generator=generator(7, sample)).double()
        noisy = torch.stack([image + 0.3 * width * noise for image, width in zip(images, spread)])
        total += plain_gradient(net, noisy, classes)
    found = smoothgrad(net, images, classes, samples=10, sigma=0.3, seed=7)
    assert found.gradient is not None
    assert distance(found.gradient, total / 10) < 1e-9
    assert torch.equal(found.maps, found.gradient.sum(1))
    assert distance(found.scores, net.logits(images)[[0, 1], classes]) < 1e-12
    assert distance(found.gradient, torch.as_tensor(gradient(net, images, classes).gradient)) > 1e-2


def test_without_noise_it_is_the_gradient() -> None:
    net, images = small(), pictures(2)
    assert distance(smoothgrad(net, images, 1, samples=3, sigma=0.0).maps, gradient(net, images, 1).maps) < 1e-12


def test_more_samples_begin_with_the_same_noise() -> None:
    net, images = small(), pictures(1)
    few, more = (smoothgrad(net, images, 1, samples=n, seed=2).maps for n in (1, 2))
    second = 2 * more - few
    assert distance(few, second) > 1e-2
    assert torch.equal(few, smoothgrad(net, images, 1, samples=1, seed=2).maps)


@pytest.mark.parametrize(
    "options", [{"samples": 0}, {"samples": -1}, {"sigma": -0.1}, {"sigma": float("nan")}, {"sigma": float("inf")}]
)
def test_bad_options_are_error_lines(options: dict[str, float]) -> None:
    with pytest.raises(PhospheneError, match="at least 1 sample and a sigma of 0 or more"):
        smoothgrad(small(), pictures(1), 1, **options)  # type: ignore[arg-type]
