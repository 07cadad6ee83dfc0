"""Neural style: the content of one picture, painted with the statistics of others.

    x* = argmin_x  alpha L_content(x) + beta L_style(x)

Gatys, Ecker & Bethge, "A Neural Algorithm of Artistic Style", 2015, equation 7. Both losses are divided by what they are
where the picture begins, so that alpha and beta mean the same for every network: L_style by that of the content picture,
L_content, which is 0 there, by that of an even grey. Small pictures come first, each size beginning with the one before
(Gatys et al., "Controlling Perceptual Factors in Neural Style Transfer", CVPR 2017, section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from phosphene.images.resize import resize
from phosphene.models import Network
from phosphene.progress import Job, Started, relay, shifted
from phosphene.synthesize.descent import Descent, Progress, Switch, descend
from phosphene.synthesize.style_loss import Evaluation, Penalty, StyleLoss
from phosphene.synthesize.style_plan import Plan
from phosphene.synthesize.style_settings import StyleSettings


@dataclass
class Checkpoint:
    """Where a transfer is: `scale` sizes are done, `picture` is what the present one began with, `progress` is within it.

    `totals` and `switches` are those of the sizes that are done.
    """

    scale: int
    picture: Tensor
    progress: Progress | None
    totals: list[list[float]] = field(default_factory=list)
    switches: list[tuple[int, Switch]] = field(default_factory=list)


@dataclass(frozen=True)
class Losses:
    """The losses as the formulas give them: 1/2 sum (F - P)^2 by content layer, E_l by style layer."""

    content: dict[str, float]
    style: dict[str, float]


@dataclass(frozen=True)
class Stylization:
    """A picture and how it came about.

    Attributes:
        image: `[1, 3, H, W]` in [0, 1].
        reference: the losses that were divided by, at its final size: L_style of the content picture (of noise, for a
            texture), L_content of an even grey.
        end: its losses.
        weights: w_l by style layer, at the final size.
        totals: the whole loss, weighted, at each step; one list for each size.
        sizes: (height, width) of each size.
        switches: where the optimiser had to be begun anew, by size.
        block: side of the blocks it was read in; None: at once.
        halted: whether the job was ended early.
    """

    image: Tensor
    reference: Losses
    end: Losses
    weights: dict[str, float]
    totals: list[list[float]]
    sizes: list[tuple[int, int]]
    switches: list[tuple[int, Switch]]
    block: int | None
    halted: bool = False


def style(
    network: Network,
    content: Tensor,
    styles: Sequence[Tensor],
    *,
    shares: Sequence[float] = (),
    masks: Sequence[Tensor] = (),
    settings: StyleSettings | None = None,
    penalties: Sequence[Penalty] = (),
    begin: Tensor | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    preview_every: int = 5,
) -> Job[Stylization]:
    """Paint `content` in the manner of `styles`. A `Halt` ends it with what there is.

    Args:
        network: any network with convolutions.
        content: `[1, 3, H, W]` in [0, 1]; the picture has its size.
        styles: `[1, 3, h, w]` each, of any size; they are scaled such that their longer sides are `style_scale` times that
            of the picture.
        shares: how much each style counts; default: all alike.
        masks: where each style belongs, `[1, 1, H, W]` in [0, 1], one for each style (then without shares); none: everywhere.
        settings: see `StyleSettings`.
        penalties: of the picture itself, `[1, 3, H, W]` in [0, 1] to a number that is added to the loss.
        begin: `[1, 3, h, w]`, to begin with instead of what the settings say.
        seed: of a random start.
        checkpoint: to go on from there.
        keep: is told, after each step, where it is.
        preview_every: an image goes with every so many events.

    Raises:
        LayerError: no such layer, or one that is silent for the style, or that the pictures are too small for.
        PhospheneError: settings out of range, masks that don't fit.
    """
    plan = Plan(
        network,
        (content.shape[-2], content.shape[-1]),
        styles,
        settings or StyleSettings(),
        content=content,
        shares=shares,
        masks=masks,
        penalties=penalties,
        seed=seed,
    )
    yield Started(f"style with {network.name}", plan.steps, keeps=True)
    return (yield from paint(plan, plan.beginning(begin), checkpoint, keep, preview_every))


def paint(
    plan: Plan,
    picture: Tensor,
    checkpoint: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    preview_every: int = 5,
) -> Job[Stylization]:
    """Carry out a plan, from small to large, beginning with `picture [1, 3, h, w]` or at a checkpoint."""
    here = checkpoint or Checkpoint(0, picture, None)
    picture = here.picture
    totals = list(here.totals)
    switches = list(here.switches)
    found: Descent | None = None
    loss: StyleLoss | None = None
    reference: Evaluation | None = None
    for scale in range(here.scale, len(plan.sizes)):
        picture = resize(picture, plan.sizes[scale])
        loss, reference = plan.loss(plan.sizes[scale])
        job = descend(
            plan.canvas(picture),
            loss,
            steps=plan.settings.steps,
            optimiser=plan.settings.optimiser,
            rate=plan.rate,
            history=plan.settings.history,
            preview_every=preview_every,
            progress=here.progress if scale == here.scale else None,
            keep=_keeper(keep, Checkpoint(scale, picture, None, list(totals), list(switches))),
        )
        found = yield from relay(job, lambda event, n=scale: shifted(event, n * plan.settings.steps))
        picture = found.image
        totals.append(found.totals)
        switches += [(scale, switch) for switch in found.switches]
        if found.halted:
            break
    assert found is not None and loss is not None and reference is not None
    return Stylization(
        plan.finished(picture),
        _losses(reference),
        _losses(found.last),
        dict(loss.weights.style),
        totals,
        plan.sizes[: len(totals)],
        switches,
        loss.block,
        found.halted,
    )


def _keeper(keep: Callable[[Checkpoint], None] | None, here: Checkpoint) -> Callable[[Progress], None] | None:
    if keep is None:
        return None
    return lambda progress: keep(replace(here, progress=progress))


def _losses(found: Evaluation) -> Losses:
    return Losses(found.content, found.style)
