"""Fine-tuning small networks: what changes and what must not, a plain loop as reference, and all ways to end and go on."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pupils import Pupil, fill, found, named, noise, outcome, pupil, settled, values
from torch import Tensor, nn

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.models.weights import read_state_dict, save_state_dict
from phosphene.progress import Brake, Event, Started, Step, braked, run
from phosphene.training import inputs
from phosphene.training.finetune import Finetuned, _stalled, finetune
from phosphene.training.folder import Examples
from phosphene.training.probe import probe, targets
from phosphene.training.settings import FinetuneSettings
from phosphene.training.state import State

RATE = 2e-3
QUICK = FinetuneSettings(
    layers="all", epochs=3, batch=8, rate=RATE, augment="none", balanced=False, patience=0, precision="float32"
)
AN_EPOCH = 3  # steps: 24 photographs


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    counts = {"train": {"blue": 12, "green": 8, "red": 4}, "val": {"blue": 3, "green": 3, "red": 4}}
    return found(fill(tmp_path_factory.mktemp("colours"), counts, noise=120))


def tuned(network: Network, examples: Examples, settings: FinetuneSettings = QUICK, **options: Any) -> Finetuned:
    return outcome(finetune(network, examples, settings=settings, **options))


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors that differ."""
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


def begun(network: Network, examples: Examples, settings: FinetuneSettings) -> Network:
    """The network with a probe's head, from which a training starts."""
    last = "top.2"
    return run(probe(network, examples, stages=[last], balanced=settings.balanced, seed=settings.seed)).network


# -- it learns --------------------------------------------------------------------------------------------------


def test_loss_falls_and_accuracy_rises(colours: Examples) -> None:
    settings = replace(QUICK, start="random", epochs=8, rate=1e-2)
    done = tuned(pupil(), colours, settings)
    first, last = done.rows[0], done.rows[-1]
    assert last["train_loss"] < 0.5 * first["train_loss"] and last["train_accuracy"] > 0.9
    assert last["train_accuracy"] > first["train_accuracy"] and last["val_loss"] < first["val_loss"]
    assert last["val_accuracy"] >= 0.9
    assert [row["epoch"] for row in done.rows] == list(range(1, 9))
    assert [row["step"] for row in done.rows] == list(range(3, 25, 3))
    assert done.progress.step == 24 and not done.progress.stopped and not done.progress.repairs
    rates = [row["rate"] for row in done.rows]
    assert rates == sorted(rates, reverse=True) and 0 < rates[-1] < 0.02 * rates[0]


def test_rows_and_probabilities_are_those_of_the_network_returned(colours: Examples) -> None:
    done = tuned(pupil(), colours)
    pictures = torch.cat([done.network.preprocess(images.read(photo.path)) for photo in colours.val])
    mine = done.network.logits(pictures).double().softmax(1).numpy()
    np.testing.assert_allclose(done.probabilities, mine, atol=1e-5)
    labels = targets(colours.val)
    assert done.rows[-1]["val_loss"] == pytest.approx(-np.log(mine[np.arange(10), labels]).mean(), abs=1e-4)
    assert done.rows[-1]["val_accuracy"] == (mine.argmax(1) == labels).mean() == done.scores.accuracy.mean
    assert list(done.network.labels) == ["blue", "green", "red"] and done.probabilities.shape == (10, 3)
    assert done.network.architecture is not None and done.network.architecture.head == "fc"
    assert not any(child.training for child in done.network.module.modules())


def test_the_probe_begins_at_its_own_loss_and_random_near_that_of_guessing(colours: Examples) -> None:
    slow = replace(QUICK, epochs=1, rate=1e-9)
    probed, blind = tuned(pupil(), colours, slow), tuned(pupil(), colours, replace(slow, start="random"))
    assert probed.probe is not None and blind.probe is None
    assert probed.rows[0]["val_loss"] == pytest.approx(probed.probe.chosen.scores.log_loss, abs=1e-3)
    np.testing.assert_allclose(probed.probabilities, probed.probe.chosen.probabilities, atol=1e-3)
    assert blind.rows[0]["val_loss"] == pytest.approx(math.log(3), abs=0.4)


@pytest.mark.parametrize("augment", ["light", "strong"])
def test_augmented_pictures_teach_too(colours: Examples, augment: Any) -> None:
    done = tuned(
        pupil(), colours, replace(QUICK, augment=augment, start="random", epochs=8, rate=1e-2, layers="last:2")
    )
    assert done.after == "stem.2" and done.rows[-1]["val_accuracy"] >= 0.8


def test_without_settings_it_uses_the_defaults_and_says_what_it_does(colours: Examples) -> None:
    parts: list[Event] = []
    short = replace(FinetuneSettings(), epochs=1, batch=8)
    run(finetune(pupil(), colours, settings=short), parts.append)
    names = [event.what for event in parts if isinstance(event, Started)]
    assert names[-2:] == ["fine-tuning", "judging"] and "features of every stage" in names
    started = next(event for event in parts if isinstance(event, Started) and event.what == "fine-tuning")
    assert started.keeps and started.total == AN_EPOCH
    with pytest.raises(PhospheneError, match="24 images to learn from, fewer than a batch of 32"):
        run(finetune(pupil(), colours))


# -- what must not change ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norms", ["frozen", "train"])
@pytest.mark.parametrize(
    ("layers", "trained"), [("head", ("fc",)), ("last:1", ("top", "fc")), ("all", ("stem", "body", "top", "fc"))]
)
def test_what_is_frozen_stays_bit_for_bit(colours: Examples, norms: Any, layers: str, trained: tuple[str, ...]) -> None:
    settings = replace(QUICK, layers=layers, norms=norms, epochs=2, augment="light")
    start = begun(pupil(0.3), colours, settings)
    done = tuned(pupil(0.3), colours, settings)
    changed = moved(values(start.module), values(done.network.module))
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    wanted = {
        name
        for name in start.module.state_dict()
        if name.startswith(trained) and (norms == "train" or not name.endswith(statistics))
    }
    assert changed == wanted
    names = {name for name, _ in start.module.named_parameters() if name.startswith(trained)}
    assert done.trained == sum(p.numel() for name, p in start.module.named_parameters() if name in names)


def test_statistics_in_training_are_the_running_mean_of_the_batches(colours: Examples) -> None:
    """One epoch at no rate worth the name: the statistics alone move, by momentum 0.1 for each batch."""
    settings = replace(QUICK, norms="train", epochs=1, rate=1e-12, head_rate=1.0)
    done = tuned(pupil(), colours, settings)
    start = pupil()
    mean, variance = (values(start.module)[f"stem.1.{what}"] for what in ("running_mean", "running_var"))
    for places in batches(24, 8, seed=0, epoch=0):
        x = start.normalise(pictures(start, colours, places))
        out = start.module.get_submodule("stem.0")(x)
        mean = 0.9 * mean + 0.1 * out.mean((0, 2, 3))
        variance = 0.9 * variance + 0.1 * out.var((0, 2, 3), unbiased=True)
    learned = values(done.network.module)
    torch.testing.assert_close(learned["stem.1.running_mean"], mean.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(learned["stem.1.running_var"], variance.detach(), atol=1e-5, rtol=1e-5)
    assert int(learned["stem.1.num_batches_tracked"]) == 3


def test_the_given_network_is_as_it_was(colours: Examples) -> None:
    network = pupil(0.2)
    network.module.train()
    network.module.get_submodule("stem").eval()
    flagged = network.module.get_parameter("stem.0.weight")
    flagged.requires_grad_(False)
    network.module.get_parameter("fc.weight").grad = torch.full((5, 16), 7.0)
    before = values(network.module)
    modes = [child.training for child in network.module.modules()]
    flags = [p.requires_grad for p in network.module.parameters()]
    hooks = [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in network.module.modules()]
    labels, logits = list(network.labels), network.logits(noise(2))
    tuned(network, colours, replace(QUICK, norms="train", epochs=1))
    assert same(before, values(network.module))
    assert modes == [child.training for child in network.module.modules()]
    assert flags == [p.requires_grad for p in network.module.parameters()]
    assert hooks == [len(child._forward_hooks) + len(child._forward_pre_hooks) for child in network.module.modules()]
    gradient = network.module.get_parameter("fc.weight").grad
    assert gradient is not None and bool((gradient == 7).all())
    assert network.module.get_parameter("body.0.weight").grad is None
    assert labels == list(network.labels) and torch.equal(logits, network.logits(noise(2)))


def test_the_callers_random_numbers_are_as_they_were(colours: Examples) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    np.random.seed(5)
    numbers = np.random.rand(2)
    torch.manual_seed(5)
    np.random.seed(5)
    tuned(pupil(0.5), colours, replace(QUICK, epochs=1, start="random", augment="light"))
    assert torch.equal(torch.rand(3), wanted) and np.array_equal(np.random.rand(2), numbers)


def test_the_seed_decides_all(colours: Examples) -> None:
    settings = replace(QUICK, epochs=2, start="random", augment="light", ema=0.5)
    torch.manual_seed(1)
    one = values(tuned(pupil(0.3), colours, settings).network.module)
    torch.manual_seed(2)
    assert same(one, values(tuned(pupil(0.3), colours, settings).network.module))
    other = values(tuned(pupil(0.3), colours, replace(settings, seed=1)).network.module)
    assert {"fc.weight", "stem.0.weight", "body.0.bias"} <= moved(one, other)


# -- a plain loop -----------------------------------------------------------------------------------------------


def batches(count: int, batch: int, *, seed: int, epoch: int) -> list[list[int]]:
    mixed = np.random.default_rng([seed, epoch, 7]).permutation(count).tolist()
    return [mixed[start : start + batch] for start in range(0, count - batch + 1, batch)]


def pictures(network: Network, examples: Examples, places: list[int]) -> Tensor:
    return torch.cat([network.preprocess(images.read(examples.train[place].path)) for place in places])


def rate_of(name: str, settings: FinetuneSettings, step: int, steps: int) -> float:
    """The rate of the parameter `name` at a step, as the documentation says it."""
    place = name.split(".")[0]
    assert settings.rate is not None and settings.head_rate is not None
    full = settings.rate * {
        "fc": settings.head_rate, "top": 1.0, "body": settings.decay, "stem": settings.decay**2
    }[place]  # fmt: skip
    rising = round(settings.warmup * steps)
    if step < rising:
        return full * (step + 1) / (rising + 1)
    return full * 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


def plainly(
    network: Network, examples: Examples, settings: FinetuneSettings, trained: tuple[str, ...]
) -> Iterator[tuple[nn.Module, float]]:
    """The module after each step, and the step's loss: the whole network each time, and AdamW or SGD written out."""
    module = copy.deepcopy(begun(network, examples, settings).module).eval()
    parameters = {name: p for name, p in module.named_parameters() if name.startswith(trained)}
    first = {name: torch.zeros_like(p) for name, p in parameters.items()}
    second = {name: torch.zeros_like(p) for name, p in parameters.items()}
    counts = torch.tensor(examples.counts(), dtype=torch.float64)
    weights = (counts.sum() / (3 * counts)).float() if settings.balanced else torch.ones(3)
    steps, step = settings.epochs * (len(examples.train) // settings.batch), 0
    for epoch in range(settings.epochs):
        for places in batches(len(examples.train), settings.batch, seed=settings.seed, epoch=epoch):
            labels = torch.tensor([examples.train[place].label for place in places])
            chances = module(network.normalise(pictures(network, examples, places))).log_softmax(1)
            loss, total = torch.zeros(()), 0.0
            for row, label in enumerate(labels.tolist()):
                right, all_of_them = -chances[row, label], -chances[row].mean()
                loss = loss + weights[label] * ((1 - settings.smoothing) * right + settings.smoothing * all_of_them)
                total += float(weights[label])
            loss = loss / total
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            with torch.no_grad():
                for (name, p), gradient in zip(parameters.items(), gradients, strict=True):
                    rate = rate_of(name, settings, step, steps)
                    decay = settings.weight_decay if p.ndim > 1 else 0.0
                    if settings.optimiser == "sgd":
                        first[name] = 0.9 * first[name] + gradient + decay * p
                        p -= rate * first[name]
                        continue
                    p *= 1 - rate * decay
                    first[name] = 0.9 * first[name] + 0.1 * gradient
                    second[name] = 0.999 * second[name] + 0.001 * gradient**2
                    mean, square = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
                    p -= rate * mean / (square.sqrt() + 1e-8)
            step += 1
            yield module, float(loss.detach())


ALL = ("stem", "body", "top", "fc")


@pytest.mark.parametrize(
    ("options", "trained"),
    [
        ({}, ALL),
        ({"layers": "head", "head_rate": 4.0}, ("fc",)),
        ({"layers": "last:2", "decay": 0.3, "head_rate": 5.0, "weight_decay": 0.2}, ("body", "top", "fc")),
        ({"layers": "stage:top.2", "balanced": True, "smoothing": 0.2}, ("top", "fc")),
        ({"optimiser": "sgd", "rate": 2e-2, "warmup": 0.4, "weight_decay": 0.1, "balanced": True}, ALL),
        ({"batch": 7, "warmup": 0.0, "seed": 3, "smoothing": 0.1}, ALL),
    ],
    ids=["all", "head", "last", "stage", "sgd", "batch7"],
)
def test_a_plain_loop_gives_the_same(colours: Examples, options: dict[str, Any], trained: tuple[str, ...]) -> None:
    settings = replace(QUICK, **options)
    losses: list[float] = []
    for module, loss in plainly(pupil(), colours, settings, trained):
        losses.append(loss)
        wanted = module
    seen: list[Event] = []
    done = run(finetune(pupil(), colours, settings=settings), seen.append)
    start = next(
        place for place, event in enumerate(seen) if isinstance(event, Started) and event.what == "fine-tuning"
    )
    mine = [event.loss for event in seen[start:] if isinstance(event, Step) and event.loss is not None]
    np.testing.assert_allclose(mine, losses, rtol=1e-4, atol=1e-5)
    learned = values(done.network.module)
    for name, value in values(wanted).items():  # pyright: ignore[reportPossiblyUnboundVariable]
        torch.testing.assert_close(learned[name], value, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    an_epoch = 24 // settings.batch
    of_epochs = np.reshape(losses, (settings.epochs, an_epoch)).mean(1)
    np.testing.assert_allclose([row["train_loss"] for row in done.rows], of_epochs, rtol=1e-4)


def test_the_average_of_the_weights_is_judged_and_kept(colours: Examples) -> None:
    settings = replace(QUICK, ema=0.7, epochs=2, layers="last:2")
    average = {n: v.double() for n, v in values(begun(pupil(), colours, settings).module).items()}
    for module, _ in plainly(pupil(), colours, settings, ("body", "top", "fc")):
        average = {n: 0.7 * average[n] + 0.3 * v.double() for n, v in values(module).items()}
    done = tuned(pupil(), colours, settings)
    learned = values(done.network.module)
    for name, value in average.items():
        torch.testing.assert_close(learned[name].double(), value, atol=1e-5, rtol=1e-4)
    photos = torch.cat([done.network.preprocess(images.read(photo.path)) for photo in colours.val])
    mine = done.network.logits(photos).double().softmax(1).numpy()
    np.testing.assert_allclose(done.probabilities, mine, atol=1e-5)
    loss = -np.log(mine[np.arange(10), targets(colours.val)]).mean()
    assert done.rows[-1]["val_loss"] == pytest.approx(loss, abs=1e-5)
    assert not same(learned, values(tuned(pupil(), colours, replace(settings, ema=0.0)).network.module))


def test_balanced_weights_pull_towards_the_rare_class(colours: Examples) -> None:
    """A head that sees no features learns the priors: as they are, or equal ones."""
    network = pupil()
    with torch.no_grad():
        for name in ("top.1.weight", "top.1.bias"):  # all features are 0
            network.module.get_parameter(name).zero_()
    settings = replace(
        QUICK, layers="head", start="random", epochs=60, rate=0.1, optimiser="sgd", batch=24, weight_decay=0
    )
    for balanced, wanted in ((False, (12 / 24, 8 / 24, 4 / 24)), (True, (1 / 3, 1 / 3, 1 / 3))):
        done = tuned(network, colours, replace(settings, balanced=balanced))
        np.testing.assert_allclose(done.probabilities[0], wanted, atol=0.02)


def test_smoothing_keeps_probabilities_from_the_ends(colours: Examples) -> None:
    settings = replace(QUICK, layers="head", epochs=40, rate=0.2)
    sure = tuned(pupil(), colours, settings)
    smooth = tuned(pupil(), colours, replace(settings, smoothing=0.3))
    assert smooth.probabilities.max(1).mean() < sure.probabilities.max(1).mean() - 0.05


# -- the frozen part --------------------------------------------------------------------------------------------


class Counting:
    """Counts the photographs that the frozen part is given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[int] = []
        plain = inputs.Frozen.__call__

        def call(frozen: inputs.Frozen, batch: Tensor) -> Tensor:
            self.seen.append(len(batch))
            return plain(frozen, batch)

        patch.setattr(inputs.Frozen, "__call__", call)


def test_the_frozen_part_runs_once_without_augmentation(colours: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    tuned(pupil(), colours, replace(QUICK, layers="head", epochs=5))
    assert sum(counting.seen) == 24 + 10
    counting.seen.clear()
    tuned(pupil(), colours, replace(QUICK, layers="head", epochs=5, augment="light"))
    assert sum(counting.seen) == 5 * 24 + 10


def test_activations_that_are_too_large_lie_in_a_file(
    colours: Examples, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = replace(QUICK, layers="last:1", epochs=1)
    wanted = values(tuned(pupil(), colours, settings).network.module)
    monkeypatch.setattr(inputs, "IN_MEMORY", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made: list[np.ndarray] = []
    plain = inputs._room

    def room(shape: tuple[int, ...]) -> Any:
        table, folder = plain(shape)
        made.append(table)
        assert folder is not None and list(Path(folder.name).iterdir())
        return table, folder

    monkeypatch.setattr(inputs, "_room", room)
    assert same(wanted, values(tuned(pupil(), colours, settings).network.module))
    assert len(made) == 2 and all(isinstance(table, np.memmap) for table in made)
    made.clear()
    assert not list(tmp_path.iterdir())  # taken away with the training


# -- its ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "patience", "wanted"),
    [
        ([3.0, 2.0, 1.0, 0.5], 1, False),
        ([1.0, 2.0], 1, True),
        ([1.0, 2.0], 2, False),
        ([1.0, 2.0, 3.0], 2, True),
        ([3.0, 1.0, 2.0], 1, True),  # means 3, 2, 2: no lower one
        ([3.0, 1.0, 2.0], 2, False),
        ([9.0, 1.0, 1.1, 1.2, 1.3], 1, True),  # means 9, 5, 3.7, 1.1, 1.2
        ([9.0, 1.0, 1.1, 1.2], 1, False),
        ([1.0, 9.0, 9.0, 9.0, 9.0], 0, False),
        ([5.0, 1.0, 5.0, 1.0, 5.0, 1.0], 3, False),  # one alone goes up and down
    ],
)
def test_it_ends_by_the_mean_of_three_losses(losses: list[float], patience: int, wanted: bool) -> None:
    means = [float(np.mean(losses[max(0, place - 2) : place + 1])) for place in range(len(losses))]
    if wanted != (bool(patience) and len(means) - 1 - means.index(min(means)) >= patience):
        pytest.fail(f"this test is wrong itself: {means}")
    assert _stalled(losses, patience) is wanted


def test_a_training_that_gets_worse_ends_early(colours: Examples) -> None:
    harmful = replace(QUICK, epochs=30, rate=0.5, optimiser="sgd", patience=2, warmup=0.9, layers="head")
    done = tuned(pupil(), colours, harmful)
    losses = [row["val_loss"] for row in done.rows]
    ended = len(losses)
    assert ended < 30 and done.progress.step == 3 * ended
    assert done.progress.stopped.startswith("no lower mean of 3 validation losses for 2 epochs")
    assert _stalled(losses, 2) and not any(_stalled(losses[:end], 2) for end in range(1, ended))
    assert len(tuned(pupil(), colours, replace(harmful, patience=0, epochs=ended + 1)).rows) == ended + 1


@pytest.mark.parametrize("step", [1, 3, 4])
def test_a_halt_keeps_what_was_learned(colours: Examples, step: int) -> None:
    brake = Brake()
    kept: list[State] = []

    def keep(state: Callable[[], State], _ended: bool) -> None:
        kept.append(state())
        brake.pulled = len(kept) == step

    done = run(braked(finetune(pupil(), colours, settings=QUICK, keep=keep), brake))
    assert done.progress.step == step == len(kept) and done.progress.stopped == "ended by hand"
    learned = values(done.network.module)
    assert same(learned, {name: kept[-1].tensors[f"model/module.{name}"] for name in learned})
    assert len(done.rows) == step // AN_EPOCH and done.probabilities.shape == (10, 3)
    for wanted, (module, _) in enumerate(plainly(pupil(), colours, QUICK, ALL), 1):
        if wanted == step:
            torch.testing.assert_close(
                learned["fc.weight"], module.get_parameter("fc.weight").detach(), atol=1e-5, rtol=1e-4
            )
            break


def test_closing_the_job_leaves_nothing_behind(colours: Examples) -> None:
    import threading

    before = threading.active_count()
    job = finetune(pupil(), colours, settings=replace(QUICK, augment="light"))
    for event in job:
        if isinstance(event, Step) and event.loss is not None:
            break
    job.close()
    assert threading.active_count() == before


# -- losses that are no numbers ---------------------------------------------------------------------------------


def spoil(patch: pytest.MonkeyPatch, calls: set[int] | None, after: int = 0, value: float = math.nan) -> list[int]:
    """Make the loss NaN at these calls (counted from 1), or with None at all after `after`."""
    count: list[int] = []
    plain = torch.nn.functional.cross_entropy

    def spoiled(*args: Any, **options: Any) -> Tensor:
        count.append(1)
        bad = len(count) in calls if calls is not None else len(count) > after
        return plain(*args, **options) * (value if bad else 1.0)

    patch.setattr(torch.nn.functional, "cross_entropy", spoiled)
    return count


@pytest.mark.parametrize(
    ("call", "from_step", "value"), [(1, 0, math.nan), (3, 0, math.inf), (4, 3, math.nan), (8, 6, math.inf)]
)
def test_after_a_loss_that_is_no_number_it_goes_back_and_on_at_half_the_rate(
    colours: Examples, call: int, from_step: int, value: float
) -> None:
    states: dict[int, State] = {}
    settings = replace(QUICK, ema=0.5, norms="train")

    def keep(state: Callable[[], State], _ended: bool) -> None:
        now = state()
        states.setdefault(now.progress["step"], now)

    with pytest.MonkeyPatch.context() as patch:
        count = spoil(patch, {call}, value=value)
        done = tuned(pupil(0.2), colours, settings, keep=keep)
    assert done.progress.repairs == [call - 1] and done.progress.slower == 0.5 and done.progress.step == 9
    assert [row["epoch"] for row in done.rows] == [1, 2, 3] and [row["step"] for row in done.rows] == [3, 6, 9]
    assert len(count) == 9 + 1 + (call - 1 - from_step)  # what lay between is done again
    assert all(math.isfinite(row["train_loss"]) for row in done.rows)
    # The same by hand: from the state at the end of the epoch before, at half the rate.
    if from_step:
        good = states[from_step]
        slower = {**copy.deepcopy(dict(good.progress)), "slower": 0.5, "repairs": [call - 1]}
        again = tuned(pupil(0.2), colours, settings, resume=State(good.tensors, slower))
        assert same(values(again.network.module), values(done.network.module))
        assert [row["rate"] for row in again.rows] == [row["rate"] for row in done.rows]
    else:
        halved = replace(settings, rate=RATE / 2)
        assert same(values(tuned(pupil(0.2), colours, halved).network.module), values(done.network.module))


def test_two_repairs_in_one_epoch(colours: Examples) -> None:
    """Each goes back to the end of the epoch before, and halves the rate."""
    with pytest.MonkeyPatch.context() as patch:
        spoil(patch, {5, 7})
        done = tuned(pupil(), colours)
    assert done.progress.repairs == [4, 4] and done.progress.slower == 0.25 and done.progress.step == 9
    assert [row["epoch"] for row in done.rows] == [1, 2, 3]


def test_a_loss_that_stays_no_number_is_an_error_after_three_repairs(colours: Examples) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count = spoil(patch, None, after=4)
        with pytest.raises(PhospheneError, match=r"lower --rate than 0\.002") as caught:
            tuned(pupil(), colours)
    assert "steps 4, 3, 3, 3" in str(caught.value) and "0.125 of the rate" in str(caught.value)
    assert "\n" not in str(caught.value) and len(count) == 5 + 3


def test_a_network_that_gives_nan_in_training_alone(colours: Examples) -> None:
    class Sick(Pupil):
        steps = 0

        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            if torch.is_grad_enabled() and x.requires_grad is False and self.fc.out_features == 3:
                type(self).steps += 1
                if type(self).steps == 5:
                    return out * math.nan
            return out

    torch.manual_seed(0)
    done = tuned(named(settled(Sick())), colours)
    assert done.progress.repairs == [4] and done.progress.step == 9
    assert all(bool(torch.isfinite(value).all()) for value in values(done.network.module).values())


# -- going on ---------------------------------------------------------------------------------------------------

WAYS: dict[str, tuple[float, dict[str, Any]]] = {
    "adamw": (0.0, {"augment": "light", "layers": "last:2"}),
    "sgd": (0.0, {"optimiser": "sgd", "rate": 2e-2, "start": "random"}),
    "dropout, ema, statistics": (0.4, {"ema": 0.6, "norms": "train", "augment": "strong", "smoothing": 0.1}),
    "head, once": (0.3, {"layers": "head", "batch": 7, "balanced": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_from_any_step_it_goes_on_to_the_same_bytes(colours: Examples, way: str, tmp_path: Path) -> None:
    drop, options = WAYS[way]
    settings = replace(QUICK, **options)
    states: list[State] = []
    ends: list[bool] = []

    def keep(state: Callable[[], State], ended: bool) -> None:
        states.append(state())
        ends.append(ended)

    whole = tuned(pupil(drop), colours, settings, keep=keep)
    assert len(states) == 9 and ends == [False, False, True] * 3
    wanted = values(whole.network.module)
    for k in np.random.default_rng(len(way)).choice(np.arange(1, 9), 3, replace=False).tolist() + [9]:
        state = states[k - 1]
        file = save_state_dict(state.tensors, tmp_path / f"{k}.safetensors")
        read = State(read_state_dict(file), json.loads(json.dumps(state.progress)))
        assert same(state.tensors, read.tensors) and read.progress["step"] == k
        done = tuned(pupil(drop), colours, settings, resume=read)
        assert same(wanted, values(done.network.module)), f"from step {k}"
        assert np.array_equal(whole.probabilities, done.probabilities)
        timeless = [{n: v for n, v in row.items() if n not in ("seconds", "images_per_second")} for row in done.rows]
        assert timeless == [{n: row[n] for n in timeless[0]} for row in whole.rows]
        assert done.progress.seconds >= state.progress["seconds"] and done.probe is None


def test_a_state_may_be_gone_on_from_twice(colours: Examples) -> None:
    states: list[State] = []
    tuned(pupil(), colours, keep=lambda state, _: states.append(state()))
    state = states[3]
    before = copy.deepcopy(dict(state.progress))
    one = tuned(pupil(), colours, resume=state)
    assert dict(state.progress) == before
    two = tuned(pupil(), colours, resume=state)
    assert len(one.rows) == len(two.rows) == 3 and same(values(one.network.module), values(two.network.module))


def test_a_state_is_a_copy(colours: Examples) -> None:
    states: list[tuple[State, dict[str, Tensor]]] = []

    def keep(state: Callable[[], State], _ended: bool) -> None:
        now = state()
        states.append((now, {name: value.clone() for name, value in now.tensors.items()}))

    tuned(pupil(), colours, replace(QUICK, ema=0.5), keep=keep)
    assert all(same(state.tensors, then) for state, then in states)
    assert {"model/module.fc.weight", "average/module.fc.weight", "optimiser/0/exp_avg"} <= set(states[0][0].tensors)
    assert all(value.device.type == "cpu" for value in states[0][0].tensors.values())


def state_of(network: Network, examples: Examples, settings: FinetuneSettings = QUICK) -> State:
    states: list[State] = []
    brake = Brake()

    def keep(state: Callable[[], State], _ended: bool) -> None:
        states.append(state())
        brake.pulled = True

    run(braked(finetune(network, examples, settings=settings, keep=keep), brake))
    return states[0]


@pytest.mark.parametrize("way", ["width", "layers", "classes", "ema", "adamw by sgd", "sgd by adamw"])
def test_a_state_of_another_training_is_refused(colours: Examples, tmp_path: Path, way: str) -> None:
    network, settings, examples = pupil(), QUICK, colours
    if way == "width":
        wide = Pupil()
        wide.top[0], wide.top[1], wide.fc = nn.Conv2d(12, 20, 3), nn.BatchNorm2d(20), nn.Linear(20, 5)
        network = named(wide)
    elif way == "layers":
        settings = replace(QUICK, layers="head")
    elif way == "classes":
        examples = found(fill(tmp_path, {"train": {"blue": 9, "red": 9}, "val": {"blue": 1, "red": 1}}))
    elif way == "sgd by adamw":
        settings = replace(QUICK, optimiser="sgd")
    state = state_of(network, examples, settings)
    mine = {"ema": replace(QUICK, ema=0.5), "adamw by sgd": replace(QUICK, optimiser="sgd")}.get(way, QUICK)
    with pytest.raises(PhospheneError, match="this state is of another network or other settings") as caught:
        tuned(pupil(), colours, mine, resume=state)
    assert "\n" not in str(caught.value)


# -- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 25}, "24 images to learn from, fewer than a batch of 25"),
        ({"batch": 0}, "--batch starts at 1, got 0"),
        ({"epochs": 0}, "--epochs starts at 1"),
        ({"patience": -1}, "--patience starts at 0"),
        ({"rate": 0.0}, "--rate is a number above 0"),
        ({"rate": math.nan}, "--rate is a number above 0"),
        ({"head_rate": math.inf}, "--head-rate is a number above 0"),
        ({"decay": -1.0}, "--decay is a number above 0"),
        ({"warmup": 1.0}, "--warmup is at least 0 and below 1"),
        ({"smoothing": -0.1}, "--smoothing is at least 0"),
        ({"ema": 1.0}, "--ema is at least 0 and below 1"),
        ({"weight_decay": -1.0}, "--weight-decay is at least 0"),
        ({"weight_decay": math.nan}, "--weight-decay is at least 0"),
        ({"augment": "wild"}, "--augment is one of none, light, strong, not 'wild'"),
        ({"optimiser": "adam"}, "--optimiser is one of adamw, sgd"),
        ({"norms": "on"}, "--norms is one of frozen, train"),
        ({"start": "zero"}, "--start is one of probe, random"),
        ({"precision": "int8"}, "--precision is one of auto, float32"),
        ({"layers": "some"}, "--layers takes head, last:N, stage:NAME or all, not 'some'"),
        ({"layers": "last:9"}, "has 3 stages, and last:9 asks for more"),
    ],
)
def test_settings_out_of_range(colours: Examples, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError) as caught:
        tuned(pupil(), colours, replace(QUICK, **options))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_bfloat16_on_a_cpu_is_near(colours: Examples) -> None:
    exact = tuned(pupil(), colours, replace(QUICK, epochs=1))
    rough = tuned(pupil(), colours, replace(QUICK, epochs=1, precision="bfloat16"))
    assert rough.network.module.get_parameter("fc.weight").dtype is torch.float32
    assert 0 < np.abs(exact.probabilities - rough.probabilities).max() < 0.05


def test_a_network_that_cannot_be_taken_apart_is_trained_whole(colours: Examples) -> None:
    """Its last stage is given the picture, too: what is frozen runs each time, and stays as it was."""

    class Skips(Pupil):
        def forward(self, x: Tensor) -> Tensor:
            y = self.top(self.body(self.stem(x)))
            return self.fc(y.mean((2, 3)) + x.mean((1, 2, 3))[:, None])

    torch.manual_seed(0)
    network = named(settled(Skips()))
    settings = replace(QUICK, layers="head", epochs=2)
    done = tuned(network, colours, settings)
    assert done.after is not None
    learned, before = values(done.network.module), values(network.module)
    assert all(torch.equal(learned[name], before[name]) for name in before if not name.startswith("fc."))
    assert learned["fc.weight"].shape == (3, 16) and done.trained == 3 * 17
