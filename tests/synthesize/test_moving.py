"""Priors, transforms and canvases, each against a slow and obvious reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from phosphene.models import Network, load
from phosphene.synthesize import FourierCanvas, PixelCanvas, priors, transforms
from phosphene.synthesize.canvas import Canvas


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return load(module, device="cpu", input_size=16)


# -- priors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0, 2.5])
def test_blur_is_a_gaussian(sigma: float) -> None:
    images = torch.rand(2, 3, 31, 40, dtype=torch.float64)
    radius = max(1, int(np.ceil(3 * sigma)))
    wanted = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="mirror", radius=(0, 0, radius, radius))
    np.testing.assert_allclose(priors.blur(images, sigma).numpy(), wanted, atol=1e-9)
    whole = ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), truncate=8)
    inside = np.s_[..., radius:-radius, radius:-radius]
    np.testing.assert_allclose(priors.blur(images, sigma).numpy()[inside], whole[inside], atol=0.02)


@pytest.mark.parametrize("sigma", [0.5, 3.0, 50.0])
def test_blur_keeps_constants_and_the_type(sigma: float) -> None:
    flat = torch.full((1, 3, 9, 12), 0.37)
    torch.testing.assert_close(priors.blur(flat, sigma), flat)
    assert priors.blur(flat.double(), sigma).dtype == torch.float64


@pytest.mark.parametrize("share", [0.0, 0.02, 0.25, 0.99])
@pytest.mark.parametrize("kind", ["norm", "gradient"])
def test_clipping_zeroes_exactly_the_smallest(share: float, kind: str) -> None:
    pixels, gradient = torch.randn(2, 3, 10, 14), torch.randn(2, 3, 10, 14)
    operation = getattr(priors, f"clip_small_{kind}")(5, share)
    assert operation.every == 5
    found = operation.apply(pixels, gradient)
    for n in range(2):
        if kind == "norm":
            sizes = [float(pixels[n, :, y, x].norm()) for y in range(10) for x in range(14)]
        else:
            sizes = [
                abs(float((pixels[n, :, y, x] * gradient[n, :, y, x]).sum())) for y in range(10) for x in range(14)
            ]
        smallest = set(np.argsort(sizes)[: int(share * 140)].tolist())
        for place in range(140):
            y, x = divmod(place, 14)
            kept = found[n, :, y, x]
            assert torch.equal(kept, torch.zeros(3) if place in smallest else pixels[n, :, y, x])


def test_clipping_equal_pixels_takes_no_more_than_its_share() -> None:
    found = priors.clip_small_norm(1, 0.1).apply(torch.ones(1, 3, 10, 10), torch.ones(1, 3, 10, 10))
    assert int((found == 0).all(1).sum()) == 10


def differences(function, at: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of a function to one number, value by value."""
    gradient = torch.zeros_like(at)
    flat = at.flatten()
    for place in range(flat.numel()):
        for sign in (1, -1):
            moved = flat.clone()
            moved[place] += sign * step
            gradient.view(-1)[place] += sign * float(function(moved.view_as(at))) / (2 * step)
    return gradient


@pytest.mark.parametrize("kind", ["l2", "total_variation"])
def test_penalties(kind: str) -> None:
    image = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    penalty = getattr(priors, kind)(0.3)
    wanted = []
    for single in image:
        total = 0.0
        for c in range(3):
            for y in range(4):
                for x in range(5):
                    if kind == "l2":
                        total += float(single[c, y, x]) ** 2
                        continue
                    total += float(single[c, y + 1, x] - single[c, y, x]) ** 2 if y < 3 else 0
                    total += float(single[c, y, x + 1] - single[c, y, x]) ** 2 if x < 4 else 0
        wanted.append(0.3 * total)
    assert penalty(image).tolist() == pytest.approx(wanted)
    leaf = image.clone().requires_grad_()
    penalty(leaf).sum().backward()
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad, differences(lambda moved: penalty(moved).sum(), image), atol=1e-6, rtol=1e-6)


def test_a_flat_picture_has_no_variation() -> None:
    assert priors.total_variation(1.0)(torch.full((1, 3, 8, 8), 0.3)).tolist() == [0]


# -- transforms -------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("pixels", [1, 4, 30])
def test_jitter_moves_and_loses_nothing(pixels: int) -> None:
    images = torch.rand(2, 3, 9, 11)
    for seed in range(8):
        found = transforms.jitter(pixels)(images, generator(seed))
        assert torch.equal(found.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    moves = {
        tuple(np.argwhere(transforms.jitter(1)(_dot(9, 9, 4, 4), generator(s))[0, 0].numpy())[0]) for s in range(99)
    }
    assert moves == {(y, x) for y in (3, 4, 5) for x in (3, 4, 5)}


def _dot(height: int, width: int, y: int, x: int) -> Tensor:
    image = torch.zeros(1, 3, height, width)
    image[:, :, y, x] = 1
    return image


@pytest.mark.parametrize("size", [(16, 16), (15, 22)])
def test_affine_of_nothing_is_nothing(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size)
    torch.testing.assert_close(transforms.affine(0, (1, 1))(images, generator()), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(16, 16), (17, 20), (1, 9), (33, 8)])
def test_a_single_image_moves_as_in_company(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, requires_grad=True)
    move = transforms.affine(25, (0.6, 1.4), 5)
    together = move(images, generator(3))
    alone = move(images[:1], generator(3))
    torch.testing.assert_close(alone, together[:1], atol=1e-6, rtol=0)
    push = torch.rand_like(alone)
    (slope,) = torch.autograd.grad((alone * push).sum(), images)
    (wanted,) = torch.autograd.grad((together[:1] * push).sum(), images)
    torch.testing.assert_close(slope, wanted, atol=1e-5, rtol=1e-5)


def test_affine_zooms_and_turns() -> None:
    # A zoom by 2 shows the middle half; a turn keeps lengths, also where the picture is not square.
    ramp = torch.linspace(-1, 1, 41).expand(1, 3, 21, 41)
    zoomed = transforms.affine(0, (2, 2))(ramp, generator())
    assert float(zoomed[0, 0, 10, -1] - zoomed[0, 0, 10, 0]) == pytest.approx(float(ramp[0, 0, 0, -1]), abs=0.05)
    dot = priors.blur(_dot(41, 61, 20, 40), 1.5)
    for seed in range(5):
        turned = transforms.affine(30, (1, 1))(dot, generator(seed))[0, 0]
        y, x = divmod(int(turned.argmax()), 61)
        assert np.hypot(y - 20, x - 30) == pytest.approx(10, abs=0.9)


def test_transforms_follow_their_seed() -> None:
    both = transforms.compose(transforms.jitter(5), transforms.affine(20, (0.8, 1.2)))
    images = torch.rand(1, 3, 20, 20)
    first = both(images, generator(1))
    assert torch.equal(first, both(images, generator(1)))
    assert not torch.equal(first, both(images, generator(2)))
    assert first.shape == images.shape


# -- canvases ---------------------------------------------------------------------------------------------------


def test_the_pixel_canvas_starts_at_the_mean_colour(network: Network) -> None:
    canvas = PixelCanvas(network, 2, (5, 7))
    assert not canvas.parameter.any() and canvas.parameter.shape == (2, 3, 5, 7)
    assert torch.equal(canvas.images(), network.mean.expand(2, 3, 5, 7))
    torch.testing.assert_close(canvas.standardise(canvas.images()), torch.zeros(2, 3, 5, 7))
    torch.testing.assert_close(network.normalise(canvas.images()), canvas.parameter.detach())


def test_the_pixel_canvas_stays_in_range(network: Network) -> None:
    canvas = PixelCanvas(network, 1, (8, 8))
    with torch.no_grad():
        canvas.parameter.normal_(0, 3)
    inside = (canvas.images() >= 0) & (canvas.images() <= 1)
    before = canvas.images().detach().clone()
    assert not inside.all()
    canvas.replace(canvas.pixels)
    after = canvas.images().detach()
    torch.testing.assert_close(after, before.clamp(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (7, 9), (1, 6), (32, 5)])
def test_the_fourier_canvas_is_a_picture(network: Network, size: tuple[int, int]) -> None:
    canvas = FourierCanvas(network, 2, size)
    images = canvas.images().detach()
    assert images.shape == (2, 3, *size) and images.dtype == torch.float32
    torch.testing.assert_close(images, network.mean.expand(2, 3, 1, 1).expand_as(images))  # zeros: the mean colour
    with torch.no_grad():
        canvas.parameter.normal_(generator=generator())
    images = canvas.images().detach()
    assert images.min() > 0 and images.max() < 1 and images.std() > 0.01


def test_the_fourier_canvas_reaches_every_frequency(network: Network) -> None:
    """Against the sum of cosines that the inverse transform stands for."""
    height, width = 6, 7
    canvas = FourierCanvas(network, 1, (height, width))
    with torch.no_grad():
        canvas.parameter.normal_(generator=generator())
    spectrum = torch.view_as_complex(canvas.parameter.detach()).numpy()[0] * canvas.scale.numpy()
    plain = np.zeros((3, height, width))
    for k in range(3):
        for y in range(height):
            for x in range(width):
                total = 0.0
                for v in range(height):
                    for u in range(width // 2 + 1):
                        wave = np.exp(2j * np.pi * (v * y / height + u * x / width))
                        total += (spectrum[k, v, u] * wave).real * (1 if u == 0 else 2)
                plain[k, y, x] = total / np.sqrt(height * width)
    colours = np.einsum("khw,ck->chw", plain, canvas.basis.numpy())
    mean = network.mean.expand(1, 3, 1, 1)[0].numpy()
    wanted = 1 / (1 + np.exp(-colours) * (1 - mean) / mean)
    np.testing.assert_allclose(canvas.images().detach().numpy()[0], wanted, atol=1e-4)


@pytest.mark.parametrize("kind", ["pixel", "fourier"])
def test_gradients_reach_the_parameters(network: Network, kind: str) -> None:
    size = (4, 5)
    weights = torch.randn(1, 3, *size)
    canvas: Canvas = PixelCanvas(network, 1, size) if kind == "pixel" else FourierCanvas(network, 1, size)
    (canvas.images() * weights).sum().backward()
    found = canvas.parameter.grad
    assert found is not None

    def value(parameter: Tensor) -> float:
        with torch.no_grad():
            kept = canvas.parameter.clone()
            canvas.parameter.copy_(parameter)
            result = float((canvas.images() * weights).double().sum())
            canvas.parameter.copy_(kept)
        return result

    torch.testing.assert_close(found, differences(value, canvas.parameter.detach(), 1e-2), atol=2e-3, rtol=2e-2)
