"""Gram matrices against a slow loop over channels and places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.synthesize.gram import gram, moments, weighted_sums


def slow(features: Tensor, guide: Tensor | None = None) -> Tensor:
    """`sum_k g_k F_ik F_jk` of `[C, H, W]`, number by number."""
    channels, height, width = features.shape
    found = torch.zeros(channels, channels, dtype=torch.float64)
    for i in range(channels):
        for j in range(channels):
            for row in range(height):
                for column in range(width):
                    share = 1.0 if guide is None else float(guide[row, column])
                    found[i, j] += share * float(features[i, row, column]) * float(features[j, row, column])
    return found


def maps(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (2, 4, 3, 3), (1, 1, 2, 2), (1, 5, 1, 1), (3, 2, 1, 6)])
def test_gram_is_the_sum_over_the_places(shape: tuple[int, ...]) -> None:
    features = maps(*shape)
    found = gram(features)
    assert found.shape == (shape[0], shape[1], shape[1])
    for one, wanted in zip(found, features, strict=True):
        torch.testing.assert_close(one, slow(wanted))


def test_a_gram_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])
    assert gram(features).tolist() == [[[5.0, 1.0], [1.0, 10.0]]]
    assert moments(features).tolist() == [[[2.5, 0.5], [0.5, 5.0]]]


def test_a_gram_knows_nothing_of_where_things_are() -> None:
    features = maps(1, 4, 5, 6)
    moved = features.flatten(2)[..., torch.randperm(30)].view(1, 4, 5, 6)
    torch.testing.assert_close(gram(moved), gram(features))
    assert not torch.allclose(gram(features[:, [1, 0, 2, 3]]), gram(features))


def laid_out() -> dict[str, Tensor]:
    """The same numbers in memory of several orders."""
    features = maps(2, 3, 4, 6)
    wide = torch.zeros(2, 3, 4, 13, dtype=torch.float64)
    wide[..., 1::2] = features
    return {
        "contiguous": features,
        "channels_last": features.contiguous(memory_format=torch.channels_last),
        "transposed": features.transpose(2, 3).contiguous().transpose(2, 3),
        "every other column": wide[..., 1::2],
        "channels first moved": features.transpose(0, 1).contiguous().transpose(0, 1),
        "cropped": torch.nn.functional.pad(features, (1, 2, 3, 1))[..., 3:-1, 1:-2],
    }


def test_the_layout_in_memory_does_not_matter() -> None:
    layouts = laid_out()
    wanted = torch.stack([slow(one) for one in layouts["contiguous"]])
    weights = maps(2, 3, 3)
    slopes = []
    for name, features in layouts.items():
        leaf = features.detach().requires_grad_()
        found = gram(leaf)
        torch.testing.assert_close(found.detach(), wanted, msg=name)
        slopes.append(torch.autograd.grad((found * weights).sum(), leaf)[0])
    for slope in slopes[1:]:
        torch.testing.assert_close(slope, slopes[0])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "every other column"])
def test_the_gradient_of_a_gram(layout: str) -> None:
    assert torch.autograd.gradcheck(gram, laid_out()[layout].detach().requires_grad_())


def test_the_gradient_is_autograds_own_for_slopes_that_are_not_symmetric() -> None:
    features, slope = maps(2, 4, 3, 5), maps(2, 4, 4)
    leaf = features.clone().requires_grad_()
    flat = leaf.flatten(2)
    (wanted,) = torch.autograd.grad((flat @ flat.transpose(1, 2) * slope).sum(), leaf)
    (found,) = torch.autograd.grad((gram(leaf) * slope).sum(), leaf)
    torch.testing.assert_close(found, wanted)


# -- regions ----------------------------------------------------------------------------------------------------


def test_moments_are_means_over_the_places() -> None:
    features = maps(1, 3, 4, 5)
    torch.testing.assert_close(moments(features)[0], slow(features[0]) / 20)
    torch.testing.assert_close(moments(torch.cat([features, features], 3)), moments(features))


def test_guided_moments_are_weighted_means() -> None:
    features, guides = maps(1, 3, 4, 5), torch.rand(2, 4, 5, dtype=torch.float64)
    guides[0, :, :2] = 0
    found = moments(features, guides)
    assert found.shape == (2, 3, 3)
    for region, guide in enumerate(guides):
        torch.testing.assert_close(found[region], slow(features[0], guide) / guide.sum())
        torch.testing.assert_close(weighted_sums(features, guides)[region], slow(features[0], guide))


def test_a_region_of_whole_places_is_a_picture_of_its_own() -> None:
    features, guides = maps(1, 3, 4, 6), torch.zeros(2, 4, 6, dtype=torch.float64)
    guides[0, :, :2] = 1
    guides[1, :, 2:] = 1
    found = moments(features, guides)
    torch.testing.assert_close(found[:1], moments(features[..., :2]))
    torch.testing.assert_close(found[1:], moments(features[..., 2:]))
    torch.testing.assert_close(moments(features, torch.ones(1, 4, 6, dtype=torch.float64)), moments(features))


def test_an_empty_region_has_no_moments_and_no_gradient() -> None:
    leaf = maps(1, 3, 4, 5).requires_grad_()
    found = moments(leaf, torch.zeros(1, 4, 5, dtype=torch.float64))
    assert found.abs().max() == 0
    (gradient,) = torch.autograd.grad(found.sum(), leaf)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_the_gradient_of_guided_moments() -> None:
    guides = torch.rand(2, 3, 4, dtype=torch.float64)
    guides[0, 0] = 0
    leaf = maps(1, 2, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda features: moments(features, guides), leaf)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 8), (1, 2, 3, 4, 5)])
def test_what_is_no_map_has_no_gram(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match=r"features \[N, C, H, W\], got \[" + ", ".join(map(str, shape))):
        gram(torch.zeros(shape))
