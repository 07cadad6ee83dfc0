"""`universal`: one change that fools the network on most photographs, those that it has never seen, too."""

from __future__ import annotations

from phosphene import images as pictures
from phosphene.attacks import Ball, Norm, checks, noisy
from phosphene.attacks import universal as attack
from phosphene.errors import PhospheneError
from phosphene.jobs import for_all
from phosphene.jobs.labelled import coloured
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.progress import Job
from phosphene.report.attack_plots import radius_text

RADII: dict[str, float] = {"linf": 10 / 255, "l2": 10.0}
"""The radius where none is given."""


def universal(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "squeezenet1_1",
    weights: str | None = None,
    labels: str | None = None,
    target: str | None = None,
    eps: float | None = None,
    norm: Norm = "linf",
    passes: int = 20,
    truth: str = "auto",
    images: int = 500,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `universal` (the sheet), `perturbation` (around grey, as strong as it can be shown).

    Facts: the share fooled of photographs that it was made on (`made`), of others (`tried`), and of these under noise of the
    same size (`noise`), each with its interval.

    Raises:
        PhospheneError: see `attacks.universal` and `labelled`.
    """
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    network.need_classifier("universal")
    aim = None if target is None else network.classes([target])[0]
    if norm not in RADII:
        raise PhospheneError(f"unknown norm '{norm}': choose linf or l2")
    radius = RADII[norm] if eps is None else eps
    checks.visible(radius, norm)
    photos = for_all.gather(workshop, network, folder, truth, images, aim, "a universal perturbation")
    made = yield from attack(
        network, photos.made_on, photos.made_labels, eps=radius, norm=norm, passes=passes, targets=aim, seed=seed,
        quantize=True, probabilities=photos.probabilities,
    )  # fmt: skip
    size = float(Ball(norm, radius).size(made.perturbation[None])[0])
    if not size:
        raise PhospheneError(f"of a change of {radius:g} in {norm} 8 bits leave nothing: give a larger --eps")
    tried = for_all.changed(network, photos, made.apply(photos.tried_on), aim)
    noise = for_all.changed(network, photos, noisy(photos.tried_on, size + 1e-6, norm, seed=seed), aim)
    shares = {"made": for_all.fooled(made.result), "tried": for_all.fooled(tried), "noise": for_all.fooled(noise)}
    facts = {**for_all.facts(network, net, photos, aim), "eps": radius, "norm": norm, "size": size, **shares}
    shown = coloured(made.picture[0])
    panels = [pictures.Panel(shown, "the change, enlarged", "0 is grey"), *for_all.panels(network, tried)]
    told = radius_text(radius, norm)
    says = "" if aim is None else f" to be seen as {network.labels[aim]}"
    footnote = (
        f"{net}: one change of {told}{says} fools {shares['tried']['mean']:.0%} of {for_all.counted(len(photos.tried_on))}"
        f" that it was not made on; noise of the same size {shares['noise']['mean']:.0%}"
    )
    sheet = pictures.sheet(panels, columns=len(panels), footnote=footnote)
    alt = f"A change of {told}, and photographs with it, each with what {net} sees and saw before"
    parts = (
        Picture("universal", sheet, alt, footnote),
        Picture("perturbation", shown, f"The change, around grey, enlarged from {told}"),
    )
    return Outcome(parts, facts)
