"""One picture of a target on its way to a sheet, and the natural patches beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe
from phosphene.errors import PhospheneError
from phosphene.jobs.patches import natural
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network, Unit
from phosphene.progress import Job
from phosphene.synthesize import Direction

BESIDE = 4  # patches of a unit


@dataclass(eq=False)
class Look:
    """A picture of a target: `image [3, H, W]`, its words, and `natural [3, h, w]`, the patches that excite it most.

    `number`: which of several pictures of the target it is, from 0.
    """

    target: int | Unit | Direction
    name: str
    image: Tensor
    caption: str
    facts: dict[str, Any]
    number: int = 0
    natural: Tensor | None = None
    words: str = ""

    @property
    def layer(self) -> str | None:
        """The layer of a unit; None for a class."""
        return None if isinstance(self.target, int) else self.target.layer


def natural_patches(workshop: Workshop, network: Network, looks: list[Look], folder: str) -> Job[None]:
    """Find the patches of a folder that excite each unit most, and put them beside its picture.

    Raises:
        PhospheneError: what is looked for is no channel: classes and directions have no patches of their own.
    """
    units = [look for look in looks if isinstance(look.target, Unit)]
    if not units:
        raise PhospheneError("--patches shows what excites channels: give --layer and --unit with it")
    collection = workshop.images(folder, network)
    for layer in dict.fromkeys(look.target.layer for look in units if isinstance(look.target, Unit)):
        own = [look for look in units if look.layer == layer]
        channels = list(dict.fromkeys(look.target.channel for look in own if isinstance(look.target, Unit)))
        found = yield from observe.patches(network, collection, layer, channels, count=BESIDE)
        for look in own:
            assert isinstance(look.target, Unit)
            patches = found.found[look.target.channel]
            if patches:
                tiles = natural(collection, patches)
                look.natural = pictures.grid(torch.stack(tiles), columns=2, gap=4)
                look.words = f"activation {patches[0].value:.3g} to {patches[-1].value:.3g}"
                look.facts["patches"] = [str(collection.paths[patch.image]) for patch in patches]
