"""The one loop that moves an image: gradient ascent on an objective under priors.

    I* = argmax_I f(I) - R(I)

(1) begin with the canvas; repeat: (2) forward, (3) backward to the image, (4) a small step, and now and then one of the
periodic operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Halt, Job, Step
from phosphene.synthesize.canvas import Canvas, PixelCanvas
from phosphene.synthesize.objectives import Divisible, Objective
from phosphene.synthesize.pace import Pace, Restart
from phosphene.synthesize.priors import Penalty, Periodic
from phosphene.synthesize.redirect import RedirectRule
from phosphene.synthesize.transforms import Transform

WAKES = 30
"""Steps running for which an image without any gradient gets a redirected one; what sleeps on then is dead."""
WARM, LEAST_SHARE = 0.1, 0.1
LAST = 0.05


def cosine(share: float) -> float:
    """The share of the rate when `share` of the steps is done: up over the first tenth, then down like half a cosine.

    Adam's first steps are as long as all others, however little is known by then, and leave the borders of the first
    random movements in the picture; the last ones, if they stay long, leave grain.
    """
    return min(1.0, LEAST_SHARE + share / WARM) * (LAST + (1 - LAST) * (0.5 + 0.5 * math.cos(math.pi * share)))


@dataclass(frozen=True)
class Ascent:
    """What came of it.

    Attributes:
        images: `[N, 3, H, W]` in [0, 1].
        values: `[steps, N]`, the objective at each step.
        restarts: where an image diverged and went on from its last good state with half the step.
        ended: the step after which each image moved no more, because it had stopped rising or the job was halted.
        halted: whether it was.
    """

    images: Tensor
    values: Tensor
    restarts: tuple[Restart, ...] = ()
    ended: tuple[int, ...] = ()
    halted: bool = False


def ascend(
    canvas: Canvas,
    objective: Objective,
    *,
    steps: int,
    rate: float,
    penalties: Sequence[Penalty] = (),
    periodic: Sequence[Periodic] = (),
    transform: Transform | None = None,
    generator: torch.Generator,
    schedule: Callable[[float], float] | None = None,
    patience: int = 0,
    tolerance: float = 0.01,
    preview_every: int = 10,
) -> Job[Ascent]:
    """Move `canvas` up the objective with Adam, yielding a `Step` event after each step. A `Halt` ends it there.

    Args:
        canvas: the batch of images to move; it is changed.
        objective: images `[N, 3, H, W]` to values `[N]`; the images of a batch do not influence each other.
        steps: how many, at most.
        rate: Adam's learning rate, in the canvas's own units.
        penalties: subtracted from the objective.
        periodic: operations on the pixels of a `PixelCanvas`.
        transform: moves the images a little before each forward pass.
        generator: where its randomness comes from.
        schedule: share of the rate as a function of the share of the steps that is done, both 0 to 1.
        patience: an image ends where f - R, averaged over so many steps, has risen by less than `tolerance` of its size
            over the average of as many steps before; 0: never.
        tolerance: see there.
        preview_every: an image goes with every so many events.

    Raises:
        PhospheneError: the objective is not finite where it begins, an image diverges again and again, or no steps.
    """
    if steps < 1:
        raise PhospheneError(f"steps start at 1, got {steps}")
    fused = canvas.parameter.device.type in ("cpu", "cuda")  # one pass over memory instead of ten
    optimiser = torch.optim.Adam([canvas.parameter], lr=rate, fused=fused)
    pace = Pace(canvas.parameter, optimiser, rate, patience, tolerance)
    values: list[Tensor] = []
    asleep = torch.zeros(len(canvas.parameter), device=canvas.parameter.device)
    halted = False
    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = rate * (schedule((step - 1) / steps) if schedule is not None else 1.0)
        value, cost, gradient = _gradient(canvas, objective, penalties, transform, generator, asleep)
        pace.look(step, value - cost, gradient)
        # Adam descends. Contiguous as the parameter is: the fused Adam takes both in the order in which they lie in memory.
        canvas.parameter.grad = -gradient.contiguous()
        optimiser.step()
        if isinstance(canvas, PixelCanvas):
            _tidy(canvas, gradient, periodic, step)
        pace.settle()
        values.append(value)
        preview = canvas.images().detach() if step % preview_every == 0 or step == steps else None
        try:
            yield Step(step, float(-value.mean()), preview)
        except Halt:
            halted = True
            break
        if pace.all_ended:
            break
    ended = tuple(pace.ended_at(len(values)))
    return Ascent(canvas.images().detach().clamp(0, 1), torch.stack(values), tuple(pace.restarts), ended, halted)


def _gradient(
    canvas: Canvas,
    objective: Objective,
    penalties: Sequence[Penalty],
    transform: Transform | None,
    generator: torch.Generator,
    asleep: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`(f(I) [N], R(I) [N], gradient of f - R)`. Images that get no gradient at all get a redirected one, for a while.

    `asleep` `[N]` counts for how many steps running that has been so.
    """
    with torch.enable_grad():
        images = canvas.images()
        seen = transform(images, generator) if transform is not None else images
        leaf = seen.detach().requires_grad_()
        value = objective(leaf)
        (push,) = torch.autograd.grad(value.sum(), leaf)
        silent = push.flatten(1).abs().amax(1) == 0
        asleep.mul_(silent).add_(silent)
        places = (silent & (asleep <= WAKES)).nonzero().flatten().tolist()
        if places:
            push = _woken(objective, leaf, push, places)
        standard = canvas.standardise(images)
        cost = sum((penalty(standard) for penalty in penalties), torch.zeros_like(value))
        ends, slopes = ([seen, cost], [push, -torch.ones_like(cost)]) if penalties else ([seen], [push])
        (gradient,) = torch.autograd.grad(ends, canvas.parameter, slopes)
    return value.detach(), cost.detach(), gradient


def _woken(objective: Objective, leaf: Tensor, push: Tensor, places: list[int]) -> Tensor:
    """The gradient `push` of the images `leaf`, with a redirected one for the images at `places`."""
    some, seen = objective, leaf
    if isinstance(objective, Divisible) and len(places) < len(leaf):
        some, seen = objective.part(places), leaf.detach()[places].requires_grad_()
    with RedirectRule():
        value = some(seen)
    (woken,) = torch.autograd.grad(value.sum(), seen)
    push = push.clone()
    push[places] = woken[places] if seen is leaf else woken  # only theirs: images don't influence each other
    return push


def _tidy(canvas: PixelCanvas, gradient: Tensor, periodic: Sequence[Periodic], step: int) -> None:
    pixels = canvas.pixels
    push = canvas.on_pixels(gradient)
    for operation in periodic:
        if step % operation.every == 0:
            pixels = operation.apply(pixels, push)
    canvas.replace(pixels)
