"""Square: its schedule and patterns, and a search that asks nothing but scores."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import Bent, bent, done, greys, noise, plane, seen
from torch import Tensor, nn

from phosphene.attacks.ball import Norm
from phosphene.attacks.scores import margin
from phosphene.attacks.square import pattern, share, side, square
from phosphene.errors import PhospheneError
from phosphene.progress import Started, Step, run

module_under_test = importlib.import_module("phosphene.attacks.square")
norms = pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.15)])


def test_the_schedule() -> None:
    starts = [0, 11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001]
    for halvings, query in enumerate(starts):
        assert share(query, 10_000, 0.8) == 0.8 / 2**halvings
        assert query == 0 or share(query - 1, 10_000, 0.8) == 0.8 / 2 ** (halvings - 1)
    assert share(26, 5_000, 0.8) == 0.8 / 4  # stretched to other numbers


def test_the_sides_of_squares() -> None:
    assert side(0.8, (28, 28), "linf") == 25
    assert side(0.8 / 512, (28, 28), "linf") == 1
    assert side(0.8, (28, 28), "l2") == 25 and side(0.8 / 512, (28, 28), "l2") == 3
    assert all(side(0.8 / 2**k, (32, 32), "l2") % 2 for k in range(10))
    assert side(1.0, (4, 50), "linf") == 4 and side(0.8, (2, 2), "l2") == 2


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 9])
def test_the_pattern(length: int) -> None:
    found = pattern(length)
    assert found.norm() == pytest.approx(1)
    assert (found[: length // 2] > 0).all() and (found[length // 2 :] < 0).all()


def test_the_bump_is_the_papers_sum() -> None:
    # 4 x 8, the upper half of a pattern of 8: eq. 2 with rings around (2, 4).
    bump = module_under_test._bump(4, 8)
    for row in range(4):
        for column in range(8):
            ring = max(abs(row - 2), abs(column - 4))
            assert bump[row, column] == pytest.approx(sum(1 / (k + 1) ** 2 for k in range(ring, 5)))


@norms
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 10, 6), (2, 4, 4), (1, 2, 3)])
def test_images_stay_in_the_ball(norm: Norm, eps: float, shape: tuple[int, ...]) -> None:
    module, images = bent(shape[0]), torch.rand(6, *shape)
    found = done(square(module, images, seen(module, images), eps=eps, norm=norm, steps=60))
    size = found.linf if norm == "linf" else found.l2
    assert size.max() <= eps + 1e-6 and size.max() > eps * 0.7
    assert found.images.min() >= 0 and found.images.max() <= 1


class Notes(Bent):
    """Keeps the margins that it has given, once there is a list for them."""

    margins: list[float] | None = None

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        if self.margins is not None:
            self.margins += margin(logits, torch.zeros(len(x), dtype=torch.long)).tolist()
        return logits


@norms
def test_the_best_is_kept(norm: Norm, eps: float) -> None:
    module = Notes().eval()
    module.fc.bias.data[0] += 50  # everything is of class 0
    module.margins = []
    found = done(square(module, noise(1), torch.tensor([0]), eps=eps, norm=norm, steps=80))
    tries = module.margins[1:-1]  # between the original and the last look
    assert not found.success.any()
    assert module.margins[-1] == pytest.approx(max(tries), abs=1e-4)
    assert max(tries) > tries[0]


@norms
def test_more_queries_come_nearer(norm: Norm, eps: float) -> None:
    module, images = plane((3, 8, 8), classes=2), greys((3, 8, 8), 4)
    labels = seen(module, images)
    before = margin(module(images).detach(), labels)
    gains = []
    for steps in (1, 20, 400):
        found = done(square(module, images, labels, eps=eps, norm=norm, steps=steps))
        gains.append(margin(module(found.images).detach(), labels) - before)
    assert (gains[1] > gains[0]).all() and (gains[2] > gains[1]).all()
    weights: Tensor = module[1].weight.detach()  # type: ignore[index]
    most = eps * (weights[0] - weights[1]).norm(1 if norm == "linf" else 2)
    assert (gains[2] <= most + 1e-4).all()
    assert (gains[2] > (0.7 if norm == "linf" else 0.3) * most).all()


def test_answers_that_are_known_are_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    module, images = bent(), noise(5)
    labels = seen(module, images)
    short = done(square(module, images, labels, eps=0.02, steps=400))
    monkeypatch.setattr(module_under_test, "REMEMBERED", 0)
    long = done(square(module, images, labels, eps=0.02, steps=400))
    assert torch.equal(short.images, long.images) and torch.equal(short.success, long.success)
    assert (short.forwards <= long.forwards).all()
    stood = ~short.success
    assert stood.any() and (short.forwards[stood] < 0.7 * 402).all()
    assert (long.forwards <= 402).all() and not short.backwards.any()


@norms
def test_neighbours_do_not_matter_and_seeds_do(norm: Norm, eps: float) -> None:
    module, images = bent(double=True), noise(7).double()
    labels = seen(module, images)
    options: dict[str, Any] = {"eps": eps, "norm": norm, "steps": 300, "seed": 4}
    whole = done(square(module, images, labels, **options))
    for batch in ([0], [6, 2, 5], [*reversed(range(7))]):
        part = done(square(module, images[batch], labels[batch], **options))
        torch.testing.assert_close(part.images, whole.images[batch], atol=1e-9, rtol=0)
        assert torch.equal(part.success, whole.success[batch])
        assert torch.equal(part.forwards, whole.forwards[batch])
    options["seed"] = 5
    other = done(square(module, images, labels, **options))
    assert not torch.equal(other.images, whole.images)


class Rounds(nn.Module):
    """A network without gradients."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.inner((x * 255).round() / 255)


@norms
def test_it_needs_no_gradients(norm: Norm, eps: float) -> None:
    module, images = Rounds(plane((3, 8, 8))), greys((3, 8, 8), 6)
    labels = seen(module, images)
    found = done(square(module, images, labels, eps=eps * 10, norm=norm, steps=200))
    assert found.success.all()
    assert torch.equal(seen(module, found.images), found.predicted)


def test_wrong_images_are_let_alone_and_restarts_help() -> None:
    module, images = bent(), noise(20)
    labels = seen(module, images)
    labels[3] = (labels[3] + 1) % 4
    one = done(square(module, images, labels, eps=0.02, steps=10))
    more = done(square(module, images, labels, eps=0.02, steps=10, restarts=3))
    assert one.wrong.tolist() == [row == 3 for row in range(20)]
    assert not more.success[3] and torch.equal(more.images[3], images[3])
    assert (more.success | ~one.success).all()


def test_masks_and_files() -> None:
    module, images = bent(3), noise(4, 3)
    labels = seen(module, images)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., :4] = 1
    balls: list[tuple[Norm, float]] = [("linf", 8 / 255), ("l2", 0.3)]
    for norm, eps in balls:
        found = done(square(module, images, labels, eps=eps, norm=norm, steps=60, mask=mask, quantize=True))
        assert torch.equal((found.images * 255).round() / 255, found.images)
        assert torch.equal(found.images[..., 4:], images[..., 4:]) and found.linf.max() > 0


def test_events_count_the_queries() -> None:
    module, images = bent(), noise(2)
    events: list = []
    run(square(module, images, seen(module, images), eps=0.0, steps=5, restarts=2), events.append)
    assert events[0] == Started("square", 10)
    assert [event.done for event in events if isinstance(event, Step)] == [1, 2, 3, 4, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"p_init": 0.0}, "p_init"), ({"p_init": 1.5}, "p_init"), ({"steps": 0}, "steps"), ({"restarts": 0}, "restarts")],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        done(square(bent(), noise(1), torch.tensor([0]), eps=0.1, **options))


@pytest.mark.shared
def test_figures_on_mnist(shared: Path) -> None:
    images, labels = digits(shared, 50)
    assert done(square(lenet(shared, "cln"), images, labels, eps=0.3, steps=200)).accuracy == 0
    assert done(square(lenet(shared, "adv"), images, labels, eps=0.3, steps=100)).accuracy > 0.9
