from __future__ import annotations

import pytest
import torch
from toys import pictures, small

from phosphene.explain.variants import generator, pairs


@pytest.mark.parametrize(("count", "variants"), [(1, 1), (1, 20), (3, 7), (8, 1), (5, 8)])
def test_every_pair_comes_once_image_by_image_in_batches_of_memory_size(count: int, variants: int) -> None:
    net, images = small(), pictures(count)
    batches = list(pairs(net, images, variants))
    found = [pair for rows, numbers in batches for pair in zip(rows.tolist(), numbers.tolist(), strict=True)]
    assert found == [(row, number) for row in range(count) for number in range(variants)]
    sizes = [len(rows) for rows, _ in batches]
    assert max(sizes) <= net.batch_size((20, 20)) == 8
    assert all(size == 8 for size in sizes[:-1])


def test_a_variants_random_numbers_are_its_own_and_the_seeds() -> None:
    draws = {
        (seed, n): torch.rand(4, generator=generator(seed, n)) for seed in (-3, 0, 1, 12345) for n in (0, 1, 2, 999)
    }
    before = torch.get_rng_state()
    for (seed, number), numbers in draws.items():
        assert torch.equal(torch.rand(4, generator=generator(seed, number)), numbers)
    assert torch.equal(torch.get_rng_state(), before)
    assert len({tuple(numbers.tolist()) for numbers in draws.values()}) == len(draws)
