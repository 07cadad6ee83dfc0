"""Accuracy against eps: for each image, the smallest radius of a list at which an attack fools the network.

Balls are nested: who falls at a radius falls at every larger one, and who stands at a radius stands at every smaller one. So
the search goes downwards from the largest radius, and each image

    is shown one step along its gradient, in longer and longer versions, which finds most of what falls easily;
    is attacked just below the smallest radius at which it is known to fall, or else at the largest;
    if it falls, its change is shrunk as far as it still fools, which tells of smaller radii without a gradient;
    if it stands, it is done: each image pays for one attack without success, at most, where a curve of separate attacks
    pays at every radius.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.named import attack as run_attack
from phosphene.attacks.named import check, named
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked, slack
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step, relay


@dataclass(frozen=True)
class Curve:
    """What came of it, with one entry per image where not said otherwise.

    Attributes:
        eps: the radii, ascending.
        falls: `[N]`, at which of the radii the image falls first, from 1; 0: it is misread as it is; `len(eps) + 1`: at none.
        images: `[N, C, H, W]`, what fools there; the original where nothing does.
        labels: `[N]`.
        forwards, backwards: `[N]`, passes through the network.
    """

    eps: tuple[float, ...]
    falls: Tensor
    images: Tensor
    labels: Tensor
    forwards: Tensor
    backwards: Tensor

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Share of all images that are right as they are, and at each radius."""
        return tuple(self.standing(place) / len(self.falls) for place in range(len(self.eps) + 1))

    def standing(self, place: int) -> int:
        """How many images are right at radius number `place`, from 1; 0: as they are."""
        return int((self.falls > place).sum())


def curve(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: Sequence[float],
    norm: Norm = "linf",
    attack: str = "pgd",
    steps: int | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Curve]:
    """Find at which of the radii each image falls.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: radii in units of [0, 1], above 0, in any order.
        norm: `linf` or `l2`.
        attack: one of `ATTACKS` that knows this norm.
        steps: its number of steps; None: its own.
        seed, keys, quantize, probabilities: see `trial.attacked`.

    Raises:
        PhospheneError, LabelError, NetworkError: no radii, equal ones, or none above 0; or see `trial.attacked`.
    """
    radii = _radii(eps)
    chosen = named(attack)
    check(chosen, eps=radii[-1], norm=norm, steps=steps)
    shared = {"seed": seed, "quantize": quantize, "probabilities": probabilities}
    with attacked(network, images, labels, eps=radii[-1], norm=norm, keys=keys, **shared) as trial:
        yield Started("curve", len(images), "image")
        search = _Search(trial, norm, radii)
        if chosen.gradients:
            search.one_step()
        options = {"norm": norm, "steps": steps, **shared}
        while len(which := search.open()):
            yield from _round(search, which, attack, keys, options)
        return search.result()


def _round(
    search: _Search, which: Tensor, attack: str, keys: Sequence[int | str] | None, options: dict[str, Any]
) -> Job[None]:
    """Attack each image of `which`, just below where it is known to fall."""
    trial = search.trial
    found = yield from relay(
        run_attack(
            attack,
            trial.victim.network,
            trial.originals[which],
            trial.labels[which],
            eps=search.radius(search.falls[which] - 1),
            keys=None if keys is None else [keys[place] for place in which.tolist()],
            **options,
        ),
        lambda _: Step(search.count_done()),
    )
    search.take(which, found)
    yield Step(search.count_done())


class _Search:
    """Where each image is known to fall, and whether it is known to stand just below."""

    def __init__(self, trial: Trial, norm: Norm, radii: tuple[float, ...]) -> None:
        self.trial, self.radii = trial, radii
        self.norm: Norm = norm
        self.levels = torch.tensor((0.0, *radii, torch.inf), dtype=trial.originals.dtype, device=trial.originals.device)
        self.falls = torch.where(trial.wrong, 0, len(radii) + 1)
        self.done = trial.wrong.clone()
        self.images = trial.originals.clone()

    def open(self) -> Tensor:
        """Places of the images whose radius isn't known yet."""
        self.done |= self.falls <= 1
        return (~self.done).nonzero()[:, 0]

    def count_done(self) -> int:
        return int(self.done.sum())

    def radius(self, places: Tensor) -> Tensor:
        """`[n]`, the radii by their numbers."""
        return self.levels[places]

    def one_step(self) -> None:
        """Look along the gradient at the original: at radius 1, 2, 4, ..., until the network is fooled."""
        which = self.open()
        if not len(which):
            return
        start = self.trial.originals[which]
        gradient, _ = self.trial.slope(start, which)
        direction = self._ball(torch.ones_like(which)).steepest(gradient)
        place, going = 1, torch.ones_like(which, dtype=torch.bool)
        while place <= len(self.radii) and bool(going.any()):
            rows = going.nonzero()[:, 0]
            level = torch.full_like(rows, place)
            tried = start[rows] + direction[rows] * self.radius(level).view(-1, 1, 1, 1)
            going[rows] = ~self._try(tried, which[rows], level)
            place *= 2

    def take(self, which: Tensor, found: Result) -> None:
        """Note what an attack on the images of `which` has found, each one radius below where it was known to fall."""
        victim, places = self.trial.victim, which.cpu()
        victim.forwards[places] += found.forwards
        victim.backwards[places] += found.backwards
        # What the attack's own look finds misread, a random network's say, falls without a change.
        falls = found.success | found.wrong
        self.done[which[~falls]] = True
        fallen = which[falls]
        self.images[fallen] = found.images[falls]
        size = self._ball(self.falls[fallen]).size(self.images[fallen] - self.trial.originals[fallen])
        # The change may be smaller than what was allowed. Rounding must not put it into the next larger ball.
        smallest = torch.searchsorted(self.levels, size - 1e-6)
        self.falls[fallen] = smallest.clamp(min=1).minimum(self.falls[fallen] - 1)
        self._shrink(fallen)

    def _shrink(self, which: Tensor) -> None:
        """Bring changes that fool into smaller balls, by bisection, for as long as they fool."""
        low, high = torch.zeros_like(which), self.falls[which]
        while len(rows := (high - low > 1).nonzero()[:, 0]):
            middle = (low[rows] + high[rows]) // 2
            fools = self._try(self.images[which[rows]], which[rows], middle)
            high[rows[fools]] = middle[fools]
            low[rows[~fools]] = middle[~fools]

    def _try(self, images: Tensor, which: Tensor, level: Tensor) -> Tensor:
        """`[n]`, whether images fool the network once they are inside the balls of these radii; kept if they do."""
        trial, start = self.trial, self.trial.originals[which]
        ball = self._ball(level)
        tried = ball.project(images, start)
        tried = ball.saved(tried, start) if trial.quantize else tried
        logits = trial.victim.logits(tried, which)
        fools = trial.margin(logits, which) > slack(logits)
        self.images[which[fools]] = tried[fools]
        self.falls[which[fools]] = level[fools]
        return fools

    def _ball(self, level: Tensor) -> Ball:
        return Ball(self.norm, self.radius(level))

    def result(self) -> Curve:
        """What is known of each image."""
        trial = self.trial
        stands = (self.falls > len(self.radii)) | (self.falls == 0)
        return Curve(
            eps=self.radii,
            falls=self.falls,
            images=torch.where(stands.view(-1, 1, 1, 1), trial.originals, self.images),
            labels=trial.labels,
            forwards=trial.victim.forwards.clone(),
            backwards=trial.victim.backwards.clone(),
        )


def _radii(eps: Sequence[float]) -> tuple[float, ...]:
    radii = tuple(sorted(float(one) for one in eps))
    if not radii:
        raise PhospheneError("a curve needs a radius at least: give --eps, such as 1/255,2/255,4/255")
    if not radii[0] > 0:
        raise PhospheneError(
            f"a curve's radii are above 0, got {radii[0]:g}: accuracy without an attack is there anyway"
        )
    if len(set(radii)) < len(radii):
        raise PhospheneError("a curve's radii differ: one is given twice")
    return radii
