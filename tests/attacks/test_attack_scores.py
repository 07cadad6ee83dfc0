"""What attacks climb, against the formulas written out for one image."""

from __future__ import annotations

import pytest
import torch

from phosphene.attacks import scores


def logits(count: int = 20, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(count, classes, generator=generator, dtype=torch.double) * 3
    return rows, torch.randint(classes, (count,), generator=generator)


def test_dlr() -> None:
    rows, labels = logits()
    for row, label, found in zip(rows.tolist(), labels.tolist(), scores.dlr(rows, labels).tolist()):
        first, _, third, *_ = sorted(row, reverse=True)
        other = max(value for k, value in enumerate(row) if k != label)
        assert found == pytest.approx(-(row[label] - other) / (first - third))


def test_targeted_dlr() -> None:
    rows, labels = logits()
    targets = (labels + 2) % 6
    for row, label, target, found in zip(
        rows.tolist(), labels.tolist(), targets.tolist(), scores.dlr_targeted(rows, labels, targets).tolist()
    ):
        first, _, third, fourth, *_ = sorted(row, reverse=True)
        assert found == pytest.approx(-(row[label] - row[target]) / (first - (third + fourth) / 2))


def test_dlr_knows_neither_shift_nor_scale() -> None:
    rows, labels = logits()
    torch.testing.assert_close(scores.dlr(7 * rows + 3, labels), scores.dlr(rows, labels))


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes(classes: int) -> None:
    rows, labels = logits(classes=classes)
    targets = (labels + 1) % classes
    torch.testing.assert_close(scores.dlr_targeted(rows, labels, targets), scores.difference(rows, labels, targets))
    expected = scores.margin(rows, labels)
    if classes == 3:
        expected = expected / (rows.amax(1) - rows.amin(1))
    torch.testing.assert_close(scores.dlr(rows, labels), expected)
    assert scores.likeliest(rows, labels, 9).shape == (20, classes - 1)


def test_equal_logits_are_no_trouble() -> None:
    leaf = torch.zeros(2, 5, requires_grad=True)
    scores.dlr(leaf, torch.tensor([0, 1])).sum().backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all()


def test_cross_entropy() -> None:
    rows, labels = logits()
    expected = torch.nn.functional.cross_entropy(rows, labels, reduction="none")
    torch.testing.assert_close(scores.cross_entropy(rows, labels), expected)


def test_cross_entropy_has_a_gradient_where_the_network_is_sure() -> None:
    leaf = torch.tensor([[60.0, 0.0, -5.0]], requires_grad=True)
    value = scores.cross_entropy(leaf, torch.tensor([0]))
    value.sum().backward()
    assert value > 0 and leaf.grad is not None and leaf.grad[0, 0] < 0 < leaf.grad[0, 1]


def test_margin_and_likeliest() -> None:
    rows = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]])
    labels = torch.tensor([0, 2])
    assert scores.margin(rows, labels).tolist() == [-1.0, 4.0]
    assert scores.likeliest(rows, labels, 9).tolist() == [[2, 1], [1, 0]]
    assert scores.likeliest(rows, labels, 1).tolist() == [[2], [1]]
