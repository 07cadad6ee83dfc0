"""`cue-conflict`: one stimulus with the shape of one photograph and the texture of another.

Geirhos, Rubisch, Michaelis, Bethge, Wichmann & Brendel, "ImageNet-trained CNNs are biased towards texture; increasing shape
bias improves accuracy and robustness", ICLR 2019, made theirs with the style transfer of Gatys et al.; so is this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene import synthesize
from phosphene.errors import PhospheneError
from phosphene.images import Panel
from phosphene.jobs import style_parts as parts
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.progress import Job
from phosphene.synthesize import StyleSettings

USUAL = StyleSettings(steps=100)
"""100 steps at 224 pixels: more changes little. 20 times the content's weight leaves outlines to be seen."""
SIZES = (32, 4096)


def cue_conflict(
    workshop: Workshop,
    *,
    image: str,
    styles: str,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    size: int = 224,
    content_weight: float = USUAL.content_weight,
    style_weight: float = USUAL.style_weight,
    steps: int = USUAL.steps,
) -> Job[Outcome]:
    """Pictures: `cue-conflict`, `size` pixels a side, and `beside`, with the two photographs.

    `image`: the photograph whose shape it gets. `styles`: the one whose texture. Both: their middle squares.
    """
    settings = settings_of(content_weight, style_weight, steps)
    check_size(size)
    network = workshop.network(net, weights, labels)
    content = squared(workshop.image(image), size).to(network.device)
    texture = squared(workshop.image(styles), size).to(network.device)
    found = yield from synthesize.style(network, content, [texture], settings=settings)
    made = found.image[0].cpu()
    alt = f"The shape of {Path(image).stem} with the texture of {Path(styles).stem}"
    panels = [Panel(content[0].cpu(), "shape"), Panel(texture[0].cpu(), "texture"), Panel(made, "both")]
    sheet = pictures.sheet(panels, columns=3, side=max(224, size))
    facts: dict[str, Any] = {"net": net, "shape": image, "texture": styles, **parts.loss_facts(found)}
    notes = parts.notes_of(found, facts)
    return Outcome((Picture("cue-conflict", made, alt, f"by {net}"), Picture("beside", sheet, alt)), facts, {}, notes)


def settings_of(content_weight: float, style_weight: float, steps: int) -> StyleSettings:
    """How a stimulus is made. Raises PhospheneError for what is out of range."""
    settings = StyleSettings(content_weight, style_weight, steps=steps)
    settings.check()
    return settings


def check_size(size: int) -> None:
    """Raise a PhospheneError for a side that is out of range."""
    least, most = SIZES
    if not least <= size <= most:
        raise PhospheneError(f"a stimulus has {least} to {most} pixels a side, got {size}")


def squared(image: Tensor, side: int) -> Tensor:
    """The shorter side brought to `side` pixels, and the square in the middle: `[1, 3, side, side]`."""
    image = pictures.resize(image, side)
    top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
    return image[:, :, top : top + side, left : left + side].contiguous()
