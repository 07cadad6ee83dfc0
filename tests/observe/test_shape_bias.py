"""Shape or texture: the 16 categories, the decision rule, names, counts, intervals, and the published figures."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image
from torch import Tensor, nn

from phosphene import observe
from phosphene.errors import ImageError, NetworkError, PhospheneError
from phosphene.images import find, read
from phosphene.models import Labels, Network, Preprocess
from phosphene.observe.categories16 import CATEGORIES, category_classes, synsets
from phosphene.observe.shape_bias import (
    Cues,
    Decision,
    Published,
    ShapeBias,
    Tally,
    decide,
    parse_cues,
    people,
    published,
    read_cues,
    shape_bias,
    wilson,
)
from phosphene.progress import Event, Step, run

SIZES = {
    "airplane": 1, "bear": 4, "bicycle": 2, "bird": 49, "boat": 5, "bottle": 7, "car": 3, "cat": 6, "chair": 4, "clock": 3,
    "dog": 109, "elephant": 2, "keyboard": 2, "knife": 1, "oven": 1, "truck": 8,
}  # fmt: skip
COLOURS = {281: (9.0, 0.0, 0.0), 817: (0.0, 9.0, 0.0), 499: (0.0, 0.0, 9.0)}  # tabby, sports car, letter opener
RED, GREEN, BLUE = torch.eye(3)[:, :, None, None].expand(3, 3, 8, 8)


class Mean(nn.Module):
    """Logits from the mean colour: a red image is a cat, a green one a car, a blue one a knife."""

    def __init__(self, order: Sequence[int] = range(1000)) -> None:
        super().__init__()
        self.last = nn.Linear(3, 1000, bias=False)
        with torch.no_grad():
            self.last.weight.zero_()
            for place, index in enumerate(order):
                if index in COLOURS:
                    self.last.weight[place] = torch.tensor(COLOURS[index])

    def forward(self, images: Tensor) -> Tensor:
        return self.last(images.mean((2, 3)))


def network_of(module: nn.Module, labels: Labels | None) -> Network:
    return Network(module, name="mine", labels=labels, preprocess=Preprocess((8, 8), 8), mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def colours() -> Network:
    return network_of(Mean(), Labels.imagenet())


@pytest.fixture
def classes(colours: Network) -> dict[str, list[int]]:
    return category_classes(colours)


# -- the categories -----------------------------------------------------------------------------------------------------


def test_categories_are_the_207_classes_of_the_reference(classes: dict[str, list[int]]) -> None:
    assert list(classes) == sorted(CATEGORIES) and {name: len(found) for name, found in classes.items()} == SIZES
    every = [index for found in classes.values() for index in found]
    assert len(every) == len(set(every)) == 207
    assert classes["truck"] == [555, 569, 656, 675, 717, 734, 864, 867] and classes["chair"] == [423, 559, 765, 857]
    assert classes["bear"] == [294, 295, 296, 297] and classes["cat"] == [281, 282, 283, 284, 285, 286]
    assert {151, 192, 204, 227, 242, 251, 258, 260, 264}.isdisjoint(classes["dog"])  # nor does the reference have them


def test_classes_are_found_by_synset_in_any_order(colours: Network) -> None:
    order = torch.randperm(1000).tolist()
    known = Labels.imagenet()
    moved = Labels([known[i] for i in order], [str(known.synset(i)) for i in order])
    other = network_of(Mean(order), moved)
    assert [order[place] for place in category_classes(other)["clock"]] == [409, 530, 892]
    pictures = [RED, GREEN, BLUE]
    names = ["cat1-car1.png", "cat2-car1.png", "cat3-knife2.png"]
    assert run(shape_bias(other, pictures, names)).decisions == run(shape_bias(colours, pictures, names)).decisions


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Labels.generic(1000), "1,000 classes, and mine has others: classes of a labels file"),
        (Labels.generic(10), "1,000 classes, and mine has 10 others"),
        (None, "shape bias needs a network that classifies"),
    ],
)
def test_other_classes_are_refused(labels: Labels | None, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        run(shape_bias(network_of(Mean(), labels), [RED], ["cat1-car1.png"]))


# -- the decision -------------------------------------------------------------------------------------------------------


def test_aggregations_decide_differently(classes: dict[str, list[int]]) -> None:
    probabilities = torch.zeros(1, 1000)
    probabilities[0, classes["dog"]] = 0.004  # 0.436 together
    probabilities[0, classes["cat"][0]] = 0.2  # 0.033 on average
    probabilities[0, classes["knife"]] = 0.1
    assert decide(probabilities, classes) == decide(probabilities, classes, "mean") == ["knife"]
    assert decide(probabilities, classes, "sum") == ["dog"] and decide(probabilities, classes, "max") == ["cat"]


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
def test_of_equals_the_first_in_the_alphabet_is_chosen(classes: dict[str, list[int]], aggregate: str) -> None:
    probabilities = torch.zeros(3, 1000)
    probabilities[1, [766, 499]] = 0.25  # oven, knife
    probabilities[2, [386, 385, 508, 878]] = 0.125  # elephants, keyboards
    backwards = dict(reversed(classes.items()))
    for given in (classes, backwards):
        assert decide(probabilities, given, aggregate) == ["airplane", "knife", "elephant"]


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
def test_decisions_are_those_of_the_loop(classes: dict[str, list[int]], aggregate: str) -> None:
    probabilities = torch.rand(200, 1000, dtype=torch.float64).pow(8)
    for row, name in enumerate(CATEGORIES * 12):  # else the 109 dogs would have nearly every sum
        probabilities[row, classes[name]] *= 1 + 30 * torch.rand(()).item()
    probabilities /= probabilities.sum(1, keepdim=True)
    wanted = [loop(row, classes, getattr(np, aggregate)) for row in probabilities.numpy()]
    assert decide(probabilities, classes, aggregate) == wanted and len(set(wanted)) > 8


def loop(row: np.ndarray, classes: dict[str, list[int]], together: Any) -> str:
    """The rule as it is described: the categories in alphabetical order, and a later one has to be larger."""
    best, choice = -np.inf, ""
    for name in sorted(classes):
        value = together(row[classes[name]])
        if value > best:
            best, choice = value, name
    return choice


def test_an_unknown_aggregation(colours: Network, classes: dict[str, list[int]]) -> None:
    with pytest.raises(PhospheneError, match="aggregated by 'median': give mean, sum, max"):
        decide(torch.zeros(1, 1000), classes, "median")
    with pytest.raises(PhospheneError, match="median"):
        run(shape_bias(colours, [RED], ["cat1-car1.png"], aggregate="median"))


# -- names --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "texture"),
    [
        ("cat1-car3.png", "cat", "car"),
        ("elephant10-bear2.JPG", "elephant", "bear"),
        ("folder/oven3-oven1.webp", "oven", "oven"),
    ],
)
def test_names(name: str, shape: str, texture: str) -> None:
    found = parse_cues(name)
    assert found == Cues(shape, texture) and Cues(shape, texture).conflict == (shape != texture)


@pytest.mark.parametrize(
    "name",
    ["cat.png", "cat1.png", "cat1-car.png", "cat-car1.png", "cat1-lion1.png", "Cat1-car1.png", "cat1-car1-2.png",
     "cat1_car1.png", "xcat1-car1.png", "cat1-car1 (copy).png", "cat١-car1.png", ""],
)  # fmt: skip
def test_names_that_tell_nothing(name: str) -> None:
    assert parse_cues(name) is None


def test_bad_names_are_listed_before_an_image_is_read(colours: Network) -> None:
    names = [f"photo{place}.jpg" for place in range(8)] + ["cat1-car1.png"]
    with pytest.raises(
        ImageError, match=r"8 of 9 file names .* photo0.jpg, .*, photo4.jpg and 3 more; the categories are"
    ):
        run(shape_bias(colours, Unreadable(9), names))
    with pytest.raises(ImageError, match=r"1 of 2 .*: a.png; the categories"):
        read_cues(["a.png", "cat1-car1.png"])


def test_cues_that_all_agree(colours: Network) -> None:
    with pytest.raises(ImageError, match="in none of the 2 images do shape and texture differ"):
        run(shape_bias(colours, [RED, GREEN], ["cat1-cat2.png", "dog1-dog3.png"]))


# -- counts -------------------------------------------------------------------------------------------------------------


class Unreadable:
    """Images of which some can't be read: those that are not given."""

    def __init__(self, count: int, **images: Tensor) -> None:
        self.count, self.images = count, {int(name[1:]): image for name, image in images.items()}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Tensor:
        if place not in self.images:
            raise ImageError(f"image {place} is torn")
        return self.images[place]


def test_counts(colours: Network) -> None:
    shown = {
        "cat1-car1.png": RED, "cat1-car2.png": GREEN, "cat2-dog1.png": GREEN, "cat3-cat1.png": RED, "knife1-car1.png": BLUE,
        "dog1-cat1.png": RED, "car1-car2.png": BLUE, "knife1-cat1.png": BLUE, "dog4-oven1.png": RED,
    }  # fmt: skip
    events: list[Event] = []
    found = run(shape_bias(colours, list(shown.values()), list(shown)), events.append)
    assert [made.image for made in found.decisions] == list(shown)
    assert [made.category for made in found.decisions] == [
        "cat",
        "car",
        "car",
        "cat",
        "knife",
        "cat",
        "knife",
        "knife",
        "cat",
    ]
    followed = ["shape", "texture", "neither", "shape", "shape", "texture", "neither", "shape", "neither"]
    assert [made.by for made in found.decisions] == followed
    assert found.by_shape == {"cat": Tally(1, 1, 3), "dog": Tally(0, 1, 2), "knife": Tally(2, 0, 2)}
    assert list(found.by_shape) == ["cat", "dog", "knife"] and found.agreeing == 2
    assert found.total == Tally(3, 2, 7) and found.total.neither == 2
    bias = found.total.bias
    assert bias is not None and (bias.mean, bias.count) == (0.6, 5) and 0 < bias.low < 0.6 < bias.high < 1
    assert [event.done for event in events if isinstance(event, Step)] == [8, 9]


def test_no_decision_by_either_cue_is_no_bias(colours: Network) -> None:
    found = run(shape_bias(colours, [BLUE, BLUE], ["cat1-car1.png", "cat1-dog1.png"]))
    assert found.total == Tally(0, 0, 2) and found.total.bias is None


def test_images_that_can_not_be_read_are_left_out(colours: Network) -> None:
    names = ["cat1-car1.png", "cat1-dog1.png", "cat1-cat1.png"]
    found = run(shape_bias(colours, Unreadable(3, _1=RED), names))
    assert [made.image for made in found.decisions] == ["cat1-dog1.png"] and found.total == Tally(1, 0, 1)
    assert found.skipped == {0: "image 0 is torn", 2: "image 2 is torn"}
    with pytest.raises(ImageError, match="no image whose cues differ can be read: image 0 is torn"):
        run(shape_bias(colours, Unreadable(3, _2=RED), names))


def test_nan_is_refused() -> None:
    module = Mean()
    module.last.weight.data[3] = float("nan")
    with pytest.raises(NetworkError, match="NaN or infinity"):
        run(shape_bias(network_of(module, Labels.imagenet()), [RED], ["cat1-car1.png"]))


# -- intervals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (1, 1), (0, 10), (10, 10), (5, 10), (283, 659), (1, 1000)])
def test_wilson_is_scipys(successes: int, count: int) -> None:
    found = wilson(successes, count)
    wanted = scipy.stats.binomtest(successes, count).proportion_ci(0.95, method="wilson")
    assert (found.mean, found.count) == (successes / count, count)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert 0 <= found.low <= found.mean <= found.high <= 1 and found.high - found.low > 0.001
    wide = wilson(successes, count, level=0.99)
    assert wide.low <= found.low and wide.high >= found.high


@pytest.mark.parametrize(("successes", "count", "level"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_no_interval(successes: int, count: int, level: float) -> None:
    with pytest.raises(PhospheneError, match="no interval"):
        wilson(successes, count, level=level)


# -- what was published -------------------------------------------------------------------------------------------------


@pytest.fixture
def known() -> dict[str, Published]:
    return {one.name: one for one in published()}


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("alexnet-caffe", 42.9), ("vgg16-caffe", 17.2), ("googlenet-caffe", 31.2), ("resnet50", 22.1), ("humans", 95.9),
        ("alexnet", 25.3), ("vgg16", 9.2), ("resnet50-sin", 80.6), ("squeezenet1_1", 18.2),
    ],
)  # fmt: skip
def test_published_figures_are_the_papers(known: dict[str, Published], name: str, percent: float) -> None:
    """The first five and ResNet-50 on Stylized-ImageNet: paper; torchvision's AlexNet and VGG-16: the repository's README."""
    bias = known[name].over().bias
    assert bias is not None and round(100 * bias.mean, 1) == percent


def test_published_counts_add_up(known: dict[str, Published]) -> None:
    subjects = [f"subject-{number:02d}" for number in range(1, 11)]
    assert set(subjects) < set(known) and len(known) == 27 and len({one.title for one in known.values()}) == 27
    for one in known.values():
        each = 750 if one.name == "humans" else 75
        assert list(one.by_shape) == list(CATEGORIES) and {row.images for row in one.by_shape.values()} == {each}
        assert all(row.neither >= 0 and row.bias for row in one.by_shape.values())
        assert one.over(["cat", "dog"]) == one.by_shape["cat"] + one.by_shape["dog"]
    for name in CATEGORIES:
        summed = sum((known[subject].by_shape[name] for subject in subjects), Tally(0, 0, 0))
        assert known["humans"].by_shape[name] == summed
    assert people() == pytest.approx((0.9191, 0.9866), abs=5e-5)
    assert observe.published is published and observe.shape_bias is shape_bias and observe.ShapeBias is ShapeBias


def test_the_totals_in_the_table_are_those_of_its_categories(known: dict[str, Published]) -> None:
    module = importlib.import_module("phosphene.observe.categories16")
    header, *rows = (line.split("\t") for line in module.table_lines("published_bias.tsv"))
    assert len(rows) == len(known)
    for row in rows:
        cells = dict(zip(header, row, strict=True))
        own = known[cells["name"]].over()
        assert (own.images, own.shape, own.texture) == tuple(int(cells[key]) for key in ("images", "shape", "texture"))
        assert own.bias is not None and cells["shape_bias"] == f"{own.bias.mean:.4f}"
        assert cells["source"].startswith("raw-data/") and cells["source"].endswith(".csv")


# -- the whole, on the published images ---------------------------------------------------------------------------------


@pytest.mark.shared
def test_the_published_images_are_decided_as_by_the_protocol(bundled_network: Network, shared: Path) -> None:
    """Image by image, as it is, through the network's own module; then the loop over the 16 categories."""
    paths = find(shared / "data" / "cue_conflict")
    pictures = [bundled_network.preprocess(read(path))[0] for path in paths]
    found = run(shape_bias(bundled_network, pictures, [path.name for path in paths]))
    labels = Labels.imagenet()
    of = {name: [i for i in range(1000) if labels.synset(i) in ids] for name, ids in synsets().items()}
    counts = {"shape": 0, "texture": 0, "neither": 0, "agreeing": 0}
    for path, made in zip(paths, found.decisions, strict=True):
        pixels = np.asarray(Image.open(path).convert("RGB"))
        assert pixels.shape == (224, 224, 3)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        mean, std = (getattr(bundled_network, key).view(1, 3, 1, 1) for key in ("mean", "std"))
        with torch.no_grad():
            logits = bundled_network.module((image - mean) / std)[0].double().numpy()
        powers = np.exp(logits - logits.max())
        choice = loop(powers / powers.sum(), of, np.mean)
        assert made == Decision(path.name, made.cues, choice), path
        shape, texture = (part.rstrip("0123456789") for part in path.stem.split("-"))
        assert made.cues == Cues(shape, texture) and path.parent.name == shape
        if shape == texture:
            counts["agreeing"] += 1
        else:
            counts["shape" if choice == shape else "texture" if choice == texture else "neither"] += 1
    assert counts["agreeing"] == found.agreeing == 10
    assert found.total == Tally(counts["shape"], counts["texture"], 150) and not found.skipped
    bias = found.total.bias
    assert bias is not None and 0.1 < bias.mean < 0.2  # 14.5% and 13.8% when this was written: both go by texture
