"""Neural texture synthesis: another picture with the same second-order statistics, from noise.

    L = sum_l w_l E_l,    E_l = 1 / (4 N_l^2 M_l^2) sum_ij (G^l_ij - A^l_ij)^2

Gatys, Ecker & Bethge, "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015, equations 2 to 4. The picture may
have any size: A is divided by the number of places of the sample, G by its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from phosphene.errors import PhospheneError
from phosphene.models import Network
from phosphene.progress import Job, Started
from phosphene.synthesize.style import Checkpoint, Stylization, paint
from phosphene.synthesize.style_plan import Plan
from phosphene.synthesize.style_settings import StyleSettings


def texture(
    network: Network,
    sample: Tensor,
    *,
    size: tuple[int, int] | None = None,
    tile: bool = False,
    settings: StyleSettings | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None] | None = None,
    preview_every: int = 5,
) -> Job[Stylization]:
    """Grow a texture like `sample` from noise. A `Halt` ends it with what there is.

    Args:
        network: any network with convolutions.
        sample: `[1, 3, h, w]` in [0, 1].
        size: height and width of the picture; default: of the sample.
        tile: make opposite edges fit, so that the picture can be laid beside itself without a seam.
        settings: see `StyleSettings`; content, start and colours mean nothing here.
        seed: of the noise.
        checkpoint: to go on from there.
        keep: is told, after each step, where it is.
        preview_every: an image goes with every so many events.

    Returns:
        A `Stylization`; `reference` holds the E_l of the noise.

    Raises:
        LayerError: no such layer, or one that is silent for the sample, or that sees more than the whole sample.
        PhospheneError: settings or a size out of range.
    """
    chosen = replace(settings or StyleSettings(), start="random", colours="style")
    if chosen.style_weight == 0:
        raise PhospheneError("a texture needs a style weight above 0")
    if tile and chosen.block:
        raise PhospheneError("a texture whose edges fit is made at once: leave the block out")
    plan = Plan(network, size or (sample.shape[2], sample.shape[3]), [sample], chosen, tile=tile, seed=seed)
    yield Started(f"texture with {network.name}", plan.steps, keeps=True)
    return (yield from paint(plan, plan.beginning(None), checkpoint, keep, preview_every))
