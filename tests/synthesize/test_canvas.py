"""Where canvases begin, and what moving one in other colours means; crops and whole shifts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.models import Network, load
from phosphene.synthesize import ColourSpace, FourierCanvas, PixelCanvas, transforms

CANVASES: list[Any] = [PixelCanvas, FourierCanvas]
SPACES: list[ColourSpace] = ["rgb", "decorrelated"]
SIZES = [(8, 8), (7, 9), (5, 12), (12, 5), (1, 6), (6, 1)]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return load(nn.Sequential(nn.Conv2d(3, 4, 3)), device="cpu", input_size=16)


# -- beginnings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colours", SPACES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", CANVASES)
def test_it_begins_with_the_picture_it_is_given(
    network: Network, kind: Any, size: tuple[int, int], colours: ColourSpace
) -> None:
    start = torch.rand(2, 3, *size)
    found = kind(network, 2, size, start=start, colours=colours).images().detach()
    torch.testing.assert_close(found, start, atol=1e-3 + 1e-5, rtol=0)


@pytest.mark.parametrize("kind", CANVASES)
def test_one_start_serves_all(network: Network, kind: Any) -> None:
    start = torch.rand(1, 3, 6, 7)
    found = kind(network, 3, (6, 7), start=start).images().detach()
    torch.testing.assert_close(found, start.expand(3, -1, -1, -1), atol=1e-3 + 1e-5, rtol=0)


def test_black_and_white_are_nearly_reached_in_the_spectrum(network: Network) -> None:
    start = (torch.rand(1, 3, 9, 8) > 0.5).float()
    found = FourierCanvas(network, 1, (9, 8), start=start).images().detach()
    assert (found - start).abs().max() < 1.1e-3


def test_a_grey_network_has_canvases_in_colour() -> None:
    grey = load(nn.Sequential(nn.Conv2d(1, 4, 3)), device="cpu", input_size=16, mean=(0.4,), std=(0.2,))
    start = torch.rand(1, 3, 8, 8)
    for kind in CANVASES:
        canvas = kind(grey, 1, (8, 8), start=start)
        torch.testing.assert_close(canvas.images().detach(), start, atol=1.1e-3, rtol=0)
        torch.testing.assert_close(canvas.standardise(start), (start - 0.4) / 0.2)


@pytest.mark.parametrize("colours", SPACES)
@pytest.mark.parametrize("kind", CANVASES)
def test_each_picture_has_its_own_noise(network: Network, kind: Any, colours: ColourSpace) -> None:
    noise = torch.randn(2, 3, 8, 8)
    both = kind(network, 2, (8, 8), noise=noise, colours=colours).images().detach()
    second = kind(network, 1, (8, 8), noise=noise[1:], colours=colours).images().detach()
    torch.testing.assert_close(both[1:], second)
    assert (both[0] - both[1]).abs().max() > 0.05


def test_the_noise_of_pixels_is_added_to_the_start_in_the_networks_units(network: Network) -> None:
    start, noise = torch.rand(1, 3, 5, 6), torch.randn(2, 3, 5, 6)
    found = PixelCanvas(network, 2, (5, 6), start=start, noise=noise).images().detach()
    torch.testing.assert_close(found, start + network.std * noise)


def test_the_noise_of_a_spectrum_looks_like_clouds(network: Network) -> None:
    noise = torch.randn(1, 3, 64, 64)

    def alike(images: Tensor) -> float:
        """The correlation of neighbours."""
        pairs = torch.stack([images[..., 1:].flatten(), images[..., :-1].flatten()])
        return float(torch.corrcoef(pairs)[0, 1])

    cloud = FourierCanvas(network, 1, (64, 64), noise=noise, colours="rgb").images().detach()
    grain = PixelCanvas(network, 1, (64, 64), noise=noise).standardise(
        PixelCanvas(network, 1, (64, 64), noise=noise).images().detach()
    )
    assert alike(cloud - cloud.mean((2, 3), keepdim=True)) > 0.7
    assert abs(alike(grain)) < 0.1


@pytest.mark.parametrize("what", ["start", "noise"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 3, 8, 8), (2, 1, 8, 8), (2, 3, 8, 9), (0, 3, 8, 8)])
@pytest.mark.parametrize("kind", CANVASES)
def test_a_beginning_of_another_shape(network: Network, kind: Any, shape: tuple[int, ...], what: str) -> None:
    with pytest.raises(PhospheneError, match="a canvas of 2 x 3 x 8 x 8 can't begin with"):
        kind(network, 2, (8, 8), **{what: torch.rand(shape)})


# -- colours ----------------------------------------------------------------------------------------------------


def test_colours_do_not_change_what_the_canvas_can_show(network: Network) -> None:
    start = torch.rand(1, 3, 6, 6)
    plain, mixed = (PixelCanvas(network, 1, (6, 6), start=start, colours=colours) for colours in SPACES)
    assert not torch.allclose(plain.parameter, mixed.parameter)
    torch.testing.assert_close(plain.images(), mixed.images(), atol=1e-5, rtol=0)
    torch.testing.assert_close(plain.pixels, mixed.pixels, atol=1e-4, rtol=0)


@pytest.mark.parametrize("colours", SPACES)
def test_a_gradient_of_the_parameter_is_one_of_the_pixels(network: Network, colours: ColourSpace) -> None:
    start, weights = torch.rand(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    canvas = PixelCanvas(network, 2, (5, 7), start=start, colours=colours)
    (gradient,) = torch.autograd.grad((weights * canvas.images()).square().sum(), canvas.parameter)
    pixels = canvas.pixels.requires_grad_()
    (wanted,) = torch.autograd.grad((weights * (network.mean + network.std * pixels)).square().sum(), pixels)
    torch.testing.assert_close(canvas.on_pixels(gradient), wanted, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("colours", SPACES)
def test_pixels_are_replaced_by_the_nearest_colours_that_exist(network: Network, colours: ColourSpace) -> None:
    canvas = PixelCanvas(network, 1, (5, 5), colours=colours)
    pixels = torch.randn(1, 3, 5, 5) * 3
    canvas.replace(pixels)
    wanted = (network.mean + network.std * pixels).clamp(0, 1)
    assert not torch.allclose(wanted, network.mean + network.std * pixels)
    torch.testing.assert_close(canvas.images().detach(), wanted, atol=1e-5, rtol=0)
    torch.testing.assert_close(canvas.pixels, (wanted - network.mean) / network.std, atol=1e-4, rtol=0)
    assert canvas.parameter.requires_grad


def test_a_step_in_decorrelated_colours_moves_all_three_together(network: Network) -> None:
    canvas = PixelCanvas(network, 1, (4, 4), colours="decorrelated")
    with torch.no_grad():
        canvas.parameter[:, 0] += 0.1  # the direction in which photographs vary most: brightness
    moved = canvas.pixels[0, :, 0, 0]
    assert (moved > 0).all() and moved.max() / moved.min() < 1.1


# -- transforms -------------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ramps(height: int, width: int) -> Tensor:
    """The first channel is the row of each pixel, the second its column, the third one."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([rows, columns, torch.ones(height, width)])[None]


def window(seen: Tensor) -> list[tuple[float, float]]:
    """(first, last) border of the rows and of the columns that `ramps` shows, as pixels, 0 for the image's border."""
    found = []
    for channel, axis in ((0, 0), (1, 1)):
        lines = seen[0, channel].mean(1 - axis)
        middle = len(lines) // 2
        slope = float(lines[middle + 2] - lines[middle - 2]) / 4
        first = float(lines[middle]) + 0.5 - slope * (middle + 0.5)
        found.append((first, first + slope * len(lines)))
    return found


@pytest.mark.parametrize("size", [(40, 40), (30, 64)])
@pytest.mark.parametrize("least", [0.3, 0.8])
def test_crops_are_windows_inside_the_image_of_at_least_their_share(size: tuple[int, int], least: float) -> None:
    shares = []
    for seed in range(40):
        seen = transforms.crop(least)(ramps(*size), generator(seed))
        assert seen.shape == (1, 3, *size)
        sides = window(seen)
        for (first, last), length in zip(sides, size, strict=True):
            assert -0.01 <= first < last <= length + 0.01
        down, across = ((last - first) / length for (first, last), length in zip(sides, size, strict=True))
        assert down == pytest.approx(across, abs=1e-3)  # the aspect stays
        shares.append(down)
    assert least - 1e-3 <= min(shares) < least + 0.2 * (1 - least)
    assert 1 - 0.2 * (1 - least) < max(shares) <= 1 + 1e-3


def test_crops_of_everything_are_the_image() -> None:
    images = torch.rand(2, 3, 9, 14)
    torch.testing.assert_close(transforms.crop(1.0)(images, generator()), images, atol=1e-5, rtol=0)


def test_crops_follow_their_seed() -> None:
    images = torch.rand(2, 3, 12, 12)
    first = transforms.crop(0.5)(images, generator(1))
    assert torch.equal(first, transforms.crop(0.5)(images, generator(1)))
    assert not torch.equal(first, transforms.crop(0.5)(images, generator(2)))


@pytest.mark.parametrize("whole", [-3, 1, 4])
def test_a_shift_by_whole_pixels_moves_them_exactly(whole: int) -> None:
    _, _, right, down = torch.rand(4, generator=generator(5)).tolist()  # what `affine` draws
    images = torch.rand(1, 3, 12, 17)
    for axis, drawn in ((3, right), (2, down)):
        lines = images.mean(5 - axis, keepdim=True).expand_as(images)  # the other axis' shift is no whole number
        seen = transforms.affine(0, (1, 1), shift=whole / (2 * drawn - 1))(lines, generator(5))
        wanted = lines.roll(-whole, axis)
        inside = slice(max(0, -whole), images.shape[axis] - max(0, whole))
        line = (0, 0, slice(None), 8) if axis == 2 else (0, 0, 6, slice(None))
        torch.testing.assert_close(seen[line][inside], wanted[line][inside], atol=1e-4, rtol=0)


def test_what_comes_in_from_outside_is_reflected() -> None:
    right = torch.rand(4, generator=generator(5)).tolist()[2]
    lines = torch.rand(1, 3, 1, 12).expand(1, 3, 9, 12)
    seen = transforms.affine(0, (1, 1), shift=3 / (2 * right - 1))(lines, generator(5))
    torch.testing.assert_close(seen[..., -3:], lines[..., -3:].flip(-1), atol=1e-4, rtol=0)
