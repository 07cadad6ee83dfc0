"""Fine-tuning: the last stages of a network, or all of it, learn a new task from where ImageNet left them.

    min_theta  sum_i c_{y_i} log(1 / softmax(f_theta(I_i))_{y_i}),   theta = the last stages and the head

The head begins as the linear probe (LP-FT). What is frozen runs without gradients, and once only where nothing random comes
before it.

Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014; Kumar et al., ICLR 2022 (LP-FT).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import BY_HAND, Halt, Job, Started, Step
from phosphene.training.augment import Augment
from phosphene.training.features import width
from phosphene.training.folder import Examples
from phosphene.training.inputs import Anew, Frozen, Once, once
from phosphene.training.optimiser import optimiser, schedule, set_rates
from phosphene.training.parts import Rest, check_layers, part, rest
from phosphene.training.probe import Probe, probe, targets, with_classes
from phosphene.training.scores import Scores, scores
from phosphene.training.settings import MEANS, FinetuneSettings
from phosphene.training.stages import stages
from phosphene.training.state import Progress, State, given_back, progress_of, taken

Keep: TypeAlias = Callable[[Callable[[], State], bool], None]

REPAIRS = 3
"""How often a training goes back and on at half the rate, because its loss was no number."""


@dataclass(frozen=True, eq=False)
class Finetuned:
    """A fine-tuned network.

    Attributes:
        network: a new one; that which was given is as it was.
        after: the last stage that was frozen; None where everything was trained.
        trained: how many numbers were.
        rows: one for each epoch: `epoch`, `step`, `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy`, `rate`,
            `seconds`, `images_per_second`.
        probabilities: `[M, classes]` of the held-out photographs.
        scores: how it does on them.
        probe: the linear classifier that it began from, if it did.
        progress: what happened.
    """

    network: Network
    after: str | None
    trained: int
    rows: tuple[dict[str, Any], ...]
    probabilities: np.ndarray
    scores: Scores
    probe: Probe | None
    progress: Progress


def finetune(
    network: Network,
    examples: Examples,
    *,
    settings: FinetuneSettings | None = None,
    folder: Path | None = None,
    keep: Keep | None = None,
    resume: State | None = None,
) -> Job[Finetuned]:
    """Fine-tune a copy of `network` on photographs. A `Halt` ends it, with what it has learned so far.

    Args:
        network: any network.
        examples: photographs to learn from and to be judged by.
        settings: see there.
        folder: where the probe's features are kept; None keeps none.
        keep: is told after each step: a function that makes the `State` of this moment, and whether an epoch has ended;
            under torchrun only the first process is.
        resume: go on from there.

    Raises:
        PhospheneError: a setting out of range, fewer photographs than a batch, a loss that stays NaN.
        LayerError: no such stage.
    """
    settings = settings or FinetuneSettings()
    settings.check()
    if len(examples.train) < settings.batch:
        raise PhospheneError(
            f"there are {len(examples.train)} images to learn from, fewer than a batch of {settings.batch}: give a smaller"
            " --batch"
        )
    if settings.batch < processes.count():
        raise PhospheneError(
            f"a batch of {settings.batch} images can't be shared by {processes.count()} processes: give a larger --batch"
        )
    check_layers(network, settings.layers)
    new, found = yield from _begun(network, examples, settings, folder, need=resume is None)
    training = _Training(new, examples, settings, resume)
    yield from training.prepare()
    yield from training.run(keep)
    probabilities = yield from training.judged()
    training.into(new)
    return Finetuned(
        new, training.part.after, training.count, tuple(training.progress.rows), probabilities,
        scores(probabilities, targets(examples.val), examples.classes), found, training.progress,
    )  # fmt: skip


def _begun(
    network: Network, examples: Examples, settings: FinetuneSettings, folder: Path | None, need: bool
) -> Job[tuple[Network, Probe | None]]:
    """The network with a new head on its last stage: that of a linear probe, or a random one."""
    last = stages(network)[-1]
    if settings.start == "probe" and need:
        if folder is not None and not processes.first():
            processes.wait()  # the features are there then
        found = yield from probe(
            network, examples, stages=[last], balanced=settings.balanced, seed=settings.seed, folder=folder
        )
        if folder is not None and processes.first():
            processes.wait()
        return found.network, found
    with _seeded(settings.seed, 0, 0):
        return with_classes(network, examples.classes, last, width(network, last)), None


class _Training:
    """One training, step by step."""

    def __init__(self, network: Network, examples: Examples, settings: FinetuneSettings, resume: State | None) -> None:
        self.network, self.examples, self.settings = network, examples, settings
        self.part = part(network, settings.layers)
        self.rest: Rest = rest(network, self.part.after)
        self.frozen = Frozen(network, self.rest.after)
        depths = {f"module.{name}": depth for name, depth in self.part.parameters.items()}
        self.rest.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.optimiser = optimiser(self.rest, depths, settings)
        self.count = sum(p.numel() for p in self.rest.parameters() if p.requires_grad)
        self._modes = _trained_modules(self.rest, set(depths), settings.norms)
        self.average = {n: v.detach().clone() for n, v in self.rest.state_dict().items()} if settings.ema else None
        self.progress = Progress()
        self.labels = torch.from_numpy(targets(examples.train))
        self.weights = _class_weights(examples, settings.balanced)
        self.size = len(examples.train)
        self.an_epoch = max(1, self.size // settings.batch)  # the last batch is left out where it is not whole
        self.steps = settings.epochs * self.an_epoch
        self.precision = _Precision(settings.precision, network.device)
        if resume is not None:
            given_back(resume.tensors, self.rest, self.average, self.optimiser)
            self.progress = progress_of(resume)
        self.halted = False
        self.precision.load(self.progress.scaler)
        self.good = self.state()
        self.called = _parallel(self.rest)

    def prepare(self) -> Job[None]:
        """What the frozen part makes of the photographs that never change: those that judge, and all without augmentation."""
        self.val: Once = yield from once(self.examples.val, self.frozen, every=False, what="the frozen part, on val")
        if self.settings.augment == "none":
            self.train: Anew | Once = yield from once(self.examples.train, self.frozen)
        else:
            augment = Augment(self.settings.augment, self.network.preprocess, self.settings.seed)
            self.train = Anew(self.examples.train, augment, self.frozen)

    def state(self) -> State:
        """Where it is, copied."""
        self.progress.scaler = self.precision.state()
        return State(taken(self.rest, self.average, self.optimiser), asdict(self.progress))

    def run(self, keep: Keep | None) -> Job[None]:
        """All steps that are left."""
        try:
            yield Started("fine-tuning", self.steps, "step", keeps=True)
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
        for places, batch in zip(order, self.train.batches(mine, epoch), strict=True):
            loss = self.step(places, batch)
            if not math.isfinite(loss):
                self._repair(loss)
                return False
            here.step += 1
            here.seconds = before + time.monotonic() - begun
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
        mixed = np.random.default_rng([self.settings.seed % 2**64, epoch, 7]).permutation(self.size).tolist()
        batch = self.settings.batch
        return [mixed[place * batch : (place + 1) * batch] for place in range(self.an_epoch)]

    def step(self, places: list[int], batch: Tensor) -> float:
        """One step on this process's share of a batch; the loss of the whole batch."""
        here = self.progress
        labels = self.labels[places]
        total = float(self.weights[labels].sum())  # of all processes: they know the whole batch's labels
        own = labels[processes.rank() :: processes.count()].to(self.network.device)
        set_rates(self.optimiser, here.slower * schedule(here.step, self.steps, self.settings.warmup))
        self._train_mode()
        with _seeded(self.settings.seed, here.step + 1, processes.rank()), self.precision.cast():
            logits = self.called(batch)
            losses = F.cross_entropy(logits.float(), own, reduction="none", label_smoothing=self.settings.smoothing)
            loss = (losses * self.weights.to(losses)[own]).sum() / total
        self.optimiser.zero_grad(set_to_none=True)
        with processes.others():
            self.precision.backward(loss * processes.count())  # DDP takes the mean over processes
        right = float((logits.argmax(1) == own).sum())
        summed, hits, halts = processes.total([float(loss.detach()), right, float(self.halted)])
        self.halted = halts > 0  # in one process, so in all: else they would wait for one another in different places
        if math.isfinite(summed):
            self.precision.step(self.optimiser)
            self._follow()
            here.sums = [a + b for a, b in zip(here.sums, (summed * len(places), hits, len(places)), strict=True)]
        return summed

    def _train_mode(self) -> None:
        self.rest.eval()
        for module in self._modes:
            module.training = True

    def _follow(self) -> None:
        """The average of the weights moves a little towards them."""
        if self.average is None:
            return
        with torch.no_grad():
            for name, value in self.rest.state_dict().items():
                held = self.average[name]
                held.lerp_(value, 1 - self.settings.ema) if held.is_floating_point() else held.copy_(value)

    def _repair(self, loss: float) -> None:
        """The loss is no number: back to the last good state, and on at half the rate."""
        repairs = [*self.progress.repairs, self.progress.step]
        if len(repairs) > REPAIRS:
            raise PhospheneError(
                f"the loss was {loss} at steps {', '.join(map(str, repairs))}, also at {self.progress.slower:g} of the rate:"
                f" give a lower --rate than {self.settings.peak:g}"
            )
        slower = self.progress.slower / 2
        given_back(self.good.tensors, self.rest, self.average, self.optimiser)
        self.progress = progress_of(self.good)
        self.progress.slower, self.progress.repairs = slower, repairs
        self.precision.load(self.progress.scaler)

    def _sound(self) -> State:
        """Where it is; the last good state where the last step has left a weight that is no number."""
        made = self.state()
        return made if all(bool(torch.isfinite(tensor).all()) for tensor in made.tensors.values()) else self.good

    def _end_of(self, epoch: int) -> Job[bool]:
        """Judge the epoch, and note it; whether what the network says are numbers."""
        here = self.progress
        probabilities = yield from self.judged(quiet=True)
        if not np.isfinite(probabilities).all():
            return False
        loss, hits, count = here.sums
        here.sums = [0.0, 0.0, 0.0]
        labels = targets(self.examples.val)
        sure = probabilities[np.arange(len(labels)), labels].clip(1e-12)
        here.rows.append(
            {
                "epoch": epoch + 1,
                "step": here.step,
                "train_loss": loss / count,
                "train_accuracy": hits / count,
                "val_loss": float(-np.log(sure).mean()),
                "val_accuracy": float((probabilities.argmax(1) == labels).mean()),
                "rate": self.settings.peak * here.slower * schedule(here.step - 1, self.steps, self.settings.warmup),
                "seconds": round(here.seconds, 3),
                "images_per_second": round(count * (len(here.rows) + 1) / max(here.seconds, 1e-9), 2),
            }
        )
        if _stalled([row["val_loss"] for row in here.rows], self.settings.patience):
            here.stopped = f"no lower mean of {MEANS} validation losses for {self.settings.patience} epochs"
        return True

    def judged(self, *, quiet: bool = False) -> Job[np.ndarray]:
        """The probabilities `[M, classes]` of the held-out photographs, each by one of the processes."""
        count = len(self.examples.val)
        together = self.network.batch_size(self.network.input_size)
        chunks = processes.mine(count, together)
        if not quiet:
            yield Started("judging", sum(map(len, chunks)), "image")
        found: dict[int, np.ndarray] = {}
        self.rest.eval()
        with self._averaged(), torch.no_grad(), self.precision.cast():
            for chunk, batch in zip(chunks, self.val.batches([list(chunk) for chunk in chunks], 0), strict=True):
                table = self.rest(batch).float().cpu().double().softmax(1).numpy()
                found |= dict(zip(chunk, table, strict=True))
        every = processes.merged(found)
        return np.stack([every[place] for place in range(count)])

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """With the average of the weights in their place."""
        if self.average is None:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.rest.state_dict().items()}
        self.rest.load_state_dict(self.average)
        try:
            yield
        finally:
            self.rest.load_state_dict(own)

    def into(self, network: Network) -> None:
        """Write what was trained into the network."""
        learned = self.average or self.rest.state_dict()
        own = network.module.state_dict()
        changed = {n.removeprefix("module."): v for n, v in learned.items() if n.removeprefix("module.") in own}
        network.module.load_state_dict(changed, strict=False)


def _trained_modules(module: nn.Module, trained: set[str], norms: str) -> list[nn.Module]:
    """The modules that are in training mode: those with trained parameters, dropout after them; batch norms if they may."""
    found, begun = [], False
    for name, child in module.named_modules():
        own = {f"{name}.{key}" if name else key for key, _ in child.named_parameters(recurse=False)}
        begun = begun or bool(own & trained)
        is_norm = isinstance(child, nn.modules.batchnorm._BatchNorm)
        drops = "Drop" in type(child).__name__ and begun
        if (own & trained and (norms == "train" or not is_norm)) or drops:
            found.append(child)
    return found


def _class_weights(examples: Examples, balanced: bool) -> Tensor:
    counts = torch.tensor(examples.counts(), dtype=torch.float32)
    return counts.sum() / (len(counts) * counts) if balanced else torch.ones_like(counts)


def _stalled(losses: list[float], patience: int) -> bool:
    """Whether the mean of the last `MEANS` losses was lowest at least `patience` epochs ago."""
    means = [sum(losses[max(0, end - MEANS) : end]) / min(MEANS, end) for end in range(1, len(losses) + 1)]
    return bool(patience) and len(means) - 1 - int(np.argmin(means)) >= patience


def _parallel(module: Rest) -> Callable[[Tensor], Tensor]:
    """The module, whose gradients are averaged over the processes of torchrun."""
    if processes.count() == 1 or not any(p.requires_grad for p in module.parameters()):
        return module
    processes.begin()
    where = next(module.parameters()).device
    with processes.others():
        return nn.parallel.DistributedDataParallel(module, device_ids=[where] if where.type == "cuda" else None)


@contextmanager
def _seeded(seed: int, step: int, rank: int) -> Iterator[None]:
    """Dropout's random numbers follow from the step; the caller's are as they were."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed((seed * 1_000_003 + step * 1_009 + rank) % 2**63)
        yield


class _Precision:
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
