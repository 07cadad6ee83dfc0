"""`Network`: images in [0, 1] in, logits out, whatever it is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from phosphene.errors import LayerError, NetworkError, PhospheneError, did_you_mean
from phosphene.models.aliases import textbook_names
from phosphene.models.labels import Labels
from phosphene.models.prepare import CopyError, Prepared, Stamp, borrowed, first_tensor, prepare
from phosphene.models.preprocess import Preprocess
from phosphene.models.taps import Recording, Tap, read
from phosphene.models.trace import Call, Trace, trace
from phosphene.models.winograd import with_winograd

if TYPE_CHECKING:
    from phosphene.models.saved import Architecture

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as Pillow turns colour into grey


@dataclass(frozen=True)
class Layer:
    """One layer that runs: `shape` is its output's `[C, ...]`, `calls` how often it runs in one forward pass."""

    name: str
    kind: str
    shape: tuple[int, ...]
    calls: int
    parameters: int
    leaf: bool
    alias: str | None = None


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, best first."""

    indices: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class _Engine:
    """What reads a module as it was at `stamp`."""

    stamp: Stamp
    prepared: Prepared
    trace: Trace
    textbook: dict[str, str]  # textbook name -> name
    same: dict[str, str]  # another name of a module -> its name
    cloned: set[Tap] = field(default_factory=set)  # see taps.read
    swift: list[_Engine] = field(default_factory=list)  # its twin by Winograd's algorithm, once one was asked for

    def swiftly(self) -> _Engine:
        """The twin, made once: its filters are four times as large as the weights."""
        if not self.swift:
            twin = with_winograd(self.prepared.module)
            prepared = Prepared(twin, self.prepared.folded)
            self.swift.append(replace(self, prepared=prepared, cloned=set(), swift=[]))
        return self.swift[0]


class Network(nn.Module):
    """A convolutional network that takes images `[N, 3, H, W]` in [0, 1] and gives logits `[N, classes]`.

    Normalisation lives inside, so an epsilon of 8/255 means 8/255 of the picture. Called as a plain `nn.Module` it
    runs `self.module`, the very module it was given, in the mode that it is in. What reads the network (`record`,
    `logits`, every technique) runs a prepared copy: frozen, in eval mode, batch norms folded, channels_last.

    Args:
        module: takes normalised images, gives logits (or a tuple or dict whose first tensor is the logits).
        name: what to call it.
        labels: its classes; None for a feature extractor that has none.
        preprocess: the size it wants and how pictures are brought to it.
        mean, std: per channel; three numbers for colour, one for a grey network (colour becomes luma).
        why_features: for a feature extractor, the sentence that says why it can't classify.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        labels: Labels | None,
        preprocess: Preprocess | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        why_features: str = "",
    ) -> None:
        super().__init__()
        if len(mean) != len(std) or len(mean) not in (1, 3):
            raise NetworkError(f"mean and std need 3 numbers each (or 1 for grey), got {len(mean)} and {len(std)}")
        self.module = module
        self.name = name
        self.preprocess = preprocess or Preprocess()
        self.why_features = why_features
        self.architecture: Architecture | None = None  # how to build it, where it was made by name
        reference = next(module.parameters(), torch.zeros(()))
        for key, values in (("mean", mean), ("std", std)):
            self.register_buffer(key, torch.tensor(values).view(1, -1, 1, 1).to(reference), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self._labels = labels
        self._engines: dict[bool, _Engine] = {}
        self._borrow = False

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def labels(self) -> Labels:
        """The classes; empty for a feature extractor."""
        return self._labels if self._labels is not None else _NoClasses()

    @property
    def classifies(self) -> bool:
        """Whether it gives logits of classes."""
        return self._labels is not None

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width it was trained on."""
        return self.preprocess.size

    @property
    def channels(self) -> int:
        """3 for colour, 1 for grey."""
        return self.mean.shape[1]

    @property
    def device(self) -> torch.device:
        """Where its parameters live."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of its parameters."""
        return self.mean.dtype

    def need_classifier(self, what: str) -> None:
        """Raise a NetworkError that says why `what` is impossible, if the network has no classes."""
        if not self.classifies:
            raise NetworkError(
                f"{what} needs a network that classifies; {self.why_features or self.name + ' has no classes'}"
            )

    def classes(self, queries: Iterable[str | int]) -> list[int]:
        """Indices of classes given by index, name, synset or unique part of a name. Raises LabelError."""
        self.need_classifier("naming a class")
        return [self.labels.resolve(query) for query in queries]

    # -- running it as a plain module ---------------------------------------------------------------------------

    def normalise(self, images: Tensor) -> Tensor:
        """`[N, 3, H, W]` in [0, 1] to what the inner module was trained on. Differentiable."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise PhospheneError(f"expected images [N, 3, H, W] in [0, 1], got a tensor of shape {list(images.shape)}")
        _need_floats(images)
        if self.channels == 1 and images.shape[1] == 3:
            images = (images * images.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        elif self.channels == 3 and images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        return (images - self.mean.to(images)) / self.std.to(images)

    def forward(self, images: Tensor) -> Tensor:
        """Images `[N, 3, H, W]` in [0, 1] to logits `[N, classes]` (features, for a feature extractor)."""
        return self._given(first_tensor(self.module(self.normalise(images))))

    # -- reading it ---------------------------------------------------------------------------------------------

    def logits(self, images: Tensor) -> Tensor:
        """Logits `[N, classes]` of images `[N, 3, H, W]` in [0, 1], by the prepared copy; differentiable in the images.

        Raises:
            NetworkError: the network has no classes.
        """
        self.need_classifier("a score")
        return self.output(images)

    def output(self, images: Tensor) -> Tensor:
        """What the prepared copy gives: logits, or a feature extractor's last map. Differentiable in the images."""
        return self._given(self._run(images, [], to_end=True).output)

    def _given(self, output: Tensor | None) -> Tensor:
        if output is None:
            raise NetworkError(f"{self.name} returned no tensor")
        return output

    @property
    def prepared(self) -> nn.Module:
        """The copy that is read: frozen, eval, folded, channels_last. Not for training."""
        return self._engine().prepared.module

    def predict(self, images: Tensor, top: int = 5) -> list[Prediction]:
        """The `top` classes of each image `[N, 3, H, W]` (any size: preprocessed here), by softmax of the logits.

        Raises:
            NetworkError: the network has no classes, or gives NaN.
            PhospheneError: values outside [0, 1].
        """
        self.need_classifier("predict")
        low, high = float(images.min()), float(images.max())
        if not -0.01 <= low <= high <= 1.01:
            raise PhospheneError(f"images are floats in [0, 1], these go from {low:g} to {high:g} (divide by 255?)")
        self._engine()
        top = min(top, len(self.labels))
        with torch.no_grad():
            parts = [self.logits(part).softmax(1) for part in self.split(self.preprocess(images.to(self.mean)))]
        values, indices = torch.cat(parts).topk(top, dim=1)
        if not bool(torch.isfinite(values).all()):
            raise NetworkError(
                f"{self.name} gives NaN or infinity for this image, so it sees no class: check its weights"
            )
        return [
            Prediction(tuple(row), tuple(self.labels[i] for i in row), tuple(p))
            for row, p in zip(indices.tolist(), values.tolist(), strict=True)
        ]

    def record(self, images: Tensor, layers: Iterable[str], *, as_written: bool = False) -> dict[str, Tensor]:
        """The outputs of `layers` for images `[N, 3, H, W]` in [0, 1], without gradients, in memory-sized batches.

        The pass stops as soon as all of them have run. `name#k` asks for the k-th call of a module that runs several times;
        plain `name` is its last call. `as_written`: by the network's own operations, none of them replaced by a faster one.

        Raises:
            LayerError: no such layer (the message names the nearest), or it does not run.
        """
        names = list(layers)
        engine = self._engine()
        taps = [self._tap(name, engine) for name in names]
        parts: list[dict[Tap, Tensor]] = []
        with torch.no_grad():
            for part in self.split(images):
                parts.append(self._run(part, taps, as_written=as_written).layers)
        return {
            name: torch.cat([part[tap] for part in parts]) if len(parts) > 1 else parts[0][tap]
            for name, tap in zip(names, taps, strict=True)
        }

    def activations(self, images: Tensor, layer: str) -> Tensor:
        """The output of one layer, differentiable in the images; the pass stops there."""
        tap = self.tap(layer)
        return self._run(images, [tap]).layers[tap]

    def reader(
        self, layers: Sequence[str] = (), *, to_end: bool = False, swift: bool = False
    ) -> Callable[[Tensor], dict[str, Tensor]]:
        """A function from images to the outputs of `layers`, differentiable; with `to_end` the output too, as `""`.

        It reads the network as it is now and spares each call the question whether that has changed since: for loops.
        `swift`: large 3x3 convolutions by Winograd's algorithm on a CPU, for loops that run long; outputs differ by 1e-5.

        Raises:
            LayerError: no such layer.
        """
        engine = self._engine()
        taps = {name: self._tap(name, engine) for name in layers}
        wanted = list(dict.fromkeys(taps.values()))
        engine = self._engine_for(wanted)
        if swift and not self._borrow:
            engine = engine.swiftly()

        def read_from(images: Tensor) -> dict[str, Tensor]:
            found = self._read(engine, images, wanted, to_end=to_end)
            parts = {name: found.layers[tap] for name, tap in taps.items()}
            return parts | {"": self._given(found.output)} if to_end else parts

        return read_from

    def several(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The outputs of several layers from one pass, differentiable in the images; it stops after the deepest."""
        taps = {name: self.tap(name) for name in layers}
        found = self._run(images, list(dict.fromkeys(taps.values()))).layers
        return {name: found[tap] for name, tap in taps.items()}

    def cut(self, images: Tensor, layer: str, to: str | None = None) -> tuple[Tensor, Tensor]:
        """`(activation, output)`: the layer's output as a leaf that requires a gradient, and what is computed from it.

        That is the logits, or the output of the layer `to`, where the pass then stops. What lies before `layer` runs
        without a graph.

        Raises:
            LayerError: `to` runs before `layer`.
        """
        tap = self.tap(layer)
        if to is None:
            recording = self._run(images.detach(), [tap], to_end=True, cut=tap)
            return recording.layers[tap], self._given(recording.output)
        end = self.tap(to)
        known = self._engine().trace
        if known.position(tap.name, tap.index) > known.position(end.name, end.index):
            raise LayerError(f"layer '{layer}' runs after '{to}', which therefore does not depend on it")
        recording = self._run(images.detach(), list({tap, end}), cut=tap)
        return recording.layers[tap], recording.layers[end]

    def split(self, images: Tensor) -> Iterator[Tensor]:
        """Cut a batch into pieces that fit the memory budget (and a CPU's caches: about 8 images each)."""
        if images.shape[0] == 0:
            raise PhospheneError("an empty batch of images")
        yield from images.split(self.batch_size(images.shape[-2:]))

    def batch_size(self, size: Sequence[int]) -> int:
        """How many images of `size` (height, width) to run at once, gradients included."""
        most = 8 if self.device.type == "cpu" else 64
        return max(1, min(most, int(MEMORY_BUDGET / self.bytes_for(size))))

    def bytes_for(self, size: Sequence[int]) -> float:
        """About how much memory one image of `size` (height, width) takes, gradients included."""
        area = size[0] * size[1] / (self.input_size[0] * self.input_size[1])
        return max(1.0, self._engine().trace.activation_bytes * area * GRADIENT_FACTOR)

    # -- its layers ---------------------------------------------------------------------------------------------

    def layers(self) -> list[Layer]:
        """The layers that run, in order of execution, with their textbook names where they have any."""
        engine = self._engine()
        known = engine.trace
        return [self._layer(call, engine) for call in known.calls if call.index == known.count(call.name)]

    def layer(self, name: str) -> Layer:
        """The layer called `name` (or a textbook name); for `name#k` its shape is that of the k-th call.

        Raises:
            LayerError: no such layer; the message names the nearest.
        """
        engine = self._engine()
        tap = self._tap(name, engine)
        return self._layer(engine.trace.calls[engine.trace.position(tap.name, tap.index)], engine)

    def _layer(self, call: Call, engine: _Engine) -> Layer:
        module = self.module.get_submodule(call.name)
        return Layer(
            name=call.name,
            kind=type(module).__name__,  # folding changes the copy's
            shape=call.shape[1:],
            calls=engine.trace.count(call.name),
            parameters=sum(p.numel() for p in module.parameters()),
            leaf=call.leaf,
            alias=next((alias for alias, known in engine.textbook.items() if known == call.name), None),
        )

    def tap(self, name: str) -> Tap:
        """Resolve `name`, `name#k` or a textbook name.

        Raises:
            LayerError: no such layer, or it doesn't run that often.
        """
        return self._tap(name, self._engine())

    def _tap(self, name: str, engine: _Engine) -> Tap:
        base, _, number = name.partition("#")
        base = engine.textbook.get(base, base)
        base = engine.same.get(base, base)
        calls = engine.trace.count(base)
        if not calls:
            choices = [call.name for call in engine.trace.calls] + list(engine.textbook)
            if base and base in dict(self.module.named_modules()):
                raise LayerError(f"layer '{base}' of {self.name} does not run when it classifies an image")
            hint = did_you_mean(base, choices) or f": `phosphene layers {self.name}` lists them"
            raise LayerError(f"{self.name} has no layer '{base}'{hint}")
        if not number:
            return Tap(base, calls)
        if not number.isdecimal() or not 1 <= int(number) <= calls:
            raise LayerError(f"layer '{base}' runs {calls} time(s): '{name}' asks for call '{number}'")
        return Tap(base, int(number))

    def place(self, name: str) -> int:
        """When the call `name` (`name#k`; plain: the last one) is complete, among all calls of all layers.

        Raises:
            LayerError: no such layer.
        """
        engine = self._engine()
        tap = self._tap(name, engine)
        return engine.trace.position(tap.name, tap.index)

    def last_spatial_layer(self) -> str:
        """The deepest layer whose output still is a map `[C, H, W]` of more than one pixel.

        Raises:
            LayerError: there is none.
        """
        maps = self.spatial_layers()
        if not maps:
            raise LayerError(f"{self.name} has no layer with a spatial map")
        return maps[-1]

    def spatial_layers(self, before: str | None = None) -> list[str]:
        """The layers whose output is a map `[C, H, W]` of more than one pixel, in order of execution.

        Args:
            before: only those that run before this layer and are no part of it.
        """
        engine = self._engine()
        calls = engine.trace.calls
        if before is not None:
            tap = self._tap(before, engine)
            end = engine.trace.position(tap.name, tap.index)
            calls = [call for call in calls[:end] if not call.name.startswith(f"{tap.name}.")]
        return [self._call_name(call, engine) for call in calls if _is_map(call)]

    def nearest_spatial_layer(self, name: str) -> str:
        """The layer that gives a map `[C, H, W]` and runs next to the layer `name`; of two the earlier.

        Raises:
            LayerError: no such layer, or no layer with a map.
        """
        engine = self._engine()
        calls = engine.trace.calls
        tap = self._tap(name, engine)
        here = engine.trace.position(tap.name, tap.index)
        maps = [place for place, call in enumerate(calls) if _is_map(call)]
        if not maps:
            raise LayerError(f"{self.name} has no layer with a spatial map")
        return self._call_name(calls[min(maps, key=lambda place: abs(place - here))], engine)

    @staticmethod
    def _call_name(call: Call, engine: _Engine) -> str:
        return call.name if call.index == engine.trace.count(call.name) else f"{call.name}#{call.index}"

    # -- the prepared copy --------------------------------------------------------------------------------------

    def _example(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        image = torch.rand((1, 3, *self.input_size), generator=generator)
        with torch.no_grad():
            return self.normalise(image.to(self.mean))

    def _engine(self, folded: bool = True) -> _Engine:
        """The prepared copy (made anew when the module has changed) and what is known of it."""
        known = self._engines.get(folded)
        if known is None or not known.stamp.holds(self.module):
            with _normal_tensors():
                known = self._engines[folded] = self._made(folded)
        return known

    def _made(self, folded: bool) -> _Engine:
        self._follow()
        now = Stamp(self.module)
        example = self._example()
        try:
            try:
                ready = prepare(self.module, example, fold=folded)
            except CopyError:
                self._borrow = True
                ready = Prepared(self.module)
            with borrowed(ready.module):
                dry_run = trace(ready.module, example)
        except PhospheneError:
            raise
        except Exception as problem:  # the user's own code may raise anything
            raise NetworkError(f"{self.name} can't run on its own input size: {_line(problem)}") from problem
        return _Engine(now, ready, dry_run, textbook_names(self.module), _other_names(self.module))

    def _follow(self) -> None:
        """Be where the module is, if it was moved or cast without its Network, or made inside of `inference_mode`."""
        weight = next((p for p in self.module.parameters() if p.is_floating_point()), self.mean)
        for name, values in (("mean", self.mean), ("std", self.std)):
            moved = values.to(device=weight.device, dtype=weight.dtype)
            setattr(self, name, moved.clone() if moved.is_inference() else moved)

    def _run(
        self,
        images: Tensor,
        taps: list[Tap],
        *,
        to_end: bool = False,
        cut: Tap | None = None,
        as_written: bool = False,
    ) -> Recording:
        engine = self._engine_for(taps, as_written)
        return self._read(engine, images, taps, to_end=to_end, cut=cut)

    def _engine_for(self, taps: Sequence[Tap], as_written: bool = False) -> _Engine:
        engine = self._engine()
        if as_written or any(engine.prepared.changed(tap.name) for tap in taps):
            # A folded convolution gives its batch norm's output; who asks for it means its own.
            engine = self._engine(folded=False)
        return engine

    def _read(
        self, engine: _Engine, images: Tensor, taps: list[Tap], *, to_end: bool = False, cut: Tap | None = None
    ) -> Recording:
        with _normal_tensors(), self._quiet(engine.prepared.module) as module:
            x = self.normalise(_need_floats(images).to(self.mean)).contiguous(memory_format=torch.channels_last)
            return read(module, x, taps, to_end=to_end, cut=cut, cloned=engine.cloned)

    @contextmanager
    def _quiet(self, module: nn.Module) -> Iterator[nn.Module]:
        if self._borrow:
            with borrowed(module):
                yield module
        else:
            yield module

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Network:
        self._engines.clear()
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}}


MEMORY_BUDGET = 1.0e9  # bytes of activations that one piece of a batch may need
GRADIENT_FACTOR = 2.5  # a backward pass keeps the activations and makes gradients of about their size


@contextmanager
def _normal_tensors() -> Iterator[None]:
    """Inside `torch.inference_mode` just no gradients: its tensors could not be tapped, nor kept for later gradients."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _is_map(call: Call) -> bool:
    return len(call.shape) == 4 and min(call.shape[2:]) > 1


class _NoClasses(Labels):
    """The empty list of classes, which `Labels` itself refuses."""

    def __init__(self) -> None:
        self._names, self._synsets, self._aliases = (), None, None
        self._index_names()


def _other_names(module: nn.Module) -> dict[str, str]:
    """Other names of a module that is registered several times -> the name that `named_modules` gives it."""
    first = {id(child): name for name, child in module.named_modules()}
    every = module.named_modules(remove_duplicate=False)
    return {name: first[id(child)] for name, child in every if first[id(child)] != name}


def _need_floats(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise PhospheneError(f"images are floats in [0, 1], got {str(images.dtype).removeprefix('torch.')}")
    return images


def _line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:200] or type(problem).__name__
