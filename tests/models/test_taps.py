from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from nets import (
    NETS,
    SIZE,
    Choosy,
    InPlace,
    Locked,
    Plain,
    Reused,
    Swallows,
    TwoNames,
    Wrapped,
    close,
    network,
    reference,
    state,
    twin,
)
from torch import Tensor, nn

from phosphene.errors import LayerError, NetworkError
from phosphene.models import Network, Unit
from phosphene.models.prepare import first_tensor
from phosphene.models.taps import Tap

every_net = pytest.mark.parametrize("build", NETS, ids=lambda build: build.__name__)


def pictures(count: int = 2, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size)


# -- the values -----------------------------------------------------------------------------------------------


@every_net
def test_every_call_of_every_module_is_what_cloning_hooks_see_alone_and_together(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures()
    wanted, _ = reference(net, images)
    together = net.record(images, list(wanted))
    for name, tensor in wanted.items():
        assert close(together[name], tensor), name
        assert close(net.record(images, [name])[name], tensor), name
        assert close(net.activations(images, name).detach(), tensor), name


@every_net
def test_the_logits_are_those_of_the_module_in_eval_mode(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures()
    _, logits = reference(net, images)
    assert close(net.logits(images), logits)
    assert close(net.cut(images, "head")[1].detach(), logits)


@every_net
def test_a_plain_name_is_the_last_call(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures()
    wanted, _ = reference(net, images)
    for layer in net.layers():
        assert close(net.record(images, [layer.name])[layer.name], wanted[f"{layer.name}#{layer.calls}"]), layer.name


def test_a_module_used_three_times_has_three_numbered_calls_with_their_own_shapes() -> None:
    net = network(Reused())
    shapes = [net.layer(f"relu#{k}").shape for k in (1, 2, 3)]
    assert shapes == [(8, 20, 20), (12, 9, 9), (8, 7, 7)]
    assert net.layer("relu").shape == shapes[2]
    assert net.layer("relu").calls == 3
    images = pictures()
    recorded = net.record(images, ["relu", "relu#3", "relu#1", "bn1"])
    assert torch.equal(recorded["relu"], recorded["relu#3"])
    assert torch.equal(recorded["relu#1"], recorded["bn1"].relu())
    with pytest.raises(LayerError, match=r"runs 3 time.*call '4'"):
        net.record(images, ["relu#4"])
    for wrong in ("relu#0", "relu#x", "relu#-1"):
        with pytest.raises(LayerError):
            net.tap(wrong)


def test_the_units_of_an_early_call_are_counted_at_that_call() -> None:
    net = network(Reused())
    assert Unit("relu#2", 11, (8, 8)).check(net)
    with pytest.raises(LayerError, match="units 0 to 7"):
        Unit("relu#1", 8).check(net)
    with pytest.raises(LayerError, match="20x20"):
        Unit("relu#1", 0, (20, 0)).check(net)


def test_both_names_of_a_module_registered_twice_mean_the_same() -> None:
    net, images = network(TwoNames()), pictures()
    assert net.tap("again") == net.tap("first") == Tap("first", 2)
    recorded = net.record(images, ["again#1", "first#1", "again", "first"])
    assert torch.equal(recorded["again#1"], recorded["first#1"])
    assert torch.equal(recorded["again"], recorded["first"])
    assert not torch.equal(recorded["first"], recorded["first#1"])


@pytest.mark.parametrize("bright", [True, False])
def test_a_forward_with_an_if_is_read_on_the_way_that_it_takes(bright: bool) -> None:
    net = network(Choosy())
    images = torch.full((2, 3, SIZE, SIZE), 0.9 if bright else 0.1) + 0.05 * torch.rand(2, 3, SIZE, SIZE)
    wanted, _ = reference(net, images)
    recorded = net.record(images, ["one", "two"])
    assert close(recorded["one"], wanted["one#1"])
    assert close(recorded["two"], wanted["two#1"])


def test_a_layer_that_a_picture_does_not_reach_is_an_error() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.extra, self.spare = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.Conv2d(3, 5, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return (self.extra(x) if x.shape[-1] == SIZE - 2 else x).mean((2, 3))

    net = network(Skips())
    with pytest.raises(LayerError, match="'extra' did not run for an input of 30x30"):
        net.record(pictures(1, 30), ["extra"])
    with pytest.raises(LayerError, match="'spare' of net does not run"):
        net.record(pictures(1), ["spare"])


def test_a_wrong_name_gets_the_nearest_ones() -> None:
    with pytest.raises(LayerError, match=r"no layer 'convv1'; did you mean .*conv1"):
        network(Plain()).record(pictures(1), ["convv1"])


def test_recorded_tensors_ask_for_no_gradient_and_are_not_overwritten_later() -> None:
    net, images = network(InPlace()), pictures()
    names = [layer.name for layer in net.layers()]
    first = net.record(images, names)
    before = {name: tensor.clone() for name, tensor in first.items()}
    net.logits(pictures())
    net.record(pictures(), names)
    for name, tensor in first.items():
        assert not tensor.requires_grad
        assert torch.equal(tensor, before[name])


# -- architectures of libraries -------------------------------------------------------------------------------

ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **{
        name: (lambda name=name: timm.create_model(name, pretrained=False, num_classes=5), size)
        for name, size in {
            "resnet18": 48, "mobilenetv3_small_050": 48, "efficientnet_b0": 48, "convnext_atto": 64, "regnetx_002": 48,
            "densenet121": 48, "tf_efficientnet_lite0": 48, "repvgg_a0": 48, "ghostnet_050": 48,
        }.items()
    },
    **{
        f"torchvision {name}": (
            lambda name=name, more=more: torchvision.models.get_model(name, weights=None, num_classes=5, **more), size
        )
        for name, size, more in [
            ("googlenet", 64, {"init_weights": False, "aux_logits": False}),
            ("inception_v3", 96, {"init_weights": False, "aux_logits": False}),
            ("shufflenet_v2_x0_5", 48, {}),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_layers_of_library_networks_are_what_cloning_hooks_see(name: str) -> None:
    build, size = ARCHITECTURES[name]
    net, images = network(build(), size=size), pictures(2, size)
    wanted, logits = reference(net, images)
    recorded = net.record(images, list(wanted))
    for layer, tensor in wanted.items():
        assert close(recorded[layer], tensor, 5e-4), layer
    assert close(net.logits(images), logits, 5e-4)
    for layer in list(wanted)[:: max(1, len(wanted) // 5)]:
        assert close(net.record(images, [layer])[layer], wanted[layer], 5e-4), layer


# -- how much runs --------------------------------------------------------------------------------------------


class Counts(nn.Module):
    """The identity, which counts how often it is called and whether a graph is being made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.requires_grad)
        return x * 1.0


def counted() -> tuple[Network, list[list[bool]]]:
    """A chain of convolutions with counters between them; the counters of the prepared copy."""
    chain = [part for _ in range(3) for part in (nn.Conv2d(3, 3, 3), Counts())]
    net = network(nn.Sequential(*chain, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 5)))
    net.layers()
    counters = [child.seen for child in net.prepared.modules() if isinstance(child, Counts)]
    for seen in counters:
        seen.clear()
    return net, counters


def test_the_pass_stops_after_the_last_layer_asked_for() -> None:
    net, counters = counted()
    net.record(pictures(), ["0"])
    assert [len(seen) for seen in counters] == [0, 0, 0]
    net.record(pictures(), ["2", "0"])
    assert [len(seen) for seen in counters] == [1, 0, 0]
    net.activations(pictures(), "3")
    assert [len(seen) for seen in counters] == [2, 1, 0]
    net.logits(pictures())
    assert [len(seen) for seen in counters] == [3, 2, 1]


def test_a_model_that_swallows_exceptions_does_not_swallow_the_stop() -> None:
    net, images = network(Swallows()), pictures()
    wanted, _ = reference(net, images)
    assert close(net.record(images, ["part"])["part"], wanted["part#1"])
    prepared: Any = net.prepared
    assert prepared.failed == 0


def test_what_lies_before_a_cut_runs_without_a_graph() -> None:
    net, counters = counted()
    activation, logits = net.cut(pictures(), "2")
    assert counters == [[False], [True], [True]]
    assert activation.is_leaf
    assert activation.requires_grad
    assert logits.requires_grad


@every_net
def test_the_gradient_after_a_cut_is_that_of_the_full_pass(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures()
    for layer in net.layers():
        activation, logits = net.cut(images, layer.name)
        (ours,) = torch.autograd.grad(logits[:, 1].sum(), activation, allow_unused=True)
        value, theirs = full_gradient(net, images, layer.name, layer.calls)
        assert close(activation.detach(), value), layer.name
        assert (ours is None) == (theirs is None), layer.name
        if ours is not None and theirs is not None:
            assert close(ours, theirs), layer.name


def full_gradient(net: Network, images: Tensor, layer: str, call: int) -> tuple[Tensor, Tensor | None]:
    """The layer's output and the gradient of class 1 for it, out of an ordinary pass with gradients everywhere."""
    module = twin(net.module)
    calls, kept = 0, torch.zeros(0)

    def keep(_module: nn.Module, _given: Any, output: Any) -> Any:
        nonlocal calls, kept
        calls += 1
        if calls != call:
            return None
        tensor = first_tensor(output)
        assert tensor is not None
        kept = tensor.clone()
        kept.retain_grad()
        return swapped(output, tensor, kept.clone())

    module.get_submodule(layer).register_forward_hook(keep)
    logits = first_tensor(module(net.normalise(images.clone().requires_grad_())))
    assert logits is not None
    logits[:, 1].sum().backward()
    return kept.detach(), kept.grad


def swapped(value: Any, old: Tensor, new: Tensor) -> Any:
    if value is old:
        return new
    if isinstance(value, dict):
        return type(value)((k, swapped(v, old, new)) for k, v in value.items())
    if isinstance(value, (tuple, list)):
        parts = [swapped(item, old, new) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return value


def test_two_threads_can_read_the_same_network() -> None:
    net, images = network(Reused()), pictures()
    wanted, _ = reference(net, images)
    net.logits(images)
    wrong: list[str] = []

    def read(name: str) -> None:
        for _ in range(40):
            try:
                if not close(net.record(images, [name])[name], wanted[name]):
                    wrong.append(name)
            except Exception as problem:
                wrong.append(f"{name}: {problem}")

    threads = [threading.Thread(target=read, args=(name,)) for name in ("relu#1", "relu#3", "conv2#1", "relu#2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# -- what is left behind: nothing -----------------------------------------------------------------------------


def everything(net: Network, images: Tensor) -> None:
    """All ways of reading a network."""
    net.record(images, [layer.name for layer in net.layers()])
    net.activations(images.clone().requires_grad_(), "head").sum().backward()
    activation, logits = net.cut(images, net.layers()[0].name)
    torch.autograd.grad(logits.sum(), activation, allow_unused=True)
    net.logits(images.clone().requires_grad_()).sum().backward()
    net.predict(images)


@pytest.mark.parametrize("training", [True, False])
@every_net
def test_reading_leaves_the_module_as_it_was(build: type[nn.Module], training: bool) -> None:
    net = network(build())
    net.module.train(training)
    next(net.module.children()).train(not training)
    for place, parameter in enumerate(net.module.parameters()):
        parameter.requires_grad_(place % 3 != 0)
        parameter.grad = torch.full_like(parameter, 0.5) if place % 2 else None
    hooked: list[int] = []
    next(net.module.children()).register_forward_hook(lambda *_: hooked.append(1) and None)
    before = state(net.module)
    everything(net, pictures())
    assert state(net.module) == before


@pytest.mark.parametrize("build", [Plain, Locked])
def test_a_forward_that_raises_leaves_the_module_and_the_copy_as_they_were(build: type[nn.Module]) -> None:
    net = network(build())
    net.module.train()
    net.layers()
    before, copy_before = state(net.module), state(net.prepared)
    bad = pictures(1, 33)
    for call in (
        lambda: net.record(bad, ["conv1", "head"]),
        lambda: net.activations(bad, "head"),
        lambda: net.cut(bad, "conv1"),
        lambda: net.logits(bad),
    ):
        with pytest.raises(ArithmeticError, match="33 pixels"):
            call()
        assert state(net.module) == before
        assert state(net.prepared) == copy_before


def test_an_early_stop_leaves_no_hook_on_the_copy() -> None:
    net = network(Plain())
    net.layers()
    before = state(net.prepared)
    net.record(pictures(), ["conv2", "bn1"])
    assert state(net.prepared) == before


@pytest.mark.parametrize("build", [Plain, Locked])
def test_a_network_in_train_mode_is_read_as_in_eval_mode_and_goes_on_training(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures(4)
    wanted, logits = reference(net, images)
    net.module.train()
    assert close(net.logits(images), logits)
    assert close(net.record(images, ["drop"])["drop"], wanted["drop#1"])
    assert all(child.training for child in net.module.modules())
    statistics: Any = net.module.get_buffer("bn1.running_mean")
    was = statistics.clone()
    net(images)  # the module itself, in its own mode
    assert not torch.equal(statistics, was)
    assert close(net.logits(images), reference(net, images)[1])


def test_a_module_that_cannot_be_copied_is_read_in_place() -> None:
    net = network(Locked())
    assert net.prepared is net.module


@pytest.mark.parametrize("wrap", [torch.nn.utils.weight_norm, torch.nn.utils.parametrizations.weight_norm,
                                  torch.nn.utils.parametrizations.spectral_norm])  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_normed_weights_work_whether_they_can_be_copied_or_not(wrap: Callable[[nn.Module], nn.Module]) -> None:
    chain = nn.Sequential(wrap(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net, images = network(chain, classes=4), pictures()
    chain.eval()
    with torch.no_grad():
        wanted = chain(net.normalise(images))
    assert close(net.logits(images), wanted)
    assert close(net.record(images, ["0"])["0"], chain[0](net.normalise(images)).detach())


# -- changes after loading ------------------------------------------------------------------------------------


def scaled(net: Network) -> None:
    with torch.no_grad():
        net.module.get_parameter("head.fc.weight").mul_(3)


def scaled_data(net: Network) -> None:
    net.module.get_parameter("conv1.weight").data.mul_(3)


def replaced_data(net: Network) -> None:
    weight = net.module.get_parameter("conv1.weight")
    weight.data = weight.data * 3


def loaded(net: Network) -> None:
    net.module.load_state_dict({k: v * 2 for k, v in net.module.state_dict().items()})


def assigned(net: Network) -> None:
    net.module.load_state_dict({k: v * 2 for k, v in net.module.state_dict().items()}, assign=True)


def stepped(net: Network) -> None:
    net.module.train()
    optimiser = torch.optim.SGD(net.module.parameters(), lr=1.0)
    net(pictures(4)).square().sum().backward()
    optimiser.step()
    net.module.eval()


def new_head(net: Network) -> None:
    net.module.get_submodule("head").fc = nn.Linear(8, 5)


def other_activation(net: Network) -> None:
    net.module.drop = nn.Sigmoid()


def statistics(net: Network) -> None:
    net.module.get_buffer("bn1.running_mean").add_(1)


CHANGES = [scaled, scaled_data, replaced_data, loaded, assigned, stepped, new_head, other_activation, statistics]


@pytest.mark.parametrize("build", [Plain, Locked])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_of_the_module_is_seen_by_the_next_call(change: Callable[[Network], None], build: Any) -> None:
    net, images = network(build()), pictures()
    before = net.logits(images)
    net.record(images, ["conv1"])
    change(net)
    wanted, logits = reference(net, images) if build is Plain or change is not other_activation else (None, None)
    after = net.logits(images)
    assert not close(after, before, 1e-3)
    if wanted is not None and logits is not None:
        assert close(after, logits)
        assert close(net.record(images, ["conv1"])["conv1"], wanted["conv1#1"])


@pytest.mark.parametrize("build", [Plain, Locked, Reused])
def test_float64_is_kept(build: type[nn.Module]) -> None:
    net, images = network(build()), pictures()
    single = net.logits(images)
    net.to(torch.float64)
    double = net.logits(images.double())
    assert double.dtype == net.dtype == torch.float64
    assert close(single.double(), double, 1e-5)
    assert close(double, reference(net, images.double())[1], 1e-10)
    assert net.logits(images).dtype == torch.float64  # pictures are brought to the network


def test_a_module_that_was_cast_without_its_network_is_followed() -> None:
    net, images = network(Plain()), pictures()
    single = net.logits(images)
    net.module.double()
    assert close(net.logits(images), single.double(), 1e-5)
    assert net.dtype == torch.float64
    assert len(net.predict(images)) == 2


def test_reading_works_inside_inference_mode_and_afterwards() -> None:
    net, images = network(InPlace()), pictures()
    wanted, logits = reference(net, images)
    with torch.inference_mode():
        inside = net.record(images * 1.0, ["conv1", "conv2"])
        assert close(net.logits(images), logits)
    assert close(inside["conv2"], wanted["conv2#1"])
    leaf = images.clone().requires_grad_()
    net.logits(leaf).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.abs().max() > 0


def test_a_wrapped_output_is_cut_in_its_own_class() -> None:
    net, images = network(Wrapped()), pictures()
    for form in ("named", "pair", "tuple", "list", "dict", "nested"):
        activation, logits = net.cut(images, f"parts.{form}")
        (gradient,) = torch.autograd.grad(logits.sum(), activation)
        assert gradient.abs().max() > 0, form


def test_a_module_without_a_tensor_to_give_is_an_error_line() -> None:
    class Mute(nn.Module):
        def forward(self, x: Tensor) -> str:
            return "nothing"

    with pytest.raises(NetworkError, match="net"):
        network(Mute()).logits(pictures())


def test_a_module_that_fails_on_its_own_input_size_is_an_error_line() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise IndexError("inner\nproblem")

    with pytest.raises(NetworkError, match="net can't run on its own input size: inner problem"):
        network(Fails()).layers()


def test_a_cut_before_something_that_works_in_place() -> None:
    class Later(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.same, self.head = nn.Conv2d(3, 4, 3), nn.Identity(), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.same(x)
            x.add_(1)
            return self.head(y).mean((2, 3))

    net = network(Later())
    activation, logits = net.cut(pictures(2, 12), "same")
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), activation)
    wanted = net.module.get_parameter("head.weight")[0].expand(2, -1, 10, 10) / 100
    torch.testing.assert_close(gradient, wanted.detach())
