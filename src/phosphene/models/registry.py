"""Finding a network by name: bundled, then files, then downloads; with one clear message when nothing works."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from phosphene import device as devices
from phosphene.errors import NetworkError, PhospheneError, WeightsError, did_you_mean
from phosphene.models import bundled, cache, fetch, saved, weights
from phosphene.models.labels import Labels
from phosphene.models.network import IMAGENET_MEAN, IMAGENET_STD, Network
from phosphene.models.prepare import first_tensor
from phosphene.models.preprocess import Preprocess
from phosphene.models.small import DESIGNS, built, is_small, untrained, wanted, with_weights
from phosphene.progress import Event, run

Listen: TypeAlias = Callable[[Event], None]

DEFAULT = "efficientnet_lite0"
IMAGENET_CLASSES = 1000
VGG_FEATURES = "vgg16_features-amdegroot-88682ab5.pth"  # torchvision's file, made for another normalisation


def load(
    net: str | nn.Module = DEFAULT,
    weights: str | Path | None = None,
    device: str | torch.device = "auto",
    *,
    labels: Labels | Sequence[str] | None = None,
    input_size: int | tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    listen: Listen | None = None,
) -> Network:
    """A `Network` from a name or from your own module.

    Args:
        net: `efficientnet_lite0` or `squeezenet1_1` (bundled), a torchvision name (`vgg16`, `resnet18`, ...),
            `timm:NAME`, `FILE.py:FUNCTION` that returns a module, a folder (or its `model.safetensors`) that `probe`,
            `finetune` or `harden` wrote, or an `nn.Module`. `madry_cnn`, `trades_cnn`, `wong_cnn` and `preact_resnet18`
            come untrained: they need `weights`, from which their channels, classes and size follow.
        weights: a safetensors file or a torch state dict for it (read with `weights_only=True`).
        device: `auto`, `cpu`, `cuda` or `mps`.
        labels: names of the classes, for a network of your own. A network with 1,000 outputs and no labels is taken
            for an ImageNet one; others get `class 0`, `class 1`, ...
        input_size: height and width; default 224, or what the architecture was trained on.
        mean, std: normalisation per channel; one number each for a grey network. Default: ImageNet's.
        name: what to call it.
        listen: is told the progress of a download, where one is needed.

    A module of your own keeps its mode, and its place unless a device is named.

    Raises:
        NetworkError: an unknown name, or weights that are neither here nor to be had.
        WeightsError: weights that can't be read or don't fit.
        PhospheneError: a device that this machine doesn't have.
    """
    where = devices.pick(device)
    if isinstance(net, nn.Module):
        network = _own(net, name or type(net).__name__, weights, labels, input_size, mean, std)
        return network if device == "auto" else network.to(where)
    known = is_small(net) or net in (*bundled.BUNDLED, *fetch.torchvision_names())  # a folder is meant by ./NAME
    trained = None if known else saved.saved_file(net)
    if trained is not None:
        return _saved(trained, name or net, weights, labels, input_size, mean, std).to(where)
    if ".py:" in net and weights is not None and (own := saved.own_file(weights)) is not None:
        network = _saved(own, name or net, None, labels, input_size, mean, std, code=net)
    elif ".py:" in net:
        network = _own(_from_file(net), name or net, weights, labels, input_size, mean, std)
    else:
        network = _by_name(net, weights, labels, input_size, mean, std, listen)
    if network.architecture is None:
        network.architecture = _architecture(net, network)
    return network.eval().to(where)


def _architecture(net: str, network: Network) -> saved.Architecture:
    outputs = len(network.labels) if network.classifies else 0
    return saved.Architecture(net, outputs, features=not network.classifies and net in fetch.torchvision_names())


def _saved(
    file: Path, name: str, other: Any, labels: Any, size: Any, mean: Any, std: Any, *, code: str | None = None
) -> Network:
    if any(option is not None for option in (other, labels, size, mean, std)):
        raise NetworkError(f"'{name}' has its own weights, classes and preprocessing: leave those options out")
    return saved.rebuilt(file, lambda made_of: _skeleton(made_of, file, code), name)


def _skeleton(made_of: saved.Architecture, file: Path, code: str | None) -> nn.Module:
    """The module that `load(made_of.net)` would fill with weights.

    The name comes out of a file, perhaps from elsewhere: it runs no code that the user hasn't named (`code`), and fetches
    nothing.
    """
    net = made_of.net
    if ".py:" in net or code is not None:
        if code is None:
            raise NetworkError(
                f"that file's code would be run: name it yourself, --net FILE.py:FUNCTION --weights {file}"
            )
        made = _from_file(code)
        return made.module if isinstance(made, Network) else made
    if is_small(net):
        return built(wanted(net), made_of.outputs)
    if net.startswith("timm:") or net == "efficientnet_lite0":
        import timm

        short = "tf_efficientnet_lite0" if net == "efficientnet_lite0" else net.removeprefix("timm:")
        if ":" in short or "/" in short or not timm.is_model(short):
            raise NetworkError(f"this version of timm has no model '{short}'")
        return timm.create_model(short, num_classes=made_of.outputs)
    if net not in (*bundled.BUNDLED, *fetch.torchvision_names()):
        raise NetworkError(f"no network is called '{net}' here")
    module = _torchvision_module(net, made_of.outputs or IMAGENET_CLASSES)
    return _without_classifier(module) if made_of.features else module


def _by_name(name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any, listen: Listen | None) -> Network:
    if name in bundled.BUNDLED:
        return _bundled(name, file, labels, size, mean, std)
    if name.startswith("timm:"):
        return _timm(name, file, labels, size, mean, std, listen)
    if name in fetch.torchvision_names():
        return _torchvision(name, file, labels, size, mean, std, listen)
    if is_small(name):
        return _small(name, file, labels, size, mean, std)
    known = [*bundled.BUNDLED, *DESIGNS, *fetch.torchvision_names()]
    raise NetworkError(
        f"unknown network '{name}'"
        + (did_you_mean(name, known) or f": bundled are {' and '.join(bundled.BUNDLED)}")
        + " (timm's are written timm:NAME, your own FILE.py:FUNCTION)"
    )


def _bundled(name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any) -> Network:
    half = (0.5, 0.5, 0.5)
    # SqueezeNet sees the whole short side: 66.0% of the 500 sample images, against 59.8% with the usual 256 -> 224 crop.
    own_mean, own_std, resize = (
        (half, half, 256) if name == "efficientnet_lite0" else (IMAGENET_MEAN, IMAGENET_STD, 224)
    )
    if file is None:
        module = getattr(bundled, name)()
    elif name == "efficientnet_lite0":
        import timm

        module = _filled(lambda n: timm.create_model("tf_efficientnet_lite0", num_classes=n), file)
    else:
        module = _filled(lambda n: _torchvision_module(name, n), file)
    return _wrap(
        module,
        name,
        labels,
        size,
        mean or own_mean,
        std or own_std,
        Preprocess((224, 224), resize, "bicubic"),
    )


# -- torchvision ------------------------------------------------------------------------------------------------


def _torchvision_module(name: str, classes: int) -> nn.Module:
    from torchvision import models

    if name not in ("googlenet", "inception_v3"):
        return models.get_model(name, weights=None, num_classes=classes)
    # Their released weights carry auxiliary heads and expect torchvision's own change of normalisation.
    return models.get_model(
        name, weights=None, num_classes=classes, aux_logits=True, transform_input=True, init_weights=False
    )


def _torchvision(name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any, listen: Listen | None) -> Network:
    from torchvision import models

    releases: Any = models.get_model_weights(name)
    path = Path(file) if file is not None else _find_or_fetch(name, file_names(name), listen)
    entry = next((release for release in releases if Path(release.url).name == path.name), releases.DEFAULT)
    preset = entry.transforms()
    way = Preprocess((preset.crop_size[0],) * 2, preset.resize_size[0], preset.interpolation.value)
    state = weights.read_state_dict(path)
    if name == "vgg16" and path.name == VGG_FEATURES:
        from phosphene.models.mirror import from_torchvision_features

        state = from_torchvision_features(state)
    features = _features_alone(lambda n: _torchvision_module(name, n), state)
    if features is not None:
        return _feature_extractor(features, name, path, way, size, mean, std)
    module = _built(lambda n: _torchvision_module(name, n), state)
    headless = _fit(module, state, path)
    if headless:
        return _feature_extractor(module, name, path, way, size, mean, std)
    return _wrap(module, name, labels, size, mean or preset.mean, std or preset.std, way)


def file_names(name: str) -> list[str]:
    """The file names under which weights of `name` may lie in a folder of weights, best first."""
    if name.startswith("timm:"):
        short = name.removeprefix("timm:")
        return [f"timm-{short}.safetensors", f"{short}.safetensors", f"{short}.pth"]
    names = [f"{name}.safetensors", f"{name}.pth", f"{name}.pt"]
    if name in fetch.torchvision_names():
        from torchvision import models

        releases: Any = models.get_model_weights(name)
        others = [release for release in releases if release is not releases.DEFAULT and "swag" not in release.url]
        names += [Path(release.url).name for release in (releases.DEFAULT, *others)]
    return list(dict.fromkeys([*names, f"{name}_features.safetensors"]))


def _feature_extractor(module: Any, name: str, path: Path, way: Preprocess, size: Any, mean: Any, std: Any) -> Network:
    """A network of which the file has only the convolutions: the rest is taken away, so that nothing random remains."""
    return Network(
        _without_classifier(module),
        name=name,
        labels=None,
        preprocess=_sized(way, size),
        mean=mean or IMAGENET_MEAN,
        std=std or IMAGENET_STD,
        why_features=f"{path.name} has only the convolutions of {name}, no classifier",
    )


def _without_classifier(module: Any) -> nn.Module:
    if hasattr(module, "features"):
        return module if isinstance(module, _Features) else _Features(module.features, type(module).__name__)
    for place in _linears(module):
        parent, _, leaf = place.rpartition(".")
        setattr(module.get_submodule(parent), leaf, nn.Identity())
    return module


def _linears(module: nn.Module) -> list[str]:
    return [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]


class _Features(nn.Module):
    """The convolutions of a network under their own names, `features.0` and on."""

    def __init__(self, features: nn.Module, architecture: str) -> None:
        super().__init__()
        self.features = features
        self.architecture = architecture  # by which its layers have their textbook names

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[N, 3, H, W]` to the last feature map."""
        return self.features(x)


def _fit(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> bool:
    """Load `state` into `module`; True if it has the convolutions only. Raises WeightsError if it doesn't fit."""
    match = weights.match(module, state)
    if _only_head_missing(module, match):
        module.load_state_dict(match.mapped, strict=False)
        return True
    weights.fit(module, state, source=str(path))
    return False


def _only_head_missing(module: nn.Module, match: weights.Match) -> bool:
    heads = tuple(f"{place}." for place in _linears(module)) + (("classifier.",) if hasattr(module, "features") else ())
    return bool(
        match.missing
        and match.mapped
        and all(key.startswith(heads) for key in match.missing)
        and not match.mismatched
        and not match.unexpected
    )


def _features_alone(build: Callable[[int], nn.Module], state: dict[str, torch.Tensor]) -> _Features | None:
    """The `features` of an architecture whose classifier the file hasn't, without ever making that: VGG's has 500 MB."""
    with torch.device("meta"):  # shapes without memory
        module = build(IMAGENET_CLASSES)
    features = getattr(module, "features", None)
    match = weights.match(module, state)
    if not isinstance(features, nn.Module) or not _only_head_missing(module, match):
        return None
    own = {key.removeprefix("features."): value for key, value in match.mapped.items() if key.startswith("features.")}
    if {key for key, _ in features.named_buffers()} - own.keys():  # made when it is built, and not in files
        return None
    made = features.to_empty(device="cpu")
    made.load_state_dict(own)
    return _Features(made, type(module).__name__)


def _filled(build: Callable[[int], nn.Module], file: str | Path) -> nn.Module:
    state = weights.read_state_dict(file)
    module = _built(build, state)
    weights.fit(module, state, source=str(file))
    return module


def _built(build: Callable[[int], nn.Module], state: dict[str, torch.Tensor]) -> nn.Module:
    """The architecture with as many classes as `state` was trained for: what only the head's first axis tells."""
    module = build(IMAGENET_CLASSES)
    differing = weights.match(module, state).mismatched
    heads = {has[0] for _, has, needs in differing if needs[:1] == (IMAGENET_CLASSES,) and has[1:] == needs[1:] and has}
    return build(heads.pop()) if len(heads) == 1 else module


def _find_or_fetch(name: str, names: list[str], listen: Listen | None) -> Path:
    """The file of weights, from this machine or else downloaded (not with PHOSPHENE_OFFLINE=1). Raises NetworkError."""
    found = cache.find(names)
    if found is not None:
        return found
    if os.environ.get("PHOSPHENE_OFFLINE", "0") not in ("", "0"):
        tried = "were not fetched, because PHOSPHENE_OFFLINE is set"
    else:
        try:
            return run(fetch.get(name), listen).path
        except fetch.Unreachable as problem:
            tried = f"can't be fetched now: tried {problem.tried}"
    looked = ", ".join(str(place) for place in cache.places())
    raise NetworkError(
        f"the weights of '{name}' are not on this machine (looked for {names[0]} and the like in {looked}) and {tried}; "
        f"fetch them with `phosphene models get {name}` where there is a connection, point --weights or "
        f"PHOSPHENE_WEIGHTS at a file, or use a bundled network: {', '.join(bundled.BUNDLED)}"
    )


# -- timm -------------------------------------------------------------------------------------------------------


def _timm(name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any, listen: Listen | None) -> Network:
    import timm
    from timm.data import resolve_model_data_config  # type: ignore[attr-defined]

    short = name.removeprefix("timm:")
    if not timm.is_model(short):
        known = [f"timm:{known}" for known in timm.list_models()]
        raise NetworkError(f"timm has no model '{short}'{did_you_mean(short, known)}")
    path = Path(file) if file is not None else _find_or_fetch(name, file_names(name), listen)
    module = _filled(lambda n: timm.create_model(short, num_classes=n), path)
    config = resolve_model_data_config(module)
    crop = tuple(config["input_size"][1:])
    way = Preprocess(crop, round(min(crop) / config["crop_pct"]), config["interpolation"])
    return _wrap(module, name, labels, size, mean or config["mean"], std or config["std"], way)


# -- small networks of papers -----------------------------------------------------------------------------------


def _small(name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any) -> Network:
    own = saved.own_file(file) if file is not None else None
    if own is not None:
        return _of_the_same(_saved(own, name, None, labels, size, mean, std), name, own)
    path = Path(file) if file is not None else cache.find(file_names(name.partition(":")[0]))
    if path is None:
        raise untrained(name)
    module, which = with_weights(name, path, size)
    plain = which.normalisation
    network = _wrap(module, name, labels, None, mean or plain[0], std or plain[1], which.preprocess)
    network.architecture = saved.Architecture(str(which), len(network.labels))
    return network


def _of_the_same(network: Network, name: str, file: Path) -> Network:
    """The same. Raises WeightsError if the file, which says what it holds, holds another network than `name`."""
    net = network.architecture.net if network.architecture is not None else ""
    if name not in (net, net.partition(":")[0]):
        raise WeightsError(f"'{file}' holds a {net}, not a {name}")
    return network


# -- the user's own ---------------------------------------------------------------------------------------------


def _from_file(spec: str) -> Any:
    """The module that `FUNCTION` of `FILE.py` returns. It is the user's own code, named by the user, and is run."""
    file, _, function = spec.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise NetworkError(f"there is no file '{file}' to take the network from (FILE.py:FUNCTION)")
    module_spec = importlib.util.spec_from_file_location(f"phosphene_user_{path.stem}", path)
    assert module_spec is not None and module_spec.loader is not None
    python = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = python  # dataclasses and pickle look a class's module up by name
    try:
        module_spec.loader.exec_module(python)
        made = getattr(python, function)()
    except AttributeError as problem:
        raise NetworkError(f"'{file}' has no function '{function}', or it failed: {problem}") from problem
    except PhospheneError:
        raise
    except Exception as problem:
        raise NetworkError(f"'{spec}' failed: {type(problem).__name__}: {' '.join(str(problem).split())}") from problem
    if not isinstance(made, nn.Module):
        raise NetworkError(f"'{spec}' returned a {type(made).__name__}; a torch.nn.Module or a Network is needed")
    return made


def _own(module: nn.Module, name: str, file: Any, labels: Any, size: Any, mean: Any, std: Any) -> Network:
    if isinstance(module, Network):
        if any(option is not None for option in (file, labels, size, mean, std)):
            raise NetworkError(f"'{name}' is a Network already: it takes no weights, labels, size, mean or std")
        return module
    if file is not None:
        weights.fit(module, weights.read_state_dict(file), source=str(file))
    channels = _input_channels(module)
    gray = ((0.5,), (0.5,))
    default = gray if channels == 1 else (IMAGENET_MEAN, IMAGENET_STD)
    return _wrap(module, name, labels, size, mean or default[0], std or default[1], Preprocess())


def _input_channels(module: nn.Module) -> int:
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 1 if first is not None and first.in_channels == 1 else 3


def _sized(way: Preprocess, size: int | tuple[int, int] | None) -> Preprocess:
    if size is None:
        return way
    pair = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return Preprocess(pair, round(min(pair) * way.resize / min(way.size)), way.interpolation)


def sized(network: Network, size: int | tuple[int, int]) -> Network:
    """The same network, which is shown pictures of another size."""
    other = Network(
        network.module,
        name=network.name,
        labels=network.labels if network.classifies else None,
        preprocess=_sized(network.preprocess, size),
        mean=network.mean.flatten().tolist(),
        std=network.std.flatten().tolist(),
        why_features=network.why_features,
    )
    other.architecture = network.architecture
    return other


def _wrap(
    module: nn.Module,
    name: str,
    labels: Labels | Sequence[str] | None,
    size: int | tuple[int, int] | None,
    mean: Sequence[float],
    std: Sequence[float],
    way: Preprocess,
) -> Network:
    network = Network(module, name=name, labels=None, preprocess=_sized(way, size), mean=mean, std=std)
    with torch.no_grad():
        shape = _output_shape(network)
    if len(shape) != 2:
        network.why_features = f"{name} gives a tensor of shape {list(shape)}, not one score per class"
        return network
    if labels is None:
        labels = Labels.imagenet() if shape[1] == IMAGENET_CLASSES else Labels.generic(shape[1])
    known = labels if isinstance(labels, Labels) else Labels(list(labels))
    if len(known) != shape[1]:
        raise NetworkError(f"{name} has {shape[1]} classes, but {len(known)} labels were given")
    network._labels = known
    return network


def _output_shape(network: Network) -> tuple[int, ...]:
    from phosphene.models.prepare import borrowed

    example = network._example()
    try:
        with borrowed(network.module) as module:
            output = first_tensor(module(example))
    except Exception as problem:
        size = "x".join(map(str, network.input_size))
        raise NetworkError(
            f"{network.name} can't run on an input [1, {network.channels}, {size}]: {' '.join(str(problem).split())[:160]}"
            " (give input_size, mean and std that fit it)"
        ) from problem
    if output is None:
        raise NetworkError(f"{network.name} returned no tensor")
    return tuple(output.shape)
