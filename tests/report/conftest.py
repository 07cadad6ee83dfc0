"""One tour for all tests, with few steps for its class images; a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import skimage

from phosphene.cli import main
from phosphene.jobs.visualize import visualize

STEPS = 3
SMALL = {
    "neurons": {"STEPS": 2, "LAYERS": 3, "PER_LAYER": 2, "SIDE": 64},
    "dream": {"STEPS": 2, "OCTAVES": 2, "SIDE": 128},
    "inversion": {"STEPS": 2, "LAYERS": 2},
    "texture": {"STEPS": 2},
    "style": {"STEPS": 2, "SIDE": 192},
    "texture_shape": {"STEPS": 2, "SIDE": 192},
}
"""What the sections that move an image take in the tests instead of their own."""

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")  # other tests look at the defaults
def few_steps() -> Iterator[None]:
    """`visualize` takes few steps where nobody says how many, and the sections that move an image are small."""
    defaults = visualize.__kwdefaults__
    assert defaults is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(defaults, "steps", STEPS)
        for name, constants in SMALL.items():
            for constant, value in constants.items():
                patch.setattr(f"phosphene.report.sections.{name}.{constant}", value)
        yield


@pytest.fixture(scope="module")
def toured(tmp_path_factory: pytest.TempPathFactory, few_steps: None) -> Iterator[Path]:
    """The folder of a tour's report, `lecture/`, with the photograph in it; relative paths start in its parent."""
    folder = tmp_path_factory.mktemp("tour")
    before = os.getcwd()
    os.chdir(folder)
    try:
        shutil.copyfile(Path(skimage.__file__).parent / "data" / "chelsea.png", "my cat.png")
        main(["tour", "my cat.png", "--out", "lecture", "--quiet", "--net", "squeezenet1_1", "--seed", "5"])
    finally:
        os.chdir(before)
    yield folder / "lecture"


@pytest.fixture
def there(toured: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tour's folder, from the place where the tour was made."""
    monkeypatch.chdir(toured.parent)
    return toured


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()
