"""Changes that outlive their step: of each picture until the next epoch (`atta`), of a batch until its next replay (`free`).

They are kept as bytes, in 127ths of eps, about as fine as 8-bit pictures are: a quarter of the memory, and the same numbers
whether a run was interrupted or not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.training.harden.settings import HardenSettings
from phosphene.training.split import Split

LEVELS = 127


class Kept:
    """The changes of a training set. Of several processes, each has all of them."""

    PREFIX = "kept/"

    def __init__(self, settings: HardenSettings, learned: Split) -> None:
        self.method, self.eps, self.replays = settings.method, settings.eps, settings.replays
        self.known: Tensor | None = None  # [N], whether there is a change
        if self.method in ("atta", "free"):
            self.known = torch.zeros(len(learned), dtype=torch.bool)
            self.bytes = torch.zeros(learned.images.shape, dtype=torch.int8)

    def get(self, places: Tensor, step: int) -> Tensor | None:
        """The changes `[n, C, H, W]` of these pictures; None where the next attack begins anew."""
        if (
            self.known is None
            or not bool(self.known[places].any())
            or (self.method == "free" and step % self.replays == 0)
        ):
            return None
        found = self.bytes[places].float() * (self.eps / LEVELS)
        anew = torch.empty_like(found).uniform_(-self.eps, self.eps)
        return torch.where(self.known[places].view(-1, 1, 1, 1), found, anew)

    def put(self, places: Tensor, changes: Tensor, step: int) -> None:
        """Note the changes that these pictures ended with, all processes those of all."""
        if self.known is None:
            return
        small = (changes.detach().cpu() * (LEVELS / self.eps)).round().clamp(-LEVELS, LEVELS).to(torch.int8)
        for own, found in processes.gather((places, small)):
            self.bytes[own] = found
            self.known[own] = True

    def tensors(self) -> dict[str, Tensor]:
        """Copies, for a state."""
        if self.known is None:
            return {}
        return {self.PREFIX + "known": self.known.clone(), self.PREFIX + "bytes": self.bytes.clone()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put them back."""
        if self.known is not None and self.PREFIX + "known" in tensors:
            if tensors[self.PREFIX + "bytes"].shape != self.bytes.shape:
                raise PhospheneError("this state is of a training with other pictures")
            self.known = tensors[self.PREFIX + "known"].clone()
            self.bytes = tensors[self.PREFIX + "bytes"].clone()
