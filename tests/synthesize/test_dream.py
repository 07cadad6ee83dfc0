"""DeepDream against its own recipe, written out: gradients, octaves, guides, halts, and films."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network, load
from phosphene.progress import Brake, Started, Step, braked, run
from phosphene.synthesize import Dream, DreamSettings, dream, zoom
from phosphene.synthesize.dream import amplified, balance, octave_sizes, resized, smoothed

QUICK = DreamSettings(octaves=2, steps=3, jitter=4)
STILL = DreamSettings(octaves=3, ratio=1.5, steps=3, jitter=0, smooth=0.0)


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    return load(module, device="cpu", input_size=24)


def photo(height: int = 24, width: int = 30) -> Tensor:
    coarse = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(2))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0.1, 0.9)


def sleep(network: Network, image: Tensor, layers: Any, brake: Brake | None = None, **options: Any) -> Dream:
    job = dream(network, image, layers, **{"settings": QUICK, **options})
    return run(braked(job, brake)) if brake is not None else run(job)


def features(network: Network, image: Tensor, upto: int) -> Tensor:
    """The output of layer `upto`, by the module's own parts."""
    return network.module[: upto + 1](network.normalise(image))  # type: ignore[index]


# -- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "channels"), [(1, []), (3, []), (3, [2, 5]), (4, [7]), (0, [1, 1])])
def test_the_gradient_of_a_layer_is_its_activation(network: Network, layer: int, channels: list[int]) -> None:
    image = photo()
    value, found = amplified(network, {str(layer): channels}, {})(image)
    leaf = image.clone().requires_grad_()
    maps = features(network, leaf, layer)
    if channels:
        maps = maps[:, channels]
    (wanted,) = torch.autograd.grad(maps, leaf, grad_outputs=maps.detach())
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    assert float(value) == pytest.approx(float(maps.detach().square().sum()) / 2 / (24 * 30), rel=1e-5)


def test_several_layers_count_alike_at_the_start(network: Network) -> None:
    image, later = photo(), photo().flip(3)
    layers = {"0": [], "3": [1, 4]}
    shares = balance(network, layers, {}, image, QUICK)
    energy = amplified(network, layers, {}, shares)

    def parts(here: Tensor) -> list[tuple[float, Tensor]]:
        made = []
        for layer, channels in ((0, range(6)), (3, [1, 4])):
            leaf = here.clone().requires_grad_()
            value = features(network, leaf, layer)[:, list(channels)].square().sum() / 2
            made.append((float(value.detach()), torch.autograd.grad(value, leaf)[0]))
        return made

    first = parts(image)
    value, found = energy(image)
    area = 24 * 30
    assert float(value) == pytest.approx(2, rel=1e-5)
    torch.testing.assert_close(found, sum(slope * area / size for size, slope in first), atol=1e-4, rtol=1e-4)
    value, found = energy(later)  # by what they were the first time
    second = parts(later)
    assert float(value) == pytest.approx(
        sum(now / then for (now, _), (then, _) in zip(second, first, strict=True)), rel=1e-4
    )
    wanted = sum(slope * area / then for (_, slope), (then, _) in zip(second, first, strict=True))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_layers_are_balanced_over_all_windows(network: Network) -> None:
    image = torch.cat([photo(96, 80) * 0, photo(96, 80)], 3)
    layers, settings = {"0": [], "3": []}, replace(QUICK, window=64, overlap=16)
    shares = balance(network, layers, {}, image, settings)
    whole = balance(network, layers, {}, image, QUICK)
    assert shares["0"] / shares["3"] == pytest.approx(whole["0"] / whole["3"], rel=0.1)
    assert balance(network, {"3": []}, {}, image, QUICK) == {"3": 1.0}


@pytest.mark.parametrize("channels", [[], [0, 3, 6]])
def test_a_guide_gives_each_place_the_feature_that_is_most_like_it(network: Network, channels: list[int]) -> None:
    image, guide = photo(), torch.rand(1, 3, 17, 14)
    wide = {"3": torch.cat([features(network, guide, 3)]).detach()[:, channels or list(range(8))].flatten(2)[0]}
    value, found = amplified(network, {"3": channels}, wide)(image)
    leaf = image.clone().requires_grad_()
    maps = features(network, leaf, 3)[0][channels or list(range(8))]
    gradient, total = torch.zeros_like(maps), 0.0
    for y in range(maps.shape[1]):
        for x in range(maps.shape[2]):
            products = [
                float((maps[:, y, x].detach() * wide["3"][:, place]).sum()) for place in range(wide["3"].shape[1])
            ]
            best = max(range(len(products)), key=products.__getitem__)
            gradient[:, y, x] = wide["3"][:, best]
            total += products[best]
    (wanted,) = torch.autograd.grad(maps, leaf, grad_outputs=gradient)
    assert float(value) == pytest.approx(total / (24 * 30), rel=1e-4)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_a_guide_changes_the_dream(network: Network) -> None:
    plain = sleep(network, photo(), {"3": []})
    guided = [
        sleep(network, photo(), {"3": []}, guide=guide).image
        for guide in (photo(17, 14).flip(2), torch.rand(1, 3, 9, 9))
    ]
    assert not torch.allclose(plain.image, guided[0]) and not torch.allclose(guided[0], guided[1])


def test_a_guide_that_is_too_small(network: Network) -> None:
    with pytest.raises(PhospheneError, match=r"guide.* 8 pixels"):
        sleep(network, photo(), {"3": []}, guide=torch.rand(1, 3, 7, 20))
    sleep(network, photo(), {"3": []}, guide=torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("sigma", [0.5, 1.5])
def test_gradients_are_smoothed_by_the_mean_of_three(sigma: float) -> None:
    from scipy import ndimage

    gradient = torch.randn(1, 3, 40, 50)
    numpy = gradient.double().numpy()
    radii = [max(1, int(-(-3 * each // 1))) for each in (sigma, 2 * sigma)]
    blurred = [
        torch.from_numpy(
            ndimage.gaussian_filter(numpy, (0, 0, each, each), mode="mirror", radius=(0, 0, radius, radius))
        )
        for each, radius in zip((sigma, 2 * sigma), radii, strict=True)
    ]
    wanted = (gradient.double() + blurred[0] + blurred[1]) / 3
    torch.testing.assert_close(smoothed(gradient, sigma).double(), wanted, atol=1e-5, rtol=1e-4)
    assert torch.equal(smoothed(gradient, 0.0), gradient)


# -- octaves ----------------------------------------------------------------------------------------------------


def test_octaves_grow_by_their_ratio_up_to_the_photograph(network: Network) -> None:
    settings = DreamSettings(octaves=4, ratio=1.5)
    found = octave_sizes(network, {"0": []}, (81, 54), settings)
    assert found == [(24, 16), (36, 24), (54, 36), (81, 54)]


def test_octaves_that_are_too_small_are_left_out(network: Network) -> None:
    settings = DreamSettings(octaves=12, ratio=1.5)
    found = octave_sizes(network, {"3": []}, (81, 54), settings)  # 8 pixels at least
    wanted = [(round(81 / 1.5**n), round(54 / 1.5**n)) for n in range(11, -1, -1)]
    assert found == [size for size in wanted if min(size) >= 8]
    assert len(found) < 12


def test_octaves_suit_the_deepest_of_the_layers(network: Network) -> None:
    settings = DreamSettings(octaves=12, ratio=1.5)
    both = octave_sizes(network, {"0": [], "3": []}, (81, 54), settings)
    assert both == octave_sizes(network, {"3": []}, (81, 54), settings)
    assert both != octave_sizes(network, {"0": []}, (81, 54), settings)


def by_hand(network: Network, image: Tensor, settings: DreamSettings) -> tuple[Tensor, list[float]]:
    """A dream of layer 3 without jitter, smoothing and windows."""
    height, width = image.shape[-2:]
    values, detail = [], None
    for octave in range(settings.octaves):
        scale = settings.ratio ** (octave + 1 - settings.octaves)
        size = (round(height * scale), round(width * scale))
        base = F.interpolate(image, size, mode="bicubic", antialias=True) if size != (height, width) else image
        here = base if detail is None else base + F.interpolate(detail, size, mode="bicubic")
        here = here.clamp(0, 1)
        for _ in range(settings.steps):
            leaf = here.detach().requires_grad_()
            value = features(network, leaf, 3).square().sum() / 2
            (slope,) = torch.autograd.grad(value, leaf)
            here = (here + settings.rate * slope / slope.square().mean().sqrt()).clamp(0, 1)
            values.append(float(value.detach()) / (size[0] * size[1]))
        detail = here - base
    return here, values


def test_details_are_carried_along(network: Network) -> None:
    image = photo(36, 45)
    found = sleep(network, image, {"3": []}, settings=STILL)
    wanted, values = by_hand(network, image, STILL)
    assert found.sizes == ((16, 20), (24, 30), (36, 45)) and not found.halted
    torch.testing.assert_close(found.image, wanted, atol=2e-4, rtol=0)
    assert found.values == pytest.approx(values, rel=1e-3)
    # Without what the small octaves gave, the picture would be another.
    alone, _ = by_hand(network, image, replace(STILL, octaves=1))
    assert (alone - wanted).abs().mean() > 1e-3


def test_the_energy_rises(network: Network) -> None:
    found = sleep(network, photo(), {"3": []}, settings=replace(STILL, steps=8))
    for octave in range(3):
        values = found.values[8 * octave : 8 * octave + 8]
        assert all(later > earlier for earlier, later in pairwise(values))


def test_a_step_has_its_size(network: Network) -> None:
    image = photo() * 0.2 + 0.4
    found = sleep(network, image, {"3": []}, settings=DreamSettings(octaves=1, steps=1, rate=0.02))
    assert float((found.image - image).square().mean().sqrt()) == pytest.approx(0.02, rel=1e-3)


def test_the_photograph_itself_is_left_alone(network: Network) -> None:
    image = photo()
    before = image.clone()
    sleep(network, image, {"3": []}, settings=replace(QUICK, octaves=1))
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(24, 24), (17, 40), (41, 12)])
def test_dreams_of_any_size(network: Network, size: tuple[int, int]) -> None:
    found = sleep(network, photo(*size), {"3": [], "1": [2]})
    assert found.image.shape == (1, 3, *size)
    assert found.image.min() >= 0 and found.image.max() <= 1
    assert (found.image - photo(*size)).abs().mean() > 0.005


def test_large_pictures_are_looked_at_in_windows(network: Network) -> None:
    """Which is nearly what they are as a whole."""
    image = photo(100, 90)
    settings = DreamSettings(octaves=1, steps=3, window=64, overlap=24)
    tiled = sleep(network, image, {"3": []}, settings=settings).image
    whole = sleep(network, image, {"3": []}, settings=replace(settings, window=640)).image
    assert not torch.equal(tiled, whole)
    assert (tiled - whole).square().mean().sqrt() < 0.2 * (whole - image).square().mean().sqrt()


def test_the_same_seed_gives_the_same_bytes(network: Network) -> None:
    first, same, other = (sleep(network, photo(), {"3": []}, seed=seed).image for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_events(network: Network) -> None:
    events: list[Any] = []
    found = run(dream(network, photo(), {"3": []}, settings=QUICK), events.append)
    assert events[0] == Started("dream", 6, keeps=True)
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.done for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [tuple(step.preview.shape[-2:]) for step in steps if step.preview is not None] == [(17, 21), (24, 30)]
    assert [-float(step.loss or 0) for step in steps] == pytest.approx(found.values)


# -- halts and refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_halt_returns_a_picture_of_full_size(network: Network, at: int) -> None:
    image = photo()
    found = sleep(network, image, {"3": []}, Brake(1 + at))
    assert found.halted and len(found.values) == at
    assert found.image.shape == image.shape
    moved = (found.image - image).abs().mean()
    assert 1e-3 < moved < 0.1


def test_a_halt_in_the_last_octave_returns_what_there_is(network: Network) -> None:
    shorter = sleep(network, photo(), {"3": []}, settings=replace(QUICK, octaves=1, steps=2))
    halted = sleep(network, photo(), {"3": []}, Brake(1 + 2), settings=replace(QUICK, octaves=1))
    torch.testing.assert_close(halted.image, shorter.image, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("layer", "least"), [("0", 3), ("3", 8)])
def test_a_picture_that_is_too_small_is_told_the_least_size(network: Network, layer: str, least: int) -> None:
    with pytest.raises(
        PhospheneError, match=rf"20 x {least - 1} pixels is too small for {layer}.*needs {least} pixels"
    ):
        sleep(network, photo(least - 1, 20), {layer: []})
    sleep(network, photo(least, 20), {layer: []})


def test_windows_that_are_too_small_for_the_layer() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=16), nn.Tanh(), nn.Conv2d(4, 4, 3, dilation=18))
    network = load(module, device="cpu", input_size=96)  # 69 pixels
    settings = DreamSettings(octaves=1, steps=1, window=64, overlap=8)
    with pytest.raises(PhospheneError, match=r"windows of 64 pixels.* 69"):
        sleep(network, photo(100, 100), {"2": []}, settings=settings)
    sleep(network, photo(100, 100), {"2": []}, settings=replace(settings, window=69))


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ({}, PhospheneError, "name a layer"),
        ({"9": []}, LayerError, "no layer '9'"),
        ({"7": []}, LayerError, "gives no map"),
        ({"3": [8]}, LayerError, "units 0 to 7"),
    ],
)
def test_nothing_to_dream_of(network: Network, layers: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sleep(network, photo(), layers)


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 3, 24, 24), (1, 1, 24, 24)])
def test_what_is_no_photograph(network: Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match="a dream is of one image"):
        sleep(network, torch.rand(shape), {"3": []})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"octaves": 0}, "octaves of a dream lies between"),
        ({"ratio": 1.0}, "ratio"),
        ({"steps": 0}, "steps"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"jitter": -1}, "jitter"),
        ({"smooth": -1.0}, "smooth"),
        ({"window": 63}, "window"),
        ({"window": 100, "overlap": 51}, "at most half"),
    ],
)
def test_settings_out_of_range(network: Network, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        sleep(network, photo(), {"3": []}, settings=DreamSettings(**change))


def test_an_energy_that_is_not_finite() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 3))
    module[0].weight.data.fill_(1e30)
    with pytest.raises(PhospheneError, match=r"the energy became (inf|nan)"):
        sleep(load(module, device="cpu", input_size=16), photo(), {"0": []})


def test_a_layer_that_is_off_leaves_the_photograph_as_it_is() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    module[0].weight.data.zero_()
    module[0].bias.data.fill_(-1)
    found = sleep(load(module, device="cpu", input_size=16), photo(), {"1": []})
    torch.testing.assert_close(found.image, photo())
    assert set(found.values) == {0.0}


def test_a_picture_of_the_right_size_is_not_resized() -> None:
    image = photo()
    assert resized(image, (24, 30)) is image


# -- films ------------------------------------------------------------------------------------------------------


def film(network: Network, frames: int, brake: Brake | None = None, **options: Any) -> tuple[Dream, list[Tensor]]:
    kept: list[Tensor] = []
    job = zoom(network, photo(), {"3": []}, frames=frames, keep=kept.append, **{"settings": QUICK, **options})
    return (run(braked(job, brake)) if brake is not None else run(job)), kept


def test_a_zoom_has_its_frames(network: Network) -> None:
    found, kept = film(network, 4)
    assert [tuple(frame.shape) for frame in kept] == [(3, 24, 30)] * 4
    assert torch.equal(kept[-1], found.image[0]) and not found.halted
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in kept)


def test_the_first_frame_is_the_dream(network: Network) -> None:
    _, kept = film(network, 2, seed=4)
    assert torch.equal(kept[0], sleep(network, photo(), {"3": []}, seed=4).image[0])


def test_a_frame_dreams_on_in_the_middle_of_the_one_before(network: Network) -> None:
    """With steps too small to see, it is the middle, enlarged."""
    still = replace(QUICK, rate=1e-6, octaves=1, steps=1)
    _, kept = film(network, 2, settings=still, factor=2.0)
    wanted = F.interpolate(kept[0][None], (48, 60), mode="bicubic")[0][:, 12:36, 15:45]
    torch.testing.assert_close(kept[1], wanted.clamp(0, 1), atol=2e-3, rtol=0)


def test_the_steps_of_a_film_are_those_of_its_dreams(network: Network) -> None:
    events: list[Any] = []
    run(zoom(network, photo(), {"3": []}, frames=3, settings=QUICK, keep=lambda _: None), events.append)
    assert events[0] == Started("zoom", 10, keeps=True)  # two octaves of three steps, then twice two of one
    assert [event.done for event in events[1:]] == list(range(1, 11))
    ends = [event.done for event in events[1:] if event.preview is not None]
    assert ends == [3, 6, 7, 8, 9, 10]  # of each octave


@pytest.mark.parametrize(("at", "whole"), [(7, 1), (8, 1), (9, 2), (10, 2)])
def test_a_halt_ends_the_film_with_its_last_whole_frame(network: Network, at: int, whole: int) -> None:
    """The first frame is whole after six steps, the second after eight."""
    _, every = film(network, 4)
    found, kept = film(network, 4, Brake(1 + at))
    assert found.halted and len(kept) == whole and torch.equal(found.image[0], kept[-1])
    assert all(torch.equal(one, other) for one, other in zip(kept, every, strict=False))


def test_a_halt_in_the_first_frame_keeps_it(network: Network) -> None:
    found, kept = film(network, 4, Brake(3))
    assert found.halted and len(found.values) == 2 and len(kept) == 1


def test_frames_wander_with_the_seed(network: Network) -> None:
    (_, first), (_, same), (_, other) = (film(network, 2, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[1], same[1]) and not torch.equal(first[1], other[1])


@pytest.mark.parametrize("change", [{"frames": 1}, {"factor": 1.0}, {"factor": 2.1}])
def test_no_zoom(network: Network, change: dict[str, Any]) -> None:
    with pytest.raises(PhospheneError, match="a zoom has at least 2 frames"):
        film(network, **{"frames": 2, **change})
