"""Total variation of any beta and the p-norm, against explicit loops and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.synthesize import priors

BETAS = [1.0, 1.5, 2.0, 3.0]


def variation(image: Tensor, beta: float) -> float:
    """Mahendran & Vedaldi's R of one image `[C, H, W]`, pixel by pixel."""
    total = 0.0
    channels, height, width = image.shape
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                down = float(image[c, y + 1, x] - image[c, y, x]) if y + 1 < height else 0.0
                right = float(image[c, y, x + 1] - image[c, y, x]) if x + 1 < width else 0.0
                total += (down**2 + right**2) ** (beta / 2)
    return total


@pytest.mark.parametrize("size", [(4, 5), (1, 6), (5, 1), (1, 1)])
@pytest.mark.parametrize("beta", BETAS)
def test_total_variation_pixel_by_pixel(beta: float, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    wanted = [0.3 * variation(image, beta) for image in images]
    # What keeps the slope finite at 0 takes up to a thousandth away from each pixel's difference.
    assert priors.total_variation(0.3, beta)(images).tolist() == pytest.approx(wanted, rel=2e-3 if beta < 2 else 1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_the_slope_of_total_variation(beta: float) -> None:
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(priors.total_variation(0.3, beta), (images,))


@pytest.mark.parametrize("beta", [0.5, *BETAS])
def test_a_flat_picture_has_no_variation_and_no_slope(beta: float) -> None:
    flat = torch.full((2, 3, 6, 6), 0.4, requires_grad=True)
    found = priors.total_variation(1.0, beta)(flat)
    found.sum().backward()
    assert flat.grad is not None and not flat.grad.any()
    assert found.tolist() == pytest.approx([0, 0], abs=1e-4)


def test_a_smaller_beta_prefers_one_sharp_edge_to_a_ramp() -> None:
    edge = (torch.arange(8) >= 4).float().expand(1, 3, 8, 8)
    ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    sharp, spread = (
        (float(priors.total_variation(1.0, b)(edge) / priors.total_variation(1.0, b)(ramp))) for b in (1, 3)
    )
    assert sharp == pytest.approx(1, abs=0.02) and spread > 10


@pytest.mark.parametrize("p", [1.0, 2.0, 6.0])
def test_the_p_norm_pixel_by_pixel(p: float) -> None:
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    wanted = [0.3 * sum(abs(value) ** p for value in image.flatten().tolist()) for image in images]
    assert priors.lp(0.3, p)(images).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("p", [1.0, 2.0, 6.0])
def test_the_slope_of_the_p_norm(p: float) -> None:
    images = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(priors.lp(0.3, p), (images,))


@pytest.mark.parametrize("p", [1.0, 1.5, 6.0])
def test_the_slope_of_the_p_norm_at_the_mean_colour(p: float) -> None:
    zeros = torch.zeros(1, 3, 4, 4, requires_grad=True)
    priors.lp(1.0, p)(zeros).sum().backward()
    assert zeros.grad is not None and not zeros.grad.any()


@pytest.mark.parametrize("beta", [0.0, -1.0, float("nan")])
def test_a_beta_that_is_not_positive(beta: float) -> None:
    with pytest.raises(PhospheneError, match=r"beta of total variation is positive"):
        priors.total_variation(1.0, beta)


@pytest.mark.parametrize("p", [0.5, -2.0, float("nan")])
def test_a_p_below_1(p: float) -> None:
    with pytest.raises(PhospheneError, match="p is at least 1"):
        priors.lp(1.0, p)
