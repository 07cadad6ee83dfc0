"""What an attack sees of a network, and that the network doesn't notice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from planes import Bent, bent, done, noise, seen
from torch import Tensor, nn

from phosphene.attacks import bim, carlini_wagner, deepfool, fgsm, mi_fgsm, ni_fgsm, pgd
from phosphene.attacks.victim import Victim
from phosphene.errors import NetworkError
from phosphene.models import load

SHORT: list[tuple[Callable, dict]] = [
    (fgsm, {"eps": 0.1}),
    (bim, {"eps": 0.1, "steps": 3}),
    (pgd, {"eps": 0.1, "steps": 3, "restarts": 2}),
    (mi_fgsm, {"eps": 0.1, "steps": 3}),
    (ni_fgsm, {"eps": 0.1, "steps": 3}),
    (deepfool, {"steps": 3}),
    (carlini_wagner, {"steps": 5, "searches": 2}),
]
each_attack = pytest.mark.parametrize(("attack", "options"), SHORT, ids=[one.__name__ for one, _ in SHORT])


def margin(logits: Tensor, which: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1]


def test_passes_are_counted_for_each_image() -> None:
    victim = Victim(bent(), 3)
    images = noise(3)
    victim.logits(images, torch.arange(3))
    victim.gradient(images[1:], torch.tensor([1, 2]), margin)
    victim.jacobian(images[2:], torch.tensor([2]), lambda logits, which: logits[:, :3])
    assert victim.forwards.tolist() == [1, 2, 3]
    assert victim.backwards.tolist() == [0, 1, 4]


def test_gradients_are_each_images_own() -> None:
    module, images = bent(double=True), noise(70).double()
    which = torch.arange(70)
    score, gradient, logits = Victim(module, 70).gradient(images, which, margin)
    leaf = images.clone().requires_grad_()
    expected = margin(module(leaf), which)
    expected.sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    torch.testing.assert_close(score, expected.detach())
    torch.testing.assert_close(logits, module(images).detach())
    assert module.seen[:2] == [64, 6]  # in chunks


def test_a_jacobian_is_all_gradients() -> None:
    module, images, which = bent(double=True), noise(5).double(), torch.arange(5)
    victim = Victim(module, 5)
    values, slopes, _ = victim.jacobian(images, which, lambda logits, own: logits)
    for k in range(4):
        value, slope, _ = victim.gradient(images, which, lambda logits, own, k=k: logits[:, k])
        torch.testing.assert_close(values[:, k], value)
        torch.testing.assert_close(slopes[:, k], slope)


def test_scores_know_their_image() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    module, images = bent(), noise(2)
    victim = Victim(module, 3)
    one = victim.gradient(images, torch.tensor([2, 0]), lambda logits, which: weights[which] * logits[:, 0])
    two = victim.gradient(images, torch.tensor([0, 0]), lambda logits, which: logits[:, 0])
    torch.testing.assert_close(one[1], two[1] * torch.tensor([3.0, 1.0]).view(2, 1, 1, 1))


def test_a_network_gives_what_its_module_gives() -> None:
    module = bent(3)
    network = load(module, device="cpu", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    images, which = noise(20, 3), torch.arange(20)
    with Victim(network, 20).lent() as one, Victim(module, 20).lent() as other:
        for ours, theirs in zip(one.gradient(images, which, margin), other.gradient(images, which, margin)):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


@each_attack
def test_modes_and_parameters_are_given_back(attack: Callable, options: dict) -> None:
    module, images = bent(), noise(4)
    labels = seen(module, images)
    quiet = done(attack(module, images, labels, **options))
    module.train()
    module.conv.eval()
    module.fc.bias.requires_grad_(False)
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    loud = done(attack(module, images, labels, **options))
    assert torch.equal(quiet.images, loud.images)  # no dropout in it
    assert module.training and module.drop.training and not module.conv.training
    assert not module.fc.bias.requires_grad and module.fc.weight.requires_grad and module.conv.weight.requires_grad
    assert module.fc.weight.grad.eq(1).all() and module.conv.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


class Breaks(Bent):
    def forward(self, x: Tensor) -> Tensor:
        if len(self.seen) > 1:
            raise RuntimeError("a fuse")
        return super().forward(x)


def test_modes_are_given_back_when_it_breaks_and_when_it_is_cancelled() -> None:
    module = Breaks().train()
    images = noise(2)
    labels = seen(bent(), images)
    with pytest.raises(RuntimeError, match="fuse"):
        done(pgd(module, images, labels, eps=0.1))
    assert module.training and module.drop.training and module.fc.weight.requires_grad
    whole = bent().train()
    job = pgd(whole, images, labels, eps=0.0)
    next(job)
    next(job)
    assert not whole.training
    job.close()
    assert whole.training and whole.fc.weight.requires_grad


class Rounds(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x * 255).round() / 255)


class Detaches(Rounds):
    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.detach())


class NumPy(Rounds):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.inner(x)


@each_attack
@pytest.mark.parametrize("kind", [Rounds, Detaches, NumPy])
def test_networks_without_gradients_are_told(kind: type[Rounds], attack: Callable, options: dict) -> None:
    module, images = kind(bent()), noise(3)
    with pytest.raises(NetworkError, match="Square"):
        done(attack(module, images, seen(module, images), **options))


def test_one_image_without_a_gradient_is_no_reason_to_stop() -> None:
    late = nn.Linear(4, 3)
    late.weight.data = torch.rand(3, 4)
    late.bias.data.fill_(-0.5)
    module = nn.Sequential(nn.Flatten(), late, nn.ReLU(), nn.Linear(3, 2))
    dark = torch.zeros(1, 1, 2, 2)
    found = done(pgd(module, dark, seen(module, dark), eps=0.01, random_start=False, steps=3))
    assert not found.success.any() and torch.equal(found.images, dark)


class Odd(nn.Module):
    def __init__(self, give: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.give, self.inner = give, bent()

    def forward(self, x: Tensor) -> object:
        return self.give(self.inner(x))


@pytest.mark.parametrize("give", [lambda z: (z, 0), lambda z: {"logits": z}, lambda z: [z]])
def test_logits_in_a_tuple_or_a_dict(give: Callable[[Tensor], object]) -> None:
    images = noise(3)
    labels = seen(bent(), images)
    found = done(fgsm(Odd(give), images, labels, eps=0.1))
    assert torch.equal(found.images, done(fgsm(bent(), images, labels, eps=0.1)).images)


@each_attack
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype, attack: Callable, options: dict) -> None:
    module, images = bent().to(dtype), noise(3)
    labels = seen(module, images.to(dtype))
    found = done(attack(module, images, labels, **options))
    assert found.images.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    if "eps" in options:
        assert found.linf.max() <= options["eps"] + 1e-6


@each_attack
def test_inside_of_inference_mode(attack: Callable, options: dict) -> None:
    images = noise(3)
    labels = seen(bent(), images)
    module = bent()
    plain = done(attack(module, images, labels, **options))
    network = load(bent(3), device="cpu", input_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    with torch.inference_mode():
        found = done(attack(module, images * 1, labels, **options))
        done(attack(network, noise(2, 3), network.logits(noise(2, 3)).argmax(1), **options))
    assert torch.equal(found.images, plain.images)
