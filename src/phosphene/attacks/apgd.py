"""APGD: projected gradient ascent that needs no step size.

    z       = P(x_k + eta g(x_k))
    x_{k+1} = P(x_k + a (z - x_k) + (1 - a) (x_k - x_{k-1})),    a = 0.75

g is the steepest direction of the score, P the projection onto the ball and [0, 1]. It begins with eta = 2 eps. At the
checkpoints w_0, w_1, ... an image's eta is halved, and the image goes back to the best point so far, if since the last one

    1. the score rose in fewer than rho = 75% of the steps, or
    2. eta was not halved then, and the best score has not become better.

Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks", ICML 2020,
Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from phosphene.attacks import checks, scores
from phosphene.attacks.ball import Norm
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.attacks.victim import Score
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

Loss: TypeAlias = Literal["ce", "dlr"]
LOSSES = {"ce": scores.cross_entropy, "dlr": scores.dlr}
ALPHA = 0.75
RHO = 0.75


def apgd(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 100,
    loss: Loss = "ce",
    restarts: int = 1,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Away from the label. An image leaves as soon as it is misread.

    Args:
        network: a network, or any module that takes images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius of the ball, for all images or `[N]`.
        norm: `linf` or `l2`.
        steps: of each run.
        loss: `ce` or `dlr` (the margin where there are fewer than 3 classes), see `scores`.
        restarts: how many runs, each from a random point of the ball.
        seed: of these points.
        keys, mask, quantize, probabilities: see `trial.attacked`.

    Raises:
        PhospheneError: images, labels, a ball or numbers that make no sense.
        NetworkError: a network without gradients, or with fewer than two classes.
    """
    if loss not in LOSSES:
        raise PhospheneError(f"unknown loss '{loss}': choose ce or dlr (apgd_targeted has the targeted dlr)")
    checks.count(steps, "steps")
    checks.count(restarts, "restarts")
    yield Started(f"apgd-{loss}", restarts * steps)
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

        def score(logits: Tensor, which: Tensor) -> Tensor:
            return LOSSES[loss](logits, trial.labels[which])

        for turn in range(restarts):
            yield from climb(trial, score, steps, turn)
        return trial.result()


def apgd_targeted(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 100,
    classes: int = 9,
    restarts: int = 1,
    patience: float | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """APGD-T: towards each of the likeliest other classes in turn, with the targeted DLR loss (paper, section 5).

    Whatever an image is misread as, it leaves. See `apgd` for the other arguments and errors.

    Args:
        classes: how many, the one that is likeliest in the original first; at most all but the label.
        patience: an image leaves a run at a checkpoint if so many times what it has gained since the last one would not fool
            the network. None: it never does.
    """
    if patience is not None:
        checks.positive(patience, "patience")
    checks.count(steps, "steps")
    checks.count(classes, "classes")
    checks.count(restarts, "restarts")
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
        towards = scores.likeliest(trial.logits, trial.labels, classes)
        yield Started("apgd-t", restarts * towards.shape[1] * steps)
        for turn in range(restarts * towards.shape[1]):
            goal = towards[:, turn % towards.shape[1]]

            def score(logits: Tensor, which: Tensor, goal: Tensor = goal) -> Tensor:
                return scores.dlr_targeted(logits, trial.labels[which], goal[which])

            yield from climb(trial, score, steps, turn, patience)
        return trial.result()


def checkpoints(steps: int) -> list[int]:
    """The steps w_j = ceil(p_j steps), without w_0 = 0:  p_1 = 0.22,  p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06)."""
    last, now, found = 0, 22, []  # in percent: whole numbers, so that ceil is exact
    while now <= 100:
        found.append(-(-now * steps // 100))
        last, now = now, now + max(now - last - 3, 6)
    return found


@dataclass
class Run:
    """What Algorithm 1 remembers of each image that is still running, all `[n, ...]`.

    Attributes:
        which: its place in the trial.
        x, before: where it is, and where it was.
        value, gradient: of the score at `x`.
        best, best_value, best_gradient: where the score was highest.
        eta: step size, `[n, 1, 1, 1]`.
        rises: steps since the last checkpoint that raised the score.
        halved: whether the last checkpoint halved eta.
        marked: the best score at the last checkpoint.
    """

    which: Tensor
    x: Tensor
    before: Tensor
    value: Tensor
    gradient: Tensor
    best: Tensor
    best_value: Tensor
    best_gradient: Tensor
    eta: Tensor
    rises: Tensor
    halved: Tensor
    marked: Tensor

    def only(self, kept: Tensor) -> Run:
        """The images that stay, `kept` `[n]`."""
        if bool(kept.all()):
            return self
        return Run(*(getattr(self, field.name)[kept] for field in fields(self)))

    def moved(self, x: Tensor, value: Tensor, gradient: Tensor) -> None:
        """A step has been taken to `x`."""
        self.rises += value > self.value
        self.before, self.x, self.value, self.gradient = self.x, x, value, gradient
        better = value > self.best_value
        where = better.view(-1, 1, 1, 1)
        self.best = torch.where(where, x, self.best)
        self.best_gradient = torch.where(where, gradient, self.best_gradient)
        self.best_value = torch.where(better, value, self.best_value)

    def hopeful(self, patience: float | None) -> Tensor:
        """`[n]`, whether `patience` times the gain since the last checkpoint would bring the score to 0."""
        if patience is None:
            return torch.ones_like(self.halved)
        return self.best_value + patience * (self.best_value - self.marked) >= 0

    def check(self, taken: int) -> None:
        """A checkpoint, `taken` steps after the last one."""
        stuck = ~self.halved & (self.best_value <= self.marked)
        self.halved = (self.rises < RHO * taken) | stuck
        self.marked = self.best_value
        self.rises = torch.zeros_like(self.rises)
        back = self.halved.view(-1, 1, 1, 1)
        self.eta = torch.where(back, self.eta / 2, self.eta)
        self.x = torch.where(back, self.best, self.x)
        self.gradient = torch.where(back, self.best_gradient, self.gradient)
        self.value = torch.where(self.halved, self.best_value, self.value)


def climb(trial: Trial, score: Score, steps: int, turn: int, patience: float | None = None) -> Job[None]:
    """One run of Algorithm 1 for all open images, from a random point. Run number `turn`.

    With `patience`, the score is above 0 where the network is fooled.

    Raises:
        NetworkError: the network's gradients are 0 everywhere.
    """
    which = trial.open()
    if len(which) == 0:
        return
    run = _begun(trial, score, which, turn)
    stops, last = checkpoints(steps), 0
    for step in range(steps):
        if len(run.which) == 0:
            return
        x = _next(trial, run, first=step == 0)
        value, gradient, fooled = _look(trial, x, run.which, score)
        run.moved(x, value, gradient)
        run = run.only(~fooled)
        if step + 1 in stops:
            hopeful = run.hopeful(patience)
            run.check(step + 1 - last)
            run, last = run.only(hopeful), step + 1
        yield Step(turn * steps + step + 1, float(len(run.which)))


def _begun(trial: Trial, score: Score, which: Tensor, turn: int) -> Run:
    originals, ball = trial.originals[which], trial.ball.at(which)
    x = trial.dice.inside(ball, originals, which, turn)
    value, gradient, fooled = _look(trial, x, which, score)
    eta = (2 * ball.radius(x)).expand(len(which), 1, 1, 1)
    no = torch.zeros_like(which)
    return Run(which, x, x, value, gradient, x, value, gradient, eta, no, no > 0, value).only(~fooled)


def _look(trial: Trial, x: Tensor, which: Tensor, score: Score) -> tuple[Tensor, Tensor, Tensor]:
    """`(score [n], gradient [n, C, H, W], whether it fools [n])` at `x`."""
    shown = trial.shown(x, which)
    value, gradient, logits = trial.victim.gradient(shown, which, score)
    trial.need_slope(gradient)
    return value, gradient, trial.offer(shown, which, logits)


def _next(trial: Trial, run: Run, *, first: bool) -> Tensor:
    originals, ball = trial.originals[run.which], trial.ball.at(run.which)
    step = ball.project(run.x + run.eta * ball.steepest(run.gradient), originals)
    if first:
        return step
    return ball.project(run.x + ALPHA * (step - run.x) + (1 - ALPHA) * (run.x - run.before), originals)
