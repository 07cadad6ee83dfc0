"""What attacks climb: a score of the logits `[n, classes]` that is the higher, the nearer an image is to being misread.

    margin      max_{i != y} z_i - z_y
    CE          log sum_i exp z_i - z_y
    DLR         margin / (z_(1) - z_(3))
    targeted    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2)

z_(1) >= z_(2) >= ... are the sorted logits. DLR is the difference of logits ratio of Croce & Hein, "Reliable evaluation of
adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020, eqs. 6 and 7: unlike CE it stays the
same when the logits are shifted or scaled. It needs 3 classes, targeted 4; with fewer, its numerator is what is left.
"""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-12


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """`[n]`, how far the best other class is above the label; positive where the image is misread."""
    return _others(logits, labels).amax(1) - _own(logits, labels)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """`[n]`. As softplus(log sum_{i != y} exp z_i - z_y), whose gradient doesn't vanish when p_y rounds to 1."""
    return torch.nn.functional.softplus(_others(logits, labels).logsumexp(1) - _own(logits, labels))


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """`[n]`, eq. 6; the margin where there are fewer than 3 classes."""
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp(min=TINY)


def dlr_targeted(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """`[n]`, eq. 7; `z_t - z_y` where there are fewer than 4 classes."""
    gap = difference(logits, labels, targets)
    if logits.shape[1] < 4:
        return gap
    top = logits.topk(4, dim=1).values
    return gap / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp(min=TINY)


def difference(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """`[n]`, `z_t - z_y`."""
    return _own(logits, targets) - _own(logits, labels)


def likeliest(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """`[n, count]`, the classes other than the label, the likeliest first; fewer where there are fewer."""
    return _others(logits, labels).topk(min(count, logits.shape[1] - 1), dim=1).indices


def _own(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None])[:, 0]


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.scatter(1, labels[:, None], float("-inf"))
