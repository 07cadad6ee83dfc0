"""Penultimate features: what a network knows of an image just before it names a class.

    f(I) = what the classifier, the last layer with weights, is given;  fc7 of AlexNet and VGG

The last layers draw no pictures by themselves. Images with near features are what the network takes for alike.

Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep CNNs", NeurIPS 2012, figure 4; Donahue et al., "DeCAF",
ICML 2014.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from phosphene import processes
from phosphene.errors import LayerError, PhospheneError
from phosphene.explain.health import refuse_nan
from phosphene.models import Network
from phosphene.models.hooks import lent
from phosphene.models.prepare import first_tensor
from phosphene.observe.patches import Pictures, readable
from phosphene.progress import Job, Started, Step


@dataclass(frozen=True, eq=False)
class Features:
    """Features of the images that could be read.

    Attributes:
        vectors: `[N, D]` float32 on the CPU, finite.
        places: of these N images in the collection, ascending.
        source: where in the network they come from, in words.
        skipped: place of an image that was left out, and why.
    """

    vectors: Tensor
    places: tuple[int, ...]
    source: str
    skipped: dict[int, str]


def features(network: Network, pictures: Pictures, layer: str | None = None) -> Job[Features]:
    """Features of many images, which are read, run and forgotten a few at a time.

    Processes that torchrun started share the images: all of them call this, and each gets the features of all.

    Args:
        network: any network.
        pictures: the images.
        layer: take the output of this layer. Default: `fc7` where the network has a textbook's fully connected end, after
            its ReLU (`relu7`), as the 4096 numbers of Krizhevsky et al. are; else what its last layer with weights is given;
            and what a network without classes gives. A map is averaged over its pixels, tokens over their sequence.

    Yields:
        progress; returns the features.

    Raises:
        LayerError: no such layer, or none with weights.
        NetworkError: NaN or infinity for every image; images for which that is so are left out.
        PhospheneError: no image that can be read.
    """
    source, read = _reader(network, layer)
    yield Started("features", len(pictures), "image")
    vectors: list[Tensor] = []
    places: list[int] = []
    skipped: dict[int, str] = {}
    broken: dict[int, Tensor] = {}
    for chunk in processes.mine(len(pictures), network.batch_size(network.input_size)):
        images = readable(pictures, chunk, skipped)
        if images:
            batch = torch.stack(list(images.values())).to(network.mean)
            found = vector(read(batch))
            sound = torch.isfinite(found).all(1).tolist()
            for place, row, is_sound in zip(images, found, sound, strict=True):
                if is_sound:
                    vectors.append(row)
                    places.append(place)
                else:
                    skipped[place] = f"{network.name} gives NaN or infinity for this image"
            if not all(sound):
                broken = {chunk.start: batch[sound.index(False)][None].cpu()}
        yield Step(chunk.stop)
    every, skipped, broken = _gathered(vectors, places), processes.merged(skipped), processes.merged(broken)
    if not every:
        if broken:
            refuse_nan(network, broken[max(broken)].to(network.mean))
        raise PhospheneError(
            f"none of the {len(pictures)} images can be read: {next(iter(skipped.values()), 'no images')}"
        )
    return Features(torch.stack(list(every.values())), tuple(every), source, skipped)


def _gathered(vectors: list[Tensor], places: list[int]) -> dict[int, Tensor]:
    """Vectors of all processes by place. They travel as one tensor: each row alone would take its whole batch along."""
    if processes.count() == 1:
        return dict(zip(places, vectors, strict=True))
    parts = processes.gather((places, torch.stack(vectors) if vectors else None))
    rows = [row for here, found in parts if found is not None for row in zip(here, found, strict=True)]
    return dict(sorted(rows, key=lambda row: row[0]))


def vector(output: Tensor) -> Tensor:
    """`[N, D]` float32 on the CPU of a layer's output: maps `[N, D, H, W]` and tokens `[N, T, D]` are averaged."""
    output = output.detach().float()
    if output.ndim == 3:
        return output.mean(1).cpu()
    return (output.flatten(2).mean(2) if output.ndim > 3 else output.reshape(len(output), -1).clone()).cpu()


def _reader(network: Network, layer: str | None) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Where features come from, in words, and what reads them from a batch."""
    if layer is not None:
        network.layer(layer)  # an unknown one is told before an image is read
        return layer, lambda batch: network.record(batch, [layer])[layer]
    for name, words in (("relu7", "fc7 after its ReLU"), ("fc7", "fc7")):
        with suppress(LayerError):
            network.layer(name)
            network.layer("fc7")
            return words, lambda batch, name=name: network.record(batch, [name])[name]
    if not network.classifies:
        return "the last map, averaged", lambda batch: _output(network, batch)
    name = _classifier(network)
    return f"what '{name}' is given", lambda batch: _given(network, name, batch)


def _classifier(network: Network) -> str:
    """The last layer with weights that is no normalisation."""
    weighty = [layer.name for layer in network.layers() if layer.leaf and layer.parameters and "Norm" not in layer.kind]
    if not weighty:
        raise LayerError(f"{network.name} has no layer with weights: name one to take features from with --layer")
    return weighty[-1]


def _output(network: Network, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return network.output(batch)


def _given(network: Network, name: str, batch: Tensor) -> Tensor:
    """The input of layer `name` (of its last call) as vectors: made at once, as what follows may work in place."""
    seen: list[Tensor] = []

    def watch(_: nn.Module, inputs: tuple[object, ...]) -> None:
        given = first_tensor(inputs)
        if given is not None:
            seen.append(vector(given))

    with lent([network.prepared.get_submodule(name).register_forward_pre_hook(watch)]):
        _output(network, batch)
    if not seen:
        raise LayerError(f"what layer '{name}' of {network.name} is given can't be seen: name another with --layer")
    return seen[-1]
