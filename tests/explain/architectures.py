"""The CNNs of torchvision and timm that every method is tried on, and each method the slow way, in float64.

`tests/explain/test_architectures.py` asserts what is found here, `tools/make_support_table.py` writes it down. The slow
ways share nothing with the fast ones: they run an unfolded copy of the module, perturb image by image, and change the
backward pass by hooks on the nodes of the autograd graph, where nothing hides behind functions or modules that run twice.
"""

from __future__ import annotations

import copy
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import LayerError, RuleError
from phosphene.explain import METHODS
from phosphene.models import Labels, Network, Preprocess

LIMIT = 1e-3
"""How far a method may be from its reference: the largest difference, as a part of the largest value."""

COLUMNS = {
    "gradients": ("gradient", "saliency", "gradient-x-input", "smoothgrad", "integrated-gradients"),
    "CAMs": ("grad-cam", "grad-cam++", "layer-cam"),
    "Score-CAM": ("score-cam",),
    "perturbations": ("occlusion", "rise"),
    "guided": ("guided-backprop", "deconvnet", "guided-grad-cam"),
    "LRP": ("lrp",),
}
"""The columns of docs/support.md, and the methods that share one."""
SAMPLES, STEPS, MASKS = 2, 3, 4  # few are enough to see that they are right


class Architecture(NamedTuple):
    """A network by its library and name there. `size`: of the images. `slow`: too slow to be tried each time."""

    name: str
    size: int = 48
    slow: bool = False


ARCHITECTURES = (
    Architecture("torchvision alexnet", 64, slow=True),
    Architecture("torchvision vgg11", slow=True),
    Architecture("torchvision vgg11_bn", slow=True),
    Architecture("torchvision resnet18"),
    Architecture("torchvision resnet50", slow=True),
    Architecture("torchvision resnext50_32x4d", slow=True),
    Architecture("torchvision wide_resnet50_2", slow=True),
    Architecture("torchvision densenet121"),
    Architecture("torchvision googlenet"),
    Architecture("torchvision inception_v3", 80, slow=True),
    Architecture("torchvision mobilenet_v2"),
    Architecture("torchvision mobilenet_v3_small"),
    Architecture("torchvision mobilenet_v3_large"),
    Architecture("torchvision mnasnet0_5"),
    Architecture("torchvision shufflenet_v2_x0_5"),
    Architecture("torchvision squeezenet1_0"),
    Architecture("torchvision squeezenet1_1"),
    Architecture("torchvision efficientnet_b0", slow=True),
    Architecture("torchvision efficientnet_v2_s", slow=True),
    Architecture("torchvision convnext_tiny", slow=True),
    Architecture("torchvision regnet_x_400mf"),
    Architecture("torchvision regnet_y_400mf"),
    Architecture("timm tf_efficientnet_lite0"),
    Architecture("timm efficientnet_b0", slow=True),
    Architecture("timm tinynet_e"),
    Architecture("timm mixnet_s"),
    Architecture("timm mnasnet_100", slow=True),
    Architecture("timm semnasnet_075"),
    Architecture("timm fbnetc_100", slow=True),
    Architecture("timm mobilenetv1_100"),
    Architecture("timm mobilenetv2_050"),
    Architecture("timm mobilenetv3_small_050"),
    Architecture("timm mobilenetv4_conv_small"),
    Architecture("timm lcnet_050"),
    Architecture("timm hardcorenas_a"),
    Architecture("timm ghostnet_050"),
    Architecture("timm repghostnet_050"),
    Architecture("timm rexnet_100", slow=True),
    Architecture("timm resnet10t"),
    Architecture("timm resnet18d"),
    Architecture("timm resnetblur18", slow=True),
    Architecture("timm seresnet18"),
    Architecture("timm skresnet18", slow=True),
    Architecture("timm ecaresnet26t"),
    Architecture("timm resnest14d"),
    Architecture("timm lambda_resnet26t"),
    Architecture("timm resnetv2_50", slow=True),
    Architecture("timm resnetv2_50x1_bit", slow=True),
    Architecture("timm nf_resnet26", slow=True),
    Architecture("timm nfnet_l0", slow=True),
    Architecture("timm res2net50_14w_8s", slow=True),
    Architecture("timm dpn48b"),
    Architecture("timm dpn68"),
    Architecture("timm dla34", 64, slow=True),
    Architecture("timm hrnet_w18_small", 64),
    Architecture("timm selecsls42b", slow=True),
    Architecture("timm vovnet39a", slow=True),
    Architecture("timm ese_vovnet19b_dw"),
    Architecture("timm darknet17", slow=True),
    Architecture("timm darknet53", slow=True),
    Architecture("timm cspresnet50", slow=True),
    Architecture("timm cs3darknet_s"),
    Architecture("timm hgnetv2_b0"),
    Architecture("timm regnetx_002"),
    Architecture("timm regnety_002"),
    Architecture("timm gernet_s"),
    Architecture("timm repvgg_a0"),
    Architecture("timm mobileone_s0", slow=True),
    Architecture("timm tresnet_m", slow=True),
    Architecture("timm legacy_xception", slow=True),
    Architecture("timm xception41", slow=True),
    Architecture("timm inception_v4", 80, slow=True),
    Architecture("timm inception_resnet_v2", 80, slow=True),
    Architecture("timm convnext_atto"),
    Architecture("timm fasternet_t0"),
    Architecture("timm starnet_s1"),
)


def network(architecture: Architecture) -> Network:
    """With random weights, 10 classes, and batch norms that differ from the identity, as after training."""
    torch.manual_seed(zlib.crc32(architecture.name.encode()))
    library, _, short = architecture.name.partition(" ")
    if library == "timm":
        module = timm.create_model(short, pretrained=False, num_classes=10)
    else:
        heads = {"aux_logits": False, "init_weights": False} if short in ("googlenet", "inception_v3") else {}
        module = torchvision.models.get_model(short, weights=None, num_classes=10, **heads)
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = None
        norm.reset_running_stats()
    size = architecture.size
    net = Network(module, name=architecture.name, labels=Labels.generic(10), preprocess=Preprocess((size, size), size))
    images = pictures(8, size)
    images[4:] *= (pictures(4, size) > 0.5).float()  # as perturbing methods show them
    with torch.no_grad():  # statistics that fit the weights, so that signals neither die nor explode
        module.train()
        net(images)
        module.eval()
        spread = net(images).std()
        head = [child for child in module.modules() if isinstance(child, (nn.Linear, nn.Conv2d))][-1]
        for parameter in head.parameters():  # and scores at which a softmax isn't all or nothing
            parameter /= spread
    return net.double()


def pictures(count: int, size: int) -> Tensor:
    """`[count, 3, size, size]`: patches of colour with some noise."""
    patches = F.interpolate(torch.rand(count, 3, 5, 5), [size, size], mode="bilinear")
    return 0.8 * patches + 0.2 * torch.rand(count, 3, size, size)


@dataclass(frozen=True)
class Finding:
    """What a method does on a network: it is off by `error`, or it raises its error, `refused` for this operation."""

    method: str
    error: float = math.inf
    refused: str = ""

    @property
    def fine(self) -> bool:
        """Whether that is one of the two things it may do."""
        return bool(self.refused) or self.error <= LIMIT

    @property
    def mark(self) -> str:
        """For a table: the next power of ten above the error, or what there is no rule for."""
        if self.refused:
            return f"no rule: {SHORT.get(self.refused, self.refused)}"
        return f"✓ 1e{math.ceil(math.log10(max(self.error, 1e-16)))}" if self.fine else "wrong"


SHORT = {
    "Mul of two things made from the image": "gate",
    "Bmm of two things made from the image": "attention",
    "Bmm": "attention",
    "Silu": "SiLU",
    "Gelu": "GELU",
    "LeakyRelu": "leaky ReLU",
    "NativeLayerNorm": "LayerNorm",
    "NativeGroupNorm": "GroupNorm",
}


def cells(found: list[Finding]) -> list[str]:
    """A network's row of docs/support.md: for each of `COLUMNS` what its worst method does."""
    by_name = {finding.method: finding for finding in found}
    groups = [[by_name[method] for method in methods] for methods in COLUMNS.values()]
    return [max(group, key=lambda one: (not one.fine, one.error)).mark for group in groups]


def findings(architecture: Architecture) -> list[Finding]:
    """Each method on a network, held against its reference."""
    net = network(architecture)
    slow = Slow(net, pictures(1, architecture.size).double())
    return [_finding(name, net, slow) for name in METHODS]


def _finding(name: str, net: Network, slow: Slow) -> Finding:
    options: dict[str, Any] = {
        "smoothgrad": {"samples": SAMPLES},
        "integrated-gradients": {"steps": STEPS},
        "score-cam": {"layer": slow.narrowest},
        "occlusion": {"window": slow.half, "stride": slow.half},
        "rise": {"masks": MASKS},
    }
    try:
        ours = METHODS[name](net, slow.image, slow.target, **options.get(name, {}))
    except RuleError as problem:
        said = re.match(r".+ has no rule for (.+) \(module '.+' of ", str(problem))
        return Finding(name, refused=said[1] if said else "")
    except LayerError as problem:
        return Finding(name, refused="no map" if "spatial map" in str(problem) else "")
    wanted = REFERENCES[name](slow)
    if float(wanted["maps"].abs().max()) == 0:
        return Finding(name)  # nothing is shown by a map of zeros
    return Finding(name, max(_distance(getattr(ours, part), values) for part, values in wanted.items()))


def _distance(ours: Tensor, theirs: Tensor) -> float:
    if ours.shape != theirs.shape or not bool(torch.isfinite(ours).all()):
        return math.inf
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300))


# -- the slow way: what all of it needs ----------------------------------------------------------------------------


class Slow:
    """An unfolded float64 copy of a network's module, and one image `[1, 3, H, W]` of the class it is taken for."""

    def __init__(self, net: Network, image: Tensor) -> None:
        self.module = copy.deepcopy(net.module).double().eval()
        for child in self.module.modules():
            if getattr(child, "inplace", False):
                child.inplace = False  # type: ignore[assignment]
            if isinstance(child, nn.BatchNorm2d):
                child.register_forward_hook(_hand_down_in_order)
        self.mean, self.std = net.mean, net.std
        self.image = image
        self.half = -(-image.shape[-1] // 2)
        self.target = 0
        self._watch()

    def _watch(self) -> None:
        """Run once and see which layers give maps, in order of completion."""
        maps: list[tuple[str, int]] = []

        def see(name: str, output: Any) -> None:
            tensor = _first(output)
            if tensor is not None and tensor.ndim == 4 and min(tensor.shape[2:]) > 1:
                maps.append((name, tensor.shape[1]))

        handles = [
            child.register_forward_hook(lambda _m, _i, out, name=name: see(name, out))
            for name, child in self.module.named_modules()
            if name
        ]
        with torch.no_grad():
            self.target = int(self.logits(self.image).argmax())
        for handle in handles:
            handle.remove()
        names = [name for name, _ in maps]
        self.last = names[-1]
        self.narrowest = min(
            (channels, -place, name)
            for place, (name, channels) in enumerate(maps)
            if channels >= 8 and names.count(name) == 1
        )[2]

    def logits(self, images: Tensor) -> Tensor:
        """`[N, classes]` of images in [0, 1]."""
        logits = _first(self.module((images - self.mean) / self.std))
        assert logits is not None
        return logits

    def score(self, images: Tensor) -> Tensor:
        """`[N]`: the class's score."""
        return self.logits(images)[:, self.target]

    def values(self, images: Tensor) -> Tensor:
        """`score` without a graph."""
        with torch.no_grad():
            return self.score(images)

    def probability(self, images: Tensor) -> Tensor:
        """`[N]`: the class's probability."""
        with torch.no_grad():
            return self.logits(images).softmax(1)[:, self.target]

    @cached_property
    def scores(self) -> Tensor:
        """`[1]`: the score of the image itself."""
        return self.values(self.image)

    @cached_property
    def plain(self) -> Tensor:
        """`[1, 3, H, W]`: the gradient at the image itself."""
        return self.gradient(self.image)

    @cached_property
    def evidence(self) -> tuple[Tensor, Tensor]:
        """`A [1, C, h, w]` of the last layer with a map, and `dS/dA`."""
        activation, score = self.activation(self.last)
        return activation.detach(), torch.autograd.grad(score, activation)[0]

    def gradient(self, image: Tensor) -> Tensor:
        """`[1, 3, H, W]`, by nothing but autograd."""
        leaf = image.clone().requires_grad_()
        return torch.autograd.grad(self.score(leaf).sum(), leaf)[0]

    def activation(self, layer: str) -> tuple[Tensor, Tensor]:
        """`(A [1, C, h, w], score)`, connected by a graph: the output of the layer's last call."""
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _given: Any, output: Any) -> Any:
            tensor = _first(output)
            assert tensor is not None
            seen.append(tensor)
            twin = tensor.clone()  # what follows may work in place
            return twin if output is tensor else type(output)([twin, *list(output)[1:]])

        handle = self.module.get_submodule(layer).register_forward_hook(keep)
        score = self.score(self.image.clone().requires_grad_())
        handle.remove()
        return seen[-1], score.sum()


def _first(output: Any) -> Tensor | None:
    while isinstance(output, (tuple, list)):
        output = output[0]
    return output if isinstance(output, Tensor) else None


def _hand_down_in_order(_norm: nn.Module, _given: Any, output: Tensor) -> None:
    """For one image, torch 2.14's batch norm returns a wrong gradient if it is given one that is laid out as a transpose."""
    if output.requires_grad:
        output.register_hook(Tensor.contiguous)


def _large(maps: Tensor, slow: Slow, align_corners: bool = False) -> Tensor:
    """`[N, h, w]` to `[N, H, W]`."""
    size = slow.image.shape[-2:]
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=align_corners)[:, 0]


# -- gradients -----------------------------------------------------------------------------------------------------


def _shown(gradient: Tensor, slow: Slow) -> dict[str, Tensor]:
    return {"gradient": gradient, "maps": gradient.sum(1), "scores": slow.scores}


def gradient(slow: Slow) -> dict[str, Tensor]:
    return _shown(slow.plain, slow)


def saliency(slow: Slow) -> dict[str, Tensor]:
    return {"maps": slow.plain.abs().max(1).values}


def gradient_x_input(slow: Slow) -> dict[str, Tensor]:
    return _shown(slow.image * slow.plain, slow)


def smoothgrad(slow: Slow) -> dict[str, Tensor]:
    total = torch.zeros_like(slow.image)
    for sample in range(SAMPLES):
        noise = torch.randn(slow.image.shape[1:], generator=torch.Generator().manual_seed(sample)).double()
        total += slow.gradient(slow.image + 0.15 * (slow.image.max() - slow.image.min()) * noise)
    return _shown(total / SAMPLES, slow)


def integrated_gradients(slow: Slow) -> dict[str, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    total = torch.zeros_like(slow.image)
    for node, weight in zip(nodes, weights):
        total += slow.gradient(slow.image * (node + 1) / 2) * weight / 2
    return _shown(slow.image * total, slow)


# -- backward rules ------------------------------------------------------------------------------------------------

Hook: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""`(gradient that a node would hand to its input, gradient that it was given)` to what it shall hand down."""


def graph(score: Tensor, leaf: Tensor) -> list[Any]:
    """The nodes of the autograd graph that depend on the leaf, those that ran first in front."""
    depends: dict[Any, bool] = {}
    stack: list[Any] = [score.grad_fn]
    while stack:
        node = stack[-1]
        above = [parent for parent, _ in node.next_functions if parent is not None]
        waiting = [parent for parent in above if parent not in depends]
        if not waiting:
            depends[node] = getattr(node, "variable", None) is leaf or any(depends[parent] for parent in above)
            stack.pop()
        stack.extend(waiting)
    return sorted((node for node, does in depends.items() if does), key=lambda node: node._sequence_nr())


def _kind(node: Any) -> str:
    return re.sub(r"Backward\d*$", "", node.name())


def _obey(node: Any, hook: Hook, place: int = 0) -> None:
    """From now on the node hands down to one of its inputs what the hook says."""

    def change(to_inputs: tuple[Tensor, ...], from_outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return *to_inputs[:place], hook(to_inputs[place], from_outputs[0]), *to_inputs[place + 1 :]

    node.register_hook(change)


def _rectified(slow: Slow, hook: Hook) -> Tensor:
    """The gradient with another rule for ReLUs and ReLU6."""
    leaf = slow.image.clone().requires_grad_()
    score = slow.score(leaf)
    for node in graph(score, leaf):
        kind = _kind(node)
        if kind in ("Relu", "ClampMin") or (kind == "Hardtanh" and node._saved_min_val == 0):
            _obey(node, hook)
    return torch.autograd.grad(score.sum(), leaf)[0]


def guided_backprop(slow: Slow) -> dict[str, Tensor]:
    return _shown(_rectified(slow, lambda active, _: active.clamp(min=0)), slow)


def deconvnet(slow: Slow) -> dict[str, Tensor]:
    return _shown(_rectified(slow, lambda _, given: given.clamp(min=0)), slow)


# -- class activation maps -----------------------------------------------------------------------------------------


def _cam(slow: Slow, formula: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    cam = formula(*slow.evidence).clamp(min=0)
    return {"maps": _large(cam, slow), "layer_maps": cam, "scores": slow.scores}


def _by_mean(activation: Tensor, gradient: Tensor) -> Tensor:
    return (activation * gradient.mean((2, 3), keepdim=True)).sum(1)


def _by_each(activation: Tensor, gradient: Tensor) -> Tensor:
    return (activation * gradient.clamp(min=0)).sum(1)


def _by_powers(activation: Tensor, gradient: Tensor) -> Tensor:
    total = activation.sum((2, 3), keepdim=True)
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
    return (activation * (alpha * gradient.clamp(min=0)).sum((2, 3), keepdim=True)).sum(1)


def score_cam(slow: Slow) -> dict[str, Tensor]:
    activation = slow.activation(slow.narrowest)[0].detach()
    seen = []
    for channel in activation[0]:
        grown = _large(channel[None], slow, align_corners=True)
        spread = grown.max() - grown.min()
        seen.append(slow.image * ((grown - grown.min()) / spread if spread > 0 else 0 * grown))
    weights = torch.cat([slow.values(part) for part in torch.cat(seen).split(16)]).softmax(0)
    cam = (weights[None, :, None, None] * activation).sum(1).clamp(min=0)
    return {"maps": _large(cam, slow), "layer_maps": cam, "scores": slow.scores}


def guided_grad_cam(slow: Slow) -> dict[str, Tensor]:
    return _shown(_cam(slow, _by_mean)["maps"][:, None] * guided_backprop(slow)["gradient"], slow)


# -- perturbations -------------------------------------------------------------------------------------------------


def occlusion(slow: Slow) -> dict[str, Tensor]:
    size, half = slow.image.shape[-1], slow.half
    maps = torch.zeros_like(slow.image[:, 0])
    for top in range(0, size, half):
        for left in range(0, size, half):
            covered = slow.image.clone()
            covered[:, :, top : top + half, left : left + half] = slow.image.mean((2, 3), keepdim=True)
            maps[:, top : top + half, left : left + half] = slow.scores - slow.values(covered)
    return {"maps": maps, "scores": slow.scores}


def rise(slow: Slow) -> dict[str, Tensor]:
    size = slow.image.shape[-1]
    cell = math.ceil(size / 7)
    maps = torch.zeros_like(slow.image[:, 0])
    for number in range(MASKS):
        random = torch.Generator().manual_seed(number)
        grid = (torch.rand(1, 1, 7, 7, generator=random) < 0.5).float()
        grown = F.interpolate(grid, [8 * cell, 8 * cell], mode="bilinear", align_corners=False)[0, 0]
        top, left = (int(torch.randint(cell, (), generator=random)) for _ in range(2))
        mask = grown[top : top + size, left : left + size].double()
        maps += slow.probability(slow.image * mask) * mask / (MASKS * 0.5)
    return {"maps": maps, "scores": slow.probability(slow.image)}


# -- relevance -----------------------------------------------------------------------------------------------------

EPSILON, GAMMA = 1e-6, 0.25
BENT: dict[str, Callable[[Tensor], Tensor]] = {
    "Hardtanh": F.relu6,
    "Silu": F.silu,
    "Hardswish": F.hardswish,
    "Gelu": F.gelu,
}
"""Activations f with another share f(z) / z than their derivative, which is what a piecewise linear one hands down."""


@dataclass(frozen=True)
class Weighted:
    """A layer `run(x, weight) + bias`, as a node of the graph has kept it; the bias has the form of the output."""

    run: Callable[[Tensor, Tensor], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor


def _parameter(node: Any, place: int) -> Tensor | None:
    """The parameter that a node was given."""
    parent = node.next_functions[place][0]
    return None if parent is None else parent.variable.detach()


def _convolution(node: Any, norm: Any) -> Weighted:
    """A convolution, with the batch norm that follows it folded in."""
    weight, bias = node._saved_weight.detach(), _parameter(node, 2)
    bias = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias
    if norm is not None:
        scale, shift = _affine(norm)
        weight, bias = weight * scale[:, None, None, None], bias * scale + shift
    stride, padding, dilation = node._saved_stride, node._saved_padding, node._saved_dilation
    run = lambda x, w: F.conv2d(x, w, None, stride, padding, dilation, node._saved_groups)  # noqa: E731
    return Weighted(run, node._saved_input.detach(), weight, bias[:, None, None])


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    """Scale and shift of a batch norm."""
    scale = (norm._saved_running_var + norm._saved_eps).rsqrt()
    scale = scale if norm._saved_weight is None else scale * norm._saved_weight.detach()
    bias = _parameter(norm, 2)
    return scale, (0 if bias is None else bias) - norm._saved_running_mean * scale


def _linear(node: Any) -> Weighted:
    bias = _parameter(node, 0)
    x, weight = node._saved_mat1.detach(), node._saved_mat2.detach()
    assert bias is not None
    return Weighted(torch.mm, x, weight, bias)


def _norm(node: Any) -> Weighted:
    x = node._saved_input.detach()
    form = (1, -1, *[1] * (x.ndim - 2))
    scale, shift = _affine(node)
    return Weighted(lambda x, w: x * w, x, scale.view(form), shift.view(form))


Rule: TypeAlias = Callable[[Weighted, Tensor], Tensor]
"""From a layer and c of its outputs (by which relevance is c z) to the relevance of its inputs."""


def _share(z: Tensor, x: tuple[Tensor, ...], relevance: Tensor) -> Tensor:
    """What `relevance` of the outputs z(x) is the inputs': `sum_j (x_i dz_j/dx_i) R_j / z_j`."""
    s = relevance / torch.where(z < 0, z - EPSILON, z + EPSILON).detach()
    gradients = torch.autograd.grad(z, x, s)
    return sum((value * gradient).detach() for value, gradient in zip(x, gradients))  # type: ignore[return-value]


def _epsilon(layer: Weighted, c: Tensor) -> Tensor:
    x = layer.x.requires_grad_()
    z = layer.run(x, layer.weight) + layer.bias
    return _share(z, (x,), c * z.detach())


def _gamma(layer: Weighted, c: Tensor) -> Tensor:
    """Each contribution `x_i w_ij` or `b_j` with the sign of the output counts 1 + gamma times."""
    x, w, b = layer.x.requires_grad_(), layer.weight, layer.bias
    plus = layer.run(x.clamp(min=0), w.clamp(min=0)) + layer.run(x.clamp(max=0), w.clamp(max=0)) + b.clamp(min=0)
    minus = layer.run(x.clamp(min=0), w.clamp(max=0)) + layer.run(x.clamp(max=0), w.clamp(min=0)) + b.clamp(max=0)
    z = plus + minus
    return _share(z + GAMMA * torch.where(z > 0, plus, minus), (x,), (c * z).detach())


def _box(layer: Weighted, c: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """For pixels between black and white."""
    x = layer.x.requires_grad_()
    low, high = (bound.clone().requires_grad_() for bound in (torch.minimum(low, high), torch.maximum(low, high)))
    own = layer.run(x, layer.weight)
    z = own - layer.run(low, layer.weight.clamp(min=0)) - layer.run(high, layer.weight.clamp(max=0))
    return _share(z, (x, low, high), c * (own + layer.bias).detach())


def _per_unit(relevance: Tensor, x: Tensor) -> Tensor:
    """`c = R / x`, which sums and poolings hand down as they do a gradient."""
    return torch.where(x == 0, 0, relevance / x)


def lrp(slow: Slow) -> dict[str, Tensor]:
    """The composite of box, gamma and epsilon."""
    low, high = (_first_layer(slow, torch.full_like(slow.image, level)).x for level in (0.0, 1.0))
    leaf = slow.image.clone().requires_grad_()
    score = slow.score(leaf)
    nodes = graph(score, leaf)
    folded = {node.next_functions[0][0]: node for node in nodes if _kind(node) == "NativeBatchNorm"}
    folded = {node: norm for node, norm in folded.items() if _kind(node) == "Convolution"}
    convolution: Rule = partial(_box, low=low, high=high)
    for node in nodes:
        kind = _kind(node)
        if kind == "Convolution":
            _hand_down(node, _convolution(node, folded.get(node)), convolution)
            convolution = _gamma
        elif kind == "Addmm":
            _hand_down(node, _linear(node), _epsilon, place=1)
        elif kind == "NativeBatchNorm" and node.next_functions[0][0] in folded:
            _obey(node, lambda _, c: c)
        elif kind == "NativeBatchNorm":
            _hand_down(node, _norm(node), _epsilon)
        elif kind in BENT:
            z = node._saved_self.detach()
            _obey(node, lambda _, c, z=z, f=BENT[kind]: c * _per_unit(f(z), z))
    c = torch.autograd.grad(score.sum(), leaf)[0]
    return _shown(c * (slow.image - slow.mean), slow)


def _first_layer(slow: Slow, image: Tensor) -> Weighted:
    leaf = image.clone().requires_grad_()
    return next(_convolution(node, None) for node in graph(slow.score(leaf), leaf) if _kind(node) == "Convolution")


def _hand_down(node: Any, layer: Weighted, rule: Rule, place: int = 0) -> None:
    def hook(_: Tensor, c: Tensor) -> Tensor:
        with torch.enable_grad():
            relevance = rule(layer, c)
        return _per_unit(relevance, layer.x.detach())

    _obey(node, hook, place)


REFERENCES: dict[str, Callable[[Slow], dict[str, Tensor]]] = {
    "gradient": gradient,
    "saliency": saliency,
    "gradient-x-input": gradient_x_input,
    "smoothgrad": smoothgrad,
    "integrated-gradients": integrated_gradients,
    "guided-backprop": guided_backprop,
    "deconvnet": deconvnet,
    "grad-cam": partial(_cam, formula=_by_mean),
    "grad-cam++": partial(_cam, formula=_by_powers),
    "layer-cam": partial(_cam, formula=_by_each),
    "score-cam": score_cam,
    "guided-grad-cam": guided_grad_cam,
    "lrp": lrp,
    "occlusion": occlusion,
    "rise": rise,
}
"""The slow way of each method, to the tensors that its Attribution should have."""
