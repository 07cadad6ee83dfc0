"""A job whose frames become a film: written while it runs, whole or not at all, with its recipe beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phosphene.errors import OutputError
from phosphene.names import file_name

if TYPE_CHECKING:
    from phosphene.cli.options import Output, Said, Source
    from phosphene.jobs.outcome import Outcome


def make_film(
    verb: str,
    parameters: dict[str, Any],
    source: Source,
    output: Output,
    said: Said,
    *,
    stem: str,
    film: str,
    fps: int,
) -> Outcome:
    """Run a verb that hands frames to `keep`; write the film and, beside it, its last frame as a picture.

    Args:
        verb: which job.
        parameters: what it takes; they go into the recipe.
        source: weights, labels and device.
        output: a folder gets `STEM-VERB.mp4` and `STEM-VERB.png`; a file is the film.
        said: what to print.
        stem: the beginning of file names.
        film: `mp4` or `webp`; a file's own ending counts more.
        fps: frames a second.
    """
    from phosphene.cli import terminal
    from phosphene.cli.output import keep_input, reserved, write
    from phosphene.images.film import FILMS, Film, check_film
    from phosphene.images.save import write_whole
    from phosphene.jobs import function_of
    from phosphene.jobs.workshop import Workshop
    from phosphene.recipe import beside

    if not 1 <= fps <= 120:
        raise OutputError(f"a film has 1 to 120 frames a second, got {fps}")
    target = output.out
    single = target.suffix.lower() in FILMS and not target.is_dir()
    if not single and target.suffix and not target.is_dir():
        raise OutputError(
            f"a film is written as .mp4 or .webp, not as '{target.suffix}': give --out a folder, or such a file"
        )
    path = target if single else target / f"{file_name(stem)}-{verb}.{film}"
    check_film(path)
    still = path.with_suffix(".png")
    for file in (path, still):
        keep_input(file, parameters.get("image"))
    with reserved([path, still], output.overwrite):
        workshop = Workshop(source.device)
        with Film(path, fps) as frames:
            job = function_of(verb)(workshop, **parameters, keep=frames.add)
            outcome: Outcome = terminal.run(job, said, workshop)
        first, notes = outcome.pictures[0], {**outcome.notes, "film": {"frames": frames.count, "fps": fps}}
        of_film, of_still = (workshop.recipe(verb, parameters, first.name, n).to_json() for n in (notes, outcome.notes))
        write_whole(beside(path), (of_film + "\n").encode(), overwrite=True)
        write([(still, first.image, of_still)], overwrite=True)  # is made again without a film
    terminal.say(f"wrote {path}: {frames.count} frames, {frames.count / fps:.1f} s", said)
    terminal.say(f"wrote {still}, its last frame", said)
    terminal.facts(
        {"command": verb, "film": str(path), "frames": frames.count, "pictures": [str(still)], **outcome.facts}, said
    )
    return outcome
