"""RISE.

    R = 1 / (n p) sum_{i=1..n} f_c(I * M_i) M_i

M_i are random smooth masks: a coarse grid of cells that are open with probability p, enlarged bilinearly and shifted.
Petsiuk, Das & Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018, equation 6.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from phosphene.errors import PhospheneError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.health import refuse_nan
from phosphene.explain.target import Aim, Target, aim_at, scores
from phosphene.explain.variants import generator
from phosphene.models import Network


def rise(
    network: Network,
    images: Tensor,
    target: Target,
    *,
    masks: int = 2000,
    cells: int = 7,
    p: float = 0.5,
    seed: int = 0,
) -> Attribution:
    """Mean of random masks, each weighted by what the network says of the image seen through it.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`; a unit's most active place is the one in the image itself.
        masks: how many; the same ones for each image of a batch.
        cells: of a mask's grid, per side.
        p: probability that a cell is open, in (0, 1).
        seed: of the masks.

    Returns:
        Attribution with `maps [N, H, W]`, the expected value where the pixel is seen; `scores` are the probability of the
        class in the whole image (for a unit its activation). A map's level says little, its differences all: the least
        important pixel has about the mean over all masks.

    Raises:
        PhospheneError: fewer than one mask or cell, or p out of range.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    if masks < 1 or cells < 1 or not 0 < p < 1:
        raise PhospheneError(f"masks {masks}, cells {cells}, p {p}: give at least 1, 1 and a p between 0 and 1")
    aim = aim_at(network, images, target, hold=True)
    images = images.to(network.mean)
    size = (images.shape[-2], images.shape[-1])
    total = images.new_zeros((len(images), aim.width, size[0] * size[1]))
    for numbers in torch.arange(masks).split(network.batch_size(size)):
        chosen = torch.stack([_mask(size, cells, p, generator(seed, i)) for i in numbers.tolist()]).to(images)
        for row in range(len(images)):
            seen = _confidence(network, images[row] * chosen[:, None], aim.of(torch.full_like(numbers, row)))
            total[row] += seen.T @ chosen.flatten(1)
    whole = torch.cat(
        [_confidence(network, images[row, None], aim.of(slice(row, row + 1))) for row in range(len(images))]
    )
    maps = (total / (masks * p)).unflatten(2, size)
    return attribution("rise", aim, maps, whole)


def _mask(size: tuple[int, int], cells: int, p: float, random: torch.Generator) -> Tensor:
    """One mask `[H, W]` in [0, 1]."""
    cell = [math.ceil(side / cells) for side in size]
    grid = (torch.rand(1, 1, cells, cells, generator=random) < p).float()
    grown = F.interpolate(grid, [(cells + 1) * side for side in cell], mode="bilinear", align_corners=False)[0, 0]
    top, left = (int(torch.randint(side, (), generator=random)) for side in cell)
    return grown[top : top + size[0], left : left + size[1]]


def _confidence(network: Network, images: Tensor, aim: Aim) -> Tensor:
    """`[N, K]`: the classes' probabilities, or the unit's activation."""
    with torch.inference_mode(False), torch.no_grad():
        if aim.classes is not None:
            found = network.logits(images).softmax(1).gather(1, aim.classes)
        else:
            found = scores(network, images, aim)
    if not bool(torch.isfinite(found).all()):
        refuse_nan(network, images)
    return found
