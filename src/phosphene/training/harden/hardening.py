"""Robust training: each step learns from pictures that were attacked a moment before.

    min_theta  sum_i  max_{|delta_i|_inf <= eps}  J(theta; x_i + delta_i, y_i)

Madry, Makelov, Schmidt, Tsipras & Vladu, "Towards deep learning models resistant to adversarial attacks", ICLR 2018, eq. 2.1.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from phosphene import processes
from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Network
from phosphene.models.prepare import first_tensor
from phosphene.progress import Job
from phosphene.training.harden.guard import Guard
from phosphene.training.harden.inner import anywhere, climb, cross_entropy
from phosphene.training.harden.kept import Kept
from phosphene.training.harden.methods import LEARN, Lesson, price
from phosphene.training.harden.moves import Moved
from phosphene.training.harden.settings import HardenSettings
from phosphene.training.loop import Keep, Loop, seeded
from phosphene.training.split import Data, Split, held_out
from phosphene.training.state import Progress, State

_BEST = "best/"
TOGETHER = 250
"""Pictures that are judged together."""


@dataclass(frozen=True, eq=False)
class Hardened:
    """A hardened network.

    Attributes:
        network: a new one; that which was given is as it was.
        rows: one for each epoch: `epoch`, `step`, `train_loss`, `train_accuracy` (on attacked pictures), `clean` and `robust`
            (of the held-out ones), `eps`, `rate`, `seconds`, `images_per_second`.
        best: the epoch whose weights were kept.
        gradients: how many each picture of the training set cost, on average, in all epochs together.
        progress: what happened; `notes` holds what the guard mended.
    """

    network: Network
    rows: tuple[dict[str, Any], ...]
    best: int
    gradients: float
    progress: Progress


def harden(
    network: Network,
    data: Data,
    *,
    settings: HardenSettings | None = None,
    keep: Keep | None = None,
    resume: State | None = None,
) -> Job[Hardened]:
    """Train a copy of `network` on pictures that are attacked while it learns. A `Halt` ends it with the best so far.

    Args:
        network: classifies the classes of `data`, and takes its size and channels.
        data: pictures; its test part isn't looked at.
        settings: see there.
        keep: is told after each step: a function that makes the `State` of this moment, and whether an epoch has ended;
            under torchrun only the first process is.
        resume: go on from there.

    Raises:
        PhospheneError: a setting out of range, fewer pictures than a batch, a loss that stays NaN.
        NetworkError: a network for other classes or pictures.
    """
    settings = settings or HardenSettings()
    settings.check()
    _fits(network, data)
    learned, held = held_out(data, settings.hold, settings.seed)
    if len(learned) < settings.batch:
        raise PhospheneError(
            f"there are {len(learned):,} pictures to learn from, fewer than a batch of {settings.batch}"
        )
    if settings.batch < processes.count():
        raise PhospheneError(f"a batch of {settings.batch} can't be shared by {processes.count()} processes")
    new = copy.deepcopy(network)
    training = Hardening(new, learned, held, settings, resume)
    yield from training.run(keep)
    training.into(new)
    here = training.progress
    count = here.notes.get("gradients", 0) / len(learned)
    return Hardened(new, tuple(here.rows), training.best_epoch, count, here)


def _fits(network: Network, data: Data) -> None:
    network.need_classifier("harden")
    if set(network.labels) == set(data.classes) and tuple(network.labels) != data.classes:
        raise NetworkError(
            f"{network.name} has the classes of {data.name} in another order: bring one into that of the other"
        )
    if len(network.labels) != len(data.classes):
        raise NetworkError(f"{network.name} has {len(network.labels)} classes, {data.name} {len(data.classes)}")
    if network.input_size != data.size or network.channels != data.channels:
        mine, theirs = ([n.channels, *size] for n, size in ((network, network.input_size), (data, data.size)))
        raise NetworkError(
            f"{network.name} takes pictures {mine}, {data.name} has {theirs}: give --size, or another network"
        )


class Plain(nn.Module):
    """A network's module with its normalisation: pictures in [0, 1] to logits."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self.register_buffer("mean", network.mean.detach().clone(), persistent=False)
        self.register_buffer("std", network.std.detach().clone(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """`[n, C, H, W]` in [0, 1] to `[n, classes]`."""
        found = first_tensor(self.module((images - self.mean) / self.std))
        if found is None:
            raise NetworkError("the network returned no tensor")
        return found


class Hardening(Loop):
    """One robust training, step by step."""

    def __init__(
        self, network: Network, learned: Split, held: Split, settings: HardenSettings, resume: State | None
    ) -> None:
        self.network, self.settings = network, settings
        plain = Plain(network).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        for parameter in plain.parameters():
            parameter.requires_grad_()
        super().__init__(
            plain,
            _optimiser(plain, settings),
            settings,
            len(learned),
            network.device,
            what=f"harden ({settings.method})",
        )
        self.learned, self.held = learned, held
        self.moved = Moved(settings.augment, settings.seed)
        self.kept = Kept(settings, learned)
        self.guard = Guard(settings.guard)
        self.best: dict[str, Tensor] = {}
        if settings.method == "free":
            self.an_epoch *= settings.replays
        self.begin(resume)

    # -- steps -----------------------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """Of the whole training: `free` sees each picture as often as the others, its replays counted."""
        replays = self.settings.replays if self.settings.method == "free" else 1
        return max(1, round(self.settings.epochs / replays)) * self.an_epoch

    def order(self, epoch: int) -> list[list[int]]:
        """The places of each batch; `free` has each of them several times in turn."""
        replays = self.settings.replays if self.settings.method == "free" else 1
        whole = self.an_epoch // replays
        mixed = _mixed(self.size, self.settings.seed, epoch)
        batch = self.settings.batch
        every = [mixed[place * batch : (place + 1) * batch] for place in range(whole)]
        return [places for places in every for _ in range(replays)]

    def batches(self, places: Sequence[Sequence[int]], epoch: int) -> Iterable[int]:
        """The epoch: pictures lie in memory."""
        return (epoch for _ in places)

    def learn(self, places: Sequence[int], own: Sequence[int], batch: int) -> tuple[Tensor, int]:
        """Attack this share of the batch, and the loss on what comes out."""
        chosen = torch.as_tensor(own)
        images, labels = self.learned.batch(chosen)
        images, labels = images.to(self.device), labels.to(self.device)
        moves = self.moved.draw(chosen, batch, images.shape[-2:])
        kept = self.kept.get(chosen, self.progress.step)
        lesson = Lesson(
            self.module, self.called, self.moved.apply(images, moves), labels, self.eps, self.length, self.inner,
            self.settings, None if kept is None else self.moved.apply(kept.to(self.device), moves),
        )  # fmt: skip
        loss, logits = LEARN[self.settings.method](lesson)
        self.lesson, self.chosen, self.moves = lesson, chosen, moves
        return loss / len(places), int((logits.argmax(1) == labels).sum())

    def step(self, places: Sequence[int], batch: int) -> float:
        """One step, after which the changes are kept that the next one begins with."""
        loss = super().step(places, batch)
        notes = self.progress.notes
        notes["gradients"] = notes.get("gradients", 0) + len(places) * price(self.settings, self.inner)
        if self.lesson.change is not None:
            change = self.moved.back(self.lesson.change, self.moves)
            self.kept.put(self.chosen, change, self.progress.step)
        return loss

    @property
    def decay(self) -> float:
        """Of the average: a short one at first, which would else remember the random weights for a thousand steps."""
        return min(self.settings.ema, (1 + self.progress.step) / (10 + self.progress.step))

    @property
    def eps(self) -> float:
        """The radius now: it grows in the first epochs."""
        replays = self.settings.replays if self.settings.method == "free" else 1
        rising = self.settings.ramp * self.an_epoch / replays
        return self.settings.eps * min(1.0, (self.progress.step + 1) / rising) if rising else self.settings.eps

    @property
    def inner(self) -> int:
        """Steps of the attack: the guard may have asked for more."""
        return self.settings.inner + self.guard.more(self.progress)

    @property
    def length(self) -> float:
        """How long one of them is. More steps are shorter ones."""
        more = self.guard.more(self.progress)
        return self.settings.length if not more else max(self.settings.length / (more + 1), 1.5 * self.eps / self.inner)

    # -- judging ---------------------------------------------------------------------------------------------------

    def judge(self, epoch: int) -> Job[dict[str, Any] | None]:
        """Accuracy on the held-out pictures, as they are and attacked by PGD; the best weights so far are kept."""
        yield from ()
        with self.averaged():
            clean, robust = processes.gather(self.accuracies(self.held))[0]
            if not 0 <= clean <= 1:
                return None
            if not self.best or [robust, clean] > self.progress.notes.get("robust", [-1.0, -1.0]):
                self.best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
                self.progress.notes |= {"best": epoch + 1, "robust": [robust, clean]}
        return {"clean": clean, "robust": robust, "eps": self.eps}

    def accuracies(self, split: Split) -> tuple[float, float]:
        """The share of pictures that are right, as they are and after PGD from a random point."""
        right = stood = 0
        training = self.module.training
        self.module.eval()
        for images, labels in split.batches(TOGETHER):
            images, labels = images.to(self.device), labels.to(self.device)
            with torch.no_grad():
                seen = self.module(images)
            if not bool(torch.isfinite(seen).all()):
                return float("nan"), float("nan")
            right += int((seen.argmax(1) == labels).sum())
            stood += int(self.stands(images, labels).sum())
        self.module.train(training)
        return right / len(split), stood / len(split)

    def stands(self, images: Tensor, labels: Tensor) -> Tensor:
        """`[n]`, which are right after PGD, of the settings' `judged` steps."""
        steps, eps = self.settings.judged, self.settings.eps
        with seeded(self.settings.seed, 0, 0):
            start = anywhere(images, eps)
        up = cross_entropy(labels)
        attacked = climb(self.module, images, start, up, eps=eps, step=2.5 * eps / steps, steps=steps)
        with torch.no_grad():
            return self.module(attacked).argmax(1) == labels

    def broken(self) -> str:
        """Whether the network has begun to answer the attack that it is trained with, and no other."""
        if not self.guard.looks(self.progress.step, self.an_epoch):
            return ""
        watched = self.held.some(torch.linspace(0, len(self.held) - 1, min(self.guard.count, len(self.held))).long())
        images, labels = watched.images.float().div(255).to(self.device), watched.labels.to(self.device)
        training = self.module.training
        self.module.eval()
        share = float(self.stands(images, labels).double().mean())
        share = processes.gather(share)[0]
        self.module.train(training)
        why = self.guard.sees(share, self.progress, 1 / len(self.network.labels))
        if not why and self.progress.step % self.an_epoch:
            self.good = super()._sound()
        return why

    def _sound(self) -> State:
        """Where it is; with the guard, the last state that it has seen to be well: that is what a repair goes back to."""
        return self.good if self.guard.on else super()._sound()

    def _repair(self, loss: float) -> None:
        self._counting(super()._repair, loss)

    def _mend(self, why: str) -> None:
        self._counting(super()._mend, why)

    def _counting(self, back: Callable[..., None], given: object) -> None:
        """Go back, but count the gradients that it took to get here."""
        spent = self.progress.notes.get("gradients", 0)
        back(given)
        self.progress.notes["gradients"] = spent
        self.good = self.state()

    def mended(self) -> None:
        """After the return to the last good state: one step more in each attack."""
        self.guard.mend(self.progress)

    def stalled(self) -> str:
        """Whether accuracy under attack has stopped rising."""
        waited = len(self.progress.rows) - self.progress.notes.get("best", 0)
        if self.settings.patience and waited >= self.settings.patience:
            return f"no better accuracy under attack for {self.settings.patience} epochs"
        return ""

    # -- what is kept ----------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Also the best weights so far, and the changes that the next epoch begins with."""
        best = {_BEST + name: value.to("cpu", copy=True).contiguous() for name, value in self.best.items()}
        return {**super().tensors(), **best, **self.kept.tensors()}

    def put(self, tensors: Mapping[str, Tensor]) -> None:
        """Put all of it back."""
        super().put({n: v for n, v in tensors.items() if not n.startswith((_BEST, Kept.PREFIX))})
        self.best = {n.removeprefix(_BEST): v.to(self.device) for n, v in tensors.items() if n.startswith(_BEST)}
        self.kept.restore(tensors)

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept; 0: none has ended."""
        return int(self.progress.notes.get("best", 0))

    def into(self, network: Network) -> None:
        """Write the best weights into the network; without a whole epoch, the last ones."""
        chosen = self.best or self.average or self.module.state_dict()
        network.module.load_state_dict({n.removeprefix("module."): v for n, v in chosen.items()})
        network.module.eval()
        for parameter in network.module.parameters():
            parameter.grad = None


def _mixed(size: int, seed: int, epoch: int) -> list[int]:
    import numpy as np

    return np.random.default_rng([seed % 2**64, epoch, 7]).permutation(size).tolist()


def _optimiser(module: nn.Module, settings: HardenSettings) -> torch.optim.Optimizer:
    groups = [
        {
            "params": [p for p in module.parameters() if (p.ndim > 1) == decays],
            "peak": settings.rate,
            "lr": settings.rate,
            "weight_decay": settings.weight_decay if decays else 0.0,
        }
        for decays in (True, False)
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=settings.rate)
