"""Linear classifiers on every stage: the right one wins, by the training photographs alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pupils import Pupil, coloured, fill, found, named, noise, outcome, pupil, settled, striped, values, write
from torch import Tensor, nn

from phosphene import images
from phosphene.errors import LayerError, NetworkError, PhospheneError
from phosphene.models import Labels, Network, Preprocess, load
from phosphene.models.heads import HEAD
from phosphene.progress import Event, Started, run
from phosphene.training.folder import Examples, Photo
from phosphene.training.probe import Probe, probe, targets, with_classes
from phosphene.training.stages import read

STAGES = ["stem.2", "body.2", "top.2"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    counts = {"train": {"blue": 12, "green": 8, "red": 6}, "val": {"blue": 3, "green": 3, "red": 4}}
    return found(fill(tmp_path_factory.mktemp("colours"), counts))


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    root = tmp_path_factory.mktemp("stripes")
    for part, first, count in (("train", 0, 20), ("val", 100, 8)):
        for number in range(first, first + count):
            for name, upright in (("flat", False), ("upright", True)):
                write(root / part / name / f"{number}.png", striped(upright, number))
    return found(root)


def probed(network: Network, examples: Examples, **options: Any) -> Probe:
    return outcome(probe(network, examples, **options))


class Edges(nn.Module):
    """Colours first; then edges of both directions, whose strength alone tells how stripes lie; then nothing but noise."""

    def __init__(self) -> None:
        super().__init__()
        self.colour = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
        self.edges = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(4, 2, 3), nn.ReLU())
        self.fc = nn.Linear(2, 5)
        colour, edges, last = self.colour[0], self.edges[0], self.last[0]
        assert isinstance(colour, nn.Conv2d) and isinstance(edges, nn.Conv2d) and isinstance(last, nn.Conv2d)
        assert colour.bias is not None and edges.bias is not None and last.bias is not None
        with torch.no_grad():
            colour.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            colour.bias.fill_(5.0)
            sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
            kernels = torch.stack([sobel, -sobel, sobel.T, -sobel.T])
            edges.weight.copy_(kernels[:, None].expand(-1, 3, -1, -1) / 3)
            edges.bias.zero_()
            self.last[0].weight.fill_(0.1)  # both directions together: the difference is gone  # pyright: ignore
            last.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.last(self.edges(self.colour(x))).mean((2, 3)))


def test_the_stage_that_sees_the_difference_wins(stripes: Examples) -> None:
    """Stripes that lie have the colours of those that stand: colours don't tell them apart, edges do."""
    done = probed(named(Edges(), size=20), stripes)
    assert [one.stage for one in done.stages] == ["colour.1", "edges.1", "last.1"]
    assert done.chosen.stage == "edges.1" and done.best == 1
    assert done.chosen.scores.accuracy.mean == 1.0 and done.chosen.linear.accuracy == 1.0
    assert done.stages[0].scores.accuracy.mean < 0.85
    losses = [one.linear.log_loss for one in done.stages]
    assert losses[1] == min(losses) and losses[1] < 0.2 < 0.4 < losses[0]


def test_colours_are_told_apart_at_the_first_stage(colours: Examples) -> None:
    done = probed(named(Edges(), size=16), colours)
    assert done.chosen.stage == "colour.1" and done.chosen.scores.accuracy.mean == 1.0


def test_each_stage_is_judged_on_the_photographs_held_out(colours: Examples) -> None:
    network = pupil()
    events: list[Event] = []
    done = run(probe(network, colours), events.append)
    assert [event.what for event in events if isinstance(event, Started)] == [
        "features of every stage",
        "linear classifiers",
    ]
    assert [one.stage for one in done.stages] == STAGES and [one.width for one in done.stages] == [8, 12, 16]
    pictures = torch.cat([network.preprocess(images.read(photo.path)) for photo in colours.val])
    features = read(network, pictures, STAGES)
    for one in done.stages:
        logits = features[one.stage].double() @ one.linear.weight.double().T + one.linear.bias.double()
        np.testing.assert_allclose(one.probabilities, logits.softmax(1).numpy(), atol=1e-4)
        right = (one.probabilities.argmax(1) == targets(colours.val)).mean()
        assert one.scores.accuracy.mean == pytest.approx(right)
    assert done.features.computed == 36


@pytest.mark.parametrize("stages", [["stem.2"], ["body.2"], ["top.2"], ["fc"]])
def test_the_network_gives_the_probabilities_of_its_stage(colours: Examples, stages: list[str]) -> None:
    done = probed(pupil(), colours, stages=stages)
    pictures = torch.cat([done.network.preprocess(images.read(photo.path)) for photo in colours.val])
    mine = done.network.logits(pictures).double().softmax(1).numpy()
    np.testing.assert_allclose(mine, done.chosen.probabilities, atol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(done.network(pictures).double().softmax(1).numpy(), mine, atol=1e-4)
    assert list(done.network.labels) == ["blue", "green", "red"]
    assert done.network.architecture is not None
    made_of = done.network.architecture
    last = stages[0] in ("top.2", "fc")
    assert (made_of.head, made_of.cut) == (("fc", "") if last else ("", stages[0]))
    assert all(p.requires_grad for p in done.network.module.parameters())


def test_the_photographs_held_out_have_no_say(colours: Examples) -> None:
    done = probed(pupil(), colours)
    others = replace(colours, val=tuple(replace(photo, label=(photo.label + 1) % 3) for photo in colours.val))
    wrong = probed(pupil(), others)
    assert wrong.best == done.best and wrong.chosen.scores.accuracy.mean < 0.5 < done.chosen.scores.accuracy.mean
    for one, other in zip(done.stages, wrong.stages, strict=True):
        assert torch.equal(one.linear.weight, other.linear.weight) and one.linear.log_loss == other.linear.log_loss
    assert all(
        torch.equal(a, b) for a, b in zip(values(done.network.module).values(), values(wrong.network.module).values())
    )


def test_the_given_network_is_as_it_was(colours: Examples) -> None:
    network = pupil(0.3)
    network.module.train()
    network.module.get_parameter("fc.bias").requires_grad_(False)
    before, modes = values(network.module), [child.training for child in network.module.modules()]
    logits, labels, made_of = network.logits(noise(1)), list(network.labels), copy.copy(network.architecture)
    for stages in ([], ["stem.2"]):
        probed(network, colours, stages=stages)
    assert all(torch.equal(before[name], value) for name, value in values(network.module).items())
    assert modes == [child.training for child in network.module.modules()]
    assert [n for n, p in network.module.named_parameters() if not p.requires_grad] == ["fc.bias"]
    assert (
        torch.equal(logits, network.logits(noise(1)))
        and list(network.labels) == labels
        and network.architecture == made_of
    )
    assert type(network.module) is Pupil and not hasattr(network.module, HEAD)


def test_features_are_kept_and_names_are_taken_once(colours: Examples, tmp_path: Path) -> None:
    one = probed(pupil(), colours, stages=["top.2", "stem.2", "top.2"], folder=tmp_path)
    two = probed(pupil(), colours, stages=["top.2", "stem.2"], folder=tmp_path, seed=1, balanced=False)
    assert [found.stage for found in one.stages] == ["top.2", "stem.2"] and (
        one.features.computed,
        two.features.computed,
    ) == (36, 0)


def test_too_few_photographs_to_choose_by(tmp_path: Path) -> None:
    root = fill(tmp_path, {"train": {"red": 1, "blue": 4}, "val": {"red": 2, "blue": 2}})
    done = probed(pupil(), found(root))
    assert done.best == 2 and np.isnan(done.chosen.linear.log_loss) and done.chosen.stage == "top.2"


def test_balance_helps_the_rare_class(tmp_path: Path) -> None:
    examples = found(fill(tmp_path, {"train": {"red": 4, "yellow": 36}, "val": {"red": 10, "yellow": 10}}, noise=300))
    chances = [
        probed(pupil(), examples, balanced=b, stages=["top.2"]).chosen.probabilities[:, 0].mean() for b in (False, True)
    ]
    assert chances[1] > chances[0] + 0.05


def test_bad_input(colours: Examples) -> None:
    with pytest.raises(LayerError, match="has no layer 'nowhere'"):
        probed(pupil(), colours, stages=["nowhere"])
    network = pupil()
    with torch.no_grad():
        network.module.get_parameter("body.0.bias")[0] = float("inf")
    with pytest.raises(NetworkError, match=r"layer 'body\.0'"):
        probed(network, colours)
    only = replace(colours, train=tuple(photo for photo in colours.train if photo.label < 2))
    with pytest.raises(PhospheneError, match="a classifier needs at least two classes"):
        probed(pupil(), only)


def test_targets() -> None:
    assert targets([Photo(Path("a"), 2), Photo(Path("b"), 0)]).tolist() == [2, 0] and targets([]).dtype == np.int64


# -- new classes ------------------------------------------------------------------------------------------------


def test_a_grey_network_without_classes(colours: Examples) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU())
    given = Network(
        module.eval(), name="grey", labels=None, preprocess=Preprocess((12, 12), 12), mean=(0.5,), std=(0.3,)
    )
    given.architecture = named(Pupil()).architecture
    done = probed(given, colours)
    assert done.chosen.stage in ("1", "3") and done.network.channels == 1 and done.network.classifies
    assert done.network.mean.item() == pytest.approx(0.5) and done.network.std.item() == pytest.approx(0.3)


def test_a_cut_network_is_probed_again(colours: Examples) -> None:
    once = probed(pupil(), colours, stages=["body.2"]).network
    again = probed(once, colours)
    assert [one.stage for one in again.stages] == ["stem.2", "body.2"]
    made_of = again.network.architecture
    assert made_of is not None and made_of.cut == again.chosen.stage and made_of.outputs == 5
    pictures = torch.cat([once.preprocess(images.read(photo.path)) for photo in colours.val])
    np.testing.assert_allclose(
        again.network.logits(pictures).double().softmax(1).numpy(), again.chosen.probabilities, atol=1e-4
    )


@pytest.mark.parametrize("make", [lambda: settled(Pupil()), lambda: nn.Sequential(*list(Pupil().children())[:3])])
def test_a_network_of_the_callers_own_module(colours: Examples, make: Callable[[], nn.Module]) -> None:
    """`load(module)`: it can't be saved under a name, and learns all the same."""
    done = probed(load(make(), input_size=16), colours)
    pictures = torch.cat([done.network.preprocess(images.read(photo.path)) for photo in colours.val])
    mine = done.network.logits(pictures).double().softmax(1).numpy()
    np.testing.assert_allclose(mine, done.chosen.probabilities, atol=1e-4)


class Sharing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.relu, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.conv2(self.relu(self.conv1(x)))).mean((2, 3)))


def test_a_stage_that_is_the_first_call_of_a_layer(colours: Examples) -> None:
    network = named(Sharing())
    done = probed(network, replace(colours, classes=colours.classes))
    assert [one.stage for one in done.stages] == ["relu#1", "relu"]
    first = done.stages[0]
    from phosphene.training.probe import with_probe

    new = with_probe(network, colours.classes, first.stage, first.linear)
    pictures = torch.cat([network.preprocess(images.read(photo.path)) for photo in colours.val])
    np.testing.assert_allclose(new.logits(pictures).double().softmax(1).numpy(), first.probabilities, atol=1e-4)


def test_a_new_layer_is_random_and_of_the_callers_seed(efficientnet: Network) -> None:
    torch.manual_seed(3)
    one = with_classes(efficientnet, ["a", "b"], "bn2", 1280)
    torch.manual_seed(3)
    two = with_classes(efficientnet, ["a", "b"], "classifier", 1280)
    assert torch.equal(one.module.get_parameter("classifier.weight"), two.module.get_parameter("classifier.weight"))
    assert one.module.get_parameter("classifier.weight").std() > 0 and isinstance(one.labels, Labels)
    assert efficientnet.module.get_parameter("classifier.weight").shape[0] == 1000


def test_coloured_pictures_differ() -> None:
    """The helpers of these tests make what they say."""
    assert (
        not np.array_equal(coloured("red", 0), coloured("red", 1))
        and striped(True, 0).std(0).max() < striped(False, 0).std(0).max()
    )
