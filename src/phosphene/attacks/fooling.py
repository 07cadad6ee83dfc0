"""Fooling images.

Start from an arbitrary image, pick an arbitrary class, modify the image to maximise the class, repeat until the network
is fooled:

    x <- x + step * grad / ||grad||,    with the gradient of  log p_t - log (1 - p_t)

The step is the one that a linear network would need (as in DeepFool), at most `step` long, so that the change stays as
small as it can be. The network always looks at the picture as a file will hold it, rounded to 8 bits, so the fooling
survives being saved.

Szegedy et al., "Intriguing properties of neural networks", ICLR 2014; Moosavi-Dezfooli, Fawzi & Frossard, "DeepFool",
CVPR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.attacks.projected import Ball, move_until_done
from phosphene.errors import LabelError, PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started


@dataclass(frozen=True)
class Fooled:
    """What came of it, one entry per image.

    Attributes:
        originals: `[N, 3, H, W]`, the start, on the 8-bit lattice.
        images: `[N, 3, H, W]`, the result, on the 8-bit lattice.
        success: `[N]`, whether the target's probability reached the confidence asked for.
        confidence: `[N]`, the target's probability for the result.
        l2, linf: `[N]`, size of the change, in units of [0, 1].
        steps: `[N]`, how many steps it took.
    """

    originals: Tensor
    images: Tensor
    success: Tensor
    confidence: Tensor
    l2: Tensor
    linf: Tensor
    steps: Tensor


def fool(
    network: Network,
    images: Tensor,
    targets: Sequence[int | str],
    *,
    confidence: float = 0.5,
    step: float = 0.5,
    steps: int = 200,
    ball: Ball | None = None,
) -> Job[Fooled]:
    """Change each image, as little as possible, until the network gives its target class `confidence`.

    Args:
        network: a network that classifies.
        images: `[N, 3, H, W]` in [0, 1], at a size that the network takes.
        targets: a class for each image.
        confidence: the probability that the target has to reach; 0.5 and more make it the top class.
        step: the longest step, in L2.
        steps: when to give up.
        ball: stay within it around the original.

    Raises:
        LabelError: no such class, or one target too many or too few.
        PhospheneError: a confidence outside (0, 1), or a step or a number of steps that is not positive.
    """
    chosen = torch.tensor(network.classes(targets), device=network.device)
    if len(chosen) != len(images):
        raise LabelError(f"{len(chosen)} targets for {len(images)} images: give one for each")
    if not 0 < confidence < 1:
        raise PhospheneError(f"a confidence lies between 0 and 1, got {confidence}")
    if steps < 1:
        raise PhospheneError(f"steps start at 1, got {steps}")
    if step <= 0:
        raise PhospheneError(f"a step has a positive length, got {step}")
    wanted = math.log(confidence / (1 - confidence))

    def move(current: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        odds, gradient = _log_odds(network, _as_saved(current, start[which], ball), chosen[which])
        length = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)
        needed = ((wanted - odds) / length * OVERSHOOT).clamp(SHORTEST, step)
        return gradient * (needed / length).view(-1, 1, 1, 1), odds >= wanted

    yield Started(f"fool {network.name}", steps)
    start = pictures.quantize(images.to(network.mean))
    moved = yield from move_until_done(start, move, steps=steps, ball=ball)
    result = _as_saved(moved.images, start, ball)
    change = (result - start).flatten(1)
    with torch.no_grad():
        probabilities = torch.cat([network.logits(part).softmax(1) for part in network.split(result)])
    return Fooled(
        originals=start,
        images=result,
        success=moved.done,
        confidence=probabilities.gather(1, chosen[:, None])[:, 0],
        l2=change.norm(dim=1),
        linf=change.abs().amax(1),
        steps=moved.steps,
    )


OVERSHOOT = 1.05
SHORTEST = 0.02  # shorter steps would be lost in the rounding to 8 bits


def _as_saved(images: Tensor, start: Tensor, ball: Ball | None) -> Tensor:
    """The images as 8-bit files hold them; where rounding would leave the ball, rounded towards `start`."""
    return pictures.quantize(images) if ball is None else ball.saved(images, start)


def _log_odds(network: Network, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """`log p_t - log (1 - p_t) = S_t - logsumexp of the other scores` `[N]`, and its gradient `[N, 3, H, W]`."""
    odds, gradients, start = [], [], 0
    with torch.enable_grad():
        for piece in network.split(images):
            own = targets[start : start + len(piece), None]
            start += len(piece)
            leaf = piece.detach().requires_grad_()
            logits = network.logits(leaf)
            others = logits.scatter(1, own, float("-inf")).logsumexp(1)
            value = logits.gather(1, own)[:, 0] - others
            gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
            odds.append(value.detach())
    return torch.cat(odds), torch.cat(gradients)
