"""Square: random search with square patches, for networks that only show their scores.

    linf    in a random square of the picture, each channel becomes  x0 + eps  or  x0 - eps
    l2      in a random square a pattern is added that is positive on one half and negative on the other, paid for with the
            change in another square (which becomes 0) and with what is left of eps

A proposal is kept if the margin rises. Squares cover a share p of the picture, which is halved again and again.

Andriushchenko, Croce, Flammarion & Hein, "Square attack: a query-efficient black-box adversarial attack via random search",
ECCV 2020, Algorithms 1 to 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks.ball import TINY, Norm, lengths
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
TILES = 5  # along a side of the first pattern, l2
BLOCK = 250  # queries whose random numbers are drawn at once
PHASES = 10  # of a run, after each of which hope is looked at
REMEMBERED = 2**14  # proposals of one size that are remembered, if there are no more


def square(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 5000,
    p_init: float = 0.8,
    restarts: int = 1,
    patience: float | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Away from the label, without a single gradient. An image leaves as soon as it is misread.

    A proposal that would change nothing, or that was refused since the image changed last, counts as a query but doesn't go
    through the network: the answer is known.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1], one or `[N]`.
        norm: `linf` or `l2`.
        steps: queries of each run, at most.
        p_init: share of the picture that the first squares cover.
        restarts: how many runs.
        patience: an image leaves a run if so many times what the last tenth of the queries has gained would not fool the
            network. None: it never does.
        seed: decides all proposals, for each image by its own values, whatever else is in the batch.
        keys, mask, quantize, probabilities: see `trial.attacked`.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or numbers that make no sense.
    """
    checks.count(steps, "steps")
    checks.count(restarts, "restarts")
    if patience is not None:
        checks.positive(patience, "patience")
    if not 0 < p_init <= 1:
        raise PhospheneError(f"p_init is a share of the picture, above 0 and at most 1, got {p_init}")
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
        yield Started("square", restarts * steps)
        for restart in range(restarts):
            yield from _run(trial, steps, p_init, restart, patience)
        return trial.result()


def share(query: int, steps: int, p_init: float) -> float:
    """p for query number `query` (from 0) of `steps`: the authors' schedule for 10,000 queries, stretched."""
    passed = sum(10_000 * query // steps > point for point in HALVED)
    return p_init / 2**passed


def side(p: float, size: tuple[int, int], norm: Norm) -> int:
    """Pixels along a square that covers a share `p` of a picture; in l2 an odd number from 3, where the picture allows."""
    wanted = max(1, round(math.sqrt(p * size[0] * size[1])))
    if norm == "l2":
        wanted = max(3, wanted) // 2 * 2 + 1
    return min(wanted, *size)


@dataclass
class Run:
    """The images of a run that are still read as what they are. `[n, C, P]` where there are P pixels.

    Attributes:
        which: `[n]`, places in the batch.
        rows: `[n]`, places in the run as it began.
        origin: `[n, C, P]`, the originals.
        x: `[n, C, P]`, the best so far.
        value: `[n]`, their margins.
        marked: `[n]`, what they were when hope was looked at last.
        radius: `[n, 1, 1]`.
        allowed: `[n, 1 or C, P]`, where they may change.
    """

    which: Tensor
    rows: Tensor
    origin: Tensor
    x: Tensor
    value: Tensor
    marked: Tensor
    radius: Tensor
    allowed: Tensor

    def only(self, kept: Tensor) -> Run:
        """The images that stay, `kept` `[n]`."""
        if bool(kept.all()):
            return self
        return Run(*(getattr(self, field.name)[kept] for field in fields(self)))


def _run(trial: Trial, steps: int, p_init: float, restart: int, patience: float | None) -> Job[None]:
    which = trial.open()
    if len(which) == 0:
        return
    run = _begun(trial, which, restart)
    size, channels = (trial.originals.shape[2], trial.originals.shape[3]), trial.originals.shape[1]
    memory = _Memory(len(which), channels, size)
    draws = torch.empty(0)
    for query in range(1, steps):
        if len(run.which) == 0:
            return
        if (query - 1) % BLOCK == 0:
            draws = _draws(trial, which, f"{restart}:{query}", channels)
        length = side(share(query, steps, p_init), size, trial.ball.norm)
        drawn = draws[(query - 1) % BLOCK][run.rows]
        if trial.ball.norm == "linf":
            places, signs = _square(drawn, length, size), _signs(drawn[:, 5 : 5 + channels])
            fresh, x = _linf(run, places, signs)
            fresh = fresh & memory.new(run.rows, places[:, 0], signs, length)
            x = x[fresh]
        else:
            fresh, x = torch.ones_like(run.which, dtype=torch.bool), _l2(run, drawn, length, size)
        if bool(fresh.any()):
            run = _taken(trial, run, fresh, x, memory)
        if patience is not None and query % max(1, steps // PHASES) == 0:
            run = run.only(run.value + patience * (run.value - run.marked) >= 0)
            run.marked = run.value.clone()
        yield Step(restart * steps + query, float(len(run.which)))


def _begun(trial: Trial, which: Tensor, restart: int) -> Run:
    origin, ball = trial.originals[which], trial.ball.at(which)
    draws = trial.dice.generators(which, f"{restart}:start")
    change = (_stripes if ball.norm == "linf" else _tiles)(draws, origin)
    allowed = torch.ones_like(origin[:, :1]) if ball.mask is None else ball.mask.expand(len(origin), -1, -1, -1)
    radius = ball.radius(origin).expand(len(which), 1, 1, 1) * (1 if ball.norm == "linf" else 1 - 1e-6)
    x = (origin + radius * change * allowed).clamp(0, 1)
    value, fooled = _look(trial, x, which)
    rows = torch.arange(len(which), device=which.device)
    origin, x, radius, allowed = (one.flatten(2) for one in (origin, x, radius, allowed))
    return Run(which, rows, origin, x, value, value.clone(), radius, allowed).only(~fooled)


def _look(trial: Trial, x: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """`(margin [n], whether it fools [n])`."""
    shown = trial.shown(x.view(-1, *trial.originals.shape[1:]), which)
    logits = trial.victim.logits(shown, which)
    return trial.margin(logits, which), trial.offer(shown, which, logits)


def _taken(trial: Trial, run: Run, fresh: Tensor, x: Tensor, memory: _Memory) -> Run:
    """Show the network the proposals `x` of the images `fresh`, keep what raises the margin, let go of what fools."""
    asked = fresh.nonzero()[:, 0]
    value, fooled = _look(trial, x, run.which[asked])
    better = value > run.value[asked]
    kept = asked[better]
    run.x[kept], run.value[kept] = x[better], value[better]
    memory.forget(run.rows[kept])
    stays = torch.ones_like(fresh)
    stays[asked[fooled]] = False
    return run.only(stays)


def _draws(trial: Trial, which: Tensor, turn: str, channels: int) -> Tensor:
    """Random numbers in [0, 1) for a block of queries, `[BLOCK, n, 5 + channels]`."""
    shape = (BLOCK, 5 + channels)
    drawn = [torch.rand(shape, generator=one) for one in trial.dice.generators(which, turn)]
    return torch.stack(drawn, 1).to(trial.originals)


def _square(drawn: Tensor, length: int, size: tuple[int, int]) -> Tensor:
    """`[n, length^2]`, the pixels of a random square, its corner first; `drawn` `[n, 2+]`."""
    height, width = size
    row = (drawn[:, 0] * (height - length + 1)).long()
    column = (drawn[:, 1] * (width - length + 1)).long()
    along = torch.arange(length, device=drawn.device)
    inside = (along[:, None] * width + along).flatten()
    return (row * width + column)[:, None] + inside


def _signs(drawn: Tensor) -> Tensor:
    """-1 or 1 by numbers in [0, 1)."""
    return torch.where(drawn < 0.5, -1.0, 1.0).to(drawn)


# -- linf ---------------------------------------------------------------------------------------------------------------


def _stripes(draws: list[torch.Generator], like: Tensor) -> Tensor:
    """The start: vertical stripes of -1 and 1, one pixel wide, `[n, C, H, W]`."""
    _, channels, height, width = like.shape
    rows = torch.stack([torch.rand((channels, 1, width), generator=one) for one in draws])
    return _signs(rows.to(like)).expand(-1, -1, height, -1)


def _linf(run: Run, places: Tensor, signs: Tensor) -> tuple[Tensor, Tensor]:
    """`(whether it changes anything [n], proposals [n, C, P])`: x0 + eps sign in the squares."""
    channels = run.x.shape[1]
    index = places[:, None].expand(-1, channels, -1)
    allowed = run.allowed.expand(-1, channels, -1).gather(2, index)
    patch = (run.origin.gather(2, index) + run.radius * signs[:, :, None] * allowed).clamp(0, 1)
    changes = (patch != run.x.gather(2, index)).flatten(1).any(1)
    return changes, run.x.scatter(2, index, patch)


class _Memory:
    """Which proposals have been refused since the image changed last: they would be refused again."""

    def __init__(self, count: int, channels: int, size: tuple[int, int]) -> None:
        self._kinds = 2 ** min(channels, 32)
        possible = size[0] * size[1] * self._kinds
        self._seen = torch.zeros((count, possible), dtype=torch.bool) if possible <= REMEMBERED else None
        self._length = 0

    def new(self, rows: Tensor, corner: Tensor, signs: Tensor, length: int) -> Tensor:
        """`[n]`, which of these proposals are new; they are remembered."""
        if self._seen is None:
            return torch.ones_like(rows, dtype=torch.bool)
        self._seen = self._seen.to(rows.device)
        if length != self._length:
            self._seen.zero_()
            self._length = length
        bits = 2 ** torch.arange(signs.shape[1], device=rows.device)
        place = corner * self._kinds + ((signs > 0) * bits).sum(1)
        new = ~self._seen[rows, place]
        self._seen[rows, place] = True
        return new

    def forget(self, rows: Tensor) -> None:
        """These images have changed."""
        if self._seen is not None:
            self._seen[rows] = False


# -- l2 -----------------------------------------------------------------------------------------------------------------


def _tiles(draws: list[torch.Generator], like: Tensor) -> Tensor:
    """The start: the pattern on 5 x 5 tiles, each with a sign, of length 1, `[n, C, H, W]`."""
    _, channels, height, width = like.shape
    length = max(1, min(height, width) // TILES)
    grid = height // length, width // length
    signs = torch.stack([torch.rand((channels, *grid), generator=one) for one in draws])
    signs = _signs(signs.to(like)).repeat_interleave(length, 2).repeat_interleave(length, 3)
    tiled = signs * pattern(length).to(like).repeat(*grid)
    top, left = (height - tiled.shape[2]) // 2, (width - tiled.shape[3]) // 2
    change = torch.zeros_like(like)
    change[:, :, top : top + tiled.shape[2], left : left + tiled.shape[3]] = tiled
    return change / lengths(change).clamp(min=TINY).to(change).view(-1, 1, 1, 1)


def pattern(length: int) -> Tensor:
    """`[length, length]` of norm 1: a bump in the upper half, the same upside down in the lower (paper, eq. 2)."""
    half = length // 2
    bumps = [_bump(height, length) for height in (half, length - half)]
    upper, lower = (bump / bump.norm().clamp(min=TINY) for bump in bumps)
    both = torch.cat([upper, -lower])
    return both / both.norm()


def _bump(height: int, width: int) -> Tensor:
    """Rings around the middle: ring r of n has the value  sum_{k=r}^n 1 / (k + 1)^2."""
    far = [(torch.arange(one) - one // 2).abs() for one in (height, width)]
    ring = far[0][:, None].maximum(far[1])
    outermost = max(height, width) // 2
    terms = torch.tensor([1 / (k + 1) ** 2 for k in range(outermost + 1)])
    return terms.flip(0).cumsum(0).flip(0)[ring]


def _l2(run: Run, drawn: Tensor, length: int, size: tuple[int, int]) -> Tensor:
    """Proposals `[n, C, P]` (Algorithm 3): what two squares and the rest of eps have to spend goes into the first one."""
    count, channels, _ = run.x.shape
    change = run.x - run.origin
    here, there = _square(drawn, length, size), _square(drawn[:, 2:], length, size)
    both = torch.zeros_like(change[:, 0]).scatter(1, here, 1.0).scatter(1, there, 1.0)
    spent = change.double().square().sum((1, 2))
    unused = (run.radius.view(-1).double().square() - spent).clamp(min=0).view(-1, 1, 1)
    budget = (change.double().square() * both[:, None]).sum(2, keepdim=True) + unused / channels
    index = here[:, None].expand(-1, channels, -1)
    old = change.gather(2, index)
    bump = pattern(length).to(change)
    bump = torch.where(drawn[:, 4, None] < 0.5, bump.flatten(), bump.T.flatten())
    new = _signs(drawn[:, 5 : 5 + channels])[:, :, None] * bump[:, None] + old / old.norm(dim=2, keepdim=True).clamp(
        min=TINY
    )
    new = new / new.norm(dim=2, keepdim=True).clamp(min=TINY) * budget.sqrt().to(change)
    change = change.scatter(2, there[:, None].expand(-1, channels, -1), 0.0).scatter(2, index, new)
    return (run.origin + change * run.allowed).clamp(0, 1).view(count, channels, -1)
