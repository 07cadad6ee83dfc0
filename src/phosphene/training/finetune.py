"""Fine-tuning: the last stages of a network, or all of it, learn a new task from where ImageNet left them.

    min_theta  sum_i c_{y_i} log(1 / softmax(f_theta(I_i))_{y_i}),   theta = the last stages and the head

The head begins as the linear probe (LP-FT). What is frozen runs without gradients, and once only where nothing random comes
before it.

Yosinski et al., "How transferable are features in deep neural networks?", NeurIPS 2014; Kumar et al., ICLR 2022 (LP-FT).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started
from phosphene.training.augment import Augment
from phosphene.training.features import width
from phosphene.training.folder import Examples
from phosphene.training.inputs import Anew, Frozen, Once, once
from phosphene.training.loop import Keep, Loop, seeded
from phosphene.training.optimiser import optimiser
from phosphene.training.parts import Rest, check_layers, part, rest
from phosphene.training.probe import Probe, probe, targets, with_classes
from phosphene.training.scores import Scores, scores
from phosphene.training.settings import MEANS, FinetuneSettings
from phosphene.training.stages import stages
from phosphene.training.state import Progress, State


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
    with seeded(settings.seed, 0, 0):
        return with_classes(network, examples.classes, last, width(network, last)), None


class _Training(Loop):
    """One fine-tuning, step by step."""

    def __init__(self, network: Network, examples: Examples, settings: FinetuneSettings, resume: State | None) -> None:
        self.network, self.examples, self.settings = network, examples, settings
        self.part = part(network, settings.layers)
        self.rest: Rest = rest(network, self.part.after)
        self.frozen = Frozen(network, self.rest.after)
        depths = {f"module.{name}": depth for name, depth in self.part.parameters.items()}
        self.rest.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        made = optimiser(self.rest, depths, settings)
        super().__init__(
            self.rest,
            made,
            settings,
            len(examples.train),
            network.device,
            what="fine-tuning",
            precision=settings.precision,
        )
        self.count = sum(p.numel() for p in self.rest.parameters() if p.requires_grad)
        self._modes = _trained_modules(self.rest, set(depths), settings.norms)
        self.labels = torch.from_numpy(targets(examples.train))
        self.weights = _class_weights(examples, settings.balanced)
        self.begin(resume)

    def prepare(self) -> Job[None]:
        """What the frozen part makes of the photographs that never change: those that judge, and all without augmentation."""
        self.val: Once = yield from once(self.examples.val, self.frozen, every=False, what="the frozen part, on val")
        if self.settings.augment == "none":
            self.train: Anew | Once = yield from once(self.examples.train, self.frozen)
        else:
            augment = Augment(self.settings.augment, self.network.preprocess, self.settings.seed)
            self.train = Anew(self.examples.train, augment, self.frozen)

    def batches(self, places: Sequence[Sequence[int]], epoch: int) -> Iterable[Tensor]:
        """What the frozen part makes of the photographs."""
        return self.train.batches([list(some) for some in places], epoch)

    def learn(self, places: Sequence[int], own: Sequence[int], batch: Tensor) -> tuple[Tensor, int]:
        """The weighted cross-entropy."""
        total = float(
            self.weights[self.labels[list(places)]].sum()
        )  # of all processes: they know the whole batch's labels
        labels = self.labels[list(own)].to(self.network.device)
        with self.precision.cast():
            logits = self.called(batch)
            losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self.settings.smoothing)
            loss = (losses * self.weights.to(losses)[labels]).sum() / total
        return loss, int((logits.argmax(1) == labels).sum())

    def modes(self) -> None:
        """Only what is trained is in training mode, and batch norms only if they may be."""
        self.rest.eval()
        for module in self._modes:
            module.training = True

    def judge(self, epoch: int) -> Job[dict[str, Any] | None]:
        """Loss and accuracy on the held-out photographs."""
        probabilities = yield from self.judged(quiet=True)
        if not np.isfinite(probabilities).all():
            return None
        labels = targets(self.examples.val)
        sure = probabilities[np.arange(len(labels)), labels].clip(1e-12)
        return {
            "val_loss": float(-np.log(sure).mean()),
            "val_accuracy": float((probabilities.argmax(1) == labels).mean()),
        }

    def stalled(self) -> str:
        """Whether validation losses have stopped falling."""
        if _stalled([row["val_loss"] for row in self.progress.rows], self.settings.patience):
            return f"no lower mean of {MEANS} validation losses for {self.settings.patience} epochs"
        return ""

    def judged(self, *, quiet: bool = False) -> Job[np.ndarray]:
        """The probabilities `[M, classes]` of the held-out photographs, each by one of the processes."""
        count = len(self.examples.val)
        together = self.network.batch_size(self.network.input_size)
        chunks = processes.mine(count, together)
        if not quiet:
            yield Started("judging", sum(map(len, chunks)), "image")
        found: dict[int, np.ndarray] = {}
        self.rest.eval()
        with self.averaged(), torch.no_grad(), self.precision.cast():
            for chunk, batch in zip(chunks, self.val.batches([list(chunk) for chunk in chunks], 0), strict=True):
                table = self.rest(batch).float().cpu().double().softmax(1).numpy()
                found |= dict(zip(chunk, table, strict=True))
        every = processes.merged(found)
        return np.stack([every[place] for place in range(count)])

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
