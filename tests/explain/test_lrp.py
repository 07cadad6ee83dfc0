from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import EpsilonRule
from reference import distance
from shares import (
    Activation,
    MaxPool,
    Residual,
    Shares,
    Step,
    Weighted,
    by_box,
    by_epsilon,
    by_gamma,
    forward,
    hand_down,
)
from torch import Tensor, nn
from torch.nn import functional as F
from toys import Act, network, pictures, small
from zennit.attribution import Gradient
from zennit.composites import EpsilonGammaBox, LayerMapComposite, layer_map_base
from zennit.layer import Sum
from zennit.rules import Epsilon, Gamma
from zennit.types import Linear

from phosphene.errors import PhospheneError
from phosphene.explain import lrp
from phosphene.models import Labels, Network, Preprocess, Unit

RULES: list[Any] = ["composite", "epsilon", "gamma"]
every_rule = pytest.mark.parametrize("rule", RULES)
with_and_without = pytest.mark.parametrize("bias", [True, False])


# -- against zennit and captum ----------------------------------------------------------------------------------------


def of_zennit(rule: str, bias: bool, net: Network, images: Tensor, classes: list[int], epsilon: float = 1e-6) -> Tensor:
    """`[N, 3, H, W]`, handed down from the score."""
    no_bias = None if bias else ["bias"]
    low, high = -net.mean / net.std, (1 - net.mean) / net.std
    composite: Any = EpsilonGammaBox(low, high, epsilon, stabilizer=epsilon, zero_params=no_bias)
    if rule != "composite":
        made = Epsilon(epsilon, no_bias) if rule == "epsilon" else Gamma(0.25, epsilon, no_bias)
        composite = LayerMapComposite([*layer_map_base(epsilon), (Linear, made)])  # Linear: convolutions, too
    chosen = F.one_hot(torch.tensor(classes), len(net.labels))
    attributor: Any = Gradient(out_of_place(net.module), composite)
    with warnings.catch_warnings(), attributor:
        warnings.simplefilter("ignore")
        return attributor(net.normalise(images), lambda output: chosen * output)[1].detach()


def out_of_place(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module).eval()
    for child in twin.modules():
        if isinstance(child, nn.ReLU):
            child.inplace = False
    return twin


@every_rule
@with_and_without
def test_on_squeezenet_it_is_zennits(rule: Any, bias: bool, squeezenet64: Network, photos64: Tensor) -> None:
    ours = lrp(squeezenet64, photos64, [281, 967], rule=rule, bias=bias).gradient
    theirs = of_zennit(rule, bias, squeezenet64, photos64, [281, 967])
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], theirs[place]) < 1e-6


class Residue(nn.Module):
    """Two residual sums, as modules so that others see them."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias), nn.ReLU())
        self.one, self.two = (self.branch(bias) for _ in range(2))
        self.sums, self.relus = nn.ModuleList([Sum(), Sum()]), nn.ModuleList([nn.ReLU(), nn.ReLU()])
        self.end = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4, bias=bias))

    @staticmethod
    def branch(bias: bool) -> nn.Module:
        convs = [nn.Conv2d(6, 6, 3, padding=1, bias=bias) for _ in range(2)]
        return nn.Sequential(convs[0], nn.ReLU(), convs[1])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for relu, add, branch in zip(self.relus, self.sums, (self.one, self.two)):
            x = relu(add(torch.stack([x, branch(x)], -1)))
        return self.end(x)


def plain() -> nn.Module:
    convs = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2, groups=2), nn.Conv2d(8, 8, 3, dilation=2)
    head = nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 6), nn.ReLU(), nn.Linear(6, 4)
    return nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2], nn.ReLU(), *head)


@every_rule
@with_and_without
@pytest.mark.parametrize("make", [plain, Residue])
def test_on_small_networks_it_is_zennits(rule: Any, bias: bool, make: Callable[[], nn.Module]) -> None:
    net, images, classes = network(make()), pictures(3), [0, 3, 2]
    ours = lrp(net, images, classes, rule=rule, bias=bias, epsilon=1e-9).gradient
    theirs = of_zennit(rule, bias, net, images, classes, epsilon=1e-9)  # which their sums and averages have, too
    assert ours is not None
    for place in range(3):
        assert distance(ours[place], theirs[place]) < 1e-6


@pytest.mark.parametrize("name", ["squeezenet", "plain"])
@pytest.mark.filterwarnings("ignore:Input Tensor", "ignore:Setting backward hooks", "ignore:Converting a tensor")
def test_epsilon_is_captums(name: str, squeezenet64: Network, photos64: Tensor) -> None:
    net, images = (squeezenet64, photos64) if name == "squeezenet" else (network(plain()), pictures(2))
    classes = [281, 967] if name == "squeezenet" else [1, 3]
    peer: Any = out_of_place(net.module)
    for child in peer.modules():
        if isinstance(child, (nn.Conv2d, nn.Linear, nn.Flatten)):
            child.rule = EpsilonRule(1e-9 if isinstance(child, nn.Flatten) else 1e-6)  # type: ignore[assignment]
    theirs = LRP(peer).attribute(net.normalise(images), target=classes).detach()
    ours = lrp(net, images, classes, rule="epsilon").gradient
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], theirs[place]) < 1e-6


# -- against shares that are worked out by hand -----------------------------------------------------------------------

EPSILON, GAMMA = 0.02, 0.6  # large enough to be seen
SIDE = 6


def rules(rule: str, bias: bool, net: Network, first: Callable[[Tensor], Tensor] = lambda x: x) -> dict[str, Shares]:
    """The shares of each kind of layer. `first`: what is done to the pixels before the first convolution."""
    every, convs = by_epsilon(EPSILON, bias), by_gamma(EPSILON, GAMMA, bias)
    levels = [torch.full((1, 3, SIDE, SIDE), level, dtype=torch.float64) for level in (0.0, 1.0)]
    ends = torch.stack([first(net.normalise(level)).flatten() for level in levels])
    conv = every if rule == "epsilon" else convs
    image = by_box(ends.amin(0), ends.amax(0), EPSILON) if rule == "composite" else conv
    return {"image": image, "conv": conv, "linear": convs if rule == "gamma" else every, "norm": every}


MEAN = by_epsilon(0.0, True)


def check(net: Network, rule: Any, bias: bool, steps: Sequence[Step]) -> None:
    """That the relevances of three images are those that the steps hand down."""
    images, classes = pictures(3, SIDE), [0, 3, 1]
    found = lrp(net, images, classes, rule=rule, epsilon=EPSILON, gamma=GAMMA, bias=bias)
    assert found.gradient is not None and found.error is not None
    for place, chosen in enumerate(classes):
        x = net.normalise(images[[place]])[0]
        with torch.no_grad():
            score = forward(steps, x)
            start = torch.zeros_like(score)
            start[chosen] = score[chosen]
            wanted = hand_down(steps, x, start)
        assert abs(float(found.scores[place] - score[chosen])) < 1e-9
        assert distance(found.gradient[place], wanted) < 1e-9
        assert distance(found.maps[place], wanted.sum(0)) < 1e-9
        missed = (wanted.sum() - score[chosen]).abs() / score[chosen].abs()
        assert float(found.error[place]) == pytest.approx(float(missed), rel=1e-5)


def sequence(act: nn.Module, scale: float = 1.0) -> nn.Sequential:
    convs = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
    with torch.no_grad():
        for conv in convs:
            conv.weight.mul_(scale)
    return nn.Sequential(convs[0], act, nn.MaxPool2d(2), convs[1], act, nn.Flatten(), nn.Linear(45, 4))


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "ReLU": (nn.ReLU, 1), "ReLU in place": (lambda: nn.ReLU(inplace=True), 1), "ReLU6": (nn.ReLU6, 9), "SiLU": (nn.SiLU, 1),
    "SiLU in place": (lambda: nn.SiLU(inplace=True), 1), "leaky": (lambda: nn.LeakyReLU(0.2, inplace=True), 1),
    "GELU": (nn.GELU, 1), "GELU tanh": (lambda: nn.GELU("tanh"), 1), "hardswish": (lambda: nn.Hardswish(inplace=True), 1),
    "Mish": (nn.Mish, 1), "ELU": (lambda: nn.ELU(0.7), 1), "CELU": (nn.CELU, 1), "SELU": (nn.SELU, 1), "tanh": (nn.Tanh, 1),
}  # fmt: skip


@every_rule
@with_and_without
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_passes_its_relevance_on(rule: Any, bias: bool, name: str) -> None:
    make, scale = ACTIVATIONS[name]
    net = network(sequence(make(), scale), SIDE)
    assert isinstance(net.module, nn.Sequential)
    layer, kinds, act = list(net.module), rules(rule, bias, net), make()
    steps = [
        Weighted(layer[0], kinds["image"]), Activation(lambda x: act(x.clone())), MaxPool(),
        Weighted(layer[3], kinds["conv"]), Activation(lambda x: act(x.clone())),
        Weighted(layer[5], MEAN), Weighted(layer[6], kinds["linear"]),
    ]  # fmt: skip
    if name == "ReLU6":
        assert bool((net.record(pictures(1, SIDE), ["0"])["0"] > 6).any())
    check(net, rule, bias, steps)


class PreAct(nn.Module):
    """A block in the order BN - ReLU - conv, whose norm follows no convolution; a norm that does; and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm, self.act = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.SiLU()
        self.norm, self.relu, self.conv = nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem_norm(self.stem(x)))
        x = x + self.conv(self.relu(self.norm(x)))
        return self.fc(F.relu(x).mean((2, 3)))


@every_rule
@with_and_without
def test_residual_sums_share_by_what_they_add_and_free_norms_are_layers(rule: Any, bias: bool) -> None:
    net = network(PreAct(), SIDE)
    module: Any = net.module.eval()
    prepared: Any = net.prepared
    assert isinstance(prepared.norm, nn.BatchNorm2d) and isinstance(prepared.stem_norm, nn.Identity)
    kinds = rules(rule, bias, net)
    block = [Weighted(module.norm, kinds["norm"]), Activation(F.relu), Weighted(module.conv, kinds["conv"])]
    steps = [
        Weighted(lambda x: module.stem_norm(module.stem(x)), kinds["image"]), Activation(F.silu), Residual(block),
        Activation(F.relu), Weighted(lambda x: x.mean((2, 3)), MEAN), Weighted(module.fc, kinds["linear"]),
    ]  # fmt: skip
    check(net, rule, bias, steps)


@every_rule
def test_a_norm_of_the_pixels_gives_the_first_convolution_its_box(rule: Any) -> None:
    norm, conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, stride=2)
    net = network(nn.Sequential(norm, conv, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 4)), SIDE)
    with torch.no_grad():
        norm.weight[1] = -0.8
    layer, kinds = list(net.module.eval().children()), rules(rule, True, net, norm)
    steps = [
        Weighted(norm, kinds["norm"]), Weighted(conv, kinds["image"]), Activation(F.relu),
        Weighted(layer[3], MEAN), Weighted(layer[4], MEAN), Weighted(layer[5], kinds["linear"]),
    ]  # fmt: skip
    check(net, rule, True, steps)


@every_rule
def test_a_linear_layer_can_be_the_first(rule: Any) -> None:
    net = network(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 5), nn.ReLU(), nn.Linear(5, 4)), SIDE)
    kinds, layer = rules(rule, True, net), list(net.module.children())
    first = kinds["image"] if rule == "composite" else kinds["linear"]
    steps = [Weighted(lambda x: layer[1](layer[0](x)), first), Activation(F.relu), Weighted(layer[3], kinds["linear"])]
    check(net, rule, True, steps)


class Padded(nn.Module):
    """Pads the pixels itself, as networks do whose padding is not the same on each side."""

    def __init__(self, conv: nn.Conv2d, rest: nn.Module, own: bool) -> None:
        super().__init__()
        self.conv, self.rest, self.own = conv, rest, own

    def forward(self, x: Tensor) -> Tensor:
        if self.own:
            return self.rest(F.conv2d(F.pad(x, (1, 1, 1, 1)), self.conv.weight, self.conv.bias))
        return self.rest(self.conv(x))


@every_rule
def test_padding_has_no_relevance_whoever_does_it(rule: Any) -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1)
    rest = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    images = pictures(2)
    maps = [lrp(network(Padded(conv, rest, own)), images, 1, rule=rule).maps for own in (True, False)]
    assert distance(maps[0], maps[1]) < 1e-9


class Overwriting(nn.Module):
    """Works in place on what its layers have given, where training allows it."""

    def __init__(self, act: Callable[[Tensor], Tensor], in_place: bool) -> None:
        super().__init__()
        self.one, self.two, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 4)
        self.act, self.in_place = act, in_place

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = self.act(self.two(self.act(x)))
        if self.in_place:
            y += x
            y.mul_(0.5)
        else:
            y = (y + x) * 0.5
        return self.fc(y.mean((2, 3)))


@every_rule
@pytest.mark.parametrize("act", [F.silu, F.gelu, F.hardswish, F.leaky_relu, F.elu])
def test_what_is_changed_in_place_later_has_the_same_relevance(rule: Any, act: Callable[[Tensor], Tensor]) -> None:
    images, found = pictures(2), []
    for in_place in (True, False):
        torch.manual_seed(1)
        found.append(lrp(network(Overwriting(act, in_place)), images, 2, rule=rule).maps)
    assert found[0].abs().max() > 0
    assert distance(found[0], found[1]) < 1e-12


def test_a_grey_network_has_relevances_of_grey_pixels() -> None:
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *head)
    ready = Preprocess((20, 20), 20)
    net = Network(module, name="grey", labels=Labels.generic(4), preprocess=ready, mean=(0.4,), std=(0.2,)).double()
    images = pictures(2)
    luma = (images * torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(1, 3, 1, 1)).sum(1, keepdim=True)
    for rule in RULES:
        found = lrp(net, images, 1, rule=rule, bias=False)
        assert found.gradient is not None and found.error is not None
        assert found.gradient.shape == (2, 1, 20, 20)
        assert float(found.error.max()) < 1e-3
        assert distance(found.maps, lrp(net, luma, 1, rule=rule, bias=False).maps) < 1e-6


def test_dead_pixels_and_dead_neurons_have_none() -> None:
    net = network(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)))
    images = pictures(1)
    images[:, :, 5:9, 5:9] = net.mean  # zero after normalisation
    found = lrp(net, images, 1, rule="epsilon")
    assert found.maps[:, 5:9, 5:9].abs().max() < 1e-9 * found.maps.abs().max()
    with torch.no_grad():
        net.module.get_parameter("0.bias").fill_(-100)
    for rule in RULES:
        assert lrp(net, images, 1, rule=rule).maps.abs().max() < 1e-9


# -- conservation -----------------------------------------------------------------------------------------------------


@every_rule
def test_without_the_biases_share_squeezenets_scores_are_conserved(
    rule: Any, squeezenet: Network, photos: Tensor
) -> None:
    found = lrp(squeezenet, photos, [281, 967], rule=rule, bias=False)
    assert found.error is not None
    assert found.error.shape == (2,)
    assert float(found.error.max()) < 1e-3
    assert distance(found.maps.sum((1, 2)), found.scores) < 1e-3
    taken = lrp(squeezenet, photos, [281, 967], rule=rule).error
    assert taken is not None
    assert float(taken.min()) > 1e-2  # which is what biases take


@every_rule
def test_a_residual_network_without_biases_conserves_the_scores_of_each_image_and_class(rule: Any) -> None:
    net, images, classes = network(Residue(bias=False)), pictures(3), torch.tensor([[0, 1], [2, 3], [1, 3]])
    found = lrp(net, images, classes, rule=rule)
    assert found.error is not None
    assert found.error.shape == (3, 2)
    assert float(found.error.max()) < 1e-3
    assert distance(found.maps.sum((2, 3)), net.logits(images).gather(1, classes)) < 1e-3


def test_efficientnet_is_handed_down_and_says_what_its_biases_take(efficientnet: Network, photos: Tensor) -> None:
    found = lrp(efficientnet, photos, [281, 967])
    assert found.error is not None
    assert bool(torch.isfinite(found.maps).all())
    wanted = (found.maps.double().sum((1, 2)) - found.scores).abs() / found.scores.abs()
    assert distance(found.error, wanted) < 1e-3


def test_a_larger_epsilon_takes_more() -> None:
    net, images = network(Residue(bias=False)), pictures(1)
    sums = [float(lrp(net, images, 1, rule="epsilon", epsilon=e).maps.sum().abs()) for e in (0.0, 1e-3, 1e-2, 0.1)]
    assert sums == sorted(sums, reverse=True)
    assert sums[0] > 2 * sums[-1]


def test_a_gamma_of_zero_is_the_epsilon_rule_and_a_large_one_has_no_contradiction() -> None:
    net, images = small(), pictures(2)
    flat, none = (lrp(net, images, 1, rule=rule, gamma=0.0).maps for rule in RULES[1:])
    assert distance(flat, none) < 1e-9
    against = []
    for gamma in (0.0, 1.0, 1e4):
        found = lrp(net, images, 1, rule="gamma", gamma=gamma, bias=False).maps
        against.append(float(found.clamp(max=0).sum().abs()))
    assert against == sorted(against, reverse=True)


# -- what it is given -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "alpha"}, "no rule 'alpha' for LRP: there are composite, epsilon, gamma"),
        ({"epsilon": -1e-6}, "give 0 or more"), ({"gamma": -0.1}, "give 0 or more"),
        ({"epsilon": torch.nan}, "give 0 or more"), ({"gamma": torch.inf}, "give 0 or more"),
    ],
)  # fmt: skip
def test_bad_options_are_error_lines(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        lrp(small(), pictures(1), 1, **options)


def test_a_network_without_weights_has_nothing_to_hand_down() -> None:
    module = nn.Sequential(nn.AvgPool2d(20), nn.Flatten())
    net = Network(module, name="none", labels=Labels.generic(3), preprocess=Preprocess((20, 20), 20)).double()
    with pytest.raises(PhospheneError, match="none has no convolution or linear layer"):
        lrp(net, pictures(1), 1)


def test_a_units_relevance_comes_from_what_it_reads_whatever_lies_behind_it() -> None:
    net = network(Act(nn.Sigmoid()))
    found = lrp(net, pictures(1), Unit("block.0", 2, (3, 3))).maps[0]
    seen = torch.zeros(20, 20, dtype=torch.bool)
    seen[3:8, 3:8] = True  # its receptive field
    assert found.abs().max() > 0
    assert found[~seen].abs().max() == 0
