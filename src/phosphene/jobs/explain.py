"""`explain`: which pixels matter for a class or a unit, by several methods side by side."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from phosphene import explain as methods
from phosphene import images as pictures
from phosphene.errors import PhospheneError, did_you_mean
from phosphene.explain import Attribution
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network, Unit, parse_unit
from phosphene.progress import Job, Started, Step

PERCENTILE = 99.5


def explain(
    workshop: Workshop,
    *,
    image: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    methods: Sequence[str] = ("all",),
    class_name: str | None = None,
    unit: str | None = None,
    layer: str | None = None,
) -> Job[Outcome]:
    """Pictures: `explain` (the sheet), and one per method, named after it. `class_name` None: the predicted class."""
    names = _known(methods, for_unit=unit is not None)
    if layer is not None and "grad-cam" not in names:
        raise PhospheneError("--layer is Grad-CAM's: add grad-cam to --method (a unit is --unit LAYER:CHANNEL)")
    network = workshop.network(net, weights, labels)
    photo = network.preprocess(workshop.image(image))
    chosen, words = _target(network, photo, class_name, unit)
    yield Started("explain", len(names), "method")
    made, facts = [], []
    for done, name in enumerate(names, start=1):
        attribution = _attribute(name, network, photo, chosen, layer)
        picture, note = _picture(attribution, photo, words)
        made.append(picture)
        facts.append({"method": name, "score": float(attribution.scores[0]), "layer": attribution.layer} | note)
        yield Step(done)
    panels = [pictures.Panel(photo[0].cpu(), "image", words)]
    panels += [pictures.Panel(picture.image, picture.name, picture.caption) for picture in made]
    sheet = pictures.sheet(panels, columns=len(panels), side=280, footnote=f"{net}, explaining {words}")
    alt = f"The photograph and {len(made)} explanations of why {net} sees {words}"
    main = Picture("explain", sheet, alt, f"{net}, explaining {words}")
    return Outcome((main, *made), {"net": net, "target": words, "methods": facts})


def _known(names: Sequence[str], *, for_unit: bool) -> list[str]:
    """The methods of these names; `all` are those that fit: Grad-CAM explains classes only."""
    every = [name for name in methods.METHODS if not (for_unit and name == "grad-cam")]
    wanted = every if list(names) in ([], ["all"]) else list(names)
    for name in wanted:
        if name not in methods.METHODS:
            raise PhospheneError(
                f"unknown method '{name}'{did_you_mean(name, methods.METHODS)} (there are {', '.join(methods.METHODS)})"
            )
    return list(dict.fromkeys(wanted))


def _target(network: Network, photo: Tensor, class_name: str | None, unit: str | None) -> tuple[int | Unit, str]:
    if unit is not None:
        if class_name is not None:
            raise PhospheneError("explain either a class (--class) or a unit (--unit), not both")
        return parse_unit(unit).check(network), f"unit {unit}"
    named = network.classes([class_name]) if class_name is not None else network.predict(photo, 1)[0].indices
    index = named[0]
    probability = float(network.logits(photo).softmax(1)[0, index])
    return index, f"{network.labels[index]} ({probability:.1%})"


def _attribute(name: str, network: Network, photo: Tensor, target: int | Unit, layer: str | None) -> Attribution:
    if name == "grad-cam":
        return methods.grad_cam(network, photo, target, layer)
    return methods.METHODS[name](network, photo, target)


def _picture(found: Attribution, photo: Tensor, words: str) -> tuple[Picture, dict[str, float]]:
    if found.method == "grad-cam":
        image = pictures.overlay(photo.cpu(), found.maps.cpu())[0]
        caption = f"at {found.layer}; red matters most"
        limit = float(found.maps.max())
    elif found.method == "saliency":
        coloured = pictures.sequential(found.maps.cpu(), percentile=PERCENTILE)
        image, limit = coloured.images[0], float(coloured.limits[0])
        caption = f"|gradient|, 0 is black, clipped at its {PERCENTILE}th percentile"
    else:
        assert found.gradient is not None
        image, limit = _colour_gradient(found.gradient.cpu())
        caption = f"gradient by colour, 0 is grey, clipped at its {PERCENTILE}th percentile"
    alt = f"{found.method}: which pixels speak for {words}"
    return Picture(found.method, image, alt, caption), {"clip": limit}


def _colour_gradient(gradient: Tensor) -> tuple[Tensor, float]:
    """A signed gradient `[1, 3, H, W]` as colours around grey; and the value that full contrast means."""
    sizes = gradient.abs().flatten()
    limit = float(sizes.quantile(PERCENTILE / 100)) or float(sizes.max())  # a neuron may see a few pixels only
    return (0.5 + gradient[0] / (2 * max(limit, 1e-12))).clamp(0, 1), limit
