"""Transfer learning: accuracy, speed against PyTorch's tutorial, and the lecture's questions.

    python transfer.py accuracy | speed | epoch | questions [--out FOLDER]

Needs `../shared` beside the repository.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import compare
from torch import nn
from torch.nn import functional as F
from tutorial_peer import loaders, train_model

import phosphene
from phosphene import images
from phosphene.memory import keep_memory
from phosphene.models import Network
from phosphene.progress import run
from phosphene.report.learning_plots import depth_plot
from phosphene.training.finetune import FinetuneSettings, finetune
from phosphene.training.folder import Examples, Photo, examples
from phosphene.training.probe import Probe, probe

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NET = "efficientnet_lite0"
SEEDS = range(5)


def read(name: str, seed: int = 0) -> Examples:
    return run(examples(DATA / name, seed=seed))


def mean_of(values: list[float]) -> str:
    return f"{statistics.mean(values):.2%} ({', '.join(f'{value:.1%}' for value in values)})"


# -- accuracy ---------------------------------------------------------------------------------------------------------


def accuracy(settings: FinetuneSettings) -> None:
    """The figures of probe and LP-FT, at the network's own size and a larger one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("hymenoptera", None), ("hymenoptera", 288), ("imagenette160", None)):
            network = phosphene.load(NET, input_size=size)
            found = read(name)
            probes = [run(probe(network, found, seed=seed, folder=Path(folder))) for seed in SEEDS]
            values = [one.chosen.scores.accuracy.mean for one in probes]
            print(f"{name}, probe at {size or 224} px, 5 seeds: {mean_of(values)}", flush=True)
        for size in (None, 288):
            network = phosphene.load(NET, input_size=size)
            found, values = read("hymenoptera"), []
            for seed in SEEDS:
                own = FinetuneSettings(**{**settings.__dict__, "seed": seed})
                values.append(run(finetune(network, found, settings=own, folder=Path(folder))).scores.accuracy.mean)
            print(f"hymenoptera, LP-FT at {size or 224} px, 5 seeds: {mean_of(values)}", flush=True)


# -- speed ------------------------------------------------------------------------------------------------------------


def plain() -> nn.Module:
    """The network as the tutorial takes it: as it was made, with a new last layer."""
    module = phosphene.load(NET).module
    twin: Any = module
    twin.classifier = nn.Linear(twin.classifier.in_features, 2)
    return twin


def speed(epochs: int = 25) -> None:
    """The probe, end to end with nothing kept, against the tutorial's loop with a frozen backbone."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        found = read("hymenoptera")
        made = run(probe(phosphene.load(NET), found, folder=Path(folder)))
        ours = time.perf_counter() - begun
        begun = time.perf_counter()
        run(probe(phosphene.load(NET), read("hymenoptera"), folder=Path(folder)))
        again = time.perf_counter() - begun
    mine = made.chosen.scores.accuracy.mean
    print(f"probe of {len(made.stages)} stages: {mine:.1%} in {ours:.1f} s; again, with kept features, {again:.1f} s")
    torch.manual_seed(0)
    model = plain()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = list(model.classifier.parameters())  # pyright: ignore
    for parameter in head:
        parameter.requires_grad_(True)
    data = loaders(DATA / "hymenoptera", 224, [0.5] * 3, [0.5] * 3, batch=4, workers=2)
    rows, theirs = train_model(model, data, head, epochs, lambda text: print("  tutorial", text, flush=True))
    print(f"tutorial, {epochs} epochs, frozen backbone: last {rows[-1]:.1%}, best {max(rows):.1%}, in {theirs:.1f} s")
    print(f"time: {theirs / ours:.1f} times as long as the probe")


def epoch() -> None:
    """One epoch per image: everything trained, and the last stages only, against the plain loop on the same batches."""
    found, network = read("hymenoptera"), phosphene.load(NET)
    found = Examples(found.folder, found.classes, found.train[::3][:64], found.val[::20], {})
    for layers in ("all", "last:2"):
        settings = FinetuneSettings(layers=layers, start="random", epochs=1, batch=32, warmup=0.0, norms="train")

        def ours(settings: FinetuneSettings = settings) -> None:
            run(finetune(network, found, settings=settings))

        def peer(layers: str = layers) -> None:
            model = plain()
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(
                    layers == "all" or name.startswith(("blocks.6", "conv_head", "bn2", "classifier"))
                )
            data = _tutorial_batches(found, 32)
            optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9)
            model.train()
            for inputs, labels in data:
                optimiser.zero_grad()
                loss = F.cross_entropy(model(inputs), labels)
                loss.backward()
                optimiser.step()

        print(compare(f"one epoch of 64 images, {layers}", ours, peer, rounds=5), flush=True)


class _Files(torch.utils.data.Dataset[Any]):
    def __init__(self, photos: tuple[Photo, ...]) -> None:
        from torchvision import transforms
        from torchvision.datasets.folder import default_loader

        self.photos, self.load = photos, default_loader
        self.change = transforms.Compose(
            [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
             transforms.Normalize([0.5] * 3, [0.5] * 3)]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, place: int) -> Any:
        return self.change(self.load(str(self.photos[place].path))), self.photos[place].label


def _tutorial_batches(found: Examples, batch: int) -> Any:
    return torch.utils.data.DataLoader(_Files(found.train), batch_size=batch, shuffle=True, num_workers=2)


# -- the lecture's questions ------------------------------------------------------------------------------------------


def digits(folder: Path, train: int, val: int) -> Examples:
    """MNIST as photographs: so many of each digit."""
    import gzip

    import numpy as np

    def held(name: str, offset: int) -> Any:
        return np.frombuffer(gzip.decompress((DATA / "mnist" / name).read_bytes()), np.uint8, offset=offset)

    for part, stem, count in (("train", "train", train), ("val", "t10k", val)):
        pixels = held(f"{stem}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = held(f"{stem}-labels-idx1-ubyte.gz", 8)
        for digit in range(10):
            place = folder / part / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            for number in np.flatnonzero(labels == digit)[:count]:
                images.save(images.from_array(pixels[number])[0], place / f"{number:05d}.png")
    return run(examples(folder))


def few(found: Examples, count: int, seed: int = 0) -> Examples:
    """So many photographs of each class to learn from."""
    import random

    kept: list[Photo] = []
    for label in range(len(found.classes)):
        mine = [photo for photo in found.train if photo.label == label]
        random.Random(seed).shuffle(mine)
        kept += mine[:count]
    return Examples(found.folder, found.classes, tuple(kept), found.val, {})


def untrained() -> Network:
    """The same architecture as nobody has trained it, its batch norms' statistics measured on noise-free pictures."""
    import timm

    torch.manual_seed(0)
    module = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    found = read("imagenette160")
    first = phosphene.load(NET)
    pictures = torch.cat([first.preprocess(images.read(photo.path)) for photo in found.train[::30]])
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.momentum = None  # pyright: ignore[reportAttributeAccessIssue]
            child.reset_running_stats()
    module.train()
    with torch.no_grad():
        module((pictures - 0.5) / 0.5)
    return phosphene.load(module.eval(), mean=[0.5] * 3, std=[0.5] * 3, name="untrained")


def depths(found: Probe) -> list[dict[str, Any]]:
    return [
        {
            "layer": one.stage,
            "accuracy": one.scores.facts()["accuracy"],
            "cross_validated": one.linear.accuracy,
        }
        for one in found.stages
    ]


def questions(out: Path) -> None:
    """Are early features generic? Pretrained or random? Few labels or many?"""
    out.mkdir(parents=True, exist_ok=True)
    network = phosphene.load(NET)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        similar, different = read("imagenette160"), digits(folder / "digits", 100, 60)
        ants = read("hymenoptera")
        for name, found in (("imagenette", similar), ("ants and bees", ants), ("digits", different)):
            for kind, net in (("pretrained", network), ("random", untrained())):
                rows = depths(run(probe(net, found, folder=folder)))
                print(
                    f"{name}, {kind}: " + ", ".join(f"{r['layer']} {r['accuracy']['mean']:.1%}" for r in rows),
                    flush=True,
                )
                plot = depth_plot(rows, chance=1 / len(found.classes))
                images.save(plot, out / f"depth-{name.replace(' ', '-')}-{kind}.png")
        for name, found in (("imagenette", similar), ("digits", different)):
            for count in (1, 2, 5, 10, 20, 50, 100):
                values = [
                    run(probe(network, few(found, count, seed), folder=folder)).chosen.scores.accuracy.mean
                    for seed in range(3)
                ]
                print(f"{name}, {count} labels a class: {mean_of(values)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="all", choices=("all", "accuracy", "speed", "epoch", "questions"))
    parser.add_argument("--out", type=Path, default=Path("transfer"))
    parser.add_argument("--epochs", type=int, default=25)
    given = parser.parse_args()
    if not DATA.is_dir():
        print(f"no data at {DATA}: nothing to measure")
        return
    keep_memory()
    if given.what in ("all", "speed"):
        speed(given.epochs)
    if given.what in ("all", "epoch"):
        epoch()
    if given.what in ("all", "accuracy"):
        accuracy(FinetuneSettings())
    if given.what in ("all", "questions"):
        questions(given.out)


if __name__ == "__main__":
    main()
