"""Do adversarial images of one network fool another? Each network makes some, and all of them look.

    rate[s, t] = share of the images that both s and t see rightly, and that t misreads once they were changed against s

"Malicious" examples generalise across architectures and training sets: Szegedy et al., "Intriguing properties of neural
networks", ICLR 2014, section 4.2; Papernot, McDaniel & Goodfellow, "Transferability in machine learning", 2016,
arXiv:1605.07277. Images that just cross one network's boundary hardly transfer, so that attacks that can go on after success
do (`exhaust`); momentum helps more: Dong et al., "Boosting adversarial attacks with momentum", CVPR 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import signature
from typing import TypeAlias

import torch
from torch import Tensor, nn

from phosphene.attacks import checks
from phosphene.attacks import named as catalogue
from phosphene.attacks.ball import Norm
from phosphene.attacks.control import noisy
from phosphene.attacks.result import Result
from phosphene.attacks.trial import attacked
from phosphene.attacks.victim import NO_GRADIENT, TOGETHER, Victim
from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Labels, Network, Preprocess
from phosphene.progress import Event, Job, Started, Step, relay

Fit: TypeAlias = Callable[[Tensor], Tensor]
"""Images of any size `[n, C, H, W]` -> of the size that a network takes."""


@dataclass(frozen=True)
class Transfer:
    """Who is fooled by whose images. S = T networks, sources in rows, targets in columns.

    Attributes:
        names: of the networks.
        right: `[S]`, how many images each sees rightly, at its own size.
        success: `[S]`, how many of them its own attack made it misread.
        count: `[S, T]`, how many images both see rightly: the source at its size, the target those, brought to its own; 0 for
            a source without a gradient.
        misread: `[S, T]`, how many of them the target misreads once they were changed against the source.
        shaken: `[T]`, how many of the `right` images each misreads under noise of the attack's size (`noisy`).
    """

    names: tuple[str, ...]
    right: Tensor
    success: Tensor
    count: Tensor
    misread: Tensor
    shaken: Tensor

    @property
    def rate(self) -> Tensor:
        """`[S, T]`, misread / count; NaN where there were no such images."""
        return self.misread.double() / self.count

    @property
    def control(self) -> Tensor:
        """`[T]`, shaken / right: what the size of the change explains; NaN where no image is seen rightly."""
        return self.shaken.double() / self.right


def transfer(
    networks: Mapping[str, Network | nn.Module],
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    eps: float,
    norm: Norm = "linf",
    attack: str = "mi-fgsm",
    steps: int | None = None,
    seed: int = 0,
    keys: Sequence[int | str] | None = None,
    probabilities: Collection[str] = (),
) -> Job[Transfer]:
    """Attack each network, and show all of them what comes out, as 8-bit files hold it.

    A `Network` sees images of its input size: others go through its own `preprocess`, those of another network's, too. A
    plain module sees them at the size that they are given in. Clean images take the same way as changed ones, so that
    resizing alone is not counted.

    Args:
        networks: by name; they have the same classes.
        images: `[N, 3, H, W]` in [0, 1] (or of whatever channels all networks take).
        labels: `[N]`, the true classes.
        eps: the radius in units of [0, 1].
        norm: `linf` or `l2`.
        attack: one of `ATTACKS`, by its name.
        steps: of the attack; None: its own number.
        seed: decides all random numbers.
        keys: `[N]`, what to draw them by instead of the images' values.
        probabilities: names of the networks that give probabilities instead of logits.

    Raises:
        PhospheneError, LabelError, NetworkError: no networks, other classes, what the attack can't be asked for, or see
            `trial.attacked`; the message names the network.
    """
    if not networks:
        raise PhospheneError("transfer needs at least one network, and shows something from two")
    chosen = catalogue.named(attack)
    catalogue.check(chosen, eps=eps, norm=norm, steps=steps)
    given = checks.pictures(images, torch.float32, images.device)
    truth = checks.indices(labels, len(given), "labels", torch.device("cpu"))
    shared = {"eps": eps, "norm": norm, "seed": seed, "keys": keys}
    fits = {name: _fit(network, given) for name, network in networks.items()}
    same_labels({name: one for name, one in networks.items() if isinstance(one, Network)})
    yield Started("noise", len(networks), "network")
    clean, sizes = [], {}
    for done, (name, network) in enumerate(networks.items()):
        with _about(name):
            seen = _first(network, fits[name](given), truth, probabilities=name in probabilities, **shared)
        clean.append(seen)
        sizes[name] = seen.classes
        _same_counts(sizes)
        yield Step(done + 1)
    options = shared | {"steps": steps, "quantize": True}
    options |= {"exhaust": True} if "exhaust" in signature(chosen.function).parameters else {}
    rows, success = [], []
    for name, network in networks.items():
        job = catalogue.attack(
            attack, network, fits[name](given), truth, probabilities=name in probabilities, **options
        )
        try:
            with _about(name):
                found = yield from relay(job, lambda event, name=name: _named(event, name))
        except NetworkError as problem:
            if NO_GRADIENT not in str(problem):
                raise
            rows.append(
                [(0, 0)] * len(networks)
            )  # nothing can be made on a network without a gradient, but it can look
            success.append(0)
            continue
        rows.append([_look(one, fits[target], found, truth) for target, one in networks.items()])
        success.append(int(found.success.sum()))
    table = torch.tensor(rows)
    return Transfer(
        names=tuple(networks),
        right=torch.tensor([one.right for one in clean]),
        success=torch.tensor(success),
        count=table[:, :, 0],
        misread=table[:, :, 1],
        shaken=torch.tensor([one.shaken for one in clean]),
    )


@dataclass(frozen=True)
class _Clean:
    """A network before any attack: how many `classes`, and images that it sees `right`; of these, misread under noise."""

    classes: int
    right: int
    shaken: int


def _first(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: Norm,
    seed: int,
    keys: Sequence[int | str] | None,
    probabilities: bool,
) -> _Clean:
    with attacked(network, images, labels, eps=eps, norm=norm, quantize=True, probabilities=probabilities) as trial:
        noise = noisy(trial.originals, eps, norm, seed=seed, keys=keys).to(trial.originals)
        seen = trial.victim.logits(noise, torch.arange(len(noise))).argmax(1)
        right = ~trial.wrong
        return _Clean(trial.logits.shape[1], int(right.sum()), int((right & (seen != trial.labels)).sum()))


def _look(network: Network | nn.Module, fit: Fit, found: Result, labels: Tensor) -> tuple[int, int]:
    """`(how many images source and target both see rightly, how many of these the target misreads after the attack)`."""
    right = ~found.wrong.cpu() & (_seen(network, fit, found.originals) == labels)
    misread = right & (_seen(network, fit, found.images) != labels)
    return int(right.sum()), int(misread.sum())


def _seen(network: Network | nn.Module, fit: Fit, images: Tensor) -> Tensor:
    """`[N]`, on the CPU: what the network sees in the images `[N, C, H, W]`, brought to its size a few at a time."""
    victim = Victim(network, len(images))
    with victim.lent():
        parts = [
            victim.logits(fit(part).to(victim.device), torch.arange(len(part))).argmax(1).cpu()
            for part in images.split(TOGETHER)
        ]
    return torch.cat(parts)


def _fit(network: Network | nn.Module, images: Tensor) -> Fit:
    """How images come to the size of a `Network`; for a plain module, to that of `images`."""
    if isinstance(network, Network):
        return network.preprocess
    height, width = images.shape[-2:]
    return Preprocess((height, width), min(height, width))


def same_classes(networks: Mapping[str, Network]) -> None:
    """Raises a NetworkError for two networks that classify other things, by number or by name."""
    _same_counts({name: len(network.labels) for name, network in networks.items() if network.classifies})
    same_labels(networks)


def same_labels(networks: Mapping[str, Network]) -> None:
    """Raises a NetworkError for two networks whose classes are named, but not alike and in the same order."""
    lists = {name: list(network.labels) for name, network in networks.items() if network.classifies}
    lists = {name: names for name, names in lists.items() if names != list(Labels.generic(len(names)))}
    for name, names in lists.items():
        first = next(iter(lists))
        if len(names) == len(lists[first]) and names != lists[first]:
            place, one, other = next((i, a, b) for i, (a, b) in enumerate(zip(lists[first], names)) if a != b)
            raise _different(first, name, f"number {place} is {one} and {other}")


def _same_counts(classes: Mapping[str, int]) -> None:
    """Raises a NetworkError for two networks of different numbers of classes."""
    first = next(iter(classes))
    for name, count in classes.items():
        if count != classes[first]:
            raise _different(first, name, f"{classes[first]} and {count}")


def _different(one: str, other: str, how: str) -> NetworkError:
    return NetworkError(f"{one} and {other} have different classes ({how}): compare networks of the same")


@contextmanager
def _about(name: str) -> Iterator[None]:
    """Errors say which network they are about."""
    try:
        yield
    except PhospheneError as problem:
        raise type(problem)(f"{name}: {problem}") from problem


def _named(event: Event, name: str) -> Event:
    return replace(event, what=f"{event.what} on {name}") if isinstance(event, Started) else event
