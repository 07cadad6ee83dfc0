"""The part of a map that speaks for the class, and the mask made of it."""

from __future__ import annotations

import math

import pytest
import torch

from phosphene.errors import PhospheneError
from phosphene.explain.metrics.confidence import mask
from phosphene.explain.metrics.evidence import check, evidence


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([-1.0, 0.0, 2.0, 0.5], [0, 0, 2, 0.5]),  # signed
        ([-1.0, 3.0, 2.0, 0.5], [0, 3, 2, 0.5]),
        ([0.5, 0.75, 1.5, 3.0], [0, 0.25, 1, 2.5]),  # positive everywhere: above its floor
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]), ([-1.0, -2.0, -3.0, -0.5], [0, 0, 0, 0]), ([7.0] * 4, [0, 0, 0, 0]),
        ([0.0, 1.0, 1.0, 2.0], [0, 1, 1, 2]), ([2, 3, 1, -1], [2, 3, 1, 0]),
    ],
)  # fmt: skip
def test_evidence_is_the_positive_part_above_its_floor(values: list[float], wanted: list[float]) -> None:
    other = torch.tensor([[5.0, -4.0], [1.0, 9.0]])
    maps = torch.stack([torch.tensor(values).view(2, 2).to(other), other])
    before = maps.clone()
    found = evidence(maps)
    assert found[0].flatten().tolist() == wanted
    assert found[1].tolist() == [[5, 0], [1, 9]]  # each map has a floor of its own
    assert torch.equal(maps, before)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([-1.0, 0.0, 2.0, 0.5], [0, 0, 1, 0.25]), ([0.5, 0.75, 1.0, 1.5], [0, 0.25, 0.5, 1]),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]), ([-1.0, -2.0, -3.0, -0.5], [0, 0, 0, 0]), ([7.0] * 4, [0, 0, 0, 0]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_mask_is_the_evidence_scaled_to_1(values: list[float], wanted: list[float], dtype: torch.dtype) -> None:
    maps = torch.tensor(values, dtype=dtype).view(1, 2, 2)
    for scale in (1.0, 1024.0, 2.0**-12, float(torch.finfo(dtype).tiny) * 4):
        assert mask(maps * scale)[0].flatten().tolist() == wanted, scale


def test_what_are_no_maps_are_error_lines() -> None:
    for maps, many in ((torch.zeros(4, 5), "N"), (torch.zeros(1, 3, 4, 5), "N"), (torch.zeros(0, 4, 5), "N")):
        for judge in (evidence, mask, check):
            with pytest.raises(PhospheneError, match=rf"expected maps \[{many}, H, W\], one per image, got \["):
                judge(maps)
    with pytest.raises(PhospheneError, match=r"expected maps \[3, H, W\], one per image, got \[2, 4, 5\]"):
        check(torch.zeros(2, 4, 5), 3)
    for value in (math.nan, math.inf, -math.inf):
        maps = torch.zeros(2, 4, 5)
        maps[1, 2, 3] = value
        with pytest.raises(PhospheneError, match="the maps hold NaN or infinity: a map that can be judged is finite"):
            evidence(maps)
    check(torch.zeros(2, 4, 5), 2)
