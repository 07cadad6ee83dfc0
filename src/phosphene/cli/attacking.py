"""`attack`: every photograph of a folder attacked, the results kept one by one, with a page to look at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from phosphene.cli import output as write
from phosphene.cli import terminal
from phosphene.cli.folders import (
    Truth,
    fingerprint,
    keep_results,
    list_attacks,
    need_folder,
    need_place,
    tell_of_network,
)
from phosphene.cli.journal import Journal
from phosphene.cli.options import OUTPUT, Net, Said, Source, split
from phosphene.cli.radius import radius

if TYPE_CHECKING:
    from phosphene.jobs.attack import Made
    from phosphene.jobs.outcome import Outcome
    from phosphene.jobs.workshop import Workshop

ROWS, PAGE, PICTURES, SHEETS = "attack.jsonl", "index.html", "pictures", "sheets"


def attack(
    folder: Annotated[
        Path | None, Parameter(help="A folder of photographs, or of a folder of them for each class; or sample:all.")
    ] = None,
    *,
    net: Net = "efficientnet_lite0",
    attack_: Annotated[
        list[str] | None,
        Parameter(name="--attack", negative="", help="Attacks, by comma; default: pgd. `--attack list` names them."),
    ] = None,
    eps: Annotated[
        str | None,
        Parameter(
            help="The largest change, such as 8/255; default: 2/255 (l2: 0.5), or none for DeepFool, C&W and FAB."
        ),
    ] = None,
    norm: Annotated[
        Literal["linf", "l2"] | None, Parameter(help="How a change is measured; default: what is usual for the attack.")
    ] = None,
    steps: Annotated[int | None, Parameter(help="Steps (Square: queries); default: each attack's own number.")] = None,
    target: Annotated[
        str | None, Parameter(help="The class to be seen instead: name, index or synset; default: any other.")
    ] = None,
    truth: Truth = "auto",
    images: Annotated[int, Parameter(help="So many photographs, evenly spread; 0: all.")] = 0,
    only: Annotated[
        str | None, Parameter(help="Only this photograph, by its path below the folder, and its neighbours.")
    ] = None,
    seed: Annotated[int, Parameter(help="Of random starts and squares.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the page, the pictures and the rows.")] = Path(
        "phosphene-attack"
    ),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace what was made in another way.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Attack every photograph of a folder, and say how many the network still sees rightly.

    Each result is kept as soon as it is made: run again after an interruption, it goes on from there. Writes index.html, a
    PNG for each photograph that fooled the network (checked by reading it back), and a row for each in attack.jsonl.
    """
    source, said = source or Source(), said or Said()
    names = ["pgd"] if attack_ is None else split(attack_)
    if names == ["list"]:
        return list_attacks(said)
    need_folder(folder, "attacked")
    need_place(out, folder)
    from phosphene.jobs.attack import attack as job
    from phosphene.jobs.workshop import Workshop

    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "attacks": names,
        "eps": None if eps is None else radius(eps, _measured(names, norm)), "norm": norm, "steps": steps, "target": target,
        "truth": truth, "images": images, "only": only, "seed": seed,
    }  # fmt: skip
    with write.reserved([out / PICTURES / "any.png", out / SHEETS / "any.jpg", out / "any.png"], overwrite=True):
        workshop = Workshop(source.device)
        plan = fingerprint("attack", workshop, parameters, ("folder", "attacks", "truth", "images", "only"))
        keep_results(out, ROWS, (PAGE, "accuracy.png"), overwrite)
        keeper = _Keeper(out, workshop, parameters, Journal(out / ROWS, plan, overwrite))
        made = job(workshop, **parameters, known=keeper.known, keep=keeper.keep)
        outcome: Outcome = terminal.run(made, said, workshop)
        _write(out, outcome, workshop, parameters, keeper)
    _tell(outcome.facts, out, only is not None, said)
    return None


def _measured(names: Sequence[str], norm: Literal["linf", "l2"] | None) -> Literal["linf", "l2"]:
    """The norm that a radius is of: of attacks that know one only, that one."""
    from phosphene.attacks import ATTACKS

    known = [ATTACKS[name] for name in names if name in ATTACKS]
    return norm or ("l2" if known and all(one.norms == ("l2",) for one in known) else "linf")


class _Keeper:
    """Writes what was made: pictures first, then the rows that name them."""

    def __init__(self, out: Path, workshop: Workshop, parameters: dict[str, Any], journal: Journal) -> None:
        self.out, self.workshop, self.parameters, self.journal = out, workshop, parameters, journal
        self.known = {
            key: row for key, row in journal.known.items() if all((out / file).is_file() for file in files(row))
        }
        self.kept = len(self.known)

    def keep(self, made: Sequence[Made]) -> None:
        from phosphene import images
        from phosphene.attacks import ATTACKS
        from phosphene.report.attack_gallery import sheet

        pictures = []
        for one in (one for one in made if files(one.row)):
            picture, shown = files(one.row)
            alone = {"attacks": [one.row["attack"]], "only": one.row["image"]}
            counted = ATTACKS[one.row["attack"]].counted is not None
            parameters = {**self.parameters, **alone, "steps": self.parameters["steps"] if counted else None}
            recipe = self.workshop.recipe("attack", parameters, Path(picture).stem).to_json()
            pictures.append((self.out / picture, one.image, recipe))
            images.save(sheet(one), self.out / shown, overwrite=True)
        write.write(pictures, overwrite=True)
        self.journal.keep([one.row for one in made])


def files(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The picture and the sheet of a row, below the folder of results; none where the network was not fooled."""
    if not row.get("success"):
        return ()
    name = f"{row['name']}--{row['attack']}"
    return f"{PICTURES}/{name}.png", f"{SHEETS}/{name}.jpg"


def _write(out: Path, outcome: Outcome, workshop: Workshop, parameters: dict[str, Any], keeper: _Keeper) -> None:
    from phosphene.images.save import write_whole
    from phosphene.report.attack_gallery import page

    keeper.journal.finish(outcome.facts["rows"])
    _drop_stale(out, keeper.journal)
    if parameters["only"] is not None:
        return  # the page and the plot are of the whole folder
    plot = outcome.picture("accuracy")
    write.write([(out / "accuracy.png", plot.image, workshop.recipe("attack", parameters, plot.name).to_json())], True)
    write_whole(out / PAGE, page(outcome.facts, parameters, files).encode("utf-8", "replace"), overwrite=True)


def _drop_stale(out: Path, journal: Journal) -> None:
    """Remove pictures that no row tells of: of another run, or of photographs that are gone."""
    told = {file for row in journal.rows() for file in files(row)}
    write.drop_stale((out / PICTURES).glob("*.png"), {out / file for file in told}, ["attack"])
    for shown in (out / SHEETS).glob("*.jpg"):
        if f"{SHEETS}/{shown.name}" not in told and not (out / PICTURES / f"{shown.stem}.png").exists():
            shown.unlink()


def _tell(facts: Mapping[str, Any], out: Path, only: bool, said: Said) -> None:
    from phosphene.report.attack_plots import radius_text

    for image, why in facts["skipped"].items():
        terminal.warn(f"left out {image}: {why}", said)
    tell_of_network(facts, said)
    if not (said.json or said.quiet):
        rows = [
            (name, "-" if one["eps"] is None else radius_text(one["eps"], one["norm"]), str(one["attacked"]),
             str(one["fooled"]), f"{one['accuracy']['mean']:.1%}", _number(one["l2"], ".3f"), _number(one["linf"], ".4f"),
             f"{one['survives']} of {one['fooled']}", f"{one['forwards']:.0f} + {one['backwards']:.0f}")
            for name, one in facts["attacks"].items()
        ]  # fmt: skip
        terminal.table(
            (
                "attack",
                "eps",
                "attacked",
                "fooled",
                "still right",
                "median L2",
                "median Linf",
                "in the file, too",
                "passes",
            ),
            rows,
        )
        many = f"; after the worst of them {facts['worst']['mean']:.1%}" if len(rows) > 1 and facts["worst"] else ""
        terminal.say(
            f"{facts['net']} sees {facts['clean']['mean']:.1%} of {facts['images']} photographs rightly without an attack"
            f" ({facts['wrong']} misread ones were not attacked, and count as no success){many}",
            said,
        )
    page = [] if only else [out / PAGE, out / "accuracy.png"]
    terminal.say(f"wrote {', '.join(str(path) for path in (*page, out / PICTURES, out / ROWS))}", said)
    terminal.facts({"command": "attack", "page": str(out / PAGE), **facts}, said)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
