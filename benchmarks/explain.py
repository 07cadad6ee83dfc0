"""Saliency, guided backprop and Grad-CAM against captum and pytorch-grad-cam: images per second, same maps.

python benchmarks/explain.py [--images 16] [--rounds 7]
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import compare
from samples import batch
from torch import Tensor

import phosphene
from phosphene import explain
from phosphene.models import Network


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="captum")
    print(f"{options.images} images, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    for name in ("efficientnet_lite0", "squeezenet1_1"):
        network = phosphene.load(name, device="cpu")
        images = batch(network, options.images)
        classes = network.logits(images).argmax(1)
        exact = phosphene.load(name, device="cpu").double()
        for method in (_saliency, _guided, _grad_cam):
            _check(method(exact, images[:4].double(), classes[:4]))
            pair = method(network, images, classes)
            _check(pair)
            print(compare(pair.name, pair.ours, pair.peer, rounds=options.rounds))


@dataclass(frozen=True)
class Pair:
    """The same maps by us and by the peer. `same`: whether the peer has the same rule at all."""

    name: str
    ours: Callable[[], Tensor]
    peer: Callable[[], Tensor]
    same: bool = True


def _check(pair: Pair) -> None:
    """The same maps? Asserted in float64. In float32 a rounding can flip a ReLU or a pooling's choice, in any library."""
    if not pair.same:
        return
    ours, peer = _unit(pair.ours()), _unit(pair.peer())
    error = (ours - peer).abs().flatten(1).amax(1) / peer.abs().flatten(1).amax(1)
    kind = str(ours.dtype).removeprefix("torch.")
    print(
        f"  {pair.name}, {kind}: maps differ by {float(error.median()):.0e} (median), {float(error.max()):.0e} (largest)"
    )
    if ours.dtype == torch.float64:
        assert float(error.max()) <= 1e-4, "the maps are not the same"


def _as_a_user_has_it(network: Network) -> Network:
    """The network for the peer: normalisation and the untouched module, as any PyTorch user holds it."""
    return copy.deepcopy(network).eval()


def _saliency(network: Network, images: Tensor, classes: Tensor) -> Pair:
    from captum.attr import Saliency

    peer = Saliency(_as_a_user_has_it(network))

    def theirs() -> Tensor:
        return peer.attribute(images.clone().requires_grad_(), target=classes, abs=True).amax(1).detach()

    return Pair(f"{network.name} saliency / captum", lambda: explain.saliency(network, images, classes).maps, theirs)


def _guided(network: Network, images: Tensor, classes: Tensor) -> Pair:
    from captum.attr import GuidedBackprop

    peer = GuidedBackprop(_as_a_user_has_it(network))

    def theirs() -> Tensor:
        return peer.attribute(images.clone().requires_grad_(), target=classes).detach().sum(1)

    return Pair(
        f"{network.name} guided backprop / captum",
        lambda: explain.guided_backprop(network, images, classes).maps,
        theirs,
        same=network.name == "squeezenet1_1",  # captum's rule knows nn.ReLU only; ReLU6 gets a plain gradient there
    )


def _grad_cam(network: Network, images: Tensor, classes: Tensor) -> Pair:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    plain = _as_a_user_has_it(network)
    layer = network.last_spatial_layer()
    targets = [ClassifierOutputTarget(index) for index in classes.tolist()]
    cam = GradCAM(model=plain, target_layers=[plain.module.get_submodule(layer)])

    def theirs() -> Tensor:
        return torch.from_numpy(cam(input_tensor=images, targets=targets)).to(images)  # type: ignore[arg-type]

    return Pair(
        f"{network.name} Grad-CAM / pytorch-grad-cam",
        lambda: explain.grad_cam(network, images, classes).maps,
        theirs,
    )


def _unit(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, as pytorch-grad-cam returns them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


if __name__ == "__main__":
    main()
