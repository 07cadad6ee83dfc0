"""MI-FGSM and NI-FGSM: PGD that remembers its gradients.

    MI    g <- mu g + grad J(x) / mean |grad J(x)|
    NI    g <- mu g + grad J(x + a mu g) / mean |grad J(x + a mu g)|
    both  x <- Project( x + a sign(g) )          linf
          x <- Project( x + a g / |g|_2 )        l2

Memory carries the image over bumps of one network's loss, so that what comes out fools other networks more often.

Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018, eqs. 6 to 8, whose `|grad J|_1` is the mean here as in
the authors' code: for MI it makes no difference, for NI it decides how far ahead it looks. Lin et al., "Nesterov accelerated
gradient and scale invariance for adversarial attacks", ICLR 2020, eqs. 6 to 8.
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
from phosphene.progress import Job, Started


def mi_fgsm(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    look_ahead: bool = False,
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
        steps: at most.
        step: how long one is; None: `eps / steps`.
        decay: mu, how much of the past is kept; 0: BIM.
        exhaust: an image that fools goes on to its last step, and its surest try is kept: what also fools other networks.
        look_ahead: NI, read the gradient where the momentum alone would lead. It costs one more pass a step.
        targets: `[N]`, the classes to reach; None: any but the label.
        seed, keys: not needed, here for attacks to be called alike.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: results are on the 8-bit lattice, and fool as such; the originals are rounded first.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; or steps that are none, or a negative decay.
    """
    checks.count(steps, "steps")
    if step is not None:
        checks.positive(step, "a step")
    if not 0 <= decay < float("inf"):
        raise PhospheneError(f"a decay is 0 or more, got {decay}")
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
        yield Started("ni-fgsm" if look_ahead else "mi-fgsm", steps)
        yield from _climb(trial, steps, step, decay, look_ahead, exhaust)
        return trial.result()


def ni_fgsm(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    exhaust: bool = False,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """MI-FGSM that looks ahead. Takes and raises what `mi_fgsm` does."""
    return mi_fgsm(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        steps=steps,
        step=step,
        decay=decay,
        look_ahead=True,
        exhaust=exhaust,
        targets=targets,
        seed=seed,
        keys=keys,
        mask=mask,
        quantize=quantize,
        probabilities=probabilities,
    )


def _climb(trial: Trial, steps: int, step: float | None, decay: float, look_ahead: bool, exhaust: bool) -> Job[None]:
    """Every image that is still to be fooled, from its original."""
    which = trial.open()
    if not len(which):
        return
    centre, ball = trial.originals[which], trial.ball.at(which)
    memory = torch.zeros_like(centre)
    one = ball.radius(centre) / steps if step is None else centre.new_full((1, 1, 1, 1), step)
    length = one.expand(len(which), 1, 1, 1)

    def move(current: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        own, mine = which[places], ball.at(places)
        if look_ahead:
            fooled = trial.look(trial.shown(current, own), own)
            going = torch.ones_like(fooled) if exhaust else ~fooled
            ahead = current + length[places] * decay * memory[places]
            fresh = torch.zeros_like(current)
            if bool(going.any()):
                fresh[going], _ = trial.slope(ahead[going], own[going])
        else:
            fresh, fooled = trial.ascent(trial.shown(current, own), own)
        memory[places] = decay * memory[places] + _unit(mine.masked(fresh))
        done = torch.zeros_like(fooled) if exhaust else fooled
        return length[places] * mine.steepest(memory[places]), done

    def look(current: Tensor, places: Tensor) -> Tensor:
        own = which[places]
        return trial.look(trial.shown(current, own), own)

    yield from move_until_done(centre, move, steps=steps, ball=ball, centre=centre, look=look)


def _unit(gradient: Tensor) -> Tensor:
    """Each gradient `[n, C, H, W]` with a mean of 1 of its absolute values; 0 stays 0."""
    mean = gradient.abs().flatten(1).mean(1).view(-1, 1, 1, 1)
    return gradient / mean.clamp(min=torch.finfo(gradient.dtype).tiny)
