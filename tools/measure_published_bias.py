"""Write observe/data/geirhos16.tsv and published_bias.tsv: the 16 categories, and who decided how for cue-conflict images.

Both are counted from a clone of https://github.com/rgeirhos/texture-vs-shape::

    git clone https://github.com/rgeirhos/texture-vs-shape
    python tools/measure_published_bias.py texture-vs-shape

Geirhos, Rubisch, Michaelis, Bethge, Wichmann & Brendel, "ImageNet-trained CNNs are biased towards texture; increasing shape
bias improves accuracy and robustness", ICLR 2019. Images whose shape and texture are of one category are left out.
"""

from __future__ import annotations

import argparse
import ast
import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from phosphene.models import Labels
from phosphene.observe.shape_bias import parse_cues

DATA = Path(__file__).parents[1] / "src/phosphene/observe/data"
CREDIT = "Counted from https://github.com/rgeirhos/texture-vs-shape, ICLR 2019; tools/measure_published_bias.py"
_EXPERIMENT = "style-transfer-512-nomask-experiment"
_PAPER, _OTHERS = f"raw-data/{_EXPERIMENT}", f"raw-data/{_EXPERIMENT}-trained-CNNs"
_SIN = "on Stylized-ImageNet"
NETWORKS = {  # name -> title, file; which framework: the repository's README
    "alexnet-caffe": ("AlexNet (Caffe)", f"{_PAPER}/{_EXPERIMENT}_alexnet_session_1.csv"),
    "googlenet-caffe": ("GoogLeNet (Caffe)", f"{_PAPER}/{_EXPERIMENT}_googlenet_session_1.csv"),
    "vgg16-caffe": ("VGG-16 (Caffe)", f"{_PAPER}/{_EXPERIMENT}_vgg_session_1.csv"),
    "resnet50": ("ResNet-50", f"{_OTHERS}/{_EXPERIMENT}_resnet50_session-1.csv"),
    "resnet101": ("ResNet-101", f"{_OTHERS}/{_EXPERIMENT}_resnet101_session-1.csv"),
    "resnet152": ("ResNet-152", f"{_OTHERS}/{_EXPERIMENT}_resnet152_session-1.csv"),
    "alexnet": ("AlexNet (torchvision)", f"{_OTHERS}/{_EXPERIMENT}_alexnet_session-1.csv"),
    "vgg16": ("VGG-16 (torchvision)", f"{_OTHERS}/{_EXPERIMENT}_vgg16_session-1.csv"),
    "densenet121": ("DenseNet-121", f"{_OTHERS}/{_EXPERIMENT}_densenet121_session-1.csv"),
    "squeezenet1_1": ("SqueezeNet 1.1", f"{_OTHERS}/{_EXPERIMENT}_squeezenet1_1_session-1.csv"),
    "resnet101-openimages": ("ResNet-101 on Open Images", f"{_OTHERS}/{_EXPERIMENT}_oidv2-resnet101_session-1.csv"),
    "resnet50-sin": (f"ResNet-50 {_SIN}", f"{_OTHERS}/{_EXPERIMENT}_resnet50_train_60_epochs_session-1.csv"),
    "densenet121-sin": (f"DenseNet-121 {_SIN}", f"{_OTHERS}/{_EXPERIMENT}_densenet121_train_60_epochs_session-1.csv"),
    "alexnet-sin": (f"AlexNet {_SIN}", f"{_OTHERS}/{_EXPERIMENT}_alexnet_train_60_epochs_lr0.001_session-1.csv"),
    "vgg16-sin": (f"VGG-16 {_SIN}", f"{_OTHERS}/{_EXPERIMENT}_vgg16_train_60_epochs_lr0.01_session-1.csv"),
    "squeezenet1_1-sin": (
        f"SqueezeNet 1.1 {_SIN}",
        f"{_OTHERS}/{_EXPERIMENT}_squeezenet1_1_train_60_epochs_lr0.001_session-1.csv",
    ),
}
SUBJECTS = [f"subject-{number:02d}" for number in range(1, 11)]


@dataclass(frozen=True)
class Row:
    """An observer: `counts[category]` holds how many decisions were for `shape`, for `texture`, of how many `images`."""

    name: str
    title: str
    kind: str
    source: str
    counts: Mapping[str, Counter[str]]


def categories(clone: Path) -> dict[str, list[str]]:
    """Category -> the synsets of ImageNet's 1,000 classes in it, by class index; the lists name others, too."""
    tree = ast.parse((clone / "code/helper/human_categories.py").read_text(encoding="utf-8"))
    body = next(node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "HumanCategories")
    lists = {
        part.targets[0].id: ast.literal_eval(part.value)
        for part in body
        if isinstance(part, ast.Assign) and isinstance(part.targets[0], ast.Name)
    }
    labels = Labels.imagenet()
    places = {str(labels.synset(index)): index for index in range(len(labels))}
    found: dict[str, list[str]] = {}
    for name in sorted(name for name in lists if not name.endswith("_indices")):
        kept: list[str] = sorted(
            (synset for synset in lists[name] if synset in places), key=lambda synset: places[synset]
        )
        if [places[synset] for synset in kept] != sorted(lists[f"{name}_indices"]):
            raise SystemExit(f"the synsets of '{name}' are not the classes that the repository lists by index")
        found[name] = kept
    return found


def counts(files: Iterable[Path]) -> dict[str, Counter[str]]:
    """Decisions by shape category, over images whose cues differ."""
    found: dict[str, Counter[str]] = {}
    for file in files:
        with open(file, newline="", encoding="utf-8") as lines:
            for line in csv.DictReader(lines):
                cues = parse_cues(line["imagename"].rpartition("_")[2])
                if cues is None or cues.shape != line["category"]:
                    raise SystemExit(f"{file}: '{line['imagename']}' does not show a {line['category']}")
                if cues.shape == cues.texture:
                    continue
                own = found.setdefault(cues.shape, Counter())
                own["images"] += 1
                own["shape"] += line["object_response"] == cues.shape
                own["texture"] += line["object_response"] == cues.texture
    return found


def observers(clone: Path) -> list[Row]:
    """All people as one, each of them, and each network."""
    people = {name: f"{_PAPER}/{_EXPERIMENT}_{name}_session_1.csv" for name in SUBJECTS}
    together = counts(clone / file for file in people.values())
    rows = [Row("humans", "Humans", "human", f"{_PAPER}/{_EXPERIMENT}_subject-*_session_1.csv", together)]
    for name, file in people.items():
        rows.append(Row(name, name.replace("subject-", "Human "), "human", file, counts([clone / file])))
    for name, (title, file) in NETWORKS.items():
        rows.append(Row(name, title, "network", file, counts([clone / file])))
    return rows


def table(rows: Iterable[Row], names: list[str]) -> list[str]:
    """One line for each observer: totals, then `shape/texture/images` for each shape category."""
    lines = ["\t".join(["name", "title", "kind", "images", "shape", "texture", "shape_bias", *names, "source"])]
    for row in rows:
        images, shape, texture = (
            sum(own[key] for own in row.counts.values()) for key in ("images", "shape", "texture")
        )
        cells = [f"{row.counts[n]['shape']}/{row.counts[n]['texture']}/{row.counts[n]['images']}" for n in names]
        totals = [str(images), str(shape), str(texture), f"{shape / (shape + texture):.4f}"]
        lines.append("\t".join([row.name, row.title, row.kind, *totals, *cells, row.source]))
    return lines


def _write(name: str, lines: list[str]) -> None:
    text = "\n".join([f"# {CREDIT}", *lines]) + "\n"
    (DATA / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Count published shape and texture decisions.")
    parser.add_argument("clone", type=Path, help="a clone of rgeirhos/texture-vs-shape")
    folder = parser.parse_args().clone
    found = categories(folder)
    _write("geirhos16.tsv", [f"{name}\t{' '.join(synsets)}" for name, synsets in found.items()])
    _write("published_bias.tsv", table(observers(folder), list(found)))
