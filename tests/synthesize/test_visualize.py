"""Pictures of classes, units and directions: their order, their company, their numbers, and silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import PhospheneError
from phosphene.models import Network, Unit, load
from phosphene.progress import Brake, Started, Step, braked, run
from phosphene.synthesize import Direction, Settings, Visualization, visualize
from phosphene.synthesize.objectives import class_scores

SIZE = (16, 16)
QUICK = Settings(steps=5)


def small() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


@pytest.fixture(scope="module")
def network() -> Network:
    module = small()
    module[0].bias.data.fill_(0.2)  # awake at the mean colour
    return load(module, device="cpu", input_size=16)


def make(network: Network, targets: Any, brake: Brake | None = None, **options: Any) -> Visualization:
    settings = options.pop("settings", QUICK)
    job = visualize(network, targets, settings=settings, **options)
    return run(braked(job, brake)) if brake is not None else run(job)


# -- many targets -----------------------------------------------------------------------------------------------

MIXED = [
    Unit("2", 3),
    Unit("0", 1),
    Direction("2", torch.arange(8.0)),
    Unit("6", 2),
    Unit("0", 4, (2, 3)),
    Unit("2", 0),
]


def test_units_of_several_layers_keep_their_order(network: Network) -> None:
    found = make(network, MIXED)
    assert found.numbers == (0, 1, 2, 3, 4, 5)
    maps = network.record(found.images, ["0", "2", "6"])
    wanted = [
        maps["2"][0, 3].mean(), maps["0"][1, 1].mean(), maps["2"][2].mean((1, 2)) @ torch.arange(8.0), maps["6"][3, 2],
        maps["0"][4, 4, 2, 3], maps["2"][5, 0].mean(),
    ]  # fmt: skip
    torch.testing.assert_close(found.scores, torch.stack(wanted))


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_a_targets_picture_is_the_same_in_any_company(network: Network, canvas: Any) -> None:
    settings = Settings(canvas, steps=5)
    together = make(network, MIXED, settings=settings, seed=3)
    for place, target in enumerate(MIXED):
        alone = make(network, [target], settings=settings, seed=3)
        torch.testing.assert_close(alone.images[0], together.images[place], atol=1e-4, rtol=0)


def test_several_pictures_of_a_target_are_the_same_in_any_company(network: Network) -> None:
    settings = Settings(steps=5, several=3)
    together = make(network, [1, 4, 2], settings=settings)
    alone = make(network, [4], settings=settings)
    assert together.images.shape == (9, 3, *SIZE) and together.numbers == tuple(range(9))
    torch.testing.assert_close(alone.images, together.images[3:6], atol=1e-4, rtol=0)


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_several_pictures_of_a_target_differ(network: Network, canvas: Any) -> None:
    found = make(network, [Unit("2", 3)], settings=Settings(canvas, steps=5, several=3)).images
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (found[one] - found[other]).abs().mean() > 0.01


def test_diversity_pushes_pictures_apart(network: Network) -> None:
    def spread(diversity: float) -> float:
        settings = Settings(steps=40, several=2, diversity=diversity, rate=0.03, noise=0.2)
        maps = network.record(make(network, [Unit("2", 3)], settings=settings).images, ["2"])["2"].flatten(2)
        grams = (maps @ maps.transpose(1, 2)).flatten(1)
        return float(torch.cosine_similarity(grams[0], grams[1], dim=0))

    assert spread(4.0) < spread(0.0) - 0.01


def test_more_pictures_of_a_target_than_fit_into_a_batch(network: Network) -> None:
    found = make(network, [1, 2], settings=Settings(steps=2, several=11))
    assert found.images.shape[0] == 22 and found.numbers == tuple(range(22))


def test_without_noise_one_picture_is_as_good_as_another(network: Network) -> None:
    found = make(network, [1], settings=Settings(steps=3, several=2, noise=0.0, diversity=0.0)).images
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(10, 23), (23, 10), (9, 9), (16, 33)])
@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_pictures_of_any_size(network: Network, canvas: Any, size: tuple[int, int]) -> None:
    targets: list[Any] = [Unit("2", 3), Unit("0", 1)]
    for chosen in (targets, [0, 4]):
        found = make(network, chosen, settings=Settings(canvas, steps=2), size=size)
        assert found.images.shape == (2, 3, *size)


class Counts(nn.Module):
    """Passes its input on, and counts how often."""

    calls: ClassVar[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        return x


def test_the_pass_stops_at_the_layer() -> None:
    module = small()
    network = load(nn.Sequential(module[0], nn.Tanh(), module[2], Counts(), *module[3:]), device="cpu", input_size=16)
    make(network, [0], settings=QUICK)
    assert len(Counts.calls) >= QUICK.steps
    Counts.calls.clear()
    make(network, [Unit("2", 3), Unit("0", 2)], settings=QUICK)
    assert not Counts.calls


# -- objectives -------------------------------------------------------------------------------------------------


def test_full_contrast_is_the_log_probability(network: Network) -> None:
    images, classes = torch.rand(3, 3, *SIZE), [4, 0, 4]
    leaf, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    found = class_scores(network, classes, contrast=1.0)(leaf)
    wanted = network.logits(other).log_softmax(1)[range(3), classes]
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), leaf)[0], torch.autograd.grad(wanted.sum(), other)[0], atol=1e-7, rtol=1e-4
    )


def test_half_of_the_contrast_lies_in_the_middle(network: Network) -> None:
    images = torch.rand(2, 3, *SIZE)
    none, half, full = (class_scores(network, [1, 3], contrast=share)(images) for share in (0.0, 0.5, 1.0))
    torch.testing.assert_close(half, (none + full) / 2)


def test_contrast_makes_a_class_more_probable(network: Network) -> None:
    still = Settings(steps=60, rate=0.1, l2=0.0, jitter=0, rotate=0, scale=0)
    plain, against = (make(network, [1], settings=replace(still, contrast=share)) for share in (0.0, 1.0))
    assert plain.probabilities is not None and against.probabilities is not None
    assert against.probabilities[0] > plain.probabilities[0]


@pytest.mark.parametrize("prior", ["l2", "tv", "lp"])
def test_priors_are_used(network: Network, prior: str) -> None:
    free = make(network, [1], settings=Settings(steps=20, l2=0.0))
    held = make(network, [1], settings=Settings(**{"steps": 20, "l2": 0.0, prior: 1.0}))
    flat = network.mean.expand_as(free.images)
    assert (held.images - flat).norm() < 0.7 * (free.images - flat).norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"several": 0}, "several pictures of a target are at least 1"),
        ({"crop": 0.0}, "crop is a share"),
        ({"crop": 1.2}, "crop is a share"),
        ({"beta": 0.0}, "beta is positive"),
        ({"p": 0.5}, "p at least 1"),
        ({"patience": -1}, "patience can't be negative"),
        ({"noise": float("nan")}, "noise can't be negative"),
        ({"diversity": 1e9}, "nor above"),
    ],
)
def test_settings_out_of_range(network: Network, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        make(network, [0], settings=Settings(**{"steps": 2, **change}))


# -- silence ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dead() -> Network:
    """Units 0 and 1 of layer 1 have no weights and are off for ever; 2 to 5 are awake."""
    module = small()
    module[0].bias.data.fill_(0.2)
    module[0].weight.data[:2] = 0
    module[0].bias.data[:2] = -1
    return load(module, device="cpu", input_size=16)


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_a_silent_unit_gives_an_even_picture(dead: Network, canvas: Any) -> None:
    found = make(dead, [Unit("1", 3), Unit("1", 0)], settings=Settings(canvas, steps=5, noise=0.1))
    assert found.silent.tolist() == [False, True]
    assert torch.equal(found.images[1:], dead.mean.expand(1, 3, *SIZE))
    assert found.scores[1] == 0 and found.scores[0] > 0
    assert found.images[0].std() > 1e-3


def test_what_can_be_woken_is_not_silent() -> None:
    module = small()
    module[0].bias.data.fill_(-0.5)  # off at the mean colour, all of them
    network = load(module, device="cpu", input_size=16)
    assert not network.record(network.mean.expand(1, 3, *SIZE), ["1"])["1"].any()
    found = make(network, [Unit("1", 3)], settings=Settings("pixel", steps=80))
    assert not found.silent.any() and found.scores[0] > 0


# -- halts and ends ---------------------------------------------------------------------------------------------


def test_a_halt_keeps_what_is_finished(network: Network) -> None:
    targets = [place % 5 for place in range(20)]  # in three batches
    whole = make(network, targets)
    found = make(network, targets, Brake(1 + 5 + 2))  # `Started`, one batch, two steps of the second
    assert found.halted and not whole.halted
    assert found.numbers == tuple(range(16))
    assert torch.equal(found.images[:8], whole.images[:8])
    assert found.steps == (5,) * 8 + (2,) * 8
    assert found.probabilities is not None and found.probabilities.shape == (16,)
    assert not torch.equal(found.images[8:], whole.images[8:16])


def test_numbers_tell_which_pictures_there_are(network: Network) -> None:
    """Targets of one layer go together, so that a halt leaves gaps."""
    found = make(network, MIXED, Brake(3))
    assert found.numbers == (0, 2, 5)
    maps = network.record(found.images, ["2"])["2"]
    wanted = [maps[0, 3].mean(), maps[1].mean((1, 2)) @ torch.arange(8.0), maps[2, 0].mean()]
    torch.testing.assert_close(found.scores, torch.stack(wanted))
    several = make(network, MIXED, Brake(3), settings=Settings(steps=5, several=2))
    assert several.numbers == (0, 1, 4, 5, 10, 11)


def test_steps_are_counted_over_all_pictures(network: Network) -> None:
    events: list[Any] = []
    run(visualize(network, MIXED, settings=Settings(steps=2, several=2)), events.append)
    assert events[0] == Started("visualize", 24, "step", keeps=True)
    assert [event.done for event in events if isinstance(event, Step)] == [6, 12, 16, 20, 22, 24]


def test_pictures_end_by_themselves(network: Network) -> None:
    still: dict[str, Any] = {"jitter": 0, "rotate": 0.0, "scale": 0.0, "schedule": "constant", "rate": 0.01}
    found = make(network, [Unit("2", 3), Unit("0", 2)], settings=Settings(steps=300, patience=5, **still))
    assert all(10 <= steps < 300 for steps in found.steps)
    again = make(network, [Unit("2", 3)], settings=Settings(steps=found.steps[0], **still))
    torch.testing.assert_close(found.images[0], again.images[0], atol=1e-4, rtol=0)
