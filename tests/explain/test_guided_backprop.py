from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import toys
from captum.attr import GuidedBackprop
from reference import distance, hooked_guided
from spellings import RELU6S, RELUS, Net, by_hand, guided
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.grad import conv2d_input
from toys import Act

from phosphene.errors import LabelError, LayerError, RuleError
from phosphene.explain import guided_backprop, saliency
from phosphene.models import Network, Unit

SIZE = 14


def network(module: nn.Module, name: str = "net") -> Network:
    return toys.network(module, SIZE, name)


def pictures(count: int = 2) -> Tensor:
    return toys.pictures(count, SIZE)


# -- every spelling of a ReLU, against the rule worked out by hand -------------------------------------------------


@pytest.mark.parametrize("spelling", RELUS)
def test_each_spelling_of_relu_follows_the_rule(spelling: str) -> None:
    net, images = network(Net(RELUS[spelling])), pictures()
    ours = guided_backprop(net, images, 1)
    assert ours.gradient is not None
    assert distance(ours.gradient, by_hand(guided, net, images, 1)) < 1e-9
    assert torch.equal(ours.maps, ours.gradient.sum(1))
    plain = saliency(net, images, 1)
    assert plain.gradient is not None
    assert distance(ours.gradient, plain.gradient) > 1e-2
    assert torch.allclose(ours.scores, net(images)[:, 1])


@pytest.mark.parametrize("spelling", RELU6S)
def test_each_spelling_of_relu6_follows_the_rule(spelling: str) -> None:
    net, images = network(Net(RELU6S[spelling], scale=6.0)), pictures()
    ours = guided_backprop(net, images, 2)
    assert ours.gradient is not None
    assert distance(ours.gradient, by_hand(guided, net, images, 2, 6.0)) < 1e-9
    assert distance(ours.gradient, by_hand(guided, net, images, 2)) > 1e-3  # some units are above 6


@pytest.mark.parametrize("unit", [Unit("two", 4, (2, 3)), Unit("one", 1, (5, 5)), Unit("pool", 3, (1, 4))])
def test_a_single_neuron_follows_the_rule(unit: Unit) -> None:
    net, images = network(Net(nn.ReLU(inplace=True))), pictures()
    module: Any = net.module
    assert unit.position is not None
    row, column = unit.position
    with torch.no_grad():
        a = module.one(net.normalise(images))
        pooled, where = F.max_pool2d(a.relu(), 2, return_indices=True)
        if unit.layer == "one":
            to_a = torch.zeros_like(a)
            to_a[:, unit.channel, row, column] = 1
        else:
            to_pooled = torch.zeros_like(pooled)
            to_pooled[:, unit.channel, row, column] = 1
            if unit.layer == "two":
                to_pooled = conv2d_input(list(pooled.shape), module.two.weight, to_pooled, padding=1)
            to_a = F.max_unpool2d(to_pooled, where, [2, 2], output_size=list(a.shape[2:])).clamp(min=0) * (a > 0)
        wanted = conv2d_input(list(images.shape), module.one.weight, to_a) / net.std
    ours = guided_backprop(net, images, unit)
    assert ours.gradient is not None
    assert wanted.abs().max() > 0
    assert distance(ours.gradient, wanted) < 1e-9
    assert torch.allclose(ours.scores, net.record(images, [unit.layer])[unit.layer][:, unit.channel, row, column])


# -- what has no rule is refused ----------------------------------------------------------------------------------


class OwnReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (ctx.saved_tensors[0] > 0)


class Add(OwnReLU):
    """Its node of the graph has the name of a harmless one."""


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class OwnGate(nn.Module):
    """A product of two linear branches."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x)


class Calls(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def masked_in_place(x: Tensor) -> Tensor:
    x = x.clone()
    x[x < 0] = 0
    return x


def silu_on_a_part(x: Tensor) -> Tensor:
    x = x.clone()
    F.silu(x[:, :3], inplace=True)
    return x


def no_grad_mask(x: Tensor) -> Tensor:
    with torch.no_grad():
        mask = (x > 0).to(x.dtype)
    return torch.mul(x, mask)


def halved_where_negative(x: Tensor) -> Tensor:
    return x / (1 + (x.detach() < 0).to(x))


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "SiLU": nn.SiLU, "SiLU in place": lambda: nn.SiLU(inplace=True), "GELU": nn.GELU, "Hardswish": nn.Hardswish,
    "LeakyReLU": nn.LeakyReLU, "ELU": nn.ELU, "PReLU": nn.PReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh,
    "Softmax": lambda: nn.Softmax(1), "Softplus": nn.Softplus, "Hardtanh": nn.Hardtanh, "gate": Gate, "own gate": OwnGate,
    "GroupNorm": lambda: nn.GroupNorm(2, 6), "InstanceNorm": lambda: nn.InstanceNorm2d(6),
    "batch statistics": lambda: nn.BatchNorm2d(6, track_running_stats=False), "LRN": lambda: nn.LocalResponseNorm(2),
    **{
        name: (lambda function=function: Calls(function))
        for name, function in {
            "F.silu": F.silu, "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)), "custom Function": OwnReLU.apply,
            "max of two": lambda x: torch.max(x, torch.zeros(())), "custom Function with a harmless name": Add.apply,
            "where": lambda x: torch.where(x > 0, x, 0.0), "mask": lambda x: x * (x > 0), "no-grad mask": no_grad_mask,
            "masked in place": masked_in_place, "in place on a part": silu_on_a_part, "abs": lambda x: (x + x.abs()) / 2,
            "quotient": lambda x: 1 / (x.square() + 1), "inverse": lambda x: 1 / (x + 9), "exp": torch.exp,
            "detached factor": lambda x: x * x.detach(), "detached divisor": halved_where_negative,
            "threshold": lambda x: F.threshold(x, 0.0, 0.0), "aten": lambda x: torch.ops.aten.relu(x),
            "clamped elsewhere": lambda x: x.clamp(min=0.1), "clamp by a tensor": lambda x: x.clamp(min=torch.zeros(())),
            "gram": lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2) @ x.flatten(2)).view(x.shape),
            "own kernel": lambda x: F.conv2d(x, x[:1, :, :1, :1].expand(6, 6, 1, 1)),
        }.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_an_error_that_names_the_module(name: str) -> None:
    net = network(Act(REFUSED[name]()), "mynet").float()
    with pytest.raises(RuleError) as caught:
        guided_backprop(net, pictures().float(), 0)
    message = str(caught.value)
    assert "module 'block.2' of mynet" in message or "module 'block.2." in message
    assert "guided backpropagation has no rule for" in message
    assert "ReLU and ReLU6" in message
    assert "saliency" in message
    assert "\n" not in message
    assert saliency(net, pictures().float(), 0).maps.abs().max() > 0  # which is what the message says


@pytest.mark.filterwarnings("ignore")
def test_a_scripted_relu_is_refused() -> None:
    scripted: Any = torch.jit.script(nn.ReLU())
    net = network(Act(scripted)).float()
    for _ in range(4):  # the first runs of a script differ from the later ones
        with pytest.raises(RuleError, match="no rule for"):
            guided_backprop(net, pictures().float(), 0)


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "constant factor": lambda x: x * torch.full_like(x, 2.0), "constant of its kind": lambda x: x * x.new_tensor(2.0),
    "in place on a part": lambda x: torch.cat([x[:, :3], x[:, 3:]], 1).add_(x), "difference": lambda x: 1 - x,
    "shuffle": lambda x: x.view(len(x), 2, 3, *x.shape[2:]).transpose(1, 2).reshape(x.shape), "mean": lambda x: x - x.mean(),
    "upsampling": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), "pad": lambda x: F.pad(x, (1, 1, 1, 1)),
    "average": lambda x: F.avg_pool2d(x, 2), "max over channels": lambda x: x + x.amax(1, keepdim=True),
}  # fmt: skip


@pytest.mark.parametrize("name", LINEAR)
def test_linear_operations_are_not_refused(name: str) -> None:
    net, images = network(Act(Calls(LINEAR[name]))), pictures()
    ours = guided_backprop(net, images, [0, 2])
    assert ours.gradient is not None
    assert distance(ours.gradient, hooked_guided(net, images, [0, 2])) < 1e-9


def test_what_lies_behind_a_unit_is_not_looked_at() -> None:
    net, images = network(Act(nn.GELU())), pictures()
    assert guided_backprop(net, images, Unit("block.1", 2, (1, 1))).maps.abs().max() > 0
    with pytest.raises(RuleError, match=r"Gelu.*'block\.2'"):
        guided_backprop(net, images, Unit("block.3", 2, (1, 1)))


def test_a_refusal_leaves_no_hook_behind() -> None:
    net = network(Act(nn.GELU()))
    with pytest.raises(RuleError):
        guided_backprop(net, pictures(), 0)
    for module in (*net.module.modules(), *net.prepared.modules()):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


# -- the bundled networks -----------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_on_squeezenet_it_is_captums(squeezenet64: Network, photos64: Tensor) -> None:
    classes = [281, 967]
    ours = guided_backprop(squeezenet64, photos64, classes).gradient
    theirs = GuidedBackprop(squeezenet64).attribute(photos64.clone().requires_grad_(), target=classes)
    assert ours is not None
    for place in range(2):
        assert distance(ours[place], theirs[place]) < 1e-9


def test_on_both_networks_it_is_what_backward_hooks_give(network64: Network, photos64: Tensor) -> None:
    ours = guided_backprop(network64, photos64, [281, 967]).gradient
    assert ours is not None
    assert distance(ours, hooked_guided(network64, photos64, [281, 967])) < 1e-9


def test_float32_is_as_near_to_float64_as_it_gets(bundled_network: Network, photos: Tensor) -> None:
    """Here and there a pooling of SqueezeNet's chooses another of two nearly equal values."""
    ours = guided_backprop(bundled_network, photos[:1], 281).gradient
    assert ours is not None
    wanted = hooked_guided(bundled_network, photos[:1], [281])
    assert distance(ours, wanted) < (5e-3 if bundled_network.name == "squeezenet1_1" else 1e-4)


def test_bad_targets_are_error_lines(squeezenet: Network, photos: Tensor) -> None:
    with pytest.raises(LabelError):
        guided_backprop(squeezenet, photos, 1000)
    with pytest.raises(LayerError):
        guided_backprop(squeezenet, photos, Unit("fire2", 128))


def test_a_relu_made_of_a_difference_is_no_plain_gradient() -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return (x - x.detach().clamp(max=0)).mean((2, 3))

    net = network(Difference())
    with pytest.raises(RuleError, match="Sub of two things made from the image"):
        guided_backprop(net, pictures(), 0)
