"""Random numbers of each image's own, so that neither its neighbours nor its place in the batch matter."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch
from torch import Tensor

from phosphene.attacks.ball import Ball, lengths
from phosphene.errors import PhospheneError


class Dice:
    """One source of random numbers per image, decided by the seed and by the image itself.

    Args:
        seed: another seed, other numbers.
        images: `[N, C, H, W]`; equal images get equal numbers.
        keys: `[N]`, what to tell the images by instead of their values, e.g. names of files.

    Raises:
        PhospheneError: one key too many or too few.
    """

    def __init__(self, seed: int, images: Tensor, keys: Sequence[int | str] | None = None) -> None:
        if keys is not None and len(keys) != len(images):
            raise PhospheneError(f"{len(keys)} keys for {len(images)} images: give one for each")
        told = [_bytes(image) for image in images] if keys is None else [str(key).encode() for key in keys]
        self._roots = [_number(f"{seed}:".encode() + one) for one in told]

    def generators(self, which: Tensor, turn: int | str = 0) -> list[torch.Generator]:
        """A generator (on the CPU) for each image of `which` `[n]`; every turn has its own."""
        names = [f"{self._roots[place]}:{turn}".encode() for place in which.tolist()]
        return [torch.Generator().manual_seed(_number(name)) for name in names]

    def inside(self, ball: Ball, start: Tensor, which: Tensor, turn: int = 0) -> Tensor:
        """A random picture of each ball, `[n, C, H, W]`: uniform in it, then brought to [0, 1] and the mask.

        Args:
            ball, start: those of the images `which`.
            which: `[n]`, places in the batch.
            turn: which draw this is.
        """
        shape = start.shape[1:]
        draws = self.generators(which, turn)
        if ball.norm == "linf":
            unit = torch.stack([torch.rand(shape, generator=one) for one in draws]) * 2 - 1
        else:
            normal = torch.stack([torch.randn(shape, generator=one) for one in draws])
            share = torch.cat([torch.rand(1, generator=one) for one in draws])
            # Uniform in a ball of d dimensions: any direction, and a radius with  P(r < s) = s^d.
            radius = share.double() ** (1 / max(1, shape.numel()))
            unit = normal * (radius / lengths(normal)).view(-1, 1, 1, 1).to(normal)
        return ball.project(start + unit.to(start) * ball.radius(start), start)


def _bytes(image: Tensor) -> bytes:
    return image.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()


def _number(name: bytes) -> int:
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little") >> 1
