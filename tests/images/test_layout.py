"""Sheets and grids: everything is inside, nothing overlaps, and tiles are where they should be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from phosphene import images
from phosphene.errors import ImageError, PhospheneError
from phosphene.images.text import Style, _width, block

LONG = "tf_efficientnet_lite0.blocks.3.2.conv_pw.very_long_name " * 8


def photo(height: int = 40, width: int = 60) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 0.5


def is_white(region: torch.Tensor) -> bool:
    return bool((region == 1).all())


@pytest.mark.parametrize("count", [1, 2, 5, 6, 7, 11])
@pytest.mark.parametrize("text", ["", "Saliency ‖∂f/∂x‖ × ε λ", LONG, "x" * 300, "ÅÉgjpqy|" * 40])
def test_margins_and_gutters_stay_empty(count: int, text: str) -> None:
    panels = [images.Panel(photo(), text, text)] * count
    result = images.sheet(panels, side=96, gap=16, title=text, footnote=text, columns=min(count, 3))
    assert result.shape[2] == min(count, 3) * 96 + (min(count, 3) - 1) * 16 + 48
    for edge in (result[:, :20], result[:, -20:], result[..., :22], result[..., -22:]):
        assert is_white(edge)
    if count >= 2 and not text:
        assert is_white(result[..., 24 + 96 + 2 : 24 + 96 + 16 - 2])


def test_gutters_between_long_captions() -> None:
    result = images.sheet([images.Panel(photo(), LONG, LONG)] * 3, side=96, columns=3)
    for column in (24 + 96, 24 + 96 + 16 + 96):
        assert is_white(result[..., column + 2 : column + 14])


def test_panels_keep_their_pixels() -> None:
    exact = photo(48, 48)
    result = images.sheet([images.Panel(exact), images.Panel(exact)], side=48, gap=10)
    quantized = images.quantize(exact)
    assert torch.equal(result[:, 15:63, 15:63], quantized)
    assert torch.equal(result[:, 15:63, 15 + 58 : 63 + 58], quantized)


def test_tiny_images_become_squares() -> None:
    tiny = torch.rand(3, 7, 7)
    result = images.sheet([images.Panel(tiny)], side=224)[:, 24:248, 24:248]
    squares = images.quantize(tiny).repeat_interleave(32, 1).repeat_interleave(32, 2)
    assert torch.equal(result, squares)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(32, 120))
def test_any_shape_fits_its_cell(height: int, width: int, side: int) -> None:
    result = images.sheet([images.Panel(torch.zeros(3, height, width))], side=side)
    assert result.shape[2] == side + 48
    dark = (result < 0.5).all(0)
    rows, columns = dark.any(1).sum().item(), dark.any(0).sum().item()
    assert max(rows, columns) == side
    assert abs(rows * width - columns * height) <= max(width, height)


def test_rows_align_titles_and_pictures() -> None:
    panels = [images.Panel(torch.zeros(3, 64, 64), "one"), images.Panel(torch.zeros(3, 64, 64), LONG)]
    result = images.sheet(panels, side=64, gap=16)
    left, right = ((result[:, :, start + 3] < 0.01).all(0).nonzero() for start in (24, 24 + 80))
    assert torch.equal(left[-64:], right[-64:])


def test_dark_background_has_light_text() -> None:
    panel = images.Panel(torch.zeros(3, 64, 64), "title")
    result = images.sheet([panel], side=64, background=(0.0, 0.0, 0.0))
    assert result.max() > 0.7 and (result[:, :20] == 0).all()


def test_default_columns() -> None:
    for count, across in [(1, 1), (4, 4), (5, 5), (6, 3), (8, 4), (12, 4), (20, 5)]:
        result = images.sheet([images.Panel(photo())] * count, side=32, gap=0)
        assert result.shape[2] == across * 32 + 16


@pytest.mark.parametrize("options", [{"side": 8}, {"gap": -1}, {"columns": 0}])
def test_sheet_errors(options: dict[str, Any]) -> None:
    with pytest.raises(PhospheneError, match="give at least"):
        images.sheet([images.Panel(photo())], **options)
    with pytest.raises(PhospheneError, match="at least one panel"):
        images.sheet([])
    with pytest.raises(ImageError, match="expected one image"):
        images.sheet([images.Panel(torch.zeros(64, 64))])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.integers(20, 300), st.integers(1, 4), st.booleans())
def test_wrapped_text_fits(text: str, width: int, lines: int, bold: bool) -> None:
    style = Style(12, bold, lines)
    result = block(text, style, width)
    assert len(result.lines) <= lines and result.height == len(result.lines) * style.leading
    assert all(_width(line, style) <= width or len(line) <= 1 for line in result.lines)
    if not any(line.endswith("…") for line in result.lines):
        assert "".join(result.lines).replace(" ", "") == "".join(text.split())


def test_ellipsis_and_punctuation() -> None:
    assert block("word " * 50, Style(12, lines=2), 100).lines[1].endswith("…")
    assert block("features.block.conv", Style(12), 80).lines[0].endswith(".")
    assert block("a\n\nb", Style(12, lines=3), 80).lines == ("a", "b")


def test_grid() -> None:
    tiles = torch.arange(6.0)[:, None, None, None].expand(6, 1, 2, 3) / 10
    result = images.grid(tiles, columns=4, gap=1, scale=2)
    assert result.shape == (3, 2 * 4 + 1, 4 * 6 + 3)
    for index in range(6):
        top, left = index // 4 * 5, index % 4 * 7
        assert torch.allclose(result[:, top : top + 4, left : left + 6], torch.tensor(index / 10))
    assert is_white(result[:, 4]) and is_white(result[:, :, 6]) and is_white(result[:, 5:, 14:])
    assert images.grid(torch.rand(9, 3, 4, 4), gap=0).shape == (3, 12, 12)
    assert torch.equal(images.grid(torch.full((1, 3, 4, 4), 2.0)), torch.ones(3, 4, 4))
    for bad in (torch.rand(1, 2, 4, 4), torch.rand(0, 3, 4, 4), torch.rand(3, 4, 4)):
        with pytest.raises(PhospheneError, match="expected tiles"):
            images.grid(bad)
    with pytest.raises(PhospheneError, match="give at least"):
        images.grid(tiles, scale=0)


def test_normalise_tiles() -> None:
    tiles = torch.randn(4, 3, 5, 5)
    tiles[1] = 0
    result = images.normalise_tiles(tiles)
    assert (result[1] == 0.5).all() and result.min() >= 0 and result.max() <= 1
    assert torch.allclose((result[0] - 0.5).abs().max(), torch.tensor(0.5))
    assert torch.allclose(images.normalise_tiles(-tiles), 1 - result, atol=1e-6)
    with pytest.raises(PhospheneError, match="NaN"):
        images.normalise_tiles(torch.full((1, 1, 2, 2), torch.nan))


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "area", "nearest"])
def test_resize(mode: images.ResizeMode) -> None:
    image = torch.rand(2, 3, 30, 45)
    assert images.resize(image, (10, 12), mode=mode).shape == (2, 3, 10, 12)
    assert images.resize(image, 20, mode=mode).shape == (2, 3, 20, 30)
    assert images.resize(image.mT, 20, mode=mode).shape == (2, 3, 30, 20)
    same = images.resize(image, 30, mode=mode)
    torch.testing.assert_close(same, image, atol=1e-5, rtol=0)
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    result = images.resize(edge, 23, mode=mode)
    assert result.min() >= 0 and result.max() <= 1
    assert torch.allclose(images.resize(torch.full((1, 3, 50, 50), 0.3), 7, mode=mode), torch.tensor(0.3))


def test_resize_is_antialiased_and_differentiable() -> None:
    stripes = torch.zeros(1, 3, 64, 64)
    stripes[..., ::2] = 1
    stripes.requires_grad_()
    small = images.resize(stripes, 8)
    assert (small - 0.5).abs().max() < 0.05
    small.sum().backward()
    assert stripes.grad is not None and stripes.grad.abs().sum() > 0
    with pytest.raises(ImageError, match="size 0"):
        images.resize(stripes, 0)
    with pytest.raises(ImageError, match="expected images"):
        images.resize(stripes[0], 8)
