"""Log-probabilities as targets: their gradients, maps and scores against the log-softmax of the module's own logits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import CHEAP, CLASSES, SIZE, Small, every_cam, every_rule, explained, network, parts, pictures, small

from phosphene.errors import LabelError, RuleError
from phosphene.explain import METHODS, LogProbability, grad_cam, gradient, occlusion, rise, saliency
from phosphene.explain.metrics.probability import one_class
from phosphene.models import Network, Unit

without_rule = pytest.mark.parametrize("method", [name for name, known in METHODS.items() if not known.needs_rule])


def log_probabilities(net: Network, images: Tensor) -> Tensor:
    """`[N, classes]` by the module itself: S_c - log sum exp S."""
    logits = net.module.eval()(net.normalise(images))
    return logits - logits.exp().sum(1, keepdim=True).log()


def by_autograd(net: Network, images: Tensor, classes: list[int]) -> Tensor:
    """Image by image, `[N, 3, H, W]`."""
    found = []
    for image, label in zip(images, classes, strict=True):
        leaf = image[None].clone().requires_grad_()
        found.append(torch.autograd.grad(log_probabilities(net, leaf)[0, label], leaf)[0])
    return torch.cat(found)


def test_its_gradient_is_that_of_a_log_softmax() -> None:
    net, images, classes = small(), pictures(11), [k % CLASSES for k in range(11)]  # more than one piece
    found = gradient(net, images, LogProbability(classes))
    assert found.gradient is not None
    assert torch.allclose(found.gradient, by_autograd(net, images, classes), atol=1e-12)
    wanted = log_probabilities(net, images)[range(11), classes]
    assert torch.allclose(found.scores, wanted, atol=1e-12) and bool((found.scores < 0).all())
    assert not torch.allclose(found.gradient, gradient(net, images, classes).gradient, atol=1e-3)  # type: ignore[arg-type]


def test_it_is_the_gradient_of_the_score_less_the_mean_gradient_weighted_by_probabilities() -> None:
    net, images = small(), pictures(2)
    every = torch.arange(CLASSES).expand(2, -1)
    scores, logs = (gradient(net, images, target).gradient for target in (every, LogProbability(every)))
    assert scores is not None and logs is not None
    p = log_probabilities(net, images).exp()[:, :, None, None, None].detach()
    assert torch.allclose(logs, scores - (p * scores).sum(1, keepdim=True), atol=1e-12)
    assert (p * logs).sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("classes", [2, [2], [2, 2, 2], torch.tensor([2, 2, 2])])
def test_classes_are_given_as_for_scores(classes: int | list[int] | Tensor) -> None:
    net, images = small(), pictures(3)
    found = saliency(net, images, LogProbability(classes))
    assert found.maps.shape == (3, SIZE, SIZE) and found.scores.shape == (3,)
    assert torch.allclose(found.maps, by_autograd(net, images, [2, 2, 2]).abs().amax(1), atol=1e-12)


@without_rule
def test_several_classes_per_image_are_each_class_alone(method: str) -> None:
    net, images, classes = small(), pictures(2), [[0, 3, 1], [2, 2, 0]]
    together = parts(explained(method, net, images, LogProbability(classes)))
    assert together["maps"].shape == (2, 3, SIZE, SIZE) and together["scores"].shape == (2, 3)
    for column in range(3):
        alone = parts(explained(method, net, images, LogProbability([row[column] for row in classes])))
        for name in ("maps", "scores"):
            assert torch.allclose(together[name][:, column], alone[name], atol=1e-9), name


@without_rule
def test_what_raises_all_scores_alike_cancels(method: str) -> None:
    class Raised(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 9 * x[:, :, :8].pow(2).mean((1, 2, 3))[:, None]

    plain, raised, images = small(), network(Raised()), pictures(2)
    raised.module.load_state_dict(plain.module.state_dict())
    options = {"layer": "relu"} if METHODS[method].takes_layer else {}
    one, other = (parts(explained(method, net, images, LogProbability([3, 1]), **options)) for net in (plain, raised))
    for name in ("maps", "scores"):
        assert torch.allclose(one[name], other[name], atol=1e-9), name
    shifted = explained(method, raised, images, [3, 1], **options).scores
    assert torch.allclose(shifted, explained(method, plain, images, [3, 1], **options).scores) == (method == "rise")


def test_grad_cam_is_its_formula_with_the_gradients_of_a_log_softmax() -> None:
    net, images, classes = small(), pictures(2), [1, 3]
    module = net.module.eval()
    kept: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output)
        return output.clone()  # which the ReLU may work on in place

    handle = module.get_submodule("bn").register_forward_hook(keep)
    total = log_probabilities(net, images)[range(2), classes].sum()
    handle.remove()
    weights = torch.autograd.grad(total, kept[0])[0].mean((2, 3), keepdim=True)
    cam = (weights * kept[0]).sum(1).clamp(min=0)
    found = grad_cam(net, images, LogProbability(classes), layer="bn")
    assert found.layer_maps is not None and torch.allclose(found.layer_maps, cam, atol=1e-12)
    grown = F.interpolate(cam[:, None], (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0]
    assert torch.allclose(found.maps, grown, atol=1e-12) and bool(found.maps.any())


@every_cam
def test_cams_have_the_shapes_that_they_have_for_scores(method: str) -> None:
    if METHODS[method].needs_rule:
        return
    net, images = small(), pictures(2)
    for classes in (1, [[1, 2], [3, 0]]):
        for layer in (None, "conv"):
            wanted = parts(explained(method, net, images, classes, layer=layer))
            found = parts(explained(method, net, images, LogProbability(classes), layer=layer))
            assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in wanted.items()}
            assert all(bool(torch.isfinite(value).all()) for value in found.values())


def test_occlusion_is_the_mean_fall_of_the_log_probability() -> None:
    net, image, options = small(), pictures(1), CHEAP["occlusion"]
    found = occlusion(net, image, LogProbability(2), **options, fill="black")
    whole = log_probabilities(net, image)[0, 2].item()
    total, times = torch.zeros(SIZE, SIZE).double(), torch.zeros(SIZE, SIZE)
    for top in (0, 7, 14):  # windows of 9 x 8, every 7 down and 8 across; the last are cut
        for left in (0, 8, 16):
            covered, window = image.clone(), (slice(top, top + 9), slice(left, left + 8))
            covered[0, :, window[0], window[1]] = 0
            total[window] += whole - log_probabilities(net, covered)[0, 2].item()
            times[window] += 1
    assert torch.allclose(found.maps[0], total / times, atol=1e-12)
    assert float(found.scores) == pytest.approx(whole)


def test_rise_weighs_by_probabilities_anyway() -> None:
    net, images = small(), pictures(2)
    wanted, found = (rise(net, images, target, masks=11, cells=3) for target in ([3, 0], LogProbability([3, 0])))
    assert torch.equal(found.maps, wanted.maps) and torch.equal(found.scores, wanted.scores)
    assert torch.allclose(found.scores, log_probabilities(net, images)[[0, 1], [3, 0]].exp(), atol=1e-12)


@every_rule
def test_a_backward_rule_says_that_it_has_none_for_a_softmax_before_and_after_it_ran_for_scores(method: str) -> None:
    net, images = small(), pictures(2)
    for _ in range(2):
        with pytest.raises(
            RuleError, match=r"no rule for LogSoftmax \(small\).* for this network there are .*gradient"
        ):
            explained(method, net, images, LogProbability([1, 2]))
        assert explained(method, net, images, [1, 2]).maps.any()  # which then is not what the first call left behind


@pytest.mark.parametrize("logit", [80.0, 1000.0])
def test_a_class_that_is_all_but_certain_or_impossible_has_finite_gradients(logit: float) -> None:
    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = logit * x.mean((1, 2, 3))
            return torch.stack([value, -value, 0 * value, 0 * value], 1)

    net = network(Sure(), name="sure").float()
    found = gradient(net, torch.full((1, 3, SIZE, SIZE), 0.9), LogProbability([[0, 1]]))
    assert found.gradient is not None and bool(torch.isfinite(found.gradient).all())
    value = logit * float(net.normalise(torch.full((1, 3, SIZE, SIZE), 0.9)).mean())
    assert found.scores[0].tolist() == pytest.approx([0, -2 * value], abs=1e-3, rel=1e-5)


def test_classes_that_there_are_not_and_units_are_error_lines() -> None:
    net, images = small(), pictures(2)
    for target, message in (
        (LogProbability(CLASSES), "classes go from 0 to 3"),
        (LogProbability([0, 1, 2]), "3 classes"),
    ):
        with pytest.raises(LabelError, match=message):
            gradient(net, images, target)
    with pytest.raises(LabelError, match="classes are"):
        gradient(net, images, LogProbability(Unit("conv", 1)))  # type: ignore[arg-type]


def test_it_may_be_judged_as_one_class_per_image() -> None:
    net, images = small(), pictures(3)
    assert one_class(net, images, LogProbability([2, 0, 1])).tolist() == [2, 0, 1]
    with pytest.raises(LabelError, match="judged for one class of each image"):
        one_class(net, images, LogProbability([[2], [0], [1]]))


def test_on_a_photograph_it_finds_the_cat_that_the_score_of_squeezenet_finds(
    squeezenet: Network, photos: Tensor
) -> None:
    label = squeezenet.predict(photos[:1], 1)[0].indices[0]
    found = gradient(squeezenet, photos[:1], LogProbability(label))
    wanted = by_autograd(squeezenet, photos[:1], [label])
    assert found.gradient is not None
    assert (found.gradient - wanted).norm() < 1e-3 * wanted.norm()
    assert float(found.scores.exp()) == pytest.approx(squeezenet.predict(photos[:1], 1)[0].probabilities[0], rel=1e-4)
