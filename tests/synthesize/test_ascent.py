"""The loop, its objectives, silent units, and class images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import LabelError, LayerError, NetworkError, PhospheneError
from phosphene.models import Network, Unit, load
from phosphene.progress import Started, Step, run
from phosphene.synthesize import Ascent, PixelCanvas, Settings, ascend, priors, visualize
from phosphene.synthesize.ascent import WAKES
from phosphene.synthesize.objectives import Divisible, Objective, class_scores, unit_activations
from phosphene.synthesize.redirect import RedirectRule

SIZE = (16, 16)


def small(bias: float = 0.0) -> Network:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3)
    first.bias.data.fill_(bias)  # type: ignore[union-attr]
    module = nn.Sequential(
        first,
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    return load(module, device="cpu", input_size=16)


@pytest.fixture(scope="module")
def network() -> Network:
    return small(bias=0.1)  # awake at the mean colour


def climb(network: Network, objective: Callable[[Tensor], Tensor], count: int = 1, **options: Any) -> Ascent:
    settings = {"steps": 30, "rate": 0.1, "generator": torch.Generator().manual_seed(0), **options}
    return run(ascend(PixelCanvas(network, count, SIZE), objective, **settings))


# -- objectives -------------------------------------------------------------------------------------------------


def test_class_scores_are_the_logits(network: Network) -> None:
    images = torch.rand(3, 3, *SIZE)
    found = class_scores(network, [4, 0, 4])(images)
    assert torch.equal(found, network.logits(images)[[0, 1, 2], [4, 0, 4]])
    with pytest.raises(LabelError, match="0 to 4"):
        class_scores(network, [5])


def test_unit_activations_are_what_is_recorded(network: Network) -> None:
    images = torch.rand(3, 3, *SIZE)
    maps = network.record(images, ["2"])["2"]
    units = [Unit("2", 7), Unit("2", 0, (1, 2)), Unit("2", 7)]
    found = unit_activations(network, units)(images)
    wanted = torch.stack([maps[0, 7].mean(), maps[1, 0, 1, 2], maps[2, 7].mean()])
    torch.testing.assert_close(found, wanted)
    logits = unit_activations(network, [Unit("6", 3)])(images[:1])
    torch.testing.assert_close(logits, network.logits(images[:1])[:, 3])


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([Unit("2", 8)], "units 0 to 7"),
        ([Unit("2", 0, (6, 0))], "no position"),
        ([Unit("2", 0), Unit("0", 0)], "one layer at a time"),
        ([Unit("9", 0)], "no layer '9'"),
    ],
)
def test_units_that_are_none(network: Network, units: list[Unit], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        unit_activations(network, units)


def test_a_position_that_a_smaller_picture_lacks(network: Network) -> None:
    objective = unit_activations(network, [Unit("2", 0, (5, 5))])
    with pytest.raises(LayerError, match="is a map of 2x2 at this size"):
        objective(torch.rand(1, 3, 8, 8))


# -- the loop ---------------------------------------------------------------------------------------------------


def test_it_climbs(network: Network) -> None:
    found = climb(network, class_scores(network, [0, 3]), count=2)
    assert found.values.shape == (30, 2)
    assert (found.values[-1] > found.values[0] + 0.05).all()
    assert (found.values.diff(dim=0) >= -1e-4).float().mean() > 0.9
    assert found.images.min() >= 0 and found.images.max() <= 1


def test_one_step_of_adam_by_hand(network: Network) -> None:
    objective = class_scores(network, [2])
    canvas = PixelCanvas(network, 1, SIZE)
    leaf = canvas.images().detach().requires_grad_()
    gradient = torch.autograd.grad(objective(leaf).sum(), leaf)[0] * network.std
    wanted = 0.1 * gradient / (gradient.abs() + 1e-8)
    run(ascend(canvas, objective, steps=1, rate=0.1, generator=torch.Generator()))
    torch.testing.assert_close(canvas.parameter.detach(), wanted, atol=1e-5, rtol=1e-4)


def test_penalties_pull_back(network: Network) -> None:
    objective = class_scores(network, [0])
    free = climb(network, objective)
    held = climb(network, objective, penalties=[priors.l2(0.05)])
    mean = network.mean
    assert ((held.images - mean) / network.std).norm() < 0.8 * ((free.images - mean) / network.std).norm()
    assert held.values[-1] < free.values[-1]


def test_periodic_operations_come_at_their_time(network: Network) -> None:
    calls: list[tuple[int, bool]] = []
    seen = [0]

    def apply(pixels: Tensor, gradient: Tensor) -> Tensor:
        calls.append((seen[0], bool(gradient.any())))
        return pixels * 0

    job = ascend(
        PixelCanvas(network, 1, SIZE), class_scores(network, [0]), steps=7, rate=0.1,
        periodic=[priors.Periodic(3, apply)], generator=torch.Generator(),
    )  # fmt: skip

    def listen(event: object) -> None:
        assert isinstance(event, Step)
        seen[0] = event.done

    run(job, listen)
    assert calls == [(2, True), (5, True)]  # during the 3rd and the 6th step


def test_events_and_previews(network: Network) -> None:
    events: list[Step] = []
    job = ascend(PixelCanvas(network, 1, SIZE), class_scores(network, [0]), steps=12, rate=0.1,
                 generator=torch.Generator(), preview_every=5)  # fmt: skip
    found = run(job, events.append)  # type: ignore[arg-type]
    assert [event.done for event in events] == list(range(1, 13))
    assert [event.done for event in events if event.preview is not None] == [5, 10, 12]
    assert [-float(event.loss or 0) for event in events] == pytest.approx(found.values[:, 0].tolist())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_objectives_that_are_not_finite(network: Network, bad: float) -> None:
    scores = class_scores(network, [0])
    with pytest.raises(PhospheneError, match="where it begins, at step 1: it, or its gradient, is no finite"):
        climb(network, lambda images: scores(images) * bad)


def test_no_steps(network: Network) -> None:
    with pytest.raises(PhospheneError, match="steps start at 1"):
        climb(network, class_scores(network, [0]), steps=0)


# -- silent units -----------------------------------------------------------------------------------------------


class Silenced(nn.Module):
    """A unit that is off for dark images, behind a ReLU, times a sign."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        self.conv.weight.data.fill_(1.0)
        self.conv.bias.data.fill_(-1.8)  # type: ignore[union-attr]
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[1.0], [-1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture
def silenced() -> Network:
    return load(Silenced(), device="cpu", input_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


def gradient_of(network: Network, images: Tensor, redirected: bool) -> Tensor:
    leaf = images.clone().requires_grad_()
    if redirected:
        with RedirectRule():
            value = network.logits(leaf)[:, 0]
    else:
        value = network.logits(leaf)[:, 0]
    return torch.autograd.grad(value.sum(), leaf)[0]


def test_a_dead_unit_wakes(silenced: Network) -> None:
    grey = torch.full((1, 3, *SIZE), 0.5)
    assert not gradient_of(silenced, grey, redirected=False).any()
    assert (gradient_of(silenced, grey, redirected=True) > 0).all()
    assert climb(silenced, class_scores(silenced, [0]), steps=40).values[-1] > 0.5 + float(
        climb(silenced, class_scores(silenced, [0]), steps=1).values[0]
    )


def test_a_unit_that_stays_dead_is_left_alone_after_a_while(silenced: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the redirected passes are of the dead one alone."""
    sizes: list[int] = []
    passes: list[int] = []

    def counted() -> Any:
        passes.append(1)
        return RedirectRule()

    monkeypatch.setattr("phosphene.synthesize.ascent.RedirectRule", counted)
    scores = class_scores(silenced, [0, 0])
    assert isinstance(scores, Divisible)
    dark = torch.tensor([0.45, -3.0]).view(2, 1, 1, 1)

    def part(places: Sequence[int]) -> Objective:
        sizes.append(len(places))
        alone = class_scores(silenced, [0] * len(places))
        return lambda images: alone(images + dark[list(places)])

    objective = Divisible(lambda images: scores(images + dark), part)
    climb(silenced, objective, count=2, steps=WAKES + 10)
    assert sizes == [1] * WAKES and len(passes) == WAKES


@pytest.mark.parametrize("units", [[Unit("0", 1), Unit("0", 2), Unit("0", 0)], [0, 3, 2]])
def test_a_part_of_an_objective_is_of_these_images(network: Network, units: list[Any]) -> None:
    images = torch.rand(3, 3, *SIZE)
    make = class_scores if isinstance(units[0], int) else unit_activations
    whole = make(network, units)
    assert isinstance(whole, Divisible)
    torch.testing.assert_close(whole.part([2, 0])(images[[2, 0]]), whole(images)[[2, 0]])


def test_what_is_awake_gets_its_plain_gradient(network: Network) -> None:
    images = torch.rand(4, 3, *SIZE)
    plain, redirected = (gradient_of(network, images, redirected) for redirected in (False, True))
    assert plain.flatten(1).any(1).all()
    torch.testing.assert_close(plain, redirected)


def test_a_dead_neighbour_changes_nothing(silenced: Network) -> None:
    bright = lambda images: images + torch.tensor([0.45, 0.0]).view(2, 1, 1, 1)  # noqa: E731
    scores = class_scores(silenced, [0, 0])
    together = climb(silenced, lambda images: scores(bright(images)), count=2, steps=3)
    alone = class_scores(silenced, [0])
    found = climb(silenced, lambda images: alone(images + 0.45), steps=3)
    torch.testing.assert_close(together.images[:1], found.images)
    torch.testing.assert_close(together.values[:, 0], found.values[:, 0])


def test_only_the_silent_images_are_redirected() -> None:
    """A branch that sleeps, beside one that is awake, must not be woken on a neighbour's account."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)
            self.conv.weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
            self.conv.bias.data.fill_(-0.3)  # type: ignore[union-attr]

        def forward(self, x: Tensor) -> Tensor:
            maps = self.conv(x)
            return (torch.relu(maps[:, :1]) + torch.relu(maps[:, 1:])).mean((2, 3)).repeat(1, 2)

    network = load(Two(), device="cpu", input_size=16, mean=(0, 0, 0), std=(1, 1, 1))
    scores = class_scores(network, [0, 0])
    base = torch.zeros(2, 3, 1, 1)
    base[0, 0] = 0.6  # red awakes the first branch of the first image; the second image is black

    def objective(images: Tensor) -> Tensor:
        return scores((images + base).clamp(0, 1))

    found = climb(network, objective, count=2, steps=1)
    assert (found.images[0, 0] > 0).all()
    assert not found.images[0, 1].any()  # green sleeps on, as it would alone
    assert found.images[1, :2].any()


# -- class images -----------------------------------------------------------------------------------------------

QUICK = Settings(steps=6)


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_the_same_seed_gives_the_same_bytes(network: Network, canvas: Any) -> None:
    settings = replace(QUICK, canvas=canvas)
    first, same, other = (run(visualize(network, [0, 3], settings=settings, seed=seed)) for seed in (1, 1, 2))
    assert torch.equal(first.images, same.images)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.images[0], first.images[1])
    assert first.images.shape == (2, 3, *SIZE)
    assert first.images.min() >= 0 and first.images.max() <= 1


def test_the_random_numbers_of_others_are_left_alone(network: Network) -> None:
    before = torch.get_rng_state()
    run(visualize(network, [0], settings=QUICK))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_reported_is_of_the_final_pictures(network: Network) -> None:
    found = run(visualize(network, [0, "class 3"], settings=QUICK))
    logits = network.logits(found.images)
    torch.testing.assert_close(found.scores, logits[[0, 1], [0, 3]])
    assert found.probabilities is not None and found.top is not None
    torch.testing.assert_close(found.probabilities, logits.softmax(1)[[0, 1], [0, 3]])
    assert torch.equal(found.top, logits.argmax(1))
    units = run(visualize(network, [Unit("2", 3), Unit("2", 4, (1, 1))], settings=QUICK))
    maps = network.record(units.images, ["2"])["2"]
    torch.testing.assert_close(units.scores, torch.stack([maps[0, 3].mean(), maps[1, 4, 1, 1]]))
    assert units.probabilities is None and units.top is None


def test_many_targets_go_in_batches(network: Network) -> None:
    events: list[object] = []
    found = run(visualize(network, [n % 5 for n in range(11)], settings=Settings(steps=2)), events.append)
    assert found.images.shape == (11, 3, *SIZE) and found.scores.shape == (11,)
    (started,) = [event for event in events if isinstance(event, Started)]
    assert started.total == 22
    assert [event.done for event in events if isinstance(event, Step)] == [8, 16, 19, 22]


def test_settings_that_ask_for_nothing_random(network: Network) -> None:
    still = Settings("pixel", 5, jitter=0, rotate=0, scale=0, blur=0, clip_norm=0, clip_gradient=0)
    first, other = (run(visualize(network, [1], settings=still, seed=seed)).images for seed in (0, 9))
    assert torch.equal(first, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"canvas": "oil"}, "unknown canvas 'oil'"),
        ({"steps": 0}, "steps start at 1"),
        ({"rate": -1.0}, "a rate is positive"),
        ({"canvas": "pixel", "clip_gradient": 1.0}, "clip_gradient is a share"),
        ({"canvas": "fourier", "clip_gradient": 0.1}, "clip_gradient works on pixels"),
        ({"jitter": -1}, "jitter can't be negative"),
        ({"rotate": -1.0}, "rotate can't be negative"),
        ({"scale": 1.0}, "scale lies between"),
    ],
)
def test_settings_out_of_range(network: Network, change: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        run(visualize(network, [0], settings=replace(QUICK, **change)))


def test_nothing_to_visualize(network: Network) -> None:
    with pytest.raises(PhospheneError, match="nothing to visualize"):
        run(visualize(network, []))
    features = load(nn.Sequential(nn.Conv2d(3, 4, 3)), device="cpu", input_size=8)
    with pytest.raises(NetworkError, match="classifies"):
        run(visualize(features, [0], settings=QUICK))


def test_class_images_are_seen_as_their_class(squeezenet: Network) -> None:
    classes = ["hartebeest", "station wagon", "billiard table", "black swan"]
    found = run(visualize(squeezenet, classes, settings=Settings(steps=50, rate=0.03)))
    assert found.top is not None
    assert found.top.tolist() == squeezenet.classes(classes)
    assert found.images.flatten(1).std(1).min() > 0.1
