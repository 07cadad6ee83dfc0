from __future__ import annotations

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Head, InPlace, Plain, Reused, TwoNames, Wrapped, close, network, reference
from torch import Tensor, nn

from phosphene.errors import LabelError, LayerError, NetworkError, PhospheneError
from phosphene.models import Labels, Network, Preprocess, load
from phosphene.models import network as network_file


class Grey(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 8, 3), Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu())


class Maps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)


# -- normalisation ------------------------------------------------------------------------------------------------


def test_the_gradient_is_per_unit_of_the_picture_not_of_the_normalised_input() -> None:
    net = network(Reused()).to(torch.float64)
    images = torch.rand(1, 3, 20, 20, dtype=torch.float64)
    leaf = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.logits(leaf)[0, 2], leaf)
    step = 1e-6
    for place in [(0, 3, 4), (1, 10, 11), (2, 19, 0)]:
        up, down = images.clone(), images.clone()
        up[(0, *place)] += step
        down[(0, *place)] -= step
        slope = (net.logits(up) - net.logits(down))[0, 2] / (2 * step)
        assert float(slope) == pytest.approx(float(gradient[(0, *place)]), rel=1e-4, abs=1e-9)


def test_the_module_sees_its_mean_as_zero_and_its_deviation_as_one() -> None:
    net = Network(Maps(), name="n", labels=None, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    mean = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1).expand(1, 3, 5, 5)
    assert torch.allclose(net.normalise(mean), torch.zeros(1, 3, 5, 5))
    assert torch.allclose(
        net.normalise(mean + torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1)), torch.ones(1, 3, 5, 5)
    )


def test_as_a_plain_module_it_is_the_module_on_normalised_images() -> None:
    net, images = network(Plain()), torch.rand(2, 3, 20, 20)
    net.module.eval()
    assert torch.equal(net(images), net.module(net.normalise(images)))


def test_a_grey_network_sees_luma() -> None:
    net = load(Grey(), input_size=20, device="cpu")
    assert net.channels == 1
    colour = torch.rand(2, 3, 20, 20)
    luma = (0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2])[:, None]
    assert close(net.logits(colour), net.logits(luma), 1e-5)
    leaf = colour.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net.logits(leaf).sum(), leaf)
    assert torch.allclose(gradient[:, 0] / 0.299, gradient[:, 1] / 0.587, atol=1e-6)
    assert len(net.predict(colour)) == 2


def test_a_grey_picture_is_shown_to_a_colour_network_in_all_three_channels() -> None:
    net, grey = network(Plain()), torch.rand(2, 1, 20, 20)
    assert close(net.logits(grey), net.logits(grey.expand(-1, 3, -1, -1)), 1e-6)


@pytest.mark.parametrize("shape", [(3, 20, 20), (1, 4, 20, 20), (1, 2, 20, 20), (20, 20), (1, 1, 3, 20, 20)])
def test_what_is_no_batch_of_images_is_an_error_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(PhospheneError, match=r"expected images \[N, 3, H, W\]"):
        network(Plain()).normalise(torch.rand(shape))


@pytest.mark.parametrize(("mean", "std"), [((0.5, 0.5), (0.5, 0.5)), ((0.5,), (0.5, 0.5, 0.5))])
def test_a_mean_that_fits_neither_colour_nor_grey_is_an_error_line(
    mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(NetworkError, match="3 numbers each"):
        Network(Plain(), name="n", labels=None, mean=mean, std=std)


# -- classes ------------------------------------------------------------------------------------------------------


def test_a_network_of_ones_own_gets_the_labels_it_is_given() -> None:
    names = [
        f"digit {word}" for word in ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    ]
    net = load(Plain(10), labels=names, input_size=20, device="cpu")
    assert net.classes(["digit three", 4, "nine"]) == [3, 4, 9]
    best = net.predict(torch.rand(1, 3, 20, 20), top=3)[0]
    assert len(best.names) == 3
    assert best.names[0] == names[best.indices[0]]
    with pytest.raises(LabelError):
        net.classes(["digit eleven"])


def test_a_wrong_number_of_labels_is_an_error_line() -> None:
    with pytest.raises(NetworkError, match="Plain has 10 classes, but 3 labels were given"):
        load(Plain(10), labels=["a", "b", "c"], input_size=20, device="cpu")


def test_without_labels_the_classes_are_numbered() -> None:
    assert load(Plain(10), input_size=20, device="cpu").labels[9] == "class 9"


def test_a_feature_extractor_says_why_it_cannot_classify() -> None:
    net = load(Maps(), input_size=20, name="maps", device="cpu")
    assert not net.classifies
    assert len(net.labels) == 0
    for call in (
        lambda: net.logits(torch.rand(1, 3, 20, 20)),
        lambda: net.predict(torch.rand(1, 3, 20, 20)),
        lambda: net.classes([1]),
    ):
        with pytest.raises(
            NetworkError, match=r"needs a network that classifies; maps gives a tensor of shape \[1, 4, 18, 18\]"
        ):
            call()
    assert net.output(torch.rand(2, 3, 20, 20)).shape == (2, 4, 18, 18)
    assert net.record(torch.rand(2, 3, 20, 20), ["features.0"])["features.0"].shape == (2, 4, 18, 18)


@settings(deadline=None, max_examples=25)
@given(height=st.integers(1, 70), width=st.integers(1, 70), channels=st.sampled_from([1, 3]), count=st.integers(1, 3))
def test_predict_takes_pictures_of_any_size(height: int, width: int, channels: int, count: int) -> None:
    net = NET
    images = torch.rand(count, channels, height, width)
    found = net.predict(images, top=9)
    with torch.no_grad():
        wanted = net.logits(net.preprocess(images)).softmax(1)
    assert len(found) == count
    for prediction, row in zip(found, wanted, strict=True):
        assert len(prediction.indices) == 5  # no more than there are classes
        assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)
        assert list(prediction.probabilities) == sorted(prediction.probabilities, reverse=True)
        assert prediction.probabilities[0] == pytest.approx(float(row.max()), abs=1e-5)


torch.manual_seed(1)
NET = network(Plain())

# -- batches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1.0, 3e5, 1e9])
def test_results_do_not_depend_on_the_size_of_the_pieces(monkeypatch: pytest.MonkeyPatch, budget: float) -> None:
    net, images = network(Reused()), torch.rand(11, 3, 20, 20)
    wanted, logits = reference(net, images)
    monkeypatch.setattr(network_file, "MEMORY_BUDGET", budget)
    recorded = net.record(images, ["conv1", "relu#2", "head"])
    for name in ("conv1", "relu#2", "head"):
        assert close(recorded[name], wanted[name if "#" in name else f"{name}#1"], 1e-5)
    single = torch.cat([net.logits(image[None]) for image in images])
    assert close(single, logits, 1e-5)
    found = [p.probabilities[0] for p in net.predict(images, 1)]
    assert found == pytest.approx(logits.softmax(1).max(1).values.tolist(), abs=1e-5)


def test_pieces_fit_the_memory_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(Reused())
    assert net.batch_size((20, 20)) == 8  # a CPU's most
    floats = 4 * (8 * 20 * 20 + 12 * 9 * 9 + 8 * 7 * 7 + 5)  # convolutions: batch norms are folded, ReLUs work in place
    monkeypatch.setattr(network_file, "MEMORY_BUDGET", 4.5 * floats * network_file.GRADIENT_FACTOR)
    assert net.batch_size((20, 20)) == 4
    assert net.batch_size((40, 40)) == 1
    assert net.batch_size((10, 10)) == 8
    assert net.batch_size((2000, 2000)) == 1
    pieces = list(net.split(torch.rand(10, 3, 20, 20)))
    assert [len(piece) for piece in pieces] == [4, 4, 2]


def test_an_empty_batch_is_an_error_line() -> None:
    with pytest.raises(PhospheneError, match="empty batch"):
        network(Plain()).record(torch.zeros(0, 3, 20, 20), ["conv1"])


# -- layers -------------------------------------------------------------------------------------------------------


def test_layers_are_listed_in_order_with_kind_shape_calls_and_parameters() -> None:
    found = {layer.name: layer for layer in network(Reused()).layers()}
    assert list(found) == ["conv1", "bn1", "conv2", "bn2", "conv3", "relu", "head.fc", "head"]
    assert found["bn1"].kind == "BatchNorm2d"  # though the copy that is read has folded it
    assert (found["conv1"].shape, found["conv1"].parameters) == ((8, 20, 20), 8 * 3 * 9)
    assert (found["relu"].calls, found["relu"].leaf, found["head"].leaf) == (3, True, False)
    assert found["head"].shape == (5,)


@pytest.mark.parametrize("make", [Reused, TwoNames, InPlace, Wrapped, Plain])
def test_several_layers_come_from_one_pass(make: type[nn.Module]) -> None:
    net, images = network(make()), torch.rand(2, 3, 20, 20)
    wanted, _ = reference(net, images)
    names = [layer.name for layer in net.layers()][::-1]
    found = net.several(images, names)
    assert list(found) == names
    for layer in net.layers():
        assert close(found[layer.name], wanted[f"{layer.name}#{layer.calls}"]), layer.name


def test_several_calls_of_one_layer() -> None:
    net, images = network(Reused()), torch.rand(2, 3, 20, 20)
    wanted, _ = reference(net, images)
    found = net.several(images, ["relu", "relu#1", "relu#3"])
    for name, call in (("relu", "relu#3"), ("relu#1", "relu#1"), ("relu#3", "relu#3")):
        assert close(found[name], wanted[call])


@pytest.mark.parametrize("layers", [["conv1"], ["conv2", "conv1"], ["relu#1", "conv3", "head"]])
def test_several_layers_have_their_own_gradients(layers: list[str]) -> None:
    """Of a sum over all of them, against the sum of what each alone gives."""
    net, images = network(Reused()), torch.rand(2, 3, 20, 20)

    def slope(parts: list[list[str]]) -> Tensor:
        leaf = images.clone().requires_grad_()
        total = sum(
            (found.square().sum() for part in parts for found in net.several(leaf, part).values()), torch.zeros(())
        )
        return torch.autograd.grad(total, leaf)[0]

    assert close(slope([layers]), slope([[layer] for layer in layers]), 1e-5)


def test_the_pass_for_several_layers_stops_after_the_deepest() -> None:
    class Fragile(nn.Module):
        """Breaks after its second convolution, but not when it is loaded."""

        broken = False

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.conv3 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
            self.head = Head()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv2(self.conv1(x))
            if Fragile.broken:
                raise ArithmeticError("too far")
            return self.head(self.conv3(x))

    net, images = network(Fragile()), torch.rand(1, 3, 20, 20)
    net.layers()
    Fragile.broken = True
    assert list(net.several(images, ["conv2", "conv1"])) == ["conv2", "conv1"]
    with pytest.raises(ArithmeticError, match="too far"):
        net.several(images, ["conv1", "conv3"])


def test_several_layers_of_which_one_is_none() -> None:
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        network(Reused()).several(torch.rand(1, 3, 20, 20), ["conv1", "conv9"])


def test_a_reader_gives_what_several_gives() -> None:
    net, images = network(Reused()), torch.rand(2, 3, 20, 20)
    wanted = net.several(images, ["conv2", "relu#1"])
    read = net.reader(["conv2", "relu#1"])
    for _ in range(2):
        found = read(images)
        assert list(found) == list(wanted)
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert close(net.reader(["conv2"], to_end=True)(images)[""], net.logits(images), 1e-6)


def test_the_last_spatial_layer_is_found_where_its_module_goes_on_to_vectors() -> None:
    class Later(nn.Module):
        """The ReLU's last call is on vectors."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
            self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(self.conv(x)).mean((2, 3))
            return self.fc2(self.relu(self.fc1(x)))

    net = network(Later())
    assert net.last_spatial_layer() == "relu#1"
    assert net.layer(net.last_spatial_layer()).shape == (8, 18, 18)
    assert network(Reused()).last_spatial_layer() == "relu"


def test_a_network_without_maps_has_no_last_spatial_layer() -> None:
    net = network(nn.Sequential(nn.Flatten(), nn.Linear(1200, 5)))
    with pytest.raises(PhospheneError, match="no layer with a spatial map"):
        net.last_spatial_layer()


# -- copies -------------------------------------------------------------------------------------------------------


def test_a_used_network_can_be_copied_and_pickled() -> None:
    net, images = network(Plain()), torch.rand(2, 3, 20, 20)
    wanted = net.logits(images)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other.logits(images), wanted)
        with torch.no_grad():
            other.module.get_parameter("head.fc.bias").add_(1)
        assert close(other.logits(images), wanted + 1)
    assert torch.equal(net.logits(images), wanted)
    assert not [name for name in net.state_dict() if not name.startswith("module.")]


def test_another_size_changes_how_pictures_are_brought_to_it() -> None:
    net = load(Plain(), input_size=(20, 30), device="cpu")
    assert net.input_size == (20, 30)
    assert net.preprocess == Preprocess((20, 30), 23)
    assert isinstance(net.labels, Labels)


def test_images_of_the_wrong_range_or_type_are_refused() -> None:
    net = network(Plain())
    with pytest.raises(PhospheneError, match="got uint8"):
        net.logits(torch.zeros(1, 3, 20, 20, dtype=torch.uint8))
    with pytest.raises(PhospheneError, match="these go from 0 to 255"):
        net.predict(torch.tensor([0.0, 255.0]).repeat(600).reshape(1, 3, 20, 20))
