"""`attack`: attacks on every photograph of a folder, kept photograph by photograph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene import processes
from phosphene.attacks import ATTACKS, Result, checks
from phosphene.attacks import attack as run_attack
from phosphene.attacks.named import check, named
from phosphene.attacks.victim import gives_probabilities
from phosphene.errors import ImageError, PhospheneError
from phosphene.jobs.attacked import summary
from phosphene.jobs.fool_parts import seen_in
from phosphene.jobs.labelled import Labelled, coloured, labelled, photograph
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.names import file_names
from phosphene.progress import Job, Started, Step, relay
from phosphene.recipe import hash_file
from phosphene.report.attack_plots import accuracies

TOGETHER = 16
"""Photographs that are attacked together. A resumed run takes the same ones together, so that it ends with the same bytes."""

RADII = {"linf": 2 / 255, "l2": 0.5}
"""The radius where none is given, for attacks that need one."""

Row = dict[str, Any]
"""What one attack did to one photograph, see `attack`."""


@dataclass(frozen=True, eq=False)
class Made:
    """A row, and what it tells of: `original` and `image` `[3, H, W]`, both as 8-bit files hold them."""

    row: Row
    original: Tensor
    image: Tensor


@dataclass(frozen=True, eq=False)
class _Work:
    """What is to be done to which photographs; `names` are for files."""

    network: Network
    found: Labelled
    hashes: Sequence[str]
    names: Sequence[str]
    attacks: Mapping[str, Mapping[str, Any]]
    target: int | None

    def key(self, place: int, name: str) -> str:
        """What tells a row from all others: the photograph, its bytes, what is true of it, and the attack."""
        told = f"{self.found.shown(place)}:{self.hashes[place]}:{self.found.labels[place]}"
        return f"{hashlib.sha256(told.encode('utf-8', 'surrogateescape')).hexdigest()[:24]}:{name}"

    def holds(self, known: Mapping[str, Row], place: int, name: str) -> bool:
        """Whether a row is known, and its files have the names that they would have today."""
        row = known.get(self.key(place, name))
        return row is not None and row["name"] == self.names[place]


def attack(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    attacks: Sequence[str] = ("pgd",),
    eps: float | None = None,
    norm: str | None = None,
    steps: int | None = None,
    target: str | None = None,
    truth: str = "auto",
    images: int = 0,
    only: str | None = None,
    seed: int = 0,
    known: Mapping[str, Row] | None = None,
    keep: Callable[[Sequence[Made]], None] | None = None,
) -> Job[Outcome]:
    """Pictures: `accuracy`, how many photographs are right before and after; with `only`, its `NAME--ATTACK` before that.

    Facts: `attacks`, for each what became of the folder; `worst`, where for each photograph the strongest counts; `rows`, one
    for each photograph and attack: `key`, `image` (below the folder), `name` (of files), `label`, `before`, `wrong` (misread
    as it is, so not attacked), `attack`, `success`, `after` (read back from a file's bytes), `survives` (still a success
    then), `l2`, `linf`, `forwards`, `backwards`; or `skipped`, why there is nothing to tell.

    Args:
        workshop: gives networks and photographs.
        folder, net, weights, labels: what is attacked.
        attacks: names, see `ATTACKS`.
        eps: the radius in units of [0, 1]; None: 2/255, or 0.5 in l2, for those that need one.
        norm: `linf` or `l2`; None: what is usual for each attack.
        steps: None: each attack's own number.
        target: the class to reach; photographs of it are skipped.
        truth: where the true classes come from, see `labelled`.
        images: so many, evenly spread; 0: all.
        only: one photograph, by its path below the folder; those that are attacked together with it come along.
        seed: decides everything random.
        known: rows of an earlier run, by key.
        keep: is handed what was made, again and again.

    Raises:
        PhospheneError: see `attacks.attack` and `labelled`.
    """
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    network.need_classifier("attack")
    aim = None if target is None else network.classes([target])[0]
    called = _called(attacks, eps, norm, steps, aim, seed, gives_probabilities(network))
    found = labelled(workshop, folder, network, truth).first(images)
    names = file_names(path.stem for path in found.paths)
    hashes = [hash_file(path) for path in found.paths]
    work = _Work(network, found, hashes, names, called, aim)
    yield Started(f"attack {net}", len(found.paths), "image")
    rows: dict[int, list[Row]] = {}
    shown: list[Picture] = []
    for chunk in _chunks(work, only):
        rows[chunk.start], made = yield from _chunk(work, chunk, {} if only else known or {}, keep)
        shown += [_picture(one) for one in made if one.row["image"] == only]
        yield Step(chunk.stop)
    rows = processes.merged(rows)
    processes.leave()
    return _outcome(work, net, norm, [row for some in rows.values() for row in some], shown)


def _called(
    attacks: Sequence[str],
    eps: float | None,
    norm: str | None,
    steps: int | None,
    target: int | None,
    seed: int,
    probabilities: bool,
) -> dict[str, dict[str, Any]]:
    """The keywords that each attack is called with. Raises a PhospheneError for what one can't be asked for."""
    if not attacks:
        raise PhospheneError(f"no attack is named: choose from {', '.join(ATTACKS)}")
    called: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(attacks):
        one = named(name)
        measure = norm or one.norms[0]
        if eps:
            checks.visible(eps, measure)
        own = {
            "eps": RADII.get(measure) if eps is None and not one.smallest else eps,
            "norm": measure,
            "steps": None if one.counted is None and len(attacks) > 1 else steps,
        }
        check(one, aimed=target is not None, **own)
        other = next((one for one in called if called[one]["norm"] != measure), None)
        if eps is not None and other is not None:
            raise PhospheneError(
                f"{other} measures in {called[other]['norm']} and {name} in {measure}, so that one --eps means two things:"
                " give --norm, or attack twice"
            )
        called[name] = {**own, "seed": seed, "quantize": True, "probabilities": probabilities}
    return called


def _chunks(work: _Work, only: str | None) -> list[range]:
    """The photographs that are this process's work, in the groups in which they are attacked."""
    every = processes.mine(len(work.found.paths), TOGETHER)
    if only is None:
        return every
    places = [place for place in range(len(work.found.paths)) if work.found.shown(place) == only]
    if not places:
        raise ImageError(f"'{work.found.root}' holds no photograph '{only}' that would be attacked")
    return [chunk for chunk in every if places[0] in chunk]


def _chunk(
    work: _Work, chunk: range, known: Mapping[str, Row], keep: Callable[[Sequence[Made]], None] | None
) -> Job[tuple[list[Row], list[Made]]]:
    """The rows of a few photographs, and what was made anew."""
    photos: dict[int, Tensor | str] = {}
    rows: list[Row] = []
    fresh: list[Made] = []
    for name in work.attacks:
        keys = {place: work.key(place, name) for place in chunk}
        if all(work.holds(known, place, name) for place in chunk):
            rows += [known[key] for key in keys.values()]
            continue
        photos = photos or {place: _read(work, place) for place in chunk}
        made = yield from relay(_attacked(work, name, photos, keys), lambda _: Step(chunk.start))
        if keep is not None and any("skipped" not in one.row for one in made):
            keep(made)
        rows += [one.row for one in made]
        fresh += made
    return rows, fresh


def _read(work: _Work, place: int) -> Tensor | str:
    """A photograph, or why it is left out."""
    if work.target is not None and work.found.labels[place] == work.target:
        return "it is of the target's class already"
    try:
        return photograph(work.network, work.found.paths[place])
    except ImageError as problem:
        return str(problem)


def _attacked(work: _Work, name: str, photos: Mapping[int, Tensor | str], keys: Mapping[int, str]) -> Job[list[Made]]:
    """One attack on a few photographs."""
    network = work.network
    read = {place: photo for place, photo in photos.items() if isinstance(photo, Tensor)}
    seen = dict(zip(read, network.predict(torch.stack(list(read.values())), 1), strict=True)) if read else {}
    truth = {place: work.found.labels[place] for place in read}
    truth = {place: seen[place].indices[0] if label is None else label for place, label in truth.items()}
    going = {place: photo for place, photo in read.items() if truth[place] != work.target}
    made: dict[int, Made] = {}
    if going:
        batch = torch.stack(list(going.values()))
        labels = [truth[place] for place in going]
        aims = None if work.target is None else [work.target] * len(going)
        result = yield from run_attack(name, network, batch, labels, targets=aims, **work.attacks[name])
        for at, place in enumerate(going):
            made[place] = _made(work, name, keys[place], place, result, at)
    rest = {
        place: photo if isinstance(photo, str) else "the network sees the target in it already"
        for place, photo in photos.items()
        if place not in made
    }
    empty = torch.zeros(3, 1, 1)
    for place, why in rest.items():
        row = {
            "key": keys[place],
            "image": work.found.shown(place),
            "name": work.names[place],
            "attack": name,
            "skipped": why,
        }
        made[place] = Made(row, empty, empty)
    return [made[place] for place in sorted(made)]


def _made(work: _Work, name: str, key: str, place: int, result: Result, at: int) -> Made:
    network = work.network
    original, image = coloured(result.originals[at]), coloured(result.images[at])
    label = int(result.labels[at])
    file = pictures.decode(pictures.encode(image)).to(network.mean)
    before, after = (seen_in(network, image[None].to(network.mean)) for image in (original, file[0]))
    wanted = after["index"] != label if work.target is None else after["index"] == work.target
    success = bool(result.success[at])
    row = {
        "key": key,
        "image": work.found.shown(place),
        "name": work.names[place],
        "label": {"index": label, "name": network.labels[label]},
        "before": before,
        "wrong": bool(result.wrong[at]),
        "attack": name,
        "success": success,
        "after": after,
        "survives": success and wanted,
        "l2": float(result.l2[at]),
        "linf": float(result.linf[at]),
        "forwards": int(result.forwards[at]),
        "backwards": int(result.backwards[at]),
    }
    return Made(row, original, image)


def _picture(made: Made) -> Picture:
    row = made.row
    if "skipped" in row:
        raise PhospheneError(f"'{row['image']}' was not attacked: {row['skipped']}")
    alt = f"A photograph of {row['label']['name']}, changed by {row['attack']}, seen as {row['after']['name']}"
    return Picture(f"{row['name']}--{row['attack']}", made.image, alt)


def _outcome(work: _Work, net: str, norm: str | None, rows: list[Row], shown: list[Picture]) -> Outcome:
    told = [row for row in rows if "skipped" not in row]
    skipped = {row["image"]: row["skipped"] for row in rows if "skipped" in row}
    if not told:
        raise PhospheneError(
            f"none of the {len(work.found.paths)} photographs could be attacked: {next(iter(skipped.values()))}"
        )
    facts = {
        "net": net,
        "truth": work.found.truth,
        "target": None if work.target is None else {"index": work.target, "name": work.network.labels[work.target]},
        "probabilities": next(iter(work.attacks.values()))["probabilities"],
        **summary(told, work.attacks),
        "rows": rows,
        "skipped": skipped,
    }
    alt = f"Accuracy of {net} before and after each attack"
    return Outcome((*shown, Picture("accuracy", accuracies(facts), alt)), facts)
