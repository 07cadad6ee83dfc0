"""What is explained: the scores of classes, or one neuron."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from phosphene.errors import LabelError, PhospheneError
from phosphene.explain.health import refuse_nan
from phosphene.models import Network, Unit

Classes: TypeAlias = int | Sequence[int] | Sequence[Sequence[int]] | Tensor
"""One class for all images, one per image `[N]`, or several per image `[N, K]`, which share the forward pass."""


@dataclass(frozen=True, eq=False)
class LogProbability:
    """Explain log p_c = S_c - log sum_k exp S_k of classes instead of their scores S_c.

    What raises all scores alike is no evidence for any class, and cancels here.
    """

    classes: Classes


Target: TypeAlias = Classes | LogProbability | Unit
"""Classes (their unnormalised scores, or their log-probabilities), or a unit.

A unit without a position means its most active place in each image.
"""


@dataclass(frozen=True, eq=False)
class Aim:
    """A target made definite for a batch: K scores of each of N images.

    Attributes:
        classes: `[N, K]`, or None where a unit is explained (K = 1).
        unit: the unit, or None.
        places: `[N]`, the places in the unit's map that are held fixed; None: each image's most active one.
        several: whether the caller asked for several classes per image, and gets results `[N, K, ...]`.
        log: whether the classes' log-probabilities are explained, not their scores.
    """

    count: int
    classes: Tensor | None = None
    unit: Unit | None = None
    places: Tensor | None = None
    several: bool = False
    log: bool = False

    @property
    def width(self) -> int:
        """K."""
        return 1 if self.classes is None else self.classes.shape[1]

    def of(self, rows: slice | Tensor) -> Aim:
        """The aim for some of the images; an image may be named several times."""
        with torch.inference_mode(False):  # what is made here is used in graphs
            classes = None if self.classes is None else self.classes[rows]
            places = None if self.places is None else self.places[rows]
        count = len(range(self.count)[rows]) if isinstance(rows, slice) else len(rows)
        return replace(self, count=count, classes=classes, places=places)

    def spread(self) -> Aim:
        """The aim of one image with K classes, for K copies of it with a class each."""
        assert self.classes is not None and self.count == 1
        return replace(self, count=self.width, classes=self.classes.T)

    def pick(self, output: Tensor) -> Tensor:
        """The explained values `[N, K]`, from the logits `[N, classes]` or the output of the unit's layer."""
        if self.classes is not None:
            return (output.log_softmax(1) if self.log else output).gather(1, self.classes)
        assert self.unit is not None
        if self.places is None or output.ndim == 2:
            return self.unit.values(output)[:, None]
        return output[:, self.unit.channel].flatten(1).gather(1, self.places[:, None])

    def shaped(self, values: Tensor) -> Tensor:
        """`[N, K, ...]` as the caller asked for it: `[N, ...]` unless there are several classes per image."""
        return values if self.several else values[:, 0]


def aim_at(network: Network, images: Tensor, target: Target, *, hold: bool = False) -> Aim:
    """Check `target` for a batch of images.

    Args:
        network: the network.
        images: `[N, 3, H, W]`.
        target: see `Target`.
        hold: find a unit's most active place in each of these images now, for methods that then change the images.

    Raises:
        LabelError: no such class, or not one (or K) for each image.
        LayerError: no such unit.
        NetworkError: a class of a network that has none.
        PhospheneError: no images, or what is none.
    """
    count = images.shape[0]
    with torch.inference_mode(False), torch.no_grad():  # what is made here is used in graphs
        network.normalise(images)  # which refuses what is no image, before it is made one of floats
        if not count:
            raise PhospheneError("an empty batch of images")
        if not isinstance(target, Unit):
            log = isinstance(target, LogProbability)
            classes = _classes(target.classes if isinstance(target, LogProbability) else target, count, network)
            several = classes.ndim == 2
            return Aim(count, classes if several else classes[:, None], several=several, log=log)
        aim = Aim(count, unit=target.check(network))
        if not hold or target.position is not None or len(network.layer(target.layer).shape) == 1:
            return aim
        maps = [network.activations(piece, target.layer)[:, target.channel] for piece in network.split(images)]
        return replace(aim, places=torch.cat([part.flatten(1).argmax(1) for part in maps]))


def scores(network: Network, images: Tensor, aim: Aim) -> Tensor:
    """The explained values `[N, K]`: class scores S_c (or log-probabilities), or the neuron's activation."""
    if aim.unit is None:
        return aim.pick(network.logits(images))
    return aim.pick(network.activations(images, aim.unit.layer))


def values(network: Network, images: Tensor, aim: Aim) -> Tensor:
    """`scores` of any number of images, without a graph.

    Raises:
        NetworkError: NaN or infinity on the way; the message names the layer where they begin.
    """
    with torch.inference_mode(False), torch.no_grad():
        found = torch.cat([scores(network, piece, own) for piece, own in pieces(network, images, aim)])
    if not bool(torch.isfinite(found).all()):
        refuse_nan(network, images)
    return found


Forward: TypeAlias = Callable[[Network, Tensor, Aim], Tensor]
"""A forward pass to the scores `[N, K]`: `scores` itself, or one under a backward rule."""


def pieces(network: Network, images: Tensor, aim: Aim) -> Iterator[tuple[Tensor, Aim]]:
    """The batch in parts that fit into memory, each with its aim."""
    start = 0
    for piece in network.split(images):
        yield piece, aim.of(slice(start, start + len(piece)))
        start += len(piece)


def _classes(target: object, count: int, network: Network) -> Tensor:
    """`[count]` or `[count, K]`."""
    network.need_classifier("explaining a class")
    try:
        classes = torch.as_tensor(target, device=network.device)
    except (TypeError, ValueError, RuntimeError) as problem:
        raise LabelError(
            "classes are one index, one per image, or as many for each image as for any other"
        ) from problem
    if classes.numel() and (classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool):
        raise LabelError(f"classes are whole numbers, got {classes.tolist()}")
    classes = classes.long().clone()
    if classes.ndim < 2 and classes.numel() == 1:
        classes = classes.reshape(1).expand(count)
    if classes.ndim > 2 or not count or len(classes) != count or not classes.numel():
        have = "x".join(map(str, classes.shape))
        raise LabelError(f"{have} classes for {count} images: give one for all, one for each, or [N, K] for K of each")
    if int(classes.min()) < 0 or int(classes.max()) >= len(network.labels):
        raise LabelError(f"classes go from 0 to {len(network.labels) - 1}, got {classes.tolist()}")
    return classes
