"""What a job makes: pictures with names, and facts that fit into JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from phosphene.models import Network


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture: `image [3, H, W]` in [0, 1]; `name` goes into its file name; `alt` says what it shows."""

    name: str
    image: Tensor
    alt: str
    caption: str = ""
    pixelated: bool = False


@dataclass(frozen=True, eq=False)
class Outcome:
    """The pictures of a job, the main one first, its facts, and numbers by name that are too many for JSON.

    `notes` go into the recipe: what happened on the way that the parameters don't say. `network`: one that was trained.
    """

    pictures: tuple[Picture, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    network: Network | None = None

    def picture(self, name: str) -> Picture:
        """The picture called `name`. Raises KeyError."""
        return next(found for found in self.pictures if found.name == name) if self._has(name) else _missing(name)

    def _has(self, name: str) -> bool:
        return any(picture.name == name for picture in self.pictures)


def _missing(name: str) -> Picture:
    raise KeyError(name)
