"""Where well-known data sets come from: this machine, or torchvision's addresses, checked by their hashes.

torchvision's own download is not run: it prints, and unpickles what it has downloaded.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from phosphene.errors import NetworkError, OutputError, PhospheneError
from phosphene.models import cache
from phosphene.models.download import download, move
from phosphene.progress import Job

DEBIAN = Path("/usr/share/datasets")
"""Where Debian's packages of data sets (`dataset-fashion-mnist`) lie."""
_BATCHES = ("batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


@dataclass(frozen=True)
class Source:
    """A data set that can be downloaded.

    Attributes:
        addresses: where its files lie, tried in turn.
        files: their names -> SHA-256.
        archive: whether the one file is an archive, of which CIFAR-10's batches are taken out.
    """

    addresses: Callable[[], list[str]]
    files: Mapping[str, str]
    archive: bool = False


def _mnist() -> list[str]:
    from torchvision.datasets import MNIST

    return MNIST.mirrors


def _fashion() -> list[str]:
    from torchvision.datasets import FashionMNIST

    return FashionMNIST.mirrors


def _cifar10() -> list[str]:
    from torchvision.datasets import CIFAR10

    return [CIFAR10.url.removesuffix(CIFAR10.filename)]


SOURCES: dict[str, Source] = {
    "mnist": Source(_mnist, {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    }),
    "fashion-mnist": Source(_fashion, {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    }),
    "cifar-10": Source(_cifar10, {
        "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    }, archive=True),
}  # fmt: skip


def folder_of(name: str) -> Job[Path]:
    """The folder with the files of the data set `name`: in the cache, in Debian's place, or downloaded into the cache now.

    Raises:
        PhospheneError: it is not here, and PHOSPHENE_OFFLINE is set or no address answers; the message says what was tried.
        OutputError: the cache can't be written.
    """
    here = cache.folder() / "datasets" / name
    for place in (here, DEBIAN / name):
        if place.is_dir():
            return place
    if os.environ.get("PHOSPHENE_OFFLINE", "0") not in ("", "0"):
        raise _absent(name, "was not fetched, because PHOSPHENE_OFFLINE is set")
    source = SOURCES[name]
    with _beside(here) as working:
        folder = Path(working) / name
        folder.mkdir()
        for file, sha256 in source.files.items():
            yield from _get(name, source.addresses(), file, sha256, folder)
            if source.archive:
                _take_out(folder / file, folder)
        move(folder, here)
    return here


def _get(name: str, addresses: list[str], file: str, sha256: str, folder: Path) -> Job[None]:
    failures: list[str] = []
    for address in addresses:
        try:
            yield from download(address + file, folder / file, sha256)
        except NetworkError as problem:
            failures.append(f"{address}{file} ({problem})")
        else:
            return
    raise _absent(name, f"can't be fetched now: tried {' and '.join(failures)}")


def _absent(name: str, why: str) -> PhospheneError:
    return PhospheneError(
        f"the data set '{name}' is not on this machine and {why}; give the folder that holds its files"
    )


def _beside(here: Path) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder in the cache, so that the finished one only has to be renamed."""
    try:
        here.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".get-", dir=here.parent)
    except OSError as problem:
        raise OutputError(f"can't write to the cache {here.parent}: {problem.strerror}") from problem


def _take_out(archive: Path, folder: Path) -> None:
    """CIFAR-10's batches, by their names and no path of the archive's own; then the archive goes."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                name = member.name.rpartition("/")[2]
                stream = opened.extractfile(member) if name in _BATCHES else None
                if stream is not None:
                    (folder / name).write_bytes(stream.read())
        archive.unlink()
    except (OSError, tarfile.TarError, EOFError) as problem:
        line = " ".join(str(problem).split())
        raise PhospheneError(f"'{archive.name}' can't be unpacked: {line}") from problem
