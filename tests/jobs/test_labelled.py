"""True classes of a folder's photographs: of folders, of names of files, or as the network sees them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from phosphene import images
from phosphene.errors import ImageError, LabelError, PhospheneError
from phosphene.jobs.labelled import TRUTHS, Labelled, coloured, labelled, photograph
from phosphene.jobs.workshop import Workshop
from phosphene.models import Labels, Network, load
from phosphene.recipe import hash_file

Folder = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """`folder("dog/a.png", ...)` makes photographs, and returns the folder's path."""

    def make(*names: str) -> str:
        for place, name in enumerate(names):
            path = tmp_path / "photos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (20 + place, 100, 90)).save(path)
        return str(tmp_path / "photos")

    return make


def network(labels: Labels | list[str], channels: int = 3) -> Network:
    module = nn.Sequential(nn.Conv2d(channels, len(labels), 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    shift = (0.0,) * channels
    return load(module, device="cpu", input_size=32, mean=shift, std=(1.0,) * channels, labels=labels)


@pytest.fixture(scope="module")
def pets() -> Network:
    """Five classes: some with aliases, one called as a part of another, one with a number for a name."""
    labels = Labels(
        ["golden retriever", "tabby", "hot dog", "dog", "300"],
        ["n02099601", "n02123045", "n07697537", "n00000004", "n00000005"],
        [["goldie"], ["tabby cat", "grey tiger"], ["frank"], [], []],
    )
    return network(labels)


def found(network: Network, folder: str, truth: str = "auto") -> tuple[str, list[int | None]]:
    made = labelled(Workshop("cpu"), folder, network, truth)
    return made.truth, list(made.labels)


# -- folders ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("golden retriever", 0), ("golden_retriever", 0), ("Golden-Retriever", 0), ("n02099601", 0), ("N02099601", 0),
        ("goldie", 0), ("tabby", 1), ("tabby_cat", 1), ("greytiger", 1), ("hot-dog", 2), ("frank", 2), ("dog", 3), ("300", 4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("truth", ["auto", "folders"])
def test_folders_by_name_alias_and_synset(pets: Network, folder: Folder, name: str, index: int, truth: str) -> None:
    made = labelled(Workshop("cpu"), folder(f"{name}/a.png", "tabby/z.png"), pets, truth)
    assert made.truth == "folders"
    assert {made.shown(place): made.labels[place] for place in range(2)} == {f"{name}/a.png": index, "tabby/z.png": 1}


@pytest.mark.parametrize(("name", "index"), [("0", 0), ("3", 3), ("003", 3), ("000", 0)])
def test_folders_by_index_only_when_asked(pets: Network, folder: Folder, name: str, index: int) -> None:
    photos = folder(f"{name}/a.png", f"{name}/b.png")
    assert found(pets, photos, "folders") == ("folders", [index, index])
    assert found(pets, photos) == ("predicted", [None, None])


@pytest.mark.parametrize(
    "name", ["retriever", "golden", "gold", "tab", "dogs", "do", "tiger", "5", "-1", "30", "n0209960"]
)
def test_a_part_of_a_name_or_an_index_that_is_none_is_no_class(pets: Network, folder: Folder, name: str) -> None:
    photos = folder(f"{name}/a.png", "tabby/b.png")
    with pytest.raises(
        LabelError, match=rf"knows no class of the folder name '{name}': name folders by a class, its index"
    ):
        found(pets, photos, "folders")
    assert found(pets, photos) == ("predicted", [None, None])


def test_all_names_that_are_none_are_told_up_to_three(pets: Network, folder: Folder) -> None:
    photos = folder(*(f"x{place}/a.png" for place in range(5)), "dog/a.png")
    with pytest.raises(LabelError, match=r"of the folder names 'x0', 'x1', 'x2' \.\.\.: name folders"):
        found(pets, photos, "folders")


def test_the_folder_next_to_a_photograph_counts(pets: Network, folder: Folder) -> None:
    photos = folder("set 1/dog/a.png", "set 1/tabby/b.png", "set 2/dog/a.png")
    made = labelled(Workshop("cpu"), photos, pets, "folders")
    assert made.labels == (3, 1, 3)
    assert [made.shown(place) for place in range(3)] == ["set 1/dog/a.png", "set 1/tabby/b.png", "set 2/dog/a.png"]


def test_a_photograph_in_no_folder_is_told_by_its_name(pets: Network, folder: Folder) -> None:
    photos = folder("dog/a.png", "loose.png")
    with pytest.raises(LabelError, match=r"loose\.png' lies in no folder of a class: .* --truth predicted"):
        found(pets, photos, "folders")
    assert found(pets, photos) == ("predicted", [None, None])


def test_the_root_is_no_class_even_if_it_is_called_so(pets: Network, tmp_path: Path) -> None:
    (tmp_path / "dog").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "dog" / "a.png")
    assert found(pets, str(tmp_path / "dog")) == ("predicted", [None])


def test_generic_classes_are_folders_too(folder: Folder) -> None:
    plain = network(list(Labels.generic(12)))
    assert found(plain, folder("class 3/a.png", "class_11/a.png")) == ("folders", [3, 11])


def test_two_classes_of_one_name_are_told_apart_by_index(folder: Folder) -> None:
    cranes = network(["crane", "Crane", "car"])
    photos = folder("CRANE/a.png", "car/b.png")
    with pytest.raises(LabelError, match="'CRANE'"):
        found(cranes, photos, "folders")
    assert found(cranes, photos) == ("predicted", [None, None])


def test_a_name_of_two_classes_is_said_to_be_ambiguous(folder: Folder) -> None:
    with pytest.raises(LabelError, match="may mean 2 classes"):
        found(network(["crane", "Crane", "car"]), folder("CRANE/a.png"), "folders")


def test_imagenet_knows_its_folders(squeezenet: Network, folder: Folder) -> None:
    names = ("n02123045", "golden retriever", "station wagon", "St. Bernard")
    for name in names[:3]:
        folder(f"{name}/a.png")
    assert found(squeezenet, folder()) == ("folders", [207, 281, 436])


def test_dots_in_the_name_of_a_folder(squeezenet: Network, folder: Folder) -> None:
    assert squeezenet.labels.resolve("St. Bernard") == 247
    assert found(squeezenet, folder("St. Bernard/a.png")) == ("folders", [247])


# -- names of files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("0_x.png", 0),
        ("003_hot dog.png", 3),
        ("2.png", 2),
        ("n02123045_77.png", 1),
        ("dog_1.png", 3),
        ("hot dog_1.png", 2),
    ],
)
def test_names_of_files_begin_with_a_class(pets: Network, folder: Folder, name: str, index: int) -> None:
    assert found(pets, folder(name), "names") == ("names", [index])


def test_synsets_are_found_by_themselves_and_indices_are_not(pets: Network, folder: Folder) -> None:
    assert found(pets, folder("n02123045_1.png", "more/n00000004_9.png")) == ("names", [3, 1])
    assert found(pets, folder("3_dog.png")) == ("predicted", [None] * 3)


def test_synsets_of_other_classes_are_no_names(pets: Network, folder: Folder) -> None:
    photos = folder("n02123045_1.png", "n99999999_1.png")
    assert found(pets, photos) == ("predicted", [None, None])
    with pytest.raises(LabelError, match="no class of the file name 'n99999999': name files by a class"):
        found(pets, photos, "names")


@pytest.mark.parametrize("name", ["5_x.png", "golden_retriever.png", "cat_1.png", "_3.png"])
def test_a_file_that_is_called_otherwise(pets: Network, folder: Folder, name: str) -> None:
    with pytest.raises(LabelError, match="or give --truth predicted"):
        found(pets, folder(name), "names")


# -- predicted, and what is no folder -----------------------------------------------------------------------------------


def test_predicted_asks_for_no_names(pets: Network, folder: Folder) -> None:
    assert found(pets, folder("dog/a.png", "tabby/b.png"), "predicted") == ("predicted", [None, None])


def test_samples_are_a_folder_without_truth(pets: Network) -> None:
    workshop = Workshop("cpu")
    made = labelled(workshop, "sample:all", pets)
    assert made.truth == "predicted" and len(made.paths) == len(made.labels) >= 8 and set(made.labels) == {None}
    names = [made.shown(place) for place in range(len(made.paths))]
    assert "chelsea.png" in names and "painting.jpg" not in names and len(set(names)) == len(names)
    assert workshop.inputs == {} and made.first(2).shown(0) == names[0]


def test_bad_folders_and_an_unknown_truth(pets: Network, folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.png").write_bytes(b"x")
    with pytest.raises(ImageError, match="holds no image files"):
        found(pets, str(tmp_path / "empty"))
    for name in ("file.png", "gone"):
        with pytest.raises(ImageError, match="is no folder"):
            found(pets, str(tmp_path / name))
    with pytest.raises(PhospheneError, match=f"unknown truth 'maybe': choose from {', '.join(TRUTHS)}"):
        found(pets, folder("dog/a.png"), "maybe")


def test_the_folder_goes_into_the_recipe(pets: Network, folder: Folder) -> None:
    workshop, photos = Workshop("cpu"), folder("dog/a.png", "tabby/b.png")
    labelled(workshop, photos, pets)
    assert workshop.inputs == {photos: hash_file(photos)}


# -- a few of many ------------------------------------------------------------------------------------------------------


def many(count: int) -> Labelled:
    return Labelled(Path("x"), tuple(Path(f"x/{n}.png") for n in range(count)), tuple(range(count)), "folders")


@pytest.mark.parametrize("count", [1, 2, 3, 7, 9, 10])
def test_first_is_spread_evenly_and_keeps_labels_with_paths(count: int) -> None:
    some = many(10).first(count)
    places = [int(path.stem) for path in some.paths]
    assert list(some.labels) == places and len(set(places)) == count and places[0] == 0 and some.truth == "folders"
    steps = np.diff([*places, 10])
    assert steps.max() - steps.min() <= 1
    assert [some.shown(at) for at in range(count)] == [f"{place}.png" for place in places]


@pytest.mark.parametrize("count", [0, 10, 11, 1000])
def test_first_of_all(count: int) -> None:
    assert many(10).first(count) == many(10)


# -- one photograph -----------------------------------------------------------------------------------------------------


def test_a_photograph_is_what_the_network_sees_in_whole_grey_levels(pets: Network, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (70, 50, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    made = photograph(pets, tmp_path / "a.png")
    wanted = pets.preprocess(images.read(tmp_path / "a.png"))[0]
    assert made.shape == (3, 32, 32) and torch.equal((made * 255).round() / 255, made)
    assert (made - wanted).abs().max() <= 0.5 / 255 + 1e-6 and torch.equal(coloured(made), made)


def test_a_network_that_sees_grey_gets_grey(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (200, 100, 0)).save(tmp_path / "a.png")
    made = photograph(network(["dark", "light"], channels=1), tmp_path / "a.png")
    assert made.shape == (1, 32, 32) and made.unique().numel() == 1 and 0 < made[0, 0, 0] < 200 / 255
    assert torch.equal((made * 255).round() / 255, made)
    shown = coloured(made)
    assert shown.shape == (3, 32, 32) and torch.equal(shown[2], made[0])


def test_a_file_that_is_no_image(pets: Network, tmp_path: Path) -> None:
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ImageError, match=r"torn\.jpg"):
        photograph(pets, tmp_path / "torn.jpg")
