"""New layers on old networks: replaced ones and cut ones, their values by hand, and other techniques on them."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from nets import InPlace, Plain, Reused, Swallows, network, randomise
from torch import Tensor, nn

import phosphene
from phosphene.errors import LayerError
from phosphene.models import Labels, Network
from phosphene.models.heads import HEAD, Cut, cut_after, replaced
from phosphene.observe.landmarks import landmarks


def pictures(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(seed))


def with_module(given: Network, module: nn.Module, classes: int) -> Network:
    return Network(
        module.eval(), name=given.name, labels=Labels.generic(classes), preprocess=given.preprocess,
        mean=given.mean.flatten().tolist(), std=given.std.flatten().tolist(),
    )  # fmt: skip


def hooked(module: nn.Module, x: Tensor, layer: str) -> Tensor:
    seen: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out.clone()))
    with torch.no_grad():
        module(x)
    handle.remove()
    return seen[0]


def everything(module: nn.Module) -> list[tuple[str, Any]]:
    return [(name, tensor.clone()) for name, tensor in module.state_dict().items()]


def as_it_was(module: nn.Module, before: list[tuple[str, Any]]) -> bool:
    after = everything(module)
    return [n for n, _ in before] == [n for n, _ in after] and all(
        torch.equal(a, b) for (_, a), (_, b) in zip(before, after)
    )


# -- replaced ---------------------------------------------------------------------------------------------------


def test_a_replaced_layer(efficientnet: Network) -> None:
    module = efficientnet.module
    before, kind = everything(module), type(module)
    twin = replaced(module, "classifier", 3)
    new = twin.get_submodule("classifier")
    assert isinstance(new, nn.Linear) and new.weight.shape == (3, 1280) and type(twin) is kind and twin is not module
    assert as_it_was(module, before)
    x = efficientnet.normalise(pictures(2, 224))
    features = hooked(module, x, "bn2").mean((2, 3)) @ new.weight.T + new.bias
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), features, atol=1e-4, rtol=1e-4)
    names = [name for name, _ in module.named_modules()]
    assert names == [name for name, _ in twin.named_modules()]
    mine, theirs = dict(twin.state_dict()), dict(module.state_dict())
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs if not name.startswith("classifier"))
    with torch.no_grad():
        twin.get_parameter("conv_stem.weight").zero_()
    assert as_it_was(module, before)


def test_a_replaced_layer_inside_of_another() -> None:
    module = Plain()
    twin = replaced(module.double(), "head.fc", 2)
    assert (
        twin.get_parameter("head.fc.weight").shape == (2, 8)
        and twin.get_parameter("head.fc.weight").dtype is torch.float64
    )
    assert module.head.fc.out_features == 5


def test_only_a_linear_layer_can_be_replaced() -> None:
    with pytest.raises(LayerError, match="'conv1' is a Conv2d, and only a linear layer can be replaced"):
        replaced(Plain(), "conv1", 2)


# -- cut --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["features.12", "features.6", "features.3.expand1x1_activation"])
def test_a_cut_network(squeezenet: Network, layer: str) -> None:
    module = squeezenet.module
    before, kind = everything(module), type(module)
    width = squeezenet.layer(layer).shape[0]
    twin = cut_after(module, layer, width, 4)
    head = twin.get_submodule(HEAD)
    assert isinstance(head, nn.Linear) and isinstance(twin, Cut) and isinstance(twin, kind)
    assert as_it_was(module, before) and type(module) is kind
    x = squeezenet.normalise(pictures(2, 224))
    wanted = hooked(module, x, layer).mean((2, 3)) @ head.weight.T + head.bias
    with torch.no_grad():
        torch.testing.assert_close(twin.eval()(x), wanted, atol=1e-5, rtol=1e-4)
    assert [name for name, _ in twin.named_modules()] == [name for name, _ in module.named_modules()] + [HEAD]
    assert set(twin.state_dict()) == set(module.state_dict()) | {f"{HEAD}.weight", f"{HEAD}.bias"}
    assert not any(child._forward_hooks for child in twin.modules())


def test_nothing_runs_after_the_cut() -> None:
    module = Plain().eval()
    twin = cut_after(module, "conv1", 8, 3).eval()
    ran: list[str] = []
    for name, child in twin.named_modules():
        child.register_forward_hook(lambda _m, _i, _o, name=name: ran.append(name))
    assert twin(pictures(1, 20)).shape == (1, 3)
    assert ran == ["conv1", HEAD, ""]


def test_the_gradient_reaches_what_lies_before_and_no_more() -> None:
    twin = cut_after(Plain(), "bn1", 8, 3).train()
    twin(pictures(2, 20)).logsumexp(1).sum().backward()
    with_gradient = {name.split(".")[0] for name, p in twin.named_parameters() if p.grad is not None}
    assert with_gradient == {"conv1", "bn1", HEAD}


def test_a_network_is_cut_twice() -> None:
    module = randomise(Plain()).eval()
    once = cut_after(module, "conv2", 8, 3)
    again = cut_after(once, "conv1", 8, 6).eval()
    x = pictures(2, 20)
    head: Any = again.get_submodule(HEAD)
    wanted = hooked(module, x, "conv1").mean((2, 3)) @ head.weight.T + head.bias
    with torch.no_grad():
        torch.testing.assert_close(again(x), wanted)
        assert once.eval()(x).shape == (2, 3)
    assert type(again).__mro__.count(Cut) == 1 and type(again).__name__ == "CutPlain"


def test_copies_of_a_cut_network() -> None:
    twin = cut_after(randomise(Plain()), "bn1", 8, 3).eval()
    other = copy.deepcopy(twin)
    x = pictures(2, 20)
    with torch.no_grad():
        assert torch.equal(twin(x), other(x)) and type(other) is type(twin)
        other.get_parameter("conv1.weight").zero_()
        assert not torch.equal(twin(x), other(x))
    state = io.BytesIO()
    torch.save(twin.state_dict(), state)
    state.seek(0)
    other.load_state_dict(torch.load(state, weights_only=True))
    with torch.no_grad():
        assert torch.equal(twin(x), other(x))


def test_an_unknown_layer() -> None:
    with pytest.raises(AttributeError):
        cut_after(Plain(), "conv9", 8, 3)


def test_a_layer_that_does_not_run() -> None:
    module = Plain()
    module.add_module("idle", nn.Conv2d(3, 3, 1))
    with pytest.raises(LayerError, match="layer 'idle', after which the network is cut, did not run"):
        cut_after(module, "idle", 3, 2)(pictures(1, 20))


def test_a_network_that_swallows_exceptions() -> None:
    module = Swallows().eval()
    twin = cut_after(module, "part", 8, 3).eval()
    ran: list[str] = []
    twin.get_submodule("head").register_forward_hook(lambda *_: ran.append("head"))
    head: Any = twin.get_submodule(HEAD)
    x = pictures(1, 20)
    wanted = hooked(module, x, "part").mean((2, 3)) @ head.weight.T + head.bias
    with torch.no_grad():
        torch.testing.assert_close(twin(x), wanted)
    assert not ran


def test_a_layer_whose_output_is_overwritten_later() -> None:
    module = randomise(InPlace()).eval()
    twin = cut_after(module, "conv1", 8, 3).eval()
    head: Any = twin.get_submodule(HEAD)
    x = pictures(2, 20)
    wanted = hooked(module, x, "conv1").mean((2, 3)) @ head.weight.T + head.bias
    with torch.no_grad():
        torch.testing.assert_close(twin(x), wanted)


def test_a_layer_that_runs_several_times_is_cut_where_it_is_recorded() -> None:
    from phosphene.models.saved import Architecture, head_of
    from phosphene.training.probe import with_classes

    given = network(Reused())
    x = pictures(1, 20)
    features = given.record(x, ["relu"])["relu"].mean((2, 3))
    given.architecture = Architecture("nets.py:make", 5)
    twin = with_classes(given, ["a", "b", "c"], "relu#1", 8)  # the first map has 8 channels, as the last has
    head: Any = head_of(twin.module, twin.architecture)  # pyright: ignore
    first = given.record(x, ["relu#1"])["relu#1"].mean((2, 3))
    assert features.shape == first.shape and not torch.allclose(features, first)
    with torch.no_grad():
        torch.testing.assert_close(twin.logits(x), first @ head.weight.T + head.bias, atol=1e-5, rtol=1e-4)


# -- other techniques -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cut_squeezenet(squeezenet: Network) -> Network:
    return with_module(squeezenet, cut_after(squeezenet.module, "features.7", 256, 4), 4)


def test_a_cut_network_is_read_like_any_other(squeezenet: Network, cut_squeezenet: Network) -> None:
    x = pictures(2, 224)
    assert cut_squeezenet.logits(x).shape == (2, 4)
    with torch.no_grad():
        torch.testing.assert_close(cut_squeezenet(x), cut_squeezenet.logits(x), atol=1e-4, rtol=1e-4)
    for layer in ("features.3", "fire4"):
        torch.testing.assert_close(cut_squeezenet.record(x, [layer])[layer], squeezenet.record(x, [layer])[layer])
    names = [layer.name for layer in cut_squeezenet.layers()]
    assert names[-1] == HEAD and "features.7" in names and "features.8" not in names
    assert landmarks(cut_squeezenet) == [n for n in landmarks(squeezenet) if n in names]
    with pytest.raises(LayerError, match="does not run"):
        cut_squeezenet.record(x, ["features.12"])
    assert len(cut_squeezenet.predict(x, top=9)[0].names) == 4


@pytest.mark.parametrize("technique", ["grad_cam", "saliency", "integrated_gradients", "guided_backprop"])
def test_a_cut_network_is_explained(cut_squeezenet: Network, technique: str, photos: Tensor) -> None:
    options: dict[str, Any] = {"steps": 4} if technique == "integrated_gradients" else {}
    made: Any = getattr(phosphene.explain, technique)(cut_squeezenet, photos[:1], target=2, **options)
    assert bool(torch.isfinite(made.maps).all()) and float(made.maps.abs().max()) > 0
    torch.testing.assert_close(made.scores, cut_squeezenet.logits(photos[:1])[:, 2], atol=1e-4, rtol=1e-4)


def test_grad_cam_of_a_cut_network_is_its_weights(cut_squeezenet: Network, photos: Tensor) -> None:
    """Averages and a linear layer: Grad-CAM at the cut is relu(sum_k w_k A_k) / places."""
    layer = "features.7"
    activation, logits = cut_squeezenet.cut(photos[:1], layer)
    (gradient,) = torch.autograd.grad(logits[0, 1], activation)
    head: Any = cut_squeezenet.module.get_submodule(HEAD)
    wanted = head.weight[1].detach().view(1, -1, 1, 1) / (activation.shape[2] * activation.shape[3])
    torch.testing.assert_close(gradient, wanted.expand_as(gradient), atol=1e-7, rtol=1e-4)


def test_replaced_networks_are_explained_too(efficientnet: Network, photos: Tensor) -> None:
    new = with_module(efficientnet, replaced(efficientnet.module, "classifier", 3), 3)
    made: Any = phosphene.explain.grad_cam(new, photos[:1], target=1)
    assert float(made.maps.abs().max()) > 0 and new.logits(photos).shape == (2, 3)
    torch.testing.assert_close(new.record(photos, ["bn2"])["bn2"], efficientnet.record(photos, ["bn2"])["bn2"])
