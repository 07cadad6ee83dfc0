"""The names that textbooks and papers use for layers: conv1, relu4_1, pool5, fc7, fire9."""

from __future__ import annotations

from torch import nn

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Conv2d, "conv"),
    (nn.BatchNorm2d, "bn"),
    (nn.ReLU, "relu"),
    (nn.MaxPool2d, "pool"),
    (nn.AvgPool2d, "pool"),
)


def textbook_names(module: nn.Module) -> dict[str, str]:
    """Textbook name -> name in `named_modules()`; empty for architectures that have no such tradition."""
    features = getattr(module, "features", None)
    architecture = getattr(module, "architecture", type(module).__name__)
    if not isinstance(features, nn.Sequential):
        return {}
    if architecture.startswith("SqueezeNet"):
        return _squeezenet(module, features)
    kinds = {type(child) for child in features.children()}
    if not kinds <= {nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d}:
        return {}
    names = _alexnet(features) if architecture == "AlexNet" else _vgg(features)
    first_fc = 6
    return names | _classifier(module, first_fc)


def _vgg(features: nn.Sequential) -> dict[str, str]:
    """Blocks end with a pooling; conv{block}_{place}, relu{block}_{place}, pool{block}."""
    names: dict[str, str] = {}
    block, place = 1, 0
    for key, child in features.named_children():
        kind = _kind(child)
        if kind == "conv":
            place += 1
        if kind == "pool":
            names[f"pool{block}"] = f"features.{key}"
            block, place = block + 1, 0
        elif kind:
            names[f"{kind}{block}_{place}"] = f"features.{key}"
    return names


def _alexnet(features: nn.Sequential) -> dict[str, str]:
    """conv1 ... conv5, relu1 ... relu5, pool1, pool2, pool5."""
    names: dict[str, str] = {}
    place = 0
    for key, child in features.named_children():
        kind = _kind(child)
        place += kind == "conv"
        if kind:
            names[f"{kind}{place}"] = f"features.{key}"
    return names


def _classifier(module: nn.Module, first: int) -> dict[str, str]:
    """fc6, relu6, fc7, relu7, fc8 of the fully connected end."""
    names: dict[str, str] = {}
    place = first - 1
    classifier = getattr(module, "classifier", None)
    for key, child in classifier.named_children() if isinstance(classifier, nn.Sequential) else ():
        if isinstance(child, nn.Linear):
            place += 1
            names[f"fc{place}"] = f"classifier.{key}"
        elif isinstance(child, nn.ReLU):
            names[f"relu{place}"] = f"classifier.{key}"
    return names


def _squeezenet(module: nn.Module, features: nn.Sequential) -> dict[str, str]:
    """conv1, fire2 ... fire9, conv10, as in Iandola et al. 2016."""
    names = {"conv1": "features.0", "relu1": "features.1"}
    fires = [key for key, child in features.named_children() if type(child).__name__ == "Fire"]
    names |= {f"fire{place}": f"features.{key}" for place, key in enumerate(fires, start=2)}
    return names | ({"conv10": "classifier.1", "relu10": "classifier.2"} if hasattr(module, "classifier") else {})


def _kind(module: nn.Module) -> str:
    return next((name for kind, name in _KINDS if isinstance(module, kind)), "")
