"""FAB: the smallest change that is misread, by projections onto the decision boundary as it looks from here.

The network is taken for linear at x_i; pi is the plane where the label and another class are level there (the class whose
plane is nearest, or one target). With d = proj(x_i) - x_i and d0 = proj(x) - x, projections of here and of the original x
onto pi and the box [0, 1] (`plane`),

    a       = min(|d| / (|d| + |d0|), alpha_max)
    x_{i+1} = clip( (1 - a) (x_i + eta d) + a (x + eta d0) ),      eta = 1.05

so that it overshoots a little and is drawn to the original. A point that is misread is kept if it is the nearest so far, and
the search goes on from  x + beta (x_{i+1} - x), beta = 0.9.

Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from phosphene.attacks import checks, plane, scores
from phosphene.attacks.ball import TINY, Ball, Norm
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked, slack
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

ALPHA_MAX = 0.1
ETA = 1.05
BETA = 0.9
FINAL = 3
PHASE = 5  # steps after which hope is looked at
BARREN = 20  # steps after which an image that has not been misread once is given up; it took 8 where it happened at all
WIDE = {"linf": 0.3, "l2": 2.0}  # how far off a restart may begin where nothing has fooled and there is no eps


def fab(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None = None,
    norm: Norm = "linf",
    steps: int = 100,
    classes: int = 9,
    restarts: int = 1,
    final: bool = True,
    patience: float | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Towards the nearest of the other classes, chosen anew in each step; a gradient for each class and step.

    Args:
        network: a network, or any module that takes images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: None: the smallest change that is found. Else the radius of a ball, for all images or `[N]`: an image leaves as
            soon as it is fooled inside, and is given back as it was if it never is.
        norm: which size is to be small, `linf` or `l2`.
        steps: of each run.
        classes: only so many other classes are looked at, the likeliest in the original; 9 are all of ten.
        restarts: how many runs, the first from the original, the others from random points near it.
        final: search the line to the original in the end (paper, section 3.2); with eps it would change nothing.
        patience: with eps, an image leaves a run if so many times what the last five steps have brought it nearer would not
            bring it into its ball, or if twenty steps have not made it misread at all. None: it never does.
        seed: of the restarts.
        keys, mask, quantize, probabilities: see `trial.attacked`.

    Raises:
        PhospheneError: images, labels, a ball or numbers that make no sense.
        NetworkError: a network without gradients, or with fewer than two classes.
    """
    _check(steps, classes, restarts, patience)
    yield Started("fab", restarts * steps)
    with attacked(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        seed=seed,
        keys=keys,
        mask=mask,
        quantize=quantize,
        probabilities=probabilities,
    ) as trial:
        others = scores.likeliest(trial.logits, trial.labels, classes)
        for restart in range(restarts):
            yield from _run(trial, others, steps, restart, restart * steps, patience)
        return _ended(trial, final)


def fab_targeted(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None = None,
    norm: Norm = "linf",
    steps: int = 100,
    classes: int = 9,
    restarts: int = 1,
    final: bool = True,
    patience: float | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """FAB-T: towards one class at a time, which takes one gradient a step however many classes there are.

    Whatever an image is misread as counts. See `fab` for the other arguments and errors.

    Args:
        classes: how many, the one that is likeliest in the original first; at most all but the label.
    """
    _check(steps, classes, restarts, patience)
    with attacked(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        seed=seed,
        keys=keys,
        mask=mask,
        quantize=quantize,
        probabilities=probabilities,
    ) as trial:
        towards = scores.likeliest(trial.logits, trial.labels, classes).split(1, dim=1)
        yield Started("fab-t", restarts * len(towards) * steps)
        for number, goal in enumerate(list(towards) * restarts):
            yield from _run(trial, goal, steps, number // len(towards), number * steps, patience)
        return _ended(trial, final)


def _check(steps: int, classes: int, restarts: int, patience: float | None) -> None:
    checks.count(steps, "steps")
    checks.count(classes, "classes")
    checks.count(restarts, "restarts")
    if patience is not None:
        checks.positive(patience, "patience")


def _run(
    trial: Trial, classes: Tensor, steps: int, restart: int, before: int, patience: float | None = None
) -> Job[None]:
    """Algorithm 1 for all that are not fooled inside their ball, from the original or (`restart` > 0) a random point.

    A step looks at the new point once, for what it is read as and for the next plane; only a point that was misread, and is
    moved back, is looked at twice.
    """
    which = _hunted(trial)
    if len(which) == 0:
        return
    x = _start(trial, which, restart)
    near = last = torch.full_like(x[:, 0, 0, 0], torch.inf)
    for step in range(steps):
        value, gradient, misread, gone = _look(trial, x, which, classes)
        near = torch.where(misread, near.minimum(_size(trial, x, which)), near)
        if patience is not None and step and step % PHASE == 0:
            gone |= _hopeless(near, last, trial.ball.at(which).radius(x).view(-1), patience, step)
            last = near
        if bool(gone.any()):
            parts = (x, which, value, gradient, misread, near, last)
            x, which, value, gradient, misread, near, last = (one[~gone] for one in parts)
        if len(which) == 0:
            return
        if bool(misread.any()):
            origin = trial.originals[which[misread]]
            x[misread] = origin + BETA * (x[misread] - origin)
            value[misread], gradient[misread], _ = _plane(trial, x[misread], which[misread], classes)
        x = _next(trial.originals[which], x, value, gradient, trial.ball.at(which))
        yield Step(before + step + 1, float(len(which)))
    shown = trial.shown(x, which)
    trial.offer_smallest(shown, which, trial.victim.logits(shown, which))


def _hopeless(near: Tensor, last: Tensor, radius: Tensor, patience: float, step: int) -> Tensor:
    """`[n]`; `near` and `last`: how far the nearest misread point is, and was a phase ago, infinity where there is none."""
    slow = last.isfinite() & (near - patience * (last - near) > radius)
    return slow | (near.isinf() & radius.isfinite() & (step >= BARREN))


def _size(trial: Trial, x: Tensor, which: Tensor) -> Tensor:
    return trial.ball.size(x - trial.originals[which])


def _hunted(trial: Trial) -> Tensor:
    """Places of the images that are not fooled yet, and of those that look for a smaller change."""
    return (~trial.wrong & ~(trial.fooled & _finite(trial))).nonzero()[:, 0]


def _finite(trial: Trial) -> Tensor:
    """`[N or 1]`, whether there is a radius."""
    return trial.ball.radius(trial.originals).view(-1).isfinite()


def _start(trial: Trial, which: Tensor, restart: int) -> Tensor:
    """The originals, or random points within half the smallest change so far (or half the radius)."""
    originals, ball = trial.originals[which], trial.ball.at(which)
    if restart == 0:
        return originals.clone()
    so_far = torch.where(trial.fooled[which], _size(trial, trial.images[which], which), torch.inf)
    reach = ball.radius(originals).view(-1).minimum(so_far)
    reach = torch.where(reach.isfinite(), reach, WIDE[ball.norm]) / 2
    return trial.dice.inside(replace(ball, eps=reach), originals, which, restart)


def _look(trial: Trial, x: Tensor, which: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The plane `(value [n], gradient [n, C, H, W])`, whether `x` is misread `[n]`, and whether it is done `[n]`."""
    value, gradient, logits = _plane(trial, x, which, classes)
    fools = trial.offer_smallest(trial.shown(x, which), which, logits)
    misread = scores.margin(logits, trial.labels[which]) > 0
    return value, gradient, misread, fools & trial.ball.at(which).radius(x).view(-1).isfinite()


def _plane(trial: Trial, x: Tensor, which: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(z_s - z_y [n], its gradient [n, C, H, W], logits)` for the class s among `classes` `[N, k]` whose plane is nearest.

    That is the one of the smallest  |z_s - z_y| / |gradient|_q,  with q the dual norm.
    """

    def differences(logits: Tensor, own: Tensor) -> Tensor:
        return logits.gather(1, classes[own]) - logits.gather(1, trial.labels[own, None])

    values, gradients, logits = trial.victim.jacobian(trial.shown(x, which), which, differences)
    trial.need_slope(gradients[:, 0])
    if values.shape[1] == 1:
        return values[:, 0], gradients[:, 0], logits
    slopes = gradients.flatten(2).norm(1 if trial.ball.norm == "linf" else 2, dim=2)
    nearest = (values.abs() / slopes.clamp(min=TINY)).argmin(1)
    rows = torch.arange(len(x), device=x.device)
    return values[rows, nearest], gradients[rows, nearest], logits


def _next(originals: Tensor, x: Tensor, value: Tensor, gradient: Tensor, ball: Ball) -> Tensor:
    """The step of the formula, `[n, C, H, W]`."""
    norm, weights = ball.norm, ball.masked(gradient).flatten(1)
    here, home = x.flatten(1), originals.flatten(1)
    at_home = value + (weights * (home - here)).sum(1)
    both = plane.project(torch.cat([here, home]), weights.repeat(2, 1), torch.cat([value, at_home]), norm)
    size, size_home = both.norm(torch.inf if norm == "linf" else 2, dim=1).clamp(min=TINY).chunk(2)
    share = (size / (size + size_home)).clamp(max=ALPHA_MAX)[:, None]
    change, change_home = both.chunk(2)
    moved = (1 - share) * (here + ETA * change) + share * (home + ETA * change_home)
    moved = moved.clamp(0, 1).view_as(x)
    return moved if ball.mask is None else torch.where(ball.mask > 0, moved, originals)  # a sum of parts may round


def _ended(trial: Trial, final: bool) -> Result:
    which = (trial.fooled & ~_finite(trial)).nonzero()[:, 0]
    if final and len(which):
        _shorten(trial, which)
    return trial.result()


def _shorten(trial: Trial, which: Tensor) -> None:
    """The final search: where the line from the original to the misread point crosses the boundary, by regula falsi.

    It aims a hair beyond the boundary, at a margin that is believed.
    """
    labels = trial.labels[which]
    inner, outer = trial.originals[which], trial.images[which]
    inside = scores.margin(trial.logits[which], labels)
    logits = trial.victim.logits(outer, which)
    outside, aim = scores.margin(logits, labels), 2 * slack(logits)
    for _ in range(FINAL):
        share = ((outside - aim) / (outside - inside).clamp(min=TINY)).clamp(0, 1).view(-1, 1, 1, 1)
        middle = trial.shown(outer + share * (inner - outer), which)
        logits = trial.victim.logits(middle, which)
        trial.offer_smallest(middle, which, logits)
        found = scores.margin(logits, labels)
        misread = found > 0
        side = misread.view(-1, 1, 1, 1)
        outer, inner = torch.where(side, middle, outer), torch.where(side, inner, middle)
        outside, inside = torch.where(misread, found, outside), torch.where(misread, inside, found)
