"""What an attack sees of a network: logits and gradients, in chunks that fit, counted for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Network
from phosphene.models.prepare import borrowed, first_tensor

Score = Callable[[Tensor, Tensor], Tensor]
"""`(logits [n, classes], which of the batch they are [n]) -> [n]`, to be differentiated."""

TOGETHER = 64
"""Images that a plain module is given at once."""


class Victim:
    """A network under attack: a `Network` (read by its fast prepared copy) or any module that takes images in [0, 1].

    A module is run in eval mode and without gradients of its parameters; both are given back afterwards, see `lent`.

    Attributes:
        forwards, backwards: `[N]`, how often each image of the batch has gone through the network, there and back.
    """

    def __init__(self, network: Network | nn.Module, count: int) -> None:
        self.network = network
        if isinstance(network, Network):
            network.need_classifier("an attack")
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.backwards = torch.zeros(count, dtype=torch.long)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._example().device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its weights."""
        return self._example().dtype

    def _example(self) -> Tensor:
        if isinstance(self.network, Network):
            return self.network.mean
        return next((p for p in self.network.parameters() if p.is_floating_point()), torch.zeros(()))

    @contextmanager
    def lent(self) -> Iterator[Victim]:
        """A plain module in eval mode, for as long as this lasts."""
        if isinstance(self.network, Network):
            yield self
            return
        with borrowed(self.network):
            yield self

    def logits(self, images: Tensor, which: Tensor) -> Tensor:
        """`[n, classes]` of images `[n, C, H, W]`, without gradients. `which` `[n]`: their places in the batch."""
        self.forwards.index_add_(0, which.cpu(), torch.ones(len(which), dtype=torch.long))
        with torch.no_grad():
            return torch.cat([self._run(part) for part in self._parts(images)])

    def gradient(self, images: Tensor, which: Tensor, score: Score) -> tuple[Tensor, Tensor, Tensor]:
        """`(score [n], its gradient [n, C, H, W], logits [n, classes])`, each image's own.

        Raises:
            NetworkError: the score doesn't depend on the image in a way that can be differentiated.
        """
        ones = torch.ones(len(which), dtype=torch.long)
        self.forwards.index_add_(0, which.cpu(), ones)
        self.backwards.index_add_(0, which.cpu(), ones)
        values, gradients, outputs, start = [], [], [], 0
        with torch.enable_grad():
            for part in self._parts(images):
                own = which[start : start + len(part)]
                start += len(part)
                leaf = part.detach().requires_grad_()
                logits = self._run(leaf)
                if not logits.requires_grad:
                    raise NetworkError(NO_GRADIENT)
                value = score(logits, own)
                (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
                if found is None:
                    raise NetworkError(NO_GRADIENT)
                values.append(value.detach())
                gradients.append(found)
                outputs.append(logits.detach())
        return torch.cat(values), torch.cat(gradients), torch.cat(outputs)

    def _run(self, images: Tensor) -> Tensor:
        found = self.network.logits(images) if isinstance(self.network, Network) else first_tensor(self.network(images))
        if found is None or found.ndim != 2:
            shape = "nothing" if found is None else f"a tensor of shape {list(found.shape)}"
            raise NetworkError(f"an attack needs a network that gives logits [N, classes], this one gives {shape}")
        return found

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        if len(images) == 0:
            raise PhospheneError("an empty batch of images")
        yield from self.network.split(images) if isinstance(self.network, Network) else images.split(TOGETHER)


NO_GRADIENT = (
    "this network has no gradient with respect to the image, so that gradient attacks are blind: attack it with Square, which"
    " needs none"
)
