"""What an attack is given, looked at before it begins: each mistake is one line that says what would be right."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from phosphene.attacks.ball import Ball, Norm
from phosphene.attacks.victim import are_probabilities
from phosphene.errors import LabelError, NetworkError, PhospheneError

LEVEL = (1 - 1e-4) / 255
OFF = 1e-6  # float arithmetic may leave [0, 1] by as much


def pictures(images: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The images `[N, C, H, W]`, of a type and on a device.

    Raises:
        PhospheneError: another shape, an empty batch, no floats, NaN, or values outside [0, 1].
    """
    if images.ndim != 4:
        raise PhospheneError(
            f"an attack takes images [N, C, H, W] in [0, 1], got a tensor of shape {list(images.shape)}"
        )
    if images.numel() == 0:
        raise PhospheneError(f"no images to attack: the batch has shape {list(images.shape)}")
    if not images.is_floating_point():
        raise PhospheneError(f"images are floats in [0, 1], got {_name(images)} (divide by 255?)")
    low, high = float(images.min()), float(images.max())
    if math.isnan(low):
        raise PhospheneError("there is NaN in the images: they are floats in [0, 1]")
    if not -OFF <= low <= high <= 1 + OFF:
        hint = "divide by 255?" if low >= 0 else "leave normalising to the network"
        raise PhospheneError(f"images are floats in [0, 1], these go from {low:g} to {high:g} ({hint})")
    return images.detach().to(device, dtype).clamp(0, 1)


def indices(classes: Tensor | Sequence[int], count: int, what: str, device: torch.device) -> Tensor:
    """Labels or targets as `[N]` whole numbers.

    Raises:
        LabelError: other values than whole numbers, or not one for each image.
    """
    found = torch.as_tensor(classes)
    if found.is_floating_point() or found.dtype == torch.bool or found.is_complex():
        raise LabelError(f"{what} are indices of classes, whole numbers; got {_name(found)}")
    if found.ndim != 1:
        raise LabelError(f"{what} have shape [N], one for each image; got {list(found.shape)}")
    if len(found) != count:
        raise LabelError(f"{len(found)} {what} for {count} images: give one for each")
    return found.to(device, torch.long)


def within(classes: Tensor, count: int, what: str) -> None:
    """Raises a LabelError if one of the `classes` `[N]` is none of the network's `count`."""
    out = classes[(classes < 0) | (classes >= count)]
    if len(out):
        raise LabelError(f"the network has classes 0 to {count - 1}, but {int(out[0])} is among the {what}")


def differ(labels: Tensor, targets: Tensor) -> None:
    """Raises a LabelError if a target is the image's own label."""
    same = (labels == targets).nonzero()[:, 0]
    if len(same):
        place = int(same[0])
        raise LabelError(f"image {place} is of class {int(labels[place])} already, its target: choose another one")


def ball(eps: float | Tensor | None, norm: Norm, mask: Tensor | None, images: Tensor) -> Ball:
    """The ball of the batch `images` `[N, C, H, W]`; no `eps`: as wide as it needs to be.

    Raises:
        PhospheneError: a radius that is negative, NaN, in units of [0, 255], or not one for each image; a mask of another
            shape or of other values than 0 and 1; an unknown norm.
    """
    radii = eps if eps is None or isinstance(eps, (int, float)) else torch.as_tensor(eps).detach().to(images)
    found = Ball(norm, math.inf if radii is None else radii)
    if eps is not None:
        _radius(found, images)
    return found if mask is None else Ball(norm, found.eps, _mask(mask, images))


def visible(eps: float, norm: str) -> None:
    """Raises a PhospheneError for a radius below one level of 8 bits, which leaves every such picture as it is."""
    if norm in ("linf", "l2") and not eps >= LEVEL:  # NaN is none either
        raise PhospheneError(f"a picture of 8 bits changes by 1/255 or more, got a radius of {eps:g}: give --eps 1/255")


def _radius(ball: Ball, images: Tensor) -> None:
    radii = torch.as_tensor(ball.eps)
    if radii.ndim > 1 or (radii.ndim == 1 and len(radii) != len(images)):
        raise PhospheneError(f"eps is one number or one for each of the {len(images)} images, got {list(radii.shape)}")
    widest = 1.0 if ball.norm == "linf" else math.sqrt(images[0].numel())
    largest = float(radii.max())
    if largest > widest * (1 + OFF):
        hint = f"did you mean {largest:g}/255?" if largest <= widest * 255 else f"{widest:g} reaches every picture"
        raise PhospheneError(f"eps is in units of [0, 1], got {largest:g}: {hint}")


def _mask(mask: Tensor, images: Tensor) -> Tensor:
    count, channels, *size = images.shape
    fits = mask.ndim == 4 and mask.shape[0] in (1, count) and mask.shape[1] in (1, channels)
    if not fits or list(mask.shape[2:]) != size:
        wanted = f"[{count} or 1, {channels} or 1, {size[0]}, {size[1]}]"
        raise PhospheneError(f"a mask for these images has shape {wanted}, got {list(mask.shape)}")
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise PhospheneError("a mask is 1 where the image may change and 0 elsewhere: there are other values in it")
    return mask.detach().to(images)


def scores(logits: Tensor, probabilities: bool) -> None:
    """Logits `[N, classes]` that an attack can work with.

    Raises:
        NetworkError: they are NaN or infinite, of fewer than two classes, or probabilities where these were not announced.
    """
    if logits.shape[1] < 2:
        raise NetworkError(f"an attack needs a network of two classes or more, this one gives {logits.shape[1]}")
    if not bool(torch.isfinite(logits).all()):
        raise NetworkError("the network gives NaN or infinity for these images: check its weights")
    if not probabilities and are_probabilities(logits):
        raise NetworkError(
            "this network gives probabilities, not logits (its rows sum to 1), whose gradients vanish where it is sure: take"
            " off its softmax, or pass probabilities=True to attack their logarithms"
        )


def count(value: int, what: str) -> None:
    """Raises a PhospheneError unless `value` is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise PhospheneError(f"{what} start at 1, got {value}")


def positive(value: float | Tensor, what: str) -> None:
    """Raises a PhospheneError unless `value` is a finite number (or several) above 0."""
    numbers = torch.as_tensor(value)
    if not bool((torch.isfinite(numbers) & (numbers > 0)).all()):
        raise PhospheneError(f"{what} is a number above 0, got {value}")


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
