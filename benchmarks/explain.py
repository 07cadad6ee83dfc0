"""Explanations against captum and pytorch-grad-cam at their defaults: images per second, and the same maps.

    python benchmarks/explain.py [--images 16] [--rounds 7] [--only occlusion,score-cam]

The floors are asserted only with `--assert-ratios`, because a busy machine can miss any of them.
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

CAPTUM = ("gradient", "saliency", "gradient-x-input", "guided-backprop", "integrated-gradients", "occlusion")
CAMS = ("grad-cam", "score-cam")
FLOORS = {  # of the ratio on efficientnet_lite0 and on squeezenet1_1
    **dict.fromkeys(("gradient", "saliency", "gradient-x-input", "guided-backprop"), (1.9, 1.35)),
    "integrated-gradients": (2.0, 1.5), "occlusion": (2.0, 3.0), "grad-cam": (3.0, 2.0), "score-cam": (1.5, 2.0),
}  # fmt: skip
SLOW = {"integrated-gradients": 2, "occlusion": 2, "score-cam": 1}  # images of the slow ones: they are made of batches
NETS = ("efficientnet_lite0", "squeezenet1_1")


@dataclass(frozen=True)
class Pair:
    """The same maps by us and by the peer. `same`: whether the peer has the same rule at all."""

    name: str
    ours: Callable[[], Tensor]
    peer: Callable[[], Tensor]
    same: bool = True


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="")
    parser.add_argument("--assert-ratios", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # the peers' own
    print(f"{options.images} images, {torch.get_num_threads()} threads, median of {options.rounds} rounds")
    wanted = options.only.split(",") if options.only else [*CAPTUM, *CAMS, "classes"]
    for place, name in enumerate(NETS):
        network = phosphene.load(name, device="cpu")
        images = batch(network, options.images)
        classes = network.logits(images).argmax(1)
        exact = phosphene.load(name, device="cpu").double()
        for method in [*CAPTUM, *CAMS]:
            if method not in wanted:
                continue
            make = _captum if method in CAPTUM else _cam
            few = slice(0, SLOW.get(method, 4))
            _check(make(method, exact, images[few].double(), classes[few]))
            some = slice(0, SLOW.get(method, options.images))
            pair = make(method, network, images[some], classes[some])
            _check(pair)
            timing = compare(pair.name, pair.ours, pair.peer, rounds=options.rounds)
            print(f"{timing}   asked {FLOORS[method][place]}")
            assert not options.assert_ratios or timing.ratio >= FLOORS[method][place]
        if "classes" in wanted:
            _classes(network, images, options.rounds)


def _classes(network: Network, images: Tensor, rounds: int) -> None:
    """Five classes of an image against one: of one image, and of images in a batch, which share the forward pass."""
    five = network.logits(images).topk(5).indices
    for method in (explain.saliency, explain.guided_backprop, explain.grad_cam):
        together = method(network, images, five).maps
        alone = torch.stack([method(network, images, five[:, k]).maps for k in range(5)], 1)
        assert float((together - alone).abs().max() / alone.abs().max()) < 1e-4, "not the same maps"
        for few in (1, len(images)):
            timing = compare(
                f"{network.name} {method.__name__}, {few} image(s): one / five",
                lambda method=method, few=few: method(network, images[:few], five[:few, 0]),
                lambda method=method, few=few: method(network, images[:few], five[:few]),
                rounds=rounds,
            )
            print(f"{timing}   five cost {timing.ratio:.2f}x one, asked at most 3")


def _check(pair: Pair) -> None:
    """The same maps? Asserted in float64. In float32 a rounding can flip a ReLU or a pooling's choice, in any library."""
    if not pair.same:
        return
    ours, peer = pair.ours(), pair.peer()
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


def _captum(method: str, network: Network, images: Tensor, classes: Tensor) -> Pair:
    from captum import attr

    plain = _as_a_user_has_it(network)
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    window = {"sliding_window_shapes": (3, 32, 32), "strides": (3, 16, 16), "baselines": mean}
    peers: dict[str, Callable[[Tensor], Tensor]] = {
        "gradient": lambda x: attr.Saliency(plain).attribute(x, target=classes, abs=False).sum(1),
        "saliency": lambda x: attr.Saliency(plain).attribute(x, target=classes, abs=True).amax(1),
        "gradient-x-input": lambda x: attr.InputXGradient(plain).attribute(x, target=classes).sum(1),
        "guided-backprop": lambda x: attr.GuidedBackprop(plain).attribute(x, target=classes).sum(1),
        "integrated-gradients": lambda x: attr.IntegratedGradients(plain).attribute(x, target=classes).sum(1),
        "occlusion": lambda x: attr.Occlusion(plain).attribute(x, target=classes, **window)[:, 0],
    }
    return Pair(
        f"{network.name} {method} / captum",
        lambda: explain.METHODS[method](network, images, classes).maps,
        lambda: peers[method](images.clone().requires_grad_()).detach().to(images),
        # captum's guided rule knows nn.ReLU only; the ReLU6 of this network get a plain gradient there
        same=not (method == "guided-backprop" and network.name == "efficientnet_lite0"),
    )


def _cam(method: str, network: Network, images: Tensor, classes: Tensor) -> Pair:
    import pytorch_grad_cam as peers
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    plain = _as_a_user_has_it(network)
    layer = network.last_spatial_layer()
    targets = [ClassifierOutputTarget(index) for index in classes.tolist()]
    kind = {"grad-cam": peers.GradCAM, "score-cam": peers.ScoreCAM}[method]
    cam = kind(model=plain, target_layers=[plain.module.get_submodule(layer)])

    def theirs() -> Tensor:
        return torch.from_numpy(cam(input_tensor=images, targets=targets)).to(images)  # type: ignore[arg-type]

    return Pair(
        f"{network.name} {method} / pytorch-grad-cam",
        lambda: _unit(explain.METHODS[method](network, images, classes).maps),
        theirs,
    )


def _unit(maps: Tensor) -> Tensor:
    """Each map from 0 to 1, as pytorch-grad-cam returns them."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


if __name__ == "__main__":
    main()
