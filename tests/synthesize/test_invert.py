"""Feature inversion: what can be undone is undone, errors by hand, and each picture as if it were alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.errors import LayerError, PhospheneError
from phosphene.models import Network, load
from phosphene.progress import Brake, Started, Step, braked, run
from phosphene.synthesize import Inversion, InversionSettings, invert
from phosphene.synthesize.invert import depth_of, relative_errors

QUICK = InversionSettings(steps=6)


@pytest.fixture(scope="module")
def network() -> Network:
    """Its first layer shows each pixel in six other colours, so that nothing is lost."""
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 1)
    module = nn.Sequential(
        first, nn.LeakyReLU(0.3), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    )  # fmt: skip
    nn.init.orthogonal_(first.weight.data.view(6, 3))
    return load(module, device="cpu", input_size=16)


def photo(count: int = 1, size: tuple[int, int] = (16, 16)) -> Tensor:
    """Smooth colours."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(5))
    return F.interpolate(0.2 + 0.6 * coarse, size, mode="bicubic").clamp(0, 1)


def undo(network: Network, images: Tensor, layer: str, brake: Brake | None = None, **options: Any) -> Inversion:
    job = invert(network, images, layer, **{"settings": QUICK, **options})
    return run(braked(job, brake)) if brake is not None else run(job)


# -- what comes back --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("canvas", ["fourier", "pixel"])
@pytest.mark.parametrize("layer", ["0", "1"])
def test_what_is_not_lost_comes_back(network: Network, canvas: Any, layer: str) -> None:
    images = photo()
    found = undo(network, images, layer, settings=InversionSettings(canvas, steps=400, tv=0.0, lp=0.0))
    assert (found.images - images).abs().mean() < 0.02
    assert found.errors.max() < 1e-3


def test_a_deep_layer_is_matched_though_the_picture_is_not(network: Network) -> None:
    images = photo()
    found = undo(network, images, "6", settings=InversionSettings(steps=150, tv=0.0, lp=0.0, rate=0.05))
    assert found.errors.max() < 1e-2
    assert (found.images - images).abs().mean() > 0.05


def test_total_variation_makes_it_smoother(network: Network) -> None:
    images = torch.rand(1, 3, 16, 16)
    rough, smooth = (
        undo(network, images, "0", settings=InversionSettings(steps=60, lp=0.0, tv=tv)).images for tv in (0.0, 1.0)
    )
    assert smooth.diff(dim=3).abs().mean() < 0.5 * rough.diff(dim=3).abs().mean()


def test_errors_by_hand(network: Network) -> None:
    images, others = photo(3), torch.rand(3, 3, 16, 16)
    target, maps = (network.record(each, ["2"])["2"].double() for each in (images, others))
    wanted = [
        sum((float(a) - float(b)) ** 2 for a, b in zip(maps[n].flatten(), target[n].flatten(), strict=True))
        / sum(float(b) ** 2 for b in target[n].flatten())
        for n in range(3)
    ]
    assert relative_errors(network, others, "2", target.float()).tolist() == pytest.approx(wanted, rel=1e-4)
    assert relative_errors(network, images, "2", target.float()).tolist() == pytest.approx([0, 0, 0], abs=1e-8)


def test_the_errors_are_of_the_final_pictures(network: Network) -> None:
    images = photo(2)
    found = undo(network, images, "2")
    target = network.record(images, ["2"])["2"]
    torch.testing.assert_close(found.errors, relative_errors(network, found.images, "2", target))
    assert 0 < float(found.errors.min()) < 1


# -- settings ---------------------------------------------------------------------------------------------------


def test_deeper_layers_need_more_of_the_priors_and_smaller_steps() -> None:
    made = [InversionSettings().at_depth(depth / 10) for depth in range(11)]
    for name, sign in (("tv", 1), ("lp", 1), ("rate", -1)):
        values = [getattr(each, name) for each in made]
        assert all(sign * (later - earlier) > 0 for earlier, later in pairwise(values))


@pytest.mark.parametrize("change", [{"tv": 0.0}, {"lp": 3.0}, {"rate": 0.7}, {"scales": 2}])
def test_what_is_given_stays(change: dict[str, Any]) -> None:
    found = InversionSettings(**change).at_depth(0.5)
    assert {name: getattr(found, name) for name in change} == change
    assert None not in (found.tv, found.lp, found.rate, found.scales)


def test_depth_goes_from_the_first_layer_to_the_last(network: Network) -> None:
    depths = [depth_of(network, layer.name) for layer in network.layers()]
    assert depths[0] == 0 and depths[-1] == 1
    assert depths == sorted(depths) and len(set(depths)) == len(depths)


def test_what_the_depth_decided_is_told(network: Network) -> None:
    assert undo(network, photo(), "2").settings == QUICK.at_depth(depth_of(network, "2"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps start at 1"),
        ({"scales": 0}, "1 to 8 scales"),
        ({"scales": 9}, "1 to 8 scales"),
        ({"scales": 6}, "can't be halved 6 times"),
        ({"rate": 0.0}, "a rate is positive"),
        ({"rate": -1.0}, "rate lies between"),
        ({"tv": -1.0}, "tv lies between"),
        ({"tv": float("nan")}, "tv lies between"),
        ({"lp": 1e9}, "lp lies between"),
        ({"noise": -1.0}, "noise lies between"),
        ({"patience": -1}, "patience lies between"),
        ({"beta": 0.0}, "beta is positive"),
        ({"p": 0.5}, "p at least 1"),
    ],
)
def test_settings_out_of_range(network: Network, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        undo(network, photo(), "0", settings=InversionSettings(**{"steps": 2, **change}))


@pytest.mark.parametrize("shape", [(3, 16, 16), (0, 3, 16, 16)])
def test_no_images(network: Network, shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match="expected images"):
        undo(network, torch.zeros(shape), "0")


def test_no_such_layer(network: Network) -> None:
    with pytest.raises(LayerError, match="no layer '9'"):
        undo(network, photo(), "9")


def test_a_silent_layer_is_refused() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    module[0].weight.data.zero_()
    module[0].bias.data.fill_(-1)
    network = load(module, device="cpu", input_size=16)
    undo(network, photo(), "0")
    with pytest.raises(LayerError, match="layer '1' is silent for this image"):
        undo(network, photo(), "1")


def test_one_silent_picture_among_others_is_refused() -> None:
    module: Any = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU())
    module[0].weight.data.fill_(1.0)
    module[0].bias.data.zero_()
    network = load(module, device="cpu", input_size=8, mean=(0.5,) * 3, std=(1.0,) * 3)
    both = torch.cat([torch.full((1, 3, 8, 8), 0.9), torch.full((1, 3, 8, 8), 0.1)])
    undo(network, both[:1], "1")
    with pytest.raises(LayerError, match="silent"):
        undo(network, both, "1")


# -- scales -----------------------------------------------------------------------------------------------------


def test_scales_go_from_coarse_to_fine(network: Network) -> None:
    sizes: list[tuple[int, ...]] = []

    def listen(event: object) -> None:
        if isinstance(event, Step) and event.preview is not None:
            sizes.append(tuple(event.preview.shape[-2:]))

    settings = InversionSettings("pixel", steps=30, scales=3)
    found = run(invert(network, photo(1, (16, 22)), "0", settings=settings), listen)
    assert sizes == [(4, 6), (8, 11), (16, 22)]
    assert found.images.shape == (1, 3, 16, 22) and found.steps == 30


def test_a_fine_scale_begins_with_the_coarse_picture(network: Network) -> None:
    """After a last scale of one tiny step there is the coarse picture, enlarged."""
    previews: list[Tensor] = []
    settings = InversionSettings("pixel", steps=21, scales=2, tv=0.0, lp=0.0)

    def listen(event: object) -> None:
        if isinstance(event, Step) and event.preview is not None:
            previews.append(event.preview)

    found = run(braked(invert(network, photo(), "0", settings=settings), Brake(12)), listen)
    coarse = F.interpolate(previews[0], (16, 16), mode="bilinear", align_corners=False)
    assert previews[0].shape[-1] == 8 and found.halted and found.steps == 11
    # One step of Adam moves each pixel by its rate, in units of the network.
    assert ((found.images - coarse) / network.std).abs().max() < 0.101
    assert (found.images - coarse).abs().max() > 1e-3


def test_several_scales_find_their_way(network: Network) -> None:
    images = photo()
    found = undo(network, images, "0", settings=InversionSettings("pixel", steps=120, scales=3, tv=0.0, lp=0.0))
    assert (found.images - images).abs().mean() < 0.02


@pytest.mark.parametrize("steps", [2, 7, 9])
def test_all_steps_are_taken(network: Network, steps: int) -> None:
    events: list[Any] = []
    settings = InversionSettings("pixel", steps=steps, scales=3)
    assert run(invert(network, photo(2), "0", settings=settings), events.append).steps == steps
    assert events[0] == Started("invert 0", 2 * steps, keeps=True)
    assert [event.done for event in events[1:]] == [2 * step for step in range(1, steps + 1)]


# -- each by itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("canvas", ["fourier", "pixel"])
def test_two_pictures_are_inverted_as_each_alone(network: Network, canvas: Any, noise: float) -> None:
    images = photo(2)
    settings = InversionSettings(canvas, steps=12, noise=noise)
    both = undo(network, images, "2", settings=settings)
    for place in range(2):
        alone = undo(network, images[place : place + 1], "2", settings=settings)
        torch.testing.assert_close(both.images[place], alone.images[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(both.errors[place], alone.errors[0], atol=1e-4, rtol=1e-3)


def test_many_pictures_go_in_batches(network: Network) -> None:
    images = photo(11)
    events: list[Any] = []
    found = run(invert(network, images, "2", settings=QUICK), events.append)
    assert found.images.shape == images.shape and found.errors.shape == (11,)
    assert [event.done for event in events[1:]] == [8 * n for n in range(1, 7)] + [48 + 3 * n for n in range(1, 7)]
    last = undo(network, images[10:], "2")
    torch.testing.assert_close(found.images[10], last.images[0], atol=1e-3, rtol=0)


def test_the_same_seed_gives_the_same_bytes(network: Network) -> None:
    settings = InversionSettings(steps=4, noise=1.0)
    first, same, other = (undo(network, photo(), "2", settings=settings, seed=seed).images for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


# -- halts ------------------------------------------------------------------------------------------------------


def test_a_halt_returns_the_picture_so_far(network: Network) -> None:
    halted = undo(network, photo(2), "2", Brake(1 + 3))
    assert halted.halted and halted.steps == 3
    assert halted.images.shape == (2, 3, 16, 16) and halted.errors.shape == (2,)


def test_a_halt_in_a_coarse_scale_returns_a_picture_of_full_size(network: Network) -> None:
    settings = InversionSettings("pixel", steps=30, scales=3)
    halted = undo(network, photo(), "0", Brake(1 + 4), settings=settings)
    assert halted.halted and halted.steps == 4
    assert halted.images.shape == (1, 3, 16, 16)


def test_a_halt_keeps_the_finished_batches(network: Network) -> None:
    images = photo(20)
    halted, whole = undo(network, images, "2", Brake(1 + 6 + 2)), undo(network, images, "2")
    assert halted.images.shape[0] == 16 and halted.errors.shape == (16,)
    assert torch.equal(halted.images[:8], whole.images[:8])
