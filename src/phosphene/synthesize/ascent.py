"""The one loop that moves an image: gradient ascent on an objective under priors.

    I* = argmax_I f(I) + R(I)

(1) begin with the canvas; repeat: (2) forward, (3) backward to the image, (4) a small step, and now and then one of the
periodic operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Job, Step
from phosphene.synthesize.canvas import Canvas, PixelCanvas
from phosphene.synthesize.objectives import Objective
from phosphene.synthesize.priors import Penalty, Periodic
from phosphene.synthesize.redirect import RedirectRule
from phosphene.synthesize.transforms import Transform


@dataclass(frozen=True)
class Ascent:
    """`images`: `[N, 3, H, W]` in [0, 1]. `values`: `[steps, N]`, the objective at each step."""

    images: Tensor
    values: Tensor


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
    preview_every: int = 10,
) -> Job[Ascent]:
    """Move `canvas` up the objective with Adam, yielding a `Step` event after each step.

    Args:
        canvas: the batch of images to move; it is changed.
        objective: images `[N, 3, H, W]` to values `[N]`; the images of a batch do not influence each other.
        steps: how many.
        rate: Adam's learning rate, in the canvas's own units.
        penalties: subtracted from the objective.
        periodic: operations on the pixels of a `PixelCanvas`.
        transform: moves the images a little before each forward pass.
        generator: where its randomness comes from.
        preview_every: an image goes with every so many events.

    Raises:
        PhospheneError: the objective is not finite, or there are no steps.
    """
    if steps < 1:
        raise PhospheneError(f"steps start at 1, got {steps}")
    optimiser = torch.optim.Adam([canvas.parameter], lr=rate)
    values: list[Tensor] = []
    for step in range(1, steps + 1):
        value, gradient = _gradient(canvas, objective, penalties, transform, generator)
        if not (torch.isfinite(value).all() and torch.isfinite(gradient).all()):
            raise PhospheneError(
                f"the objective became {value.tolist()} at step {step}: use a smaller rate than {rate}"
            )
        canvas.parameter.grad = -gradient  # Adam descends
        optimiser.step()
        if isinstance(canvas, PixelCanvas):
            _tidy(canvas, gradient, periodic, step)
        values.append(value)
        preview = canvas.images().detach() if step % preview_every == 0 or step == steps else None
        yield Step(step, float(-value.mean()), preview)
    return Ascent(canvas.images().detach().clamp(0, 1), torch.stack(values))


def _gradient(
    canvas: Canvas,
    objective: Objective,
    penalties: Sequence[Penalty],
    transform: Transform | None,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """`(values [N], gradient of f(I) - penalties)`. Images that get no gradient at all get a redirected one."""
    with torch.enable_grad():
        images = canvas.images()
        seen = transform(images, generator) if transform is not None else images
        leaf = seen.detach().requires_grad_()
        value = objective(leaf)
        (push,) = torch.autograd.grad(value.sum(), leaf)
        silent = push.flatten(1).abs().amax(1) == 0
        if bool(silent.any()):
            with RedirectRule():
                redirected = objective(leaf)
            (woken,) = torch.autograd.grad(redirected.sum(), leaf)
            push = torch.where(silent.view(-1, 1, 1, 1), woken, push)  # only theirs: images don't influence each other
        cost = sum(penalty(canvas.standardise(images)).sum() for penalty in penalties)
        (gradient,) = torch.autograd.grad((seen * push).sum() - cost, canvas.parameter)
    return value.detach(), gradient


def _tidy(canvas: PixelCanvas, gradient: Tensor, periodic: Sequence[Periodic], step: int) -> None:
    with torch.no_grad():
        for operation in periodic:
            if step % operation.every == 0:
                canvas.parameter.copy_(operation.apply(canvas.parameter, gradient))
    canvas.keep_in_range()
