"""The training loop: the order of the photographs, rates, repair, averages, and where it is; what a step learns, others say.

    theta <- theta - rate(t) grad L(theta; batch t)

Nothing random is remembered: order and dropout follow from (seed, epoch) and (seed, step, process), so that a run that goes
on from a `State` ends with the numbers of one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.progress import BY_HAND, Halt, Job, Started, Step
from phosphene.training.optimiser import schedule, set_rates
from phosphene.training.state import Progress, State, given_back, progress_of, taken

Keep: TypeAlias = Callable[[Callable[[], State], bool], None]
"""Told after each step: a function that makes the `State` of this moment, and whether an epoch has ended."""

REPAIRS = 3
"""How often a training goes back and on at half the rate, because its loss was no number."""


class Plan(Protocol):
    """What the loop has to know of a training's settings."""

    @property
    def epochs(self) -> int:
        """Times that each example is seen."""
        ...

    @property
    def batch(self) -> int:
        """Examples of a step, of all processes together."""
        ...

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        ...

    @property
    def warmup(self) -> float:
        """Share of the steps in which rates rise."""
        ...

    @property
    def ema(self) -> float:
        """Decay of the average of the weights; 0: none."""
        ...

    @property
    def seed(self) -> int:
        """Of everything random."""
        ...


class Loop(ABC):
    """One training, step by step.

    Args:
        module: what is trained.
        made: its optimiser, see `optimiser`.
        plan: settings.
        size: how many examples there are.
        device: where they are learned from.
        what: the training's name in the progress bar.
        precision: `auto`, `float32`, `bfloat16` or `float16`.
    """

    def __init__(
        self,
        module: nn.Module,
        made: torch.optim.Optimizer,
        plan: Plan,
        size: int,
        device: torch.device,
        *,
        what: str,
        precision: str = "float32",
    ) -> None:
        self.module, self.optimiser, self.plan, self.size, self.what = module, made, plan, size, what
        self.device = device
        self.average = {n: v.detach().clone() for n, v in module.state_dict().items()} if plan.ema else None
        self.progress = Progress()
        self.an_epoch = max(1, size // plan.batch)  # the last batch is left out where it is not whole
        self.precision = Precision(precision, device)
        self.halted = False

    @property
    def steps(self) -> int:
        """Of the whole training."""
        return self.plan.epochs * self.an_epoch

    def begin(self, resume: State | None) -> None:
        """Begin, or go on from a state; to be called once, when everything is there that a state holds."""
        if resume is not None:
            self.put(resume.tensors)
            self.progress = progress_of(resume)
        self.precision.load(self.progress.scaler)
        self.good = self.state()
        self.called = parallel(self.module)

    # -- what a training says of itself ----------------------------------------------------------------------------

    @abstractmethod
    def batches(self, places: Sequence[Sequence[int]], epoch: int) -> Iterable[Any]:
        """What this process learns from: one thing for each of its shares of the batches."""

    @abstractmethod
    def learn(self, places: Sequence[int], own: Sequence[int], batch: Any) -> tuple[Tensor, int]:
        """A step's loss and how many examples were right.

        Args:
            places: the whole batch's.
            own: this process's share of them.
            batch: what `batches` gave for it.

        Returns:
            The sum over the share, divided by what it is divided by for the whole batch.
        """

    @abstractmethod
    def judge(self, epoch: int) -> Job[dict[str, Any] | None]:
        """What there is to say of an epoch; None where what the network says are no numbers."""

    @property
    def decay(self) -> float:
        """Of the average of the weights, after this step."""
        return self.plan.ema

    def modes(self) -> None:
        """Put the module into the mode in which it is trained."""
        self.module.train()

    def broken(self) -> str:
        """Why to go back to the last good state, after a step; empty: all is well."""
        return ""

    def mended(self) -> None:
        """What to do otherwise after that."""
        return

    def stalled(self) -> str:
        """Why to end after this epoch; empty: no reason."""
        return ""

    def tensors(self) -> dict[str, Tensor]:
        """Copies of what a state holds."""
        return taken(self.module, self.average, self.optimiser)

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put them back. Raises PhospheneError if they are of another network or optimiser."""
        given_back(tensors, self.module, self.average, self.optimiser)

    # -- the loop --------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """Where it is, copied."""
        self.progress.scaler = self.precision.state()
        return State(self.tensors(), asdict(self.progress))

    def run(self, keep: Keep | None) -> Job[None]:
        """All steps that are left."""
        try:
            yield Started(self.what, self.steps, "step", keeps=True)
            if self.progress.step:
                yield Step(self.progress.step)
        except Halt:
            self.halted = True
            if processes.count() == 1:
                self._halt()
                return
        while self.progress.step < self.steps and not self.progress.stopped:
            if (yield from self._epoch(self.progress.step // self.an_epoch, keep)):
                return

    def _halt(self) -> None:
        self.progress.stopped = self.progress.stopped or BY_HAND

    def _epoch(self, epoch: int, keep: Keep | None) -> Job[bool]:
        """The rest of an epoch; whether a `Halt` ended it."""
        here, begun = self.progress, time.monotonic()
        before = here.seconds
        order = self.order(epoch)[here.step % self.an_epoch :]
        mine = [places[processes.rank() :: processes.count()] for places in order]
        for places, batch in zip(order, self.batches(mine, epoch), strict=True):
            loss = self.step(places, batch)
            if not math.isfinite(loss):
                self._repair(loss)
                return False
            here.step += 1
            here.seconds = before + time.monotonic() - begun
            if why := self.broken():
                self._mend(why)
                return False
            ended = here.step % self.an_epoch == 0
            if ended:
                if not (yield from self._end_of(epoch)):
                    self._repair(math.nan)
                    return False
                self.good = self.state()
            if keep is not None and processes.first():
                keep(self._sound, ended)
            if self.halted:
                self._halt()
                return True
            try:
                yield Step(here.step, loss)
            except Halt:
                self.halted = True
                if processes.count() == 1:
                    self._halt()
                    return True
        return False

    def order(self, epoch: int) -> list[list[int]]:
        """The places of each batch of an epoch; the same in every process."""
        mixed = np.random.default_rng([self.plan.seed % 2**64, epoch, 7]).permutation(self.size).tolist()
        batch = self.plan.batch
        return [mixed[place * batch : (place + 1) * batch] for place in range(self.an_epoch)]

    def step(self, places: Sequence[int], batch: Any) -> float:
        """One step on this process's share of a batch; the loss of the whole batch."""
        here = self.progress
        set_rates(self.optimiser, here.slower * schedule(here.step, self.steps, self.plan.warmup))
        self.modes()
        with seeded(self.plan.seed, here.step + 1, processes.rank()):
            loss, right = self.learn(places, places[processes.rank() :: processes.count()], batch)
        self.optimiser.zero_grad(set_to_none=True)
        with processes.others():
            self.precision.backward(loss * processes.count())  # DDP takes the mean over processes
        summed, hits, halts = processes.total([float(loss.detach()), float(right), float(self.halted)])
        self.halted = halts > 0  # in one process, so in all: else they would wait for one another in different places
        if math.isfinite(summed):
            self.precision.step(self.optimiser)
            self._agree()
            self._follow()
            here.sums = [a + b for a, b in zip(here.sums, (summed * len(places), hits, len(places)), strict=True)]
        return summed

    def _agree(self) -> None:
        """Running means as the first process has them."""
        mine = [buffer for buffer in self.module.buffers() if processes.count() > 1]
        if mine:
            for own, its in zip(mine, processes.gather([b.detach().cpu() for b in mine])[0], strict=True):
                own.copy_(its)

    def _follow(self) -> None:
        """The average of the weights moves a little towards them."""
        if self.average is None:
            return
        with torch.no_grad():
            for name, value in self.module.state_dict().items():
                held = self.average[name]
                held.lerp_(value, 1 - self.decay) if held.is_floating_point() else held.copy_(value)

    def _repair(self, loss: float) -> None:
        """The loss is no number: back to the last good state, and on at half the rate."""
        repairs = [*self.progress.repairs, self.progress.step]
        if len(repairs) > REPAIRS:
            raise PhospheneError(
                f"the loss was {loss} at steps {', '.join(map(str, repairs))}, also at {self.progress.slower:g} of the rate:"
                f" give a lower --rate than {self.plan.peak:g}"
            )
        slower = self.progress.slower / 2
        self.put(self.good.tensors)
        self.progress = progress_of(self.good)
        self.progress.slower, self.progress.repairs = slower, repairs
        self.precision.load(self.progress.scaler)
        self.good = self.state()

    def _mend(self, why: str) -> None:
        """Back to the last good state, and on at half the rate, otherwise."""
        mended = [*self.progress.notes.get("mended", []), {"step": self.progress.step, "why": why}]
        slower = self.progress.slower / 2
        self.put(self.good.tensors)
        self.progress = progress_of(self.good)
        self.progress.slower, self.progress.notes["mended"] = slower, mended
        self.mended()
        self.good = self.state()

    def _sound(self) -> State:
        """Where it is; the last good state where the last step has left a weight that is no number."""
        made = self.state()
        return made if all(bool(torch.isfinite(tensor).all()) for tensor in made.tensors.values()) else self.good

    def _end_of(self, epoch: int) -> Job[bool]:
        """Judge the epoch, and note it; whether what the network says are numbers."""
        here = self.progress
        judged = yield from self.judge(epoch)
        if judged is None:
            return False
        loss, hits, count = here.sums
        here.sums = [0.0, 0.0, 0.0]
        here.rows.append(
            {
                "epoch": epoch + 1,
                "step": here.step,
                "train_loss": loss / count,
                "train_accuracy": hits / count,
                **judged,
                "rate": self.plan.peak * here.slower * schedule(here.step - 1, self.steps, self.plan.warmup),
                "seconds": round(here.seconds, 3),
                "images_per_second": round(count * (len(here.rows) + 1) / max(here.seconds, 1e-9), 2),
            }
        )
        here.stopped = here.stopped or self.stalled()
        return True

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """With the average of the weights in their place."""
        if self.average is None:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        self.module.load_state_dict(self.average)
        try:
            yield
        finally:
            self.module.load_state_dict(own)


def parallel(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The module, whose gradients are averaged over the processes of torchrun."""
    if processes.count() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    processes.begin()
    where = next(module.parameters()).device
    with processes.others():
        return nn.parallel.DistributedDataParallel(module, device_ids=[where] if where.type == "cuda" else None)


@contextmanager
def seeded(seed: int, step: int, rank: int) -> Iterator[None]:
    """Dropout's random numbers follow from the step; the caller's are as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + step * 1_009 + rank) % 2**63)
        yield


class Precision:
    """Mixed precision where the device has it."""

    def __init__(self, wanted: str, device: torch.device) -> None:
        if wanted == "auto":
            half = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float16"
            wanted = half if device.type == "cuda" else "float32"
        self.kind, self.device = getattr(torch, wanted), device
        self.scaler = torch.amp.GradScaler(device.type, enabled=wanted == "float16")  # pyright: ignore

    def cast(self) -> AbstractContextManager[Any]:
        """Where products are computed in it."""
        if self.kind is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.kind)

    def state(self) -> dict[str, Any]:
        """The scale of float16's gradients, as JSON."""
        return self.scaler.state_dict()

    def load(self, state: dict[str, Any]) -> None:
        """Go on with that scale."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)

    def backward(self, loss: Tensor) -> None:
        """Gradients, scaled where they would vanish."""
        self.scaler.scale(loss).backward()

    def step(self, made: torch.optim.Optimizer) -> None:
        """The optimiser's step."""
        self.scaler.step(made)
        self.scaler.update()
