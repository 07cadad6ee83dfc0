"""Neural style: against the package neural-style, against the machine's matrix products, and on three networks.

    python style.py peer [--size 512] [--iterations 500] [--target LOSS --seconds S]
    python style.py speed | memory | tiles | textures | nets [--out FOLDER]

Needs `../shared` beside the repository; `peer` also `pip install --no-deps neural-style`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from harness import compare
from PIL import Image
from torch import Tensor

import phosphene
from phosphene import images
from phosphene.memory import keep_memory
from phosphene.models import Network
from phosphene.progress import Halt, Started, run
from phosphene.synthesize import StyleSettings, Stylization, style, texture
from phosphene.synthesize.gram import moments
from phosphene.synthesize.style_loss import StyleLoss, Targets, Weights, style_energy
from phosphene.synthesize.style_targets import features_of, moments_of

SHARED = Path(__file__).resolve().parents[2] / "shared"
WEIGHTS = SHARED / "weights" / "vgg16_features.safetensors"
CONTENT, STYLE = SHARED / "data" / "art" / "tubingen.jpg", SHARED / "data" / "art" / "starry_night.jpg"
STYLE_LAYERS = ("features.1", "features.6", "features.11", "features.18", "features.25")
CONTENT_LAYER = "features.20"
KINK = 2.0  # of 256: below, |d| is rounded off, which L-BFGS likes better; the loss is never above the one with |d|


def vgg() -> Network:
    return phosphene.load("vgg16", WEIGHTS)


def as_peer(path: Path, size: int) -> Tensor:
    """The pixels that neural-style begins with: sides cut to whole numbers, bilinear, antialiased."""
    picture = Image.open(path).convert("RGB")
    sides = tuple(int(size / max(picture.size) * side) for side in picture.size)
    resized = picture.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    return images.from_array(np.asarray(resized))


def variation(kink: float) -> Callable[[Tensor], Tensor]:
    """neural-style's TV, 1e-3 times the sum of |d| of pixels from 0 to 256, with rounded kinks."""

    def penalty(image: Tensor) -> Tensor:
        rows, columns = 256 * image.diff(dim=2), 256 * image.diff(dim=3)
        if not kink:
            return 1e-3 * (rows.abs().sum() + columns.abs().sum())
        return 1e-3 * ((rows.square() + kink**2).sqrt().sum() + (columns.square() + kink**2).sqrt().sum())

    return penalty


def peers_weights(network: Network, content: Tensor) -> tuple[float, list[float]]:
    """neural-style's weights, 5 for the content and 100 for each style layer, of mean squares, for the papers' sums."""
    places = network.record(content, [CONTENT_LAYER])[CONTENT_LAYER].numel()
    return 5 * 2 / places, [100 * 4 / network.layer(name).shape[0] ** 2 for name in STYLE_LAYERS]


def peers_loss(network: Network, content: Tensor, manner: Tensor, kink: float = 0.0) -> StyleLoss:
    """The loss of neural-style."""
    alpha, shares = peers_weights(network, content)
    weights = Weights({CONTENT_LAYER: alpha}, dict(zip(STYLE_LAYERS, shares, strict=True)), [variation(kink)])
    targets = Targets(
        features_of(network, content, [CONTENT_LAYER], None), moments_of(network, manner, STYLE_LAYERS, None)
    )
    return StyleLoss(network, weights, targets)


def peer(size: int, iterations: int, target: float | None, seconds: float | None) -> None:
    """Seconds to the loss that neural-style has after its iterations, and both peaks of memory."""
    own = [sys.executable, __file__, "ours", "--size", str(size)]
    if target is None or seconds is None:
        command = [sys.executable, "neural_style_peer.py", str(CONTENT), str(STYLE), str(size), str(iterations)]
        with tempfile.TemporaryDirectory() as folder:
            command += [str(WEIGHTS), f"{folder}/out.png"]
            theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        target, seconds = theirs["losses"][-1], theirs["seconds"]
        print(
            f"neural-style: loss {target:,.0f} after {iterations} iterations, {seconds:.1f} s, {theirs['peak']:.0f} MB"
        )
        peak = theirs["peak"]
    else:
        peak = None
    ours = json.loads(
        subprocess.run([*own, "--target", str(target)], check=True, capture_output=True, text=True).stdout.splitlines()[
            -1
        ]
    )
    print(
        f"ours: loss {ours['loss']:,.0f} after {ours['steps']} evaluations, {ours['seconds']:.1f} s, {ours['peak']:.0f} MB"
    )
    print(f"time: {ours['seconds'] / seconds:.2f} of theirs" + (f"; memory: {ours['peak'] / peak:.2f}" if peak else ""))


def ours(size: int, target: float, most: int = 600) -> None:
    """One line of JSON: when the loss was reached, counted from where the pictures are read."""
    begun = time.perf_counter()
    network = vgg()
    content, manner = as_peer(CONTENT, size), as_peer(STYLE, size)
    alpha, shares = peers_weights(network, content)
    settings = StyleSettings(
        alpha, 1.0, (CONTENT_LAYER,), STYLE_LAYERS, shares, raw=True, canvas="pixel", steps=most, scales=1, history=30
    )
    job = style(network, content, [manner], settings=settings, penalties=[variation(KINK)])
    event, steps, loss = next(job), 0, float("inf")
    try:
        while True:
            if not isinstance(event, Started):
                steps, loss = event.done, event.loss or loss  # pyright: ignore[reportAttributeAccessIssue]
            if loss <= target:
                seconds = time.perf_counter() - begun
                event = job.throw(Halt())
            else:
                event = next(job)
    except StopIteration as end:
        found: Stylization = end.value
    seconds = locals().get("seconds", time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    clipped = peers_loss(network, content, manner)(found.image).total  # neural-style's losses are of unclipped pixels
    print(json.dumps({"loss": loss, "clipped": clipped, "steps": steps, "seconds": seconds, "peak": peak}))


def speed(height: int = 384, width: int = 512) -> None:
    """The VGG-16 loss and gradient as arithmetic per second, beside the machine's matrix product."""
    network = vgg()
    loss = peers_loss(network, torch.rand(1, 3, height, width), torch.rand(1, 3, height, width))
    picture = torch.rand(1, 3, height, width)
    one, other = torch.randn(2048, 2048), torch.randn(2048, 2048)
    work = 2 * _multiplications(network, height, width) * 2  # a multiplication and an addition, there and back
    product = 2 * 2048**3
    timing = compare("loss and gradient, matrix product of 2048", lambda: loss(picture), lambda: one @ other, rounds=7)
    mine, theirs = work / timing.ours / 1e9, product / timing.peer / 1e9
    print(f"loss and gradient of VGG-16 at {width} x {height}: {timing.ours:.3f} s, {work / 1e9:.0f} GFLOP as written")
    print(f"{mine:.0f} GFLOP/s beside {theirs:.0f} of the matrix product: {mine / theirs:.0%}")
    plain = StyleLoss(network, loss.weights, loss.targets)
    plain._read = network.reader(loss.weights.layers)
    print(compare("Winograd, plain convolutions", lambda: loss(picture), lambda: plain(picture), rounds=5))
    a, b = loss(picture), plain(picture)
    print(f"gradients differ by {float((a.gradient - b.gradient).norm() / b.gradient.norm()):.1e}")


def _multiplications(network: Network, height: int, width: int) -> int:
    """Of the convolutions up to the deepest layer of the loss."""
    total = 0
    area = height * width
    known = {layer.name: layer for layer in network.layers()}
    for name, layer in known.items():
        if layer.kind == "Conv2d" and int(name.split(".")[1]) <= 25:
            side = 224 // layer.shape[1]
            total += layer.parameters * (area // side**2)
    return total


def tiles(size: int = 512) -> None:
    """Blocks against the whole, and a large picture's memory."""
    network = vgg()
    content, manner = as_peer(CONTENT, size), as_peer(STYLE, size)
    whole = peers_loss(network, content, manner)
    parts = StyleLoss(network, whole.weights, whole.targets, block=256)
    picture = (content + 0.1 * torch.randn(content.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    a, b = whole(picture), parts(picture)
    print(f"loss {a.total:.6g} whole, {b.total:.6g} in blocks: {abs(a.total - b.total) / a.total:.1e} of it")
    print(f"gradient: {float((a.gradient - b.gradient).norm() / a.gradient.norm()):.1e} of its norm")
    for block in (None, 256):
        settings = StyleSettings(steps=20, scales=2, canvas="pixel", block=block or 0)
        found = run(style(network, content, [manner], settings=settings))
        print(f"block {block}: loss {found.totals[-1][-1]:.6g}")


def memory(width: int = 3000, height: int = 2000, steps: int = 2) -> None:
    """Peak memory of a large picture."""
    network = vgg()
    photo = images.resize(images.read(CONTENT), (height, width))
    settings = StyleSettings(steps=steps, scales=1)
    begun = time.perf_counter()
    found = run(style(network, photo, [images.read(STYLE)], settings=settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{width} x {height}, blocks of {found.block}: {peak:.2f} GiB, {(time.perf_counter() - begun) / steps:.0f} s a step"
    )


def textures(net: str) -> None:
    """E_l of brick, grass and gravel as shares of those of noise."""
    from skimage import data

    network = vgg() if net == "vgg16" else phosphene.load(net)
    for name in ("brick", "grass", "gravel"):
        sample = images.resize(images.from_array(getattr(data, name)()), 256)
        begun = time.perf_counter()
        found = run(texture(network, sample, settings=StyleSettings(steps=300, scales=1)))
        shares = {layer: value / found.reference.style[layer] for layer, value in found.end.style.items()}
        told = "  ".join(f"{layer} {share:.3%}" for layer, share in shares.items())
        print(f"{net} {name}: {told}  ({time.perf_counter() - begun:.0f} s)")


def nets(out: Path, size: int) -> None:
    """The same picture by three networks, with the VGG-16 style loss of each."""
    out.mkdir(parents=True, exist_ok=True)
    judge = vgg()
    content, manner = as_peer(CONTENT, size), as_peer(STYLE, size)
    wanted = moments_of(judge, manner, STYLE_LAYERS, None)
    first = _vgg_style(judge, content, wanted)
    print(f"photograph: VGG-16 style loss {first:.4g}")
    for net in ("squeezenet1_1", "efficientnet_lite0", "vgg16"):
        network = judge if net == "vgg16" else phosphene.load(net)
        begun = time.perf_counter()
        found = run(style(network, content, [manner]))
        seconds = time.perf_counter() - begun
        images.save(found.image[0], out / f"{net}.png", overwrite=True)
        loss = _vgg_style(judge, found.image, wanted)
        print(f"{net}: {seconds:.1f} s, VGG-16 style loss {loss:.4g}, {loss / first:.2%} of the photograph's")


def _vgg_style(judge: Network, image: Tensor, wanted: dict[str, Tensor]) -> float:
    """sum_l E_l / 5."""
    found = judge.record(image, STYLE_LAYERS)
    return statistics.fmean(float(style_energy(moments(found[name]), wanted[name])) for name in STYLE_LAYERS)


def main() -> None:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("what", nargs="?", default="all")
    reader.add_argument("--size", type=int, default=512)
    reader.add_argument("--iterations", type=int, default=500)
    reader.add_argument("--target", type=float)
    reader.add_argument("--seconds", type=float)
    reader.add_argument("--net", default="vgg16")
    reader.add_argument("--out", type=Path, default=Path("styles"))
    given = reader.parse_args()
    keep_memory()
    if given.what == "ours":
        ours(given.size, given.target)
    if given.what in ("all", "speed"):
        speed()
    if given.what in ("all", "tiles"):
        tiles(given.size)
    if given.what == "memory":
        memory()
    if given.what in ("all", "textures"):
        textures(given.net)
    if given.what in ("all", "nets"):
        nets(given.out, given.size)
    if given.what in ("all", "peer"):
        peer(given.size, given.iterations, given.target, given.seconds)


if __name__ == "__main__":
    main()
