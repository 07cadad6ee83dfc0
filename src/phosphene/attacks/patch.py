"""An adversarial patch: a small picture that, pasted anywhere, makes the network see one class.

    max_P  mean over images x, places, turns and sizes t of  log p( target | paste(P, x, t) ),     0 <= P <= 1

(expectation over transformation); without a target, of `min( -log p(label), 9 )`. What is in the picture stays in it: the
patch has no need to be small, only to be the strongest thing there.

Brown, Mané, Roy, Abadi & Gilmer, "Adversarial patch", arXiv:1712.09665, 2017. Their steps are plain gradient ascent; here
they are Adam's, which need no tuning to the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from phosphene.attacks import checks
from phosphene.attacks.dice import Dice
from phosphene.attacks.many import batches, clipped, everyones, right
from phosphene.attacks.result import Result
from phosphene.attacks.trial import Trial, attacked
from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started, Step

Shape: TypeAlias = Literal["circle", "square"]


@dataclass(frozen=True)
class Placing:
    """How a patch lies in a picture.

    Attributes:
        side: how wide it is, as a share of the picture's shorter side.
        rotate: turned by so many degrees at most, either way.
        scale: made larger by a factor between these two.
        place: where its middle is, `(down, right)` as shares of the picture; None: anywhere, wholly inside.
        shape: `circle` or `square`.

    Raises:
        PhospheneError: a patch of no size or larger than the picture, or that can't be turned, sized or placed so.
    """

    side: float
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    place: tuple[float, float] | None = None
    shape: Shape = "circle"

    def __post_init__(self) -> None:
        if self.shape not in ("circle", "square"):
            raise PhospheneError(f"unknown shape '{self.shape}': choose circle or square")
        if not 0 <= self.rotate <= 180:
            raise PhospheneError(f"a patch turns by 0 to 180 degrees either way, got {self.rotate:g}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1] < math.inf:
            raise PhospheneError(f"scale is two factors above 0, the smaller one first; got {self.scale}")
        if not 0 < self.side * self.scale[1] <= 1:
            widest = f"{self.side:g} x {self.scale[1]:g}"
            raise PhospheneError(f"side is a share of the picture, above 0 and at most 1 when scaled up; got {widest}")
        if self.place is not None and (len(self.place) != 2 or not all(0 <= one <= 1 for one in self.place)):
            raise PhospheneError(f"place is (down, right), each between 0 and 1; got {self.place}")

    def pixels(self, size: Sequence[int]) -> int:
        """How many pixels wide the patch is in a picture of `size` (height, width)."""
        return max(1, round(self.side * min(size)))

    def mask(self, pixels: int) -> Tensor:
        """`[1, s, s]`, 1 where the patch is."""
        middle = (torch.arange(pixels) + 0.5) * 2 / pixels - 1
        grid = torch.stack(torch.meshgrid(middle, middle, indexing="xy"), -1)
        return self.covers(grid[None]).float()[0]

    def covers(self, grid: Tensor) -> Tensor:
        """`[n, 1, H, W]`, which points of the patch's own plane `[n, H, W, 2]`, in which it spans [-1, 1], it covers."""
        far = grid.square().sum(-1) if self.shape == "circle" else grid.abs().amax(-1)
        return (far <= 1)[:, None]

    def grid(self, dice: Dice, which: Tensor, turn: str, images: Tensor) -> Tensor:
        """Where in the patch each pixel of the images lies, `[n, H, W, 2]`: the patch spans [-1, 1].

        Args:
            dice: draws each image's own place, turn and size.
            which: `[n]`, places in the batch of the dice.
            turn: which draw this is.
            images: `[n, C, H, W]`.
        """
        height, width = images.shape[-2:]
        draws = torch.stack([torch.rand(4, generator=one, dtype=torch.float64) for one in dice.generators(which, turn)])
        low, high = self.scale
        angle = (draws[:, 0] * 2 - 1) * math.radians(self.rotate)
        half = (low + (high - low) * draws[:, 1]) * self.pixels((height, width)) / 2
        across = half if self.shape == "circle" else half * (angle.cos().abs() + angle.sin().abs())
        down, right = (None, None) if self.place is None else self.place
        y = _middle(height, across, half, draws[:, 2], down)
        x = _middle(width, across, half, draws[:, 3], right)
        # Output and patch both span [-1, 1] from edge to edge:  (u, v) = R(angle) ((i, j) - (x, y)) / half.
        cos, sin = angle.cos() / half, angle.sin() / half
        y, x = y - height / 2, x - width / 2
        rows = [
            torch.stack([cos * width / 2, sin * height / 2, -(cos * x + sin * y)], 1),
            torch.stack([-sin * width / 2, cos * height / 2, sin * x - cos * y], 1),
        ]
        theta = torch.stack(rows, 1).to(images)
        return F.affine_grid(theta, [len(images), 1, height, width], align_corners=False)


@dataclass(frozen=True)
class Patched:
    """A patch.

    Attributes:
        patch: `[C, s, s]` in [0, 1]; where the mask is 0, the grey that it began as (but for what the edge reads of it).
        mask: `[1, s, s]`, 1 where the patch is.
        result: what it does to the images that it was made for, pasted by the seed that made it. Those that were wrong before
            are left as they were.
        placing: how it lies in a picture.
        target: the class to reach; None: any but the label.
    """

    patch: Tensor
    mask: Tensor
    result: Result
    placing: Placing
    target: int | None = None

    def paste(self, images: Tensor, seed: int = 0) -> Tensor:
        """Images `[N, C, H, W]` in [0, 1] with the patch in each, placed by the seed and the image itself.

        The patch is as large in any picture as its placing says; outside of it nothing changes.

        Raises:
            PhospheneError: images of other channels than the patch's, or see `checks.pictures`.
        """
        given = checks.pictures(images, self.patch.dtype, self.patch.device)
        if given.shape[1] != len(self.patch):
            raise PhospheneError(f"this patch has {len(self.patch)} channels, the images {given.shape[1]}")
        which = torch.arange(len(given))
        return _pasted(self.patch, given, self.placing, self.placing.grid(Dice(seed, given), which, PASTE, given))

    def on(
        self,
        network: Network | nn.Module,
        images: Tensor,
        labels: Tensor | Sequence[int],
        *,
        seed: int = 0,
        probabilities: bool = False,
    ) -> Result:
        """What it does to other images, or to another network. Takes and raises what `patch` does."""
        aims = everyones(self.target, len(images))
        with attacked(
            network, images, labels, eps=None, norm="linf", targets=aims, probabilities=probabilities
        ) as trial:
            trial.images = self.paste(trial.originals, seed)
            return trial.result()


def patch(
    network: Network | nn.Module,
    images: Tensor,
    labels: Tensor | Sequence[int],
    *,
    side: float = 0.35,
    target: int | None = None,
    steps: int = 200,
    rate: float = 0.05,
    together: int = 16,
    rotate: float = 22.5,
    scale: tuple[float, float] = (0.8, 1.2),
    place: tuple[float, float] | None = None,
    shape: Shape = "circle",
    seed: int = 0,
    probabilities: bool = False,
) -> Job[Patched]:
    """Paint a patch that makes the network see the target wherever it is pasted. Images that are wrong already don't count.

    Args:
        network: a `Network`, or any module from images in [0, 1] to logits.
        images: `[N, C, H, W]` in [0, 1]: the more there are, the better it will do on others.
        labels: `[N]`, the true classes.
        side: how wide it is, as a share of the picture's shorter side.
        target: the class to reach; None: any but the label.
        steps: how many.
        rate: Adam's first; it falls to 0.
        together: images for each step, at most.
        rotate: turned by so many degrees at most, either way.
        scale: made larger by a factor between these two.
        place: where its middle is, `(down, right)` as shares of the picture; None: anywhere, wholly inside.
        shape: `circle` or `square`.
        seed: decides the order of the images and where the patch lies in each, by the images' own values.
        probabilities: the network gives probabilities, and that is known: attack their logarithms.

    Raises:
        PhospheneError, LabelError, NetworkError: see `trial.attacked` and `Placing`; counts or a rate that are none; or a
            network that is wrong about all images.
    """
    checks.count(steps, "steps")
    checks.count(together, "images together")
    checks.positive(rate, "a rate")
    placing = Placing(side, rotate, scale, place, shape)
    with attacked(
        network,
        images,
        labels,
        eps=None,
        norm="linf",
        targets=everyones(target, len(images)),
        seed=seed,
        probabilities=probabilities,
    ) as trial:
        painted = yield from _paint(trial, placing, steps, rate, together)
        everywhere = torch.arange(len(trial.originals))
        grid = placing.grid(trial.dice, everywhere, PASTE, trial.originals)
        trial.images = _pasted(painted, trial.originals, placing, grid)
        return Patched(painted, placing.mask(painted.shape[-1]).to(painted), trial.result(), placing, target)


PASTE = "paste"


def _paint(trial: Trial, placing: Placing, steps: int, rate: float, together: int) -> Job[Tensor]:
    """The patch `[C, s, s]`, from grey."""
    which, size = right(trial), trial.originals.shape[-2:]
    pixels = placing.pixels(size)
    painted = torch.full_like(trial.originals[0, :, :1, :1], 0.5).expand(-1, pixels, pixels).clone()
    adam = torch.optim.Adam([painted], rate, maximize=True)
    fall = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 1 / steps, total_iters=steps)
    yield Started("patch", steps)
    order = (batch for turn in count() for batch in batches(trial.dice, which, together, turn))
    for step in range(steps):
        batch = next(order)
        painted.grad, loss, shown = _slope(trial, placing, painted, batch, f"step {step}")
        adam.step()
        fall.step()
        painted.clamp_(0, 1)
        yield Step(step + 1, loss, shown if shown.shape[1] == 3 else None)
    return painted


def _slope(trial: Trial, placing: Placing, painted: Tensor, batch: Tensor, turn: str) -> tuple[Tensor, float, Tensor]:
    """`(the gradient of the batch's mean for the patch [C, s, s], minus that mean, the images [n, C, H, W] with it)`.

    The network's part comes from its fast reader, for each image; the pasting's by autograd.
    """
    start = trial.originals[batch]
    with torch.inference_mode(False), torch.enable_grad():
        grid = placing.grid(trial.dice, batch, turn, start)
        leaf = painted.clone().requires_grad_()
        shown = _pasted(leaf, start, placing, grid)
    values, gradients, _ = trial.victim.gradient(shown.detach(), batch, lambda rows, own: clipped(trial, rows, own))
    trial.need_slope(gradients)
    (slope,) = torch.autograd.grad(shown, leaf, gradients / len(batch))
    return slope, -float(values.mean()), shown.detach()


def _pasted(patch: Tensor, images: Tensor, placing: Placing, grid: Tensor) -> Tensor:
    """The images `[n, C, H, W]` with the patch `[C, s, s]` where the `grid` `[n, H, W, 2]` lies in it."""
    laid = F.grid_sample(
        patch.expand(len(images), -1, -1, -1), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return torch.where(placing.covers(grid), laid, images)


def _middle(length: int, across: Tensor, half: Tensor, share: Tensor, fixed: float | None) -> Tensor:
    """Where the patch's middle is along one side of `length` pixels, `[n]`.

    The patch lies inside, up to rounding; its edge is on a whole pixel, so that one neither turned nor scaled is copied as it
    is.

    Args:
        length: of the picture's side.
        across: `[n]`, half of what the turned patch takes up.
        half: `[n]`, half of its own side.
        share: `[n]` in [0, 1), the random place.
        fixed: the place that is asked for, if one is.
    """
    room = (length - 2 * across).clamp(min=0)
    wanted = length / 2 + (share - 0.5) * room if fixed is None else torch.full_like(share, fixed * length)
    inside = wanted.maximum(length / 2 - room / 2).minimum(length / 2 + room / 2)
    return (inside - half).round() + half
