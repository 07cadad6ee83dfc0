"""Deletion and insertion.

Pixels are taken away, or shown, in the order of importance that the map claims; p_k is the probability of the class after
the fraction k/n of all pixels:

    AUC = 1/n sum_{k=1..n} (p_{k-1} + p_k) / 2

If the map is right, taking its first pixels away makes the probability fall early (a small deletion AUC), and showing
them makes it rise early (a large insertion AUC).

Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.fill import Fill, filled
from phosphene.explain.metrics.evidence import check
from phosphene.explain.metrics.probability import one_class, probability
from phosphene.explain.target import Target
from phosphene.explain.variants import pairs
from phosphene.models import Network

STEPS = 28


@dataclass(frozen=True, eq=False)
class Curve:
    """`probabilities [N, n + 1]`: of the class, after 0, 1/n, ..., 1 of the pixels; float64."""

    probabilities: Tensor

    @property
    def auc(self) -> Tensor:
        """Area under the curve by the trapezoid rule over fractions from 0 to 1, `[N]` in [0, 1]."""
        return torch.trapezoid(self.probabilities, dx=1 / (self.probabilities.shape[1] - 1))


def deletion(
    network: Network, images: Tensor, target: Target, maps: Tensor, *, steps: int = STEPS, fill: Fill = "mean"
) -> Curve:
    """Take pixels away, the most important first.

    Args:
        network: a network that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: one class for all images or one per image.
        maps: `[N, H, W]`, any sign: only the order of a map's values counts. Equal values go in reading order.
        steps: n, the equal steps from the image to nothing.
        fill: what stands where a pixel is gone: the image's mean colour, or any other `Fill`.

    Raises:
        PhospheneError: maps of another shape or not finite, fewer than one step, an unknown fill.
        LabelError: no such class, or not one per image.
        NetworkError: a network without classes; NaN on the way.
    """
    return _walk(network, images, filled(network, images, fill), target, maps, steps)


def insertion(
    network: Network, images: Tensor, target: Target, maps: Tensor, *, steps: int = STEPS, fill: Fill = "blur"
) -> Curve:
    """Show pixels on a canvas that says nothing (a blurred copy of the image), the most important first.

    Arguments and errors as for `deletion`; `fill` is the canvas.
    """
    return _walk(network, filled(network, images, fill), images, target, maps, steps)


def order(maps: Tensor) -> Tensor:
    """`[N, H * W]`: the pixels (in reading order from 0) from the most to the least important."""
    check(maps)
    return maps.flatten(1).argsort(dim=1, descending=True, stable=True)


def _walk(network: Network, start: Tensor, end: Tensor, target: Target, maps: Tensor, steps: int) -> Curve:
    """The probabilities on the way from `start` to `end`, pixel after pixel."""
    check(maps, len(start))
    if steps < 1 or maps.shape[1:] != start.shape[2:]:
        raise PhospheneError(
            f"{steps} steps, maps {list(maps.shape)} for images {list(start.shape)}: give at least 1 step and maps of"
            " the images' size"
        )
    classes = one_class(network, start, target)
    start, end = start.to(network.mean), end.to(network.mean)
    turn = order(maps.to(start.device)).argsort(1).view(maps.shape)  # when each pixel's turn comes
    found = []
    for rows, numbers in pairs(network, start, steps + 1):
        reached = (numbers * turn[0].numel() / steps).round().to(turn.device)
        done = turn[rows] < reached[:, None, None]
        found.append(probability(network, torch.where(done[:, None], end[rows], start[rows]), classes[rows]))
    return Curve(torch.cat(found).view(len(start), steps + 1))
