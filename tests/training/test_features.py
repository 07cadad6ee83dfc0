"""The store of features: what is found again, what never is, and what a broken run leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pupils import Pupil, fill, found, named, pupil, settled
from torch import nn

from phosphene import images
from phosphene.errors import NetworkError, OutputError
from phosphene.models import Labels, Network, Preprocess
from phosphene.progress import Event, Started, Step, run
from phosphene.training import features as features_module
from phosphene.training.features import StageFeatures, Store, features_folder, key, stage_features, width
from phosphene.training.folder import Photo
from phosphene.training.stages import read

STAGES = ["stem.2", "body.2", "top.2"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Photo]:
    there = found(fill(tmp_path_factory.mktemp("features"), {"": {"red": 11, "blue": 10}}))
    return [*there.train, *there.val]


def computed(network: Network, photos: list[Photo], folder: Path | None, stages: list[str] = STAGES) -> StageFeatures:
    return run(stage_features(network, photos, stages, folder=folder))


def by_hand(network: Network, photos: list[Photo], stage: str) -> np.ndarray:
    rows = [read(network, network.preprocess(images.read(photo.path)), [stage])[stage] for photo in photos]
    return torch.cat(rows).numpy()


def files(folder: Path, ending: str) -> list[Path]:
    return sorted(folder.rglob(f"*{ending}"))


# -- found again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False])
def test_features_are_those_of_each_photograph_alone(photos: list[Photo], tmp_path: Path, kept: bool) -> None:
    network = pupil()
    made = computed(network, photos, tmp_path if kept else None)
    assert made.computed == 21 and dict(made.widths) == {"stem.2": 8, "body.2": 12, "top.2": 16}
    for stage in STAGES:
        np.testing.assert_allclose(made.table(stage, photos), by_hand(network, photos, stage), atol=1e-5)
    some = [photos[5], photos[0], photos[5]]
    np.testing.assert_array_equal(made.table("body.2", some), made.table("body.2", photos)[[5, 0, 5]])
    assert made.table("top.2", photos).dtype == np.float32 and bool(list(tmp_path.iterdir())) == kept


def test_what_is_there_is_not_computed_again(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = computed(pupil(), photos[:9], tmp_path)
    second = computed(pupil(), photos, tmp_path)
    assert (first.computed, second.computed) == (9, 12)
    monkeypatch.setattr(features_module, "images", None)  # no file is read
    events: list[Event] = []
    third = run(stage_features(pupil(), photos, STAGES, folder=tmp_path), events.append)
    assert third.computed == 0 and events == [Started("features of every stage", 21, "image"), Step(21)]
    for stage in STAGES:
        np.testing.assert_array_equal(second.table(stage, photos), third.table(stage, photos))
    assert len(files(tmp_path, ".npy")) == len(files(tmp_path, ".json")) == 2
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 4


def test_segments_are_mapped_and_not_read(photos: list[Photo], tmp_path: Path) -> None:
    for _ in range(2):
        made = computed(pupil(), photos, tmp_path)
        assert made.store.segments and all(isinstance(rows, np.memmap) for rows in made.store.segments)
        assert not made.store.segments[0].flags.writeable
    assert all(not isinstance(rows, np.memmap) for rows in computed(pupil(), photos, None).store.segments)


def test_segments_are_written_on_the_way(photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends in the middle keeps what it has."""
    monkeypatch.setattr(features_module, "SEGMENT", 8)
    job = stage_features(pupil(), photos, STAGES, folder=tmp_path)
    for event in job:
        if isinstance(event, Step) and event.done >= 16:
            break
    job.close()
    assert len(files(tmp_path, ".npy")) == 2
    rest = computed(pupil(), photos, tmp_path)
    assert rest.computed == 5
    np.testing.assert_allclose(rest.table("top.2", photos), by_hand(pupil(), photos, "top.2"), atol=1e-5)


def test_equal_files_are_computed_once(photos: list[Photo], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(photos[0].path.read_bytes())
    twice = [photos[0], Photo(copy, 1, photos[0].sha), photos[1], photos[0]]
    made = computed(pupil(), twice, tmp_path / "store")
    assert made.computed == 2
    table = made.table("top.2", twice)
    np.testing.assert_array_equal(table[0], table[1])
    np.testing.assert_array_equal(table[0], table[3])
    assert not np.array_equal(table[0], table[2])


def test_the_name_of_a_file_does_not_matter(photos: list[Photo], tmp_path: Path) -> None:
    computed(pupil(), photos, tmp_path / "store")
    moved = tmp_path / "elsewhere.png"
    moved.write_bytes(photos[3].path.read_bytes())
    assert computed(pupil(), [replace(photos[3], path=moved)], tmp_path / "store").computed == 0


# -- never found ------------------------------------------------------------------------------------------------


def other_weight(network: Network) -> Network:
    with torch.no_grad():
        network.module.get_parameter("stem.0.weight")[0, 0, 0, 0] += 1e-6
    return network


def other_statistic(network: Network) -> Network:
    network.module.get_buffer("body.1.running_var")[3] *= 1.0001
    return network


def made_anew(network: Network, **options: object) -> Network:
    given = {
        "name": "pupil", "labels": Labels.generic(5), "preprocess": network.preprocess,
        "mean": network.mean.flatten().tolist(), "std": network.std.flatten().tolist(),
    }  # fmt: skip
    return Network(network.module, **{**given, **options})  # pyright: ignore


class Sharper(Pupil):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * 2)


def of_other_class(network: Network) -> Network:
    other = Sharper()
    other.load_state_dict(network.module.state_dict())
    return named(other)


def of_other_steps(network: Network) -> Network:
    network.module.get_submodule("stem.0").padding_mode = "reflect"  # pyright: ignore
    network.module.get_submodule("stem")[2] = nn.LeakyReLU()  # pyright: ignore
    return network


OTHERS: dict[str, Callable[[Network], Network]] = {
    "weight": other_weight,
    "statistic": other_statistic,
    "size": lambda n: made_anew(n, preprocess=Preprocess((16, 16), 17)),
    "interpolation": lambda n: made_anew(n, preprocess=replace(n.preprocess, interpolation="bilinear")),
    "mean": lambda n: made_anew(n, mean=(0.485, 0.456, 0.407)),
    "std": lambda n: made_anew(n, std=(0.229, 0.224, 0.226)),
    "class": of_other_class,
    "type": lambda n: n.double(),
    "layers": of_other_steps,
}


@pytest.mark.parametrize("way", OTHERS)
def test_features_of_another_network_are_never_used(photos: list[Photo], tmp_path: Path, way: str) -> None:
    computed(pupil(), photos[:3], tmp_path)
    other = OTHERS[way](pupil())
    made = computed(other, photos[:3], tmp_path)
    assert made.computed == 3
    np.testing.assert_allclose(made.table("top.2", photos[:3]), by_hand(other, photos[:3], "top.2"), atol=1e-5)
    assert computed(pupil(), photos[:3], tmp_path).computed == 0  # and the first ones are still there


def test_other_stages_are_another_store(photos: list[Photo], tmp_path: Path) -> None:
    computed(pupil(), photos[:3], tmp_path)
    for stages in (STAGES[:2], STAGES[::-1], ["top.2"]):
        made = computed(pupil(), photos[:3], tmp_path, stages)
        assert made.computed == 3
        np.testing.assert_allclose(
            made.table(stages[-1], photos[:3]), by_hand(pupil(), photos[:3], stages[-1]), atol=1e-5
        )


def test_the_name_of_the_network_and_its_place_do_not_matter(photos: list[Photo], tmp_path: Path) -> None:
    computed(pupil(), photos[:3], tmp_path)
    assert key(pupil(), STAGES) == key(made_anew(pupil(), name="other", labels=Labels(list("abcde"))), STAGES)
    assert len(key(pupil(), STAGES)) == 64


# -- after an accident ------------------------------------------------------------------------------------------


def cut(path: Path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:count])


def shape(path: Path, table: np.ndarray) -> None:
    np.save(path, table)


ACCIDENTS: dict[str, Callable[[Path, Path], object]] = {
    "no json": lambda npy, listed: listed.unlink(),
    "no npy": lambda npy, listed: npy.unlink(),
    "json cut": lambda npy, listed: cut(listed, 40),
    "json empty": lambda npy, listed: cut(listed, 0),
    "json not text": lambda npy, listed: listed.write_bytes(b"\xff\xfe\x00"),
    "json of another kind": lambda npy, listed: listed.write_text("5"),
    "json of too few": lambda npy, listed: listed.write_text(json.dumps(["a"])),
    "npy cut in its rows": lambda npy, listed: cut(npy, npy.stat().st_size - 4),
    "npy cut in its head": lambda npy, listed: cut(npy, 20),
    "npy empty": lambda npy, listed: cut(npy, 0),
    "npy of another type": lambda npy, listed: shape(npy, np.load(npy).astype(np.float64)),
    "npy of another width": lambda npy, listed: shape(npy, np.load(npy)[:, 1:]),
    "npy no array": lambda npy, listed: npy.write_bytes(b"junk" * 100),
}


@pytest.mark.parametrize("way", ACCIDENTS)
def test_a_damaged_segment_is_computed_again(photos: list[Photo], tmp_path: Path, way: str) -> None:
    computed(pupil(), photos[:4], tmp_path)
    computed(pupil(), photos[:9], tmp_path)  # a second segment
    (npy,) = [path for path in files(tmp_path, ".npy") if len(np.load(path)) == 5]
    ACCIDENTS[way](npy, npy.with_suffix(".json"))
    made = computed(pupil(), photos[:9], tmp_path)
    assert made.computed == 5
    np.testing.assert_allclose(made.table("top.2", photos[:9]), by_hand(pupil(), photos[:9], "top.2"), atol=1e-5)
    assert computed(pupil(), photos[:9], tmp_path).computed == 0


def test_a_part_that_was_being_written_is_no_segment(photos: list[Photo], tmp_path: Path) -> None:
    computed(pupil(), photos[:4], tmp_path)
    npy = files(tmp_path, ".npy")[0]
    (npy.parent / ".0123.part").write_bytes(npy.read_bytes()[:200])
    assert computed(pupil(), photos[:5], tmp_path).computed == 1


def test_a_full_disk(photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, rows: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match="No space left on device; free some space there") as caught:
        computed(pupil(), photos[:4], tmp_path)
    assert (
        "\n" not in str(caught.value) and "PHOSPHENE_CACHE" in str(caught.value) and str(tmp_path) in str(caught.value)
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_is_full_when_the_names_are_written(
    photos: list[Photo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, *args: object, **options: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OutputError, match="No space left on device"):
            computed(pupil(), photos[:4], tmp_path)
    assert not files(tmp_path, ".json") and not files(tmp_path, ".part")
    assert computed(pupil(), photos[:4], tmp_path).computed == 4


def test_a_folder_that_is_a_file(photos: list[Photo], tmp_path: Path) -> None:
    (tmp_path / "store").write_text("in the way")
    with pytest.raises(OutputError, match="can't keep features"):
        computed(pupil(), photos[:4], tmp_path / "store")


@pytest.mark.parametrize("kept", [True, False])
def test_a_network_that_gives_nan_leaves_nothing(photos: list[Photo], tmp_path: Path, kept: bool) -> None:
    network = pupil()
    with torch.no_grad():
        network.module.get_parameter("body.0.weight")[2, 1, 0, 0] = float("nan")
    with pytest.raises(NetworkError, match=r"the weight of layer 'body\.0' of pupil has NaN") as caught:
        computed(network, photos, tmp_path if kept else None)
    assert "\n" not in str(caught.value) and not list(tmp_path.rglob("*.npy"))


def test_a_layer_that_makes_infinity(photos: list[Photo]) -> None:
    class Hot(Pupil):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x / (x - x))

    with pytest.raises(NetworkError, match="gives NaN or infinity for this image"):
        computed(named(settled(Hot())), photos, None)


# -- small parts ------------------------------------------------------------------------------------------------


def test_an_empty_store() -> None:
    store = Store(None, {"a": 2})
    store.load()
    store.add([], np.empty((0, 2), np.float32))
    assert not store.segments and store.rows([], "a").shape == (0, 2)
    with pytest.raises(KeyError):
        store.rows(["unknown"], "a")


def test_the_width_and_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [width(pupil(), stage) for stage in [*STAGES, "fc"]] == [8, 12, 16, 16]
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache" / "weights"))
    assert features_folder() == tmp_path / "cache" / "weights" / "features"
    monkeypatch.delenv("PHOSPHENE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert features_folder() == tmp_path / "phosphene" / "features"
