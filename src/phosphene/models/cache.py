"""Where weights lie on this machine. Paths only: nothing is read, made or downloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path


def folder() -> Path:
    """Where Phosphene stores what it fetches (it may not exist yet).

    `$PHOSPHENE_CACHE`, else `$XDG_CACHE_HOME/phosphene/weights`, else the platform's folder for caches.
    """
    own = os.environ.get("PHOSPHENE_CACHE")
    return Path(own).expanduser() if own else _caches() / "phosphene" / "weights"


def places() -> list[Path]:
    """Where weights are looked for, in this order.

    The entries of `$PHOSPHENE_WEIGHTS` (separated as in `$PATH`; a weights file may be named itself),
    `folder()`, and the checkpoints of torch hub, where torchvision puts its downloads.
    """
    named = os.environ.get("PHOSPHENE_WEIGHTS", "").split(os.pathsep)
    return [*(Path(entry).expanduser() for entry in named if entry), folder(), _hub_checkpoints()]


def find(filenames: Iterable[str]) -> Path | None:
    """The first file called one of `filenames` in `places()`; an earlier place wins, then an earlier name."""
    names = list(filenames)
    for place in places():
        if place.name in names and place.is_file():
            return place
        for name in names:
            if (place / name).is_file():
                return place / name
    return None


def _caches() -> Path:
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")


def _hub_checkpoints() -> Path:
    """`torch.hub.get_dir()/checkpoints`, without importing torch."""
    home = os.environ.get("TORCH_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"
