"""Augmentation that can be undone: a picture is shifted and mirrored, and so are the changes that are kept for it.

Zheng et al., CVPR 2020, section 4.2: changes are kept in the picture's own frame, and moved along with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.training.harden.settings import Moves

FARTHEST = 8  # a picture is shifted by up to an eighth of its side
Drawn: TypeAlias = list[tuple[int, int, bool]]
"""For each picture: down, right, mirrored."""


class Moved:
    """Draws moves that follow from the seed, the epoch and the picture's place, and makes and undoes them."""

    def __init__(self, kind: Moves, seed: int) -> None:
        self.kind, self.seed = kind, seed

    def draw(self, places: Tensor, epoch: int, size: Sequence[int]) -> Drawn:
        """The moves of some pictures of `size` (height, width) in an epoch; empty: none."""
        if self.kind == "none":
            return []
        (high, wide), made = (max(1, side // FARTHEST) for side in size), []
        for place in places.tolist():
            generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch * 60_013 + place * 7_919) % 2**63)
            down, right, mirror = torch.randint(0, 2**30, (3,), generator=generator).tolist()
            mirrored = self.kind == "shift-flip" and mirror % 2 == 1
            made.append((down % (2 * high + 1) - high, right % (2 * wide + 1) - wide, mirrored))
        return made

    def apply(self, images: Tensor, drawn: Drawn) -> Tensor:
        """`[n, C, H, W]`, each mirrored, then shifted; black comes in from outside."""
        if not drawn:
            return images
        return torch.stack([_shifted(_mirrored(one, m), d, r) for one, (d, r, m) in zip(images, drawn, strict=True)])

    def back(self, images: Tensor, drawn: Drawn) -> Tensor:
        """The moves undone; what had gone out comes back as 0."""
        if not drawn:
            return images
        return torch.stack([_mirrored(_shifted(one, -d, -r), m) for one, (d, r, m) in zip(images, drawn, strict=True)])


def _mirrored(image: Tensor, mirror: bool) -> Tensor:
    return image.flip(-1) if mirror else image


def _shifted(image: Tensor, down: int, right: int) -> Tensor:
    """`[C, H, W]` moved by whole pixels, 0 coming in."""
    height, width = image.shape[-2:]
    moved = torch.zeros_like(image)
    rows, columns = height - abs(down), width - abs(right)
    to_row, to_column = max(down, 0), max(right, 0)
    from_row, from_column = max(-down, 0), max(-right, 0)
    moved[:, to_row : to_row + rows, to_column : to_column + columns] = image[
        :, from_row : from_row + rows, from_column : from_column + columns
    ]
    return moved
