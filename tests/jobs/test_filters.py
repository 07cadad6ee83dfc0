"""The filters job: one network, several side by side, and Gabor fits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from phosphene import observe
from phosphene.errors import NetworkError, PhospheneError
from phosphene.jobs import job
from phosphene.jobs.gabor import Fitted
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network
from phosphene.progress import run

NETS = """
import torch
from torch import nn

def net(size, channels=3, count=6):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, count, size, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(count, 4)
    )

def wide():
    return net(11)

def points():
    return net(1)

def grey():
    return net(5, channels=1)

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 2))

def features():
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(1), nn.Unflatten(1, (12, 28, 7)), nn.Conv2d(12, 3, 3), nn.Flatten(),
                         nn.LazyLinear(2))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of a file with networks; no weights on this machine but the bundled ones."""
    for name in ("PHOSPHENE_CACHE", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / ".nothing"))
    monkeypatch.delenv("PHOSPHENE_WEIGHTS", raising=False)
    (tmp_path / "nets.py").write_text(NETS)
    return str(tmp_path / "nets.py")


def made(net: str, **options: object) -> Outcome:
    return run(job("filters", Workshop("cpu"), {"net": net, **options}))


def check(picture: Tensor) -> None:
    assert picture.ndim == 3 and picture.shape[0] == 3 and min(picture.shape[1:]) > 150
    assert picture.min() >= 0 and picture.max() <= 1 and picture.std() > 0.02


def test_one_network_is_as_it_was() -> None:
    outcome = made("squeezenet1_1")
    assert [picture.name for picture in outcome.pictures] == ["filters"]
    assert list(outcome.facts) == ["net", "layer", "shape", "order"]
    assert outcome.pictures[0].pixelated


def test_gabor_fits_are_shown_and_told(squeezenet: Network) -> None:
    outcome = made("squeezenet1_1", gabor=True)
    assert [picture.name for picture in outcome.pictures] == ["filters", "gabor", "gabor-summary"]
    for picture in outcome.pictures:
        check(picture.image)
    plain = made("squeezenet1_1")
    assert torch.equal(outcome.pictures[0].image, plain.pictures[0].image)
    told = outcome.facts["gabor"]
    weights = observe.filters(squeezenet).weights
    fit, noise = observe.fit_gabor(weights), observe.gabor_chance(weights)
    rows = told["filters"]
    assert sorted(row["filter"] for row in rows) == list(range(64))
    shares = [row["explained"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    for row in rows:
        assert row["explained"] == pytest.approx(float(fit.explained[row["filter"]]), abs=1e-4)
        assert row["orientation"] == pytest.approx(float(fit.orientation[row["filter"]]), abs=0.1)
        assert row["wavelength"] == pytest.approx(1 / row["frequency"], rel=0.01)
    assert told["mean"] == pytest.approx(float(fit.explained.mean()), abs=1e-4)
    assert told["chance"] == pytest.approx(float(noise.mean()), abs=1e-4)
    assert told["above"] == sum(share > float(noise.quantile(0.95)) for share in fit.explained.tolist())
    json.dumps(outcome.facts)


def test_several_networks_stand_side_by_side(own: str) -> None:
    outcome = made(f"squeezenet1_1, {own}:wide,alexnet,{own}:flat,squeezenet1_1", gabor=True)
    facts = outcome.facts
    assert [row["net"] for row in facts["nets"]] == ["squeezenet1_1", f"{own}:wide"]
    assert [row["shape"] for row in facts["nets"]] == [[64, 3, 3, 3], [6, 3, 11, 11]]
    assert len(facts["nets"][1]["gabor"]["filters"]) == 6
    assert list(facts["refused"]) == ["alexnet", f"{own}:flat"]
    assert "the weights of 'alexnet' are not on this machine" in facts["refused"]["alexnet"]
    assert "has no convolution" in facts["refused"][f"{own}:flat"]
    names = [picture.name for picture in outcome.pictures]
    assert names[:2] == ["filters", "gabor-squeezenet1_1"] and names[-1] == "gabor-summary" and len(set(names)) == 4
    for picture in outcome.pictures:
        check(picture.image)
    high, wide = outcome.pictures[0].image.shape[1:]
    assert wide > 1.5 * high
    json.dumps(facts)


def test_a_grey_network(own: str) -> None:
    outcome = made(f"{own}:grey", gabor=True)
    assert outcome.facts["shape"] == [6, 1, 5, 5]
    for picture in outcome.pictures:
        check(picture.image)


def test_a_path_with_a_comma(own: str) -> None:
    odd = Path(own).with_name("one, two.py")
    odd.write_text(NETS)
    assert made(f"{odd}:wide").facts["shape"] == [6, 3, 11, 11]


def test_what_can_not_be_shown(own: str) -> None:
    with pytest.raises(NetworkError, match="the weights of 'alexnet' are not on this machine"):
        made("alexnet,resnet18")
    with pytest.raises(NetworkError, match="can't be for 2 networks"):
        made("squeezenet1_1,efficientnet_lite0", weights="some.pt")
    with pytest.raises(PhospheneError, match="filters of 1 x 1 pixels have no room for a wave"):
        made(f"{own}:points", gabor=True)
    assert made(f"{own}:points").facts["shape"] == [6, 3, 1, 1]
    refused = made(f"{own}:points,squeezenet1_1", gabor=True).facts["refused"]
    assert list(refused) == [f"{own}:points"]


def test_a_filter_of_zeros_is_drawn() -> None:
    from phosphene.jobs.gabor import fitted, pairs, summary

    weights = torch.randn(3, 3, 7, 7)
    weights[1] = 0
    found: Fitted = fitted("mine", observe.Filters("conv", weights))
    assert found.order[-1] == 1
    check(pairs(found))
    check(summary([found]))
