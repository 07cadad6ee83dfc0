"""What `style` and `texture` share: their pictures' sizes, the bundled painting, facts about a transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.errors import PhospheneError
from phosphene.images.samples import PREFIX
from phosphene.progress import Event, Job, Result, Started, Step, relay, shifted
from phosphene.synthesize import Stylization
from phosphene.synthesize.descent import Progress, Switch
from phosphene.synthesize.style import Checkpoint

Frames = Callable[[Tensor], None]
"""Takes the frames of a film, `[3, H, W]` in [0, 1]."""
PAINTING = "sample:painting"  # the bundled one, painted by tools/paint.py
SIZE = 512  # pixels of the longer side, where none is asked for


def title(path: str) -> str:
    """What to call a picture: its file's name without suffix, a sample's name."""
    return path.removeprefix(PREFIX) if path.startswith(PREFIX) else Path(path).stem


def titled(paths: Sequence[str], read: Callable[[str], Tensor]) -> dict[str, Tensor]:
    """What to call each picture -> the picture; no two alike: the second `wall` is `wall-2`."""
    found: dict[str, Tensor] = {}
    for path in paths:
        name = plain = title(path)
        number = 2
        while name in found:
            name, number = f"{plain}-{number}", number + 1
        found[name] = read(path)
    return found


def sized(image: Tensor, longer: int | None, *, usual: int = SIZE) -> Tensor:
    """With a longer side of so many pixels; None: as it is, but at most `usual`. Raises PhospheneError out of range."""
    height, width = image.shape[-2:]
    wanted = min(usual, max(height, width)) if longer is None else longer
    if not 32 <= wanted <= 20_000:
        raise PhospheneError(f"a size is 32 to 20000 pixels, got {wanted}")
    factor = wanted / max(height, width)
    if factor == 1:
        return image
    return pictures.resize(image, (max(1, round(height * factor)), max(1, round(width * factor))))


def numbers(texts: Sequence[str | float], what: str) -> list[float]:
    """Numbers given by comma. Raises PhospheneError for what is none."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise PhospheneError(f"{what} are numbers by comma, got '{','.join(map(str, texts))}'") from None


def watched(
    job: Job[Result], size: tuple[int, int], keep: Frames | None, every: int, found: list[tuple[int, Tensor]]
) -> Job[Result]:
    """The same job; its previews, all at one size, go to `keep`, a film, and those of each `every` steps into `found`."""

    def watch(event: Event) -> Event:
        if isinstance(event, Step) and event.preview is not None:
            shot = bool(every) and event.done % every == 0
            if shot or keep is not None:
                frame = pictures.resize(event.preview, size)[0].cpu()
                if keep is not None:
                    keep(frame)
                if shot:
                    found.append((event.done, frame))
        return event

    return relay(job, watch)


def within(job: Job[Stylization], before: int) -> Job[Stylization]:
    """A transfer as a part of a longer job, whose bar goes on after `before` steps."""
    first = next(job)
    assert isinstance(first, Started)
    return (yield from relay(job, lambda event: shifted(event, before)))


def loss_facts(found: Stylization) -> dict[str, Any]:
    """The losses, as the formulas give them, of the picture and of what they are measured by."""
    return {
        "style_losses": {layer: [found.reference.style[layer], value] for layer, value in found.end.style.items()},
        "content_losses": {
            layer: [found.reference.content[layer], value] for layer, value in found.end.content.items()
        },
        "layer_weights": found.weights,
        "sizes": [list(size) for size in found.sizes],
        "totals": [[steps[0], steps[-1]] for steps in found.totals if steps],
        "steps": sum(len(steps) for steps in found.totals),
        "blocks": found.block,
    }


def notes_of(found: Stylization, facts: dict[str, Any]) -> dict[str, Any]:
    """Notes for the recipe; what the user has to know of them goes into the facts, too."""
    notes: dict[str, Any] = {}
    if found.switches:
        told = [told_switch(scale, switch) for scale, switch in found.switches]
        facts["switches"] = notes["switches"] = told
    if found.halted:
        done = sum(len(steps) for steps in found.totals)
        facts["stopped"] = f"stopped early, after step {done}, at size {len(found.sizes)}"
        notes["stopped_at_step"] = done
    return notes


def told_switch(scale: int, switch: Switch) -> str:
    """A sentence for a `Switch`."""
    what = "L-BFGS began anew" if switch.optimiser == "lbfgs" else "Adam took over from L-BFGS"
    return f"size {scale + 1}, step {switch.step}: {switch.why}, so {what} from the best picture"


def packed(checkpoint: Checkpoint) -> dict[str, Any]:
    """A checkpoint as a dictionary of tensors, numbers and texts, which `torch.save` writes without pickled classes."""
    progress = checkpoint.progress
    assert progress is not None
    held = {**vars(progress), "switches": [vars(switch) for switch in progress.switches]}
    done = [{"scale": scale, **vars(switch)} for scale, switch in checkpoint.switches]
    return {
        "scale": checkpoint.scale, "picture": checkpoint.picture, "progress": held, "totals": checkpoint.totals,
        "switches": done,
    }  # fmt: skip


def unpacked(held: Mapping[str, Any], device: torch.device) -> Checkpoint:
    """A checkpoint from `packed`. Raises PhospheneError if it is none."""
    try:
        progress = Progress(**{**held["progress"], "halted": False})
        progress.switches = [Switch(**switch) for switch in held["progress"]["switches"]]
        switches = [
            (int(each["scale"]), Switch(each["step"], each["optimiser"], each["why"])) for each in held["switches"]
        ]
        return Checkpoint(int(held["scale"]), held["picture"].to(device), progress, list(held["totals"]), switches)
    except (KeyError, TypeError, AttributeError) as problem:
        raise PhospheneError(f"this is no unfinished picture of this version: {problem}") from problem
