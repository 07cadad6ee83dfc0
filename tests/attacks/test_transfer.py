"""Transfer: who is fooled by whose images, what counts, and how images come from one size to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lenet import digits, lenet
from planes import bent, done, noise, plane, seen
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.attacks import Transfer, attack, fgsm, mi_fgsm, noisy, transfer
from phosphene.errors import NetworkError, PhospheneError
from phosphene.models import Labels, Network, Preprocess, load
from phosphene.progress import Started, run


class Deaf(nn.Module):
    """Always sees the same class, whatever is shown, though it has a gradient."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, x: Tensor) -> Tensor:
        tilt = 1e-3 * x.mean(dim=(1, 2, 3))
        return torch.stack([1 + tilt] + [-tilt] * (self.classes - 1), 1)


def sized(module: nn.Module, size: int, labels: Labels | None = None, resize: int | None = None) -> Network:
    network = load(module, device="cpu", input_size=size, mean=(0, 0, 0), std=(1, 1, 1))
    network.preprocess = Preprocess((size, size), resize or size)
    if labels is not None:
        network._labels = labels
    return network


def test_a_twin_is_fooled_by_what_fools_the_first() -> None:
    module, images = bent(), noise(40)
    labels = seen(module, images)
    labels[3] = (labels[3] + 1) % 4
    found: Transfer = done(transfer({"one": module, "twin": bent()}, images, labels, eps=8 / 255))
    assert found.names == ("one", "twin")
    assert found.right.tolist() == [39, 39] and found.count.tolist() == [[39, 39], [39, 39]]
    assert len(set(found.misread.flatten().tolist())) == 1 and 0 < found.misread[0, 0] < 39
    assert found.success.tolist() == [found.misread[0, 0]] * 2
    # What the diagonal says is what the attack itself says.
    alone = done(mi_fgsm(module, images, labels, eps=8 / 255, quantize=True, exhaust=True))
    assert int(alone.success.sum()) == found.success[0]
    torch.testing.assert_close(found.rate, found.misread / found.count.double())


def test_who_looks_away_is_not_fooled_and_fools_nobody() -> None:
    module, images = bent(), noise(40)
    labels = seen(module, images)
    found = done(transfer({"bent": module, "deaf": Deaf()}, images, labels, eps=12 / 255))
    same = int((labels == 0).sum())
    assert found.right.tolist() == [40, same] and found.count.tolist() == [[40, same], [same, same]]
    assert found.rate[0, 0] > 0.5 and found.rate[0, 1] == found.rate[1, 1] == 0 and found.success[1] == 0
    assert found.control[1] == 0


def test_only_what_both_see_rightly_counts() -> None:
    module, images = bent(), noise(40)
    labels = seen(module, images)
    other = bent()
    other.fc.bias.data[0] += 0.5  # sees more images as class 0
    shown = seen(other, images)
    both = shown == labels
    found = done(transfer({"one": module, "other": other}, images, labels, eps=3 / 255, attack="fgsm"))
    assert found.right.tolist() == [40, int(both.sum())] and int(both.sum()) < 40
    assert found.count.tolist() == [[40, int(both.sum())], [int(both.sum())] * 2]
    made = done(fgsm(module, images, labels, eps=3 / 255, quantize=True)).images
    assert found.misread[0, 1] == int((both & (seen(other, made) != labels)).sum())
    # Nobody right: no share.
    none = done(transfer({"one": module}, images, (labels + 1) % 4, eps=0.01, attack="fgsm"))
    assert none.count.item() == 0 and torch.isnan(none.rate).all() and torch.isnan(none.control).all()


@pytest.mark.parametrize(("norm", "eps"), [("linf", 30 / 255), ("l2", 1.5)])
def test_the_control_is_noise(norm: Any, eps: float) -> None:
    module, images = bent(), noise(64)
    labels = seen(module, images)
    found = done(transfer({"one": module}, images, labels, eps=eps, norm=norm, seed=3))
    noise_fools = int((seen(module, noisy(images, eps, norm, seed=3)) != labels).sum())
    assert found.shaken.tolist() == [noise_fools] and 0 < noise_fools < 64
    assert found.control.item() == noise_fools / 64 and found.rate.item() > 0.95


def test_going_on_after_success_transfers_more() -> None:
    module, images = bent(3), noise(64, 3)
    other = bent(3)
    other.conv.weight.data += 0.1 * torch.randn(other.conv.weight.shape, generator=torch.Generator().manual_seed(1))
    labels = seen(module, images)
    found = done(transfer({"one": module, "other": other}, images, labels, eps=0.05, attack="pgd", steps=20))
    short = done(attack("pgd", module, images, labels, eps=0.05, steps=20, quantize=True)).images
    both = seen(other, images) == labels
    assert found.success[0] == 64 or found.rate[0, 0] > 0.9
    assert found.misread[0, 1] > int((both & (seen(other, short) != labels)).sum())


@pytest.mark.parametrize("name", ["fgsm", "bim", "ni-fgsm", "apgd", "square", "deepfool"])
def test_other_attacks(name: str) -> None:
    module, images = bent(3), noise(6, 3)
    norm: Any = "l2" if name == "deepfool" else "linf"
    steps = None if name == "fgsm" else 10
    options: dict[str, Any] = {"eps": 0.2 if norm == "linf" else 3.0, "norm": norm, "steps": steps}
    found = done(transfer({"one": module}, images, seen(module, images), attack=name, **options))
    assert found.success.item() == found.misread.item() >= 4


def test_networks_of_other_sizes() -> None:
    small, large = sized(bent(3), 8), sized(bent(3), 16)
    images = noise(30, 3, 12)
    labels = seen(small, small.preprocess(images))
    found = done(transfer({"small": small, "large": large, "plain": bent(3)}, images, labels, eps=6 / 255))
    # By hand: a source's image, resized, the clean one as the changed one.
    quantised = (small.preprocess(images) * 255).round() / 255
    made = done(mi_fgsm(small, quantised, labels, eps=6 / 255, quantize=True, exhaust=True))
    for column, (size, network) in enumerate([(8, small), (16, large), (12, bent(3))]):
        clean, changed = (
            one if size == 8 else F.interpolate(one, (size, size), mode="bicubic", antialias=True).clamp(0, 1)
            for one in (made.originals, made.images)
        )
        right = ~made.wrong & (seen(network, clean) == labels)
        assert found.count[0, column] == int(right.sum())
        assert found.misread[0, column] == int((right & (seen(network, changed) != labels)).sum())
    assert found.right.tolist()[0] == 30 and found.misread[0, 0] > 5
    assert found.right[1] == int((seen(large, large.preprocess(images)) == labels).sum())


def test_resizing_alone_is_not_counted() -> None:
    # The source sees everything as 1. The target sees fine stripes as 1, and a small picture has lost them.
    class Stripes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            fine = (x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3))
            return torch.stack([0.2 - fine, fine - 0.2], 1)

    images = torch.zeros(3, 3, 16, 16)
    images[..., ::2] = 1
    coarse = sized(plane((3, 4, 4), classes=2), 4)
    labels = torch.ones(3, dtype=torch.long)
    coarse.module[1].bias.data[1] += 100  # type: ignore[index]
    found = done(transfer({"coarse": coarse, "fine": sized(Stripes(), 16)}, images, labels, eps=2 / 255))
    assert found.right.tolist() == [3, 3] and found.count.tolist() == [[3, 0], [3, 3]]
    assert torch.isnan(found.rate[0, 1]) and found.rate[0, 0] == 0


def test_networks_of_other_classes_are_refused() -> None:
    images = noise(2, 3)
    four, named = sized(bent(3), 8), sized(bent(3), 8, Labels(["cat", "dog", "cow", "owl"]))
    swapped = sized(bent(3), 8, Labels(["cat", "cow", "dog", "owl"]))
    pairs = [
        (
            {"a": named, "b": swapped},
            r"^a and b have different classes \(number 1 is dog and cow\): compare networks of",
        ),
        ({"a": bent(3), "b": bent(3, classes=5)}, r"^a and b have different classes \(4 and 5\)"),
        ({"a": four, "b": bent(3, classes=5)}, r"^a and b have different classes \(4 and 5\)"),
        ({"a": four, "b": sized(bent(3, classes=5), 8)}, r"^a and b have different classes \(4 and 5\)"),
    ]
    for networks, message in pairs:
        with pytest.raises(NetworkError, match=message):
            done(transfer(networks, images, [0, 1], eps=0.1))
    done(transfer({"a": four, "b": named, "c": bent(3)}, images, [0, 1], eps=0.0))  # "class 0" is nobody's name


def test_wrong_arguments() -> None:
    images, module = noise(2, 3), bent(3)
    wrong: list[tuple[dict, dict, str]] = [
        ({}, {}, "at least one network"),
        ({"a": module}, {"attack": "mifgsm"}, "there is no attack 'mifgsm'; did you mean mi-fgsm"),
        ({"a": module}, {"attack": "deepfool"}, "deepfool measures in l2"),
        ({"a": module}, {"attack": "fgsm", "steps": 3}, "leave --steps away"),
        ({"a": module, "b": bent(1)}, {}, "^b: the network can't run on images of shape"),
        ({"a": module}, {"eps": 8}, "did you mean 8/255"),
    ]
    for networks, options, message in wrong:
        with pytest.raises(PhospheneError, match=message):
            done(transfer(networks, images, [0, 1], **{"eps": 0.1, **options}))
    with pytest.raises(PhospheneError, match="3 labels for 2 images"):
        done(transfer({"a": module}, images, [0, 1, 2], eps=0.1))


def test_events_name_the_networks_and_nothing_is_left_changed() -> None:
    module, images = bent(3).train(), noise(3, 3)
    events: list[Any] = []
    run(transfer({"one": module, "two": bent(3)}, images, [0, 1, 2], eps=0.01, steps=2), events.append)
    names = [event.what for event in events if isinstance(event, Started)]
    assert names == ["noise", "mi-fgsm on one", "mi-fgsm on two"]
    assert module.training and all(p.grad is None and p.requires_grad for p in module.parameters())


def test_neighbours_do_not_matter() -> None:
    networks, images = {"a": bent(3, double=True), "b": plane((3, 8, 8), classes=4).double()}, noise(12, 3)
    labels = seen(networks["a"], images.double())
    options: dict[str, Any] = {"eps": 4 / 255, "attack": "pgd", "steps": 5, "seed": 2}
    whole = done(transfer(networks, images, labels, **options))
    parts = [done(transfer(networks, images[some], labels[some], **options)) for some in ([7, 1, 4], [*range(12)])]
    rest = done(
        transfer(networks, images[[0, 2, 3, 5, 6, 8, 9, 10, 11]], labels[[0, 2, 3, 5, 6, 8, 9, 10, 11]], **options)
    )
    for name in ("right", "success", "count", "misread", "shaken"):
        assert torch.equal(getattr(parts[0], name) + getattr(rest, name), getattr(whole, name)), name
        assert torch.equal(getattr(parts[1], name), getattr(whole, name))


class Soft(nn.Module):
    """Gives probabilities."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).softmax(1)


class Rounds(nn.Module):
    """No gradient comes through it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.inner = module

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 51).round() / 51)


def test_networks_that_give_probabilities_are_attacked_by_their_logarithms() -> None:
    images = noise(24, 3)
    labels = seen(bent(3), images)
    options: dict[str, Any] = {"eps": 6 / 255, "steps": 5, "attack": "pgd", "seed": 1}
    plain = done(transfer({"a": bent(3), "b": plane((3, 8, 8), classes=4)}, images, labels, **options))
    soft: dict[str, nn.Module] = {"a": Soft(bent(3)), "b": plane((3, 8, 8), classes=4)}
    found = done(transfer(soft, images, labels, **options, probabilities=["a"]))
    assert found.right.tolist() == plain.right.tolist() and found.shaken.tolist() == plain.shaken.tolist()
    assert found.count.tolist() == plain.count.tolist()
    assert (found.misread - plain.misread).abs().max() <= 1 and found.misread[0, 0] > 5
    with pytest.raises(NetworkError, match=r"^a: this network gives probabilities, not logits"):
        done(transfer(soft, images, labels, **options))
    with pytest.raises(NetworkError, match=r"^b: probabilities=True is for a network whose rows sum to 1"):
        done(transfer(soft, images, labels, **options, probabilities=["a", "b"]))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_source_without_a_gradient_makes_nothing_but_looks(place: int) -> None:
    images = noise(24, 3)
    labels = seen(bent(3), images)
    names = ["one", "two"]
    names.insert(place, "rounds")
    networks: dict[str, nn.Module] = {name: Rounds(bent(3)) if name == "rounds" else bent(3) for name in names}
    found = done(transfer(networks, images, labels, eps=12 / 255, steps=5))
    assert found.names == tuple(names)
    assert found.success[place] == 0 == found.misread[place].sum() == found.count[place].sum()
    assert torch.isnan(found.rate[place]).all()
    for other in {0, 1, 2} - {place}:
        assert found.success[other] > 5 and found.count[other, place] > 10
        assert found.misread[other, place] > 3  # it looks, and is fooled by others' images
    alone = done(transfer({"one": bent(3), "two": bent(3)}, images, labels, eps=12 / 255, steps=5))
    rest = [row for row in range(3) if row != place]
    assert torch.equal(found.misread[rest][:, rest], alone.misread)


def test_only_networks_without_a_gradient() -> None:
    images = noise(6, 3)
    found = done(transfer({"a": Rounds(bent(3)), "b": Rounds(bent(3))}, images, seen(bent(3), images), eps=0.05))
    assert found.count.sum() == 0 and found.success.sum() == 0 and found.right.sum() > 6
    # An attack that needs none goes on.
    square = done(transfer({"a": Rounds(bent(3))}, images, seen(bent(3), images), eps=0.3, attack="square", steps=100))
    assert square.success[0] > 0 and square.count[0, 0] == square.right[0]


def test_other_failures_of_a_source_are_told() -> None:
    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bent(3)(x) * torch.nan

    with pytest.raises(NetworkError, match=r"^bad: the network gives NaN"):
        done(transfer({"good": bent(3), "bad": Fails()}, noise(2, 3), [0, 1], eps=0.1))


@pytest.mark.shared
def test_between_the_networks_of_mnist(shared: Path) -> None:
    images, labels = digits(shared, 64)
    networks = {kind: lenet(shared, kind) for kind in ("cln", "adv")}
    found = done(transfer(networks, images, labels, eps=0.2))
    # Sure to fool the clean network itself, and hardly anything to the hardened one; nor the other way round.
    assert found.right.tolist() == [63, 64] and found.count.tolist() == [[63, 63], [63, 64]]
    assert found.rate[0, 0] == 1 and found.rate[1, 1] < 0.1
    assert found.rate[0, 1] < 0.1 and found.rate[1, 0] < 0.1 and (found.control < 0.05).all()


def test_between_the_bundled_networks(squeezenet: Network, efficientnet: Network, photos: Tensor) -> None:
    crops = [photos[..., top : top + 200, left : left + 200] for top, left in ((0, 0), (24, 24))]
    images = torch.cat([*crops, torch.cat(crops).flip(3)])
    networks = {"squeezenet": squeezenet, "efficientnet": efficientnet}
    labels = efficientnet.logits(efficientnet.preprocess(images)).argmax(1)
    found = done(transfer(networks, images, labels, eps=4 / 255, steps=5))
    assert (
        found.right.tolist() == [8, 8] and (found.count >= 7).all()
    )  # cropped anew, one of them may be seen otherwise
    assert found.rate.diagonal().tolist() == [1, 1] and (found.shaken <= 1).all()
    assert found.misread[0, 1] <= 3 and found.misread[1, 0] <= 3
