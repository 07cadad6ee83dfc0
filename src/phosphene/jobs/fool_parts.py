"""Which attack `fool` runs, and running it on a photograph, toward one class, several, or any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal

import torch
from torch import Tensor

from phosphene.attacks import ATTACKS, Norm, checks
from phosphene.attacks import attack as run_attack
from phosphene.attacks import fool as ascend
from phosphene.attacks.named import check, named
from phosphene.attacks.victim import gives_probabilities
from phosphene.errors import PhospheneError, did_you_mean
from phosphene.models import Network
from phosphene.progress import Job

FOOLING = "fooling"
"""The slides' ascent: what `fool` runs toward a class where nobody chooses."""

NAMES = (FOOLING, *ATTACKS)
CONFIDENCE, STEPS = 0.5, 200  # of the ascent


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        attack: `fooling`, or one of `ATTACKS`.
        norm: of the ball; where there is no `eps`, of what is to be small.
        eps: how far the picture may go, in units of [0, 1]; None: as far as it takes.
        steps: None: as many as is usual for it.
        confidence: of the ascent, the probability to be reached.
        seed: of an attack that begins at random.
        sure: an attack that can goes on after success: its change is for other networks, too.
    """

    attack: str
    norm: Norm
    eps: float | None
    steps: int | None
    confidence: float
    seed: int
    sure: bool = False

    @property
    def measure(self) -> Literal["l2", "backwards", "probability"]:
        """What tells how hard a class is: the change; of an attack that fills its ball, gradients, or how likely it got."""
        if self.attack == FOOLING or ATTACKS[self.attack].smallest:
            return "l2"
        return "probability" if ATTACKS[self.attack].counted is None else "backwards"

    def facts(self) -> dict[str, Any]:
        """What a reader of the facts has to know of it."""
        return {"attack": self.attack, "norm": self.norm, "eps": self.eps}


@dataclass(frozen=True)
class Changed:
    """What came of it, one entry per target, on the CPU.

    Attributes:
        original: `[3, H, W]`, on the 8-bit lattice.
        images: `[N, 3, H, W]`, on the 8-bit lattice.
        success: `[N]`.
        l2, linf: `[N]`, size of the change.
        steps: `[N]`, of the ascent; None for another attack.
        forwards, backwards: `[N]`, passes of another attack; None for the ascent.
    """

    original: Tensor
    images: Tensor
    success: Tensor
    l2: Tensor
    linf: Tensor
    steps: Tensor | None = None
    forwards: Tensor | None = None
    backwards: Tensor | None = None

    def facts(self, place: int) -> dict[str, Any]:
        """The numbers of one target."""
        counts = {"steps": self.steps, "forwards": self.forwards, "backwards": self.backwards}
        return {
            "success": bool(self.success[place]),
            "l2": float(self.l2[place]),
            "linf": float(self.linf[place]),
            **{name: None if count is None else int(count[place]) for name, count in counts.items()},
        }

    def effort(self, place: int) -> str:
        """`12 steps` or `40 gradients`."""
        if self.steps is not None:
            return _count(int(self.steps[place]), "step")
        assert self.forwards is not None and self.backwards is not None
        gradients = int(self.backwards[place])
        return _count(gradients, "gradient") if gradients else f"{int(self.forwards[place])} looks"


def plan(
    attack: str | None,
    norm: Norm | None,
    eps: float | None,
    steps: int | None,
    confidence: float,
    seed: int,
    *,
    aimed: bool,
    sure: bool = False,
) -> Plan:
    """What to run for what was asked; `aimed`: toward given classes; `sure`: see `Plan`.

    Raises:
        PhospheneError: an unknown attack, or something that it can't be asked for.
    """
    name = attack or _usual(norm, eps, aimed)
    if name not in NAMES:
        hint = did_you_mean(name, NAMES) or ":"
        raise PhospheneError(f"there is no attack '{name}'{hint} There are {', '.join(NAMES)}")
    if eps is not None:
        checks.visible(eps, norm or "linf")
    if name == FOOLING:
        if not aimed:
            raise PhospheneError("the fooling ascent climbs a class: give --target with it, or --attack deepfool")
        if norm is not None and eps is None:
            raise PhospheneError("--norm is that of a ball: give --eps with it")
        usual = "l2" if eps is None else "linf"  # without a ball it is the L2 norm that is to stay small
        return Plan(name, norm or usual, eps, STEPS if steps is None else steps, confidence, seed)
    chosen = named(name)
    check(chosen, eps=eps, norm=norm, steps=steps, aimed=aimed)
    if confidence != CONFIDENCE:
        raise PhospheneError(f"--confidence is for the fooling ascent: {name} ends where another class leads")
    return Plan(name, norm or chosen.norms[0], eps, steps, confidence, seed, sure)


def _usual(norm: Norm | None, eps: float | None, aimed: bool) -> str:
    """The attack that suits: the ascent toward a class, PGD in a ball, else one that looks for the smallest change."""
    if aimed:
        return FOOLING
    if eps is not None:
        return "pgd"
    return "fab" if norm == "linf" else "deepfool"


def change(network: Network, photo: Tensor, seen: int, targets: Sequence[int] | None, chosen: Plan) -> Job[Changed]:
    """Run the plan, for all targets at once.

    Args:
        network: a network that classifies.
        photo: `[1, 3, H, W]` in [0, 1].
        seen: the class that it sees in it.
        targets: classes to reach; None: any but that.
        chosen: see `plan`.

    Raises:
        PhospheneError, LabelError, NetworkError: see `attacks.fool` and `attacks.attack`.
    """
    count = 1 if targets is None else len(targets)
    photos = photo.expand(count, -1, -1, -1)
    if chosen.attack != FOOLING:
        going_on = chosen.sure and "exhaust" in signature(ATTACKS[chosen.attack].function).parameters
        found = yield from run_attack(
            chosen.attack, network, photos, [seen] * count, eps=chosen.eps, norm=chosen.norm, steps=chosen.steps,
            targets=targets, seed=chosen.seed, quantize=True, probabilities=gives_probabilities(network),
            **({"exhaust": True} if going_on else {}),
        )  # fmt: skip
        counts = {"forwards": found.forwards.cpu(), "backwards": found.backwards.cpu()}
    else:
        assert targets is not None
        ball = None if chosen.eps is None else checks.ball(chosen.eps, chosen.norm, None, photos)
        found = yield from ascend(
            network,
            photos,
            targets,
            confidence=chosen.confidence,
            steps=STEPS if chosen.steps is None else chosen.steps,
            ball=ball,
        )
        counts = {"steps": found.steps.cpu()}
    return Changed(
        found.originals[0].float().cpu(), found.images.float().cpu(), found.success.cpu(), found.l2.cpu(),
        found.linf.cpu(), **counts,
    )  # fmt: skip


def probabilities(network: Network, images: Tensor) -> Tensor:
    """`[N, classes]` of images `[N, 3, H, W]`, on the CPU."""
    with torch.no_grad():
        return torch.cat([network.logits(part.to(network.mean)).softmax(1).cpu() for part in network.split(images)])


def size_of(l2: float, linf: float) -> str:
    """The size of a change, in words."""
    return f"L2 {l2:.2f}, at most {round(linf * 255)}/255 per pixel"


def seen_in(network: Network, image: Tensor) -> dict[str, Any]:
    """The first class of one image `[1, 3, H, W]`."""
    found = network.predict(image, 1)[0]
    return {"index": found.indices[0], "name": found.names[0], "probability": found.probabilities[0]}


def told(seen: dict[str, Any]) -> str:
    """`tabby 52.0%`."""
    return f"{seen['name']} {seen['probability']:.1%}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
