"""`fool` as a function: what runs for what was asked, one target, several, all, and the slide's equation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
from torch import Tensor

from phosphene import images
from phosphene.attacks import ATTACKS
from phosphene.errors import LabelError, PhospheneError
from phosphene.jobs import fool_targets, job
from phosphene.jobs.command import command_line, radius_text
from phosphene.jobs.equation import SIDE, Term, coefficient, direction, equation
from phosphene.jobs.fool_parts import NAMES
from phosphene.jobs.fool_targets import ranked
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import Event, Started, Step, run

CAT = str(Path(skimage.__file__).parent / "data" / "chelsea.png")
AIMING = [name for name in NAMES if name not in ATTACKS or ATTACKS[name].aims]


@pytest.fixture
def workshop() -> Workshop:
    return Workshop("cpu")


@pytest.fixture
def network(workshop: Workshop, thirty: str) -> Network:
    return workshop.network(thirty)


@pytest.fixture
def fooled(workshop: Workshop, thirty: str) -> Any:
    """Run the job with options on the small network."""

    def make(**options: Any) -> Outcome:
        return run(job("fool", workshop, {"image": CAT, "net": thirty, **options}))

    return make


def levels(outcome: Outcome, name: str = "fooled") -> Tensor:
    """The change in grey levels, whole numbers."""
    change = (outcome.picture(name).image - outcome.picture("original").image) * 255
    assert (change - change.round()).abs().max() < 1e-3
    return change.round()


def seen(fooled: Any) -> int:
    return fooled(eps=1 / 255, attack="fgsm").facts["before"]["index"]


# -- what runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "attack", "norm"),
    [
        ({"target": "3"}, "fooling", "l2"),
        ({"target": "3", "eps": 0.1}, "fooling", "linf"),
        ({"target": "3", "eps": 6.0, "norm": "l2"}, "fooling", "l2"),
        ({}, "deepfool", "l2"),
        ({"norm": "linf"}, "fab", "linf"),
        ({"eps": 4 / 255}, "pgd", "linf"),
        ({"eps": 1.0, "norm": "l2"}, "pgd", "l2"),
        ({"attack": "fgsm", "eps": 2 / 255}, "fgsm", "linf"),
        ({"attack": "carlini-wagner", "steps": 20}, "carlini-wagner", "l2"),
    ],
)
def test_what_runs_where_nobody_chooses(fooled: Any, options: dict[str, Any], attack: str, norm: str) -> None:
    facts = fooled(**options).facts
    assert (facts["attack"], facts["norm"], facts["eps"]) == (attack, norm, options.get("eps"))
    assert facts["success"] and facts["after"]["index"] != facts["before"]["index"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(("name", "target"), [*((n, None) for n in ATTACKS), *((n, "7") for n in AIMING)])
def test_every_attack_stays_in_the_ball_and_on_the_lattice(
    fooled: Any, name: str, norm: str, target: str | None
) -> None:
    if name in ATTACKS and norm not in ATTACKS[name].norms:
        pytest.skip("measures in another norm")
    eps = 6 / 255 if norm == "linf" else 0.8
    steps = None if name == "fgsm" else 12
    outcome = fooled(attack=name, norm=norm, eps=eps, steps=steps, target=target)
    change, facts = levels(outcome) / 255, outcome.facts
    assert facts["linf"] == pytest.approx(float(change.abs().max()), abs=1e-6)
    assert facts["l2"] == pytest.approx(float(change.norm()), rel=1e-4, abs=1e-6)
    assert facts["linf" if norm == "linf" else "l2"] <= eps + 1e-6
    assert facts["read_back"] == pytest.approx(facts["after"])
    if facts["success"]:
        assert facts["after"]["index"] == (7 if target else facts["after"]["index"]) != facts["before"]["index"]
    assert json.loads(json.dumps(facts)) == facts


def test_fgsm_moves_each_value_by_the_sign_of_its_gradient(fooled: Any, network: Network) -> None:
    outcome = fooled(attack="fgsm", eps=3 / 255)
    original = outcome.picture("original").image[None]
    leaf = original.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(network.logits(leaf), torch.tensor([outcome.facts["before"]["index"]]))
    (gradient,) = torch.autograd.grad(loss, leaf)
    free = (original > 4 / 255) & (original < 251 / 255) & (gradient.abs() > 1e-6)
    assert free.float().mean() > 0.7
    assert torch.equal(levels(outcome)[None][free], 3 * gradient[free].sign())
    way, amount = direction(outcome.picture("original").image, outcome.picture("fooled").image)
    assert amount == pytest.approx(3 / 255)
    assert torch.equal(way[None][free], 0.5 + gradient[free].sign() / 2)
    assert (outcome.facts["forwards"], outcome.facts["backwards"], outcome.facts["steps"]) == (3, 1, None)


def test_without_success_it_is_what_it_was(fooled: Any) -> None:
    outcome = fooled(target="7", eps=1 / 255, steps=1)
    facts = outcome.facts
    assert not facts["success"] and facts["after"]["index"] == facts["before"]["index"]
    assert facts["target"]["index"] == 7 and facts["target"]["probability"] < 0.5
    assert outcome.picture("equation").image.shape[0] == 3


def test_the_control_is_noise_of_the_same_size(fooled: Any, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Tensor] = []
    predict = network.predict
    monkeypatch.setattr(network, "predict", lambda image, top: (shown.append(image), predict(image, top))[1])
    for options, norm in (({"attack": "pgd", "eps": 4 / 255}, "linf"), ({}, "l2"), ({"target": "7"}, "l2")):
        shown.clear()
        outcome = fooled(**options)
        noise = shown[-1][0] - outcome.picture("original").image
        inside = noise[:, 4:, 4:]
        if norm == "linf":
            assert float(inside.abs().max()) == pytest.approx(outcome.facts["linf"], abs=1e-6)
            assert float(inside.abs().median()) == pytest.approx(outcome.facts["linf"], abs=1e-6)
        else:
            assert float(noise.norm()) == pytest.approx(outcome.facts["l2"], rel=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attack": "fgsn", "eps": 0.1}, r"there is no attack 'fgsn'; did you mean fgsm.*There are fooling, fgsm, bim"),
        ({"attack": "fooling"}, "the fooling ascent climbs a class: give --target with it"),
        ({"attack": "pgd"}, "pgd needs a radius: give --eps, such as 2/255"),
        ({"attack": "deepfool", "norm": "linf"}, "deepfool measures in l2, not in linf"),
        ({"attack": "fgsm", "eps": 0.1, "steps": 3}, "fgsm takes one step"),
        ({"attack": "square", "eps": 0.1, "target": "3"}, "square can't be told which class to reach"),
        ({"target": "3", "norm": "l2"}, "--norm is that of a ball: give --eps with it"),
        ({"eps": 0.1, "confidence": 0.9}, "--confidence is for the fooling ascent: pgd ends where another class leads"),
        ({"eps": 0.001}, "changes by 1/255 or more, got a radius of 0.001"),
        ({"eps": float("nan")}, "changes by 1/255 or more, got a radius of nan"),
        ({"eps": 8.0}, "did you mean 8/255"),
        ({"eps": 8.0, "target": "3"}, "did you mean 8/255"),
        ({"target": "3", "steps": 0}, "steps start at 1, got 0"),
        ({"eps": 0.1, "steps": 0}, "steps start at 1, got 0"),
        ({"target": "3", "all_targets": True}, "--all-targets are all other classes: leave --target away"),
        ({"target": "3,thing 99"}, "no class is called 'thing 99'"),
        ({"target": "3,,4"}, "no class is called ''"),
    ],
)  # fmt: skip
def test_what_can_not_be_asked_for(fooled: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        fooled(**options)


# -- several ----------------------------------------------------------------------------------------------------


def test_each_of_several_is_what_it_is_alone(fooled: Any) -> None:
    goals = [3, 7, 11]
    outcome = fooled(target="3, thing 7,11,3")
    facts = outcome.facts
    assert [row["index"] for row in facts["targets"]] == goals and facts["reached"] == 3 and facts["success"]
    assert [p.name for p in outcome.pictures] == [
        "fool", "targets", "original", "fooled-thing-3", "fooled-thing-7", "fooled-thing-11"
    ]  # fmt: skip
    for row in facts["targets"]:
        alone = fooled(target=str(row["index"]))
        assert row["l2"] == pytest.approx(alone.facts["l2"], rel=1e-3) and row["steps"] == alone.facts["steps"]
        assert row["probability"] == pytest.approx(alone.facts["target"]["probability"], abs=1e-3)
        assert (levels(outcome, row["picture"]) - levels(alone)).abs().max() <= 1
        assert row["read_back"]["index"] == row["sees"] == row["index"]
    assert json.loads(json.dumps(facts)) == facts


def test_a_name_with_a_comma_is_one_class(fooled: Any) -> None:
    facts = fooled(target="odds, and ends").facts
    assert facts["target"]["index"] == 29 and facts["after"]["name"] == "odds, and ends"


def test_one_of_several_is_what_it_sees(fooled: Any) -> None:
    own = seen(fooled)
    with pytest.raises(LabelError, match=f"already sees 'thing {own}'"):
        fooled(target=f"{(own + 1) % 29},{own}")


def test_all_other_classes(workshop: Workshop, thirty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fool_targets, "TOGETHER", 8)
    events: list[Event] = []
    outcome = run(job("fool", workshop, {"image": CAT, "net": thirty, "all_targets": True}), events.append)
    facts, rows = outcome.facts, outcome.facts["targets"]
    assert [row["index"] for row in rows] == [n for n in range(30) if n != facts["before"]["index"]]
    assert facts["reached"] == 29 and facts["success"]
    assert [event for event in events if isinstance(event, Started)] == [Started(f"fool {thirty}", 29, "target")]
    done = [event.done for event in events if isinstance(event, Step)]
    assert done == sorted(done) and done[-1] == 29 and len(set(done)) > 8
    order = sorted(rows, key=lambda row: row["l2"])
    assert facts["easiest"] == [row["index"] for row in order[:10]]
    assert facts["hardest"] == [row["index"] for row in order[:-11:-1]]
    shown = {row["name"] for row in rows if "picture" in row}
    assert shown == {row["name"] for row in (*order[:4], *order[-4:])}
    for row in rows:
        if "picture" in row:
            assert float(levels(outcome, row["picture"]).norm()) / 255 == pytest.approx(row["l2"], rel=1e-4)
    monkeypatch.setattr(fool_targets, "TOGETHER", 29)
    together = run(job("fool", workshop, {"image": CAT, "net": thirty, "all_targets": True})).facts["targets"]
    assert [row["l2"] for row in together] == pytest.approx([row["l2"] for row in rows], rel=1e-2)


def test_all_by_another_attack_in_a_ball(fooled: Any) -> None:
    facts = fooled(all_targets=True, attack="pgd", eps=3 / 255, steps=5).facts
    assert 0 < facts["reached"] < 29 and not facts["success"]
    assert max(row["linf"] for row in facts["targets"]) <= 3 / 255 + 1e-6
    assert all(row["steps"] is None and row["backwards"] >= 1 for row in facts["targets"])
    by_index = {row["index"]: row for row in facts["targets"]}
    worst = [by_index[index] for index in facts["hardest"]]
    missed = [row["probability"] for row in worst if not row["success"]]
    assert missed and missed == sorted(missed) and not worst[0]["success"]


def test_the_rank_puts_what_was_not_reached_at_the_end() -> None:
    rows = [
        {"success": False, "l2": 0.1, "probability": 0.2},
        {"success": True, "l2": 3.0, "probability": 0.5},
        {"success": False, "l2": 9.0, "probability": 0.4},
        {"success": True, "l2": 1.0, "probability": 0.5},
    ]
    assert ranked(rows) == [3, 1, 2, 0]


def test_what_it_kept_before_it_can_still_do(fooled: Any) -> None:
    """The parameters of a recipe from before there were other attacks."""
    old = {"target": "7", "weights": None, "labels": None, "confidence": 0.5, "steps": 200, "seed": 0}
    before, now = fooled(**old), fooled(target="7")
    for picture in before.pictures:
        assert torch.equal(picture.image, now.picture(picture.name).image)


# -- as a command -----------------------------------------------------------------------------------------------


def test_radii_in_a_command_are_read_back_as_they_are() -> None:
    from phosphene.cli.radius import radius

    for eps in (*(n / 255 for n in range(1, 256)), 0.03, 0.1, 1e-3, 3.5):
        assert radius(radius_text(eps), "l2") == eps
    line = command_line(
        "fool", {"image": "a.png", "target": None, "eps": 8 / 255, "attack": "pgd", "all_targets": False}
    )
    assert line == "phosphene fool a.png --eps 8/255 --attack pgd"
    assert command_line("fool", {"image": "a", "target": "3,black swan"}) == "phosphene fool a --target '3,black swan'"
    assert command_line("fool", {"image": "a", "all_targets": True}) == "phosphene fool a --all-targets"


# -- the equation -----------------------------------------------------------------------------------------------


def terms(side: tuple[int, int], name: str = "cat") -> tuple[Term, Term, Term]:
    picture = torch.full((3, *side), 0.5)
    return (
        Term(picture, f"“{name}”", "87.7% confidence"),
        Term(picture, "sign(∇ₓJ)", exact=True),
        Term(picture, "“dog”"),
    )


@pytest.mark.parametrize("side", [(28, 28), (224, 224), (96, 240), (240, 96), (300, 300), (900, 700)])
@pytest.mark.parametrize("name", ["cat", "a class whose name does not fit into one line at all, and " * 3])
def test_nothing_of_the_equation_is_clipped(side: tuple[int, int], name: str) -> None:
    made = equation(*terms(side, name), 0.007)
    assert made.min() >= 0 and made.max() <= 1
    frame = torch.cat(
        [made[:, :20].flatten(), made[:, -14:].flatten(), made[:, :, :20].flatten(), made[:, :, -20:].flatten()]
    )
    assert torch.equal(frame, torch.ones_like(frame))  # a white margin around everything
    grey = ((made - 128 / 255).abs() < 1e-3).all(0)
    row = grey[:, grey.any(0)].float().mean(1).argmax()
    runs = (grey[row].int().diff() == 1).sum()
    assert int(runs) == 3
    wide, high = int(grey[row].sum()) / 3, int(grey.any(1).sum())
    assert high / wide == pytest.approx(side[0] / side[1], rel=0.02)
    assert SIDE * 0.66 <= max(wide, high) <= 1.5 * SIDE


def test_its_signs_stand_between_its_panels() -> None:
    made = equation(*terms((224, 224)), 0.007)
    middle = made[:, 100:400].mean(0)
    dark = (middle < 0.3).any(0)
    grey = ((made - 128 / 255).abs() < 1e-3).all(0).any(0)
    starts, ends = (grey.int().diff() == 1).nonzero()[:, 0], (grey.int().diff() == -1).nonzero()[:, 0]
    for left, right in zip(ends[:2], starts[1:], strict=True):
        inside = dark[int(left) + 6 : int(right) - 6]
        assert inside.any()
        first, last = int(inside.int().argmax()), len(inside) - 1 - int(inside.flip(0).int().argmax())
        assert abs(first - (len(inside) - 1 - last)) <= 12 and first > 8  # centred, with air around it
    assert not torch.equal(made, equation(*terms((224, 224)), 0.008))


def test_a_direction_is_enlarged_in_squares() -> None:
    board = torch.arange(28 * 28).view(28, 28).remainder(2).float().expand(3, -1, -1)
    made = equation(Term(board, "a"), Term(board, "b", exact=True), Term(board, "c"), 0.1)
    left = _second(made)
    panel = made[:, 28 : 28 + 448, left : left + 448]
    assert torch.equal(panel[:, ::16, ::16], board)
    assert set(panel.unique().tolist()) == {0.0, 1.0}


def _second(made: Tensor) -> int:
    """The left edge of the second panel."""
    frame = ((made[:, 200] * 255 - torch.tensor([[214.0], [216.0], [218.0]])).abs() < 1).all(0).nonzero()[:, 0]
    return int(frame[2]) + 1


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "0"), (2 / 255, ".008"), (0.007, ".007"), (0.25, ".250"), (1.0, "1.000")]
)
def test_the_number_is_written_as_on_the_slide(amount: float, text: str) -> None:
    assert coefficient(amount) == text


def test_the_direction_of_no_change_is_grey() -> None:
    photo = images.quantize(torch.rand(3, 8, 8))
    way, amount = direction(photo, photo)
    assert amount == 0 and torch.equal(way, torch.full_like(photo, 0.5))
    moved = photo.clone()
    moved[0, 0, 0] = (moved[0, 0, 0] * 255 - 4).clamp(0) / 255 if photo[0, 0, 0] > 0.1 else photo[0, 0, 0] + 4 / 255
    moved[1, 0, 0] = photo[1, 0, 0] + (2 if photo[1, 0, 0] < 0.9 else -2) / 255
    way, amount = direction(photo, moved)
    assert amount == pytest.approx(4 / 255)
    assert float((way[0, 0, 0] - 0.5).abs()) == 0.5 and float((way[1, 0, 0] - 0.5).abs()) == 0.25
