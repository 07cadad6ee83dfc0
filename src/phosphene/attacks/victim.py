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

Scores = Callable[[Tensor, Tensor], Tensor]
"""`(logits [n, classes], which of the batch they are [n]) -> [n, K]`, each of the K to be differentiated."""

TOGETHER = 64
"""Images that a network is given at once, where they are small enough."""

PIXELS = {"cpu": 2**15, "other": TOGETHER * 224 * 224}
"""Pixels that a plain module is given at once; on a CPU, more would leave its caches."""

CACHED = 2**25
"""Bytes of a `Network`'s activations that a CPU's caches hold well enough."""


class Victim:
    """A network under attack: a `Network` (read by its fast prepared copy) or any module that takes images in [0, 1].

    A module is run in eval mode and without gradients of its parameters; both are given back afterwards, see `lent`.

    Args:
        network: gives logits `[N, classes]`, or a tuple or dict whose first tensor they are.
        count: how many images there are.
        probabilities: it gives probabilities; what an attack sees are their logarithms, which are logits of the same softmax.

    Attributes:
        forwards, backwards: `[N]`, how often each image of the batch has gone through the network, there and back.
    """

    def __init__(self, network: Network | nn.Module, count: int, probabilities: bool = False) -> None:
        self.network = network
        self.probabilities = probabilities
        if isinstance(network, Network):
            network.need_classifier("an attack")
        self.forwards = torch.zeros(count, dtype=torch.long)
        self.backwards = torch.zeros(count, dtype=torch.long)
        self._reader: Callable[[Tensor], dict[str, Tensor]] | None = None
        self._together: dict[tuple[int, ...], int] = {}
        self._layouts: list[tuple[nn.Parameter, Tensor]] = []

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
        """A plain module in eval mode, a `Network` as it is now, for as long as this lasts."""
        if isinstance(self.network, Network):
            # One reader spares each pass the question whether the weights have changed.
            self._reader = self.network.reader(to_end=True)
            try:
                yield self
            finally:
                self._reader = None
            return
        with borrowed(self.network), self._laid_out(self.network):
            yield self

    @contextmanager
    def _laid_out(self, module: nn.Module) -> Iterator[None]:
        """Convolutions with weights in the memory layout that is twice as fast on a CPU (NHWC); given back as they were."""
        if self.device.type == "cpu":
            weights = (p for p in module.parameters() if not nn.parameter.is_lazy(p) and type(p.data) is Tensor)
            self._layouts = [(p, p.data) for p in weights if p.ndim == 4]
        try:
            for parameter, given in self._layouts:
                parameter.data = given.contiguous(memory_format=torch.channels_last)
            yield
        finally:
            self._give_back()

    def _give_back(self) -> None:
        for parameter, given in self._layouts:
            parameter.data = given
        self._layouts = []

    def logits(self, images: Tensor, which: Tensor) -> Tensor:
        """`[n, classes]` of images `[n, C, H, W]`, without gradients. `which` `[n]`: their places in the batch."""
        _count(self.forwards, which)
        with torch.no_grad():
            return torch.cat([self._run(part) for part in self._parts(images)])

    def gradient(self, images: Tensor, which: Tensor, score: Score) -> tuple[Tensor, Tensor, Tensor]:
        """`(score [n], its gradient [n, C, H, W], logits [n, classes])`, each image's own.

        Raises:
            NetworkError: the score doesn't depend on the image in a way that can be differentiated.
        """
        values, gradients, logits = self.jacobian(images, which, lambda rows, own: score(rows, own)[:, None])
        return values[:, 0], gradients[:, 0], logits

    def jacobian(self, images: Tensor, which: Tensor, scores: Scores) -> tuple[Tensor, Tensor, Tensor]:
        """`(scores [n, K], their gradients [n, K, C, H, W], logits [n, classes])` from one pass there and K back.

        Raises:
            NetworkError: a score doesn't depend on the image in a way that can be differentiated.
        """
        _count(self.forwards, which)
        values, gradients, outputs, start = [], [], [], 0
        with torch.inference_mode(False), torch.enable_grad():
            for part in self._parts(images):
                own = which[start : start + len(part)]
                start += len(part)
                leaf = part.detach().clone().requires_grad_()
                logits = self._run(leaf)
                if not logits.requires_grad:
                    raise NetworkError(NO_GRADIENT)
                value = scores(logits, own)
                values.append(value.detach())
                gradients.append(_each(value, leaf))
                outputs.append(logits.detach())
        _count(self.backwards, which, values[0].shape[1])
        return torch.cat(values), torch.cat(gradients), torch.cat(outputs)

    def _run(self, images: Tensor) -> Tensor:
        """Logits, at least in float32."""
        found = self._output(images)
        if found is None or found.ndim != 2 or len(found) != len(images):
            shape = "nothing" if found is None else f"a tensor of shape {list(found.shape)}"
            wanted = f"[{len(images)}, classes]"
            raise NetworkError(f"an attack needs a network that gives logits {wanted}, this one gives {shape}")
        found = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
        # log 0 = -inf would have no gradient. The smallest normal number is far below what softmax gives for any image.
        return found.clamp(min=torch.finfo(found.dtype).tiny).log() if self.probabilities else found

    def _output(self, images: Tensor) -> Tensor | None:
        if self._reader is not None:
            return self._reader(images)[""]
        if isinstance(self.network, Network):
            return self.network.logits(images)
        images = images.to(self.dtype)
        try:
            return first_tensor(self.network(images))
        except RuntimeError as problem:
            if not self._layouts or "view size is not compatible" not in str(problem):
                raise
            self._give_back()  # a forward with `.view` only knows the usual layout
            return first_tensor(self.network(images))

    def _parts(self, images: Tensor) -> Iterator[Tensor]:
        if len(images) == 0:
            raise PhospheneError("an empty batch of images")
        size = tuple(images.shape[-2:])
        if size not in self._together:
            self._together[size] = self._fits(size)
        yield from images.split(self._together[size])

    def _fits(self, size: tuple[int, ...]) -> int:
        if isinstance(self.network, Network):
            cached = min(TOGETHER, int(CACHED / self.network.bytes_for(size)))
            return max(self.network.batch_size(size), cached)
        pixels = PIXELS["cpu" if self.device.type == "cpu" else "other"]
        return max(4, min(TOGETHER, pixels // max(1, size[0] * size[1])))


def gives_probabilities(network: Network) -> bool:
    """Whether a network's answers are probabilities rather than logits: all in [0, 1], and their sum 1, also for noise."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((4, network.channels, *network.input_size), generator=generator).to(network.mean)
    with torch.no_grad():
        return are_probabilities(network.logits(noise))


def are_probabilities(rows: Tensor) -> bool:
    """Whether all rows lie in [0, 1] and sum to 1."""
    return bool((rows >= 0).all() and (rows <= 1).all() and ((rows.sum(1) - 1).abs() < 1e-3).all())


def _each(values: Tensor, leaf: Tensor) -> Tensor:
    """Gradients `[n, K, C, H, W]` of `values` `[n, K]`, NaN as 0: a step in no direction."""
    found, last = [], values.shape[1] - 1
    for k in range(last + 1):
        (one,) = torch.autograd.grad(values[:, k].sum(), leaf, retain_graph=k < last, allow_unused=True)
        if one is None:
            raise NetworkError(NO_GRADIENT)
        found.append(torch.where(one.isnan(), 0.0, one))
    return torch.stack(found, 1)


def _count(passes: Tensor, which: Tensor, times: int = 1) -> None:
    passes.index_add_(0, which.cpu(), torch.full((len(which),), times))


NO_GRADIENT = (
    "this network has no gradient with respect to the image, so that gradient attacks are blind: attack it with Square, which"
    " needs none"
)
