"""The attack of Carlini and Wagner: the smallest change in L2, by Adam, in a space where every point is a picture.

    x(w) = (tanh(w) + 1) / 2
    minimise over w    |x(w) - x0|_2^2 + c f(x(w)),    f(x) = max( z_y - max_{k != y} z_k, -confidence )

(targeted: f = max( max_{k != t} z_k - z_t, -confidence )). For each image c is looked for by binary search: the smallest
with which it still fools.

Carlini & Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, sections V and VI.A. Adam: Kingma &
Ba, ICLR 2015, Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks.ball import Norm
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

EDGE = 1 - 1e-6  # the tanh of an infinite w is 1: black and white begin a little inside
MANY = 10.0  # c grows so fast while nothing fools
STALLED = 0.9999  # within a tenth of the steps the lowest loss has to fall below this share of itself
BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8


def carlini_wagner(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None = None,
    norm: Norm = "l2",
    steps: int = 1000,
    step: float = 0.01,
    searches: int = 9,
    first: float = 1e-3,
    confidence: float = 0.0,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Look for the smallest change in L2. Within one search an image leaves when its loss has stopped falling.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: success is only what lies within it, one or `[N]`; None: as far as it takes.
        norm: only `l2`.
        steps: of Adam, at most, for each c.
        step: Adam's learning rate.
        searches: how many values of c each image gets.
        first: the first one.
        confidence: by how much the wrong class must lead.
        targets: `[N]`, the classes to reach; None: any but the label.
        seed, keys: not needed, here for attacks to be called alike.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: results are on the 8-bit lattice, and fool as such; the originals are rounded first. The network looks at
            the rounded image, Adam moves the one before.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or another norm than l2, steps or searches that are
            none, or a negative confidence.
    """
    checks.count(steps, "steps")
    checks.count(searches, "searches")
    checks.positive(step, "a step")
    checks.positive(first, "the first c")
    if norm != "l2":
        raise PhospheneError(f"the attack of Carlini and Wagner measures in l2 here, not in {norm}: take FAB for linf")
    if not 0 <= confidence < float("inf"):
        raise PhospheneError(f"a confidence is 0 or more, got {confidence}")
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
        yield Started("carlini-wagner", steps * searches)
        which = trial.open()
        search = Search.begin(len(which), first, trial.originals)
        for turn in range(searches):
            if not len(which):
                break
            hit = yield from _minimise(trial, which, search.c, steps, step, confidence, turn * steps)
            search = search.narrowed(hit)
        return trial.result()


@dataclass(frozen=True)
class Search:
    """The binary search for each image's c: `low` doesn't fool, `high` does, `c` comes next; `[n]` each."""

    low: Tensor
    high: Tensor
    c: Tensor

    @classmethod
    def begin(cls, count: int, first: float, like: Tensor) -> Search:
        """Nothing is known yet."""
        low = torch.zeros(count, dtype=like.dtype, device=like.device)
        return cls(low, low + torch.inf, low + first)

    def narrowed(self, hit: Tensor) -> Search:
        """After it is known which c fool `[n]`."""
        low, high = torch.where(hit, self.low, self.c), torch.where(hit, self.c, self.high)
        return Search(low, high, torch.where(high.isinf(), low * MANY, (low + high) / 2))


def _minimise(
    trial: Trial, which: Tensor, c: Tensor, steps: int, step: float, confidence: float, before: int
) -> Job[Tensor]:
    """Adam from the originals, with one c for each image `which` `[n]`; `[n]`, whether it fooled on the way."""
    hit = torch.zeros_like(c, dtype=torch.bool)
    here = torch.arange(len(which), device=which.device)  # places in `which` of what still moves
    w = torch.atanh((2 * trial.originals[which] - 1) * EDGE)
    first, second = torch.zeros_like(w), torch.zeros_like(w)
    lowest, last = torch.full_like(c, torch.inf), torch.full_like(c, torch.inf)

    def lead(logits: Tensor, own: Tensor) -> Tensor:
        return (-trial.margin(logits, own)).clamp(min=-confidence)

    for count in range(1, steps + 1):
        own = which[here]
        start, ball = trial.originals[own], trial.ball.at(own)
        change = ball.masked((torch.tanh(w) + 1) / 2 - start)
        shown = trial.shown(start + change, own)
        f, gradient, logits = trial.victim.gradient(shown, own, lead)
        if count == 1:
            trial.need_slope(gradient)
        hit[here] |= trial.offer_smallest(shown, own, logits, confidence)
        lowest[here] = lowest[here].minimum(change.square().flatten(1).sum(1) + c[here] * f)
        slope = 2 * change + c[here].view(-1, 1, 1, 1) * gradient
        slope = ball.masked(slope) * (1 - torch.tanh(w).square()) / 2
        first = BETA1 * first + (1 - BETA1) * slope
        second = BETA2 * second + (1 - BETA2) * slope.square()
        w = w - step * (first / (1 - BETA1**count)) / ((second / (1 - BETA2**count)).sqrt() + ADAM_EPS)
        yield Step(before + count, float(len(trial.open())), trial.images if w.shape[1] == 3 else None)
        if count % max(1, steps // 10) == 0:
            going = lowest[here] < STALLED * last[here]
            last = lowest.clone()
            here, w, first, second = here[going], w[going], first[going], second[going]
            if not len(here):
                break
    return hit
