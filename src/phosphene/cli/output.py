"""Writing a job's pictures: checked before the work begins, each whole or not at all, each with its recipe."""

from __future__ import annotations

import glob
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from phosphene.errors import OutputError
from phosphene.names import file_name

if TYPE_CHECKING:
    from phosphene.cli.checkpoint import Unfinished
    from phosphene.cli.options import Output, Said, Source
    from phosphene.jobs.outcome import Outcome, Picture
    from phosphene.jobs.workshop import Workshop

Look: TypeAlias = "Callable[[Outcome, dict[str, Path], Workshop], dict[str, Any]]"
"""`(what was made, picture's name -> its file, where networks come from) -> facts`."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_NO_FOLDER = (".heic", ".heif", ".html", ".json", ".svg", ".txt", ".mp4")


def make(
    verb: str,
    parameters: dict[str, Any],
    source: Source,
    output: Output,
    said: Said,
    *,
    stem: str,
    single: str | None = None,
    lossless: bool = False,
    unfinished: bool | None = None,
    look: Look | None = None,
) -> Outcome:
    """Run a verb and write its pictures.

    Args:
        verb: which job.
        parameters: what the job takes; they go into the recipe.
        source: weights, labels and device.
        output: a folder gets every picture as `STEM-VERB[-NAME].png`; a file gets the one that matters.
        said: what to print.
        stem: the beginning of file names.
        single: the picture that a single file gets, where there is one of this name; else the verb's main one.
        lossless: refuse formats that would change the pixels.
        unfinished: for a job that can be resumed: True to go on from where it was left, False to begin.
        look: is shown the files that were written; what it returns is added to the facts.
    """
    target = output.out
    single_file = is_file(target)
    if lossless and target.suffix.lower() in (".jpg", ".jpeg"):
        raise OutputError("a JPEG changes pixels by more than the fooling does: write .png, .webp or .tiff")
    main = target if single_file else target / f"{file_name(stem)}-{verb}.png"
    for given in ("image", "begin", "styles", "masks", "contents"):
        value = parameters.get(given)
        for path in value if isinstance(value, list) else [value]:
            keep_input(main, path)

    from phosphene import processes
    from phosphene.cli import terminal
    from phosphene.jobs import job
    from phosphene.jobs.workshop import Workshop

    if not (single_file or output.overwrite or unfinished):
        _keep_parts(main)
    with reserved([main], output.overwrite or bool(unfinished)):
        workshop = Workshop(source.device)
        left = None if unfinished is None else _left(main, verb, parameters, source.device)
        held = left.load() if left is not None and unfinished else None
        if held is not None:
            workshop.events_before = held["scale"] * parameters["steps"] + held["progress"]["step"]
        extra = {} if left is None else {"save": left.save, "resume": held}
        outcome: Outcome = terminal.run(job(verb, workshop, {**parameters, **extra}), said, workshop)
        processes.leave()
        first = outcome.pictures[0]
        chosen = [_named(outcome, single)] if single_file else list(outcome.pictures)
        paths = [main if single_file or picture is first else _part(main, picture.name) for picture in chosen]
        recipes = [workshop.recipe(verb, parameters, picture.name, outcome.notes).to_json() for picture in chosen]
        written = write(
            [(p, c.image, r) for p, c, r in zip(paths, chosen, recipes, strict=True)],
            output.overwrite or bool(unfinished),
        )
        if left is not None and "stopped" not in outcome.facts:
            left.done()
    if look is not None:
        files = {picture.name: path for picture, path in zip(chosen, written, strict=True)}
        outcome = replace(outcome, facts={**outcome.facts, **look(outcome, files, workshop)})
    for path in written:
        terminal.say(f"wrote {path}", said)
    terminal.facts({"command": verb, "pictures": [str(path) for path in written], **outcome.facts}, said)
    return outcome


def _named(outcome: Outcome, name: str | None) -> Picture:
    """The picture called so, or the main one."""
    return next((picture for picture in outcome.pictures if picture.name == name), outcome.pictures[0])


def _left(main: Path, verb: str, parameters: dict[str, Any], device: str) -> Unfinished:
    """The file of a job that can be resumed, keyed by the files that its parameters name."""
    from phosphene.cli.checkpoint import Unfinished

    given = [item for value in parameters.values() for item in (value if isinstance(value, list) else [value])]
    return Unfinished(main, verb, {**parameters, "device": device}, [item for item in given if isinstance(item, str)])


def write(pictures: list[tuple[Path, Any, str]], overwrite: bool) -> list[Path]:
    """Save `(path, image [3, H, W], recipe JSON)`, each with its recipe inside and beside it. Existing files are kept.

    Raises:
        OutputError: one exists (nothing is written then), or can't be written.
    """
    from phosphene import images
    from phosphene.images.save import write_whole
    from phosphene.recipe import beside

    for path, _, _ in pictures:
        check_writable(path, overwrite)
    for path, image, recipe in pictures:
        images.save(image, path, note=recipe, overwrite=overwrite)
        write_whole(beside(path), (recipe + "\n").encode(), overwrite=True)
    return [path for path, _, _ in pictures]


def drop_stale(pictures: Iterable[Path], kept: Collection[Path], verbs: Sequence[str]) -> None:
    """Remove pictures that an earlier run of one of the `verbs` has left and this one hasn't made: they'd tell of another."""
    from phosphene.errors import PhospheneError
    from phosphene.recipe import beside, read

    for picture in pictures:
        if picture in kept or not picture.is_file():
            continue
        try:
            ours = read(picture).verb in verbs
        except PhospheneError:
            continue
        if ours:
            picture.unlink()
            beside(picture).unlink(missing_ok=True)


def is_file(target: Path) -> bool:
    """Whether `--out` names one file rather than a folder. Raises OutputError for a file that can't be written."""
    from PIL import Image

    suffix = target.suffix.lower()
    other = suffix not in SUFFIXES and (suffix in Image.registered_extensions() or suffix in _NO_FOLDER)
    if other and not target.is_dir():
        raise OutputError(f"'{target}' can't be written as {suffix}: give a folder, or a .png, .jpg, .webp or .tiff")
    return suffix in SUFFIXES


@contextmanager
def reserved(paths: Sequence[Path], overwrite: bool) -> Iterator[None]:
    """Check that files can be written before the work begins, and make their folders; take these back if it fails.

    Of several processes the first does so: the others find folders when they have met it (`processes.begin`).

    Raises:
        OutputError: one can't be written, or exists and is to stay.
    """
    from phosphene import processes

    if not processes.first():
        yield
        return
    made: list[Path] = []
    try:
        for path in paths:
            _make_folder(path.parent, made)
            check_writable(path, overwrite)
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # something lies in it
                folder.rmdir()
        raise


def _make_folder(folder: Path, made: list[Path]) -> None:
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            place.mkdir()
            made.append(place)
    except OSError as problem:
        raise OutputError(f"can't make the folder '{folder}': {problem.strerror or problem}") from problem


def check_writable(path: Path, overwrite: bool) -> None:
    """Raise OutputError if `path` can't be written, or if it exists and is to stay."""
    import os

    from phosphene.recipe import beside

    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"can't write '{path}': '{folder}' is no folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"can't write into the folder '{folder}': choose another with --out")
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: a file name is needed there")
    if path.exists() and not overwrite:
        raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --out")
    if beside(path).exists() and not _is_recipe(beside(path)):
        raise OutputError(f"'{beside(path)}' exists and is no recipe, so it is kept: give another --out")


def _is_recipe(path: Path) -> bool:
    from phosphene.recipe import Recipe

    try:
        Recipe.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        return False
    return True


def _keep_parts(main: Path) -> None:
    """Refuse before the work what `write` would refuse after it: pictures of an earlier run that would be replaced."""
    from phosphene.recipe import beside

    for part in sorted(main.parent.glob(f"{glob.escape(main.stem)}-*{main.suffix}")):
        if beside(part).exists():
            check_writable(part, overwrite=False)


def keep_input(main: Path, image: object) -> None:
    """Raise OutputError if `main` is a picture that is read: it is kept, also with --overwrite."""
    if isinstance(image, str) and main.exists() and Path(image).exists() and main.samefile(image):
        raise OutputError(f"'{main}' is the photograph itself, which is kept: give another --out")


def _part(main: Path, name: str) -> Path:
    return main.with_name(f"{main.stem}-{file_name(name)}{main.suffix}")
