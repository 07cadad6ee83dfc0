"""Moving one picture down a loss: L-BFGS, as in the papers, or Adam; with a way out where L-BFGS is stuck."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.progress import Halt, Job, Step
from phosphene.synthesize.canvas import Canvas
from phosphene.synthesize.style_loss import Evaluation

OptimiserName: TypeAlias = Literal["lbfgs", "adam"]
Evaluate: TypeAlias = Callable[[Tensor], Evaluation]

HISTORY = 10  # pairs of steps and gradients that L-BFGS remembers
STALLED = 25  # steps without a lower loss after which L-BFGS is begun again
LEAP = 0.05  # root mean square of what a step of L-BFGS may change of the pixels, of 0 to 1
FIRST = 0.002  # how much its first step changes of them: enough to learn the curvature from
EXPLODES = 3.0  # times the lowest loss so far
MOST_LEAPS = 3  # so often L-BFGS may explode


@dataclass(frozen=True)
class Switch:
    """At `step` the optimiser was begun anew as `optimiser`, from the lowest loss so far, because of `why`."""

    step: int
    optimiser: str
    why: str


@dataclass
class Progress:
    """Where a descent is; enough to go on from there to the same numbers.

    Attributes:
        step: steps that are done.
        optimiser: which one is at work.
        switches: so far.
        parameter, state: of the canvas and the optimiser.
        best, best_loss, best_step: the parameter of the lowest loss, that loss, and its step.
        since: the step since which the optimiser has been the present one.
        leaps: how often L-BFGS has exploded, and begun anew from the best picture.
        totals: the loss at each step.
        halted: whether it ends here, early.
    """

    step: int = 0
    optimiser: OptimiserName = "lbfgs"
    switches: list[Switch] = field(default_factory=list)
    parameter: Tensor | None = None
    state: dict[str, Any] | None = None
    best: Tensor | None = None
    best_loss: float = math.inf
    best_step: int = 0
    since: int = 0
    leaps: int = 0
    totals: list[float] = field(default_factory=list)
    halted: bool = False


@dataclass(frozen=True)
class Descent:
    """The end of a descent: `image [1, 3, H, W]` in [0, 1], the loss at the steps, and the last evaluation."""

    image: Tensor
    totals: list[float]
    first: Evaluation
    last: Evaluation
    switches: tuple[Switch, ...]
    halted: bool = False


def descend(
    canvas: Canvas,
    evaluate: Evaluate,
    *,
    steps: int,
    optimiser: OptimiserName = "lbfgs",
    rate: float = 1.0,
    progress: Progress | None = None,
    history: int = HISTORY,
    keep: Callable[[Progress], None] | None = None,
    preview_every: int = 5,
) -> Job[Descent]:
    """Move `canvas` down the loss, yielding a `Step` event after each step. A `Halt` ends it there.

    L-BFGS takes unit steps along its directions, without a line search: one evaluation a step, none of which changes the
    picture by more than `LEAP`. Where the loss explodes it begins anew from the best picture. Where it does so again and
    again, or the loss has not been lower for `STALLED` steps, that is a `Switch`: the first begins L-BFGS anew, the second
    hands over to Adam.

    Args:
        canvas: one picture; it is changed.
        evaluate: the loss of `[1, 3, H, W]` and its gradient.
        steps: how many, at most.
        optimiser: `lbfgs` or `adam`.
        rate: L-BFGS: of a step, 1 is its own; Adam: its learning rate, in the canvas's units, which falls along a cosine.
        progress: to go on from there.
        history: pairs of steps and gradients that L-BFGS remembers.
        keep: is told, after each step and where it is halted, where it is: always the same object, to be copied if kept.
        preview_every: an image goes with every so many events.

    Raises:
        PhospheneError: no steps, or the loss is not finite where it begins.
    """
    if steps < 1:
        raise PhospheneError(f"steps start at 1, got {steps}")
    here = progress or Progress(optimiser=optimiser)
    mover = _Mover(canvas, evaluate, steps, rate, history, here)
    halted = False
    while here.step < steps:
        mover.move()
        if keep is not None:
            keep(mover.progress())
        shown = here.step % preview_every == 0 or here.step == steps
        try:
            yield Step(here.step, here.totals[-1], canvas.images().detach().clamp(0, 1) if shown else None)
        except Halt:
            halted = here.halted = True
            if keep is not None:
                keep(mover.progress())
            break
    image, last = mover.end()
    return Descent(image, here.totals, mover.first or last, last, tuple(here.switches), halted)


class _Mover:
    """One step after another, watched."""

    def __init__(
        self, canvas: Canvas, evaluate: Evaluate, steps: int, rate: float, history: int, here: Progress
    ) -> None:
        self.canvas, self.evaluate, self.steps, self.rate, self.here = canvas, evaluate, steps, rate, here
        self.history = history
        self.first: Evaluation | None = None
        self._seen = canvas.parameter.detach()  # the picture of the last evaluation
        if here.parameter is not None:
            with torch.no_grad():
                canvas.parameter.copy_(here.parameter)
        self.optimiser = self._begin(here.optimiser)
        if here.state is not None:
            self.optimiser.load_state_dict(here.state)

    def move(self) -> None:
        """One step, or a new beginning where there is no way on."""
        here = self.here
        if here.optimiser == "adam":
            share = (here.step - here.since) / max(1, self.steps - here.since)
            self.optimiser.param_groups[0]["lr"] = self._adam_rate() * (0.5 + 0.5 * math.cos(math.pi * share))
        before = self.canvas.parameter.detach().clone() if here.optimiser == "lbfgs" else None
        self.optimiser.step(self._closure)
        if before is not None:
            self._shorten(before)
        here.step += 1
        loss = here.totals[-1]
        if here.step == 1 and not math.isfinite(loss):
            raise PhospheneError(f"the loss is {loss} where it begins, no finite number: check the images and weights")
        why = self._trouble(loss)
        if why:
            self._switch(why)

    def end(self) -> tuple[Tensor, Evaluation]:
        """The better one of the last picture and that of the lowest loss, in colours that exist, and its evaluation."""
        image = self.canvas.images().detach().clamp(0, 1)
        last = self.evaluate(image)
        if self.here.best is None or last.total <= self.here.best_loss:
            return image, last
        with torch.no_grad():
            self.canvas.parameter.copy_(self.here.best)
        other = self.canvas.images().detach().clamp(0, 1)
        best = self.evaluate(other)
        return (image, last) if last.total < best.total else (other, best)

    def progress(self) -> Progress:
        """Where it is, with the canvas's parameter and the optimiser's state."""
        self.here.parameter = self.canvas.parameter.detach()
        self.here.state = self.optimiser.state_dict()
        return self.here

    def _closure(self) -> float:
        here, parameter = self.here, self.canvas.parameter
        images = self.canvas.images()
        self._seen = images.detach()
        found = self.evaluate(self._seen)
        self.first = self.first or found
        (gradient,) = torch.autograd.grad(images, parameter, found.gradient)
        parameter.grad = gradient.contiguous()
        here.totals.append(found.total)
        if found.total < here.best_loss:
            here.best_loss, here.best_step = found.total, here.step
            here.best = parameter.detach().clone()
        return found.total

    def _shorten(self, before: Tensor) -> None:
        """Cut a leap of L-BFGS short: its early steps, of a curvature hardly known, would blacken whole regions for good.

        Steps that go straight down the gradient, the first one and those where the curvature is negative, are given a
        length, each twice that of the one before: PyTorch's are lost in rounding, or creep. The state holds the length of
        the step, from which the next one learns; that is changed, too.
        """
        state = self.optimiser.state[self.canvas.parameter]
        straight = not state.get("old_dirs")
        wanted = min(LEAP, FIRST * 2.0 ** (self.here.step - self.here.since)) if straight else LEAP
        parameter = self.canvas.parameter
        with torch.no_grad():
            moved = float((self.canvas.images() - self._seen).square().mean().sqrt())
            if not 0 < moved < math.inf or (moved <= wanted and not straight):
                return
            share = wanted / moved
            parameter.copy_(before + share * (parameter - before))
        state["t"] = state["t"] * share

    def _trouble(self, loss: float) -> str:
        here = self.here
        if not math.isfinite(loss):
            return "the loss was no finite number"
        if here.optimiser == "adam":
            return ""
        if loss - here.best_loss > (EXPLODES - 1) * abs(here.best_loss):
            here.leaps += 1
            return EXPLODED
        return f"no lower loss for {STALLED} steps" if here.step - max(here.best_step, here.since) > STALLED else ""

    def _switch(self, why: str) -> None:
        here = self.here
        if here.optimiser == "adam":
            raise PhospheneError(f"{why} at step {here.step}, also with Adam: use a smaller rate than {self.rate:g}")
        if here.best is not None:
            with torch.no_grad():
                self.canvas.parameter.copy_(here.best)
        here.since = here.step
        if why == EXPLODED and here.leaps <= MOST_LEAPS:  # usual where L-BFGS doesn't know the curvature yet
            self.optimiser = self._begin("lbfgs")
            return
        here.optimiser = "adam" if here.switches else "lbfgs"
        here.switches.append(Switch(here.step, here.optimiser, why))
        self.optimiser = self._begin(here.optimiser)

    def _begin(self, name: OptimiserName) -> torch.optim.Optimizer:
        parameter = [self.canvas.parameter]
        if name == "adam":
            return torch.optim.Adam(parameter, lr=self._adam_rate(), betas=(0.9, 0.99))
        return torch.optim.LBFGS(
            parameter, lr=self.rate, max_iter=1, history_size=self.history, tolerance_grad=0, tolerance_change=0
        )

    def _adam_rate(self) -> float:
        """Where L-BFGS has given up, its rate says nothing about Adam's."""
        return FALLBACK_RATE if self.here.switches else self.rate


FALLBACK_RATE = 0.01
EXPLODED = "the loss exploded"
