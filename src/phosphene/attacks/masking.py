"""Is a network robust, or do its gradients lead nowhere? An attack that is blind to them finds little, and that looks alike.

    zero-gradients   the cross-entropy (or even the odds, which attacks here climb) has a gradient that is exactly 0, or none
    random-outputs   the same images, shown twice, give other logits
    slope            over a tiny step, the loss rises by what its gradient says
    uphill           one of PGD's steps raises the loss more than a random one of its size
    more-steps       many steps break no less than a few, or a single one
    whole-range      where any picture is allowed, every image breaks
    black-box        PGD breaks no less than Square, which needs no gradient

A check fails on what is seen in many images, and more often than by chance (a binomial test, one-sided, at 5%):

- zero-gradients: in more than 5% of them (an exact 0 is no chance);
- random-outputs: in any, by more than rounding;
- slope: the median of  rise / predicted rise  lies outside of [1/4, 4]. (Where pooling meets equal pixels, such as MNIST's
  black ones, it is 0.6 for honest networks.)  Images whose rise drowns in float32's rounding are left out;
- uphill: in fewer than 90%; whole-range: fewer than 95% break;
- more-steps, black-box: what only the weaker attack breaks outnumbers what only PGD breaks, by 10% of all images and more
  than heads outnumber tails (McNemar's exact test), which takes 5 images at least. Random search finds a few percent more in
  networks that were honestly hardened, too: 5% in MNIST's at 0.3, with 5,000 queries.

That more steps don't break more is no fault: PGD may have arrived. And nothing here proves that a network is robust: the last
word has an attack that was made for it.

Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of security: circumventing defenses to adversarial
examples", ICML 2018, section 3.1; Carlini et al., "On evaluating adversarial robustness", 2019, arXiv:1902.06705, section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.attacks import checks
from phosphene.attacks.ball import Norm
from phosphene.attacks.fgsm import fgsm
from phosphene.attacks.pgd import REACH, pgd
from phosphene.attacks.result import Result
from phosphene.attacks.square import square
from phosphene.attacks.trial import Trial, attacked
from phosphene.attacks.victim import NO_GRADIENT
from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

FEW = 0.05  # a share of images with a gradient of 0 that is no alarm
CLEARLY = 0.1  # of the images are what another attack must break beyond PGD
LEVEL = 0.05  # of the tests whether something is more than chance
BROKEN = 0.95  # of the images break where any picture is allowed
BETTER = 0.9  # of the images rise more along their gradient than along a random direction
AGREES = 4.0  # how many times more, or less, than predicted the loss may rise
TINY = 0.01  # of the radius: the step over which that is asked,
GREY = 0.1 / 255  # and at most so much for each value: farther off, honest networks bend, too
VISIBLE = 3e-4  # of the largest logit: a rise that float32's rounding doesn't hide
SAME = 1e-4  # of the largest logit: what rounding changes at most when the network is asked again
PATIENCE = 10.0  # of Square, as in AutoAttack

DIFFERENTIABLE = "give attacks a differentiable stand-in for the step that breaks it (BPDA)"


@dataclass(frozen=True)
class Finding:
    """What one check has seen.

    Attributes:
        name: of the check.
        passed: nothing speaks for masked gradients; true, too, where it was not checked.
        value: what was measured; None: not checked.
        words: a sentence: what was seen; where it failed, what it means and what to do.
    """

    name: str
    passed: bool
    value: float | None
    words: str


@dataclass(frozen=True)
class Masking:
    """What all checks have seen.

    Attributes:
        findings: one for each check, in their order.
        images: how many of the images the network sees rightly; only these are looked at.
    """

    findings: tuple[Finding, ...]
    images: int

    @property
    def masked(self) -> bool:
        """Whether a check failed: robust accuracies by gradients alone are not to be trusted."""
        return not all(finding.passed for finding in self.findings)


def masking(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 40,
    queries: int = 1000,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    probabilities: bool = False,
) -> Job[Masking]:
    """Look for signs of masked gradients on images that the network sees rightly. Some 50 to 100 tell enough.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1], one or `[N]`, above 0: the one that robustness is claimed for.
        norm: `linf` or `l2`.
        steps: of PGD.
        queries: of Square.
        seed: decides all random numbers.
        keys: `[N]`, what to draw them by instead of the images' values.
        probabilities: the network gives probabilities, and that is known.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or numbers that make no sense, or no image that the
            network sees rightly.
    """
    checks.positive(eps, "a radius")
    checks.count(steps, "steps")
    checks.count(queries, "queries")
    shared = {"eps": eps, "norm": norm, "seed": seed, "keys": keys, "probabilities": probabilities}
    with attacked(network, images, labels, **shared) as trial:
        case = _Case(trial, trial.open(), seed, keys)
        if not len(case.which):
            raise PhospheneError(f"none of the {len(images)} images is seen rightly, so that nothing can be masked")
        yield Started("gradients", 4)
        slopes = _slopes(case)
        yield Step(1)
        random = _random_outputs(case)
        yield Step(2)
        blind = _blind(slopes)
        why = blind or ("" if random.passed else "the network's noise would be taken for its slope")
        slope = _skipped("slope", why) if why or slopes is None else _slope(case, slopes)
        yield Step(3)
        uphill = _skipped("uphill", why) if why or slopes is None else _uphill(case, slopes, steps)
        yield Step(4)
        none = torch.zeros_like(case.which, dtype=torch.bool)
        climbed = none if blind else (yield from case.broken(pgd, steps=steps))
        more = _skipped("more-steps", blind) if blind else (yield from _more_steps(case, climbed, steps))
        whole = _skipped("whole-range", blind) if blind else (yield from _whole_range(case, steps))
        black = yield from _black_box(case, climbed, queries)
        findings = (_zero_gradients(case, slopes), random, slope, uphill, more, whole, black)
        return Masking(findings, len(case.which))


@dataclass(frozen=True)
class _Case:
    """The images that are seen rightly: `which` `[n]` of the trial."""

    trial: Trial
    which: Tensor
    seed: int
    keys: Sequence[int | str] | None

    def broken(self, attack: Callable[..., Job[Result]], **options: Any) -> Job[Tensor]:
        """`[n]`, which images an attack breaks; none, where it finds no gradient. `options`: other than the trial's."""
        ball, victim = self.trial.ball.at(self.which), self.trial.victim
        keys = None if self.keys is None else [self.keys[place] for place in self.which.tolist()]
        usual = {"eps": ball.eps, "norm": ball.norm, "seed": self.seed, "keys": keys}
        images, labels = self.trial.originals[self.which], self.trial.labels[self.which]
        given = usual | {"probabilities": victim.probabilities} | options
        try:
            found = yield from attack(victim.network, images, labels, **given)
        except NetworkError as problem:
            if str(problem) != NO_GRADIENT:
                raise
            return torch.zeros_like(self.which, dtype=torch.bool)
        return found.success

    def odds(self, images: Tensor) -> Tensor:
        """`[n]`, the loss of the images `[n, C, H, W]`."""
        return self.trial.odds(self.trial.victim.logits(images, self.which), self.which)


@dataclass(frozen=True)
class _Slopes:
    """Gradients at the images: whether the cross-entropy has one `[n]`, that of the odds `[n, C, H, W]`, and their values."""

    cross_entropy: Tensor
    gradient: Tensor
    odds: Tensor
    logits: Tensor

    @property
    def climbs(self) -> Tensor:
        """`[n]`, whether the odds have a gradient."""
        return self.gradient.flatten(1).any(1)


def _slopes(case: _Case) -> _Slopes | None:
    """None: the network can't be differentiated."""
    trial, which = case.trial, case.which

    def scores(logits: Tensor, own: Tensor) -> Tensor:
        usual = F.cross_entropy(logits, trial.labels[own], reduction="none")
        return torch.stack([usual, trial.odds(logits, own)], 1)

    try:
        values, gradients, logits = trial.victim.jacobian(trial.originals[which], which, scores)
    except NetworkError as problem:
        if str(problem) != NO_GRADIENT:
            raise
        return None
    return _Slopes(gradients[:, 0].flatten(1).any(1), gradients[:, 1], values[:, 1], logits)


def _blind(slopes: _Slopes | None) -> str:
    """Why attacks by gradients can't even begin; empty: they can."""
    if slopes is None:
        return "the network has no gradient with respect to the image"
    return "" if bool(slopes.climbs.any()) else "every gradient is 0"


def _skipped(name: str, why: str) -> Finding:
    return Finding(name, True, None, f"not checked: {why}")


def _zero_gradients(case: _Case, slopes: _Slopes | None) -> Finding:
    name, count = "zero-gradients", len(case.which)
    if slopes is None:
        words = f"the network has no gradient with respect to the image: attack it with Square, or {DIFFERENTIABLE}"
        return Finding(name, False, 1.0, words)
    flat, dead = int((~slopes.cross_entropy).sum()), int((~slopes.climbs).sum())
    share = max(flat, dead) / count
    if share <= FEW:
        return Finding(name, True, share, f"the cross-entropy has a gradient in {count - flat} of {count} images")
    if dead / count > FEW:
        words = (
            f"the gradient is 0 or NaN in {dead} of {count} images, whatever the loss, so that attacks can't move there:"
            f" attack with Square, or {DIFFERENTIABLE}"
        )
        return Finding(name, False, share, words)
    words = (
        f"the gradient of the cross-entropy is 0 or NaN in {flat} of {count} images (of the odds: {dead}): its softmax is"
        " saturated, which blinds attacks that climb it; attack with a loss that stays steep, such as the odds or DLR"
    )
    return Finding(name, False, share, words)


def _random_outputs(case: _Case) -> Finding:
    """The whole batch is shown again: in the same pieces, even rounding is the same."""
    trial = case.trial
    again = trial.victim.logits(trial.originals, torch.arange(len(trial.originals)))
    off = (again - trial.logits).abs().amax(1) / trial.logits.abs().amax(1).clamp(min=1e-12)
    worst, count = float(off.max()), int((off > SAME).sum())
    if not count:
        return Finding("random-outputs", True, worst, "the same images give the same logits again")
    words = (
        f"{count} of {len(off)} images give other logits when they are shown again, by up to {worst:.0%} of the largest: the"
        " network is random, and one gradient is one draw; attack the mean over many draws (EOT)"
    )
    return Finding("random-outputs", False, worst, words)


def _slope(case: _Case, slopes: _Slopes) -> Finding:
    start, ball = case.trial.originals[case.which], case.trial.ball.at(case.which)
    most = GREY * (1.0 if ball.norm == "linf" else math.sqrt(start[0].numel()))
    moved = (start + (TINY * ball.radius(start)).clamp(max=most) * ball.steepest(slopes.gradient)).clamp(0, 1)
    predicted = (slopes.gradient * (moved - start)).flatten(1).sum(1)
    rise = case.odds(moved) - slopes.odds
    told = predicted > VISIBLE * slopes.logits.abs().amax(1)
    if not bool(told.any()):
        return _skipped("slope", "over so short a step the loss rises by less than its rounding")
    ratio = float((rise[told] / predicted[told]).median())
    count = int(told.sum())
    seen = f"over a tiny step the loss rises by {ratio:.2f} times what its gradient says (median of {count} images)"
    if 1 / AGREES <= ratio <= AGREES:
        return Finding("slope", True, ratio, seen)
    words = f"{seen}: the gradient is not that of the loss, or shattered; attack with Square, or {DIFFERENTIABLE}"
    return Finding("slope", False, ratio, words)


def _uphill(case: _Case, slopes: _Slopes, steps: int) -> Finding:
    start, ball = case.trial.originals[case.which], case.trial.ball.at(case.which)
    length = ball.radius(start) * min(1.0, REACH / steps)
    draws = case.trial.dice.generators(case.which, "uphill")
    drawn = torch.stack([torch.randn(start.shape[1:], generator=one) for one in draws]).to(start)
    along, across = (
        case.odds((start + length * ball.steepest(where)).clamp(0, 1)) for where in (slopes.gradient, drawn)
    )
    better, count = int((along > across).sum()), len(start)
    seen = f"in {better} of {count} images one of PGD's steps raises the loss more than a random one of its size"
    if at_least(count - better, count, 1 - BETTER) >= LEVEL:
        return Finding("uphill", True, better / count, seen)
    words = (
        f"{seen}: gradients point elsewhere than up, or the loss is too rugged for them; attack with Square, with gradients"
        " averaged over nearby images, or through a smooth stand-in (BPDA)"
    )
    return Finding("uphill", False, better / count, words)


def _more_steps(case: _Case, climbed: Tensor, steps: int) -> Job[Finding]:
    few = max(1, steps // 4)
    one = yield from case.broken(fgsm)
    quarter = yield from case.broken(pgd, steps=few)
    worst = max(one, quarter, key=lambda broken: int((broken & ~climbed).sum()))
    share = int((worst & ~climbed).sum()) / len(climbed)
    counts = [int(broken.sum()) for broken in (one, quarter, climbed)]
    seen = f"of {len(climbed)} images, one step breaks {counts[0]}, {few} break {counts[1]}, {steps} break {counts[2]}"
    if _more(one, climbed) or _more(quarter, climbed):
        words = f"{seen}: many steps should find what few find, so gradients mislead; attack with Square and restarts"
        return Finding("more-steps", False, share, words)
    if _more(climbed, quarter):
        seen += "; PGD had not arrived after a quarter of the steps, so even more may break more"
    return Finding("more-steps", True, share, seen)


def _whole_range(case: _Case, steps: int) -> Job[Finding]:
    """From the image itself: random points of so wide a ball are noise, which breaks most images without any gradient."""
    # Whatever the norm, this ball holds every picture; steps by signs cross it best.
    broken = yield from case.broken(pgd, eps=1.0, norm="linf", steps=steps, random_start=False)
    found, count = int(broken.sum()), len(broken)
    seen = f"where any picture is allowed, PGD breaks {found} of {count} images"
    if at_least(count - found, count, 1 - BROKEN) >= LEVEL:
        return Finding("whole-range", True, found / count, seen)
    words = f"{seen}, but among them are pictures of every class: gradients lead nowhere; attack with Square, or"
    return Finding("whole-range", False, found / count, f"{words} {DIFFERENTIABLE}")


def _black_box(case: _Case, climbed: Tensor, queries: int) -> Job[Finding]:
    searched = yield from case.broken(square, steps=queries, patience=PATIENCE)
    only, other, count = int((searched & ~climbed).sum()), int((climbed & ~searched).sum()), len(climbed)
    seen = f"of {count} images, Square alone breaks {only}, PGD alone {other}, both {int((climbed & searched).sum())}"
    if not _more(searched, climbed):
        return Finding("black-box", True, only / count, seen)
    words = (
        f"{seen}: random search without a gradient finds what gradients miss, so robust accuracies by PGD are too high;"
        " report AutoAttack's, or those of an attack made for this network"
    )
    return Finding("black-box", False, only / count, words)


def _more(one: Tensor, other: Tensor) -> bool:
    """Whether an attack breaks clearly more than another: `[n]` each, of the same images."""
    gained, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return gained - lost >= CLEARLY * len(one) and at_least(gained, gained + lost, 0.5) < LEVEL


def at_least(hits: int, count: int, chance: float) -> float:
    """How probable `hits` or more of `count` are, if each one is a hit with probability `chance` in (0, 1)."""
    ways = [math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1) for k in range(hits, count + 1)]
    odds = [k * math.log(chance) + (count - k) * math.log1p(-chance) for k in range(hits, count + 1)]
    return math.fsum(math.exp(way + odd) for way, odd in zip(ways, odds))
