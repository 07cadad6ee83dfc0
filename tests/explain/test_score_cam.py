from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from reference import distance
from torch import Tensor, nn
from torch.nn import functional as F
from toys import network, pictures, small

from phosphene.explain import score_cam
from phosphene.models import Network, Unit


@pytest.mark.parametrize("name", ["efficientnet", "squeezenet", "small"])
def test_it_is_that_of_pytorch_grad_cam(name: str, request: pytest.FixtureRequest, photos64: Tensor) -> None:
    net: Network = small() if name == "small" else request.getfixturevalue(f"{name}64")
    images = pictures(2) if name == "small" else photos64
    layer = {"efficientnet": "blocks.0", "squeezenet": "features.2", "small": "bn"}[name]
    classes = [3, 1] if name == "small" else [281, 967]
    if name == "small":
        net.module.relu = nn.ReLU()  # in place it would overwrite what they have kept
    targets: Any = [ClassifierOutputTarget(place) for place in classes]
    ours = score_cam(net, images, classes, layer).layer_maps
    with ScoreCAM(net.eval(), [net.module.get_submodule(layer)]) as cam, torch.no_grad():
        cam.activations_and_grads(images)
        a: Any = cam.activations_and_grads.activations[0].numpy().copy()
        exact = torch.from_numpy(np.maximum(cam.get_cam_image(images, None, targets, a, None), 0))  # type: ignore[arg-type]
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], exact[place]) < 1e-6  # their weights are float32


def by_loop(net: Network, image: Tensor, activation: Tensor, chosen: int | tuple[int, int, int]) -> Tensor:
    """`[h, w]` of an image `[1, 3, H, W]` and its maps `[C, h, w]`: one masked image after the other."""
    seen = []
    for channel in activation:
        mask = F.interpolate(channel[None, None], image.shape[2:], mode="bilinear", align_corners=True)
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / spread if spread > 0 else torch.zeros_like(mask)
        if isinstance(chosen, int):
            seen.append(net.logits(image * mask)[0, chosen])
        else:
            seen.append(net.record(image * mask, ["last"])["last"][(0, *chosen)])
    weights = torch.stack(seen).exp() / torch.stack(seen).exp().sum()
    return sum((weight * channel for weight, channel in zip(weights, activation)), torch.zeros(())).clamp(min=0)


def test_it_is_the_loop_over_channels() -> None:
    net, images = small(), pictures(2)
    activation = net.record(images, ["bn"])["bn"]
    found = score_cam(net, images, [2, 0], "bn")
    assert found.layer_maps is not None
    for place, chosen in enumerate((2, 0)):
        wanted = by_loop(net, images[[place]], activation[place], chosen)
        assert wanted.max() > 0
        assert distance(found.layer_maps[place], wanted) < 1e-9
    wide = F.interpolate(found.layer_maps[:, None], (20, 20), mode="bilinear", align_corners=False)[:, 0]
    assert distance(found.maps, wide) < 1e-12


def test_a_units_score_is_read_where_it_is_most_active_in_the_whole_image() -> None:
    net, images = small(), pictures(2)
    recorded = net.record(images, ["relu#1", "last"])
    found = score_cam(net, images, Unit("last", 4), "relu#1").layer_maps
    assert found is not None
    for place in range(2):
        best = int(recorded["last"][place, 4].flatten().argmax())
        wanted = by_loop(net, images[[place]], recorded["relu#1"][place], (4, best // 16, best % 16))
        assert distance(found[place], wanted) < 1e-9


def test_silent_channels_count_as_a_black_image() -> None:
    net, images = small(), pictures(2)
    with torch.no_grad():
        net.module.get_parameter("bn.bias")[[1, 4]] = -100.0
        net.module.get_parameter("bn.bias")[2] = 100.0  # and one that is nowhere silent
    activation = net.record(images, ["relu#1"])["relu#1"]
    assert activation[:, [1, 4]].max() == 0
    found = score_cam(net, images, 1, "relu#1").layer_maps
    assert found is not None
    for place in range(2):
        assert distance(found[place], by_loop(net, images[[place]], activation[place], 1)) < 1e-9


def test_a_layer_that_is_silent_everywhere_has_an_empty_map() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    net = network(module)
    with torch.no_grad():
        module[0].bias.fill_(-100)  # type: ignore[union-attr]
    found = score_cam(net, pictures(2), 1, "1")
    assert found.maps.abs().max() == 0
    assert distance(found.scores, net.logits(pictures(2))[:, 1]) < 1e-12
