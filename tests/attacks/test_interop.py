"""A `Network` in other libraries of attacks as it is, any module in ours, and the same findings from both.

They come without what they require (see the Makefile), so that what is only imported, and never called here, may be missing.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import pytest
import torch
from planes import done, seen
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.attacks import bim, deepfool, fgsm, pgd, standard
from phosphene.models import Network, load

STEPS = 10
EPS = 0.25 / 255  # about half of the images are fooled
WIDE = 2 / 255  # all are


def peer(name: str, without: tuple[str, ...] = ()) -> Any:
    """The module of that name, where `without` may be missing; the test is skipped if it isn't there."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were written for older libraries
        patch.setenv("GIT_PYTHON_REFRESH", "quiet")  # foolbox imports git, to fetch models
        for missing in without:
            if missing not in sys.modules and find_spec(missing) is None:
                patch.setitem(sys.modules, missing, ModuleType(missing))
        try:
            return importlib.import_module(name)
        except ImportError as problem:
            return pytest.skip(f"{name} is a peer that is not installed ({problem}): make test fetches it where it can")


@pytest.fixture(scope="module")
def torchattacks() -> Any:
    return peer("torchattacks")


@pytest.fixture(scope="module")
def foolbox() -> Any:
    return peer("foolbox")


@pytest.fixture(scope="module")
def robustbench() -> Any:
    """Its module `eval`. AutoAttack is in the package index under another name, and with other arguments."""
    auto = peer("pyautoattack")

    class AutoAttack(auto.AutoAttack):
        def __init__(self, *args: Any, log_path: str | None = None, **options: Any) -> None:
            super().__init__(*args, seed=0, **options)

        def run_standard_evaluation(self, images: Tensor, labels: Tensor, bs: int, state_path: None) -> Tensor:
            return super().run_standard_evaluation(images, labels, batch_size=bs)[0]

    package, state = ModuleType("autoattack"), ModuleType("autoattack.state")
    vars(package).update(AutoAttack=AutoAttack)
    vars(state).update(EvaluationState=importlib.import_module("pyautoattack.state").EvaluationState)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "autoattack", package)
        patch.setitem(sys.modules, "autoattack.state", state)
        found = peer("robustbench.eval", without=("gdown", "pandas", "pkg_resources"))
    return (
        found if hasattr(found, "benchmark") else pytest.skip("this robustbench is only the part inside torchattacks")
    )


def state(network: nn.Module) -> dict[str, Any]:
    """All that an attack might leave behind, but for gradients of parameters."""
    found: dict[str, Any] = {f"value {key}": value.clone() for key, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        found[f"parameter {name}"] = (parameter.requires_grad, parameter.data_ptr(), parameter.stride())
    for name, module in network.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        found[f"module {name}"] = (module.training, hooks, sorted(vars(module)))
    return found


@pytest.fixture
def network() -> Iterator[Network]:
    """The bundled SqueezeNet, which must be the same afterwards: also to those that read the prepared copy."""
    network = load("squeezenet1_1", device="cpu")
    before = state(network)
    yield network
    after = state(network)
    assert before.keys() == after.keys()
    for key, value in before.items():
        same = torch.equal(value, after[key]) if isinstance(value, Tensor) else value == after[key]
        assert same, f"{key} has changed"


@pytest.fixture(scope="module")
def images(photos: Tensor) -> Tensor:
    """`[6, 3, 128, 128]`, whole and in part."""
    small = F.interpolate(photos, (128, 128), mode="bilinear", antialias=True).clamp(0, 1)
    return torch.cat([small, photos[..., 40:168, 40:168], photos[..., 60:188, 20:148].flip(-1)])


@pytest.fixture(scope="module")
def labels(squeezenet: Network, images: Tensor) -> Tensor:
    return squeezenet.logits(images).argmax(1)


class Plain(nn.Module):
    """The same function as a module that nobody knows."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.inner = network.module
        self.mean, self.std = network.mean, network.std

    def forward(self, x: Tensor) -> Tensor:
        return self.inner((x - self.mean) / self.std)


def all_alike(*robust: Tensor) -> bool:
    """Whether all say the same of each image, and not the same of all images."""
    return all(torch.equal(robust[0], other) for other in robust) and bool(robust[0].any() and not robust[0].all())


def test_torchattacks_takes_a_network(torchattacks: Any, network: Network, images: Tensor, labels: Tensor) -> None:
    theirs = {
        "fgsm": torchattacks.FGSM(network, eps=EPS),
        "bim": torchattacks.PGD(network, eps=EPS, alpha=EPS / 4, steps=STEPS, random_start=False),
        "pgd": torchattacks.PGD(network, eps=EPS, alpha=EPS / 4, steps=STEPS),
    }
    ours = {
        "fgsm": fgsm(network, images, labels, eps=EPS),
        "bim": bim(network, images, labels, eps=EPS, steps=STEPS),
        "pgd": pgd(network, images, labels, eps=EPS, steps=STEPS),
    }
    for name, attack in theirs.items():
        changed = attack(images, labels)
        assert ((changed - images).abs() <= EPS + 1e-6).all()
        robust = [seen(network, changed) == labels, network.logits(changed).argmax(1) == labels]
        assert all_alike(done(ours[name]).robust, *robust), name
    assert all(parameter.grad is None for parameter in network.parameters())


def test_torchattacks_finds_as_much_in_l2(torchattacks: Any, network: Network, images: Tensor, labels: Tensor) -> None:
    eps = 0.1
    attack = torchattacks.PGDL2(network, eps=eps, alpha=eps / 4, steps=STEPS, random_start=False)
    found = done(bim(network, images, labels, eps=eps, norm="l2", steps=STEPS))
    assert all_alike(found.robust, seen(network, attack(images, labels)) == labels)


def test_foolbox_takes_a_network(foolbox: Any, network: Network, images: Tensor, labels: Tensor) -> None:
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    assert foolbox.accuracy(model, images, labels) == 1
    steps = {"rel_stepsize": 1 / 4, "steps": STEPS, "random_start": False}
    _, changed, fooled = foolbox.attacks.LinfPGD(**steps)(model, images, labels, epsilons=EPS)
    found = done(bim(network, images, labels, eps=EPS, steps=STEPS))
    assert all_alike(found.robust, ~fooled, network.logits(changed).argmax(1) == labels)
    _, _, fooled = foolbox.attacks.FGSM(random_start=False)(model, images, labels, epsilons=EPS)
    assert all_alike(done(fgsm(network, images, labels, eps=EPS)).robust, ~fooled)


def test_foolbox_finds_the_same_smallest_change(foolbox: Any, network: Network, images: Tensor, labels: Tensor) -> None:
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    _, changed, fooled = foolbox.attacks.L2DeepFoolAttack(candidates=4)(model, images, labels, epsilons=None)
    theirs = (changed - images).flatten(1).norm(dim=1)
    found = done(deepfool(network, images, labels, candidates=3))  # foolbox counts the label
    assert fooled.all() and found.success.all()
    assert (found.l2 <= theirs * 1.01).all() and found.l2.median() > theirs.median() * 0.95


def test_robustbench_takes_a_network(
    robustbench: Any, network: Network, images: Tensor, labels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, wrong = images[:3], labels[:3].clone()
    wrong[1] += 1
    assert robustbench.clean_accuracy(network, few, wrong, batch_size=2) == pytest.approx(2 / 3)
    monkeypatch.setattr(robustbench, "load_clean_dataset", lambda *_: (few, wrong))
    options = {"dataset": "imagenet", "threat_model": "Linf", "preprocessing": nn.Identity(), "batch_size": 3}
    clean, robust = robustbench.benchmark(network, 3, eps=WIDE, **options)
    found = done(standard(network, few, wrong, eps=WIDE))
    assert clean == pytest.approx(2 / 3) and found.clean == pytest.approx(2 / 3)
    assert robust == 0 and found.result.accuracy == 0


def test_robustbench_counts_our_images_as_we_do(
    robustbench: Any, network: Network, images: Tensor, labels: Tensor
) -> None:
    found = done(pgd(network, images, labels, eps=EPS, steps=STEPS))
    assert robustbench.clean_accuracy(network, found.images, labels) == pytest.approx(found.accuracy)
    assert 0 < found.accuracy < 1


@pytest.mark.parametrize("attack", [fgsm, bim, pgd, deepfool])
def test_ours_take_any_module(attack: Any, network: Network, images: Tensor, labels: Tensor) -> None:
    own = {} if attack is deepfool else {"eps": EPS}
    known = done(attack(network, images, labels, **own))
    module = Plain(network)
    found = done(attack(module, images, labels, **own))
    assert torch.equal(found.robust, known.robust)
    assert torch.equal(seen(module, found.images) == labels, found.robust)
    if attack is deepfool:
        assert torch.allclose(found.l2, known.l2, rtol=1e-2)
    assert all(parameter.grad is None for parameter in network.parameters())
