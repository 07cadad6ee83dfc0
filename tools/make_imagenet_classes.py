"""Write models/data/imagenet_classes.tsv: the index, synset and names of ImageNet's 1,000 classes.

Names come from WordNet's lemmas (as timm carries them) and from torchvision's category list. Run it again
only when either source changes::

    python tools/make_imagenet_classes.py
"""

from __future__ import annotations

from pathlib import Path

import timm
from torchvision.models._meta import _IMAGENET_CATEGORIES

OUTPUT = Path(__file__).parents[1] / "src/phosphene/models/data/imagenet_classes.tsv"
# Where torchvision's name is shared by two classes, or means the other one, a person would say this.
DISPLAY = {
    134: "crane (bird)",
    264: "Cardigan Welsh corgi",
    474: "cardigan (sweater)",
    517: "crane (machine)",
    638: "maillot (tights)",
    639: "maillot (tank suit)",
}


def read_info(file: str) -> list[str]:
    """The lines of one of timm's bundled ImageNet tables."""
    return (Path(timm.__file__).parent / "data/_info" / file).read_text(encoding="utf-8").splitlines()


def names(index: int, category: str, lemmas: str) -> list[str]:
    """The display name of a class, then its other names, without repetition."""
    candidates = [DISPLAY.get(index, category), category, *lemmas.split(", ")]
    unique: dict[str, str] = {}
    for name in candidates:
        unique.setdefault(name.casefold(), name)
    return list(unique.values())


def rows() -> list[str]:
    """One line per class: index, synset and its names, separated by tabs; names separated by `|`."""
    synsets = read_info("imagenet_synsets.txt")
    lemmas = dict(line.split("\t") for line in read_info("imagenet_synset_to_lemma.txt"))
    return [
        f"{index}\t{synset}\t{'|'.join(names(index, category, lemmas[synset]))}"
        for index, (synset, category) in enumerate(zip(synsets, _IMAGENET_CATEGORIES, strict=True))
    ]


if __name__ == "__main__":
    OUTPUT.write_text("\n".join(rows()) + "\n", encoding="utf-8", newline="\n")
