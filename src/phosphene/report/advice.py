"""The page of an advice: the table, why the folder lies where it lies, and, verified, whether the advice was right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from phosphene.jobs.advise import said_of
from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.recipe import versions
from phosphene.report.page import Figure, Page, Section, Table, render
from phosphene.report.stage import figure
from phosphene.report.training import _interval

SLIDE = "More generic"


def page(outcome: Outcome, parameters: dict[str, Any]) -> str:
    """The page of `advise` as one HTML document, which needs no other file.

    Args:
        outcome: of the job `advise`.
        parameters: of the command.
    """
    facts, pictures = outcome.facts, {picture.name: picture for picture in outcome.pictures}
    return render(
        Page(
            title="Which way to reuse a network",
            lead=f"`{facts['net']}` and the photographs in `{facts['folder']}`: *{facts['slide']}*",
            hero=figure(pictures["table"], caption="", lossless=True),
            facts=_facts(facts),
            sections=tuple(_sections(facts, pictures, command_line("advise", parameters))),
            footer=tuple(versions().items()),
        )
    )


def _sections(facts: Mapping[str, Any], pictures: Mapping[str, Picture], command: str) -> Iterator[Section]:
    yield _why(facts, command)
    if "recipes" in pictures:
        yield _verified(facts, pictures["recipes"])
    yield _depth(facts, pictures["depth"])


def _facts(facts: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = facts["measured"]
    images = found["images_per_class"]
    distance = "not known for this network" if found["distance"] is None else f"{found['distance']['mean']:.2f}"
    more = (("Was it right?", said_of(facts)),) if "recipes" in facts else ()
    return (
        ("Sureness", f"{facts['sureness']} ({facts['probability']:.0%})"),
        *more,
        ("Photographs of a class", f"{images['median']:,.0f} (the smallest: {images['least']:,})"),
        ("Classes", f"{len(facts['classes']):,}"),
        ("Distance from ImageNet's features (1: like its own photographs)", distance),
        ("Network", facts["net"]),
    )


def _why(facts: Mapping[str, Any], command: str) -> Section:
    """The reasons, the odds, and the command of each recipe."""
    titles = {"top": "linear classifier on the top layer", "stages": "linear classifier from different stages",
              "few-layers": "fine-tune a few layers", "many-layers": "fine-tune a larger number of layers"}  # fmt: skip
    rows = tuple(
        (f"{titles[recipe]}{' (the advice)' if recipe == facts['recipe'] else ''}", words)
        for recipe, words in facts["commands"].items()
    )
    odds = "; ".join(f"{name} {value:+.2f}" for name, value in facts["evidence"].items())
    return _section(
        "why",
        "Why",
        *facts["reasons"],
        note=f"Log odds of *similar* are the sum of {odds}: a probability of {facts['similar']:.0%}. That of *quite a lot of"
        f" data* is {facts['many']:.0%}. The sureness is that of both together. Only photographs to learn from have a say.",
        tables=(Table(("recipe", "command"), rows, "The four cells of the table as commands."),),
        command=command,
        slide=SLIDE,
    )


def _verified(facts: Mapping[str, Any], picture: Picture) -> Section:
    rows = tuple(
        (row["name"], _interval(row["accuracy"]), f"{row['balanced']['mean']:.1%}", f"{row['log_loss']:.3f}",
         f"{row['seconds']:,.0f} s")
        for row in facts["recipes"]
    )  # fmt: skip
    return _section(
        "advice",
        "Was the advice right?",
        said_of(facts),
        "The four ways, each tried on the same photographs and judged by the same held-out ones. Both linear classifiers"
        " come out of one pass over the photographs, and share its time.",
        note="Where intervals overlap much, the difference may be chance: it would take more held-out photographs to tell.",
        figures=(_plot(picture),),
        tables=(Table(("recipe", "accuracy, 95% interval", "balanced", "log loss", "time"), rows),),
    )


def _depth(facts: Mapping[str, Any], picture: Picture) -> Section:
    return _section(
        "depth",
        "How deep a linear classifier should stand",
        "A linear classifier after each stage of the network, which itself stays as it is. Where photographs are like those"
        " that the network learned from, the last stage is best or nearly so; where they are not, accuracy falls again before"
        " the end.",
        f"The stage with the least log loss in cross-validation is `{facts['best_stage']}`.",
        figures=(_plot(picture),),
    )


def _section(
    key: str,
    title: str,
    *words: str,
    note: str = "",
    figures: tuple[Figure, ...] = (),
    tables: tuple[Table, ...] = (),
    command: str = "",
    slide: str = "",
) -> Section:
    return Section(
        key=key, title=title, slide=slide, command=command, seconds=0, note=note, words=words, figures=figures, tables=tables
    )  # fmt: skip


def _plot(picture: Picture) -> Figure:
    return figure(picture, wide=picture.image.shape[-1] > 800, lossless=True)
