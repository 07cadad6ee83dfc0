"""One attack on one batch: what is asked of it, which images are still to be fooled, and the best try for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from phosphene import images as pictures
from phosphene.attacks import checks
from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.dice import Dice
from phosphene.attacks.result import Result, finish
from phosphene.attacks.victim import NO_GRADIENT, Victim
from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Network

CLEARLY = 1e-5  # of the largest logit: what the network's rounding can't undo when it is asked again, in another batch


@dataclass
class Trial:
    """What an attack works on.

    Attributes:
        victim: the network.
        originals: `[N, C, H, W]` in [0, 1]; on the 8-bit lattice where the result is to be.
        labels: `[N]`.
        targets: `[N]`; None: any class but the label will do.
        ball: where the images may go.
        quantize: whether the network is shown images as 8-bit files hold them.
        dice: random numbers of each image's own.
        logits: `[N, classes]` of the originals.
        wrong: `[N]`, misclassified as they are: not attacked.
        images: `[N, C, H, W]`, the best try for each so far.
        fooled: `[N]`, whether that try fools the network.
    """

    victim: Victim
    originals: Tensor
    labels: Tensor
    targets: Tensor | None
    ball: Ball
    quantize: bool
    dice: Dice
    logits: Tensor
    wrong: Tensor
    images: Tensor
    fooled: Tensor
    _best: Tensor  # [N], the largest margin so far
    _climbs: bool = field(default=False)  # whether a gradient has been seen that is not 0

    def open(self) -> Tensor:
        """Places of the images that are still to be fooled."""
        return (~(self.wrong | self.fooled)).nonzero()[:, 0]

    def shown(self, images: Tensor, which: Tensor) -> Tensor:
        """The images `[n, C, H, W]` as the network is to see them: as they are, or as 8-bit files hold them."""
        return self.ball.at(which).saved(images, self.originals[which]) if self.quantize else images

    def margin(self, logits: Tensor, which: Tensor) -> Tensor:
        """`[n]`, by how much the best wrong class (targeted: the target) leads; positive where the network is fooled."""
        chosen = self._class(which)[:, None]
        own = logits.gather(1, chosen)[:, 0]
        others = logits.scatter(1, chosen, -torch.inf).amax(1)
        return others - own if self.targets is None else own - others

    def odds(self, logits: Tensor, which: Tensor) -> Tensor:
        """`[n]`, what to climb: `-log p/(1 - p)` of the label, `+log p/(1 - p)` of the target.

        It rises with the cross-entropy, whose gradient is this one's times `1 - p`. Attacks that only use the direction gain
        that it doesn't vanish where the network is sure.
        """
        chosen = self._class(which)[:, None]
        own = logits.gather(1, chosen)[:, 0]
        odds = own - logits.scatter(1, chosen, -torch.inf).logsumexp(1)
        return -odds if self.targets is None else odds

    def ascent(self, shown: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """`(the gradient of the odds [n, C, H, W], whether each is fooled already [n])`, with the tries kept.

        Raises:
            NetworkError: the network's gradients are 0 everywhere.
        """
        gradient, logits = self.slope(shown, which)
        return gradient, self.offer(shown, which, logits)

    def slope(self, images: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """`(the gradient of the odds [n, C, H, W], logits [n, classes])`, with nothing kept. Raises what `ascent` does."""
        _, gradient, logits = self.victim.gradient(images, which, self.odds)
        self.need_slope(gradient)
        return gradient, logits

    def look(self, shown: Tensor, which: Tensor) -> Tensor:
        """`[n]`, whether the images fool the network, with the tries kept."""
        return self.offer(shown, which, self.victim.logits(shown, which))

    def offer(self, shown: Tensor, which: Tensor, logits: Tensor) -> Tensor:
        """Keep those images that come closer to fooling than the best try so far; `[n]`, which of them do fool."""
        margin = self.margin(logits, which)
        fools = margin > slack(logits)
        self._keep(shown, which, margin, fools, margin > self._best[which])
        return fools

    def offer_smallest(self, shown: Tensor, which: Tensor, logits: Tensor, confidence: float = 0.0) -> Tensor:
        """Like `offer`, but of two images that fool (with `confidence` and inside the ball) the nearer one is kept."""
        margin = self.margin(logits, which)
        start, ball = self.originals[which], self.ball.at(which)
        fools = (margin > slack(logits).clamp(min=confidence)) & ball.holds(shown, start)
        nearer = ball.size(shown - start) < ball.size(self.images[which] - start)
        first = ~self.fooled[which]
        self._keep(shown, which, margin, fools, fools & (first | nearer))
        return fools

    def _keep(self, shown: Tensor, which: Tensor, margin: Tensor, fools: Tensor, better: Tensor) -> None:
        kept = which[better]
        self.images[kept] = shown[better]
        self._best[kept] = margin[better]
        self.fooled[kept] = fools[better]

    def need_slope(self, gradient: Tensor) -> None:
        """Raises a NetworkError where a network rounds or compares, so that its gradients are 0 everywhere.

        One image may have a gradient of 0; if a whole batch has, images of noise decide.
        """
        self._climbs = self._climbs or bool(gradient.any())
        if not self._climbs:
            shape = self.originals.shape[1:]
            noise = torch.rand((4, *shape), generator=torch.Generator().manual_seed(0)).to(gradient)
            probe = Victim(self.victim.network, len(noise), self.victim.probabilities)
            with probe.lent():
                _, slopes, _ = probe.gradient(noise, torch.arange(len(noise)), lambda rows, _: rows.amax(1))
            if not bool(slopes.any()):
                raise NetworkError(NO_GRADIENT)
            self._climbs = True

    def result(self) -> Result:
        """What came of it; the network is asked again."""
        return finish(self.victim, self.originals, self.images, self.labels, self.wrong, self.targets)

    def _class(self, which: Tensor) -> Tensor:
        return (self.labels if self.targets is None else self.targets)[which]


def slack(logits: Tensor) -> Tensor:
    """`[n]`, how far a class must lead to be believed."""
    return CLEARLY * logits.abs().amax(1)


@contextmanager
def attacked(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float | Tensor | None,
    norm: Norm,
    targets: Tensor | Sequence[int] | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    mask: Tensor | None = None,
    quantize: bool = False,
    probabilities: bool = False,
) -> Iterator[Trial]:
    """Check what is given, look at the originals, and lend the network for as long as this lasts.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1].
        labels: `[N]`, the true classes.
        eps: the radius, one or `[N]`; None: as far as it takes.
        norm: `linf` or `l2`.
        targets: `[N]`, the classes to reach; None: any but the label.
        seed: decides all random numbers.
        keys: `[N]`, what to draw each image's random numbers by, instead of its values.
        mask: `[N or 1, 1 or C, H, W]`, 1 where the image may change.
        quantize: results are on the 8-bit lattice, and so are the originals, which are rounded first.
        probabilities: the network gives probabilities, and that is known.

    Raises:
        PhospheneError: images, eps or a mask that can't be used.
        LabelError: labels or targets that can't be used.
        NetworkError: the network can't run on these images, or gives no logits.
    """
    victim = Victim(network, len(images), probabilities)
    originals = checks.pictures(images, _working(victim.dtype), victim.device)
    originals = pictures.quantize(originals).to(originals) if quantize else originals
    chosen = checks.indices(labels, len(images), "labels", victim.device)
    wanted = None if targets is None else checks.indices(targets, len(images), "targets", victim.device)
    ball = checks.ball(eps, norm, mask, originals)
    dice = Dice(seed, originals, keys)
    with victim.lent():
        logits = _first_look(victim, originals)
        checks.scores(logits, probabilities)
        checks.within(chosen, logits.shape[1], "labels")
        if wanted is not None:
            checks.within(wanted, logits.shape[1], "targets")
            checks.differ(chosen, wanted)
        yield Trial(
            victim=victim,
            originals=originals,
            labels=chosen,
            targets=wanted,
            ball=ball,
            quantize=quantize,
            dice=dice,
            logits=logits,
            wrong=logits.argmax(1) != chosen,
            images=originals.clone(),
            fooled=torch.zeros_like(chosen, dtype=torch.bool),
            _best=torch.full_like(logits[:, 0], -torch.inf),
        )


def _first_look(victim: Victim, images: Tensor) -> Tensor:
    try:
        logits = victim.logits(images, torch.arange(len(images)))
    except PhospheneError:
        raise
    except Exception as problem:  # the user's own code may raise anything
        line = " ".join(str(problem).split())[:200] or type(problem).__name__
        raise NetworkError(f"the network can't run on images of shape {list(images.shape)}: {line}") from problem
    if victim.probabilities and not checks.are_probabilities(logits.exp()):
        raise NetworkError("probabilities=True is for a network whose rows sum to 1, and this one's don't")
    return logits


def _working(dtype: torch.dtype) -> torch.dtype:
    """Images are moved in float32 at least: half precision is coarser than the 8-bit lattice."""
    return torch.float64 if dtype == torch.float64 else torch.float32
