"""`cue-conflict`: stimuli with the shape of one class and the texture of another, for `shape-bias`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.errors import ImageError, OutputError, PhospheneError

if TYPE_CHECKING:
    from torch import Tensor

    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import Job
    from phosphene.recipe import Recipe
    from phosphene.synthesize.cue_pairs import Cue, Pair

VERB, STIMULI, SHEET = "cue-conflict", "stimuli", "cue-conflict.png"
_SHOWN, _SIDE = 8, 128  # rows and columns of the contact sheet; pixels of each of its pictures
_NOTE = "contact sheet of phosphene cue-conflict"
_PAIRS = Group("Pairs", sort_key=2)
_LOSS = Group("How they are painted", sort_key=3)
_FLAT = re.compile(r"(.*?)([0-9]+)", re.DOTALL)


def cue_conflict(
    contents: Annotated[
        Path,
        Parameter(help="Photographs that give shapes: a folder for each class, or files named cat1.jpg, car2.jpg."),
    ],
    styles: Annotated[Path, Parameter(help="Photographs that give textures, likewise: close-ups of fur, skin, steel.")],
    *,
    pairs: Annotated[
        str | None,
        Parameter(group=_PAIRS, help="So many, or all; default: each content with one style of each other class."),
    ] = None,
    same: Annotated[
        bool, Parameter(group=_PAIRS, negative="", show_default=False, help="Also pair images of the same class.")
    ] = False,
    seed: Annotated[int, Parameter(group=_PAIRS, help="Of which images meet.")] = 0,
    net: Net = "squeezenet1_1",
    size: Annotated[int, Parameter(group=_LOSS, help="Side of the stimuli: middle squares of the photographs.")] = 224,
    content_weight: Annotated[float, Parameter(group=_LOSS, help="Alpha: how much of the shape stays.")] = 1.0,
    style_weight: Annotated[float, Parameter(group=_LOSS, help="Beta: how much the texture counts.")] = 20.0,
    steps: Annotated[int, Parameter(group=_LOSS, help="Of the optimiser, for each stimulus.")] = 100,
    out: Annotated[
        Path, Parameter(group=OUTPUT, help="Folder for the stimuli, by the class of their shape, and a contact sheet.")
    ] = Path("phosphene-cue-conflict"),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace stimuli made in another way.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Make images with the shape of one thing and the texture of another, for shape-bias (Geirhos et al.).

    Run again, it goes on where it was interrupted.
    """
    source, said = source or Source(), said or Said()
    count = _count(pairs)
    given = {"net": net, **source.parameters(), "size": size, "content_weight": content_weight,
             "style_weight": style_weight, "steps": steps}  # fmt: skip
    if write.is_file(out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"'{out}' is one file: --out needs a folder")
    for folder in (contents, styles):
        if not folder.is_dir():
            raise ImageError(_no_folder(folder))
    from phosphene.jobs.cue_conflict import check_size, settings_of
    from phosphene.jobs.workshop import Workshop
    from phosphene.synthesize.cue_pairs import cue_pairs

    settings_of(content_weight, style_weight, steps)
    check_size(size)
    _check_sheet(out / SHEET, overwrite)
    workshop = Workshop(source.device)
    workshop.network(net, *source.parameters().values())
    skipped: dict[str, str] = {}
    shapes, textures = read_cues(contents, skipped), read_cues(styles, skipped)
    terminal.run(_try_all([*shapes, *textures], skipped), said, workshop)
    shapes, textures = ([cue for cue in cues if str(cue.path) not in skipped] for cues in (shapes, textures))
    if not shapes or not textures:
        raise ImageError(f"no image of '{styles if shapes else contents}' can be read: {next(iter(skipped.values()))}")
    chosen = cue_pairs(shapes, textures, count=count, same=same, seed=seed)
    for path, why in skipped.items():
        terminal.warn(f"left out {path}: {why}", said)
    unknown = _unknown(chosen)
    if unknown:
        terminal.warn(
            f"shape-bias knows 16 categories only, and not {', '.join(unknown)}: it refuses their stimuli", said
        )
    work = Stimuli(workshop, given, out, overwrite)
    kept = work.sort(chosen)
    with write.reserved([work.path(pair) for pair in chosen], overwrite=True), write.reserved([out / SHEET], True):
        try:
            terminal.run(work.make(), said, workshop)
        except KeyboardInterrupt:
            done = f"{kept + work.written} of {len(chosen)} stimuli are done"
            terminal.warn(f"{done}; the same command goes on from there", said)
            raise
        _write_sheet(out / SHEET, contact_sheet(chosen, work.path))
    _tell(chosen, work, kept, unknown, skipped, said)


def _count(pairs: str | None) -> int | Literal["all"] | None:
    if pairs is None or pairs == "all":
        return pairs
    try:
        return int(pairs)
    except ValueError:
        raise PhospheneError(f"--pairs takes a number or all, got '{pairs}'") from None


def _no_folder(path: Path) -> str:
    if path.is_file():
        return f"'{path}' is a file: give the folder that holds the classes (phosphene rerun makes a single stimulus again)"
    return f"'{path}' is no folder: give one with a folder of photographs for each class"


# -- the photographs ----------------------------------------------------------------------------------------------------


def read_cues(given: Path, skipped: dict[str, str]) -> list[Cue]:
    """The images of a folder by class; what belongs to no class goes into `skipped`, with why.

    Files named as their class and a number keep it, others are numbered in the order of their names.

    Raises:
        ImageError: no images in it, a class whose name can't be a part of a stimulus's.
    """
    from phosphene import images

    images.find(given)  # there are images at all
    folders = sorted(path for path in given.iterdir() if path.is_dir() and not path.name.startswith("."))
    classes: dict[str, list[Path]] = {}
    for folder in folders:
        try:
            classes[folder.name] = images.find(folder)
        except ImageError as problem:
            skipped[str(folder)] = str(problem)
    loose = _loose(given)
    if not classes:
        return _numbered(_by_name(loose, skipped))
    skipped.update((str(path), f"it lies in none of the class folders of '{given}'") for path in loose)
    return _numbered(classes)


def _loose(folder: Path) -> list[Path]:
    from phosphene import images

    try:
        return images.find(folder, recursive=False)
    except ImageError:
        return []


def _by_name(paths: Sequence[Path], skipped: dict[str, str]) -> dict[str, list[Path]]:
    """Files of a flat folder by class: the letters before the number."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        name = _FLAT.fullmatch(path.stem)
        if name is None or not name[1]:
            skipped[str(path)] = (
                "its name tells no class, as that of cat1.jpg does: or put it into a folder of its class"
            )
        else:
            found.setdefault(name[1], []).append(path)
    if not found:
        folder = paths[0].parent
        raise ImageError(
            f"'{folder}' has no folder for each class, and no file in it tells its class, as cat1.jpg does"
        )
    return found


def _numbered(classes: Mapping[str, Sequence[Path]]) -> list[Cue]:
    from phosphene.synthesize.cue_pairs import Cue

    found: list[Cue] = []
    for category, paths in sorted(classes.items()):
        if re.fullmatch("[a-z]+", category) is None:
            raise ImageError(
                f"a class is named by the letters a to z, so that cat1-car3.png can be told apart, and not '{category}'"
                f" ({paths[0]})"
            )
        numbers = _numbers(category, paths)
        found += [Cue(category, number, path) for number, path in zip(numbers, paths, strict=True)]
    return found


def _numbers(category: str, paths: Sequence[Path]) -> list[int]:
    """Those in the names, if all have one and no two the same; else from 1 up."""
    names = [_FLAT.fullmatch(path.stem) for path in paths]
    own = [int(name[2]) for name in names if name is not None and name[1] == category]
    return own if len(set(own)) == len(paths) else list(range(1, len(paths) + 1))


def _try_all(cues: Sequence[Cue], skipped: dict[str, str]) -> Job[None]:
    """Read every image once: those that can't be go into `skipped`, with why."""
    from phosphene import images
    from phosphene.progress import Started, Step

    paths = list(dict.fromkeys(cue.path for cue in cues))
    yield Started("photographs", len(paths), "image")
    for done, path in enumerate(paths, start=1):
        try:
            images.read(path)
        except ImageError as problem:
            skipped[str(path)] = str(problem)
        yield Step(done)


def _unknown(pairs: Sequence[Pair]) -> list[str]:
    from phosphene.observe.categories16 import CATEGORIES

    return sorted({cue.category for pair in pairs for cue in (pair.shape, pair.texture)} - set(CATEGORIES))


# -- the stimuli --------------------------------------------------------------------------------------------------------


class Stimuli:
    """Makes the stimuli of one call, one by one, and keeps those that an earlier one made in the same way."""

    def __init__(self, workshop: Workshop, parameters: dict[str, Any], out: Path, overwrite: bool) -> None:
        self.workshop, self.parameters, self.out, self.overwrite = workshop, parameters, out, overwrite
        self.waiting: list[Pair] = []
        self.switches = self.written = 0
        self._hashes: dict[str, str] = {}

    def path(self, pair: Pair) -> Path:
        """`OUT/stimuli/cat/cat1-car3.png`."""
        return self.out / STIMULI / pair.shape.category / f"{pair.name}.png"

    def sort(self, pairs: Sequence[Pair]) -> int:
        """Find those that have to be made; returns how many are there.

        Raises:
            OutputError: a file of that name was made in another way, or not by this command at all.
        """
        for pair in pairs:
            path = self.path(pair)
            same = path.is_file() and self._is_made(pair)
            if path.exists() and not (same or self.overwrite):
                raise OutputError(
                    f"'{path}' was made in another way, and is kept: give --overwrite to replace it, or another --out"
                )
            if not same:
                self.waiting.append(pair)
        return len(pairs) - len(self.waiting)

    def _is_made(self, pair: Pair) -> bool:
        """Whether the file is what this call would make."""
        from phosphene.recipe import read

        try:
            before: Recipe = read(self.path(pair))
        except PhospheneError:
            return False
        wanted = self.workshop.fresh()
        wanted.network(self.parameters["net"], self.parameters["weights"], self.parameters["labels"])
        inputs = {**wanted.inputs, **{str(cue.path): self._hash(cue.path) for cue in (pair.shape, pair.texture)}}
        return (before.verb, before.picture, before.parameters, before.inputs, before.networks) == (
            VERB, VERB, self._parameters(pair), inputs, wanted.networks,
        )  # fmt: skip

    def _hash(self, path: Path) -> str:
        from phosphene.recipe import hash_file

        if str(path) not in self._hashes:
            self._hashes[str(path)] = hash_file(path)
        return self._hashes[str(path)]

    def _parameters(self, pair: Pair) -> dict[str, Any]:
        return {"image": str(pair.shape.path), "styles": str(pair.texture.path), **self.parameters}

    def make(self) -> Job[None]:
        """Make and write those that wait, under one count of steps. Ctrl-C ends it at once; what is written stays."""
        from phosphene.jobs.cue_conflict import settings_of
        from phosphene.progress import Started, Step

        size = self.parameters["size"]
        settings = settings_of(*(self.parameters[name] for name in ("content_weight", "style_weight", "steps")))
        each = settings.steps * len(settings.sizes((size, size)))
        yield Started(f"{len(self.waiting)} stimuli", each * len(self.waiting))
        for place, pair in enumerate(self.waiting):
            yield from self._one(pair, place * each)
            yield Step((place + 1) * each)

    def _one(self, pair: Pair, before: int) -> Job[None]:
        from phosphene.jobs import job
        from phosphene.progress import Step

        workshop, parameters = self.workshop.fresh(), self._parameters(pair)
        made = job(VERB, workshop, parameters)
        try:
            while True:
                event = next(made)
                if isinstance(event, Step):
                    yield Step(before + event.done, event.loss)
        except StopIteration as end:
            outcome = end.value
        finally:
            made.close()
        self.switches += len(outcome.facts.get("switches", ()))
        recipe = workshop.recipe(VERB, parameters, VERB, outcome.notes).to_json()
        write.write([(self.path(pair), outcome.picture(VERB).image, recipe)], overwrite=True)
        self.written += 1


# -- the contact sheet --------------------------------------------------------------------------------------------------


def contact_sheet(pairs: Sequence[Pair], path: Callable[[Pair], Path]) -> Tensor:
    """Content images as rows, styles as columns, up to 8 of each, all classes among them: `[3, H, W]` in [0, 1].

    `path`: where a stimulus lies.
    """
    from phosphene import images

    rows = _spread(Counter(pair.shape for pair in pairs))
    here = [pair for pair in pairs if pair.shape in rows]
    columns = _spread(Counter(pair.texture for pair in here))
    made = {(pair.shape, pair.texture): path(pair) for pair in here if pair.texture in columns}
    blank = images.Panel(None)
    panels = [blank, *(images.Panel(_square(cue.path), cue.name) for cue in columns)]
    for row in rows:
        panels.append(images.Panel(_square(row.path), row.name))
        files = [made.get((row, column)) for column in columns]
        panels += [blank if file is None else images.Panel(_square(file)) for file in files]
    part = f" {len(made):,} of {len(pairs):,} stimuli." if len(made) < len(pairs) else ""
    foot = f"Rows: shapes. Columns: textures.{part}"
    return images.sheet(panels, columns=len(columns) + 1, side=_SIDE, gap=8, footnote=foot)


def _square(path: Path) -> Tensor:
    from phosphene import images
    from phosphene.jobs.cue_conflict import squared

    return squared(images.read(path), _SIDE)[0]


def _spread(counted: Counter[Cue]) -> list[Cue]:
    """Up to 8 images, one class after another, of each class first those with most stimuli; sorted."""
    by_class: dict[str, list[Cue]] = {}
    for cue, _ in counted.most_common():
        by_class.setdefault(cue.category, []).append(cue)
    turns = [(place, category, cue) for category, cues in by_class.items() for place, cue in enumerate(cues)]
    chosen = [cue for _, _, cue in sorted(turns, key=lambda turn: turn[:2])][:_SHOWN]
    return sorted(chosen, key=lambda cue: (cue.category, cue.number))


def _check_sheet(path: Path, overwrite: bool) -> None:
    """Refuse to replace a picture that is no contact sheet of ours."""
    from phosphene import images

    if path.is_dir():
        raise OutputError(f"'{path}' is a folder: a file name is needed there")
    if path.exists() and not overwrite and images.read_note(path) != _NOTE:
        raise OutputError(f"'{path}' exists and is kept: give --overwrite to replace it, or another --out")


def _write_sheet(path: Path, sheet: Tensor) -> None:
    from phosphene import images

    images.save(sheet, path, note=_NOTE, overwrite=True)


def _tell(
    pairs: Sequence[Pair], work: Stimuli, kept: int, unknown: Sequence[str], skipped: Mapping[str, str], said: Said
) -> None:
    folder, net = work.out / STIMULI, work.parameters["net"]
    if work.switches:
        terminal.warn(f"the optimiser had to begin anew {work.switches} times; the recipes say where", said)
    conflicting = sum(pair.shape.category != pair.texture.category for pair in pairs)
    parts = [f"{len(pairs):,} stimuli in {folder}"]
    parts += [f"{kept:,} of them made before"] if kept else []
    parts += [f"{len(pairs) - conflicting:,} with both cues of one class"] if conflicting < len(pairs) else []
    terminal.say(f"{', '.join(parts)}; contact sheet: {work.out / SHEET}", said)
    next_command = f"phosphene shape-bias {shlex.quote(str(folder))} --net {shlex.quote(net)}"
    usable = not unknown and conflicting > 0
    if usable:
        terminal.say(f"next: {next_command}", said)
    rows = [
        {"file": str(work.path(pair)), "shape": str(pair.shape.path), "texture": str(pair.texture.path)}
        for pair in pairs
    ]
    terminal.facts(
        {"command": VERB, "folder": str(folder), "sheet": str(work.out / SHEET), "kept": kept, "stimuli": rows,
         "unknown": list(unknown), "skipped": dict(skipped), "next": next_command if usable else None},
        said,
    )  # fmt: skip
