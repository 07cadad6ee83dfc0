"""Heat-map colours: zero is neutral, scales are symmetric, limits told, the photo kept where heat is zero."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.images.colour import _limits


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_diverging_zero_is_white_and_signs_have_their_colours() -> None:
    heat = torch.tensor([[[0.0, 1.0, -1.0, 0.5]]])
    result = images.diverging(heat, percentile=100)
    assert result.images.shape == (1, 3, 1, 4) and result.limits.tolist() == [1.0]
    white, red, blue, pink = result.images[0, :, 0].T
    assert white.tolist() == [1, 1, 1]
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
    assert red[0] < pink[0] and pink[0] > pink[2]


def test_scales_are_monotone_in_distance_from_zero() -> None:
    line = torch.linspace(-1, 1, 201)[None, None]
    light = images.diverging(line, percentile=100).images.mean(1).flatten()
    assert (light[:101].diff() > 0).all() and (light[100:].diff() < 0).all()
    light = images.sequential(line.clamp(min=0), percentile=100).images.mean(1).flatten()
    assert (light[100:].diff() > 0).all()


def test_each_map_has_its_own_limit_and_is_clipped_there() -> None:
    heat = maps(3, 40, 50) * torch.tensor([1.0, 10.0, 1e-6])[:, None, None]
    result = images.diverging(heat, percentile=90)
    expected = torch.quantile(heat.abs().flatten(1), 0.9, dim=1, interpolation="higher")
    torch.testing.assert_close(result.limits, expected, rtol=1e-2, atol=0)
    top = images.diverging(torch.full((1, 1, 1), 5.0)).images.flatten()
    place = heat[1] > result.limits[1]
    assert torch.allclose(result.images[1][:, place], top[:, None].expand(3, int(place.sum())))
    assert result.percentile == 90


@given(st.floats(1e-20, 1e20), st.integers(0, 5))
def test_scale_free(factor: float, seed: int) -> None:
    heat = maps(2, 6, 5, seed=seed)
    scaled = images.diverging((heat.double() * factor).float())
    torch.testing.assert_close(scaled.images, images.diverging(heat).images, atol=1e-4, rtol=0)


def test_a_common_limit() -> None:
    heat = torch.stack([torch.ones(4, 4), torch.full((4, 4), 2.0)])
    result = images.diverging(heat, limit=2.0)
    assert result.limits.tolist() == [2, 2]
    assert not torch.equal(result.images[0], result.images[1])
    assert torch.equal(result.images[1], images.diverging(heat).images[0])


def test_zero_and_sparse_maps() -> None:
    zero = torch.zeros(2, 5, 5)
    assert (images.diverging(zero).images == 1).all() and images.diverging(zero).limits.tolist() == [0, 0]
    dark = images.sequential(zero).images
    assert torch.isfinite(dark).all() and dark.max() < 0.05
    sparse = torch.zeros(1, 40, 40)
    sparse[0, 0, 0] = -3
    assert images.diverging(sparse).limits.tolist() == [3]
    photo = torch.rand(2, 3, 10, 10)
    assert torch.equal(images.overlay(photo, zero), photo)


def test_large_map() -> None:
    """torch.quantile stops at 2^24 values."""
    assert _limits(torch.ones(1, 4200, 4200), 99.5, None).tolist() == [1]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types(kind: torch.dtype) -> None:
    result = images.diverging(maps(2, 6, 6).to(kind).requires_grad_())
    assert result.images.dtype == torch.float32 and not result.images.requires_grad
    assert images.overlay(torch.rand(2, 3, 12, 12), maps(2, 6, 6).abs().to(kind)).dtype == torch.float32


def test_overlay() -> None:
    photo = torch.full((1, 3, 32, 32), 0.5)
    heat = torch.zeros(1, 8, 8)
    heat[0, 4, 4] = 7.0
    result = images.overlay(photo, heat)
    assert result.shape == photo.shape and torch.equal(result[..., :8, :8], photo[..., :8, :8])
    hottest = (result - photo).abs().sum(1)[0]
    assert 16 <= int(hottest.argmax()) // 32 < 20 and 16 <= int(hottest.argmax()) % 32 < 20
    assert torch.equal(images.overlay(photo, heat, alpha=0), photo)
    assert torch.equal(images.overlay(photo, heat * 100), result)
    full = images.overlay(photo, torch.ones(1, 32, 32), alpha=1.0)
    assert torch.allclose(full, images.overlay(1 - photo * 2, torch.ones(1, 32, 32), alpha=1.0))


def test_difference() -> None:
    a = torch.rand(2, 3, 4, 4)
    assert (images.difference(a, a) == 0.5).all()
    b = (a + 0.01).clamp(0, 1)
    assert torch.allclose(images.difference(a, b, gain=10), (0.5 + 10 * (b - a)).clamp(0, 1))
    with pytest.raises(PhospheneError, match="one shape"):
        images.difference(a, a[:1])


def test_bar() -> None:
    strip = images.bar("diverging", 101, 7)
    assert strip.shape == (3, 7, 101)
    torch.testing.assert_close(strip[:, 3, 50], torch.ones(3), atol=1e-5, rtol=0)
    assert strip[2, 0, 0] > strip[0, 0, 0] and strip[0, 0, -1] > strip[2, 0, -1]
    assert images.bar("sequential", 1, 1).shape == (3, 1, 1)
    with pytest.raises(PhospheneError, match="no bar"):
        images.bar("diverging", 0, 5)


@pytest.mark.parametrize(
    ("heat", "options", "says"),
    [
        (torch.full((1, 4, 4), torch.nan), {}, "NaN"),
        (torch.full((1, 4, 4), torch.inf), {}, "finite"),
        (torch.ones(4, 4), {}, r"\[N, H, W\]"),
        (torch.ones(1, 4, 4, dtype=torch.int64), {}, "float"),
        (torch.ones(0, 4, 4), {}, r"\[0, 4, 4\]"),
        (torch.ones(1, 4, 4), {"percentile": 0}, "percentile 0"),
        (torch.ones(1, 4, 4), {"percentile": 101}, "percentile 101"),
        (torch.ones(1, 4, 4), {"limit": 0.0}, "limit 0"),
        (torch.ones(1, 4, 4), {"limit": float("nan")}, "limit nan"),
    ],
)
def test_errors(heat: torch.Tensor, options: dict[str, float], says: str) -> None:
    for function in (images.diverging, images.sequential):
        with pytest.raises(PhospheneError, match=says) as caught:
            function(heat, **options)
        assert "\n" not in str(caught.value)


def test_negative_and_mismatched_maps() -> None:
    with pytest.raises(PhospheneError, match="below 0: use diverging"):
        images.sequential(-torch.ones(1, 4, 4))
    photo = torch.rand(2, 3, 8, 8)
    with pytest.raises(PhospheneError, match="below 0"):
        images.overlay(photo, -torch.ones(2, 4, 4))
    with pytest.raises(PhospheneError, match="expected images"):
        images.overlay(photo, torch.ones(1, 4, 4))
    with pytest.raises(PhospheneError, match="alpha 2"):
        images.overlay(photo, torch.ones(2, 4, 4), alpha=2)


def test_importing_leaves_matplotlib_out() -> None:
    code = "import sys, phosphene.images; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
