"""Making a picture again from its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from phosphene import images
from phosphene.errors import PhospheneError
from phosphene.images.film import FILMS
from phosphene.images.save import FORMATS
from phosphene.jobs import job
from phosphene.jobs.finetune import ENDED
from phosphene.jobs.outcome import Outcome
from phosphene.jobs.workshop import STOPPED, Workshop, code_file
from phosphene.progress import Brake, Event, Job, Started, Step, braked, relay, whole
from phosphene.recipe import Recipe, hash_file


@dataclass(frozen=True)
class Again:
    """The picture made again.

    Attributes:
        data: its file, recipe included, in the format of the original.
        recipe: the recipe in it, with today's versions.
        same_file: whether every byte is the same.
        same_pixels: whether the pixels are.
        changed: what is different from when it was made: versions, weights, device, threads.
    """

    data: bytes
    recipe: Recipe
    same_file: bool
    same_pixels: bool
    changed: tuple[str, ...]


def again(recipe: Recipe, picture: Path, *, run_code: bool = False) -> Job[Again]:
    """Run `recipe` and compare with `picture`, the file that it came with.

    Args:
        recipe: what to run.
        picture: the file to compare with; inputs that have moved are looked for beside it.
        run_code: whether a network that the recipe names as `FILE.py:FUNCTION` may be run. A recipe may come from
            anywhere, so nobody's code is run without being asked for.

    Raises:
        PhospheneError: an input that is gone or has other bytes, or a verb or option that this version doesn't know.
    """
    if recipe.parameters.get("zoom") and picture.suffix.lower() in FILMS:
        still = picture.with_suffix(".png")
        raise PhospheneError(f"'{picture}' is a film, of which the last frame can be made again: give '{still}'")
    kind = FORMATS.get(picture.suffix.removeprefix(".").lower())
    if kind is None:
        raise PhospheneError(f"'{picture}' is no picture: give the .png, .jpg, .webp or .tiff that the recipe is of")
    nets = _strings([recipe.parameters.get("net"), recipe.parameters.get("others")])
    code = next((file for net in nets if (file := code_file(net)) is not None), None)
    if code is not None and not run_code:
        raise PhospheneError(f"this recipe runs the Python file '{code}': give --run-code if you trust it")
    workshop = Workshop(recipe.device, folder=picture.parent, expected=recipe.inputs)
    _check_inputs(recipe, workshop)
    brake = workshop.brake
    brake.at = recipe.notes.get(STOPPED)
    made_by = relay(job(recipe.verb, workshop, recipe.parameters), _pulls(brake, recipe.notes.get(ENDED)))
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        outcome: Outcome = yield from whole(
            braked(made_by, brake)
        )  # Ctrl-C keeps nothing here: it would not be the same picture
    finally:
        torch.set_num_threads(threads)
    now = workshop.recipe(recipe.verb, recipe.parameters, recipe.picture, outcome.notes)
    now = Recipe(**{**now.__dict__, "threads": recipe.threads})
    try:
        made = outcome.picture(recipe.picture)
    except KeyError:
        raise PhospheneError(f"'{recipe.verb}' makes no picture '{recipe.picture}' in this version") from None
    data = images.encode(made.image, kind, note=now.to_json())
    return Again(
        data=data,
        recipe=now,
        same_file=data == picture.read_bytes(),
        same_pixels=bool(torch.equal(images.decode(data), images.read(picture))),
        changed=tuple(_changes(recipe, now)),
    )


def _strings(value: object) -> list[str]:
    """All strings in a parameter, whatever it is: a recipe may come from anywhere."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in _strings(part)]
    if isinstance(value, (list, tuple)):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


def _pulls(brake: Brake, step: int | None) -> Callable[[Event], Event]:
    """Passes events on, and pulls the brake after this step (0: before the first) of the part that keeps what there is."""
    keeps = False

    def watch(event: Event) -> Event:
        nonlocal keeps
        if isinstance(event, Started):
            keeps = event.keeps
        done = event.done if isinstance(event, Step) else 0
        if keeps and done == step:
            brake.pulled = True
        return event

    return watch


def _check_inputs(recipe: Recipe, workshop: Workshop) -> None:
    for path, wanted in recipe.inputs.items():
        there = workshop.find(path)
        if not there.exists():
            raise PhospheneError(f"'{path}' is gone, and no {there.name} lies beside the picture that was made from it")
        if hash_file(there) != wanted:
            raise PhospheneError(f"'{path}' is not the file that the picture was made from (its SHA-256 was {wanted})")


def _changes(before: Recipe, now: Recipe) -> list[str]:
    found = [
        f"{library} {before.versions.get(library, 'none')} -> {now.versions.get(library, 'none')}"
        for library in sorted(before.versions.keys() | now.versions.keys())
        if before.versions.get(library) != now.versions.get(library)
    ]
    found += [f"other weights of {name}" for name in now.networks if before.networks.get(name) != now.networks[name]]
    if before.device != now.device:
        found.append(f"device {before.device} -> {now.device}")
    return found
