"""What all tests share: the bundled networks, the folder of shared data, and a random generator that is always reset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from phosphene.models import Network, cache, load

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    os.environ["PHOSPHENE_OFFLINE"] = "1"  # no test depends on what can be downloaded today
    torch.set_num_threads(1)  # the networks are small, and threads that wait for a busy core cost more than they gain


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason=f"needs the shared data folder {SHARED}, which is missing")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests keep lies in a folder of theirs; weights that are on this machine are found where they are."""
    there = [os.environ.get("PHOSPHENE_WEIGHTS", ""), str(cache.folder())]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOSPHENE_WEIGHTS", os.pathsep.join(filter(None, there)))
        patch.setenv("PHOSPHENE_CACHE", str(tmp_path_factory.mktemp("cache") / "weights"))
        yield


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers for each test, whichever tests run."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and weights that `shared/DATA.md` describes. Mark tests that use it with `shared`."""
    return SHARED


@pytest.fixture(scope="session")
def squeezenet() -> Network:
    """The bundled SqueezeNet 1.1. One for all tests: leave it as it is."""
    return load("squeezenet1_1", device="cpu")


@pytest.fixture(scope="session")
def efficientnet() -> Network:
    """The bundled EfficientNet-Lite0. One for all tests: leave it as it is."""
    return load("efficientnet_lite0", device="cpu")


@pytest.fixture(params=["efficientnet_lite0", "squeezenet1_1"])
def bundled_network(request: pytest.FixtureRequest, squeezenet: Network, efficientnet: Network) -> Network:
    """Each of the two bundled networks."""
    return efficientnet if request.param == "efficientnet_lite0" else squeezenet


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """Two photographs, `[2, 3, 224, 224]` in [0, 1]: scikit-image's cat and cup of coffee, their middle squares."""
    from skimage import data

    from phosphene.models import Preprocess

    pictures = [
        torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None] / 255
        for picture in (data.chelsea(), data.coffee())
    ]
    return torch.cat([Preprocess((224, 224), 224)(picture) for picture in pictures])


THIRTY = """
import torch
from torch import nn
from phosphene import load

def net():
    torch.manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(432, 30),
    )
    labels = [f"thing {n}" for n in range(29)] + ["odds, and ends"]
    return load(module, device="cpu", input_size=32, mean=(0.5,) * 3, std=(0.1,) * 3, labels=labels)
"""


@pytest.fixture
def thirty(tmp_path: Path) -> str:
    """A small network of thirty classes, each of which can be reached from any image: as `--net` names it."""
    (tmp_path / "thirty.py").write_text(THIRTY)
    return f"{tmp_path / 'thirty.py'}:net"
