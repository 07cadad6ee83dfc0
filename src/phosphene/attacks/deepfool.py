"""DeepFool: walk to the nearest boundary of a network that is straightened at each step.

    f_k = z_k - z_y,    w_k = grad f_k                        for each class k
    l   = argmin_k |f_k| / |w_k|_2                            the nearest boundary
    r   <- r + |f_l| / |w_l|_2^2  w_l,    x = x0 + (1 + overshoot) r

Moosavi-Dezfooli, Fawzi & Frossard, "DeepFool: a simple and accurate method to fool deep neural networks", CVPR 2016,
Algorithm 2. The boundaries are looked for among the likeliest classes, as in the authors' code. The paper knows no [0, 1]:
x is clamped, and after a few steps values that are black or white and would go on are left out of w_k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks.ball import TINY, Norm, lengths
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked, slack
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

PLAIN = 3  # steps; with none, changes of digits are 5% larger, with 25, they take three times the passes


def deepfool(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None = None,
    norm: Norm = "l2",
    steps: int = 50,
    overshoot: float = 0.02,
    candidates: int = 10,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Look for the smallest change in L2. An image leaves as soon as it fools.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: success is only what lies within it, one or `[N]`; None: as far as it takes.
        norm: only `l2`.
        steps: at most.
        overshoot: how much further than to the boundary.
        candidates: among how many classes the nearest boundary is looked for; each costs a backward pass a step.
        targets: `[N]`, the classes to reach, whose boundary with the leading class is walked to; None: any but the label.
        seed, keys: not needed, here for attacks to be called alike.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: results are on the 8-bit lattice, and fool as such; the originals are rounded first.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or another norm than l2, steps or candidates that are
            none, or a negative overshoot.
    """
    checks.count(steps, "steps")
    checks.count(candidates, "candidates")
    if norm != "l2":
        raise PhospheneError(f"DeepFool measures in l2 here, not in {norm}: take FAB for the smallest change in linf")
    if not 0 <= overshoot < math.inf:
        raise PhospheneError(f"an overshoot is 0 or more, got {overshoot}")
    with attacked(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        targets=targets,
        seed=seed,
        keys=keys,
        mask=mask,
        quantize=quantize,
        probabilities=probabilities,
    ) as trial:
        yield Started("deepfool", steps)
        yield from _walk(trial, steps, overshoot, candidates)
        return trial.result()


def _walk(trial: Trial, steps: int, overshoot: float, candidates: int) -> Job[None]:
    rivals = _likeliest(trial, candidates)
    which = trial.open()
    x = trial.originals[which]
    way = torch.zeros_like(x)  # r
    for step in range(steps):
        if not len(which):
            break
        shown = trial.shown(x, which)
        gaps, slopes, logits = trial.victim.jacobian(shown, which, lambda z, own: _gaps(trial, z, own, rivals))
        trial.need_slope(slopes)
        standing = ~trial.offer(shown, which, logits)
        which, way = which[standing], way[standing]
        start, ball = trial.originals[which], trial.ball.at(which)
        slopes = ball.masked(slopes[standing])
        if step >= PLAIN:  # the plain way ends nearer, but what clamping takes from it may keep it from ending at all
            slopes = _free(slopes, x[standing])
        way = way + _nearest(gaps[standing] - slack(logits[standing])[:, None], slopes)
        way = (start + way).clamp(0, 1) - start  # what can't be gone is not remembered
        x = ball.project(start + (1 + overshoot) * way, start)
        yield Step(step + 1, float(len(which)), trial.images if x.shape[1] == 3 else None)
    if len(which):
        trial.look(trial.shown(x, which), which)


def _likeliest(trial: Trial, candidates: int) -> Tensor:
    """`[N, K]`, the classes that lead in the originals, the label left out."""
    others = trial.logits.scatter(1, trial.labels[:, None], -torch.inf)
    return others.topk(min(candidates, others.shape[1] - 1), dim=1).indices


def _gaps(trial: Trial, logits: Tensor, which: Tensor, rivals: Tensor) -> Tensor:
    """`f` `[n, K]`, negative while the boundary is still ahead: each rival's lead (targeted: that of the target)."""
    if trial.targets is not None:
        return trial.margin(logits, which)[:, None]
    return logits.gather(1, rivals[which]) - logits.gather(1, trial.labels[which][:, None])


def _free(slopes: Tensor, x: Tensor) -> Tensor:
    """The slopes `[n, K, C, H, W]`, 0 where a value of `x` `[n, C, H, W]` is black or white and would leave [0, 1]."""
    x = x[:, None]
    return torch.where(((x <= 0) & (slopes < 0)) | ((x >= 1) & (slopes > 0)), 0.0, slopes)


def _nearest(gaps: Tensor, slopes: Tensor) -> Tensor:
    """The step `[n, C, H, W]` to the nearest of the boundaries, `gaps` `[n, K]` and `slopes` `[n, K, C, H, W]`.

    Where no gap can be closed, because each slope is 0, the step is 0.
    """
    steepness = lengths(slopes.flatten(0, 1)).to(gaps).view_as(gaps)
    distance = torch.where(steepness > TINY, gaps.abs() / steepness.clamp(min=TINY), torch.inf)
    best = distance.argmin(1)
    rows = torch.arange(len(gaps), device=gaps.device)
    length, steep = distance[rows, best], steepness[rows, best].clamp(min=TINY)
    share = torch.where(length.isfinite(), length / steep, 0.0)
    return share.view(-1, 1, 1, 1) * slopes[rows, best]
