"""Small networks of papers, by name: untrained, for any small picture; `phosphene harden` trains them.

A name may say what it is for, `trades_cnn:1x28x28` (channels, height, width): so it stands in the file of a trained one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, did_you_mean
from phosphene.models import papers, weights
from phosphene.models.labels import Labels
from phosphene.models.network import Network
from phosphene.models.preprocess import Preprocess
from phosphene.models.saved import Architecture

LARGEST = 256
"""The longest side: the number of weights of a fully connected layer grows with its square."""
_FORM = re.compile(r"([a-z0-9_]+)(?::([0-9]{1,4})x([0-9]{1,4})x([0-9]{1,4}))?")


@dataclass(frozen=True)
class Design:
    """A network of a paper.

    Attributes:
        make: builds it for channels, classes and size.
        usual: channels, height and width in the paper.
        least: the shortest side that its convolutions leave something of.
        mean, std: by which colour pictures are normalised in the paper. Grey ones aren't.
    """

    make: Callable[[int, int, tuple[int, int]], nn.Module]
    usual: tuple[int, int, int]
    least: int
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
DESIGNS: dict[str, Design] = {
    "madry_cnn": Design(papers.madry_cnn, (1, 28, 28), 4),
    "trades_cnn": Design(papers.trades_cnn, (1, 28, 28), 16),
    "wong_cnn": Design(papers.wong_cnn, (1, 28, 28), 4),
    "preact_resnet18": Design(papers.preact_resnet18, (3, 32, 32), 4, *_CIFAR10),
}


@dataclass(frozen=True)
class Small:
    """Which network, and for which pictures. `str` gives its name."""

    name: str
    channels: int
    size: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}:{self.channels}x{self.size[0]}x{self.size[1]}"

    @property
    def design(self) -> Design:
        """What it is built by."""
        return DESIGNS[self.name]

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, one number a channel."""
        return (self.design.mean, self.design.std) if self.channels == 3 else ((0.0,), (1.0,))

    @property
    def preprocess(self) -> Preprocess:
        """Pictures of its size are left alone."""
        return Preprocess(self.size, min(self.size), "bicubic")


def is_small(net: str) -> bool:
    """Whether `net` names one of them, alone or with channels and size."""
    return net.partition(":")[0] in DESIGNS


def small(
    name: str,
    *,
    channels: int | None = None,
    classes: int = 10,
    size: int | tuple[int, int] | None = None,
    labels: Labels | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
) -> Network:
    """A new network of a paper, untrained, which `save_network` can save.

    Args:
        name: `madry_cnn`, `trades_cnn`, `wong_cnn`, `preact_resnet18`; or with its pictures, `wong_cnn:3x32x32`.
        channels: 1 or 3; by default the paper's, as is the size.
        classes: how many; `labels` tells it too.
        size: height and width, or one number for both, at most 256.
        labels: names of the classes.
        mean, std: normalisation per channel. Default: none for the MNIST networks and grey pictures, CIFAR-10's for
            `preact_resnet18`.
        seed: of the first weights. Torch's own random numbers go on as if nothing had been drawn.

    Raises:
        NetworkError: no such network, or one that can't be built for such pictures and classes.
    """
    which = wanted(name, channels, size)
    known = labels if isinstance(labels, Labels) else Labels(labels) if labels is not None else Labels.generic(classes)
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        module = built(which, len(known))
    plain = which.normalisation
    network = Network(
        module.eval(),
        name=which.name,
        labels=known,
        preprocess=which.preprocess,
        mean=mean or plain[0],
        std=std or plain[1],
    )
    if network.channels != which.channels:
        raise NetworkError(f"{which} takes {which.channels} channel(s), but mean and std are for {network.channels}")
    network.architecture = Architecture(str(which), len(known))
    return network


def wanted(net: str, channels: int | None = None, size: int | tuple[int, int] | None = None) -> Small:
    """What `net` means, with the channels and size given, those in its name, or else the paper's.

    Raises:
        NetworkError: no such network, or none for such pictures.
    """
    found = _FORM.fullmatch(net)
    name = net.partition(":")[0]
    if name not in DESIGNS:
        raise NetworkError(f"no small network is called '{name}'{did_you_mean(name, DESIGNS) or _listed()}")
    if found is None:
        raise NetworkError(f"'{net}' says not what it is for: write {name}:CHANNELSxHEIGHTxWIDTH, as in {name}:3x32x32")
    named = tuple(int(part) for part in found.groups()[1:]) if found[2] else None
    asked = (channels, *((size, size) if isinstance(size, int) else size or (None, None)))
    if named and any(one is not None and one != other for one, other in zip(asked, named, strict=True)):
        raise NetworkError(f"'{net}' has its channels and size in its name: leave other ones out")
    mine = [other if one is None else int(one) for one, other in zip(asked, named or DESIGNS[name].usual, strict=True)]
    return _possible(Small(name, mine[0], (mine[1], mine[2])))


def _possible(which: Small) -> Small:
    if which.channels not in (1, 3):
        raise NetworkError(f"{which} would take {which.channels} channels: pictures have 1 (grey) or 3 (colour)")
    if not which.design.least <= min(which.size) <= max(which.size) <= LARGEST:
        height, width = which.size
        raise NetworkError(
            f"{which.name} can't be built for pictures of {height} x {width}: sides are {which.design.least} to {LARGEST}"
        )
    return which


def _listed() -> str:
    return f": there are {', '.join(DESIGNS)}"


def built(which: Small, classes: int) -> nn.Module:
    """The module, with new weights of torch's random numbers. Raises NetworkError for less than two classes."""
    if classes < 2:
        raise NetworkError(f"{which} needs at least two classes to tell apart, not {classes}")
    return which.design.make(which.channels, classes, which.size)


# -- weights ----------------------------------------------------------------------------------------------------


def untrained(net: str) -> NetworkError:
    """What is wrong with `net` without weights."""
    return NetworkError(
        f"'{net}' comes untrained, so that it sees nothing yet: train it with `phosphene harden DATA --net {net}`,"
        " or give its weights with --weights FILE"
    )


def with_weights(net: str, file: Path, size: int | tuple[int, int] | None = None) -> tuple[nn.Module, Small]:
    """The module that the weights in `file` are of, filled with them, and what it is for.

    Channels and classes follow from the first and the last layer. The size follows from the fully connected layers as
    far as it does: of all that fit, 28 and 32 come first. `net` or `size` may say it.

    Raises:
        NetworkError: `net` or `size` is for no possible network.
        WeightsError: the file can't be read, or its weights are of another network.
    """
    state = weights.read_state_dict(file)
    guess = wanted(net, None, size)
    channels, classes = _ends(guess, state)
    fixed = ":" in net
    which = guess if fixed or channels not in (1, 3) else Small(guess.name, channels, guess.size)
    if not fixed and size is None:
        which = next((other for other in _sizes(which) if _fits(other, classes, state)), which)
    module = built(which, max(classes, 2))
    weights.fit(module, state, source=str(file))
    return module, which


def _ends(which: Small, state: Mapping[str, Tensor]) -> tuple[int, int]:
    """The channels and classes that the file's first and last layer are for; usual ones where it lacks them."""
    module = _hollow(which, 10)
    first = next(f"{name}.weight" for name, child in module.named_modules() if isinstance(child, nn.Conv2d))
    last = [f"{name}.weight" for name, child in module.named_modules() if isinstance(child, nn.Linear)][-1]
    found = weights.match(module, state)
    shapes = {name: tuple(value.shape) for name, value in found.mapped.items()}
    shapes |= {name: has for name, has, _ in found.mismatched}
    start, end = shapes.get(first, ()), shapes.get(last, ())
    return (start[1] if len(start) == 4 else which.channels), (end[0] if len(end) == 2 else 10)


def _fits(which: Small, classes: int, state: Mapping[str, Tensor]) -> bool:
    return classes > 1 and weights.match(_hollow(which, classes), state).fits


def _hollow(which: Small, classes: int) -> nn.Module:
    with torch.device("meta"):  # shapes without memory
        return built(which, classes)


def _sizes(which: Small) -> Iterator[Small]:
    """The same for all squares, usual ones first."""
    for side in dict.fromkeys((which.size[0], 28, 32, 64, 96, 128, 224, *range(which.design.least, LARGEST + 1))):
        yield Small(which.name, which.channels, (side, side))
