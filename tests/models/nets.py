"""Small networks with the habits that make reading networks hard, and a slow, obvious way of reading them."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict, namedtuple
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.models import Labels, Network, Preprocess
from phosphene.models.prepare import first_tensor

Pair = namedtuple("Pair", "main side")
SIZE = 20


class Named(OrderedDict[str, Tensor]):
    """A dict that is also read by attribute, as some libraries return."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Head(nn.Module):
    def __init__(self, channels: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean((2, 3)))


class Reused(nn.Module):
    """One ReLU used three times, at three resolutions and widths."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.BatchNorm2d(12)
        self.conv3 = nn.Conv2d(12, 8, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.head(self.relu(self.conv3(x)))


class TwoNames(nn.Module):
    """A convolution that is registered under two names and runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.first
        self.bn = nn.BatchNorm2d(8)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(x)).relu()
        return self.head(self.bn(self.again(x)))


class InPlace(nn.Module):
    """Overwrites what each of its layers has just given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(8)
        self.keep = nn.Dropout(0.3)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        y = self.conv2(x)
        y += x
        y = F.relu_(y)
        z = self.bn3(self.conv3(y))
        z.add_(y).clamp_(max=2.0)
        z = self.keep(z)
        z[:, :2] = 0
        return self.head(F.relu(z, inplace=True))


class Choosy(nn.Module):
    """Takes one of two ways, in another order each, as the picture is bright or dark."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 8, 3, padding=1)
        self.two = nn.Conv2d(3, 8, 5, padding=2)
        self.head = Head()

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 0:
            first, second = self.one(x).relu(), self.two(x)
        else:
            second, first = self.two(x).tanh(), self.one(x)
        return self.head(first - second)


class Gives(nn.Module):
    """A convolution that wraps its output."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        forms: dict[str, Any] = {
            "tuple": (None, y, x), "list": [y, x], "dict": {"a": "text", "b": y, "c": x}, "pair": Pair(y, x),
            "named": Named(main=y, side=x), "nested": ({"y": [y]}, x),
        }  # fmt: skip
        return forms[self.form]


class Wrapped(nn.Module):
    """Passes tuples, lists, dicts and named tuples from module to module, and ends with a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.parts = nn.ModuleDict({f: Gives(f) for f in ("tuple", "list", "dict", "pair", "named", "nested")})
        self.head = Head()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        x = self.parts["tuple"](x)[1]
        left, right = self.parts["list"](x)
        x = (left + right).relu()
        x = self.parts["dict"](x)["b"]
        x = self.parts["pair"](x).main - x
        named = self.parts["named"](x)
        x = named.main + named.side
        x = self.parts["nested"](x)[0]["y"][0]
        return {"logits": self.head(x)}


class Swallows(nn.Module):
    """Goes on without a part of it that fails, as some models do."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.part = nn.Conv2d(8, 8, 3)
        self.head = Head()
        self.failed = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        try:
            x = self.part(x)
        except Exception:
            self.failed += 1
        return self.head(x)


class Plain(nn.Module):
    """Convolution, batch norm, ReLU, dropout; counts the passes that reach its end."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, groups=2, dilation=2), nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.head = Head(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        if x.shape[-1] == 31:
            raise ArithmeticError("this network does not like 33 pixels")
        return self.head(self.drop(self.bn2(self.conv2(x)).relu_()))


class Locked(Plain):
    """Can't be deep-copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.act(x))


NETS: list[type[nn.Module]] = [Reused, TwoNames, InPlace, Choosy, Wrapped, Swallows, Plain, Locked]


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Batch norms as after training: statistics and weights that are not those of a new module."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, (nn.BatchNorm2d, nn.BatchNorm1d)) and child.running_mean is not None:
                assert child.running_var is not None
                child.running_mean.copy_(torch.randn(child.num_features, generator=generator) * 0.2)
                child.running_var.copy_(torch.rand(child.num_features, generator=generator) + 0.5)
                if child.affine:
                    child.weight.copy_(torch.rand(child.num_features, generator=generator) + 0.5)
                    child.bias.copy_(torch.randn(child.num_features, generator=generator) * 0.2)
    return module


def network(module: nn.Module, classes: int = 5, size: int = SIZE) -> Network:
    return Network(
        randomise(module), name="net", labels=Labels.generic(classes), preprocess=Preprocess((size, size), size)
    )


def twin(module: nn.Module) -> nn.Module:
    """A copy in eval mode."""
    if not isinstance(module, Locked):
        return copy.deepcopy(module).eval()
    other = Locked()
    other.load_state_dict(module.state_dict(), assign=True)
    return other.eval()


def reference(net: Network, images: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """`({"name#k": output, ...}, logits)` of every call of every module, by hooks that clone, on a copy."""
    module = twin(net.module)
    seen: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def keep(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        assert tensor is not None
        counts[name] = counts.get(name, 0) + 1
        seen[f"{name}#{counts[name]}"] = tensor.detach().clone()

    for name, child in module.named_modules():
        if name:
            child.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out))
    with torch.no_grad():
        logits = first_tensor(module(net.normalise(images)))
    assert logits is not None
    return seen, logits


def state(module: nn.Module) -> dict[str, Any]:
    """All that reading must leave as it was: hooks, modes, gradients and their flags, values."""
    found: dict[str, Any] = {}
    for name, child in module.named_modules():
        hooks = {k: list(v) for k, v in vars(child).items() if k.endswith(("hooks", "hooks_with_kwargs"))}
        found[f"{name} module"] = (id(child), child.training, getattr(child, "inplace", None), hooks)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        grad = None if tensor.grad is None else (id(tensor.grad), tensor.grad.tolist())
        found[f"{name} tensor"] = (id(tensor), tensor.requires_grad, grad, tensor.detach().flatten().tolist())
    return found


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether the largest difference is below `tolerance` of the largest value."""
    assert ours.shape == theirs.shape, f"{list(ours.shape)} against {list(theirs.shape)}"
    assert torch.isfinite(theirs).all()
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp(min=1e-6))
