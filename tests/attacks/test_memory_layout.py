"""The memory layout that a plain module's weights have while it is attacked, and how many images it is given at once."""

from __future__ import annotations

import pytest
import torch
from planes import bent, done, noise, seen
from torch import Tensor, nn

from phosphene.attacks import apgd, square
from phosphene.attacks.victim import TOGETHER, Victim
from phosphene.models import load


class Views(nn.Module):
    """Flattens with `.view`, which only works in the usual layout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 64, 5)
        self.strides: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.strides.append(self.conv.weight.stride())
        features = self.conv(x).relu()
        return self.fc(features.view(len(x), -1))


def places(module: nn.Module) -> list[tuple[int, tuple[int, ...]]]:
    return [(parameter.data_ptr(), parameter.stride()) for parameter in module.parameters()]


def test_weights_are_laid_out_and_given_back() -> None:
    module = bent(3)
    before = places(module)
    with Victim(module, 2).lent() as victim:
        assert module.conv.weight.is_contiguous(memory_format=torch.channels_last)
        assert not module.conv.weight.is_contiguous()
        victim.logits(noise(2, 3), torch.arange(2))
    assert places(module) == before
    with pytest.raises(KeyboardInterrupt), Victim(module, 2).lent():
        raise KeyboardInterrupt
    assert places(module) == before


def test_a_module_that_views_is_attacked_as_it_is() -> None:
    module, images = Views(), noise(6, 3)
    labels = seen(module, images)
    before = places(module)
    module.strides.clear()
    for attack in (apgd, square):
        found = done(attack(module, images, labels, eps=0.1, steps=20))
        assert found.success.any()
        assert torch.equal(seen(module, found.images), found.predicted)
    assert places(module) == before
    assert (
        len(set(module.strides)) == 2 and module.strides.count(module.strides[0]) == 2
    )  # one vain try for each attack


@pytest.mark.parametrize(("size", "at_once"), [(4, TOGETHER), (8, TOGETHER), (32, 32), (64, 8), (224, 4)])
def test_small_images_go_together(size: int, at_once: int) -> None:
    module = bent()
    module.seen.clear()
    Victim(module, 65).logits(torch.zeros(65, 1, size, size), torch.arange(65))
    assert module.seen[0] == at_once and sum(module.seen) == 65


def test_a_small_network_gets_more_than_eight() -> None:
    network = load(bent(3), device="cpu", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    victim = Victim(network, 100)
    assert victim._fits((8, 8)) == TOGETHER
    assert 8 <= victim._fits((600, 600)) < TOGETHER
