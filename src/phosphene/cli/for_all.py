"""`universal` and `patch`: one change, or one sticker, for all photographs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.folders import Truth, need_apart, need_folder, tell_of_network
from phosphene.cli.options import Net, Output, Said, Source
from phosphene.cli.radius import radius

Folder = Annotated[
    Path, Parameter(help="A folder of photographs, or of a folder of them for each class; or sample:all.")
]
Target = Annotated[
    str | None, Parameter(help="The class to be seen instead: name, index or synset; default: any other.")
]
Images = Annotated[int, Parameter(help="So many photographs, evenly spread; 0: all.")]


def universal(
    folder: Folder,
    *,
    target: Target = None,
    net: Net = "squeezenet1_1",
    eps: Annotated[str | None, Parameter(help="The largest change, such as 10/255 (the default; l2: 10).")] = None,
    norm: Annotated[Literal["linf", "l2"], Parameter(help="How it is measured.")] = "linf",
    passes: Annotated[int, Parameter(help="How often each photograph is looked at.")] = 20,
    truth: Truth = "auto",
    images: Images = 500,
    seed: Annotated[int, Parameter(help="Of the order of the photographs.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Find one change that fools the network on most photographs, also on those that it wasn't made on.

    A quarter of the photographs is kept back to try it on, beside noise of the same size.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    need_folder(folder, "fooled")
    need_apart(output.out, folder)
    parameters = {
        "folder": str(folder), "target": target, "net": net, **source.parameters(),
        "eps": None if eps is None else radius(eps, norm), "norm": norm, "passes": passes, "truth": truth,
        "images": images, "seed": seed,
    }  # fmt: skip
    outcome = write.make("universal", parameters, source, output, said, stem=net)
    _tell(outcome.facts, "noise of the same size", said)


def patch(
    folder: Folder,
    *,
    target: Target = None,
    net: Net = "squeezenet1_1",
    side: Annotated[float, Parameter(help="How wide the patch is, as a share of a photograph's shorter side.")] = 0.35,
    shape: Annotated[Literal["circle", "square"], Parameter(help="Its shape.")] = "circle",
    steps: Annotated[int, Parameter(help="Steps of gradient ascent.")] = 200,
    rotate: Annotated[float, Parameter(help="It works turned by so many degrees, either way.")] = 22.5,
    truth: Truth = "auto",
    images: Images = 500,
    seed: Annotated[int, Parameter(help="Of the places where it is pasted.")] = 0,
    source: Source | None = None,
    output: Output | None = None,
    said: Said | None = None,
) -> None:
    """Paint a sticker that makes the network see a class wherever it is pasted (an adversarial patch).

    A quarter of the photographs is kept back to try it on, beside a patch of noise.
    """
    source, output, said = source or Source(), output or Output(), said or Said()
    need_folder(folder, "fooled")
    need_apart(output.out, folder)
    parameters = {
        "folder": str(folder), "target": target, "net": net, **source.parameters(), "side": side, "shape": shape,
        "steps": steps, "rotate": rotate, "truth": truth, "images": images, "seed": seed,
    }  # fmt: skip
    outcome = write.make("patch", parameters, source, output, said, stem=net)
    _tell(outcome.facts, "a patch of noise", said)


def _tell(facts: Mapping[str, Any], control: str, said: Said) -> None:
    for image, why in facts["skipped"].items():
        terminal.warn(f"left out {image}: {why}", said)
    tell_of_network(facts, said)
    if said.json or said.quiet:
        return
    rows = [
        (what, f"{facts[key]['mean']:.1%}", f"{facts[key]['low']:.1%} to {facts[key]['high']:.1%}")
        for what, key in (
            (f"{facts['made_on']} photographs that it was made on", "made"),
            (f"{facts['tried_on']} others", "tried"),
            (f"{control}, on these", "noise"),
        )
    ]
    terminal.table(("", "fooled", "95% interval"), rows)
    if facts["wrong"] or facts["aimed"]:
        terminal.say(f"Left out: {facts['wrong']} misread as they are, {facts['aimed']} of the target's class.", said)
