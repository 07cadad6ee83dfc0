"""Neural style on a small network: what the weights, starts, sizes, colours and masks do, and what is refused."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import LayerError, NetworkError, PhospheneError
from phosphene.images import palette
from phosphene.images.resize import resize
from phosphene.models import Network, load
from phosphene.progress import Brake, Started, Step, braked, run
from phosphene.synthesize.gram import moments
from phosphene.synthesize.style import Checkpoint, Stylization, style
from phosphene.synthesize.style_layers import CHOICES, layers_for
from phosphene.synthesize.style_plan import NOISE, Plan, chosen_layers
from phosphene.synthesize.style_settings import StyleSettings

LAYERS: dict[str, Any] = {"style_layers": ("1", "4"), "content_layers": ("4",)}
MEAN, STD = (0.45, 0.5, 0.4), (0.25, 0.2, 0.3)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(8, 10, 3, padding=1), nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 4),
    )  # fmt: skip
    return load(module, device="cpu", input_size=16, mean=MEAN, std=STD)


def photo(height: int = 24, width: int = 20, seed: int = 1) -> Tensor:
    """Smooth colours, far from black and white."""
    coarse = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(0.3 + 0.4 * coarse, (height, width), mode="bicubic").clamp(0, 1)


def stripes(height: int = 24, width: int = 20, across: bool = True) -> Tensor:
    """Red and dark stripes down, or blue and pale ones across."""
    places = torch.arange(width if across else height) % 4 < 2
    on = (places[None, :] if across else places[:, None]).expand(height, width)
    colours = ((0.9, 0.3, 0.2), (0.3, 0.1, 0.1)) if across else ((0.2, 0.4, 0.9), (0.8, 0.9, 0.7))
    first, second = (torch.tensor(colour).view(3, 1, 1) for colour in colours)
    return torch.where(on, first, second)[None].contiguous()


def settings(**changes: Any) -> StyleSettings:
    return StyleSettings(**{"steps": 8, "scales": 1, **LAYERS, **changes})


def paint(network: Network, brake: int | None = None, **options: Any) -> Stylization:
    """`settings` may be given one by one."""
    own = {name: options.pop(name) for name in list(options) if name in StyleSettings.__dataclass_fields__}
    content, styles = options.pop("content", photo()), options.pop("styles", [stripes()])
    return run(braked(style(network, content, styles, settings=settings(**own), **options), Brake(brake)))


def features(network: Network, image: Tensor, layer: str) -> Tensor:
    """What a layer of the Sequential gives, by itself."""
    module: Any = network.module
    x = (image - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    with torch.no_grad():
        for part in module[: int(layer) + 1]:
            x = part(x)
    return x


def energy(network: Network, image: Tensor, other: Tensor, layer: str) -> float:
    """E_l of a picture and a style of its size, by the formula."""
    mine, theirs = (features(network, each, layer)[0].flatten(1) for each in (image, other))
    count, places = mine.shape
    return float((mine @ mine.T - theirs @ theirs.T).square().sum() / (4 * count**2 * places**2))


def distance(network: Network, image: Tensor, other: Tensor, layer: str) -> float:
    """1/2 sum (F - P)^2, by the formula."""
    return float((features(network, image, layer) - features(network, other, layer)).square().sum() / 2)


# -- painting ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{}, {"canvas": "fourier"}, {"optimiser": "adam", "steps": 60}, {"pooling": "average"}]
)
def test_the_loss_falls(network: Network, changes: dict[str, Any]) -> None:
    found = paint(network, **{"steps": 25, **changes})
    assert found.image.shape == photo().shape and not found.image.requires_grad
    assert float(found.image.min()) >= 0 and float(found.image.max()) <= 1
    assert len(found.totals[0]) == {"steps": 25, **changes}["steps"]
    assert found.totals[0][-1] < 0.75 * found.totals[0][0]
    assert all(found.end.style[layer] < 0.75 * found.reference.style[layer] for layer in ("1", "4"))
    assert 0 < found.end.content["4"] < 6 * found.reference.content["4"]
    assert not found.switches and not found.halted and found.block is None


def test_the_losses_are_those_of_the_formulas(network: Network) -> None:
    found = paint(network)
    for layer in ("1", "4"):
        assert found.end.style[layer] == pytest.approx(energy(network, found.image, stripes(), layer), rel=1e-3)
        assert found.reference.style[layer] == pytest.approx(energy(network, photo(), stripes(), layer), rel=1e-3)
    assert found.end.content["4"] == pytest.approx(distance(network, found.image, photo(), "4"), rel=1e-3)
    grey = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(photo())
    assert found.reference.content["4"] == pytest.approx(distance(network, grey, photo(), "4"), rel=1e-3)


def test_the_same_seed_gives_the_same_bytes(network: Network) -> None:
    first, same, other = (paint(network, start="random", seed=seed).image for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)
    torch.rand(7)
    assert torch.equal(paint(network).image, paint(network, seed=3).image)  # nothing is random there


def test_a_content_in_its_own_style_stays(network: Network) -> None:
    found = paint(network, styles=[photo()])
    torch.testing.assert_close(found.image, photo(), atol=1e-2, rtol=0)
    assert found.totals[0][0] < 1e-6


def test_pictures_are_left_as_they_are(network: Network) -> None:
    content, one = photo(), stripes()
    before = [tensor.clone() for tensor in (content, one, *network.module.state_dict().values())]
    paint(network, content=content, styles=[one])
    after = [content, one, *network.module.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# -- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 20.0])
def test_where_the_content_begins_the_loss_is_the_style_weight(network: Network, beta: float) -> None:
    found = paint(network, steps=1, style_weight=beta)
    assert found.totals[0][0] == pytest.approx(beta, rel=1e-4)
    shares = [found.weights[layer] * energy(network, photo(), stripes(), layer) for layer in ("1", "4")]
    assert shares == pytest.approx([beta / 2, beta / 2], rel=1e-3)


def test_the_first_of_several_sizes_begins_at_the_style_weight(network: Network) -> None:
    found = paint(network, content=photo(40, 36), steps=3, scales=2, style_weight=7.0)
    assert found.totals[0][0] == pytest.approx(7, rel=1e-4)
    assert found.totals[1][0] < 6.9


def test_where_an_even_grey_begins_the_loss_is_the_content_weight(network: Network) -> None:
    grey = torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(photo()).contiguous()
    found = paint(network, steps=1, style_weight=0, content_weight=3.0, begin=grey, content_layers=("1", "4"))
    assert found.totals[0][0] == pytest.approx(3, rel=1e-4)
    assert found.weights == {}


def test_layer_weights_have_their_proportions(network: Network) -> None:
    found = paint(network, steps=1, layer_weights=(1.0, 250.0), style_weight=5.0)
    assert found.weights["4"] / found.weights["1"] == pytest.approx(250)
    assert found.totals[0][0] == pytest.approx(5, rel=1e-4)


def test_a_layer_of_weight_zero_is_left_out(network: Network) -> None:
    found = paint(network, layer_weights=(0.0, 1.0))
    alone = paint(network, style_layers=("4",))
    assert list(found.weights) == ["4"] and found.weights["4"] == pytest.approx(alone.weights["4"])
    torch.testing.assert_close(found.image, alone.image)


def test_raw_losses_are_the_formulas(network: Network) -> None:
    begin = photo(seed=8)
    options: dict[str, Any] = {"raw": True, "steps": 1, "begin": begin, "content_weight": 0.3, "style_weight": 2e4}
    energies = {layer: energy(network, begin, stripes(), layer) for layer in ("1", "4")}
    content = 0.3 * distance(network, begin, photo(), "4")
    even = paint(network, **options)
    assert even.totals[0][0] == pytest.approx(content + 2e4 * (energies["1"] + energies["4"]) / 2, rel=1e-4)
    weighted = paint(network, layer_weights=(0.5, 3.0), **options)
    assert weighted.totals[0][0] == pytest.approx(content + 2e4 * (0.5 * energies["1"] + 3 * energies["4"]), rel=1e-4)
    assert weighted.weights == {"1": 1e4, "4": 6e4}
    assert content > 0.01 * even.totals[0][0] and content < 0.99 * even.totals[0][0]


def test_more_style_weight_brings_it_nearer_to_the_style_and_away_from_the_content(network: Network) -> None:
    betas = (0.02, 0.1, 1.0, 2.0, 4.0)
    found = [paint(network, steps=60, style_weight=beta) for beta in betas]
    contents = [each.end.content["4"] for each in found]
    styles = [
        sum(each.weights[layer] / beta * each.end.style[layer] for layer in ("1", "4"))
        for each, beta in zip(found, betas, strict=True)
    ]
    assert all(after > 1.5 * before for before, after in pairwise(contents))
    assert all(after < 0.98 * before for before, after in pairwise(styles))


def test_total_variation_counts_relative_to_that_of_the_content(network: Network) -> None:
    assert paint(network, steps=1, style_weight=2.0, tv=5.0).totals[0][0] == pytest.approx(7, rel=1e-3)
    rough, smooth = (paint(network, steps=30, tv=tv).image for tv in (0.0, 3.0))
    assert smooth.diff(dim=3).square().sum() < 0.7 * rough.diff(dim=3).square().sum()


def test_penalties_are_added(network: Network) -> None:
    found = paint(network, steps=1, style_weight=2.0, penalties=[lambda image: 3 * image.mean()])
    assert found.totals[0][0] == pytest.approx(2 + 3 * float(photo().mean()), rel=1e-4)
    dark, plain = (
        paint(network, steps=20, penalties=penalties).image for penalties in ([lambda image: 300 * image.mean()], [])
    )
    assert dark.mean() < plain.mean() - 0.1


# -- starts, sizes ----------------------------------------------------------------------------------------------


def begun(network: Network, **options: Any) -> Tensor:
    """What it begins with: one step of nothing."""
    return paint(network, steps=1, optimiser="adam", rate=1e-7, **options).image


def test_what_it_begins_with(network: Network) -> None:
    def close(found: Tensor, wanted: Tensor) -> None:
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)

    close(begun(network), photo())
    close(begun(network, start="style", styles=[stripes(30, 40)]), resize(stripes(30, 40), (24, 20)))
    close(begun(network, begin=photo(seed=9)), photo(seed=9))
    close(begun(network, begin=photo(48, 40, seed=9)), resize(photo(48, 40, seed=9), (24, 20)))
    noise = begun(network, start="random", content=photo(60, 60))
    assert noise.mean((0, 2, 3)).tolist() == pytest.approx(MEAN, abs=0.01)
    assert noise.std((0, 2, 3)).tolist() == pytest.approx([NOISE * std for std in STD], rel=0.05)


@pytest.mark.parametrize(
    ("size", "scales", "wanted"),
    [
        ((100, 60), None, [(100, 60)]),
        ((127, 127), None, [(127, 127)]),
        ((255, 200), None, [(255, 200)]),
        ((256, 200), None, [(128, 100), (256, 200)]),
        ((300, 512), None, [(75, 128), (150, 256), (300, 512)]),
        ((1024, 3), None, [(128, 1), (256, 1), (512, 2), (1024, 3)]),
        ((40, 41), 1, [(40, 41)]),
        ((40, 41), 3, [(10, 10), (20, 20), (40, 41)]),
    ],
)
def test_sizes(size: tuple[int, int], scales: int | None, wanted: list[tuple[int, int]]) -> None:
    found = StyleSettings(scales=scales).sizes(size)
    assert [max(one) for one in found] == [max(one) for one in wanted] and found[-1] == size
    assert all(abs(a - b) <= 1 for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other))


def test_small_pictures_come_first(network: Network) -> None:
    events: list[Any] = []
    job = style(network, photo(40, 36), [stripes()], settings=settings(steps=5, scales=3))
    found = run(job, events.append)
    assert found.sizes == [(10, 9), (20, 18), (40, 36)]
    assert events[0] == Started(f"style with {network.name}", 15, keeps=True)
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.done for event in steps] == list(range(1, 16)) and len(events) == 16
    assert [event.loss for event in steps] == [loss for totals in found.totals for loss in totals]
    assert [tuple(event.preview.shape[2:]) for event in steps if event.preview is not None] == found.sizes


def test_each_size_begins_with_the_one_before(network: Network) -> None:
    kept: list[Checkpoint] = []
    content = photo(40, 36)
    paint(network, content=content, steps=4, scales=2, keep=lambda place: kept.append(copy.deepcopy(place)))
    assert [(place.scale, place.progress.step) for place in kept if place.progress] == [
        (scale, step) for scale in (0, 1) for step in (1, 2, 3, 4)
    ]
    small = paint(network, content=resize(content, (20, 18)), steps=4).image
    torch.testing.assert_close(kept[4].picture, resize(small, (40, 36)), atol=1e-3, rtol=0)
    torch.testing.assert_close(kept[0].picture, resize(content, (20, 18)))


def test_styles_have_the_longer_side_of_the_picture_times_their_scale(network: Network) -> None:
    plan = Plan(network, (24, 20), [stripes(30, 60)], settings(style_scale=1.5), content=photo())
    assert plan.style_size(stripes(30, 60), (24, 20)) == (18, 36)
    assert plan.style_size(stripes(60, 30), (12, 10)) == (18, 9)
    texture = Plan(network, (80, 40), [stripes(30, 60)], settings())
    assert texture.style_size(stripes(30, 60), (80, 40)) == (30, 60)
    assert texture.style_size(stripes(30, 60), (40, 20)) == (15, 30)


def test_by_blocks_it_is_the_same_picture(network: Network) -> None:
    content, one = photo(100, 90), stripes(100, 130)
    whole, parts = (
        paint(network, content=content, styles=[one], steps=4, block=block, content_layers=("3",)) for block in (0, 64)
    )
    assert (whole.block, parts.block) == (None, 64)
    assert parts.totals[0] == pytest.approx(whole.totals[0], rel=1e-3)
    torch.testing.assert_close(parts.image, whole.image, atol=2e-3, rtol=0)


# -- several styles, masks, colours -----------------------------------------------------------------------------


def test_a_style_of_no_share_is_none(network: Network) -> None:
    both = paint(network, styles=[stripes(), stripes(across=False)], shares=[2.0, 0.0])
    torch.testing.assert_close(both.image, paint(network).image)


def test_shares_decide_which_style_it_is_like(network: Network) -> None:
    styles = [stripes(), stripes(across=False)]
    found = [paint(network, styles=styles, shares=shares, steps=30).image for shares in ([9.0, 1.0], [1.0, 9.0])]
    first, second = ([energy(network, image, one, "1") for one in styles] for image in found)
    assert first[0] < 0.5 * second[0] and second[1] < 0.5 * first[1]


def test_each_half_is_like_its_own_style(network: Network) -> None:
    styles, content = [stripes(32, 32), stripes(32, 32, across=False)], photo(32, 32)
    left = torch.zeros(1, 1, 32, 32)
    left[..., :16] = 1
    found = paint(network, content=content, styles=styles, masks=[left, 1 - left], steps=40, style_weight=1e3).image
    wanted = [moments(features(network, one, "1")) for one in styles]
    for half, own in ((found[..., :14], 0), (found[..., 18:], 1)):
        mine = moments(features(network, half, "1"))
        distances = [float((mine - each).square().sum()) for each in wanted]
        assert distances[own] < 0.2 * distances[1 - own]
    red = found[0, 0] - found[0, 2]
    assert red[:, :14].mean() > 0.1 > -0.1 > red[:, 18:].mean()


def test_one_white_mask_is_no_mask(network: Network) -> None:
    masked = paint(network, masks=[torch.ones(1, 1, 24, 20)])
    torch.testing.assert_close(masked.image, paint(network).image, atol=1e-3, rtol=0)


def luma(image: Tensor) -> Tensor:
    return 0.299 * image[0, 0] + 0.587 * image[0, 1] + 0.114 * image[0, 2]


def test_luminance_alone_keeps_the_colours_of_the_content(network: Network) -> None:
    found = paint(network, colours="luminance", steps=20)
    image = found.image
    inside = ((image > 0) & (image < 1)).all(1)[0]
    assert inside.float().mean() > 0.6
    for channel in range(3):
        mine, theirs = (picture[0, channel] - luma(picture) for picture in (image, photo()))
        torch.testing.assert_close(mine[inside], theirs[inside], atol=1e-4, rtol=0)
    assert (luma(image) - luma(photo())).abs().mean() > 0.02
    assert found.totals[0][0] == pytest.approx(20, rel=1e-4)


def test_matched_colours_are_those_of_the_content(network: Network) -> None:
    plan = Plan(network, (24, 20), [stripes()], settings(colours="matched"), content=photo())
    assert torch.equal(plan.styles[0], palette.match_colours(stripes(), photo()))
    matched, plain = (paint(network, colours=colours, steps=40).image for colours in ("matched", "style"))
    away = [(image.mean((2, 3)) - photo().mean((2, 3))).abs().sum() for image in (matched, plain)]
    assert away[0] < 0.4 * away[1]


# -- interrupted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
@pytest.mark.parametrize("at", [1, 3, 6, 7, 11, 12])  # of two sizes of six steps
def test_going_on_gives_the_same_picture(network: Network, canvas: Any, at: int) -> None:
    kept: list[Checkpoint] = []
    options: dict[str, Any] = {"content": photo(40, 36), "steps": 6, "scales": 2, "start": "random", "canvas": canvas}
    whole = paint(network, keep=lambda place: kept.append(copy.deepcopy(place)), **options)
    assert len(kept) == 12
    rest = paint(network, checkpoint=kept[at - 1], **options)
    assert torch.equal(rest.image, whole.image)
    assert rest.totals == whole.totals and len(rest.totals) == 2
    assert rest.sizes == whole.sizes[-len(rest.sizes) :]
    assert (rest.reference, rest.end, rest.weights) == (whole.reference, whole.end, whole.weights)


def test_a_halt_returns_a_picture_of_full_size(network: Network) -> None:
    halted = paint(network, 1 + 3, content=photo(40, 36), steps=6, scales=2, colours="luminance")
    assert halted.halted and halted.image.shape == (1, 3, 40, 36)
    assert halted.sizes == [(20, 18)] and [len(totals) for totals in halted.totals] == [3]


def test_a_halted_transfer_goes_on(network: Network) -> None:
    kept: list[Checkpoint] = []
    paint(network, 1 + 4, steps=9, keep=lambda place: kept.append(copy.deepcopy(place)))
    assert kept[-1].progress is not None and kept[-1].progress.halted
    assert torch.equal(paint(network, steps=9, checkpoint=kept[-1]).image, paint(network, steps=9).image)


# -- what is refused --------------------------------------------------------------------------------------------

MASK = torch.ones(1, 1, 24, 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"styles": []}, "a style is needed"),
        ({"styles": [torch.zeros(3, 24, 20)]}, r"pictures are \[1, 3, H, W\], got \[3, 24, 20\]"),
        ({"styles": [torch.zeros(2, 3, 24, 20)]}, r"got \[2, 3, 24, 20\]"),
        ({"styles": [torch.zeros(1, 1, 24, 20)]}, r"got \[1, 1, 24, 20\]"),
        ({"content": torch.zeros(2, 3, 24, 20)}, r"got \[2, 3, 24, 20\]"),
        ({"shares": [1.0, 2.0]}, "1 styles need as many weights, got 2"),
        ({"shares": [-1.0]}, "weights of the styles are numbers from 0 up, got -1"),
        ({"shares": [float("nan")]}, "numbers from 0 up, got nan"),
        ({"shares": [0.0]}, "weights of the styles are all 0"),
        ({"masks": [MASK, MASK]}, "1 styles, 2 masks"),
        ({"masks": [MASK[..., :10]]}, "mask 1 is 10 x 24 pixels, the content 20 x 24"),
        ({"styles": [stripes()] * 2, "masks": [MASK, 0 * MASK]}, "mask 2 is all black"),
    ],
)
def test_pictures_that_do_not_fit(network: Network, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        paint(network, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"content_weight": -1.0}, "a content weight is a number from 0 up, got -1.0"),
        ({"style_weight": float("nan")}, "a style weight is a number from 0 up, got nan"),
        ({"style_weight": float("inf")}, "a style weight is a number"),
        ({"tv": -0.1}, "a tv is a number from 0 up"),
        ({"content_weight": 0.0, "style_weight": 0.0}, "both 0"),
        ({"layer_weights": (1.0, -2.0)}, "layer weights are numbers from 0 up, got 1, -2"),
        ({"layer_weights": (0.0, 0.0)}, "layer weights are all 0"),
        ({"layer_weights": (1.0,)}, "2 style layers need as many weights, got 1"),
        ({"steps": 0}, "steps start at 1, got 0"),
        ({"history": 0}, "1 to 1000 steps, got 0"),
        ({"history": 1001}, "1 to 1000 steps, got 1001"),
        ({"rate": 0.0}, "a rate lies above 0"),
        ({"rate": 101.0}, "a rate lies above 0 and at most at 100"),
        ({"rate": float("nan")}, "a rate lies above 0"),
        ({"scales": 0}, "1 to 8 scales, got 0"),
        ({"scales": 9}, "1 to 8 scales, got 9"),
        ({"style_scale": 0.01}, "between 0.05 and 20, got 0.01"),
        ({"style_scale": 21.0}, "between 0.05 and 20"),
        ({"block": 63}, "at least 64 pixels a side .*, got 63"),
        ({"block": -1}, "at least 64 pixels a side"),
        ({"style_layers": ("9",)}, "no layer '9'"),
        ({"content_layers": ("conv5",)}, "no layer 'conv5'"),
        ({"style_layers": ("7",)}, "layer '7' gives no map"),
        ({"content_layers": ("6",)}, "layer '6' gives no map"),
    ],
)
def test_settings_out_of_range(network: Network, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        paint(network, **change)


def test_settings_at_the_ends_of_their_ranges() -> None:
    for change in (
        {"content_weight": 0.0}, {"style_weight": 0.0}, {"rate": 100.0}, {"scales": 8}, {"history": 1}, {"block": 64},
        {"block": 0}, {"style_scale": 0.05}, {"style_scale": 20.0}, {"layer_weights": (0.0, 1.0)},
    ):  # fmt: skip
        settings(**change).check()


def test_a_style_smaller_than_what_a_place_sees(network: Network) -> None:
    """Layer 4 has a stride of 2 and sees 3 pixels beyond them on each side: 8 x 8."""
    with pytest.raises(LayerError, match="the style is 7 x 24 pixels there, but one place of layer '4' sees 8 x 8"):
        paint(network, styles=[stripes(240, 70)])
    assert paint(network, styles=[stripes(240, 80)], steps=1).image.shape == photo().shape
    assert paint(network, styles=[stripes(240, 70)], steps=1, style_scale=1.2).image.shape == photo().shape
    assert paint(network, styles=[stripes(240, 70)], steps=1, style_layers=("1",)).image.shape == photo().shape


def test_a_layer_that_is_silent_for_the_style() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    module[0].weight.data.zero_()
    module[0].bias.data.fill_(-1)
    silent = load(module, device="cpu", input_size=16)
    with pytest.raises(LayerError, match="layer '1' is silent for the style"):
        paint(silent, style_layers=("1",), content_layers=("0",), content_weight=0)


def test_a_content_that_is_an_even_grey(network: Network) -> None:
    grey = torch.tensor(MEAN).view(1, 3, 1, 1).expand(1, 3, 24, 20).contiguous()
    with pytest.raises(LayerError, match="layer '4' says the same of the content as of an even grey"):
        paint(network, content=grey)
    assert paint(network, content=grey, content_weight=0.0, steps=1).totals[0][0] == pytest.approx(20, rel=1e-4)


def test_no_pooling_to_replace() -> None:
    plain = load(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()), device="cpu", input_size=16)
    with pytest.raises(NetworkError, match="no max pooling"):
        paint(plain, pooling="average", style_layers=("1",), content_layers=("1",))


# -- layers -----------------------------------------------------------------------------------------------------


def test_layers_that_suit_a_known_network(bundled_network: Network) -> None:
    found = chosen_layers(bundled_network, StyleSettings())
    assert found == CHOICES[bundled_network.name] == layers_for(bundled_network)
    assert len(found.style) >= 4 and set(found.style.values()) == {1.0}
    maps = set(bundled_network.spatial_layers())
    assert maps.issuperset(found.style) and maps.issuperset(found.content)


def test_layers_by_depth_for_any_other() -> None:
    parts = [part for number in range(9) for part in (nn.Conv2d(4 if number else 3, 4, 3, padding=1), nn.ReLU())]
    deep = load(nn.Sequential(*parts), device="cpu", input_size=16)
    found = layers_for(deep)
    assert found.style == dict.fromkeys(("1", "3", "5", "9", "11"), 1.0)
    assert found.content == ("9",)
    shallow = load(nn.Sequential(*parts[:2]), device="cpu", input_size=16)
    assert layers_for(shallow).style == {"1": 1.0} and layers_for(shallow).content == ("1",)


def test_layers_that_are_named(network: Network) -> None:
    found = chosen_layers(network, StyleSettings(style_layers=("4", "1", "4"), content_layers=("1", "1")))
    assert found.style == {"4": 1.0, "1": 1.0} and found.content == ("1",)
    weighted = chosen_layers(network, StyleSettings(style_layers=("4", "1"), layer_weights=(2.0, 3.0)))
    assert weighted.style == {"4": 2.0, "1": 3.0} and weighted.content == layers_for(network).content


@pytest.mark.parametrize("options", [{"scales": 6}, {"content": photo(1, 40)}])
def test_pictures_that_a_layer_can_not_read(network: Network, options: dict[str, Any]) -> None:
    """A pooling by 2 leaves nothing of one pixel."""
    with pytest.raises(PhospheneError):
        paint(network, **options)
