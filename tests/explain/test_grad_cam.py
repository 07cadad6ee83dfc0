from __future__ import annotations

import pytest
import torch
from reference import distance
from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.explain import grad_cam
from phosphene.models import Labels, Network, Preprocess


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.side = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(3, 6, 3)
        self.relu = nn.ReLU(inplace=True)
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.side(x)  # whose output nobody reads
        x = self.relu(self.two(self.relu(self.one(x))))
        return self.fc(self.relu(self.flat(self.pool(x))))


def small() -> Network:
    return Network(Small(), name="small", labels=Labels.generic(4), preprocess=Preprocess((20, 20), 20))


def test_it_is_the_formula() -> None:
    net, images = small().double(), torch.rand(2, 3, 20, 20, dtype=torch.float64)
    module = net.module.eval()
    kept: list[Tensor] = []
    handle = module.get_submodule("two").register_forward_hook(lambda _m, _i, out: kept.append(out) or out.clone())
    score = module(net.normalise(images))[:, 3]
    handle.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    wanted = torch.einsum("nk,nkij->nij", gradient.mean((2, 3)), kept[0]).relu().detach()
    found = grad_cam(net, images, 3, "two")
    assert found.layer_maps is not None
    assert wanted.max() > 0
    assert distance(found.layer_maps, wanted) < 1e-9
    assert torch.allclose(found.scores, score)
    assert found.maps.shape == (2, 20, 20)
    assert (found.maps >= 0).all()
    assert found.layer == "two"


def test_the_default_is_the_last_spatial_layer() -> None:
    net, images = small(), torch.rand(2, 3, 20, 20)
    found = grad_cam(net, images, 0)
    assert found.layer == "relu#2"  # whose third call is on vectors
    assert torch.equal(found.maps, grad_cam(net, images, 0, "relu#2").maps)


def test_each_call_of_a_module_has_its_own_map() -> None:
    found = [grad_cam(small(), torch.rand(1, 3, 20, 20), 0, f"relu#{k}").layer_maps for k in (1, 2)]
    assert [list(maps.shape) for maps in found if maps is not None] == [[1, 18, 18], [1, 16, 16]]


@pytest.mark.parametrize("layer", ["fc", "flat", "relu", "relu#3"])
def test_a_layer_without_a_map_is_an_error_that_names_one_with_a_map(layer: str) -> None:
    with pytest.raises(LayerError, match=rf"layer '{layer}' has no spatial map .* is 'relu#2'"):
        grad_cam(small(), torch.rand(1, 3, 20, 20), 0, layer)


def test_a_layer_that_the_scores_do_not_depend_on_is_an_error_line() -> None:
    with pytest.raises(LayerError, match="the scores of small don't depend on layer 'side'"):
        grad_cam(small(), torch.rand(1, 3, 20, 20), 0, "side")


def test_an_unknown_layer_gets_the_nearest_ones() -> None:
    with pytest.raises(LayerError, match="did you mean"):
        grad_cam(small(), torch.rand(1, 3, 20, 20), 0, "onee")
