"""FGSM, the fast gradient sign method: one step, as long as the ball allows.

    x = Project( x0 + eps sign(grad J) )            linf
    x = Project( x0 + eps grad J / |grad J|_2 )     l2

Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from phosphene.attacks.ball import Norm
from phosphene.attacks.result import Result
from phosphene.attacks.trial import attacked
from phosphene.models import Network
from phosphene.progress import Job, Started, Step


def fgsm(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor,
    norm: Norm = "linf",
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Result]:
    """Step once along the gradient of the cross-entropy with the label (targeted: down that with the target).

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1], one or `[N]`.
        norm: `linf` or `l2`.
        targets: `[N]`, the classes to reach; None: any but the label.
        seed, keys: not needed, here for attacks to be called alike.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: the results, and the originals before, are rounded to 8 bits.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`.
    """
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
        yield Started("fgsm", 1)
        which = trial.open()
        if len(which):
            start, ball = trial.originals[which], trial.ball.at(which)
            gradient, _ = trial.ascent(start, which)
            moved = ball.project(start + ball.radius(start) * ball.steepest(gradient), start)
            trial.images[which] = trial.shown(moved, which)
        yield Step(1, preview=trial.images if trial.images.shape[1] == 3 else None)
        return trial.result()
