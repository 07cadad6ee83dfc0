"""What holds for every explanation method, on small networks in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference import distance
from torch import Tensor, nn
from torch.nn import functional as F
from toys import (
    SIZE,
    Act,
    Small,
    every_cam,
    every_method,
    every_rule,
    explained,
    network,
    parts,
    pictures,
    small,
    state,
)

from phosphene.errors import ImageError, LabelError, LayerError, NetworkError, PhospheneError, RuleError
from phosphene.explain import METHODS, LogProbability, Target
from phosphene.models import Labels, Network, Preprocess, Unit

RANDOM = [name for name, method in METHODS.items() if method.random]


# -- what is given back ---------------------------------------------------------------------------------------------


@every_method
def test_shapes_signs_and_fields_are_what_the_list_of_methods_promises(method: str) -> None:
    known, images = METHODS[method], pictures(2, 22)[:, :, :20]  # not square
    found = explained(method, small(), images, 1)
    have = parts(found)
    assert found.method == known.name == method
    assert found.maps.shape == (2, 20, 22)
    assert found.scores.shape == (2,)
    assert found.maps.abs().max() > 0
    assert bool((found.maps < 0).any()) == known.signed
    assert all(bool(torch.isfinite(tensor).all()) and not tensor.requires_grad for tensor in have.values())
    assert all(tensor.dtype == torch.float64 for tensor in have.values())
    assert ("layer_maps" in have) == known.takes_layer == (found.layer is not None)
    assert ("error" in have) == known.complete
    if "gradient" in have and method != "saliency":
        assert distance(found.maps, have["gradient"].sum(1)) < 1e-9


@every_method
def test_scores_are_those_of_the_images_themselves(method: str) -> None:
    net, images = small(), pictures()
    net.eval()
    logits = net(images)
    wanted = (logits.softmax(1) if method == "rise" else logits)[[0, 1], [3, 1]]
    assert distance(explained(method, net, images, [3, 1]).scores, wanted.detach()) < 1e-9


# -- batches ----------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("most", [1, 3, 8])
def test_a_batch_in_pieces_of_any_size_is_each_image_alone(
    method: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, images, classes = small(), pictures(10), [0, 1, 2, 3, 0, 1, 2, 3, 1, 1]
    assert len(list(net.split(images))) == 2
    alone = {place: explained(method, net, images[[place]], classes[place]) for place in (0, 2, 7, 9)}
    monkeypatch.setattr(Network, "batch_size", lambda _net, _size: most)
    together = parts(explained(method, net, images, torch.tensor(classes)))
    for place, one in alone.items():
        for name, tensor in parts(one).items():
            if name == "error":
                assert abs(float(tensor[0] - together[name][place])) < 1e-6  # of a difference of nearly equal sums
            else:
                assert distance(together[name][place], tensor[0]) < 1e-8, name


@pytest.mark.parametrize("method", [name for name, known in METHODS.items() if known.passes <= 15])
def test_so_it_is_on_squeezenet_in_float32(method: str, squeezenet: Network, photos: Tensor) -> None:
    images = F.avg_pool2d(torch.cat([photos, photos.flip(3), photos.flip(2), photos, photos.roll(9, 2)]), 2)
    classes = [281, 967, 3, 4, 5, 6, 285, 7, 8, 9]
    together = METHODS[method](squeezenet, images, classes)
    for place in (0, 6, 9):
        alone = METHODS[method](squeezenet, images[[place]], classes[place])
        assert distance(together.maps[place], alone.maps[0]) < 1e-3
        assert float(together.scores[place]) == pytest.approx(float(alone.scores[0]), rel=1e-4)


@every_method
def test_one_class_for_all_is_that_class_for_each(method: str) -> None:
    net, images = small(), pictures(3)
    wanted = explained(method, net, images, [2, 2, 2])
    for target in (2, [2], torch.tensor(2), torch.tensor([2, 2, 2], dtype=torch.int32)):
        assert torch.equal(explained(method, net, images, target).maps, wanted.maps)


@every_method
def test_several_classes_of_an_image_are_each_class_alone(method: str) -> None:
    net, images, classes = small(), pictures(3), [[0, 3], [2, 1], [3, 3]]
    together = parts(explained(method, net, images, classes))
    for place in range(2):
        alone = parts(explained(method, net, images, [row[place] for row in classes]))
        assert alone.keys() == together.keys()
        for name, tensor in alone.items():
            assert together[name].shape == (3, 2, *tensor.shape[1:])
            assert distance(together[name][:, place], tensor) < 1e-6, name
    assert distance(together["maps"][:2, 0], together["maps"][:2, 1]) > 1e-3
    single = explained(method, net, images, torch.tensor(classes)[:, :1])
    assert single.maps.shape == (3, 1, SIZE, SIZE)
    assert distance(single.maps, together["maps"][:, :1]) < 1e-9


@every_method
def test_the_same_call_gives_the_same_bytes(method: str) -> None:
    net, images = small(), pictures()
    found = parts(explained(method, net, images, [[0, 1], [1, 2]]))
    torch.manual_seed(99)
    again = parts(explained(method, net, images, [[0, 1], [1, 2]]))
    assert all(torch.equal(tensor, again[name]) for name, tensor in found.items())


@pytest.mark.parametrize("method", RANDOM)
def test_a_seed_gives_its_own_map_and_the_same_for_an_image_wherever_it_stands(method: str) -> None:
    net, images = small(), pictures(1).expand(3, -1, -1, -1)
    first, second = (explained(method, net, images, 1, seed=seed).maps for seed in (3, 4))
    assert distance(first, second) > 1e-2
    assert distance(first[1:], first[:1].expand(2, -1, -1)) < 1e-9
    assert torch.equal(explained(method, net, images, 1, seed=3).maps, first)


# -- units and probabilities ------------------------------------------------------------------------------------------


class UpTo(nn.Module):
    """A network that ends with one place of its layer `last`: its classes are that layer's channels."""

    def __init__(self, whole: Small, row: int, column: int) -> None:
        super().__init__()
        self.conv, self.bn, self.relu, self.last = whole.conv, whole.bn, whole.relu, whole.last
        self.row, self.column = row, column

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.relu(self.bn(self.conv(x))))[:, :, self.row, self.column]


def on_layer(method: str, layer: str) -> dict[str, Any]:
    return {"layer": layer} if METHODS[method].takes_layer else {}


@every_method
def test_a_unit_at_a_position_is_a_class_of_the_network_that_ends_there(method: str) -> None:
    net, images = small(), pictures()
    assert isinstance(net.module, Small)
    ready = Preprocess((SIZE, SIZE), SIZE)
    short = Network(UpTo(net.module, 5, 9), name="short", labels=Labels.generic(6), preprocess=ready)
    unit = Unit("last", 2, (5, 9))
    found = parts(explained(method, net, images, unit, **on_layer(method, "bn")))
    wanted = parts(explained(method, short, images, 2, **on_layer(method, "bn")))
    assert found["maps"].abs().max() > 0
    if method == "rise":  # which explains the probability of a class, and the activation of a unit
        logits = short.eval()(images).detach()
        assert distance(found["scores"], logits[:, 2]) < 1e-9
        return
    for name, tensor in wanted.items():
        assert distance(found[name], tensor) < 1e-6, name


@every_method
def test_a_unit_of_a_vector_is_a_class_where_the_vector_is_the_output(method: str) -> None:
    net, images = small(), pictures()
    unit = explained(method, net, images, Unit("fc", 2))
    target = explained(method, net, images, 2)
    if method == "rise":
        assert distance(unit.scores, net.eval()(images)[:, 2].detach()) < 1e-9
    else:
        assert distance(unit.maps, target.maps) < 1e-9
        assert unit.layer == target.layer


@every_method
def test_a_unit_without_a_position_holds_the_place_where_it_is_most_active_in_the_image(method: str) -> None:
    net, images = small(), pictures(3)
    found = parts(explained(method, net, images, Unit("last", 1), **on_layer(method, "bn")))
    activation = net.record(images, ["last"])["last"][:, 1]
    places = activation.flatten(1).argmax(1).tolist()
    assert len(set(places)) > 1
    for row, place in enumerate(places):
        position = (place // activation.shape[2], place % activation.shape[2])
        alone = parts(explained(method, net, images[[row]], Unit("last", 1, position), **on_layer(method, "bn")))
        for name, tensor in alone.items():
            assert distance(found[name][row], tensor[0]) < 1e-6, name


@every_method
def test_a_unit_of_a_map_in_one_row_is_that_of_the_map(method: str) -> None:
    class Rows(Small):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Flatten(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.rows(self.last(self.relu(self.bn(self.conv(x))))).mean(2))

    net, images = network(Rows()), pictures(3)
    row, square = (explained(method, net, images, Unit(name, 1), **on_layer(method, "bn")) for name in ("rows", "last"))
    assert distance(row.maps, square.maps) < 1e-9
    assert distance(row.scores, square.scores) < 1e-9


@every_method
def test_units_that_are_not_there_are_error_lines(method: str) -> None:
    wrong = {
        Unit("conv", 6): "units 0 to 5: there is no unit 6", Unit("conv", -1): "no unit -1",
        Unit("conv", 0, (18, 0)): r"a map of 18x18: there is no position \(18, 0\)",
        Unit("fc", 0, (0, 0)): "is not a map", Unit("lost", 0): "no layer 'lost'; did you mean last",
    }  # fmt: skip
    for unit, message in wrong.items():
        with pytest.raises(LayerError, match=message):
            explained(method, small(), pictures(1), unit)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "rise"])
def test_a_log_probability_is_the_score_of_the_network_that_ends_with_a_log_softmax(method: str) -> None:
    net, images = small(), pictures()
    if METHODS[method].needs_rule:
        with pytest.raises(RuleError, match="no rule for LogSoftmax"):
            explained(method, net, images, LogProbability(1))
        return
    longer = network(nn.Sequential(net.module, nn.LogSoftmax(1)))
    layer = on_layer(method, "bn")
    wanted = explained(method, longer, images, [1, 2], **{key: f"0.{name}" for key, name in layer.items()})
    found = explained(method, net, images, LogProbability([1, 2]), **layer)
    assert distance(found.maps, wanted.maps) < 1e-8
    assert distance(found.scores, wanted.scores) < 1e-9
    assert distance(found.maps, explained(method, net, images, [1, 2], **layer).maps) > 1e-3


# -- what it is given -------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "classes go from 0 to 3"), (-1, "classes go from 0 to 3"), ([0, 1], "2 classes for 3 images"),
        ([], "0 classes for 3 images"), ([0.5], "whole numbers"), ([True, False, True], "whole numbers"),
        (torch.zeros(3), "whole numbers"), ([[0, 1], [2, 3]], "2x2 classes for 3 images"),
        ([[0, 1], [2], [3]], "as many for each image"), ([[0, 1], [2, 4], [3, 3]], "classes go from 0 to 3"),
        (torch.zeros(3, 1, 1, dtype=torch.long), "3x1x1 classes"), (torch.zeros(3, 0, dtype=torch.long), "3x0 classes"),
        (LogProbability(4), "classes go from 0 to 3"),
    ],
)  # fmt: skip
def test_bad_targets_are_error_lines(method: str, target: Target, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        explained(method, small(), torch.rand(3, 3, SIZE, SIZE), target)


@every_method
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, SIZE, SIZE, dtype=torch.uint8), "floats in .*, got uint8"),
        (torch.zeros(3, SIZE, SIZE), r"expected images \[N, 3, H, W\].* \[3, 20, 20\]"),
        (torch.zeros(2, 2, SIZE, SIZE), r"expected images .* \[2, 2, 20, 20\]"),
        (torch.zeros(0, 3, SIZE, SIZE), "an empty batch of images"),
    ],
)
@pytest.mark.parametrize("target", [0, Unit("last", 1)])
def test_bad_images_are_error_lines(method: str, images: Tensor, message: str, target: Target) -> None:
    with pytest.raises(PhospheneError, match=message):
        explained(method, small(), images, target)


@every_method
def test_a_class_needs_a_classifier_and_a_unit_none(method: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3))
    net = Network(module, name="f", labels=None, preprocess=Preprocess((SIZE, SIZE), SIZE)).double()
    for target in (0, LogProbability(0)):
        with pytest.raises(NetworkError, match="needs a network that classifies"):
            explained(method, net, pictures(1), target)
    assert explained(method, net, pictures(1), Unit("2", 1)).maps.abs().max() > 0


@every_cam
@pytest.mark.parametrize(("layer", "near"), [("fc", "relu#2"), ("flat", "pool"), ("head", "pool")])
def test_a_layer_without_a_map_is_an_error_that_names_the_nearest_with_one(method: str, layer: str, near: str) -> None:
    class Pooled(Small):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.last(self.relu(self.bn(self.conv(x)))))
            return self.fc(self.head(self.flat(self.pool(x))))

    net = network(Pooled()) if layer != "fc" else small()
    near = near if layer != "fc" else "relu"
    with pytest.raises(LayerError, match=rf"layer '{layer}' has no spatial map .*nearest that has one is '{near}'"):
        explained(method, net, pictures(1), 0, layer=layer)
    with pytest.raises(LayerError, match="no layer 'bm'; did you mean bn"):
        explained(method, net, pictures(1), 0, layer="bm")


# -- NaN --------------------------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_in_an_image_is_said_to_be_in_the_image(method: str, bad: float) -> None:
    images = pictures(3)
    images[1, 2, 10, 10] = bad
    with pytest.raises(ImageError, match="the image has NaN or infinity in it"):
        explained(method, small(), images, 0)


@every_method
@pytest.mark.parametrize("name", ["conv.weight", "bn.running_var", "fc.bias"])
def test_nan_in_a_weight_names_its_layer(method: str, name: str) -> None:
    net = small()
    net.module.state_dict()[name].flatten()[0] = torch.nan
    layer, _, kind = name.partition(".")
    with pytest.raises(NetworkError, match=rf"the {kind} of layer '{layer}' of small has NaN"):
        explained(method, net, pictures(1), 0)


def test_nan_in_a_weight_of_the_network_itself_has_no_layer_to_name() -> None:
    class Scaled(Small):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(torch.nan))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * self.scale)

    with pytest.raises(NetworkError, match="the scale of net has NaN"):
        explained("gradient", network(Scaled()), pictures(1), 0)


class Huge(nn.Module):
    """Linear, and too much for any number."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1e200 * 1e200


@every_method
def test_nan_on_the_way_names_the_layer_where_it_begins_and_leaves_nothing_behind(method: str) -> None:
    net = network(Act(Huge()))
    net.prepared  # noqa: B018
    before = [state(module) for module in (net.module, net.prepared)]
    with pytest.raises(NetworkError, match=r"NaN or infinity for this image: they begin in layer 'block\.2'$"):
        explained(method, net, pictures(1), 0)
    assert [state(module) for module in (net.module, net.prepared)] == before


def test_nan_that_only_the_gradients_have_is_said_to_be_there() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.amax(1, keepdim=True) - x).sqrt()

    for method in ("gradient", "saliency", "smoothgrad", "integrated-gradients", "gradient-x-input"):
        with pytest.raises(NetworkError, match="they begin in its gradients"):
            explained(method, network(Act(Root())), pictures(1), 0)


# -- what has no rule ---------------------------------------------------------------------------------------------------


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class Masked(nn.Module):
    """A ReLU that no rule can see."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (x > 0)


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * (ctx.saved_tensors[0] > 0)


class Custom(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(Own.apply(x))


UNRULED: dict[str, Callable[[], nn.Module]] = {
    "gate": Gate, "mask": Masked, "custom function": Custom, "sigmoid": nn.Sigmoid, "group norm": lambda: nn.GroupNorm(2, 6),
    "transposed convolution": lambda: nn.Sequential(nn.ConvTranspose2d(6, 6, 3), nn.Softmax(1)),
}  # fmt: skip


@every_rule
@pytest.mark.parametrize("name", UNRULED)
def test_what_has_no_rule_names_the_module_and_the_methods_that_work(method: str, name: str) -> None:
    net, images = network(Act(UNRULED[name]()), name="mynet"), pictures(1)
    with pytest.raises(RuleError) as caught:
        explained(method, net, images, 0)
    line = str(caught.value)
    assert "module 'block.2' of mynet" in line or "module 'block.2." in line
    assert line.count("\n") == 0
    listed = line.split("for this network there are ")[1].split(", ")
    assert set(listed) == {other for other, known in METHODS.items() if not known.needs_rule}


@every_method
def test_whoever_is_named_as_working_everywhere_does(method: str) -> None:
    net, images = network(Act(Gate())), pictures(1)
    if not METHODS[method].needs_rule:
        assert explained(method, net, images, 0).maps.abs().max() > 0


@every_rule
def test_a_refusal_leaves_nothing_behind(method: str) -> None:
    net = network(Act(Gate()))
    before = [state(module) for module in (net.module, net.prepared)]
    with pytest.raises(RuleError):
        explained(method, net, pictures(1), 0)
    assert [state(module) for module in (net.module, net.prepared)] == before


# -- what must not change -----------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("target", [[[0, 1], [2, 3]], Unit("last", 1)])
def test_nothing_of_the_callers_is_touched_in_train_mode_either(method: str, target: Target) -> None:
    net, images = small(), pictures().requires_grad_()
    net.module.train()
    net.module.get_submodule("bn").eval()
    kept = images.detach().clone()
    before, random, grad_mode = state(net.module), torch.get_rng_state(), torch.is_grad_enabled()
    found = explained(method, net, images, target)
    assert state(net.module) == before
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == grad_mode
    assert torch.equal(images, kept)
    assert images.grad is None and images.requires_grad
    assert not any(tensor.requires_grad for tensor in parts(found).values())
    fresh = small()
    fresh.module.load_state_dict(net.module.state_dict())
    fresh.module.eval()
    assert torch.equal(explained(method, fresh, kept, target).maps, found.maps)


@every_method
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(method: str, mode: type) -> None:
    net, images = small(), pictures()
    for target in (1, Unit("last", 1)):
        wanted = explained(method, net, images, target)
        with mode():
            assert torch.equal(explained(method, net, images * 1.0, target).maps, wanted.maps)
            fresh = small()
            fresh.module.load_state_dict(net.module.state_dict())
            assert distance(explained(method, fresh, images * 1.0, target).maps, wanted.maps) < 1e-9
    assert torch.is_grad_enabled()


@every_method
def test_a_network_that_was_changed_is_read_anew(method: str) -> None:
    net, images = small(), pictures()
    before = explained(method, net, images, 1).maps
    with torch.no_grad():
        net.module.get_parameter("last.weight").neg_()
    fresh = small()
    fresh.module.load_state_dict(net.module.state_dict())
    after = explained(method, net, images, 1).maps
    assert distance(after, before) > 1e-3
    assert torch.equal(after, explained(method, fresh, images, 1).maps)
