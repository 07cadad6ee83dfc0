"""The least size of a picture, against trying them all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.models import Network, load
from phosphene.synthesize.smallest import smallest_side

SIZE = 40


class Two(nn.Module):
    """Two branches of other reaches that are put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 9, padding=4)
        self.deep = nn.Conv2d(8, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.deep(torch.cat([self.near(x), self.far(x)], 1))


class Crop(nn.Module):
    """Cuts the borders off; of a small map nothing is left, and no error is raised."""

    def forward(self, x: Tensor) -> Tensor:
        return x[..., 3:-3, 3:-3]


def classifier(*layers: nn.Module, channels: int = 4) -> nn.Sequential:
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


NETS = {
    "pooling": classifier(nn.Conv2d(3, 4, 5), nn.MaxPool2d(3, 2), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2)),
    "rounding up": classifier(nn.Conv2d(3, 4, 3, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 4, 3)),
    "padded": classifier(nn.Conv2d(3, 4, 7, padding=3), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(4, 4, 3, padding=1)),
    "dilated": classifier(nn.Conv2d(3, 4, 3, dilation=4), nn.Conv2d(4, 4, 3, dilation=2), nn.AvgPool2d(2)),
    "reflected": classifier(nn.ReflectionPad2d(3), nn.Conv2d(3, 4, 3), nn.ReLU()),
    "cropped": classifier(nn.Conv2d(3, 4, 1), Crop()),
    "one by one": classifier(nn.Conv2d(3, 4, 1)),
    "fixed": nn.Sequential(nn.Conv2d(3, 4, 3, stride=3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 13 * 13, 5)),
    "branches": classifier(Two()),
}


def made(name: str) -> Network:
    return load(NETS[name], device="cpu", input_size=SIZE)


def works(network: Network, layer: str | None, side: int) -> bool:
    """By the module itself, as it was given."""
    seen: list[Any] = []
    names = dict(network.module.named_modules())
    hook = names[layer].register_forward_hook(lambda _m, _i, out: seen.append(out)) if layer is not None else None
    try:
        with torch.no_grad():
            output = network.module.eval()(torch.rand(1, 3, side, side))
        seen.append(output)
    except RuntimeError:
        pass
    finally:
        if hook is not None:
            hook.remove()
    return bool(seen) and seen[0].numel() > 0


@pytest.mark.parametrize("name", NETS)
def test_the_least_size_is_the_first_that_works(name: str) -> None:
    network = made(name)
    layers = [layer.name for layer in network.layers()]
    for layer in [None, *layers]:
        wanted = next(side for side in range(1, SIZE + 1) if works(network, layer, side))
        assert smallest_side(network, layer) == wanted, layer


def test_it_works_at_that_size_and_not_below() -> None:
    network = made("pooling")
    side = smallest_side(network, "3")
    assert network.activations(torch.rand(1, 3, side, side), "3").numel() > 0
    with pytest.raises((RuntimeError, PhospheneError)):
        network.activations(torch.rand(1, 3, side - 1, side - 1), "3")


def test_it_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = made("padded")
    first = smallest_side(network, "2")
    monkeypatch.setattr(Network, "activations", lambda *_: pytest.fail("asked again"))
    assert smallest_side(network, "2") == first
