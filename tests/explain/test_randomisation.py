"""Cascading randomisation: which layers are drawn anew, what their norms learn, and what it does to maps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from toys import CLASSES, Small, network, pictures, state

from phosphene.errors import NetworkError, PhospheneError
from phosphene.explain import METHODS
from phosphene.explain.metrics.randomisation import cascade, likeness, weighted_layers
from phosphene.models import Network


class Deep(nn.Module):
    """Convolutions with and without biases and norms, registered in another order than they run in."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(8, CLASSES)
        self.norm2, self.norm1 = nn.BatchNorm2d(8), nn.BatchNorm2d(6, momentum=0.03)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, groups=2, bias=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.conv1(x)).relu()
        return self.fc(self.drop(self.norm2(self.conv2(x)).relu().mean((2, 3))))


LAYERS = ["conv1", "norm1", "conv2", "norm2", "fc"]


def deep() -> Network:
    net = network(Deep(), name="deep")
    assert weighted_layers(net) == LAYERS
    return net


def weights(net: Network) -> dict[str, dict[str, Tensor]]:
    """Layer -> name -> a copy of it."""
    return {
        layer: {name: value.clone() for name, value in net.module.get_submodule(layer).state_dict().items()}
        for layer in weighted_layers(net)
    }


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


# -- what is drawn anew -----------------------------------------------------------------------------------------------


def test_layers_with_weights_of_their_own_are_listed_in_order_of_execution(squeezenet: Network) -> None:
    found = weighted_layers(squeezenet)
    assert (found[0], found[1], found[-1], len(found)) == ("features.0", "features.3.squeeze", "classifier.1", 26)


def test_the_given_network_is_left_as_it_was_and_the_copy_is_in_eval_mode() -> None:
    net = deep()
    net.module.train()
    net.module.get_submodule("norm1").eval()
    before = state(net)
    images = pictures(3)
    whole = net.record(images, ["fc"])["fc"]
    for _, twin in cascade(net, images, steps=5):
        assert twin is not net and not any(child.training for child in twin.module.modules())
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in net.parameters()}
        twin.logits(images)
    assert state(net) == before
    assert torch.equal(net.record(images, ["fc"])["fc"], whole)
    norm = twin.module.get_submodule("norm1")
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == 0.03
    assert not any(value for child in twin.modules() for key, value in vars(child).items() if "hooks" in key and value)


def test_each_step_draws_the_next_layers_from_the_end_and_leaves_all_earlier_ones_bit_for_bit() -> None:
    net, images = deep(), pictures(4)
    trained, drawn = weights(net), {}
    for step, (layer, twin) in enumerate(cascade(net, images, steps=5), start=1):
        assert layer == LAYERS[-step]
        now = weights(twin)
        for name in LAYERS[:-step]:
            assert same(trained[name], now[name]), (layer, name)
        for name in LAYERS[-step:]:
            assert not torch.equal(trained[name]["weight"], now[name]["weight"])
            learned = {key: value for key, value in now[name].items() if "running" not in key and "num" not in key}
            assert same(drawn.setdefault(name, learned), now[name])  # once: not again in later steps
    assert step == len(LAYERS)


def test_weights_are_drawn_after_he_and_biases_are_zero() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 256, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 200))
    net = network(nn.Sequential(wide, nn.ReLU(), nn.Linear(200, CLASSES)), size=8)
    _, twin = next(cascade(net, pictures(2, 8), steps=1))
    for name, fan_in in (("0.0", 75), ("0.4", 256)):
        weight, bias = (getattr(twin.module.get_submodule(name), key).detach() for key in ("weight", "bias"))
        values = weight.numel()
        assert float(weight.std()) == pytest.approx(math.sqrt(2 / fan_in), rel=5 / math.sqrt(values))
        assert abs(float(weight.mean())) < 5 * math.sqrt(2 / fan_in / values)
        assert not bias.any()


def test_a_seed_fixes_the_weights_and_another_draws_others() -> None:
    net, images = deep(), pictures(3)
    runs: list[dict[str, dict[str, Tensor]]] = []
    for seed in (5, 5, 6):
        torch.manual_seed(len(runs))
        runs.append([weights(twin) for _, twin in cascade(net, images, seed=seed)][-1])
    assert all(same(runs[0][name], runs[1][name]) for name in LAYERS)
    for name in ("conv1", "conv2", "fc"):
        assert not torch.equal(runs[0][name]["weight"], runs[2][name]["weight"])
    few = [weights(twin) for _, twin in cascade(net, images, seed=5, steps=2)][-1]
    assert all(same(runs[0][name], few[name]) for name in ("conv1", "conv2", "fc"))


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        (1, ["conv1"]), (2, ["norm2", "conv1"]), (3, ["norm2", "conv2", "conv1"]),
        (4, ["fc", "norm2", "norm1", "conv1"]), (5, LAYERS[::-1]), (99, LAYERS[::-1]),
    ],
)  # fmt: skip
def test_layers_are_taken_in_groups_and_the_last_step_reaches_the_first(steps: int, wanted: list[str]) -> None:
    assert [layer for layer, _ in cascade(deep(), pictures(2), steps=steps)] == wanted


def test_groups_are_of_about_one_size(squeezenet: Network, photos: Tensor) -> None:
    order = weighted_layers(squeezenet)[::-1]
    ends = [order.index(layer) + 1 for layer, _ in cascade(squeezenet, photos, steps=8)]
    assert [after - before for before, after in zip([0, *ends], ends)] in ([3, 3, 4, 3, 3, 4, 3, 3], [3, 3, 4, 3] * 2)


# -- norms ------------------------------------------------------------------------------------------------------------


def test_norms_drawn_anew_have_the_statistics_of_the_redrawn_network_on_the_images() -> None:
    net, images = deep(), pictures(5)
    for layer, twin in cascade(net, images, steps=5):
        module: Any = twin.module
        with torch.no_grad():
            x = module.conv1(twin.normalise(images))
            x = by_hand(module.norm1, x, drawn=layer in ("norm1", "conv1")).relu()
            x = by_hand(module.norm2, module.conv2(x), drawn=layer != "fc").relu()
            wanted = module.fc(x.mean((2, 3)))
        assert twin.logits(images).sub(wanted).abs().max() < 0.01 * wanted.abs().max()  # theirs is the biased variance
        assert torch.allclose(twin.logits(images), twin.module(twin.normalise(images)), atol=1e-9)


def by_hand(norm: Any, x: Tensor, *, drawn: bool) -> Tensor:
    """Its output for a batch; where it has been drawn anew, its statistics are checked to be those of this batch."""
    mean, variance = norm.running_mean, norm.running_var
    if drawn:
        values = x.transpose(0, 1).flatten(1)
        mean = values.sum(1) / values.shape[1]
        spread = (values - mean[:, None]).square().sum(1)
        assert torch.allclose(norm.running_mean, mean, atol=1e-12)
        assert torch.allclose(norm.running_var, spread / (values.shape[1] - 1), atol=1e-12)
        assert norm.weight.eq(1).all() and norm.bias.eq(0).all()
        variance = spread / values.shape[1]
    x = (x - mean.view(1, -1, 1, 1)) / (variance.view(1, -1, 1, 1) + norm.eps).sqrt()
    return x * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)


def test_many_images_come_in_pieces_whose_statistics_are_averaged() -> None:
    net, images = network(Small(), name="small"), pictures(16)
    pieces = list(net.split(images))
    assert len(pieces) == 2
    _, twin = next(cascade(net, images, steps=1))
    module: Any = twin.module
    with torch.no_grad():
        maps = [module.conv(twin.normalise(piece)) for piece in pieces]
    assert torch.allclose(module.bn.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    assert torch.allclose(module.bn.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))


def test_norms_that_keep_no_statistics_stay_without() -> None:
    norm = nn.BatchNorm2d(6, track_running_stats=False)
    net = network(nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)))
    for _, twin in cascade(net, pictures(2)):
        copied: Any = twin.module[1]  # type: ignore[index]
        assert copied.running_mean is None and not copied.training


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1])
def test_no_steps_are_an_error_line(steps: int) -> None:
    with pytest.raises(PhospheneError, match=f"{steps} steps: a cascade needs at least 1"):
        next(cascade(deep(), pictures(1), steps=steps))


def test_a_network_without_weights_is_an_error_line() -> None:
    net = network(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Softplus()), name="bare")
    with pytest.raises(NetworkError, match="bare has no layer with weights: there is nothing to draw anew"):
        next(cascade(net, pictures(1)))


def test_a_network_that_cannot_be_copied_is_an_error_line() -> None:
    class Stubborn(Small):
        def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
            raise RuntimeError("not me")

    with pytest.raises(NetworkError, match="stubborn can't be copied, so it can't be randomised: not me"):
        next(cascade(network(Stubborn(), name="stubborn"), pictures(1)))


def test_a_norm_that_sees_one_value_per_channel_is_an_error_line() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(6), nn.Linear(6, 4)
    )
    net = network(module, name="head")
    assert len(list(cascade(net, pictures(2)))) == 3
    with pytest.raises(NetworkError, match="a batch norm of head can't be drawn anew: Expected more than 1 value"):
        list(cascade(net, pictures(1)))


# -- likeness ---------------------------------------------------------------------------------------------------------


def scaled(values: Tensor) -> np.ndarray:
    return (values.abs() / values.abs().max()).double().numpy()


@pytest.mark.parametrize("shape", [(7, 7), (16, 23)])
def test_likeness_is_what_scikit_image_and_scipy_say_of_absolute_values(shape: tuple[int, int]) -> None:
    one = torch.randn(shape)
    for other in (one + 0.3 * torch.randn(shape), torch.randn(shape) * 50, (2 * one).round(), one.exp()):
        found = likeness(one, other)
        wanted = structural_similarity(scaled(one), scaled(other), data_range=1.0, win_size=7)
        assert found.ssim == pytest.approx(float(np.asarray(wanted)), abs=1e-6)
        assert found.rank == pytest.approx(spearmanr(scaled(one).ravel(), scaled(other).ravel())[0], abs=1e-6)
        back = likeness(other, one)
        assert (back.ssim, back.rank) == (pytest.approx(found.ssim), pytest.approx(found.rank))


def test_a_map_is_like_itself_whatever_its_scale_and_signs() -> None:
    one = torch.randn(12, 12)
    signs = torch.where(torch.rand(12, 12) < 0.5, -1.0, 1.0)
    for other in (one, -one, 1e-6 * one, one * signs):
        found = likeness(one, other)
        assert (found.ssim, found.rank) == (pytest.approx(1, abs=1e-5), pytest.approx(1))
    assert likeness(one, 1 / one).rank == pytest.approx(-1)


def test_ranks_have_ties_worked_out_by_hand() -> None:
    one, other = torch.zeros(8, 8), torch.zeros(8, 8)
    one[:, 0], other[:2] = 1, 1  # 8 and 16 of 64; 2 in both
    covariance = 2 / 64 - 8 / 64 * 16 / 64
    wanted = covariance / math.sqrt(8 / 64 * 56 / 64 * (16 / 64) * (48 / 64))
    assert likeness(one, other).rank == pytest.approx(wanted)


@pytest.mark.parametrize("level", [0.0, 3.0, -2.0])
def test_a_constant_map_has_no_ranks_and_is_an_error_to_nobody(level: float) -> None:
    constant, other = torch.full((9, 9), level), torch.randn(9, 9)
    for one, two in ((constant, other), (other, constant), (constant, constant)):
        found = likeness(one, two)
        assert found.rank == 0 and math.isfinite(found.ssim) and found.ssim <= 1
    assert likeness(constant, constant).ssim == pytest.approx(1)


@pytest.mark.parametrize(
    ("one", "other"), [((8, 8), (8, 9)), ((6, 8), (6, 8)), ((8, 6), (8, 6)), ((2, 8, 8), (2, 8, 8)), ((64,), (64,))]
)
def test_maps_that_cannot_be_compared_are_error_lines(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match="expected two maps of one shape, 7 pixels or more, got"):
        likeness(torch.rand(one), torch.rand(other))


# -- a trained network ------------------------------------------------------------------------------------------------


def test_guided_backpropagation_hardly_notices_that_half_of_the_network_is_gone(
    squeezenet: Network, photos: Tensor
) -> None:
    """As in the paper. Measured over the seeds 0 to 7: guided 0.86, saliency 0.50, gradient 0.40, Grad-CAM 0.11."""
    methods = ("guided-backprop", "saliency", "gradient", "grad-cam")
    classes = [row.indices[0] for row in squeezenet.predict(photos, 1)]
    trained = {method: METHODS[method](squeezenet, photos, classes).maps for method in methods}
    ranks: dict[str, list[float]] = {method: [] for method in methods}
    for seed in (1, 3, 4, 5):
        layer, twin = next(cascade(squeezenet, photos, steps=2, seed=seed))
        assert layer == "features.9.squeeze"  # 13 of 26 layers
        alive = twin.logits(photos).gather(1, torch.tensor(classes)[:, None])[:, 0] > 0.5
        for method in methods:
            maps = METHODS[method](twin, photos, classes).maps
            ranks[method] += [likeness(trained[method][i], maps[i]).rank for i in range(2) if alive[i]]
    means = {method: sum(found) / len(found) for method, found in ranks.items()}
    assert len(ranks["gradient"]) >= 6  # the network ends with a ReLU, under which a class may be silent
    assert means["guided-backprop"] > 0.75
    assert means["guided-backprop"] > means["saliency"] + 0.2
    assert means["guided-backprop"] > means["grad-cam"] + 0.4
    assert max(means["grad-cam"], means["gradient"]) < 0.6
