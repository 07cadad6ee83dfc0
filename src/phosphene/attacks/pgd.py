"""BIM and PGD: many small steps, each back into the ball.

    x <- Project( x + a sign(grad J(x)) )            linf
    x <- Project( x + a grad J(x) / |grad J(x)|_2 )  l2

BIM begins at the original: Kurakin, Goodfellow & Bengio, "Adversarial examples in the physical world", ICLR 2017 workshop,
section 2.2. PGD begins at a random point of the ball, and again as often as asked: Madry et al., "Towards deep learning
models resistant to adversarial attacks", ICLR 2018, section 2.1. Of all starts the worst one counts, for each image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks.ball import Norm
from phosphene.attacks.projected import move_until_done
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, relay, shifted

REACH = 2.5  # all steps together are this much longer than the radius, as in Madry et al.'s code


def pgd(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 40,
    step: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    exhaust: bool = False,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Climb the cross-entropy with the label (targeted: down that with the target). An image leaves once it fools.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1], one or `[N]`.
        norm: `linf` or `l2`.
        steps: at most, from each start.
        step: how long one is; None: `2.5 eps / steps`.
        restarts: how many starts; later ones are for the images that still stand.
        random_start: begin at a random point of the ball, not at the original.
        exhaust: an image that fools goes on to its last step, and its surest try is kept: what also fools other networks.
        targets: `[N]`, the classes to reach; None: any but the label.
        seed: decides the starts, for each image by its own values, whatever else is in the batch.
        keys: `[N]`, what to draw the starts by instead of the images' values.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: results are on the 8-bit lattice, and fool as such; the originals are rounded first.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or steps that are none.
    """
    checks.count(steps, "steps")
    checks.count(restarts, "restarts")
    if step is not None:
        checks.positive(step, "a step")
    if restarts > 1 and not random_start:
        raise PhospheneError("restarts without a random start would all be the same: ask for one")
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
        yield Started("pgd" if random_start else "bim", steps * restarts)
        for turn in range(restarts):
            before = turn * steps
            yield from relay(
                _one_start(trial, steps, step, turn if random_start else None, exhaust),
                lambda event, before=before: shifted(event, before),
            )
        return trial.result()


def bim(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 10,
    step: float | None = None,
    exhaust: bool = False,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """PGD from the original itself. Takes and raises what `pgd` does."""
    return pgd(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        step=step,
        random_start=False,
        exhaust=exhaust,
        targets=targets,
        seed=seed,
        keys=keys,
        mask=mask,
        quantize=quantize,
        probabilities=probabilities,
    )


def _one_start(trial: Trial, steps: int, step: float | None, turn: int | None, exhaust: bool) -> Job[None]:
    """Every image that is still to be fooled, from the original (`turn` None) or from random point number `turn`."""
    which = trial.open()
    if not len(which):
        return
    centre, ball = trial.originals[which], trial.ball.at(which)
    start = centre if turn is None else trial.dice.inside(ball, centre, which, turn)
    one = ball.radius(centre) * (REACH / steps) if step is None else centre.new_full((1, 1, 1, 1), step)
    length = one.expand(len(which), 1, 1, 1)

    def move(current: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        own = which[places]
        gradient, fooled = trial.ascent(trial.shown(current, own), own)
        done = torch.zeros_like(fooled) if exhaust else fooled
        return length[places] * ball.at(places).steepest(gradient), done

    def look(current: Tensor, places: Tensor) -> Tensor:
        own = which[places]
        return trial.look(trial.shown(current, own), own)

    yield from move_until_done(start, move, steps=steps, ball=ball, centre=centre, look=look)
