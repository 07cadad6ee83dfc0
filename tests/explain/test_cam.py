"""Grad-CAM, Grad-CAM++ and LayerCAM: their formulas, and the layers that they take."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from reference import distance
from torch import Tensor, nn
from torch.nn import functional as F
from toys import every_cam, explained, network, pictures, small

from phosphene.errors import LayerError
from phosphene.explain import METHODS, Attribution, grad_cam, guided_backprop, guided_grad_cam, layer_cam
from phosphene.models import Network, Unit

FORMULAS = ["grad-cam", "grad-cam++", "layer-cam"]
THEIRS: dict[str, Any] = {"grad-cam": GradCAM, "grad-cam++": GradCAMPlusPlus, "layer-cam": LayerCAM}


# -- the formulas -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("layers", [{"tf": "blocks.6", "sq": "features.12"}, {"tf": "blocks.2", "sq": "features.7"}])
def test_on_both_networks_it_is_that_of_pytorch_grad_cam(
    method: str, layers: dict[str, str], network64: Network, photos64: Tensor
) -> None:
    layer = layers["tf" if network64.name == "efficientnet_lite0" else "sq"]
    ours = METHODS[method](network64, photos64, [281, 967], layer=layer)
    targets: Any = [ClassifierOutputTarget(281), ClassifierOutputTarget(967)]
    with warnings.catch_warnings(), THEIRS[method](network64, [network64.module.get_submodule(layer)]) as cam:
        warnings.simplefilter("ignore")
        shown = cam(input_tensor=photos64, targets=targets)
        seen = cam.activations_and_grads
        a, g = seen.activations[0].numpy(), seen.gradients[0].numpy()
        exact = torch.from_numpy(np.maximum(cam.get_cam_image(photos64, None, targets, a, g, False), 0))
    assert ours.layer_maps is not None
    for place in range(2):
        assert exact[place].max() > 0
        assert distance(ours.layer_maps[place], exact[place]) < 1e-9
    # What they show is stretched to 0 ... 1, enlarged by OpenCV in float32 (bilinear, as ours) and stretched once more.
    assert distance(stretched(enlarged(stretched(ours.layer_maps))), torch.from_numpy(np.asarray(shown))) < 1e-4


def stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low + 1e-7)


def enlarged(maps: Tensor, size: tuple[int, int] = (112, 112)) -> Tensor:
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def by_loops(method: str, activation: Tensor, gradient: Tensor) -> Tensor:
    """`[h, w]` of one image's `A [C, h, w]` and `dS/dA [C, h, w]`, each sum written out."""
    channels, height, width = activation.shape
    total = torch.zeros(height, width, dtype=activation.dtype)
    places = [(y, x) for y in range(height) for x in range(width)]
    for k in range(channels):
        g, a = gradient[k], activation[k]
        if method == "layer-cam":
            for y, x in places:
                total[y, x] += max(float(g[y, x]), 0.0) * a[y, x]
            continue
        weight = 0.0
        for y, x in places:
            slope = float(g[y, x])
            if method == "grad-cam":
                weight += slope / (height * width)
            elif slope != 0:
                below = 2 * slope**2 + float(a.sum()) * slope**3 + 1e-6
                weight += slope**2 / below * max(slope, 0.0)
        total += weight * a
    return total.clamp(min=0)


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize("target", [3, Unit("fc", 1), Unit("last", 2, (3, 4)), Unit("last", 2)])
def test_it_is_the_formula_for_classes_and_units(method: str, target: int | Unit) -> None:
    net, images = small(), pictures()
    module: Any = net.module.eval()
    activation = module.bn(module.conv(net.normalise(images))).relu().detach().requires_grad_()
    last = module.last(activation)
    if isinstance(target, int) or target.layer == "fc":
        score = module.fc(last.relu().mean((2, 3)))[:, target if isinstance(target, int) else target.channel]
    else:
        score = last[:, 2, 3, 4] if target.position else last[:, 2].flatten(1).amax(1)
    (gradient,) = torch.autograd.grad(score.sum(), activation)
    found = METHODS[method](net, images, target, layer="relu#1")
    assert found.layer_maps is not None
    assert distance(found.scores, score.detach()) < 1e-9
    for place in range(2):
        wanted = by_loops(method, activation[place].detach(), gradient[place])
        assert wanted.max() > 0
        assert distance(found.layer_maps[place], wanted) < 1e-9
    assert distance(found.maps, enlarged(found.layer_maps, (20, 20))) < 1e-9


def test_guided_grad_cam_is_guided_backpropagation_times_grad_cam(squeezenet64: Network, photos64: Tensor) -> None:
    from captum.attr import GuidedGradCam

    found = guided_grad_cam(squeezenet64, photos64, [281, 967], "features.12")
    heat = grad_cam(squeezenet64, photos64, [281, 967], "features.12")
    guided = guided_backprop(squeezenet64, photos64, [281, 967])
    assert found.gradient is not None and guided.gradient is not None and found.layer_maps is not None
    assert distance(found.gradient, guided.gradient * heat.maps[:, None]) < 1e-12
    assert torch.equal(found.layer_maps, torch.as_tensor(heat.layer_maps))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = GuidedGradCam(squeezenet64, squeezenet64.module.get_submodule("features.12"))
        theirs = peer.attribute(photos64.clone(), target=[281, 967], interpolate_mode="bilinear")
    for place in range(2):
        assert distance(found.gradient[place], theirs[place].detach()) < 1e-9


# -- the layer ------------------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """A trunk, a branch beside it that runs later, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.trunk, self.side = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)
        self.block = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 6, 3))
        self.late, self.fc, self.other = nn.Conv2d(6, 6, 1), nn.Linear(6, 4), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        trunk, side = self.trunk(x), self.side(x)
        y = self.block(trunk)
        late = self.late(side)
        return self.fc(y.mean((2, 3))) + self.other(late.mean((2, 3)))


@every_cam
@pytest.mark.parametrize(
    ("unit", "layer"),
    [
        (Unit("block.1", 0), "block.0"), (Unit("block", 0), "trunk"), (Unit("side", 1, (2, 2)), "stem"),
        (Unit("late", 1), "side"), (Unit("fc", 2), "block"), (Unit("other", 2), "late"), (Unit("trunk", 5), "stem"),
    ],
)  # fmt: skip
def test_the_default_for_a_unit_is_the_last_layer_that_it_reads(method: str, unit: Unit, layer: str) -> None:
    net, images = network(Branches()), pictures()
    found = explained(method, net, images, unit)
    assert found.layer == layer
    assert torch.equal(found.maps, explained(method, net, images, unit, layer=layer).maps)
    assert found.maps.abs().max() > 0


@every_cam
def test_the_default_for_a_class_is_the_last_layer_with_a_map(method: str) -> None:
    found = explained(method, small(), pictures(), 0)
    assert found.layer == "relu"
    assert found.layer_maps is not None
    assert found.layer_maps.shape == (2, 16, 16)


@every_cam
def test_the_first_layers_units_have_nothing_before_them(method: str) -> None:
    with pytest.raises(LayerError, match=r"no layer with a spatial map runs before 'stem' .* take gradient"):
        explained(method, network(Branches()), pictures(1), Unit("stem", 1))


@pytest.mark.parametrize("method", [*FORMULAS, "guided-grad-cam"])
def test_a_layer_that_runs_after_the_unit_or_beside_it_is_an_error_line(method: str) -> None:
    net, images = network(Branches()), pictures(1)
    with pytest.raises(LayerError, match="layer 'block' runs after 'trunk', which therefore does not depend on it"):
        explained(method, net, images, Unit("trunk", 1), layer="block")
    with pytest.raises(LayerError, match="scores of net don't depend on layer 'trunk'"):
        explained(method, net, images, Unit("late", 1), layer="trunk")


def test_a_branch_that_is_silent_is_not_what_a_unit_reads() -> None:
    class Silent(Branches):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.fc(self.late(self.trunk(x) + F.relu(self.side(x))).mean((2, 3)))

    net = network(Silent())
    assert grad_cam(net, pictures(), Unit("late", 1)).layer == "side"
    with torch.no_grad():
        net.module.get_parameter("side.bias").fill_(-100)
    assert grad_cam(net, pictures(), Unit("late", 1)).layer == "trunk"


def test_a_unit_that_is_silent_has_an_empty_map_at_the_layer_before_it() -> None:
    net = small()
    with torch.no_grad():
        net.module.get_parameter("last.bias").fill_(-100)
    found = grad_cam(net, pictures(), Unit("relu#2", 1))
    assert found.layer == "last"
    assert found.maps.abs().max() == 0


def test_layer_cam_of_an_early_layer_is_finer_than_that_of_a_late_one(squeezenet64: Network, photos64: Tensor) -> None:
    def sizes(found: Attribution) -> tuple[int, ...]:
        assert found.layer_maps is not None
        return tuple(found.layer_maps.shape)

    assert sizes(layer_cam(squeezenet64, photos64, 281, "features.4")) == (2, 27, 27)
    assert sizes(layer_cam(squeezenet64, photos64, 281)) == (2, 6, 6)
