"""Sheets of styles: contents by styles; and the slide's figure, content layers by style layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene import synthesize
from phosphene.images import Panel
from phosphene.jobs import style_parts as parts
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.models import Network
from phosphene.progress import Halt, Job, Started
from phosphene.synthesize import StyleSettings, Stylization, layers_for
from phosphene.synthesize.invert import depth_of
from phosphene.synthesize.style_plan import chosen_layers


def sheet_of_pairs(
    network: Network,
    net: str,
    photos: Mapping[str, Tensor],
    styles: Mapping[str, Tensor],
    settings: StyleSettings,
    seed: int,
) -> Job[Outcome]:
    """Each photograph in each style. Pictures: `style`, the sheet, and one for each pair. A `Halt` keeps those so far."""
    jobs = {
        (content, name): (photo, one) for content, photo in photos.items() for name, one in styles.items()
    }  # fmt: skip
    whole = sum(settings.steps * len(settings.sizes(_size(photo))) for photo, _ in jobs.values())
    yield Started(f"{len(jobs)} styles with {network.name}", whole, keeps=True)
    made: dict[tuple[str, str], Stylization] = {}
    done, halted = 0, False
    for pair, (photo, one) in jobs.items():
        job = synthesize.style(network, photo, [one], settings=settings, seed=seed)
        try:
            found = yield from parts.within(job, done)
        except Halt:
            halted = True
            break
        made[pair] = found
        done += sum(len(steps) for steps in found.totals)
        halted = found.halted
        if halted:
            break
    if not made:
        raise Halt
    return _sheet(net, photos, styles, made, halted, len(jobs))


def _sheet(
    net: str,
    photos: Mapping[str, Tensor],
    styles: Mapping[str, Tensor],
    made: Mapping[tuple[str, str], Stylization],
    halted: bool,
    asked: int,
) -> Outcome:
    panels = [Panel(None)] + [Panel(one[0].cpu(), name) for name, one in styles.items()]
    for content, photo in photos.items():
        panels.append(Panel(photo[0].cpu(), content))
        panels += [
            Panel(made[content, name].image[0].cpu() if (content, name) in made else None) for name in styles
        ]  # fmt: skip
    sheet = pictures.sheet(panels, columns=len(styles) + 1, side=320, footnote=f"Painted by {net}.")
    alt = f"{len(photos)} photographs, each painted in the manner of {', '.join(styles)}"
    singles = [
        Picture(f"{content}-in-{name}", found.image[0].cpu(), f"{content}, painted in the manner of {name}")
        for (content, name), found in made.items()
    ]
    facts: dict[str, Any] = {
        "net": net,
        "styles": list(styles),
        "pictures_made": [
            {"content": content, "style": name, **parts.loss_facts(found)} for (content, name), found in made.items()
        ],
    }
    notes: dict[str, Any] = {}
    if halted:
        facts["stopped"] = f"stopped early; {len(made)} of {asked} pictures, the last unfinished"
        notes["stopped_after_pictures"] = len(made)
    return Outcome((Picture("style", sheet, alt, f"by {net}"), *singles), facts, {}, notes)


def matrix(
    network: Network, net: str, content: Tensor, style: Tensor, settings: StyleSettings, seed: int
) -> Job[Outcome]:
    """Rows: the content layer; columns: style layers up to deeper and deeper ones. The first row has no content at all.

    The slide's figure of feature and Gram reconstruction (Johnson, Alahi & Fei-Fei, ECCV 2016, after Gatys et al.).
    """
    choice = chosen_layers(network, settings)
    deeper = list(choice.style)
    rows: list[str | None] = [None, *(settings.content_layers or content_rows(network))]
    size = _size(content)
    count = len(rows) * len(deeper)
    yield Started(f"{count} reconstructions with {network.name}", count * settings.steps * len(settings.sizes(size)))
    made: list[Tensor] = []
    done = 0
    for layer in rows:
        for place in range(len(deeper)):
            here = replace(settings, style_layers=tuple(deeper[: place + 1]), layer_weights=())
            if layer is None:
                job = synthesize.texture(network, _beside(style, size), size=size, settings=here, seed=seed)
            else:
                here = replace(here, content_layers=(layer,))
                job = synthesize.style(network, content, [style], settings=here, seed=seed)
            found = yield from parts.within(job, done)
            done += sum(len(steps) for steps in found.totals)
            made.append(found.image[0].cpu())
    panels = [Panel(style[0].cpu(), "style"), *_headed(made[: len(deeper)], deeper)]
    for place, layer in enumerate(rows[1:], 1):
        panels.append(Panel(content[0].cpu(), f"content: {layer}"))
        panels += [Panel(one) for one in made[place * len(deeper) : (place + 1) * len(deeper)]]
    sheet = pictures.sheet(
        panels,
        columns=len(deeper) + 1,
        side=240,
        footnote=f"{net}. First row: the style alone, by layers up to the one named. Below: with the content of one layer.",
    )
    alt = f"Reconstructions for {len(rows) - 1} content layers, and for none, by {len(deeper)} depths of style layers"
    facts = {"net": net, "content_layers": rows[1:], "style_layers": deeper}
    return Outcome((Picture("style", sheet, alt, f"by {net}"),), facts)


def _headed(images: list[Tensor], layers: list[str]) -> list[Panel]:
    return [Panel(one, f"style: {'to ' if place else ''}{layers[place]}") for place, one in enumerate(images)]


def content_rows(network: Network) -> list[str]:
    """Four content layers from early to late: the style layers that suit the network but the first, and its content layer."""
    choice = layers_for(network)
    names = dict.fromkeys((*list(choice.style)[1:], *choice.content))
    return sorted(names, key=lambda layer: depth_of(network, layer))[-4:]


def _beside(style: Tensor, size: tuple[int, int]) -> Tensor:
    """The style at the scale at which a style transfer of this size sees it."""
    factor = max(size) / max(style.shape[-2:])
    return pictures.resize(style, (max(1, round(style.shape[2] * factor)), max(1, round(style.shape[3] * factor))))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[2], image.shape[3]
