"""SmoothGrad.

    G = 1/n sum_{i=1..n} d S_c / d I (I + e_i),    e_i ~ N(0, sigma^2)

Smilkov, Thorat, Kim, Viegas & Wattenberg, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.pixels import one_gradient
from phosphene.explain.target import Target, aim_at, values
from phosphene.explain.variants import generator, pairs
from phosphene.models import Network


def smoothgrad(
    network: Network, images: Tensor, target: Target, *, samples: int = 25, sigma: float = 0.15, seed: int = 0
) -> Attribution:
    """Mean gradient over noisy copies of the image, which evens out the roughness of the score.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`; a unit's most active place is the one in the image without noise.
        samples: how many noisy copies.
        sigma: standard deviation of the noise, as a share of each image's range, max - min.
        seed: of the noise, which is the same for each image of a batch.

    Returns:
        Attribution with the mean `gradient [N, 3, H, W]`; `maps [N, H, W]` is its sum over the colours. `scores` are
        those of the image without noise.

    Raises:
        PhospheneError: samples below 1 or a negative sigma.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    if samples < 1 or not 0 <= sigma < float("inf"):
        raise PhospheneError(f"samples {samples}, sigma {sigma}: give at least 1 sample and a sigma of 0 or more")
    aim = aim_at(network, images, target, hold=True)
    images = images.to(network.mean)
    spread = sigma * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
    total = images.new_zeros((len(images), aim.width, *images.shape[1:]))
    for rows, numbers in pairs(network, images, samples):
        noise = torch.stack([torch.randn(images.shape[1:], generator=generator(seed, i)) for i in numbers.tolist()])
        noisy = images[rows] + spread[rows] * noise.to(images)
        total.index_add_(0, rows.to(total.device), one_gradient(network, noisy, aim.of(rows))[0])
    gradient = total / samples
    return attribution("smoothgrad", aim, gradient.sum(2), values(network, images, aim), gradient=gradient)
