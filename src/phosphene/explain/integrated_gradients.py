"""Integrated gradients.

    R = (I - I') * integral_0^1 d S_c / d I (I' + a (I - I')) da

The shares add up to the score's change from the baseline I' to the image (completeness): sum R = S_c(I) - S_c(I').
Sundararajan, Taly & Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, equation 1 and section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.explain.attribution import Attribution, attribution
from phosphene.explain.fill import Fill, filled
from phosphene.explain.pixels import one_gradient
from phosphene.explain.target import Aim, Target, aim_at, values
from phosphene.explain.variants import pairs
from phosphene.models import Network

MOST_STEPS = 1600


def integrated_gradients(
    network: Network,
    images: Tensor,
    target: Target,
    *,
    baseline: Fill = "black",
    steps: int = 50,
    tolerance: float | None = None,
) -> Attribution:
    """Gradients collected on the straight way from a baseline to the image, times that way.

    The integral is a Gauss-Legendre sum.

    Args:
        network: any network; a class target needs one that classifies.
        images: `[N, 3, H, W]` in [0, 1].
        target: classes or a unit, see `Target`; a unit's most active place is the one in the image itself.
        baseline: the image that says nothing: a fill (see `Fill`), a level of grey, or images `[N, 3, H, W]`.
        steps: points on the way.
        tolerance: take more points for the images whose completeness error is larger, as many as it calls for, up to 1600.

    Returns:
        Attribution with the shares `gradient [N, 3, H, W]`; `maps [N, H, W]` is their sum over the colours; `error [N]`
        is the completeness error |sum R - (S(I) - S(I'))| / |S(I) - S(I')|.

    Raises:
        PhospheneError: steps below 1, or a baseline of another shape.
        LabelError, LayerError: no such class or unit.
        NetworkError: NaN on the way.
    """
    if steps < 1:
        raise PhospheneError(f"{steps} steps: integrated gradients need at least 1")
    aim = aim_at(network, images, target, hold=True)
    images = images.detach().to(network.mean)
    start = filled(network, images, baseline)
    scores = values(network, images, aim)
    change = scores - values(network, start, aim)
    shares = _integrate(network, images, start, aim, steps)
    error = _error(shares, change)
    allowed = float("inf") if tolerance is None else tolerance
    for row in range(len(images)):
        own, taken = slice(row, row + 1), steps  # as for the image alone, whatever batch it is in
        while taken < MOST_STEPS and float(error[own].max()) > allowed:
            called_for = taken * float(error[own].max()) / max(allowed, 1e-12)  # the error falls with 1 / steps
            taken = min(MOST_STEPS, max(2 * taken, math.ceil(called_for / 50) * 50))
            shares[own] = _integrate(network, images[own], start[own], aim.of(own), taken)
            error[own] = _error(shares[own], change[own])
    return attribution("integrated-gradients", aim, shares.sum(2), scores, gradient=shares, error=error)


def _integrate(network: Network, images: Tensor, start: Tensor, aim: Aim, steps: int) -> Tensor:
    """`[N, K, 3, H, W]`."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    places, shares = torch.from_numpy((nodes + 1) / 2).to(images), torch.from_numpy(weights / 2).to(images)
    total = images.new_zeros((len(images), aim.width, *images.shape[1:]))
    for rows, numbers in pairs(network, images, steps):
        a = places[numbers][:, None, None, None]
        gradient, _ = one_gradient(network, start[rows] + a * (images[rows] - start[rows]), aim.of(rows))
        total.index_add_(0, rows.to(total.device), gradient * shares[numbers][:, None, None, None, None])
    return total * (images - start)[:, None]


def _error(shares: Tensor, change: Tensor) -> Tensor:
    """`[N, K]`: by which part of the score's change the shares miss it."""
    return (shares.double().sum((2, 3, 4)) - change).abs() / change.abs().double().clamp(min=1e-12)
