"""`universal` and `patch` as functions: whom they are made from, whom they are tried on, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from phosphene.attacks import noisy
from phosphene.errors import LabelError, NetworkError, PhospheneError
from phosphene.jobs import for_all, job
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.progress import run

COLOURS = ("red", "green", "blue")
NETS = """
import torch
from torch import nn
from phosphene import load


class Mean(nn.Module):  # the strongest colour
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 1, bias=False)
        self.conv.weight.data = (torch.eye(3) * 20.0)[:, :channels].reshape(3, channels, 1, 1).clone()

    def forward(self, x):
        return self.conv(x).mean((2, 3))


class Soft(Mean):
    def forward(self, x):
        return super().forward(x).softmax(1)


class Steps(Mean):
    def forward(self, x):
        return super().forward((x * 51).round() / 51)


class Bent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)
        self.fc.weight.data *= 3

    def forward(self, x):
        return 20 * (x - 0.5).mean((2, 3)) + self.fc(torch.tanh(3 * self.conv(x - 0.5)).mean((2, 3)))


def made(module, names=("red", "green", "blue")):
    channels = next(module.parameters()).shape[1]
    return load(module, device="cpu", input_size=32, mean=(0,) * channels, std=(1,) * channels, labels=list(names))

def mean():
    return made(Mean())

def soft():
    return made(Soft())

def steps():
    return made(Steps())

def bent():
    return made(Bent())

def grey():
    module = nn.Sequential(nn.Conv2d(1, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    module[0].weight.data = torch.tensor([-20.0, 0.0, 20.0]).view(3, 1, 1, 1)
    module[0].bias.data = torch.tensor([9.0, 0.0, -11.0])
    return made(module)

def lonely():
    return nn.Sequential(nn.Conv2d(3, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def features():
    return nn.Conv2d(3, 4, 3)
"""

MADE = (1, 3, 5, 9, 11, 13, 2, 7, 40)
TRIED = (3, 9, 30)
LEADS = (*MADE[:3], TRIED[0], *MADE[3:6], TRIED[1], *MADE[6:], TRIED[2])
"""Of twelve red photographs: every fourth is kept back."""

BOTH = pytest.mark.parametrize("verb", ["universal", "patch"])
QUICK: dict[str, dict[str, Any]] = {"universal": {"passes": 3}, "patch": {"steps": 3}}
SHOWN = {"universal": "perturbation", "patch": "sticker"}

Make = Callable[..., Outcome]


def photograph(path: Path, colour: str, lead: int, seed: int) -> None:
    """Of a colour that is `lead` grey levels above the next one, and 40 above the third."""
    texture = np.random.default_rng(seed).integers(-20, 21, (32, 32, 1)).repeat(3, 2)
    level = np.full((32, 32, 3), 120)
    level[..., COLOURS.index(colour)] += 40
    level[..., (COLOURS.index(colour) + 1) % 3] = 160 - lead
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((level + texture).astype(np.uint8)).save(path)


def folder_of(leads: Sequence[int], colour: str = "red", folder: str = "photos") -> None:
    for place, lead in enumerate(leads):
        photograph(Path(folder, colour, f"{colour[0]}{place:02}.png"), colour, lead, seed=place)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETS)
    folder_of(LEADS)
    return tmp_path


@pytest.fixture
def make() -> Make:
    workshop = Workshop("cpu")

    def it(verb: str, net: str = "mean", **options: Any) -> Outcome:
        return run(job(verb, workshop.fresh(), {"folder": "photos", "net": f"nets.py:{net}", **options}))

    return it


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[for_all.Photos, Tensor]]:
    """What the network is shown of the photographs that were kept back: with the attack, then with the control."""
    seen: list[tuple[for_all.Photos, Tensor]] = []
    changed = for_all.changed

    def spy(network: Any, photos: for_all.Photos, images: Tensor, target: int | None) -> Any:
        seen.append((photos, images))
        return changed(network, photos, images, target)

    monkeypatch.setattr(for_all, "changed", spy)
    return seen


def counts(outcome: Outcome) -> list[int]:
    return [outcome.facts[key]["count"] for key in ("made", "tried", "noise")]


# -- universal: known exactly -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["mean", "soft"])
@pytest.mark.parametrize("levels", [2, 4, 6])
def test_whom_one_change_fools_is_known_exactly(make: Make, net: str, levels: int) -> None:
    """Red goes down and green up, by `levels`: what leads by less than both falls."""
    outcome = make("universal", net, eps=levels / 255)
    facts = outcome.facts
    assert (facts["made_on"], facts["tried_on"], facts["wrong"], facts["aimed"]) == (9, 3, 0, 0)
    assert counts(outcome) == [sum(lead < 2 * levels for lead in some) for some in (MADE, TRIED)] + [0]
    assert facts["tried"]["mean"] == pytest.approx(facts["tried"]["count"] / 3)
    for key in ("made", "tried", "noise"):
        assert 0 <= facts[key]["low"] <= facts[key]["mean"] <= facts[key]["high"] <= 1
    assert facts["truth"] == "folders" and facts["probabilities"] == (net == "soft")
    assert (facts["net"], facts["eps"], facts["norm"], facts["target"]) == (
        f"nets.py:{net}",
        levels / 255,
        "linf",
        None,
    )
    assert json.loads(json.dumps(facts)) == facts


def test_with_a_target_another_class_is_no_success(make: Make) -> None:
    facts = make("universal", eps=6 / 255, target="blue").facts
    assert facts["target"] == {"index": 2, "name": "blue"} and facts["tried"]["count"] == 0  # 40 levels are too far
    facts = make("universal", eps=6 / 255, target="1").facts
    assert facts["target"] == {"index": 1, "name": "green"} and facts["tried"]["count"] == 2


def test_radii_where_none_is_given(make: Make) -> None:
    assert make("universal", **QUICK["universal"]).facts["eps"] == 10 / 255
    assert make("universal", norm="l2", **QUICK["universal"]).facts["eps"] == 10.0


@pytest.mark.parametrize(("norm", "eps"), [("linf", 3 / 255), ("l2", 0.8), ("l2", 4.0)])
def test_the_change_is_one_and_in_the_ball_and_the_control_of_the_same_size(
    make: Make, shown: list[tuple[for_all.Photos, Tensor]], norm: Any, eps: float
) -> None:
    outcome = make("universal", "bent", eps=eps, norm=norm, seed=3)
    (photos, attacked), (same, noise) = shown
    assert photos is same
    change = attacked - photos.tried_on
    assert (change * 255 - (change * 255).round()).abs().max() < 1e-3
    assert (change - change[:1]).abs().max() < 1e-6  # these photographs are nowhere black or white
    size = change.abs().amax() if norm == "linf" else change[0].norm()
    assert eps * 0.8 < size <= eps + 1e-6
    told = outcome.facts["size"]
    assert told == pytest.approx(float(size), abs=1e-5)
    assert torch.equal(noise, noisy(photos.tried_on, told + 1e-6, norm, seed=3))
    sizes = (noise - photos.tried_on).flatten(1)
    sizes = sizes.abs().amax(1) if norm == "linf" else sizes.norm(dim=1)
    assert sizes.tolist() == pytest.approx([told] * 3, rel=0.01)
    picture = outcome.picture("perturbation").image
    torch.testing.assert_close(picture, 0.5 + change[0] / (2 * change[0].abs().max()), atol=1e-5, rtol=0)


# -- patch --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["circle", "square"])
def test_the_control_is_noise_at_the_same_places(
    make: Make, shown: list[tuple[for_all.Photos, Tensor]], shape: str
) -> None:
    outcome = make("patch", "bent", steps=5, shape=shape, side=0.5, target="green", seed=2)
    (photos, attacked), (_, noise) = shown
    where, there = ((one != photos.tried_on).any(1) for one in (attacked, noise))
    assert (where != there).float().mean() < 0.02  # a pixel may be the same by chance
    share = there.float().mean((1, 2))
    assert (share > 0.1).all() and (share < 0.4).all()  # 0.8 to 1.2 times half of the side
    inside = noise.movedim(1, -1)[there]
    assert 0.4 < float(inside.mean()) < 0.6 and float(inside.std()) > 0.15
    assert torch.equal(noise, (noise * 255).round() / 255) and torch.equal(attacked, (attacked * 255).round() / 255)
    sticker = outcome.picture("sticker").image
    assert sticker.shape == (3, 16, 16)
    assert bool((sticker[:, 0, 0] == 1).all()) == (shape == "circle")


def test_a_patch_for_a_class_works_where_it_has_never_been(make: Make) -> None:
    outcome = make("patch", target="blue", side=0.6, steps=60)
    assert outcome.facts["side"] == 0.6 and outcome.facts["target"]["name"] == "blue"
    sticker = outcome.picture("sticker").image
    middle = sticker[:, 6:13, 6:13].mean((1, 2))
    assert middle[2] > 0.9 and middle[0] < 0.1  # blue, and as little red as can be
    assert outcome.facts["tried"]["count"] == 3 and outcome.facts["noise"]["count"] == 0


# -- which photographs --------------------------------------------------------------------------------------------------


@BOTH
def test_a_quarter_is_held_out(make: Make, verb: str) -> None:
    """What it is made from doesn't change with the photographs that were kept back, and does with any other."""
    options = {**QUICK[verb], **({"norm": "l2", "eps": 3.0} if verb == "universal" else {})}  # not signs alone

    def made() -> Tensor:
        return make(verb, "bent", **options).picture(SHOWN[verb]).image

    first = made()
    for place in (3, 7, 11):
        photograph(Path(f"photos/red/r{place:02}.png"), "red", 20, seed=100 + place)
    assert torch.equal(made(), first)
    for place in (0, 6, 10):
        old = Path(f"photos/red/r{place:02}.png").read_bytes()
        photograph(Path(f"photos/red/r{place:02}.png"), "red", 20, seed=100 + place)
        assert not torch.equal(made(), first), place
        Path(f"photos/red/r{place:02}.png").write_bytes(old)


def test_nobody_is_in_both_parts(make: Make, shown: list[tuple[for_all.Photos, Tensor]]) -> None:
    make("universal", **QUICK["universal"])
    photos = shown[0][0]
    made, tried = ({one.numpy().tobytes() for one in some} for some in (photos.made_on, photos.tried_on))
    assert len(made) == 9 and len(tried) == 3 and not made & tried
    assert photos.made_labels.tolist() == [0] * 9 and photos.tried_labels.tolist() == [0] * 3


@BOTH
def test_photographs_of_the_targets_class_are_left_out(make: Make, verb: str) -> None:
    folder_of([5, 6, 7], "green")
    facts = make(verb, target="green", **QUICK[verb]).facts
    assert (facts["aimed"], facts["wrong"], facts["made_on"], facts["tried_on"]) == (3, 0, 9, 3)
    facts = make(verb, **QUICK[verb]).facts
    assert (facts["aimed"], facts["made_on"], facts["tried_on"]) == (0, 12, 3)


@BOTH
def test_misread_ones_are_left_out(make: Make, verb: str) -> None:
    folder_of([5, 6], "green")
    for path in Path("photos/green").iterdir():
        path.rename(Path("photos/red", path.name))
    facts = make(verb, **QUICK[verb]).facts
    assert (facts["wrong"], facts["made_on"], facts["tried_on"]) == (2, 9, 3)


@BOTH
def test_a_misread_photograph_is_not_of_the_targets_class(make: Make, verb: str) -> None:
    """One that is seen as the target, but isn't of it, is misread; one that is of it, and misread, is that."""
    photograph(Path("photos/red/x.png"), "green", 9, seed=1)
    photograph(Path("photos/green/y.png"), "blue", 9, seed=2)
    facts = make(verb, target="green", **QUICK[verb]).facts
    assert (facts["wrong"], facts["aimed"], facts["made_on"] + facts["tried_on"]) == (2, 0, 12)


@BOTH
def test_too_few_and_all_misread(make: Make, verb: str) -> None:
    what = {"universal": "a universal perturbation", "patch": "a patch"}[verb]
    with pytest.raises(PhospheneError, match=f"^{what} is made from 4 photographs or more .* rightly: there are 3$"):
        make(verb, images=3, **QUICK[verb])
    Path("photos/red").rename("photos/blue")
    with pytest.raises(PhospheneError, match=r"there are 0$"):
        make(verb, **QUICK[verb])


@BOTH
def test_four_are_enough(make: Make, verb: str) -> None:
    facts = make(verb, images=4, **QUICK[verb]).facts
    assert (facts["made_on"], facts["tried_on"]) == (3, 1)


@BOTH
def test_too_few_since_they_are_of_the_targets_class_already(make: Make, verb: str) -> None:
    with pytest.raises(PhospheneError) as told:
        make(verb, target="red", **QUICK[verb])
    assert "target" in str(told.value)


@BOTH
def test_files_that_cannot_be_read_are_left_out(make: Make, verb: str) -> None:
    Path("photos/red/torn.jpg").write_bytes(b"\xff\xd8\xff")
    facts = make(verb, **QUICK[verb]).facts
    assert list(facts["skipped"]) == ["red/torn.jpg"] and "torn.jpg" in facts["skipped"]["red/torn.jpg"]
    assert facts["made_on"] + facts["tried_on"] == 12
    for path in Path("photos/red").glob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(PhospheneError, match="none of the 13 photographs can be read"):
        make(verb, **QUICK[verb])


@BOTH
def test_what_the_network_sees_counts_as_true_where_nothing_says_more(make: Make, verb: str) -> None:
    facts = make(verb, truth="predicted", target="blue", **QUICK[verb]).facts
    assert facts["truth"] == "predicted" and facts["wrong"] == 0 == facts["aimed"]


# -- networks, randomness, mistakes -------------------------------------------------------------------------------------


@BOTH
def test_a_network_that_sees_grey(make: Make, verb: str) -> None:
    outcome = make(verb, "grey", truth="predicted", **QUICK[verb])
    picture = outcome.picture(SHOWN[verb]).image
    assert picture.shape[0] == 3 and torch.equal(picture[0], picture[1]) and torch.equal(picture[0], picture[2])


@BOTH
def test_the_seed_decides_everything(make: Make, verb: str) -> None:
    first, again = (make(verb, "bent", seed=4, **QUICK[verb]) for _ in range(2))
    assert first.facts == again.facts
    for one, other in zip(first.pictures, again.pictures, strict=True):
        assert torch.equal(one.image, other.image)
    if verb == "patch":
        other = make(verb, "bent", seed=5, **QUICK[verb])
        assert not torch.equal(other.picture("sticker").image, first.picture("sticker").image)


@BOTH
@pytest.mark.parametrize(
    ("net", "kind", "message"),
    [
        ("steps", NetworkError, "no gradient"),
        ("lonely", PhospheneError, "class"),
        ("features", NetworkError, "needs a network that classifies"),
    ],
)
def test_networks_that_nothing_can_be_made_for(make: Make, verb: str, net: str, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message) as told:
        make(verb, net, truth="predicted", **QUICK[verb])
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("universal", {"eps": 0.5 / 255}, "changes by 1/255 or more"),
        ("universal", {"eps": -1.0}, "changes by 1/255 or more"),
        ("universal", {"eps": 4.0}, "did you mean 4/255"),
        ("universal", {"eps": float("nan")}, "nan"),
        ("universal", {"passes": 0}, "passes start at 1"),
        ("patch", {"steps": 0}, "steps start at 1"),
        ("patch", {"side": 0.0}, "above 0 and at most 1"),
        ("patch", {"side": 0.9}, "at most 1 when scaled up; got 0.9 x 1.2"),
        ("patch", {"rotate": 190.0}, "0 to 180 degrees"),
        ("patch", {"shape": "star"}, "choose circle or square"),
        ("patch", {"seed": 2**63}, "a seed is a number"),
        ("universal", {"seed": 2**63}, "a seed is a number"),
        ("universal", {"images": -1}, "--images is a number of photographs"),
        ("universal", {"truth": "guess"}, "unknown truth"),
        ("universal", {"folder": "gone"}, "is no folder"),
    ],
)
def test_mistakes(make: Make, verb: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message) as told:
        make(verb, **options)
    assert "\n" not in str(told.value)


@BOTH
def test_an_unknown_target(make: Make, verb: str) -> None:
    with pytest.raises(LabelError, match="no class is called 'gren'; did you mean green"):
        make(verb, target="gren")


def test_an_unknown_norm(make: Make) -> None:
    with pytest.raises(PhospheneError, match="l1"):
        make("universal", norm="l1")


@BOTH
def test_the_record_names_the_folder(verb: str) -> None:
    workshop = Workshop("cpu")
    parameters = {"folder": "photos", "net": "nets.py:mean", **QUICK[verb]}
    run(job(verb, workshop, parameters))
    assert set(workshop.recipe(verb, parameters, verb).inputs) == {"photos", "nets.py"}


# -- what is said and shown ---------------------------------------------------------------------------------------------


def test_the_sheet_shows_those_that_fell_first(make: Make, shown: list[tuple[for_all.Photos, Tensor]]) -> None:
    outcome = make("universal", eps=6 / 255)
    main = outcome.pictures[0]
    assert [one.name for one in outcome.pictures] == ["universal", "perturbation"]
    assert main.caption == (
        "nets.py:mean: one change of 6/255 fools 67% of 3 photographs that it was not made on; noise of the same size 0%"
    )
    assert (main.image[:, [0, -1]] > 0.95).all() and (main.image[:, :, [0, -1]] > 0.95).all()
    outcome = make("patch", target="blue", **QUICK["patch"])
    assert [one.name for one in outcome.pictures] == ["patch", "sticker"]
    assert outcome.pictures[1].alt == "The patch for blue"


@BOTH
def test_the_alternative_text_claims_no_success_that_is_none(make: Make, verb: str) -> None:
    options = {"universal": {"eps": 1 / 255}, "patch": {"side": 0.05, "steps": 1}}[verb]
    folder_of([30] * 12)
    outcome = make(verb, target="blue", **options)
    assert outcome.facts["tried"]["count"] == 0
    assert "misreads because of it" not in outcome.pictures[0].alt


@BOTH
def test_one_photograph_is_one(make: Make, verb: str) -> None:
    assert "1 photographs" not in (make(verb, images=4, **QUICK[verb]).pictures[0].caption or "")


@pytest.mark.parametrize("eps", [0.01, 0.05])
def test_a_change_that_8_bits_cannot_hold_is_refused(make: Make, eps: float) -> None:
    with pytest.raises(PhospheneError, match=f"of a change of {eps:g} in l2 8 bits leave nothing: give a larger --eps"):
        make("universal", "bent", norm="l2", eps=eps)
