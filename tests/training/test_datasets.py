"""Data sets in memory: MNIST's files, CIFAR-10's in both forms, folders of photographs; and what may be wrong with them."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import re
import shutil
import struct
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pupils import fill, write
from torch import Tensor

from phosphene.errors import ImageError, NetworkError, OutputError, PhospheneError
from phosphene.models import cache
from phosphene.progress import Finished, Job, Started, Step, run
from phosphene.training import Data, Split, held_out, read_data, sources
from phosphene.training.cifar import CLASSES
from phosphene.training.idx import _KNOWN, DIGITS, FASHION
from phosphene.training.split import _shares

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def refused(path: str | Path, **options: Any) -> str:
    with pytest.raises(PhospheneError) as caught:
        run(read_data(path, **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# -- MNIST ------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mnist(folder: Path, learn: int = 30, judge: int = 10, size: tuple[int, int] = (6, 5), zipped: bool = False) -> Path:
    """The four files, of noise; the labels count from 0 to 9 again and again."""
    arrays = (
        noise(learn, *size), np.arange(learn, dtype=np.uint8) % 10,
        noise(judge, *size, seed=1), np.arange(judge, dtype=np.uint8)[::-1] % 10,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, arrays, strict=True):
        put(folder, name, idx(array), zipped)
    return folder


def put(folder: Path, name: str, data: bytes, zipped: bool = False) -> None:
    if zipped:
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    else:
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "raw", "MNIST/raw"])
def test_mnists_files(tmp_path: Path, zipped: bool, below: str) -> None:
    mnist(tmp_path / "set" / below, zipped=zipped)
    events: list[Any] = []
    data = run(read_data(tmp_path / "set"), events.append)
    assert events == [Started(f"reading {(tmp_path / 'set' / below).name}", 2, "file"), Step(1), Step(2)]
    assert (data.name, data.classes, data.channels, data.size) == ("set", DIGITS, 1, (6, 5))
    assert data.train.images.dtype == torch.uint8 and data.train.images.shape == (30, 1, 6, 5)
    assert np.array_equal(data.train.images[:, 0].numpy(), noise(30, 6, 5))
    assert np.array_equal(data.test.images[:, 0].numpy(), noise(10, 6, 5, seed=1))
    assert data.train.labels.tolist() == [*range(10)] * 3 and data.test.labels.tolist() == [*range(9, -1, -1)]


def test_mnists_files_under_their_other_names(tmp_path: Path) -> None:
    folder = mnist(tmp_path / "set")
    whole = run(read_data(folder))
    for name in NAMES:
        (folder / name).rename(folder / name.replace("-idx", ".idx"))
    assert run(read_data(str(folder))).hash() == whole.hash()


def test_zipped_or_not_is_one_data_set(tmp_path: Path) -> None:
    one, other = run(read_data(mnist(tmp_path / "a"))), run(read_data(mnist(tmp_path / "b", zipped=True)))
    assert one.hash() == other.hash() and same(one.train, other.train) and same(one.test, other.test)


def test_fashion_is_told_by_its_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(30, dtype=np.uint8) % 10
    monkeypatch.setitem(_KNOWN, hashlib.sha256(labels.tobytes()).hexdigest(), ("fashion-mnist", FASHION))
    data = run(read_data(mnist(tmp_path / "any")))
    assert data.name == "fashion-mnist" and data.classes[9] == "Ankle boot" and len(set(data.classes)) == 10


@pytest.mark.shared
def test_the_real_mnist(shared: Path) -> None:
    data = run(read_data(shared / "data" / "mnist"))
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert (data.name, data.classes, data.size, data.channels) == ("mnist", DIGITS, (28, 28), 1)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert data.train.counts(10) == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    pixels = data.train.images.double() / 255
    assert float(pixels.mean()) == pytest.approx(0.1306604763) and float(pixels.std()) == pytest.approx(0.3081078)
    learn, held = held_out(data, 5000)
    assert len(learn) == 55_000 and held.counts(10) == [494, 562, 496, 511, 487, 452, 493, 522, 487, 496]


@pytest.mark.skipif(not (sources.DEBIAN / "fashion-mnist").is_dir(), reason="needs the package dataset-fashion-mnist")
def test_the_real_fashion_mnist() -> None:
    data = run(read_data("fashion-mnist"))
    assert (data.name, data.classes, len(data.train), len(data.test)) == ("fashion-mnist", FASHION, 60_000, 10_000)
    assert float(data.train.images.double().mean() / 255) == pytest.approx(0.2860406)
    assert [data.classes[label] for label in data.train.labels[:3]] == ["Ankle boot", "T-shirt/top", "T-shirt/top"]


@pytest.mark.parametrize("gone", [(0,), (1, 3), (2, 3)])
def test_missing_files_are_named(tmp_path: Path, gone: tuple[int, ...]) -> None:
    folder = mnist(tmp_path)
    for place in gone:
        (folder / NAMES[place]).unlink()
    message = refused(folder)
    assert f"lacks {', '.join(NAMES[place] for place in gone)} of MNIST's four files" in message


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is no IDX file: it begins with 89 50 4e 47, not 00 00 08 03"),
        (b"", "is no IDX file: it begins with nothing"),
        (idx(noise(30, 6, 5), kind=13), "holds other numbers: it begins with 00 00 0d 03, not 00 00 08 03"),
        (idx(noise(30, 30)), "holds other numbers: it begins with 00 00 08 02"),
        (idx(noise(30, 6, 5))[:10], "is cut short: it ends in its header"),
        (idx(noise(30, 6, 5))[:-1], "is cut short: 30 x 6 x 5 bytes should follow"),
        (idx(noise(30, 6, 5)) + b"0", "is longer than its header says"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "would hold 4294967295 x 4294967295 x 4294967295 bytes"),
        (idx(noise(0, 6, 5)), "would hold 0 x 6 x 5 bytes"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, data: bytes, expected: str, zipped: bool) -> None:
    folder = mnist(tmp_path)
    (folder / NAMES[0]).unlink()
    put(folder, NAMES[0], data, zipped)
    message = refused(folder)
    assert NAMES[0] in message and expected in message


def test_a_gz_file_that_is_cut_short_or_damaged_or_none(tmp_path: Path) -> None:
    folder = mnist(tmp_path, zipped=True)
    file = folder / f"{NAMES[0]}.gz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert "is damaged or cut short: Compressed file ended" in refused(folder)
    file.write_bytes(whole[:200] + bytes(50) + whole[250:])
    assert re.search("is damaged or cut short: |can't be read: CRC", refused(folder))
    file.write_bytes(b"nothing that gzip made")
    assert "can't be read: Not a gzipped file" in refused(folder)


def test_a_gz_file_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    folder = mnist(tmp_path)
    (folder / NAMES[0]).unlink()
    put(folder, NAMES[0], idx(noise(30, 6, 5)) + bytes(50_000_000), zipped=True)
    assert (folder / f"{NAMES[0]}.gz").stat().st_size < 100_000 and "longer than its header says" in refused(folder)


def test_pictures_and_labels_that_dont_belong_together(tmp_path: Path) -> None:
    folder = mnist(tmp_path / "set")
    put(folder, NAMES[1], idx(np.arange(29, dtype=np.uint8) % 10))
    assert "has 30 pictures and 'train-labels-idx1-ubyte' 29 labels" in refused(folder)
    put(folder, NAMES[1], idx(np.arange(30, dtype=np.uint8) % 11))
    assert "set has the label 10 in train: its 10 classes are 0 to 9" in refused(folder)
    put(folder, NAMES[1], idx(np.arange(30, dtype=np.uint8) % 10))
    put(folder, NAMES[3], idx(np.full(10, 200, dtype=np.uint8)))
    assert "the label 200 in test" in refused(folder)
    put(folder, NAMES[3], idx(np.zeros(10, dtype=np.uint8)))
    put(folder, NAMES[1], idx(np.arange(30, dtype=np.uint8) % 8))
    assert "shows no picture of 8, 9 to learn from" in refused(folder)
    put(folder, NAMES[1], idx(np.arange(30, dtype=np.uint8) % 10))
    put(folder, NAMES[2], idx(noise(10, 5, 6)))
    assert "pictures [1, 6, 5] in train and [1, 5, 6] in test" in refused(folder)


# -- CIFAR-10 ---------------------------------------------------------------------------------------------------

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def pixels(batch: int, count: int = 6) -> np.ndarray:
    return noise(count, 3072, seed=batch)


def labels(batch: int, count: int = 6) -> list[int]:
    return [(batch * count + place) % 10 for place in range(count)]


def plain(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for batch, name in enumerate(BATCHES):
        rows = np.concatenate([np.array(labels(batch), np.uint8)[:, None], pixels(batch)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return folder


def pickled(folder: Path, protocol: int = 2, keys: Callable[[str], Any] = str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for batch, name in enumerate(BATCHES):
        known = {"batch_label": name, "labels": labels(batch), "data": pixels(batch), "filenames": ["a.png"] * 6}
        dump(folder / name, {keys(key): value for key, value in known.items()}, protocol)
    meta = {"num_cases_per_batch": 6, "label_names": [f"my {name}" for name in CLASSES], "num_vis": 3072}
    dump(folder / "batches.meta", {keys(key): value for key, value in meta.items()}, protocol)
    return folder


def dump(file: Path, known: Any, protocol: int = 2) -> None:
    file.write_bytes(pickle.dumps(known, protocol))


def encoded(text: str) -> bytes:
    return text.encode()


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifars_plain_bytes(tmp_path: Path, below: str) -> None:
    plain(tmp_path / below)
    data = run(read_data(tmp_path))
    assert (data.name, data.classes, data.size, data.channels) == ("cifar-10", CLASSES, (32, 32), 3)
    assert data.train.images.shape == (30, 3, 32, 32) and data.test.images.shape == (6, 3, 32, 32)
    assert data.train.labels.tolist() == [label for batch in range(5) for label in labels(batch)]
    assert data.test.labels.tolist() == labels(5)
    whole = np.concatenate([pixels(batch) for batch in range(5)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(data.train.images.numpy(), whole)
    (tmp_path / below / "batches.meta.txt").unlink()
    assert run(read_data(tmp_path)).classes == CLASSES


@pytest.mark.parametrize("protocol", range(2, 5))
@pytest.mark.parametrize("keys", [str, encoded])
def test_cifars_pickles(tmp_path: Path, protocol: int, keys: Callable[[str], Any]) -> None:
    data = run(read_data(pickled(tmp_path / "cifar-10-batches-py", protocol, keys).parent))
    other = run(read_data(plain(tmp_path / "other")))
    assert same(data.train, other.train) and same(data.test, other.test)
    assert data.name == "cifar-10" and data.classes == tuple(f"my {name}" for name in CLASSES)
    assert data.train.images[0].contiguous().numpy().tobytes() == pixels(0)[0].tobytes()


def python2(array: np.ndarray, numbers: list[int]) -> bytes:
    """`{"data": array, "labels": numbers}` as Python 2's cPickle wrote it: texts and bytes are one there."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<I", len(value)) + value

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    shape = b"M" + struct.pack("<H", array.shape[0]) + b"M" + struct.pack("<H", array.shape[1]) + b"\x86"
    filled = b"(K\x01" + shape + dtype + b"\x89" + text(array.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([number]) for number in numbers) + b"e"
    return b"\x80\x02}(" + text(b"data") + made + filled + text(b"labels") + listed + b"u."


def test_pickles_of_python_2_as_they_are_published(tmp_path: Path) -> None:
    folder = pickled(tmp_path)
    for batch, name in enumerate(BATCHES):
        (folder / name).write_bytes(python2(pixels(batch), labels(batch)))
    with pytest.raises(UnicodeDecodeError):
        pickle.loads((folder / BATCHES[0]).read_bytes())
    assert run(read_data(folder)).train.hash() == run(read_data(plain(tmp_path / "other"))).train.hash()


def test_plain_bytes_come_before_pickles(tmp_path: Path) -> None:
    pickled(plain(tmp_path))
    (tmp_path / BATCHES[0]).write_bytes(b"no pickle")
    assert run(read_data(tmp_path)).classes == CLASSES


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"mkdir {self.mark}",)


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_would_run_a_command_is_refused(tmp_path: Path, protocol: int, name: str) -> None:
    mark = tmp_path / "mark"
    folder = pickled(tmp_path / "set")
    batch = {"data": pixels(0), "labels": labels(0), "label_names": list(CLASSES)}
    for hostile in (
        Hostile(mark),
        batch | {"extra": Hostile(mark)},
        batch | {"labels": [Hostile(mark)]},
        batch | {"data": np.array([Hostile(mark)], dtype=object)},
    ):
        dump(folder / name, hostile, protocol)
        message = refused(folder)
        assert f"{name}': the pickle asks for" in message and "only numpy arrays are admitted" in message
    assert not mark.exists()


@pytest.mark.parametrize("asked", [eval, getattr, Path, type, np.load, torch.load, io.open])
def test_a_pickle_may_ask_for_nothing_else(tmp_path: Path, asked: Any) -> None:
    folder = pickled(tmp_path)
    dump(folder / BATCHES[2], {"data": pixels(0), "labels": labels(0), "extra": asked})
    assert "only numpy arrays" in refused(folder)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        ([1, 2], "holds a list"),
        ({"data": pixels(0)}, "it has no 'data' and 'labels'"),
        ({"data": pixels(0), "labels": labels(0)[:-1]}, "6 pictures and 5 labels"),
        ({"data": pixels(0), "labels": [0, 1, 2, 3, 4, 10]}, "other labels than numbers from 0 to 9"),
        ({"data": pixels(0), "labels": [0, 1, 2, 3, 4, -1]}, "other labels than numbers from 0 to 9"),
        ({"data": pixels(0), "labels": [0, 1, 2, 3, 4, 0.5]}, "other labels than numbers from 0 to 9"),
        ({"data": pixels(0), "labels": "012345"}, "other labels than numbers from 0 to 9"),
        ({"data": pixels(0)[:, :-1], "labels": labels(0)}, "an array [6, 3071] for 'data'"),
        ({"data": pixels(0)[:0], "labels": []}, "an array [0, 3072] for 'data'"),
        ({"data": "bytes", "labels": labels(0)}, "a str for 'data'"),
        ({"data": pixels(0) / 300.0, "labels": labels(0)}, "pictures of float64 from 0 to 0.85"),
        ({"data": pixels(0).astype(np.int32) + 9, "labels": labels(0)}, "pictures of int32 from 9 to 264: bytes 0 to 255"),
    ],
)  # fmt: skip
def test_pickles_of_something_else(tmp_path: Path, batch: Any, expected: str) -> None:
    folder = pickled(tmp_path)
    dump(folder / BATCHES[1], batch, 4)
    message = refused(folder)
    assert BATCHES[1] in message and expected in message


def test_labels_may_be_an_array(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "a")
    whole = run(read_data(folder)).hash()
    dump(folder / BATCHES[1], {"data": np.asfortranarray(pixels(1)), "labels": np.array(labels(1))})
    assert run(read_data(folder)).hash() == whole


def test_damaged_batches(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "py")
    for data in (b"nonsense", (folder / BATCHES[0]).read_bytes()[:-3000]):
        (folder / BATCHES[0]).write_bytes(data)
        assert "is no pickle of numpy arrays, or damaged" in refused(folder)
    (folder / BATCHES[0]).write_bytes(b"")
    assert "data_batch_1' is empty" in refused(folder)
    folder = plain(tmp_path / "bin")
    file = folder / "data_batch_2.bin"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "data_batch_2.bin' is cut short" in refused(folder)
    file.write_bytes(b"\x0a" + whole[1:])
    assert "has the label 10 in train" in refused(folder)


def test_missing_batches_and_wrong_names(tmp_path: Path) -> None:
    folder = plain(tmp_path / "bin")
    (folder / "batches.meta.txt").write_text("one\ntwo\n")
    assert "names 2 classes: CIFAR-10 has 10" in refused(folder)
    for name in BATCHES[1:5]:
        (folder / f"{name}.bin").unlink()
    assert "lacks data_batch_2.bin, data_batch_3.bin, data_batch_4.bin, data_batch_5.bin of" in refused(folder)
    folder = pickled(tmp_path / "py")
    dump(folder / "batches.meta", {"label_names": ["one"] * 10})
    assert "two different ones are needed" in refused(folder)
    dump(folder / "batches.meta", {"label_names": "airplane"})
    assert "names 0 classes" in refused(folder)
    (folder / "test_batch").unlink()
    assert "lacks test_batch of CIFAR-10's six batches" in refused(folder)


# -- photographs ------------------------------------------------------------------------------------------------


def test_photographs_of_one_size_keep_it(tmp_path: Path) -> None:
    fill(tmp_path / "set", {"train": {"red": 3, "blue": 2}, "val": {"red": 1, "blue": 1}})
    data = run(read_data(tmp_path / "set"))
    assert (data.name, data.classes, data.size, data.channels) == ("set", ("blue", "red"), (18, 20), 3)
    assert data.train.labels.tolist() == [0, 0, 1, 1, 1] and data.test.labels.tolist() == [0, 1]
    exact = np.asarray(Image.open(tmp_path / "set/train/red/001.png")).transpose(2, 0, 1)
    assert np.array_equal(data.train.images[3].numpy(), exact)


def test_photographs_of_several_sizes_or_large_ones_become_32(tmp_path: Path) -> None:
    fill(tmp_path / "a", {"": {"red": 5, "blue": 5}})
    write(tmp_path / "a/red/other.png", noise(18, 21, 3))
    assert run(read_data(tmp_path / "a")).size == (32, 32)
    for name in ("red", "blue"):
        for number in range(2):
            write(tmp_path / "b" / name / f"{number}.png", noise(97, 80, 3, seed=number))
            write(tmp_path / "c" / name / f"{number}.png", noise(96, 80, 3, seed=number))
    assert run(read_data(tmp_path / "b")).size == (32, 32)
    assert run(read_data(tmp_path / "c")).size == (96, 80)


def test_photographs_at_the_size_that_is_asked_for(tmp_path: Path) -> None:
    from phosphene import images
    from phosphene.models import Preprocess

    fill(tmp_path, {"train": {"red": 2, "blue": 2}, "val": {"red": 1, "blue": 1}})
    data = run(read_data(tmp_path, size=(12, 9)))
    assert data.size == (12, 9)
    expected = Preprocess((12, 9), 9)(images.read(tmp_path / "train/blue/001.png"))[0].mul(255).round().byte()
    assert torch.equal(data.train.images[1], expected)
    assert run(read_data(tmp_path, size=12)).size == (12, 12)


def test_grey_photographs_have_one_channel(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(3):
            path = tmp_path / name / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(noise(9, 9, seed=number)).save(path)
    data = run(read_data(tmp_path))
    assert data.channels == 1 and data.size == (9, 9)
    drawn = {noise(9, 9, seed=number).tobytes() for number in range(3)}
    assert {image.numpy().tobytes() for image in data.train.images} <= drawn and len(data.train) == 4
    write(tmp_path / "a" / "colour.png", noise(9, 9, 3))
    assert run(read_data(tmp_path)).channels == 3


def test_what_is_wrong_with_a_folder_of_photographs(tmp_path: Path) -> None:
    fill(tmp_path / "one", {"": {"red": 3}})
    with pytest.raises(ImageError, match="one class, 'red'"):
        run(read_data(tmp_path / "one"))
    fill(tmp_path / "bad", {"": {"red": 3, "blue": 3}})
    (tmp_path / "bad/red/000.png").write_bytes(b"no picture")
    assert "1 of 6 images can't be read" in refused(tmp_path / "bad")
    assert len(run(read_data(tmp_path / "bad", skip_bad=True)).train) == 3
    fill(tmp_path / "split", {"": {"red": 20, "blue": 20}})
    one, again, other = (run(read_data(tmp_path / "split", seed=seed)).hash() for seed in (1, 1, 2))
    assert one == again != other


def test_too_many_photographs_for_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, {"": {"red": 3, "blue": 3}})
    monkeypatch.setattr("phosphene.training.shrunk.available", lambda: 6 * 3 * 64 * 64 - 1)
    assert "give a smaller size" in refused(tmp_path, size=64)
    assert run(read_data(tmp_path, size=63)).size == (63, 63)


# -- folders and sizes ------------------------------------------------------------------------------------------


def test_no_data_set(tmp_path: Path) -> None:
    assert "is no folder: give one that holds a data set, or mnist, fashion-mnist, cifar-10" in refused(tmp_path / "no")
    assert "did you mean fashion-mnist" in refused("fashion-mnst")
    (tmp_path / "file.gz").write_bytes(b"x")
    assert "is a file: give" in refused(tmp_path / "file.gz")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing")
    assert "holds neither MNIST's four files, nor CIFAR-10's six batches, nor a folder" in refused(tmp_path / "empty")


def test_files_at_another_size(tmp_path: Path) -> None:
    folder = mnist(tmp_path, size=(14, 14))
    own, large = run(read_data(folder)), run(read_data(folder, size=28))
    assert large.size == (28, 28) and large.channels == 1 and torch.equal(large.train.labels, own.train.labels)
    assert run(read_data(folder, size=(14, 14))).hash() == own.hash()
    assert abs(float(large.train.images.float().mean()) - float(own.train.images.float().mean())) < 3
    for size in (3, 1025, (28, 2000)):
        assert "sides of 4 to 1,024" in refused(folder, size=size)


# -- what a data set is -----------------------------------------------------------------------------------------


def tiny(count: int = 12, classes: int = 3, seed: int = 0, shape: tuple[int, ...] = (3, 4, 5)) -> Split:
    return Split(torch.from_numpy(noise(count, *shape, seed=seed)), torch.arange(count) % classes)


def test_batches_are_floats_in_zero_to_one() -> None:
    split = tiny(10)
    split.images[0], split.images[1] = 0, 255
    parts = list(split.batches(4))
    assert [len(labels) for _, labels in parts] == [4, 4, 2]
    images = torch.cat([images for images, _ in parts])
    assert images.dtype == torch.float32 and images[0].max() == 0 and images[1].min() == 1
    assert torch.equal(images.mul(255).round().byte(), split.images)
    assert torch.equal(torch.cat([labels for _, labels in parts]), split.labels)
    assert torch.equal(images, split.batch(slice(None))[0])
    order = torch.randperm(10)[:7]
    mixed = list(split.batches(3, order))
    assert [len(labels) for _, labels in mixed] == [3, 3, 1]
    assert torch.equal(torch.cat([images for images, _ in mixed]), images[order])
    assert torch.equal(torch.cat([labels for _, labels in mixed]), split.labels[order])
    assert same(split.to("cpu"), split) and len(split) == 10


def test_batches_leave_the_bytes_as_they_are() -> None:
    split = tiny()
    before = split.hash()
    for images, _ in split.batches(5):
        images.zero_()
    assert split.hash() == before


def test_a_byte_is_the_value_that_reading_its_file_gives(tmp_path: Path) -> None:
    from phosphene import images

    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    read = images.read(write(tmp_path / "a.png", every))
    split = Split(torch.from_numpy(every.transpose(2, 0, 1)[None].copy()), torch.zeros(1, dtype=torch.int64))
    assert torch.equal(split.batch(slice(0, 1))[0], read)


def test_the_hash_tells_all_that_is_learned() -> None:
    data = Data(tiny(), tiny(6, seed=1), ("a", "b", "c"), "name")
    assert len(data.hash()) == 64 and data.hash() == Data(tiny(), tiny(6, seed=1), ("a", "b", "c"), "other").hash()
    pixel, label = tiny(), tiny()
    pixel.images[3, 0, 0, 0] += 1
    label.labels[0] = 1
    reshaped = Split(tiny().images.transpose(2, 3).reshape(12, 3, 4, 5), tiny().labels)
    turned = Split(tiny().images.view(12, 3, 5, 4), tiny().labels)
    others = [
        Data(pixel, tiny(6, seed=1), ("a", "b", "c"), "name"),
        Data(label, tiny(6, seed=1), ("a", "b", "c"), "name"),
        Data(reshaped, tiny(6, seed=1), ("a", "b", "c"), "name"),
        Data(tiny(), tiny(6, seed=2), ("a", "b", "c"), "name"),
        Data(tiny(6, seed=1), tiny(), ("a", "b", "c"), "name"),
        Data(tiny(), tiny(6, seed=1), ("a", "c", "b"), "name"),
    ]
    hashes = {data.hash(), *(other.hash() for other in others)}
    assert len(hashes) == 7 and turned.hash() != tiny().hash()
    spaced = Split(tiny(24).images[::2], tiny(24).labels[::2])  # no contiguous memory
    assert spaced.hash() == Split(spaced.images.clone(), spaced.labels.clone()).hash()


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (torch.rand(4, 3, 5, 5), torch.zeros(4).long(), "bytes 0 to 255 (uint8), these are float32 from 0."),
        (torch.full((4, 3, 5, 5), 300), torch.zeros(4).long(), "these are int64 from 300 to 300"),
        (torch.zeros(4, 3, 5).byte(), torch.zeros(4).long(), "are [N, 1 or 3, H, W], these are [4, 3, 5]"),
        (torch.zeros(4, 2, 5, 5).byte(), torch.zeros(4).long(), "these are [4, 2, 5, 5]"),
        (torch.zeros(0, 3, 5, 5).byte(), torch.zeros(0).long(), "these are [0, 3, 5, 5]"),
        (torch.zeros(4, 3, 5, 5).byte(), torch.zeros(4), "labels are int64 [N], these are torch.float32 [4]"),
        (torch.zeros(4, 3, 5, 5).byte(), torch.zeros(4, 1).long(), "these are torch.int64 [4, 1]"),
        (torch.zeros(4, 3, 5, 5).byte(), torch.zeros(3).long(), "there are 4 pictures and 3 labels"),
    ],
)
def test_tensors_that_are_no_split(images: Tensor, labels: Tensor, expected: str) -> None:
    with pytest.raises(PhospheneError) as caught:
        Split(images, labels)
    assert expected in str(caught.value)


def test_splits_that_are_no_data_set() -> None:
    with pytest.raises(PhospheneError, match="the label 2 in train: its 2 classes are 0 to 1"):
        Data(tiny(), tiny(), ("a", "b"), "x")
    with pytest.raises(PhospheneError, match="the label -1 in test"):
        Data(tiny(), Split(tiny().images, tiny().labels - 1), ("a", "b", "c"), "x")
    with pytest.raises(PhospheneError, match="x shows no picture of d to learn from"):
        Data(tiny(), tiny(), ("a", "b", "c", "d"), "x")
    with pytest.raises(PhospheneError, match="two different ones"):
        Data(tiny(classes=1), tiny(classes=1), ("a",), "x")
    with pytest.raises(PhospheneError, match="one size is needed"):
        Data(tiny(), tiny(shape=(1, 4, 5)), ("a", "b", "c"), "x")


# -- held out ---------------------------------------------------------------------------------------------------


def uneven(counts: list[int]) -> Data:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    random.Random(0).shuffle(labels)
    images = torch.arange(len(labels)).to(torch.int32).view(torch.uint8).view(-1, 1, 2, 2)  # its place, in four bytes
    split = Split(images.contiguous(), torch.tensor(labels))
    return Data(split, split, tuple(f"class {number}" for number in range(len(counts))), "uneven")


def places(split: Split) -> list[int]:
    return split.images.reshape(-1).contiguous().view(torch.int32).tolist()


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.integers(0, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_held_out(counts: list[int], seed: int, draw: st.DataObject) -> None:
    data = uneven(counts)
    total, classes = sum(counts), len(counts)
    count = draw.draw(st.integers(classes, total - classes))
    learn, held = held_out(data, count, seed)
    assert len(held) == count and sorted(places(learn) + places(held)) == list(range(total))
    assert places(learn) == sorted(places(learn)) and places(held) == sorted(places(held))
    for split in (learn, held):
        assert min(split.counts(classes)) >= 1
        assert torch.equal(split.labels, data.train.labels[places(split)])
    assert same(held_out(data, count, seed)[1], held)


def test_shares_are_in_proportion() -> None:
    assert held_out(uneven([100, 50, 50]), 20)[1].counts(3) == [10, 5, 5]
    assert held_out(uneven([100, 2, 2]), 10)[1].counts(3) == [8, 1, 1]
    assert held_out(uneven([90, 9, 5]), 102 - 1)[1].counts(3) == [89, 8, 4]
    assert _shares([6000] * 10, 5000) == [500] * 10
    assert _shares([30, 30, 30], 10) == [4, 3, 3] and _shares([34, 33, 33], 10) == [4, 3, 3]


def test_the_seed_decides_what_is_held_out() -> None:
    data = uneven([50, 50])
    sets = [tuple(places(held_out(data, 20, seed)[1])) for seed in range(5)]
    assert len(set(sets)) == 5 and Counter(len(one) for one in sets) == {20: 5}


def test_too_few_or_too_many_held_out() -> None:
    data = uneven([5, 5, 5])
    for count in (0, 2, 13, 15, -1):
        with pytest.raises(PhospheneError, match="for each of the 3 classes to be on both sides, 3 to 12 can"):
            held_out(data, count)
    with pytest.raises(PhospheneError, match="one picture of class 1: two are needed"):
        held_out(uneven([5, 1, 5]), 4)


# -- downloads --------------------------------------------------------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with nothing in it, on a machine without Debian's packages."""
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "DEBIAN", tmp_path / "debian")
    return tmp_path / "cache"


Asked = list[tuple[str, str]]


def served(monkeypatch: pytest.MonkeyPatch, folder: Path, *, broken: str = "") -> Asked:
    """Downloads come out of `folder`; from an address with `broken` in it, none does. Returns what is asked for."""
    asked: Asked = []

    def download(url: str, destination: Path, sha256: str) -> Job[Path]:
        asked.append((url, sha256))
        yield Started(f"downloading {destination.name}", 1, "byte")
        if broken and broken in url:
            raise NetworkError("the server answered 404 Not Found")
        shutil.copy(folder / destination.name, destination)
        yield Finished()
        return destination

    monkeypatch.setenv("PHOSPHENE_OFFLINE", "0")
    monkeypatch.setattr(sources, "download", download)
    return asked


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar-10"])
def test_offline_is_one_clear_line(name: str, empty: Path) -> None:
    message = refused(name)
    assert f"the data set '{name}' is not on this machine" in message and "PHOSPHENE_OFFLINE is set" in message
    assert "give the folder that holds its files" in message and not empty.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_is_fetched_once(name: str, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(tmp_path / "server", zipped=True)
    asked = served(monkeypatch, tmp_path / "server", broken="ossci")
    events: list[Any] = []
    data = run(read_data(name), events.append)
    assert data.train.images.shape == (30, 1, 6, 5) and data.name == name
    assert Started("downloading train-images-idx3-ubyte.gz", 1, "byte") in events
    assert [path.name for path in (empty / "datasets").iterdir()] == [name] and cache.folder() == empty
    assert {Path(url).name for url, _ in asked} == set(sources.SOURCES[name].files)
    assert all(sources.SOURCES[name].files[Path(url).name] == sha256 for url, sha256 in asked)
    assert len(asked) == (8 if name == "mnist" else 4)  # MNIST's first address is broken
    monkeypatch.setenv("PHOSPHENE_OFFLINE", "1")
    asked.clear()
    assert run(read_data(name)).hash() == data.hash() and not asked


def test_cifar_is_fetched_and_unpacked(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickled(tmp_path / "cifar-10-batches-py")
    server = tmp_path / "server"
    server.mkdir()
    with tarfile.open(server / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
        archive.add(tmp_path / "cifar-10-batches-py" / "test_batch", "../../outside/test_batch_2")
        archive.add(tmp_path / "cifar-10-batches-py" / "test_batch", "readme.html")
    asked = served(monkeypatch, server)
    data = run(read_data("cifar-10"))
    assert data.train.hash() == run(read_data(tmp_path / "cifar-10-batches-py")).train.hash()
    assert asked == [
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            sources.SOURCES["cifar-10"].files["cifar-10-python.tar.gz"],
        )
    ]
    there = sorted(path.name for path in (empty / "datasets" / "cifar-10").iterdir())
    assert there == sorted([*BATCHES, "batches.meta"])


def test_no_answer_is_one_clear_line_and_leaves_nothing(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(monkeypatch, tmp_path, broken="/")
    message = refused("mnist")
    assert "'mnist' is not on this machine and can't be fetched now: tried https://ossci-datasets" in message
    assert message.count("the server answered 404") == 2 and not list((empty / "datasets").iterdir())
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"no archive")
    served(monkeypatch, tmp_path)
    assert "can't be unpacked" in refused("cifar-10")
    assert not list((empty / "datasets").iterdir())


def test_a_cache_that_cant_be_written(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.write_bytes(b"a file")
    served(monkeypatch, empty)
    with pytest.raises(OutputError, match="can't write to the cache"):
        run(read_data("mnist"))


def test_debians_package_is_found(empty: Path, tmp_path: Path) -> None:
    mnist(tmp_path / "debian" / "fashion-mnist", zipped=True)
    assert run(read_data("fashion-mnist")).name == "fashion-mnist"
    assert "PHOSPHENE_OFFLINE" in refused("mnist")


def test_a_name_is_no_folder_but_a_path_is(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mnist(tmp_path / "mnist")
    monkeypatch.chdir(tmp_path)
    assert "PHOSPHENE_OFFLINE" in refused("mnist")
    assert run(read_data("./mnist")).name == "mnist"


def test_the_addresses_are_torchvisions_and_the_hashes_whole() -> None:
    from torchvision import datasets

    assert sources.SOURCES["mnist"].addresses() == datasets.MNIST.mirrors
    for name, known in (("mnist", datasets.MNIST), ("fashion-mnist", datasets.FashionMNIST)):
        assert set(sources.SOURCES[name].files) == {file for file, _ in known.resources}
    every = [sha for source in sources.SOURCES.values() for sha in source.files.values()]
    assert len(set(every)) == 9 and all(len(sha) == 64 and int(sha, 16) for sha in every)
    assert all(address.endswith("/") for source in sources.SOURCES.values() for address in source.addresses())
