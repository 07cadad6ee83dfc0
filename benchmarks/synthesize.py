"""Pictures by gradient ascent, held against lucent: steps per second, and whether another network sees the class in them.

python benchmarks/synthesize.py speed             steps per second for a channel of a middle layer; sixteen as one batch
python benchmarks/synthesize.py classes [--classes 100] [--lucent 20] [--out FOLDER]
python benchmarks/synthesize.py invert [--photos 10] FOLDER   relative errors and recognition, layer by layer
python benchmarks/synthesize.py dream             seconds for 1024 x 768; memory for 4000 x 3000

lucent: pip install kornia decorator ipython && pip install --no-deps torch-lucent
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from harness import compare
from torch import Tensor

import phosphene
from phosphene import images, observe, synthesize
from phosphene.memory import give_back, keep_memory
from phosphene.models import Network, Unit
from phosphene.progress import run
from phosphene.synthesize import Settings

NETS = ("squeezenet1_1", "efficientnet_lite0")
MIDDLE = {"squeezenet1_1": "features.7", "efficientnet_lite0": "blocks.3.2"}
SIZE = 224


def speed(steps: int = 50) -> None:
    """One channel of a middle layer: ours over lucent; and sixteen channels as one batch over sixteen runs."""
    import lucent_peer

    objectives = lucent_peer.prepared()[2]
    for net in NETS:
        network, layer = phosphene.load(net, device="cpu"), MIDDLE[net]
        settings = Settings(steps=steps)

        def ours(network: Network = network, layer: str = layer, settings: Settings = settings) -> None:
            run(synthesize.visualize(network, [Unit(layer, 7)], settings=settings))

        for frozen in (False, True):

            def theirs(network: Network = network, layer: str = layer, frozen: bool = frozen) -> None:
                objective = objectives.channel(layer.replace(".", "_"), 7)
                lucent_peer.render(network, [objective], steps=steps, size=SIZE, frozen=frozen)

            how = "lucent with frozen weights" if frozen else "lucent as documented"
            found = compare(f"{net} {layer}, {steps} steps, {how}", ours, theirs, rounds=5)
            print(found, f"  {steps / found.ours:.1f} against {steps / found.peer:.1f} steps/s", flush=True)

        units = [Unit(layer, channel) for channel in range(16)]

        def batch(network: Network = network, units: list[Unit] = units, settings: Settings = settings) -> None:
            run(synthesize.visualize(network, units, settings=settings))

        def each(network: Network = network, units: list[Unit] = units, settings: Settings = settings) -> None:
            for unit in units:
                run(synthesize.visualize(network, [unit], settings=settings))

        print(compare(f"{net} sixteen channels, one batch over runs", batch, each, rounds=3))
        # Adam's first steps take rounding errors for directions, so pixels differ where nothing depends on them.
        together = run(synthesize.visualize(network, units, settings=settings)).scores
        alone = torch.cat([run(synthesize.visualize(network, [unit], settings=settings)).scores for unit in units])
        torch.testing.assert_close(together, alone, rtol=0.05, atol=1e-3, msg="the batch gives other pictures")


def classes(count: int, peer_count: int, folder: Path | None, only: str | None) -> None:
    """Class images of each net, judged by itself and by the other, beside lucent's defaults at the same time per picture."""
    for net, other in zip(NETS, reversed(NETS), strict=True):
        if only not in (None, net):
            continue
        network, judge = phosphene.load(net, device="cpu"), phosphene.load(other, device="cpu")
        wanted = [place * 1000 // count for place in range(count)]
        begun = time.perf_counter()
        found = run(synthesize.visualize(network, wanted, settings=Settings()))
        seconds = (time.perf_counter() - begun) / count
        _said(f"{net}, ours, {seconds:.1f} s each", network, judge, found.images, wanted, folder)
        if peer_count:
            part = wanted[:: max(1, count // peer_count)]
            _peer(network, judge, part, seconds, folder)


def _peer(network: Network, judge: Network, wanted: list[int], seconds: float, folder: Path | None) -> None:
    """lucent, with as many steps as fit into the same seconds."""
    import lucent_peer

    objectives = lucent_peer.prepared()[2]
    top = next(layer.name for layer in reversed(network.layers()) if layer.shape[:1] == (len(network.labels),))
    targets = [objectives.channel(top.replace(".", "_"), index) for index in wanted]
    begun = time.perf_counter()
    lucent_peer.render(network, targets[:1], steps=10, size=SIZE)
    begun = time.perf_counter()
    lucent_peer.render(network, targets[:1], steps=20, size=SIZE)
    steps = max(10, round(seconds / ((time.perf_counter() - begun) / 20)))
    begun = time.perf_counter()
    made = lucent_peer.render(network, targets, steps=steps, size=SIZE)
    each = (time.perf_counter() - begun) / len(wanted)
    _said(f"{network.name}, lucent, {steps} steps, {each:.1f} s each", network, judge, made, wanted, folder)


def _said(name: str, network: Network, judge: Network, made: Tensor, wanted: list[int], folder: Path | None) -> None:
    own, _ = _hits(network, made, wanted)
    first, five = _hits(judge, made, wanted)
    print(
        f"{name}: own top-1 {own:.0%}; {judge.name} top-1 {first:.0%}, top-5 {five:.0%} ({len(wanted)} classes)",
        flush=True,
    )
    if folder is not None:
        panels = [images.Panel(image, network.labels[index]) for image, index in zip(made, wanted, strict=True)]
        sheet = images.sheet(panels, columns=10, side=160)
        images.save(sheet, folder / f"{name.split(',')[0]}-{name.split(',')[1].strip()}.png", overwrite=True)


def _hits(network: Network, made: Tensor, wanted: list[int]) -> tuple[float, float]:
    """Top-1 and top-5."""
    with torch.no_grad():
        top = torch.cat([network.logits(part) for part in network.split(made)]).topk(5).indices
    hit = top == torch.tensor(wanted)[:, None]
    return float(hit[:, 0].float().mean()), float(hit.any(1).float().mean())


def invert(folder: Path, count: int, nets: list[str], only: list[str]) -> None:
    """Relative error and recognition of each landmark layer, on photographs of a folder."""
    paths = images.find(folder)
    paths = [paths[place * len(paths) // count] for place in range(count)]
    judge = phosphene.load("efficientnet_lite0", device="cpu")
    for net in nets:
        network = phosphene.load(net, device="cpu")
        sees = network if network.classifies else judge
        photos = torch.cat([network.preprocess(images.read(path)) for path in paths])
        own = [found.indices[0] for found in sees.predict(photos)]
        layers = observe.landmarks(network)
        for place, layer in enumerate(layers):
            if only and layer not in only:
                continue
            begun = time.perf_counter()
            found = run(synthesize.invert(network, photos, layer))
            seen = [prediction.indices[0] for prediction in sees.predict(found.images)]
            same = sum(a == b for a, b in zip(seen, own, strict=True))
            third = 1 + 3 * place // len(layers)
            print(
                f"{net} {layer:<14} third {third}: error median {float(found.errors.median()):.4f}, mean"
                f" {float(found.errors.mean()):.4f}, largest {float(found.errors.max()):.4f}; {sees.name} recognises"
                f" {same} of {count}; {(time.perf_counter() - begun) / count:.1f} s each",
                flush=True,
            )


def dream() -> None:
    """Seconds of a 1024 x 768 photograph, and the memory that one of 12 megapixels takes."""
    give_back()  # as the command does
    network = phosphene.load("efficientnet_lite0", device="cpu")
    settings = synthesize.DreamSettings(octaves=4, steps=10)
    layers = {"blocks.4.2": ()}
    photo = _photo(768, 1024)
    run(synthesize.dream(network, photo[..., :256, :256], layers, settings=settings))
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        run(synthesize.dream(network, photo, layers, settings=settings))
        times.append(time.perf_counter() - begun)
    print(f"1024 x 768, 4 octaves of 10 steps, efficientnet_lite0: {statistics.median(times):.1f} s")
    begun = time.perf_counter()
    large = run(synthesize.dream(network, _photo(3000, 4000), layers, settings=settings))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    assert tuple(large.image.shape) == (1, 3, 3000, 4000)
    print(f"4000 x 3000: {time.perf_counter() - begun:.0f} s, the whole process {peak:.2f} GiB at most")


def _photo(height: int, width: int) -> Tensor:
    """scikit-image's astronaut, enlarged."""
    from skimage import data

    photo = torch.from_numpy(np.ascontiguousarray(data.astronaut())).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(photo, (height, width), mode="bilinear")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", default="all", choices=["all", "speed", "classes", "invert", "dream"])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--lucent", type=int, default=20)
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--nets", default="squeezenet1_1,vgg16", help="of the inversions")
    parser.add_argument("--layers", default="", help="of the inversions; default: all landmarks")
    parser.add_argument("--only", choices=NETS, help="class images of this network alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_memory()  # as the command line does, for ours and the peer
    if options.part in ("all", "speed"):
        speed()
    if options.part in ("all", "classes"):
        classes(options.classes, options.lucent, options.out, options.only)
    if options.part == "invert" or (options.part == "all" and options.folder):
        if options.folder is None:
            parser.error("invert needs a folder of photographs")
        invert(
            options.folder, options.photos, options.nets.split(","), options.layers.split(",") if options.layers else []
        )
    if options.part in ("all", "dream"):
        dream()


if __name__ == "__main__":
    main()
