"""`patch`: a small picture that, pasted anywhere, makes the network see one class."""

from __future__ import annotations

import torch

from phosphene import images as pictures
from phosphene.attacks import Patched
from phosphene.attacks import patch as attack
from phosphene.attacks.patch import Shape
from phosphene.jobs import for_all
from phosphene.jobs.labelled import coloured
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.progress import Job


def patch(
    workshop: Workshop,
    *,
    folder: str,
    target: str | None = None,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    side: float = 0.35,
    shape: Shape = "circle",
    steps: int = 200,
    rotate: float = 22.5,
    truth: str = "auto",
    images: int = 500,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `patch` (the sheet), `sticker` (the patch itself, on white).

    Facts: the share fooled of photographs that it was made on (`made`), of others (`tried`), and of these with a patch of
    noise (`noise`), each with its interval.

    Raises:
        PhospheneError: see `attacks.patch` and `labelled`.
    """
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    network.need_classifier("patch")
    aim = None if target is None else network.classes([target])[0]
    photos = for_all.gather(workshop, network, folder, truth, images, aim, "a patch")
    made = yield from attack(
        network, photos.made_on, photos.made_labels, side=side, target=aim, steps=steps, rotate=rotate, shape=shape,
        seed=seed, probabilities=photos.probabilities,
    )  # fmt: skip
    tried = for_all.changed(network, photos, pictures.quantize(made.paste(photos.tried_on, seed)), aim)
    control = pictures.quantize(_of_noise(made, seed).paste(photos.tried_on, seed))
    noise = for_all.changed(network, photos, control, aim)
    shares = {"made": for_all.fooled(made.result), "tried": for_all.fooled(tried), "noise": for_all.fooled(noise)}
    facts = {**for_all.facts(network, net, photos, aim), "side": side, **shares}
    sticker = coloured(made.patch * made.mask + 1 - made.mask)
    what = "any other class" if aim is None else network.labels[aim]
    panels = [pictures.Panel(sticker, "the patch", f"for {what}"), *for_all.panels(network, tried)]
    footnote = (
        f"{net}: the patch fools {shares['tried']['mean']:.0%} of {for_all.counted(len(photos.tried_on))} that it was not"
        f" made on; a patch of noise {shares['noise']['mean']:.0%}"
    )
    sheet = pictures.sheet(panels, columns=len(panels), footnote=footnote)
    alt = f"A patch for {what}, and photographs with it, each with what {net} sees and saw before"
    return Outcome(
        (Picture("patch", sheet, alt, footnote), Picture("sticker", sticker, f"The patch for {what}")), facts
    )


def _of_noise(made: Patched, seed: int) -> Patched:
    """The control: a patch of noise, pasted alike."""
    noise = torch.rand(made.patch.shape, generator=torch.Generator().manual_seed(seed)).to(made.patch)
    return Patched(noise, made.mask, made.result, made.placing, made.target)
