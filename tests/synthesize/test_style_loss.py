"""The loss of neural style against the formulas written as loops; whole, by blocks, and around a torus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import LayerError
from phosphene.models import Network, load
from phosphene.synthesize.style_loss import Evaluation, StyleLoss, Targets, Weights
from phosphene.synthesize.style_targets import blended, features_of, guides_of, map_sizes, moments_of

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def network(module: nn.Module, size: int = 16) -> Network:
    return load(module, device="cpu", input_size=size, mean=MEAN, std=STD)


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, padding=1), nn.Softplus()
    ).double()


# -- the formulas, slowly ---------------------------------------------------------------------------------------


def layers_of(module: Any, image: Tensor) -> list[Tensor]:
    """What each layer of a Sequential gives for the first picture, as F `[N_l, M_l]`."""
    x = (image - torch.tensor(MEAN).to(image).view(1, 3, 1, 1)) / torch.tensor(STD).to(image).view(1, 3, 1, 1)
    found = []
    for layer in module:
        x = layer(x)
        found.append(x[0].flatten(1))
    return found


def slow_gram(features: Tensor) -> list[list[Tensor]]:
    count, places = features.shape
    return [
        [torch.stack([features[i, k] * features[j, k] for k in range(places)]).sum() for j in range(count)]
        for i in range(count)
    ]


def slow_energy(features: Tensor, style: Tensor) -> Tensor:
    """`1 / (4 N^2 M^2) sum_ij (G_ij - A_ij)^2`, A being that of M places of a style of another size."""
    (count, places), others = features.shape, style.shape[1]
    mine, theirs = slow_gram(features), slow_gram(style)
    total = features.new_zeros(())
    for i in range(count):
        for j in range(count):
            total = total + (mine[i][j] - theirs[i][j] * (places / others)) ** 2
    return total / (4 * count**2 * places**2)


def slow_content(features: Tensor, target: Tensor) -> Tensor:
    total = features.new_zeros(())
    for found, wanted in zip(features.flatten(), target.flatten(), strict=True):
        total = total + (found - wanted) ** 2
    return total / 2


# -- whole ------------------------------------------------------------------------------------------------------


def made(module: nn.Module, content: Tensor, style: Tensor, weights: Weights, **options: Any) -> StyleLoss:
    net = network(module)
    block = options.get("block")
    targets = Targets(
        features_of(net, content, list(weights.content), block), moments_of(net, style, list(weights.style), block)
    )
    return StyleLoss(net, weights, targets, **options)


@pytest.mark.parametrize("style_size", [(6, 8), (4, 6), (8, 10)])
def test_value_and_gradient_are_those_of_the_formulas(style_size: tuple[int, int]) -> None:
    module = small()
    image, content = torch.rand(2, 1, 3, 6, 8, dtype=torch.float64)
    style = torch.rand(1, 3, *style_size, dtype=torch.float64)
    weights = Weights({"3": 0.7, "1": 0.03}, {"1": 900.0, "4": 4000.0})
    found = made(module, content, style, weights)(image)

    leaf = image.clone().requires_grad_()
    mine, wanted, theirs = (layers_of(module, each) for each in (leaf, content, style))
    contents = {name: slow_content(mine[int(name)], wanted[int(name)]) for name in weights.content}
    styles = {name: slow_energy(mine[int(name)], theirs[int(name)]) for name in weights.style}
    parts = [0.7 * contents["3"], 0.03 * contents["1"], 900 * styles["1"], 4000 * styles["4"]]
    total = torch.stack(parts).sum()

    assert found.content == pytest.approx({name: float(value.detach()) for name, value in contents.items()}, rel=1e-9)
    assert found.style == pytest.approx({name: float(value.detach()) for name, value in styles.items()}, rel=1e-9)
    assert found.total == pytest.approx(float(total.detach()), rel=1e-9)
    torch.testing.assert_close(found.gradient, torch.autograd.grad(total, leaf)[0], rtol=1e-7, atol=1e-12)
    assert min(float(part.detach()) for part in parts) > 0.02 * found.total  # each counts


def test_the_gradient_is_the_slope_of_the_value() -> None:
    image, content, style = torch.rand(3, 1, 3, 6, 8, dtype=torch.float64)
    loss = made(small(), content, style, Weights({"4": 1.0}, {"1": 50.0, "4": 50.0}))
    gradient = loss(image).gradient
    for _ in range(3):
        way = torch.randn_like(image)
        steps = [loss(image + sign * 1e-5 * way).total for sign in (1, -1)]
        assert (steps[0] - steps[1]) / 2e-5 == pytest.approx(float((gradient * way).sum()), rel=1e-6)


def test_the_content_itself_has_no_content_loss_and_the_style_itself_no_style_loss() -> None:
    content, style = torch.rand(2, 1, 3, 6, 8, dtype=torch.float64)
    weights = Weights({"4": 1.0}, {"1": 1.0, "4": 1.0})
    loss = made(small(), content, style, weights)
    assert loss(content).content["4"] < 1e-20 < loss(style).content["4"]
    assert max(loss(style).style.values()) < 1e-20 < min(loss(content).style.values())
    assert torch.equal(made(small(), content, content, weights)(content).gradient.abs() < 1e-9, content > -1)


def test_a_style_twice_beside_itself_is_the_same_style() -> None:
    """Seen by one pixel at a time, so that no border matters."""
    module = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh()).double()
    image, style = torch.rand(2, 1, 3, 6, 8, dtype=torch.float64)
    weights = Weights(style={"1": 10.0})
    once, twice = (made(module, image, one, weights)(image) for one in (style, torch.cat([style, style], 2)))
    assert once.total == pytest.approx(twice.total, rel=1e-12) and once.total > 1e-3
    torch.testing.assert_close(once.gradient, twice.gradient)


def test_weights_multiply() -> None:
    image, content, style = torch.rand(3, 1, 3, 6, 8, dtype=torch.float64)
    module = small()
    one = made(module, content, style, Weights({"4": 1.0}, {"1": 1.0}))(image)
    other = made(module, content, style, Weights({"4": 3.0}, {"1": 50.0}))(image)
    assert (other.content, other.style) == (one.content, one.style)
    assert one.total == pytest.approx(one.content["4"] + one.style["1"])
    assert other.total == pytest.approx(3 * one.content["4"] + 50 * one.style["1"])


def bright(picture: Tensor) -> Tensor:
    return 0.3 * picture.square().sum()


@pytest.mark.parametrize("block", [None, 4])
def test_penalties_are_added(block: int | None) -> None:
    image, content, style = torch.rand(3, 1, 3, 10, 8, dtype=torch.float64)
    module = small()
    plain = made(module, content, style, Weights({"4": 1.0}, {"1": 9.0}), block=block)(image)
    more = made(module, content, style, Weights({"4": 1.0}, {"1": 9.0}, [bright, lambda x: x.sum()]), block=block)
    found = more(image)
    assert found.total == pytest.approx(plain.total + float(0.3 * image.square().sum() + image.sum()))
    torch.testing.assert_close(found.gradient, plain.gradient + 0.6 * image + 1)
    assert found.content == plain.content and found.style == plain.style


@pytest.mark.parametrize("block", [None, 4])
def test_one_part_alone(block: int | None) -> None:
    image, content, style = torch.rand(3, 1, 3, 10, 8, dtype=torch.float64)
    module = small()
    both = made(module, content, style, Weights({"4": 2.0}, {"1": 9.0}), block=block)(image)
    parts = [
        made(module, content, style, w, block=block)(image) for w in (Weights({"4": 2.0}), Weights({}, {"1": 9.0}))
    ]
    assert both.total == pytest.approx(sum(part.total for part in parts))
    torch.testing.assert_close(both.gradient, parts[0].gradient + parts[1].gradient)
    assert parts[0].style == {} == parts[1].content


def test_an_image_is_left_as_it_is() -> None:
    image, content, style = torch.rand(3, 1, 3, 6, 8, dtype=torch.float64)
    before = image.clone()
    found = made(small(), content, style, Weights({"4": 1.0}, {"1": 1.0}))(image)
    assert torch.equal(image, before) and not image.requires_grad and not found.gradient.requires_grad


def test_no_such_layer() -> None:
    with pytest.raises(LayerError, match="no layer '9'"):
        StyleLoss(network(small()), Weights(style={"9": 1.0}), Targets())


# -- several styles, and regions --------------------------------------------------------------------------------


def test_blended_styles_have_the_gradient_of_their_mean_loss() -> None:
    image, *styles = torch.rand(4, 1, 3, 6, 8, dtype=torch.float64)
    net, shares = network(small()), [1.0, 3.0, 0.5]
    parts = [moments_of(net, one, ["1", "4"], None) for one in styles]
    weights = Weights(style={"1": 20.0, "4": 300.0})
    found = StyleLoss(net, weights, Targets(style=blended(parts, shares)))(image)
    alone = [StyleLoss(net, weights, Targets(style=part))(image).gradient for part in parts]
    wanted = sum((share / 4.5 * gradient for share, gradient in zip(shares, alone, strict=True)), torch.zeros(()))
    torch.testing.assert_close(found.gradient, wanted)


def test_each_region_is_compared_with_its_own_style() -> None:
    """Seen by one pixel at a time: two halves are two pictures."""
    net = network(nn.Sequential(nn.Conv2d(3, 5, 1), nn.Tanh()).double())
    image, one, other = torch.rand(3, 1, 3, 6, 8, dtype=torch.float64)
    masks = torch.zeros(2, 6, 8, dtype=torch.float64)
    masks[0, :, :3] = 1
    masks[1, :, 3:] = 1
    parts = [moments_of(net, style, ["1"], None)["1"] for style in (one, other)]
    weights = Weights(style={"1": 7.0})
    guides = guides_of(masks, {"1": (6, 8)})
    found = StyleLoss(net, weights, Targets(style={"1": torch.cat(parts)}, guides=guides))(image)
    left, right = (
        StyleLoss(net, weights, Targets(style={"1": part}))(half)
        for part, half in zip(parts, (image[..., :3], image[..., 3:]), strict=True)
    )
    assert found.total == pytest.approx(left.total + right.total, rel=1e-12)
    torch.testing.assert_close(found.gradient, torch.cat([left.gradient, right.gradient], 3))


def test_guides_are_means_of_masks() -> None:
    masks = torch.rand(2, 6, 8)
    found = guides_of(masks, {"fine": (6, 8), "coarse": (3, 2)})
    assert torch.equal(found["fine"], masks)
    wanted = masks.view(2, 3, 2, 2, 4).mean((2, 4))
    torch.testing.assert_close(found["coarse"], wanted)


# -- by blocks --------------------------------------------------------------------------------------------------


class Same(nn.Module):
    """TensorFlow's "same" padding, which lies elsewhere for odd sizes than for even ones."""

    def __init__(self) -> None:
        super().__init__()
        from timm.layers import Conv2dSame  # type: ignore[attr-defined]

        self.first, self.act = Conv2dSame(3, 6, 3, stride=2), nn.Tanh()
        self.deep, self.again = Conv2dSame(6, 6, 3, stride=2, groups=6), nn.ReLU()
        self.last = nn.Conv2d(6, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.deep(self.act(self.first(x)))))


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(6, 8, 3, padding=1),
        nn.BatchNorm2d(8), nn.Tanh(), nn.AvgPool2d(2, 2), nn.Conv2d(8, 8, 5, padding=2), nn.ReLU(),
    )  # fmt: skip


BLOCKED: dict[str, tuple[Callable[[], nn.Module], tuple[str, ...], str]] = {
    "pooled": (pooled, ("1", "5", "8"), "5"),
    "same": (Same, ("act", "again", "last"), "last"),
}


def compare(
    net: Network,
    layers: tuple[str, ...],
    content_layer: str,
    size: tuple[int, int],
    side: int,
    *,
    masked: bool,
    within: float,
) -> None:
    """Value and gradient at once and by blocks, targets made the same way."""
    image, content = torch.rand(2, 1, 3, *size, dtype=net.dtype)
    styles = torch.rand(2, 1, 3, size[1] + 9, size[0] + 4, dtype=net.dtype) ** 3
    found: list[Evaluation] = []
    scales: dict[str, float] = {}
    for block in (None, side):
        parts = [moments_of(net, style, layers, block) for style in styles]
        style = {layer: torch.cat([part[layer] for part in parts]) for layer in layers} if masked else parts[0]
        guides = None
        if masked:
            ramp = torch.linspace(0, 1, size[1], dtype=net.dtype).expand(size).clone()
            ramp[: size[0] // 3] = 0
            guides = guides_of(torch.stack([ramp, 1 - ramp]), map_sizes(net, size, layers, block))
        scales = scales or {layer: float(style[layer].square().mean()) for layer in layers}
        weights = Weights({content_layer: 1e-3}, {layer: 1 / scales[layer] for layer in layers})
        targets = Targets(features_of(net, content, [content_layer], block), style, guides)
        found.append(StyleLoss(net, weights, targets, block=block)(image))
    whole, parts_of = found
    assert parts_of.total == pytest.approx(whole.total, rel=within)
    assert parts_of.content == pytest.approx(whole.content, rel=within)
    assert parts_of.style == pytest.approx(whole.style, rel=within)
    assert float((parts_of.gradient - whole.gradient).norm()) < within * float(whole.gradient.norm())
    assert float((parts_of.gradient - whole.gradient).abs().max()) < within * float(whole.gradient.abs().max())


@pytest.mark.parametrize("size", [(64, 64), (65, 49), (51, 66), (40, 95)])
@pytest.mark.parametrize(("side", "masked"), [(4, False), (16, True), (40, False)])  # halos: 23 and 7 pixels
@pytest.mark.parametrize("name", BLOCKED)
def test_by_blocks_as_at_once(name: str, side: int, size: tuple[int, int], masked: bool) -> None:
    build, layers, content_layer = BLOCKED[name]
    torch.manual_seed(1)
    compare(network(build().double(), 96), layers, content_layer, size, side, masked=masked, within=1e-9)


@pytest.mark.parametrize(
    ("size", "side", "masked"), [((96, 128), 64, False), ((101, 75), 32, True), ((98, 131), 64, False)]
)
def test_the_bundled_networks_by_blocks(
    bundled_network: Network, size: tuple[int, int], side: int, masked: bool
) -> None:
    layers, content_layer = {
        "squeezenet1_1": (("features.1", "features.3", "features.6"), "features.4"),
        "efficientnet_lite0": (("bn1", "blocks.0.0", "blocks.1.1"), "blocks.0.0"),
    }[bundled_network.name]
    compare(bundled_network, layers, content_layer, size, side, masked=masked, within=1e-5)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.out = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.out(x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid())


@pytest.mark.parametrize("options", [{"block": 64}, {"wrap": True}])
def test_a_gate_over_the_whole_picture_can_not_be_cut(options: dict[str, Any]) -> None:
    net = network(Gated(), 12)
    image, style = torch.rand(2, 1, 3, 20, 20)
    targets = Targets(style=moments_of(net, style, ["out"], None))
    assert StyleLoss(net, Weights(style={"out": 1.0}), targets)(image).total > 0
    with pytest.raises(LayerError, match="can't be read in blocks"):
        StyleLoss(net, Weights(style={"out": 1.0}), targets, **options)


# -- around a torus ---------------------------------------------------------------------------------------------


def round_net(mode: Any) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), nn.Tanh(), nn.Conv2d(4, 5, 5, padding=2, padding_mode=mode),
        nn.Softplus(),
    ).double()  # fmt: skip


@pytest.mark.parametrize("size", [(9, 12), (7, 5)])
def test_a_torus_is_what_circular_padding_sees(size: tuple[int, int]) -> None:
    image, style = torch.rand(1, 3, *size, dtype=torch.float64), torch.rand(1, 3, 11, 10, dtype=torch.float64)
    target = moments_of(network(round_net("zeros")), style, ["1", "3"], None)
    weights = Weights(style={"1": 10.0, "3": 30.0})
    found = StyleLoss(network(round_net("zeros")), weights, Targets(style=target), wrap=True)(image)
    wanted = StyleLoss(network(round_net("circular")), weights, Targets(style=target))(image)
    plain = StyleLoss(network(round_net("zeros")), weights, Targets(style=target))(image)
    assert found.style == pytest.approx(wanted.style, rel=1e-9)
    torch.testing.assert_close(found.gradient, wanted.gradient)
    assert not torch.allclose(found.gradient, plain.gradient, rtol=1e-2)


def test_a_margin_wider_than_the_picture() -> None:
    image, style = torch.rand(1, 3, 2, 3, dtype=torch.float64), torch.rand(1, 3, 11, 10, dtype=torch.float64)
    net = network(round_net("zeros"))
    targets = Targets(style=moments_of(net, style, ["3"], None))
    loss = StyleLoss(net, Weights(style={"3": 30.0}), targets, wrap=True)
    wide = loss(image.repeat(1, 1, 4, 4))
    found = loss(image)
    assert found.total == pytest.approx(wide.total, rel=1e-9)
    torch.testing.assert_close(found.gradient, wide.gradient.view(1, 3, 4, 2, 4, 3).sum((2, 4)))


@pytest.mark.parametrize(
    ("name", "step", "size"),
    [("round", 1, (9, 12)), ("pooled", 8, (48, 56)), ("same", 4, (32, 44))],
)
def test_a_rolled_torus_is_the_same(name: str, step: int, size: tuple[int, int]) -> None:
    build: Any = {"round": lambda: round_net("zeros"), "pooled": pooled, "same": Same}[name]
    layers = {"round": ("1", "3"), "pooled": ("1", "8"), "same": ("act", "last")}[name]
    torch.manual_seed(1)
    net = network(build().double(), 96)
    image, style = torch.rand(1, 3, *size, dtype=torch.float64), torch.rand(1, 3, 64, 64, dtype=torch.float64) ** 2
    target = moments_of(net, style, layers, None)
    weights = Weights(style={layer: 1 / float(target[layer].square().mean()) for layer in layers})
    loss, bounded = (StyleLoss(net, weights, Targets(style=target), wrap=wrap) for wrap in (True, False))
    found = loss(image)
    for rows, columns in ((step, 0), (0, -2 * step), (3 * step, step)):
        rolled = loss(image.roll((rows, columns), (2, 3)))
        assert rolled.total == pytest.approx(found.total, rel=1e-9)
        torch.testing.assert_close(rolled.gradient, found.gradient.roll((rows, columns), (2, 3)))
        assert bounded(image.roll((rows, columns), (2, 3))).total != pytest.approx(bounded(image).total, rel=1e-6)
