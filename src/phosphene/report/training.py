"""The page of a training: how good the classifier is, where it errs, and what to look at in the photographs themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.recipe import versions
from phosphene.report.page import Figure, Page, Section, Table, render
from phosphene.report.stage import figure

ROWS = 30
"""Rows of a table at most."""
TITLES = {"probe": "A linear probe", "finetune": "A fine-tuned network"}
HEROES = ("depth", "confusion")


def page(verb: str, outcome: Outcome, parameters: dict[str, Any]) -> str:
    """The page of `probe` or `finetune` as one HTML document, which needs no other file.

    Args:
        verb: the command.
        outcome: pictures by name, all but `confusion` optional: `depth`, `curves`, `confusion`, `classes`, `mistakes`,
            `duplicates`, `suspicious`. Facts: those of `jobs.judged.judge`, and perhaps `net`, and `recipes`, a list of
            `name`, `accuracy` with its interval, and perhaps `balanced` and `seconds`.
        parameters: of the command.
    """
    facts, pictures = outcome.facts, {picture.name: picture for picture in outcome.pictures}
    command = command_line(verb, parameters)
    sections = [section for section in _sections(facts, pictures) if section is not None]
    sections[0] = replace(sections[0], command=command)
    hero = next(pictures[name] for name in HEROES if name in pictures)
    folder = parameters.get("folder", "")
    return render(
        Page(
            title=TITLES.get(verb, verb),
            lead=f"`{_net(facts, parameters)}` on the photographs in `{folder}`, judged on those that it did not learn from.",
            hero=figure(hero, caption="", lossless=True),
            facts=_facts(facts, parameters),
            sections=tuple(sections),
            footer=tuple(versions().items()),
        )
    )


def _sections(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Iterator[Section | None]:
    if "depth" in pictures:
        yield _depth(pictures["depth"])
    if "curves" in pictures:
        yield _curves(pictures["curves"])
    if facts.get("recipes"):
        yield _recipes(facts["recipes"])
    yield _confusion(facts, pictures)
    yield _classes(facts, pictures)
    yield _mistakes(facts, pictures)
    yield _duplicates(facts, pictures)
    yield _suspicious(facts, pictures)


def _depth(picture: Picture) -> Section:
    return _section(
        "depth",
        "How deep the classifier should stand",
        _plot(picture),
        "A linear classifier after each stage of the network, which itself stays as it is. Early layers see edges and"
        " colours, late ones parts and things; for pictures unlike those that the network learned from, a middle stage may"
        " be best.",
        note="Where there is a line of *cross-validation* inside train, it chooses the stage. To choose by the held-out"
        " photographs would make their accuracy look better than it is.",
    )


def _curves(picture: Picture) -> Section:
    return _section(
        "curves",
        "How the training went",
        _plot(picture),
        "The loss is what the training makes small. Where it falls on train and rises on the held-out photographs, the"
        " network begins to learn single photographs by heart.",
    )


def _recipes(recipes: Sequence[Mapping[str, Any]]) -> Section:
    rows = tuple(
        (
            str(row["name"]),
            _interval(row["accuracy"]),
            "–" if row.get("balanced") is None else f"{_mean(row['balanced']):.1%}",
            "–" if row.get("seconds") is None else f"{row['seconds']:,.0f} s",
        )
        for row in recipes
    )
    header = ("recipe", "accuracy, 95% interval", "balanced accuracy", "time")
    return _section(
        "advice",
        "Was the advice right?",
        None,
        "The usual ways to reuse a network, each tried on the same photographs. Where intervals overlap much, the"
        " difference may be chance.",
        table=Table(header, rows),
    )


def _confusion(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Section:
    rows = tuple((row["true"], row["said"], f"{row['images']:,}") for row in facts.get("confused", [])[:10])
    table = Table(("is", "was said to be", "photographs"), rows, "The most frequent confusions.") if rows else None
    return _section(
        "confusion",
        "What is taken for what",
        _plot(pictures["confusion"]),
        "A row for each true class, a column for each class that was said: what is right lies on the diagonal.",
        table=table if len(facts["per_class"]) > 2 else None,
    )


def _classes(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Section:
    order = sorted(facts["per_class"], key=lambda row: (row["recall"] is None, 2 if row["f1"] is None else row["f1"]))
    rows = tuple(
        (
            row["name"],
            f"{row['images']:,}",
            _share(row["precision"]),
            "–" if row["recall"] is None else _interval(row["recall"]),
            "–" if row["f1"] is None else f"{row['f1']:.3f}",
        )
        for row in order[:ROWS]
    )
    header = ("class", "photographs", "precision", "recall, 95% interval", "F1")
    return _section(
        "classes",
        "Class by class",
        _plot(pictures["classes"]) if "classes" in pictures else None,
        "*Recall* is how much of a class is recognised, *precision* how often the network is right when it says so, *F1*"
        " their harmonic mean. *Balanced accuracy* is the mean recall, in which a small class counts as much as a large one.",
        f"The *expected calibration error* is {facts['calibration_error']:.3f}: by so much, on average, the probability of"
        f" what is said misses how often it is right. The *log loss* is {facts['log_loss']:.3f}.",
        table=Table(header, rows, _more(len(order), "class", "classes")),
    )


def _mistakes(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Section:
    if "mistakes" not in pictures:
        count = f"{facts['images']:,}"
        return _section(
            "mistakes", "Mistakes", None, f"None of the {count} held-out photographs is taken for another class."
        )
    return _section(
        "mistakes",
        "The most confident mistakes",
        _sheet(pictures, "mistakes"),
        "Where the network is surest and wrong. Grad-CAM shows what speaks for the class that it said: often something else"
        " in the picture, a background that usually comes with that class, or a label that is wrong.",
    )


def _duplicates(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Section:
    between, twice = facts.get("duplicates", []), facts.get("twice", [])
    title = "Photographs that are there twice"
    if not between and not twice:
        words = "No held-out photograph was found among those to learn from, and none of these twice."
        return _section("duplicates", title, None, words)
    rows = tuple(
        (row["image"], row["other"], row["kind"], _labels(row["label"], row["other_label"]))
        for row in (*between, *twice)[:ROWS]
    )
    return _section(
        "duplicates",
        title,
        _sheet(pictures, "duplicates"),
        _seen(len(between)) if between else "No held-out photograph was found among those to learn from.",
        _seen_twice(len(twice)) if twice else "",
        table=Table(
            ("photograph", "the same as", "how", "label"), rows, _more(len(between) + len(twice), "pair", "pairs")
        ),
    )


def _seen(count: int) -> str:
    are = _count(count, "held-out photograph is", "held-out photographs are")
    return (
        f"{are} among those to learn from, too, perhaps smaller, mirrored or saved anew. There the network has seen the"
        " answer before, so its accuracy looks better than it is: take them out on one side."
    )


def _seen_twice(count: int) -> str:
    return (
        f"Inside train, {_count(count, 'pair shows', 'pairs show')} one picture, which so counts twice; where the two have"
        " different labels, one of them is wrong."
    )


def _suspicious(facts: Mapping[str, Any], pictures: Mapping[str, Picture]) -> Section:
    found = facts.get("suspicious", [])
    title = "Labels to look at again"
    if not found:
        return _section("suspicious", title, None, "No label is clearly contradicted by the other photographs.")
    rows = tuple(
        (row["image"], row["label"], row["suggested"], _share(row["probability"]), _share(row["own"]))
        for row in found[:ROWS]
    )
    header = ("photograph", "label", "looks like", "probability", "of its own label")
    return _section(
        "suspicious",
        title,
        _sheet(pictures, "suspicious"),
        f"{_count(len(found), 'label is', 'labels are')} contradicted by a classifier that learned from other photographs"
        " only, a fold at a time (confident learning, Northcutt et al. 2021).",
        note="This is a hint to look, not a verdict: a rare view, or two things in one photograph, look the same to it as a"
        " wrong label.",
        table=Table(header, rows, _more(len(found), "label", "labels")),
    )


# -- parts --------------------------------------------------------------------------------------------------------------


def _section(
    key: str, title: str, picture: Figure | None, *words: str, note: str = "", table: Table | None = None
) -> Section:
    return Section(
        key=key, title=title, slide="", command="", seconds=0, note=note, words=tuple(text for text in words if text),
        figures=() if picture is None else (picture,), tables=() if table is None else (table,),
    )  # fmt: skip


def _plot(picture: Picture) -> Figure:
    """A plot, as wide as the page where it would be too small to read otherwise."""
    return figure(picture, wide=_is_wide(picture), lossless=True)


def _sheet(pictures: Mapping[str, Picture], name: str) -> Figure | None:
    """The sheet of this name, if there is one; one of few pictures is not blown up."""
    return figure(pictures[name], wide=_is_wide(pictures[name])) if name in pictures else None


def _is_wide(picture: Picture) -> bool:
    return picture.image.shape[-1] > 800


def _facts(facts: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    twins = len(facts.get("duplicates", []))
    also = f", {twins:,} of them also in train" if twins else ""
    return (
        ("Accuracy on held-out photographs, 95% interval", _interval(facts["accuracy"])),
        ("Balanced accuracy, 95% interval", _interval(facts["balanced_accuracy"])),
        ("Held-out photographs", f"{facts['images']:,}{also}"),
        ("Classes", f"{len(facts['per_class']):,}"),
        ("Network", _net(facts, parameters)),
    )


def _net(facts: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    return str(facts.get("net") or parameters.get("net") or "a network")


def _interval(found: Any) -> str:
    """`94.3% (89.5 to 97.0)`; a plain number without its interval."""
    if not isinstance(found, Mapping):
        return _share(found)
    return f"{found['mean']:.1%} ({100 * found['low']:.1f} to {100 * found['high']:.1f})"


def _mean(found: Any) -> float:
    return found["mean"] if isinstance(found, Mapping) else found


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _labels(one: str, other: str) -> str:
    return one if one == other else f"{one} and {other}"


def _count(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _more(count: int, one: str, several: str) -> str:
    """What a table leaves out."""
    return f"The first {ROWS} of {_count(count, one, several)}." if count > ROWS else ""
