"""Robust training as a whole: a plain loop as reference, all ways to end and go on, the guard, and real digits."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pupils import values
from sparring import PLAIN, REFERENCES, SIDE, Sparring, collapses, hardened, kept, partner, pretend, rounds, timeless
from torch import Tensor, nn

from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Labels, Network, Preprocess
from phosphene.models.small import small
from phosphene.models.weights import read_state_dict, save_state_dict
from phosphene.progress import BY_HAND, Brake, Step, braked, run
from phosphene.training.datasets import read_data
from phosphene.training.harden import METHODS, HardenSettings, harden
from phosphene.training.harden.guard import MOST
from phosphene.training.harden.hardening import Hardening
from phosphene.training.harden.methods import LEARN, Lesson
from phosphene.training.harden.moves import Moved
from phosphene.training.harden.settings import Method
from phosphene.training.loop import REPAIRS, seeded
from phosphene.training.split import Data, Split, held_out
from phosphene.training.state import State

STEPS: dict[Method, int | None] = {"pgd": 2, "fast": None, "free": None, "trades": 2, "atta": 1}
AN_EPOCH = 3


def of(method: Method, **options: Any) -> HardenSettings:
    return replace(PLAIN, **{"method": method, "steps": STEPS[method], **options})


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def part(state: State, kind: str) -> dict[str, Tensor]:
    """What of a state begins so, under its own names."""
    return {n.removeprefix(f"{kind}/module."): v for n, v in state.tensors.items() if n.startswith(f"{kind}/module.")}


# -- a plain loop -----------------------------------------------------------------------------------------------


def there(image: Tensor, drawn: tuple[int, int, bool], back: bool) -> Tensor:
    """A move, pixel by pixel, or what undoes it."""
    down, right, mirror = drawn
    made, (height, width) = torch.zeros_like(image), image.shape[-2:]
    for row in range(height):
        for column in range(width):
            source = row - down, column - right
            if 0 <= source[0] < height and 0 <= source[1] < width:
                at = source[0], (width - 1 - source[1] if mirror else source[1])
                if back:
                    made[..., at[0], at[1]] = image[..., row, column]
                else:
                    made[..., row, column] = image[..., at[0], at[1]]
    return made


def plainly(network: Network, data: Data, settings: HardenSettings) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights and their average after a loop that one can read at a glance, with the papers' slow methods."""
    network = copy.deepcopy(network)
    module, mean, std = network.module.train(), network.mean, network.std
    learned, _ = held_out(data, settings.hold, settings.seed)
    pictures, labels = learned.images.float() / 255, learned.labels
    weights = list(module.parameters())
    shrunk = [p for p in weights if p.ndim > 1]
    groups = [{"params": shrunk, "weight_decay": settings.weight_decay},
              {"params": [p for p in weights if p.ndim == 1], "weight_decay": 0.0}]  # fmt: skip
    made = torch.optim.SGD(groups, 1, momentum=0.9) if settings.optimiser == "sgd" else torch.optim.AdamW(groups, 1)
    average = {name: value.clone() for name, value in module.state_dict().items()}
    replays = settings.replays if settings.method == "free" else 1
    an_epoch = len(learned) // settings.batch
    passes = round(settings.epochs / replays)
    steps, step, changes = passes * an_epoch * replays, 0, {}

    class Whole(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return module((images - mean) / std)

    for epoch in range(passes):
        order = np.random.default_rng([settings.seed, epoch, 7]).permutation(len(learned)).tolist()
        for batch in range(an_epoch):
            places = order[batch * settings.batch : (batch + 1) * settings.batch]
            for replay in range(replays):
                rising = round(settings.warmup * steps)
                if step < rising:
                    factor = (step + 1) / (rising + 1)
                else:
                    factor = (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2
                for group in made.param_groups:
                    group["lr"] = settings.rate * factor
                ramp = settings.ramp * an_epoch * replays
                eps = settings.eps * (min(1.0, (step + 1) / ramp) if ramp else 1.0)
                drawn = Moved(settings.augment, settings.seed).draw(torch.tensor(places), epoch, (SIDE, SIDE))
                drawn = drawn or [(0, 0, False)] * len(places)
                x = torch.stack([there(pictures[p], d, False) for p, d in zip(places, drawn, strict=True)])
                begun = None
                if places[0] in changes and not (settings.method == "free" and replay == 0):
                    begun = torch.stack([there(changes[p], d, False) for p, d in zip(places, drawn, strict=True)])
                whole = Whole()
                lesson = Lesson(whole, whole, x, labels[places], eps, settings.length, settings.inner, settings, begun)
                with seeded(settings.seed, step + 1, 0):
                    loss, _, change = REFERENCES[settings.method](lesson)
                made.zero_grad()
                (loss / len(places)).backward()
                made.step()
                decay = min(settings.ema, (1 + step) / (10 + step))
                step += 1
                for name, value in module.state_dict().items():
                    average[name] = decay * average[name] + (1 - decay) * value
                if change is not None:
                    for place, one, d in zip(places, change, drawn, strict=True):
                        coarse = (there(one, d, True) / settings.eps * 127).round()
                        changes[place] = coarse / 127 * settings.eps
    assert step == steps
    return values(module), average


WAYS: dict[str, tuple[Method, dict[str, Any]]] = {
    "pgd": ("pgd", {"optimiser": "sgd", "rate": 0.1}),
    "pgd, ramp": ("pgd", {"ramp": 1.5, "warmup": 0.4, "weight_decay": 0.1}),
    "fast": ("fast", {"seed": 3}),
    "free": ("free", {"epochs": 6}),
    "free, moved": ("free", {"epochs": 6, "augment": "shift-flip", "optimiser": "sgd", "rate": 0.05}),
    "trades": ("trades", {"beta": 3.0}),
    "atta": ("atta", {}),
    "atta, moved": ("atta", {"augment": "shift-flip", "warmup": 0.2, "ema": 0.6}),
    "atta, shifted, ramp": ("atta", {"augment": "shift", "ramp": 2.0, "optimiser": "sgd", "rate": 0.05, "steps": 2}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_the_plain_loop(way: str) -> None:
    method, options = WAYS[way]
    settings, network, data = of(method, **options), partner(), rounds(32)
    network = Network(
        network.module.double(), name="exact", labels=network.labels, preprocess=network.preprocess, mean=(0.1,), std=(0.8,)
    )  # fmt: skip
    data = data if method != "atta" else rounds(30)  # 26 by eights leave two out
    before = values(network.module)
    done, states = kept(network, data, settings)
    wanted, average = plainly(network, data, settings)
    found = part(states[-1], "model")
    assert found.keys() == wanted.keys() and done.progress.step == len(states)
    for name, value in wanted.items():
        assert float((value - before[name]).abs().max()) > 1e-3  # it learned something
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
        if settings.ema:
            mean = part(states[-1], "average")[name]
            torch.testing.assert_close(mean, average[name], rtol=1e-4, atol=1e-5)
    assert same(values(network.module), before) and not network.module.training


# -- what the steps are made of ---------------------------------------------------------------------------------


def lessons(patch: pytest.MonkeyPatch, method: Method) -> list[Lesson]:
    """All that the training learns from."""
    seen: list[Lesson] = []
    plain = LEARN[method]

    def noted(lesson: Lesson) -> tuple[Tensor, Tensor]:
        seen.append(lesson)
        return plain(lesson)

    patch.setitem(LEARN, method, noted)
    return seen


def begun(patch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor, Tensor, float]]:
    """Of each attack in training: pictures, start, end, radius."""
    seen: list[tuple[Tensor, Tensor, Tensor, float]] = []
    from phosphene.training.harden import methods

    plain = methods.climb

    def noted(module: nn.Module, x: Tensor, start: Tensor, up: Any, *, eps: float, **options: Any) -> Tensor:
        end = plain(module, x, start, up, eps=eps, **options)
        seen.append((x.clone(), start.detach().clone(), end.clone(), eps))
        return end

    patch.setattr(methods, "climb", noted)
    return seen


def where(picture: Tensor, among: Tensor) -> int:
    (place,) = (among == picture).flatten(1).all(1).nonzero().flatten().tolist()
    return int(place)


def test_atta_begins_where_it_ended_an_epoch_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each picture, to the last byte that is kept."""
    data, settings = rounds(30), of("atta", epochs=4)
    attacks = begun(monkeypatch)
    hardened(partner(), data, settings)
    learned = held_out(data, settings.hold)[0].images.float() / 255
    ends: dict[int, Tensor] = {}
    for number, (x, start, end, eps) in enumerate(attacks):
        for picture, first, last in zip(x, start, end, strict=True):
            place = where(picture, learned)
            if number >= AN_EPOCH:
                change = ((ends[place] - picture) / eps * 127).round() / 127 * eps
                wanted = (picture + change).clamp(0, 1)
                torch.testing.assert_close(first, wanted, rtol=0, atol=2e-7)
            ends[place] = last
    assert len(attacks) == 4 * AN_EPOCH and len(ends) == 24


def test_atta_goes_on_where_the_batch_does_not_divide_the_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    data, settings = rounds(36), of("atta", epochs=2)  # 30 to learn from, 6 of which an epoch leaves out
    attacks = lessons(monkeypatch, "atta")
    hardened(partner(), data, settings)
    assert sum(lesson.kept is not None for lesson in attacks[AN_EPOCH:]) == AN_EPOCH


def test_attacks_stay_in_the_ball_that_grows() -> None:
    for method in ("pgd", "fast", "trades", "atta"):
        with pytest.MonkeyPatch.context() as patch:
            attacks = begun(patch)
            hardened(partner(), rounds(), of(method, ramp=2.0))
        wanted = [0.1 * min(1.0, (step + 1) / 6) for step in range(9)]
        assert [eps for *_, eps in attacks] == pytest.approx(wanted)
        for x, _, end, eps in attacks:
            assert float((end - x).abs().max()) <= eps + 1e-6 and 0 <= float(end.min()) <= float(end.max()) <= 1
            assert float((end - x).abs().max()) > 0.5 * eps


def test_frees_batches_come_several_times_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lessons(monkeypatch, "free")
    done = hardened(partner(), rounds(), of("free", epochs=6))
    assert len(seen) == done.progress.step == 18 and len(done.rows) == 2
    assert [torch.equal(one.x, other.x) for one, other in pairwise(seen)] == [(step + 1) % 3 != 0 for step in range(17)]
    assert [lesson.kept is None for lesson in seen] == [step % 3 == 0 for step in range(18)]
    for one, other in pairwise(seen):
        if other.kept is not None:
            assert one.change is not None
            assert float((other.kept - one.change).abs().max()) <= 0.1 / 127 / 2 + 1e-6


@pytest.mark.parametrize("epochs", [2, 4, 12])
def test_free_sees_each_picture_as_often_as_asked(epochs: int) -> None:
    """Within half a pass; or the settings are refused."""
    try:
        done = hardened(partner(), rounds(), of("free", epochs=epochs, replays=8))
    except PhospheneError:
        return
    assert done.progress.step * 8 / 24 == pytest.approx(epochs, abs=1)


def test_frees_radius_grows_in_as_many_epochs_as_that_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = lessons(monkeypatch, "free")
    hardened(partner(), rounds(), of("free", epochs=6, ramp=1.0))
    assert [lesson.eps for lesson in seen[2:]] == pytest.approx([0.1] * 16)  # each picture was seen once


def spent(patch: pytest.MonkeyPatch, method: Method) -> list[int]:
    """Gradients of pictures in training, each entry the pictures of one backward pass."""
    seen: list[int] = []
    plain, slope, attacking = LEARN[method], torch.autograd.grad, [False]

    def learning(lesson: Lesson) -> tuple[Tensor, Tensor]:
        attacking[0] = True
        called = lesson.called

        def count(images: Tensor) -> Tensor:
            seen.append(len(images))
            return called(images)

        lesson.called = count
        try:
            return plain(lesson)
        finally:
            attacking[0] = False

    def gradient(outputs: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        if attacking[0]:
            seen.append(len(inputs))
        return slope(outputs, inputs, *args, **options)

    patch.setitem(LEARN, method, learning)
    patch.setattr(torch.autograd, "grad", gradient)
    return seen


@pytest.mark.parametrize("method", METHODS)
def test_the_price_is_what_was_spent(monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    count = spent(monkeypatch, method)
    done = hardened(partner(), rounds(), of(method))
    assert done.gradients == sum(count) / 24 > 0


@pytest.mark.parametrize("method", METHODS)
def test_the_callers_random_numbers_and_network_are_left_alone(method: Method) -> None:
    network = partner(norm=True, drop=0.3)
    network.module.get_parameter("conv.weight").requires_grad_(False)
    before = values(network)
    torch.manual_seed(5)
    wanted = torch.rand(4)
    torch.manual_seed(5)
    done = hardened(network, rounds(), of(method, augment="shift"))
    assert torch.equal(torch.rand(4), wanted)
    assert same(values(network), before) and not network.module.training
    assert not network.module.get_parameter("conv.weight").requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(child.training for child in done.network.module.modules())


def test_the_new_network_has_no_gradients() -> None:
    done = hardened(partner(), rounds(), of("fast"))
    assert all(parameter.grad is None for parameter in done.network.parameters())


def test_what_reads_the_network_sees_the_new_weights() -> None:
    network, images = partner(norm=True), rounds().train.images.float() / 255
    network.logits(images)  # its copy is made now
    done = hardened(network, rounds(), of("pgd"))
    torch.testing.assert_close(done.network.logits(images), done.network(images), atol=1e-5, rtol=1e-4)
    assert not torch.equal(done.network(images), network(images))


def test_the_same_twice_and_otherwise_with_another_seed() -> None:
    one, two = (hardened(partner(), rounds(), of("fast", augment="shift")) for _ in range(2))
    other = hardened(partner(), rounds(), of("fast", augment="shift", seed=1))
    assert same(values(one.network.module), values(two.network.module)) and timeless(one.rows) == timeless(two.rows)
    assert not same(values(one.network.module), values(other.network.module))


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_to_stand(method: Method) -> None:
    """Three rows that can be told apart at this radius."""
    data = rounds(90, noise=20)
    plain = hardened(partner(), data, of("pgd", eps=1e-4, epochs=8, hold=18))
    done = hardened(partner(), data, of(method, epochs=9 if method == "free" else 8, hold=18))
    last = done.rows[-1]
    assert last["clean"] >= 0.9 and last["robust"] >= 0.8 and last["train_loss"] < done.rows[0]["train_loss"]
    assert [row["epoch"] for row in done.rows] == list(range(1, len(done.rows) + 1))
    assert plain.rows[-1]["clean"] >= 0.9


# -- going on ---------------------------------------------------------------------------------------------------


def again(state: State, folder: Path) -> State:
    """From files."""
    file = save_state_dict(state.tensors, folder / "state.safetensors")
    return State(read_state_dict(file), json.loads(json.dumps(state.progress)))


RESUMED: dict[str, tuple[Method, dict[str, Any]]] = {
    "pgd": ("pgd", {"ramp": 2.0}),
    "pgd, sgd": ("pgd", {"optimiser": "sgd", "rate": 0.05}),
    "fast": ("fast", {"augment": "shift-flip"}),
    "free": ("free", {"epochs": 6}),
    "free, moved": ("free", {"epochs": 6, "augment": "shift-flip"}),
    "trades": ("trades", {}),
    "atta": ("atta", {"epochs": 4}),
    "atta, moved": ("atta", {"augment": "shift-flip", "ramp": 1.0}),
    "atta, uneven": ("atta", {"hold": 4, "batch": 7}),
}


@pytest.mark.parametrize("way", RESUMED)
def test_from_any_step_it_goes_on_to_the_same_bytes(way: str, tmp_path: Path) -> None:
    method, options = RESUMED[way]
    settings = of(method, **{"ema": 0.6, "warmup": 0.3, "guard": True, **options})
    network, data = partner(norm=True, drop=0.2), rounds()
    whole, states = kept(network, data, settings)
    count = len(states)
    steps = [state.progress["step"] for state in states]  # the last that the guard has seen to be well
    assert whole.progress.step == count and steps == sorted(steps) and len(set(steps)) >= count // 4
    for k in sorted({1, 2, 3, 4, count // 2 + 1, count - 1, count}):
        done, rest = resumed(network, data, settings, again(states[k - 1], tmp_path))
        assert same(values(whole.network.module), values(done.network.module)), f"from step {k}"
        assert timeless(done.rows) == timeless(whole.rows) and done.best == whole.best
        assert done.gradients == whole.gradients and done.progress.notes == whole.progress.notes
        if rest:
            assert same(rest[-1].tensors, states[-1].tensors)  # kept changes, best weights, average, optimiser


def resumed(network: Network, data: Data, settings: HardenSettings, state: State) -> tuple[Any, list[State]]:
    states: list[State] = []
    done = hardened(network, data, settings, resume=state, keep=lambda make, _ended: states.append(make()))
    return done, states


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("at", [1, 2, 5, 8])
def test_stopped_by_hand_it_goes_on_to_the_same_bytes(method: Method, at: int, tmp_path: Path) -> None:
    """A `Halt` ends it with the best so far; a closed job (Ctrl-C, killed) leaves the last state."""
    settings, network, data = of(method, ema=0.5, guard=True, augment="shift"), partner(norm=True), rounds()
    whole, every = kept(network, data, settings)
    states: list[State] = []
    job = harden(network, data, settings=settings, keep=lambda make, _ended: states.append(make()))
    short = run(braked(job, Brake(at=at)))
    assert short.progress.stopped == BY_HAND and short.progress.step == at - 1 == len(states)
    assert short.best == (0 if at - 1 < (9 if method == "free" else 3) else short.best)
    if not states:
        return
    assert same(states[-1].tensors, every[at - 2].tensors)
    done = hardened(network, data, settings, resume=again(states[-1], tmp_path))
    assert same(values(whole.network.module), values(done.network.module)) and not done.progress.stopped

    killed: list[State] = []
    job = harden(network, data, settings=settings, keep=lambda make, _ended: killed.append(make()))
    for event in job:
        if isinstance(event, Step) and event.done == at - 1:
            break
    job.close()
    assert same(killed[-1].tensors, states[-1].tensors)


def test_a_state_is_a_copy_and_may_be_gone_on_from_twice() -> None:
    settings = of("atta", ema=0.5, guard=True)
    states: list[tuple[State, dict[str, Tensor]]] = []

    def keep(make: Callable[[], State], _ended: bool) -> None:
        now = make()
        states.append((now, {name: value.clone() for name, value in now.tensors.items()}))

    hardened(partner(), rounds(), settings, keep=keep)
    assert all(same(state.tensors, then) for state, then in states)
    state = states[4][0]
    progress = copy.deepcopy(dict(state.progress))
    one, two = (hardened(partner(), rounds(), settings, resume=state) for _ in range(2))
    assert same(values(one.network.module), values(two.network.module)) and dict(state.progress) == progress
    assert all(same(state.tensors, then) for state, then in states)


@pytest.mark.parametrize("why", ["network", "optimiser", "ema", "pictures"])
def test_a_state_of_another_training_is_refused(why: str) -> None:
    settings = of("atta")
    _, states = kept(partner(), rounds(), settings)
    network, data = partner(), rounds()
    if why == "network":
        network = partner(norm=True)
    elif why == "optimiser":
        settings = replace(settings, optimiser="sgd")
    elif why == "ema":
        settings = replace(settings, ema=0.5)
    else:
        data = rounds(60)
    with pytest.raises(PhospheneError, match=r"another network or other settings|with other pictures") as caught:
        hardened(network, data, settings, resume=states[4])
    assert "\n" not in str(caught.value)


@pytest.mark.xfail(
    strict=True, reason="a weight that is never used has no optimiser state, so that no state is accepted"
)
def test_a_network_with_an_unused_weight_goes_on() -> None:
    class Idle(Sparring):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(3, 3)

    network = partner(module=Idle())
    whole, states = kept(network, rounds(), of("fast"))
    done = hardened(network, rounds(), of("fast"), resume=states[3])
    assert same(values(whole.network.module), values(done.network.module))


# -- the guard --------------------------------------------------------------------------------------------------

LONG = 8
"""Steps of an epoch with 70 pictures: the guard looks after each second one."""


@pytest.mark.parametrize("method", ["fast", "pgd", "atta", "trades", "free"])
def test_a_collapse_is_noticed_and_mended(monkeypatch: pytest.MonkeyPatch, method: Method) -> None:
    settings = of(method, guard=True, ema=0.5, hold=10, augment="shift", epochs=6 if method == "free" else 3)
    data, network = rounds(74), partner()
    at, back = (12, 6) if method == "free" else (6, 4)  # two looks; all is well at the second
    pretend(monkeypatch, collapses(at))
    seen = lessons(monkeypatch, method)
    done, states = kept(network, data, settings)
    notes = done.progress.notes
    assert notes["mended"] == [{"step": at, "why": "accuracy under attack fell from 90% to 0%"}]
    assert notes["more"] == 1 and done.progress.slower == 0.5 and done.progress.repairs == []
    an_epoch = LONG * (3 if method == "free" else 1)
    total = an_epoch * (2 if method == "free" else 3)
    inner = settings.inner
    assert done.progress.step == total and len(done.rows) == total // an_epoch
    assert [lesson.steps for lesson in seen] == [inner] * at + [inner + 1] * (total - back)
    shorter = max(settings.length / 2, 1.5 * settings.eps / (inner + 1))
    assert [lesson.step for lesson in seen] == pytest.approx([settings.length] * at + [shorter] * (total - back))
    steps = [state.progress["step"] for state in states]
    assert steps == sorted(steps) and at not in steps[: at - 1] and max(steps) <= total and back in steps
    assert all(0 < row["rate"] <= 0.5 * settings.rate for row in done.rows)
    # The same by hand: from the state before, one step more, half the rate.
    good = states[back - 1]
    progress = copy.deepcopy(dict(good.progress))
    progress |= {"slower": 0.5, "notes": {**progress["notes"], "more": 1, "mended": notes["mended"]}}
    by_hand = hardened(network, data, settings, resume=State(good.tensors, progress))
    assert same(values(by_hand.network.module), values(done.network.module))
    assert timeless(by_hand.rows) == timeless(done.rows)


def test_without_the_guard_nothing_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, collapses(6))
    done = hardened(partner(), rounds(), of("fast"))
    assert "mended" not in done.progress.notes and done.progress.slower == 1


def test_a_collapse_that_comes_back_is_mended_no_more_than_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, lambda now: 0.9 if now.progress.step < 2 else 0.0)
    seen = lessons(monkeypatch, "fast")
    done = hardened(partner(), rounds(), of("fast", guard=True))
    notes = done.progress.notes
    assert len(notes["mended"]) == MOST == notes["more"] and done.progress.slower == 0.5**MOST
    assert [one["step"] for one in notes["mended"]] == [2] * MOST
    assert done.progress.step == 9 and [row["epoch"] for row in done.rows] == [1, 2, 3] and len(seen) == 9 + MOST


def test_a_mended_training_goes_on_to_the_same_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend(monkeypatch, collapses(6))
    settings = of("fast", guard=True, hold=10, ema=0.5)
    whole, states = kept(partner(), rounds(74), settings)
    assert len(states) == 24 + 1
    for place in (3, 5, 6, 12):  # one before the collapse, the others after it; for step 5 see the next test
        done = hardened(partner(), rounds(74), settings, resume=again(states[place], tmp_path))
        assert same(values(whole.network.module), values(done.network.module)), place
        assert timeless(done.rows) == timeless(whole.rows) and done.progress.notes == whole.progress.notes


@pytest.mark.parametrize("why", ["a collapse", "a loss that is no number"])
def test_killed_between_two_looks_and_then_broken_it_goes_on_to_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """Uninterrupted, it goes back to step 4 from 6; resumed at 5, to 5."""
    settings, again = of("fast", guard=True, hold=10), []
    if why == "a collapse":
        pretend(monkeypatch, collapses(6))
    else:
        spoil(monkeypatch, "fast", lambda lesson, call: again.append(call) or len(again) == 6)
    whole, states = kept(partner(), rounds(74), settings)
    again[:] = [0] * 5
    done = hardened(partner(), rounds(74), settings, resume=states[4])
    assert same(values(whole.network.module), values(done.network.module))
    assert timeless(done.rows) == timeless(whole.rows)


def test_no_false_alarm_in_a_training_that_goes_well() -> None:
    for seed in range(3):
        settings = of("atta", guard=True, hold=24, epochs=4, seed=seed)
        done = hardened(partner(seed=seed), rounds(96, noise=60, seed=seed), settings)
        assert "mended" not in done.progress.notes and done.progress.slower == 1


def test_all_classes_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that says the first class to everything is not robust; one that unlearns that has not collapsed."""
    seen: list[set[int]] = []
    plain = Hardening.stands

    def stands(self: Hardening, images: Tensor, labels: Tensor) -> Tensor:
        if len(images) == 256:
            seen.append(set(labels.tolist()))
        return plain(self, images, labels)

    monkeypatch.setattr(Hardening, "stands", stands)
    hardened(partner(), rounds(1200, ordered=True), of("fast", guard=True, hold=900, epochs=1, batch=100, judged=1))
    assert seen and all(classes == {0, 1, 2} for classes in seen)


def test_a_collapse_with_two_classes_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, collapses(6))
    done = hardened(partner(2), rounds(classes=2), of("fast", guard=True))
    assert len(done.progress.notes.get("mended", [])) == 1


def test_the_price_of_a_mended_training(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, collapses(6))
    count = spent(monkeypatch, "fast")
    done = hardened(partner(), rounds(), of("fast", guard=True))
    assert done.gradients == pytest.approx(sum(count) / 24)


def test_a_mending_remembers_the_repairs(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, collapses(6))
    spoil(monkeypatch, "fast", lambda _lesson, call: call == 6)
    done = hardened(partner(), rounds(74), of("fast", guard=True, hold=10))
    assert len(done.progress.notes["mended"]) == 1 and done.progress.slower == 0.25
    assert done.progress.repairs == [5]


# -- losses that are no numbers ---------------------------------------------------------------------------------


def spoil(
    patch: pytest.MonkeyPatch, method: Method, when: Callable[[Lesson, int], Any], by: float = math.nan
) -> list[int]:
    """Losses that are no numbers, at some calls, counted from 1."""
    calls: list[int] = []
    plain = LEARN[method]

    def spoiled(lesson: Lesson) -> tuple[Tensor, Tensor]:
        loss, logits = plain(lesson)
        calls.append(len(calls) + 1)
        return loss * (by if when(lesson, len(calls)) else 1.0), logits

    patch.setitem(LEARN, method, spoiled)
    return calls


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("call", "by", "guard"), [(1, math.nan, True), (5, math.inf, False), (5, math.nan, True)])
def test_after_a_loss_that_is_no_number_it_goes_on_at_half_the_rate(
    monkeypatch: pytest.MonkeyPatch, method: Method, call: int, by: float, guard: bool
) -> None:
    settings = of(method, ema=0.5, guard=guard)
    calls = spoil(monkeypatch, method, lambda _lesson, number: number == call, by)
    done, states = kept(partner(norm=True), rounds(), settings)
    an_epoch = 9 if method == "free" else 3
    back = call - 1 if guard and method != "free" else (call - 1) // an_epoch * an_epoch
    if guard and method == "free":
        back = (call - 1) // 2 * 2  # a quarter of nine
    assert done.progress.repairs == [call - 1] and done.progress.slower == 0.5 and done.progress.step == 9
    assert len(calls) == 9 + call - back and len(done.rows) == 9 // an_epoch
    assert all(bool(torch.isfinite(value).all()) for value in values(done.network.module).values())
    if back:
        good = states[back - 1]
        progress = {**copy.deepcopy(dict(good.progress)), "slower": 0.5, "repairs": [call - 1]}
        by_hand = hardened(partner(norm=True), rounds(), settings, resume=State(good.tensors, progress))
    else:
        by_hand = hardened(partner(norm=True), rounds(), replace(settings, rate=settings.rate / 2))
    assert same(values(by_hand.network.module), values(done.network.module))


def test_a_loss_that_stays_no_number_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spoil(monkeypatch, "atta", lambda _lesson, number: number > 4)
    with pytest.raises(PhospheneError, match=r"lower --rate than 0\.02") as caught:
        hardened(partner(), rounds(), of("atta"))
    assert "\n" not in str(caught.value) and len(calls) == 5 + REPAIRS


class Torn(Sparring):
    """Its loss is a number, but its gradient isn't, at one backward pass of training."""

    passes = 0

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.training:
            type(self).passes += 1
            if type(self).passes == 2:
                out.register_hook(lambda slope: slope * math.nan)
        return out


@pytest.mark.parametrize("guard", [False, True])
def test_weights_that_are_no_numbers_are_left_behind(guard: bool) -> None:
    Torn.passes = 0
    done = hardened(partner(module=Torn()), rounds(), of("fast", guard=guard))
    assert len(done.progress.repairs) == 1 and done.progress.step == 9
    assert all(bool(torch.isfinite(value).all()) for value in values(done.network.module).values())


def test_an_epoch_whose_end_is_no_number_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = Hardening.accuracies, []

    def accuracies(self: Hardening, split: Split) -> tuple[float, float]:
        calls.append(self.progress.step)
        return (math.nan, math.nan) if len(calls) == 2 else plain(self, split)

    monkeypatch.setattr(Hardening, "accuracies", accuracies)
    done = hardened(partner(), rounds(), of("fast", guard=True))
    assert [row["epoch"] for row in done.rows] == [1, 2, 3] and [row["step"] for row in done.rows] == [3, 6, 9]


# -- the best ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ema", [0.0, 0.7])
@pytest.mark.parametrize("method", ["fast", "atta"])
def test_the_best_by_accuracy_under_attack_is_what_is_returned(
    monkeypatch: pytest.MonkeyPatch, method: Method, ema: float
) -> None:
    """It falls, while that without attack rises."""
    shares = [0.5, 5 / 6, 2 / 6, 5 / 6, 1 / 6]
    pretend(monkeypatch, lambda now: shares[(now.progress.step - 1) // 3])
    done, states = kept(partner(norm=True), rounds(), of(method, epochs=5, ema=ema))
    assert [row["robust"] for row in done.rows] == pytest.approx(shares) and done.best == 2
    assert same(values(done.network.module), part(states[5], "average" if ema else "model"))
    assert done.progress.step == 15 and not done.progress.stopped


def test_patience_ends_it_and_keeps_the_best(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shares = [0.5, 5 / 6, 2 / 6, 5 / 6, 1, 1]
    pretend(monkeypatch, lambda now: shares[(now.progress.step - 1) // 3])
    settings = of("fast", epochs=6, patience=2)
    done, states = kept(partner(), rounds(), settings)
    assert done.progress.stopped == "no better accuracy under attack for 2 epochs" and len(done.rows) == 4
    assert done.best == 2 and same(values(done.network.module), part(states[5], "model"))
    for k in (5, 7, 11):
        other = hardened(partner(), rounds(), settings, resume=again(states[k], tmp_path))
        assert timeless(other.rows) == timeless(done.rows) and other.progress.stopped == done.progress.stopped
        assert same(values(other.network.module), values(done.network.module))
    assert len(hardened(partner(), rounds(), replace(settings, patience=3)).rows) == 6


def test_it_is_judged_by_pgd_at_the_whole_radius() -> None:
    """On pictures that it has not learned from, with the weights that are returned."""
    data, settings = rounds(90), of("pgd", hold=30, judged=5, epochs=2, ramp=4.0)
    done = hardened(partner(), data, settings)
    held = held_out(data, 30)[1]
    images, labels = held.images.float() / 255, held.labels
    row = done.rows[done.best - 1]
    assert row["clean"] == pytest.approx(float((done.network(images).argmax(1) == labels).double().mean()))
    with seeded(0, 0, 0):
        here = (images + torch.empty_like(images).uniform_(-0.1, 0.1)).clamp(0, 1)
    for _ in range(5):
        here.requires_grad_()
        slope = torch.autograd.grad(nn.functional.cross_entropy(done.network(here), labels), here)[0]
        here = (here.detach() + 0.05 * slope.sign()).clamp(images - 0.1, images + 0.1).clamp(0, 1)
    assert row["robust"] == pytest.approx(float((done.network(here).argmax(1) == labels).double().mean()))


def test_ended_before_the_first_epoch_it_returns_what_there_is() -> None:
    done = run(braked(harden(partner(), rounds(), settings=of("fast")), Brake(at=3)))
    assert done.best == 0 and done.rows == () and done.progress.step == 2
    assert not same(values(done.network.module), values(partner().module))


def test_a_short_training_with_the_usual_average_learns() -> None:
    """12 epochs of 8 steps: 0.999^96 of a plain average would still be the first weights."""
    data = rounds(82, noise=20)
    done = hardened(partner(seed=2), data, of("atta", hold=18, epochs=12, guard=True, ema=HardenSettings().ema))
    assert done.rows[-1]["robust"] >= 0.9
    images, labels = data.test.images.float() / 255, data.test.labels
    assert float(nn.functional.cross_entropy(done.network(images), labels).detach()) < 0.4


# -- refusals ---------------------------------------------------------------------------------------------------


def refused(network: Network, data: Data, settings: HardenSettings = PLAIN) -> str:
    with pytest.raises(PhospheneError) as caught:
        hardened(network, data, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_settings_are_checked_first() -> None:
    assert "covers the whole range" in refused(partner(), rounds(), of("pgd", eps=1.0))
    assert "8/255" in refused(partner(), rounds(), of("pgd", eps=8.0))
    assert "--batch starts at 1" in refused(partner(), rounds(), of("pgd", batch=0))


def test_a_network_for_other_pictures_or_classes() -> None:
    assert "partner has 2 classes, rounds 3" in refused(partner(2), rounds())
    colour = Network(
        Sparring(), name="colour", labels=Labels(["a", "b", "c"]), preprocess=Preprocess((SIDE, SIDE), SIDE),
        mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    assert "colour takes pictures [3, 6, 6], rounds has [1, 6, 6]" in refused(colour, rounds())
    wide = Network(
        Sparring(),
        name="wide",
        labels=Labels(["a", "b", "c"]),
        preprocess=Preprocess((8, 6), 6),
        mean=(0.0,),
        std=(1.0,),
    )
    assert "wide takes pictures [1, 8, 6]" in refused(wide, rounds())
    features = Network(Sparring(), name="features", labels=None, preprocess=Preprocess((6, 6), 6), mean=(0,), std=(1,))
    with pytest.raises(NetworkError, match="harden needs a network that classifies"):
        hardened(features, rounds())


def test_the_same_classes_in_another_order_are_not_mixed_up() -> None:
    network = partner()
    turned = Network(
        network.module, name="turned", labels=Labels(["block 2", "block 1", "block 0"]),
        preprocess=network.preprocess, mean=(0.1,), std=(0.8,),
    )  # fmt: skip
    try:
        done = hardened(turned, rounds(90, noise=20), of("fast", epochs=6))
    except PhospheneError:
        return
    test = rounds(90, noise=20).train
    said = done.network(test.images.float() / 255).argmax(1)
    right = [done.network.labels[s] == f"block {t}" for s, t in zip(said.tolist(), test.labels.tolist(), strict=True)]
    assert np.mean(right) > 0.5


def test_too_few_pictures() -> None:
    assert "24 pictures to learn from, fewer than a batch of 25" in refused(partner(), rounds(), of("pgd", batch=25))
    assert "held out" in refused(partner(), rounds(), of("pgd", hold=28))
    assert "held out" in refused(partner(), rounds(), of("pgd", hold=2))


def test_a_class_that_is_never_shown_or_once() -> None:
    whole = rounds(30).train
    lacking = whole.some((whole.labels != 1).nonzero()[:, 0])
    with pytest.raises(PhospheneError, match="no picture of block 1"):
        Data(lacking, whole, ("block 0", "block 1", "block 2"), "lacking")
    once = torch.cat([(whole.labels != 1).nonzero()[:, 0], (whole.labels == 1).nonzero()[:1, 0]])
    data = Data(whole.some(once), whole, ("block 0", "block 1", "block 2"), "lonely")
    assert "one picture of block 1" in refused(partner(), data)


def test_low_wide_pictures_can_be_shifted() -> None:
    pictures = torch.randint(0, 256, (30, 1, 5, 80), dtype=torch.uint8)
    split = Split(pictures, torch.arange(30) % 3)
    data = Data(split, split, ("a", "b", "c"), "strips")
    network = Network(
        nn.Sequential(nn.Flatten(), nn.Linear(400, 3)).eval(), name="strips", labels=Labels(["a", "b", "c"]),
        preprocess=Preprocess((5, 80), 5), mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    assert hardened(network, data, of("atta", augment="shift")).progress.step == 9


# -- real digits ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(shared: Path) -> Data:
    """6,000 to learn from."""
    whole = run(read_data(shared / "data" / "mnist"))
    return Data(whole.train.some(slice(0, 6000)), whole.test.some(slice(0, 300)), whole.classes, "digits")


def stand(network: Network, data: Data) -> tuple[float, float]:
    """Accuracy as they are and after 20 steps of PGD at 0.3, which are written here."""
    images, labels = data.test.images.float() / 255, data.test.labels
    here = images.clone()
    for _ in range(20):
        here.requires_grad_()
        slope = torch.autograd.grad(nn.functional.cross_entropy(network(here), labels), here)[0]
        here = (here.detach() + 0.03 * slope.sign()).clamp(images - 0.3, images + 0.3).clamp(0, 1)
    with torch.no_grad():
        return tuple(float((network(x).argmax(1) == labels).double().mean()) for x in (images, here))  # pyright: ignore


@pytest.mark.shared
def test_a_small_network_reads_digits_under_attack(digits: Data) -> None:
    """Five seconds; the guard finds nothing to mend."""
    settings = HardenSettings(method="fast", epochs=3, hold=300, judged=10, rate=5e-3)
    done = run(harden(small("wong_cnn"), digits, settings=settings))
    clean, robust = stand(done.network, digits)
    assert clean > 0.9 and robust > 0.2 and "mended" not in done.progress.notes
    plain = run(harden(small("wong_cnn"), digits, settings=replace(settings, eps=1e-3, epochs=1, guard=False)))
    clean, without = stand(plain.network, digits)
    assert clean > 0.8 and without < 0.05


@pytest.mark.shared
@pytest.mark.slow
def test_digits_are_read_under_attack(digits: Data) -> None:
    """The default method and the paper's network: a minute."""
    settings = HardenSettings(method="atta", epochs=2, hold=300, ema=0.0, judged=10)
    done = run(harden(small("trades_cnn"), digits, settings=settings))
    clean, robust = stand(done.network, digits)
    assert clean > 0.9 and robust > 0.12 and "mended" not in done.progress.notes
    plain = run(harden(small("trades_cnn"), digits, settings=replace(settings, eps=1e-3, epochs=1, guard=False)))
    clean, without = stand(plain.network, digits)
    assert clean > 0.9 and without < 0.05 and robust > without + 0.1
