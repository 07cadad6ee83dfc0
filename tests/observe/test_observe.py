"""Filters, activations and stages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from phosphene import observe
from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network, load


def small(*, channels: int = 3) -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    if channels == 1:
        return load(module, device="cpu", input_size=20, mean=(0.1,), std=(0.3,))
    return load(module, device="cpu", input_size=20)


def test_filters_are_weights_per_unit_of_the_picture(bundled_network: Network) -> None:
    found = observe.filters(bundled_network)
    first = next(m for m in bundled_network.module.modules() if isinstance(m, nn.Conv2d))
    for channel in range(3):
        torch.testing.assert_close(
            found.weights[:, channel], first.weight[:, channel].detach() / float(bundled_network.std[0, channel, 0, 0])
        )
    assert not found.weights.requires_grad
    assert observe.filters(bundled_network, found.layer).weights.equal(found.weights)


def test_filters_predict_what_a_change_of_the_picture_does() -> None:
    network = small()
    found = observe.filters(network)
    image, change = torch.rand(1, 3, 20, 20), torch.zeros(1, 3, 20, 20)
    change[0, 1, 4, 6] = 0.25
    before, after = (network.record(x, ["0"])["0"] for x in (image, image + change))
    # the pixel (4, 6) lies at (0, 0) of the filter at (2, 3), which steps by 2
    torch.testing.assert_close((after - before)[0, :, 2, 3], found.weights[:, 1, 0, 0] * 0.25, atol=1e-5, rtol=1e-4)


def test_filters_of_a_grey_network() -> None:
    network = small(channels=1)
    found = observe.filters(network)
    assert found.weights.shape == (8, 1, 3, 3)
    torch.testing.assert_close(found.weights, network.module[0].weight.detach() / 0.3)  # type: ignore[index]
    with pytest.raises(LayerError, match="act on 8 features"):
        observe.filters(network, "2")  # one channel each, but not the image's


def test_layers_without_pictures_for_filters(squeezenet: Network) -> None:
    with pytest.raises(LayerError, match=r"act on 64 features, not on the image: only those of 'features\.0'"):
        observe.filters(squeezenet, "features.3.squeeze")
    with pytest.raises(LayerError, match="is a ReLU, which has no filters"):
        observe.filters(squeezenet, "features.1")
    flat = load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), device="cpu", input_size=8)
    with pytest.raises(LayerError, match="has no convolution"):
        observe.filters(flat)


def test_activations_are_the_channels_that_vary_most(squeezenet: Network, photos: Tensor) -> None:
    (found,) = observe.activations(squeezenet, photos[:1], ["fire5"], count=7)
    maps = squeezenet.record(photos[:1], ["fire5"])["fire5"][0]
    spread = sorted(range(len(maps)), key=lambda channel: -float(maps[channel].std()))
    assert found.channels == tuple(spread[:7])
    assert torch.equal(found.maps, maps[spread[:7]])
    assert (found.layer, found.total) == ("fire5", 256)
    dead = sum(not bool(channel.any()) for channel in maps)
    assert found.silent == pytest.approx(dead / 256) and dead > 0


def test_more_channels_than_there_are() -> None:
    (found,) = observe.activations(small(), torch.rand(1, 3, 20, 20), ["0"], count=99)
    assert len(found.maps) == 8 and sorted(found.channels) == list(range(8))


def test_maps_of_one_pixel() -> None:
    (found,) = observe.activations(small(), torch.rand(1, 3, 20, 20), ["4"], count=8)
    values = found.maps[:, 0, 0]
    assert torch.isfinite(values).all() and values.tolist() == sorted(values.tolist(), reverse=True)


def test_what_has_no_maps() -> None:
    with pytest.raises(LayerError, match="gives no maps"):
        observe.activations(small(), torch.rand(1, 3, 20, 20), ["6"])
    with pytest.raises(PhospheneError, match="channels start at 1"):
        observe.activations(small(), torch.rand(1, 3, 20, 20), ["0"], count=0)


@pytest.mark.parametrize("name", ["squeezenet1_1", "efficientnet_lite0", "resnet18", "vgg16"])
def test_stages_go_from_fine_to_coarse(name: str, squeezenet: Network, efficientnet: Network) -> None:
    from torchvision import models

    bundled = {"squeezenet1_1": squeezenet, "efficientnet_lite0": efficientnet}
    network = bundled.get(name) or load(models.get_model(name, weights=None), device="cpu", input_size=64)
    names = observe.stages(network)
    sizes = [network.layer(stage).shape[1] for stage in names]
    assert 3 <= len(names) <= 6
    assert sizes == sorted(set(sizes), reverse=True)
    assert all(network.layer(stage).kind not in ("Conv2d", "Identity", "Dropout") for stage in names)
    assert len(observe.stages(network, most=2)) == 2
    if name == "resnet18":
        assert names[-1].startswith("layer4")


def test_no_stages_without_maps() -> None:
    flat = load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)), device="cpu", input_size=8)
    with pytest.raises(LayerError, match="no layer with a spatial map"):
        observe.stages(flat)
