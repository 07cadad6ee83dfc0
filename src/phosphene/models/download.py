"""Downloading one file: checked by its SHA-256, there when it is whole and right."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import secrets
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from phosphene.errors import NetworkError, OutputError
from phosphene.progress import Finished, Job, Started, Step

TIMEOUT = 10.0  # seconds for a connection and for each piece that follows
_CHUNK = 1 << 20


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
        move(part, destination)
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


def move(source: Path, destination: Path) -> None:
    """Rename; raises OutputError."""
    try:
        os.replace(source, destination)
    except OSError as problem:
        raise OutputError(f"can't write {destination}: {problem.strerror}") from problem


def hash_prefix(url: str) -> str:
    """The hex digits that torchvision's and timm's file names carry: the beginning of the file's SHA-256.

    Raises:
        NetworkError: the name carries none.
    """
    found = re.search(r"-([0-9a-f]{8,64})\.[a-z]+$", url)
    if found is None:
        raise NetworkError(f"the name of {url} carries no SHA-256 to check it by")
    return found.group(1)


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
