"""Writing a job's pictures: checked before the work begins, all of them or none, each with its recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from phosphene.errors import OutputError

if TYPE_CHECKING:
    from phosphene.cli.options import Output, Said, Source
    from phosphene.jobs.outcome import Outcome

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")


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
) -> Outcome:
    """Run a verb and write its pictures.

    Args:
        verb: which job.
        parameters: what the job takes; they go into the recipe.
        source: weights, labels and device.
        output: a folder gets every picture as `STEM-VERB[-NAME].png`; a file gets the one that matters.
        said: what to print.
        stem: the beginning of file names.
        single: the picture that a single file gets; default: the verb's main one.
        lossless: refuse formats that would change the pixels.
    """
    target = output.out
    is_file = target.suffix.lower() in SUFFIXES
    if lossless and target.suffix.lower() in (".jpg", ".jpeg"):
        raise OutputError("a JPEG changes pixels by more than the fooling does: write .png, .webp or .tiff")
    main = target if is_file else target / f"{_safe(stem)}-{verb}.png"
    check_writable(main, output.overwrite)

    from phosphene.cli import terminal
    from phosphene.jobs import job
    from phosphene.jobs.workshop import Workshop

    workshop = Workshop(source.device)
    outcome: Outcome = terminal.run(job(verb, workshop, parameters), said)
    chosen = [outcome.picture(single or outcome.pictures[0].name)] if is_file else list(outcome.pictures)
    paths = [main if is_file or picture is outcome.pictures[0] else _part(main, picture.name) for picture in chosen]
    recipes = [workshop.recipe(verb, parameters, picture.name).to_json() for picture in chosen]
    written = write([(p, c.image, r) for p, c, r in zip(paths, chosen, recipes, strict=True)], output.overwrite)
    for path in written:
        terminal.say(f"wrote {path}", said)
    terminal.facts({"command": verb, "pictures": [str(path) for path in written], **outcome.facts}, said)
    return outcome


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


def check_writable(path: Path, overwrite: bool) -> None:
    """Make the folder of `path`. Raises OutputError if it can't be written there, or if the file exists and is to stay."""
    import os

    folder = path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"can't make the folder '{folder}': {problem.strerror or problem}") from problem
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"can't write into the folder '{folder}': choose another with --out")
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: a file name is needed there")
    if path.exists() and not overwrite:
        raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --out")


def _part(main: Path, name: str) -> Path:
    return main.with_name(f"{main.stem}-{_safe(name)}{main.suffix}")


def _safe(name: str) -> str:
    kept = "".join(letter if letter.isalnum() or letter in "._" else "-" for letter in name)
    return "-".join(part for part in kept.split("-") if part) or "picture"
