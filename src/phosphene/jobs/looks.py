"""One picture of a target on its way to a sheet, and the natural patches beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import observe
from phosphene.errors import PhospheneError
from phosphene.jobs.patches import natural
from phosphene.jobs.workshop import Collection, Workshop
from phosphene.models import Network, Unit
from phosphene.progress import Halt, Job, Started, relay
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


def photographs(
    workshop: Workshop, network: Network, targets: Sequence[int] | Sequence[Unit | Direction], folder: str
) -> Collection:
    """The folder whose patches are to stand beside the pictures of these targets.

    Raises:
        PhospheneError: what is looked for is no channel: classes and directions have no patches of their own.
        ImageError: there is no such folder, or no image in it.
    """
    if not any(isinstance(target, Unit) for target in targets):
        raise PhospheneError("--patches shows what excites channels: give --layer and --unit with it")
    return workshop.images(folder, network)


def natural_patches(network: Network, looks: list[Look], collection: Collection) -> Job[bool]:
    """Find the patches of photographs that excite each unit most, and put them beside its picture.

    Returns whether all were found; a `Halt` leaves it at those that are.
    """
    units = [look for look in looks if isinstance(look.target, Unit)]
    for layer in dict.fromkeys(look.target.layer for look in units if isinstance(look.target, Unit)):
        own = [look for look in units if look.layer == layer]
        channels = list(dict.fromkeys(look.target.channel for look in own if isinstance(look.target, Unit)))
        job = observe.patches(network, collection, layer, channels, count=BESIDE)
        try:
            found = yield from relay(
                job, lambda event: replace(event, keeps=True) if isinstance(event, Started) else event
            )
        except Halt:
            return False
        for look in own:
            assert isinstance(look.target, Unit)
            patches = found.found[look.target.channel]
            if patches:
                tiles = natural(collection, patches)
                tiles += [torch.ones_like(tiles[0])] * (BESIDE - len(tiles))
                look.natural = pictures.grid(torch.stack(tiles), columns=2, gap=4)
                look.words = f"activation {patches[0].value:.3g} to {patches[-1].value:.3g}"
                look.facts["patches"] = [str(collection.paths[patch.image]) for patch in patches]
    return True
