"""Noise as large as an attack: what a network does under it, it would do under any change of that size.

    linf    x0 + eps s      s: random signs
    l2      x0 + t u        u: a random direction; t: so long that what 8 bits and [0, 1] leave of it is of length eps

Szegedy et al., "Intriguing properties of neural networks", ICLR 2014, section 4.2, hold such noise against their examples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.attacks import checks
from phosphene.attacks.ball import Norm, lengths
from phosphene.attacks.dice import Dice

HALVINGS = 40  # of the range in which t is looked for
TURN = "control"  # not the numbers that attacks begin with


def noisy(
    images: Tensor,
    eps: float | Tensor,
    norm: Norm = "linf",
    *,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    quantize: bool = True,
) -> Tensor:
    """The images with noise: `[N, C, H, W]` in [0, 1], inside the ball around them.

    Noise is of size `eps`, or as near below it as whole grey levels (and white and black) allow: less than one level is none.

    Args:
        images: `[N, C, H, W]` in [0, 1].
        eps: the radius in units of [0, 1], one or `[N]`.
        norm: `linf` or `l2`.
        seed: decides the noise, for each image by its own values, whatever else is in the batch.
        keys: `[N]`, what to draw it by instead of the images' values.
        quantize: images and noise are in whole grey levels, as 8-bit files hold them.

    Raises:
        PhospheneError: images, a radius or a norm that can't be used.
    """
    start = checks.pictures(images, torch.float32, images.device)
    start = pictures.quantize(start) if quantize else start
    ball = checks.ball(eps, norm, None, start)
    draws = Dice(seed, start, keys).generators(torch.arange(len(start)), TURN)
    drawn = torch.stack([torch.randn(start.shape[1:], generator=one) for one in draws]).to(start)
    if not quantize and ball.norm == "linf":
        return ball.project(start + drawn.sign() * ball.radius(start), start)
    first, most = start * 255, ball.radius(start) * 255
    first = first.round() if quantize else first
    if ball.norm == "linf":
        return (first + drawn.sign() * (most + 1e-4).floor()).clamp(0, 255) / 255  # 8/255 * 255 may be 7.9999995
    return _scaled(first, drawn / lengths(drawn).to(drawn).view(-1, 1, 1, 1), most, quantize) / 255


def _scaled(first: Tensor, unit: Tensor, most: Tensor, whole: bool) -> Tensor:
    """Grey levels `first` moved along `unit`, so far that what rounding and clipping leave of it just fits into `most`.

    Each value's change only grows with the way, so that bisection finds it. `most`: `[n or 1, 1, 1, 1]`, in levels.
    `whole`: in whole levels only.
    """

    def moved(way: Tensor) -> Tensor:
        there = first + way * unit
        return (there.round() if whole else there).clamp(0, 255)

    near = torch.zeros_like(first[:, :1, :1, :1])
    far = torch.full_like(near, 2550 * math.sqrt(first[0].numel()))  # beyond it hardly a value still moves
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        fits = lengths(moved(middle) - first).view_as(near) <= most + 1e-4
        near, far = torch.where(fits, middle, near), torch.where(fits, far, middle)
    return moved(near)
