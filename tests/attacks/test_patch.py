"""Adversarial patches: what pasting does, what of it a gradient sees, and pictures that the patch has never been in."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from planes import bent, done, noise, seen
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene import images as pictures
from phosphene.attacks import Patched, patch
from phosphene.attacks.dice import Dice
from phosphene.attacks.patch import Placing
from phosphene.errors import LabelError, PhospheneError
from phosphene.images.samples import sample_file
from phosphene.models import Network
from phosphene.progress import Started, Step, run


def patched(placing: Placing, size: int = 21, channels: int = 3) -> Patched:
    """A patch of noise that no network has seen."""
    drawn = torch.rand(channels, size, size, generator=torch.Generator().manual_seed(4))
    module, images = bent(channels), noise(2, channels)
    result = done(patch(module, images, seen(module, images), steps=1)).result
    return Patched(drawn, placing.mask(size), result, placing)


def changed(found: Patched, images: Tensor, seed: int = 0) -> Tensor:
    """`[N, H, W]`, which pixels the pasting changes."""
    return (found.paste(images, seed) != images).any(1)


@pytest.mark.parametrize("shape", ["square", "circle"])
def test_neither_turned_nor_scaled_it_is_copied_as_it_is(shape: str) -> None:
    placing = Placing(0.3, shape=shape)  # type: ignore[arg-type]
    found = patched(placing)
    images = torch.rand(5, 3, 70, 90)
    pasted = found.paste(images, seed=3)
    inside = found.mask.bool().expand_as(found.patch)
    corners = set()
    for n in range(5):
        rows, columns = changed(found, images, 3)[n].nonzero(as_tuple=True)
        top, left = int(rows.min()), int(columns.min())
        corners.add((top, left))
        window = pasted[n, :, top : top + 21, left : left + 21]
        torch.testing.assert_close(window[inside], found.patch[inside], atol=1e-4, rtol=0)
        assert torch.equal(window[~inside], images[n, :, top : top + 21, left : left + 21][~inside])
        assert changed(found, images, 3)[n].sum() == found.mask.sum()
    assert len(corners) == 5


def test_a_quarter_turn_and_twice_the_size() -> None:
    images = torch.zeros(8, 1, 40, 40)
    images += torch.arange(8).view(-1, 1, 1, 1) / 1000  # each image draws its own
    found = patched(Placing(0.5, scale=(2, 2), place=(0.5, 0.5), shape="square"), 20, 1)
    grown = F.interpolate(found.patch[None], (40, 40), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found.paste(images), grown.expand(8, -1, -1, -1), atol=1e-4, rtol=0)
    turned = replace(found, placing=Placing(0.5, rotate=90, place=(0.5, 0.5), shape="square"))
    grid = turned.placing.grid(Dice(0, images), torch.arange(8), "paste", images)
    step = grid[:, 20, 20] - grid[:, 20, 19]  # one pixel to the right, in the patch
    angles = torch.atan2(step[:, 1], step[:, 0]).rad2deg()
    assert angles.abs().max() <= 90 and angles.min() < -10 and angles.max() > 10
    torch.testing.assert_close(step.norm(dim=1), torch.full((8,), 0.1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", ["square", "circle"])
@pytest.mark.parametrize("size", [(48, 48), (40, 64)])
def test_it_lies_anywhere_but_inside(shape: str, size: tuple[int, int]) -> None:
    placing = Placing(0.3, rotate=45, scale=(0.8, 1.2), shape=shape)  # type: ignore[arg-type]
    found, images = patched(placing, 13), torch.rand(60, 3, *size)
    where = changed(found, images)
    side = placing.pixels(size)
    share = math.pi / 4 if shape == "circle" else 1.0
    areas = where.sum((1, 2)) / (share * side**2)
    assert 0.55 < areas.min() < 0.75 and 1.3 < areas.max() < 1.55  # 0.8^2 to 1.2^2: none is cut off
    rows, columns = where.any(0).any(1).nonzero()[:, 0], where.any(0).any(0).nonzero()[:, 0]
    assert rows[0] < 3 and rows[-1] > size[0] - 4 and columns[0] < 3 and columns[-1] > size[1] - 4
    assert where.any(0).float().mean() > 0.7  # all but the corners
    assert not torch.equal(where, changed(found, images, seed=1))
    assert torch.equal(where, changed(found, images))
    assert torch.equal(where[7], changed(found, images[7:8])[0])  # whatever else is in the batch
    fixed = changed(replace(found, placing=replace(placing, place=(0.5, 0.25))), images).float().mean(0)
    rows, columns = fixed.sum(1), fixed.sum(0)
    assert abs(float((rows * torch.arange(size[0])).sum() / rows.sum()) + 0.5 - 0.5 * size[0]) < 0.6
    assert abs(float((columns * torch.arange(size[1])).sum() / columns.sum()) + 0.5 - 0.25 * size[1]) < 0.6


def test_no_corner_of_a_turned_square_is_cut_off() -> None:
    found = patched(Placing(0.5, rotate=45, shape="square"))
    areas = changed(found, torch.rand(80, 3, 96, 96)).sum((1, 2)) / 48**2
    assert areas.min() > 0.985 and areas.max() < 1.015


@pytest.mark.parametrize("target", [None, 2])
def test_the_gradient_is_that_of_the_whole(target: int | None) -> None:
    # Adam's first step is rate * sign(gradient), whatever its size.
    module, images = bent(3, double=True), noise(9, 3, 16).double()
    kept = seen(module, images) != (-1 if target is None else target)
    images, labels = images[kept], seen(module, images)[kept]
    placing = Placing(0.5, 30, (0.8, 1.2))
    found = done(patch(module, images, labels, side=0.5, rotate=30, target=target, steps=1, rate=0.01, together=99))
    grid = placing.grid(Dice(0, images), torch.arange(len(images)), "step 0", images)
    leaf = torch.full((3, 8, 8), 0.5, dtype=torch.float64, requires_grad=True)
    laid = F.grid_sample(leaf.expand(len(images), -1, -1, -1), grid, padding_mode="border", align_corners=False)
    inside = grid.square().sum(-1)[:, None] <= 1
    logits = module(torch.where(inside, laid, images))
    aims = labels if target is None else torch.full_like(labels, target)
    loss = F.cross_entropy(logits, aims)
    (slope,) = torch.autograd.grad(loss if target is None else -loss, leaf)
    assert found.patch.dtype == torch.float64 and (slope != 0).any()
    clear = slope.abs() > 1e-5
    torch.testing.assert_close((found.patch - 0.5)[clear], 0.01 * slope.sign()[clear], atol=1e-4, rtol=0)
    assert (found.patch[slope == 0] == 0.5).all()


def test_the_result_is_what_pasting_gives() -> None:
    module, images = bent(3), noise(12, 3)
    labels = seen(module, images)
    labels[::3] = (labels[::3] + 1) % 4
    module.seen.clear()
    events: list[object] = []
    found = run(patch(module, images, labels, side=0.6, steps=6, together=3, seed=5, rate=0.2), events.append)
    result = found.result
    pasted = found.paste(images, seed=5)
    assert torch.equal(result.images, torch.where(result.wrong.view(-1, 1, 1, 1), images, pasted))
    assert result.wrong.tolist() == [True, False, False] * 4
    assert torch.equal(result.success, (seen(module, pasted) != labels) & ~result.wrong) and result.success.any()
    assert torch.equal(found.on(module, images, labels, seed=5).success, result.success)
    module.seen = module.seen[:-2]  # the two looks of this test
    assert found.patch.shape == (3, 5, 5) and found.mask.shape == (1, 5, 5)
    assert found.patch.min() >= 0 and found.patch.max() <= 1
    assert result.forwards[result.wrong].tolist() == [2] * 4  # first look, last look
    assert int(result.backwards.sum()) == 3 + 3 + 2 + 3 + 3 + 2 and result.backwards[~result.wrong].tolist() == [2] * 8
    assert result.forwards.tolist() == (2 + result.backwards).tolist()
    assert events[0] == Started("patch", 6)
    assert [event.done for event in events if isinstance(event, Step)] == list(range(1, 7))


def test_same_seed_same_bytes() -> None:
    module, images = bent(), noise(10)
    labels = seen(module, images)
    order = torch.randperm(10)
    one = done(patch(module, images, labels, side=0.5, steps=5, together=4))
    torch.manual_seed(9)
    again = done(patch(module, images[order], labels[order], side=0.5, steps=5, together=4))
    other = done(patch(module, images, labels, side=0.5, steps=5, together=4, seed=1))
    assert torch.equal(one.patch, again.patch) and torch.equal(one.result.images[order], again.result.images)
    assert not torch.equal(one.patch, other.patch)


def test_probabilities_are_attacked_by_their_logarithms() -> None:
    module, images = bent(double=True), noise(6).double()
    labels = seen(module, images)
    plain = done(patch(module, images, labels, side=0.5, steps=5))
    soft = done(patch(nn.Sequential(module, nn.Softmax(1)), images, labels, side=0.5, steps=5, probabilities=True))
    torch.testing.assert_close(soft.patch, plain.patch, atol=1e-6, rtol=0)
    assert plain.patch.std() > 0.01


def test_the_network_is_left_as_it_was() -> None:
    module, images = bent(), noise(6)
    labels = seen(module, images)
    module.train()
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    before = copy.deepcopy(module.state_dict())
    job = patch(module, images, labels)
    next(job)
    next(job)
    job.close()
    with torch.inference_mode():
        done(patch(module, images, labels, steps=2))
    assert module.training and module.drop.training and all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert module.conv.weight.grad is None and (module.fc.weight.grad == 1).all()


def test_what_can_not_be_used_is_one_clear_line() -> None:
    module, images = bent(), noise(4)
    labels = seen(module, images)
    bad: list[tuple[type[Exception], str, dict]] = [
        (PhospheneError, "side is a share", {"side": 0}),
        (PhospheneError, "side is a share", {"side": 0.9}),
        (PhospheneError, "side is a share", {"side": math.nan}),
        (PhospheneError, "turns by 0 to 180", {"rotate": -5}),
        (PhospheneError, "scale is two factors", {"scale": (1.2, 0.8)}),
        (PhospheneError, r"place is \(down, right\)", {"place": (0.5, 60)}),
        (PhospheneError, "unknown shape", {"shape": "star"}),
        (PhospheneError, "steps start at 1", {"steps": 0}),
        (PhospheneError, "images together start at 1", {"together": True}),
        (PhospheneError, "a rate is a number above 0", {"rate": 0}),
        (PhospheneError, "wrong about all 4 images", {"labels": (labels + 1) % 4}),
        (LabelError, "the class to reach is one whole number", {"target": 1.5}),
        (LabelError, "already, its target", {"target": int(labels[0])}),
    ]
    for kind, message, options in bad:
        given = {"images": images, "labels": labels, **options}
        with pytest.raises(kind, match=message) as raised:
            done(patch(module, given.pop("images"), given.pop("labels"), **given))
        assert "\n" not in str(raised.value)
    with pytest.raises(PhospheneError, match="this patch has 1 channels, the images 3"):
        done(patch(module, images, labels, steps=1)).paste(torch.rand(2, 3, 8, 8))


def crops(count: int, seed: int) -> Tensor:
    """Random crops `[4 * count, 3, 160, 160]` of four photographs."""
    draw, found = torch.Generator().manual_seed(seed), []
    for name in ("chelsea", "coffee", "astronaut", "rocket"):
        photo = pictures.read(sample_file(name))
        for _ in range(count):
            side = int(min(photo.shape[-2:]) * (0.7 + 0.3 * torch.rand((), generator=draw)))
            top, left = (int(torch.randint(0, n - side + 1, (), generator=draw)) for n in photo.shape[-2:])
            found.append(pictures.resize(photo[..., top : top + side, left : left + side], (160, 160)))
    return torch.cat(found).clamp(0, 1)


TOASTER = 859


def test_photographs_that_it_has_never_been_in_become_toasters(squeezenet: Network) -> None:
    photos, others = crops(4, 0), crops(4, 1)
    labels = squeezenet.logits(photos).argmax(1)
    before = copy.deepcopy(squeezenet.module.state_dict())
    found = done(patch(squeezenet, photos, labels, side=0.45, target=TOASTER, steps=80, rate=0.1, together=8))
    control = replace(found, patch=torch.rand_like(found.patch))

    def chance(one: Patched) -> float:
        return float(squeezenet.logits(one.paste(others, seed=9)).softmax(1)[:, TOASTER].mean())

    assert chance(found) > 0.4 and chance(control) < 0.01
    assert found.result.success.float().mean() > 0.5
    assert found.patch[:, found.mask[0] == 1].std() > 0.2  # no grey mush
    outside = ~changed(found, others, 9)
    assert torch.equal(found.paste(others, 9).permute(0, 2, 3, 1)[outside], others.permute(0, 2, 3, 1)[outside])
    assert 0.75 < outside.float().mean() < 0.92
    assert all(torch.equal(before[name], value) for name, value in squeezenet.module.state_dict().items())
    assert all(p.grad is None for p in squeezenet.parameters())
