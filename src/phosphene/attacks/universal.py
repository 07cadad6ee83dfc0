"""A universal perturbation: one change that fools the network on most images, those it has never seen, too.

    max_d  mean_i min( J(x_i + d, y_i), 9 )    with  |d|_p <= eps

    d <- Project( d + a sign(sum_i grad J) )             linf
    d <- Project( d + a sum_i grad J / |sum_i grad J| )  l2

over random batches of images. That there is one: Moosavi-Dezfooli, Fawzi, Fawzi & Frossard, "Universal adversarial
perturbations", CVPR 2017, who add up one DeepFool after another, each image waiting for the one before. Here it is stochastic
gradient ascent, far cheaper: Shafahi, Najibi, Xu, Dickerson, Davis & Goldstein, "Universal adversarial training", AAAI 2020,
algorithm 2. The cross-entropy ends at 9, so that no single image dominates. Steps get shorter to the end, which they don't
there: so that the last batches don't count most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene import images as pictures
from phosphene.attacks import checks
from phosphene.attacks.ball import TINY, Ball, Norm, lengths
from phosphene.attacks.many import batches, clipped, count_batches, everyones, right
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

FIRST = 0.5  # of the radius: the first step, where none is given


@dataclass(frozen=True)
class Universal:
    """One change for all images.

    Attributes:
        perturbation: `[C, H, W]`, of norm `eps` at most; in whole levels of 1/255 if `quantize`.
        result: what it does to the images that it was made for. Those that were wrong before are left as they were.
        targets: the class to reach; None: any but the label.
        quantize: images are rounded to 8 bits before it is added.
    """

    perturbation: Tensor
    result: Result
    targets: int | None = None
    quantize: bool = False

    @property
    def rate(self) -> float:
        """Of the images that it was made for and that were right, the share that is fooled."""
        return fooling_rate(self.result)

    @property
    def picture(self) -> Tensor:
        """`[1, C, H, W]` in [0, 1]: the perturbation around grey, as strong as it can be shown."""
        return _picture(self.perturbation[None])

    def apply(self, images: Tensor) -> Tensor:
        """Images `[N, C, H, W]` in [0, 1] with the perturbation added, in [0, 1] again.

        Raises:
            PhospheneError: images of another shape than the perturbation, or see `checks.pictures`.
        """
        change = self.perturbation
        given = checks.pictures(images, change.dtype, change.device)
        if given.shape[1:] != change.shape:
            raise PhospheneError(
                f"this perturbation is for images [N, {', '.join(map(str, change.shape))}], got {list(images.shape)}"
            )
        given = pictures.quantize(given).to(given) if self.quantize else given
        return _added(given, change[None], self.quantize)

    def on(
        self,
        network: Network | nn.Module,
        images: Tensor,
        labels: Tensor | Sequence[int],
        *,
        probabilities: bool = False,
    ) -> Result:
        """What it does to other images, or to another network. Takes and raises what `universal` does."""
        aims = everyones(self.targets, len(images))
        with attacked(
            network,
            images,
            labels,
            eps=None,
            norm="linf",
            targets=aims,
            quantize=self.quantize,
            probabilities=probabilities,
        ) as trial:
            trial.images = self.apply(trial.originals)
            return trial.result()


def fooling_rate(result: Result) -> float:
    """Of the images that were right, the share that is fooled; NaN if none was."""
    return float(result.success[~result.wrong].double().mean())


def universal(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float,
    norm: Norm = "linf",
    passes: int = 10,
    together: int = 32,
    step: float | None = None,
    targets: int | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Job[Universal]:
    """Find one change that fools the network on as many images as possible. Those that are wrong already don't count.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1]: the more there are, the better it will do on others.
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1].
        norm: `linf` or `l2`.
        passes: how often each image is seen.
        together: images for each step, at most.
        step: how long the first one is, the last ones being near 0; None: `eps / 2`.
        targets: the one class to reach for all images; None: any but the label.
        seed: decides the order of the images, by their own values, wherever they are in the batch.
        keys: `[N]`, what to tell the images by instead of their values.
        quantize: the perturbation is in whole levels of 1/255, and the originals are rounded first.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked`; counts that are none; several radii or targets; or a
            network that is wrong about all images.
    """
    checks.count(passes, "passes")
    checks.count(together, "images together")
    if step is not None:
        checks.positive(step, "a step")
    if torch.as_tensor(eps).ndim:
        raise PhospheneError("eps is one number here: the change is the same for all images")
    with attacked(
        network,
        images,
        labels,
        eps=eps,
        norm=norm,
        targets=everyones(targets, len(images)),
        seed=seed,
        keys=keys,
        quantize=quantize,
        probabilities=probabilities,
    ) as trial:
        change = yield from _ascend(trial, passes, together, FIRST * float(eps) if step is None else step)
        trial.images = _added(trial.originals, change, quantize)
        return Universal(change[0], trial.result(), targets, quantize)


def _ascend(trial: Trial, passes: int, together: int, first: float) -> Job[Tensor]:
    """The change `[1, C, H, W]`, from none."""
    which, ball = right(trial), trial.ball
    total, done = passes * count_batches(len(which), together), 0
    change = torch.zeros_like(trial.originals[:1])
    yield Started("universal", total)
    for turn in range(passes):
        for batch in batches(trial.dice, which, together, turn):
            gradient, fooled = _slope(trial, batch, _saved(change, ball) if trial.quantize else change)
            change = _inside(change + first * (1 - done / total) * ball.steepest(gradient), ball)
            done += 1
            yield Step(done, float((~fooled).sum()), _picture(change) if change.shape[1] == 3 else None)
    return _saved(change, ball) if trial.quantize else change


def _slope(trial: Trial, batch: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
    """`(the gradient of the whole batch's loss for the change [1, C, H, W], whether each image is fooled [n])`."""
    start = trial.originals[batch]
    shown = _added(start, change, trial.quantize)
    _, gradients, logits = trial.victim.gradient(shown, batch, lambda rows, own: clipped(trial, rows, own))
    trial.need_slope(gradients)
    moved = start + change
    seen = (moved >= 0) & (moved <= 1)  # elsewhere clamping hides the change
    return (gradients * seen).sum(0, keepdim=True), trial.margin(logits, batch) > 0


def _added(images: Tensor, change: Tensor, quantize: bool) -> Tensor:
    moved = (images + change).clamp(0, 1)
    return pictures.quantize(moved).to(moved) if quantize else moved


def _saved(change: Tensor, ball: Ball) -> Tensor:
    """The change in whole levels, inside the ball."""
    return ball.saved(change, torch.zeros_like(change))


def _inside(change: Tensor, ball: Ball) -> Tensor:
    """The nearest change of norm `eps`. Not `ball.project`, whose result is a picture in [0, 1]."""
    radius = ball.radius(change)
    if ball.norm == "linf":
        return change.maximum(-radius).minimum(radius)
    length = lengths(change).clamp(min=TINY).view(-1, 1, 1, 1)
    return change * (radius / length).clamp(max=1).to(change)


def _picture(change: Tensor) -> Tensor:
    return 0.5 + change / (2 * change.abs().amax().clamp(min=TINY))
