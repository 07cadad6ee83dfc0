"""`fool`: change a photograph a little until the network sees another class."""

from __future__ import annotations

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.attacks import fool as attack
from phosphene.errors import LabelError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Job


def fool(
    workshop: Workshop,
    *,
    image: str,
    target: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    confidence: float = 0.5,
    steps: int = 200,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `fool` (the sheet), `original`, `fooled`, `difference`, `difference-10x`; facts: how much, how sure."""
    network = workshop.network(net, weights, labels)
    network.need_classifier("fool")
    check_seed(seed)
    photo = network.preprocess(workshop.image(image))
    index = network.classes([target])[0]
    before = network.predict(pictures.quantize(photo), 1)[0]
    if index == before.indices[0]:
        raise LabelError(f"{net} already sees '{before.names[0]}': give another class as the target")
    found = yield from attack(network, photo, [index], confidence=confidence, steps=steps)
    after = network.predict(found.images, 1)[0]
    original, fooled = found.originals[0].cpu(), found.images[0].cpu()
    seen_before = f"{before.names[0]} {before.probabilities[0]:.1%}"
    seen_after = f"{after.names[0]} {after.probabilities[0]:.1%}"
    l2, linf = float(found.l2[0]), float(found.linf[0])
    size = f"L2 {l2:.2f}, at most {round(linf * 255)}/255 per pixel"
    made = (
        Picture("original", original, f"The photograph, seen as {seen_before}", seen_before),
        Picture("fooled", fooled, f"The changed photograph, seen as {seen_after}", seen_after),
        Picture("difference", pictures.difference(original, fooled), "Their difference", f"difference, {size}"),
        Picture("difference-10x", pictures.difference(original, fooled, gain=10), "Ten times it", "10x difference"),
    )
    titles = (seen_before, seen_after, "difference", "10x difference")
    captions = ("original", f"fooled in {int(found.steps[0])} steps", "0 is grey", "0 is grey")
    panels = [pictures.Panel(p.image, t, c) for p, t, c in zip(made, titles, captions, strict=True)]
    sheet = pictures.sheet(panels, columns=4, side=280, footnote=f"{net}: {size}")
    alt = f"A photograph seen as {seen_before}, a copy that looks the same seen as {seen_after}, and the difference"
    facts = {
        "net": net,
        "before": _seen(network, found.originals),
        "after": _seen(network, found.images),
        "target": {"index": index, "name": network.labels[index], "probability": float(found.confidence[0])},
        "success": bool(found.success[0]),
        "l2": l2,
        "linf": linf,
        "steps": int(found.steps[0]),
        "changed": float((found.images != found.originals).float().mean()),
        "read_back": _seen(network, pictures.decode(pictures.encode(fooled)).to(photo)),
        "noise": _seen(network, _noisy(found.originals, l2, seed)),
    }
    return Outcome((Picture("fool", sheet, alt, size), *made), facts)


def _seen(network: Network, image: Tensor) -> dict[str, object]:
    found = network.predict(image, 1)[0]
    return {"index": found.indices[0], "name": found.names[0], "probability": found.probabilities[0]}


def _noisy(image: Tensor, l2: float, seed: int) -> Tensor:
    """The control: the image under random noise of the same L2 size."""
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).to(image)
    return (image + noise * (l2 / noise.norm())).clamp(0, 1)
