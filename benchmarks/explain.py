"""Saliency, guided backprop and Grad-CAM against captum and pytorch-grad-cam: images per second, same maps.

python benchmarks/explain.py [--images 16] [--rounds 7]
"""

from __future__ import annotations

import argparse
import copy
import warnings

import torch
from harness import compare
from samples import batch
from torch import Tensor, nn

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
        plain = _as_a_user_has_it(network)
        for method in (_saliency, _guided, _grad_cam):
            method(network, plain, images, classes, options.rounds)


def _as_a_user_has_it(network: Network) -> nn.Module:
    """The network for the peer: normalisation and the untouched module, as any PyTorch user holds it."""
    twin = copy.deepcopy(network).eval()
    twin._engines.clear()
    return twin


def _same(ours: Tensor, peer: Tensor, what: str) -> None:
    """The same maps? Asserted in float64; in float32 a rounding may flip a ReLU or a pooling's choice, in any library."""
    error = (ours - peer).abs().flatten(1).amax(1) / peer.abs().flatten(1).amax(1)
    if ours.dtype == torch.float64:
        assert float(error.max()) <= 1e-4, f"{what}: the maps differ by {float(error.max()):.1e}"
    print(
        f"  {what}: relative difference, {str(ours.dtype)[6:]}: median {float(error.median()):.1e}, largest {float(error.max()):.1e}"
    )


def _saliency(network: Network, plain: nn.Module, images: Tensor, classes: Tensor, rounds: int) -> None:
    from captum.attr import Saliency

    peer = Saliency(plain)

    def ours() -> Tensor:
        return explain.saliency(network, images, classes).maps

    def theirs() -> Tensor:
        return peer.attribute(images.clone().requires_grad_(), target=classes, abs=True).amax(1).detach()

    _same(ours(), theirs())
    print(compare(f"{network.name} saliency / captum", ours, theirs, rounds=rounds))


def _guided(network: Network, plain: nn.Module, images: Tensor, classes: Tensor, rounds: int) -> None:
    from captum.attr import GuidedBackprop

    peer = GuidedBackprop(plain)

    def ours() -> Tensor:
        return explain.guided_backprop(network, images, classes).gradient  # type: ignore[return-value]

    def theirs() -> Tensor:
        return peer.attribute(images.clone().requires_grad_(), target=classes).detach()

    if network.name == "squeezenet1_1":  # captum's knows nn.ReLU only: on ReLU6 it returns another map
        _same(ours(), theirs())
    print(compare(f"{network.name} guided backprop / captum", ours, theirs, rounds=rounds))


def _grad_cam(network: Network, plain: nn.Module, images: Tensor, classes: Tensor, rounds: int) -> None:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = network.last_spatial_layer()
    targets = [ClassifierOutputTarget(index) for index in classes.tolist()]
    cam = GradCAM(model=plain, target_layers=[plain.module.get_submodule(layer)])  # type: ignore[union-attr,operator]

    def ours() -> Tensor:
        return _unit(explain.grad_cam(network, images, classes).maps)

    def theirs() -> Tensor:
        return torch.from_numpy(cam(input_tensor=images, targets=targets))  # type: ignore[arg-type]

    _same(ours(), _unit(theirs()))
    print(compare(f"{network.name} Grad-CAM / pytorch-grad-cam", ours, theirs, rounds=rounds))
    cam.activations_and_grads.release()


def _unit(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


if __name__ == "__main__":
    main()
