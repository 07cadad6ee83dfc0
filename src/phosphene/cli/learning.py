"""`probe` and `finetune`: the commands that teach a network new classes."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene import processes
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source, split
from phosphene.cli.runs import Run
from phosphene.errors import ImageError
from phosphene.progress import BY_HAND

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome

_WHAT = Group("What is trained", sort_key=2)
_HOW = Group("How", sort_key=3)
_DATA = Group("The photographs", sort_key=4)

Folder = Annotated[
    Path,
    Parameter(
        help="A folder of photographs for each class, below `train` and `val`, or all in one (a fifth is then held out)."
    ),
]
Size = Annotated[
    int | None, Parameter(group=_DATA, help="Side of the square that the network is shown; default: its own.")
]
Balanced = Annotated[bool, Parameter(group=_HOW, help="Weigh classes as if each had as many photographs.")]
SkipBad = Annotated[
    bool,
    Parameter(group=_DATA, negative="", show_default=False, help="Go on if more than 5% of the images can't be read."),
]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a run that exists.")]


def probe(
    folder: Folder,
    *,
    net: Net = "efficientnet_lite0",
    layer: Annotated[
        list[str] | None, Parameter(group=_WHAT, negative="", help="Stages, by comma; default: all of them.")
    ] = None,
    balanced: Balanced = True,
    size: Size = None,
    skip_bad: SkipBad = False,
    seed: Annotated[int, Parameter(help="Of the folds, and of what is held out where there is no val.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the network and its report.")] = Path(
        "phosphene-probe"
    ),
    overwrite: Overwrite = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Teach a network new classes in seconds: a linear classifier on each of its stages, the network itself frozen.

    Shows accuracy against depth, and writes the best as a network that every command takes: `--net phosphene-probe`.
    Features are kept, so that the next run on the same photographs begins at once.
    """
    source, said = source or Source(), said or Said()
    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "layers": split(layer), "size": size, "balanced": balanced,
        "skip_bad": skip_bad, "seed": seed,
    }  # fmt: skip
    outcome = _train("probe", folder, parameters, source, said, out, overwrite)
    if not (said.quiet or said.json):
        _depths(outcome.facts)
    _print(outcome.facts, out, said)


def finetune(
    folder: Folder,
    *,
    net: Net = "efficientnet_lite0",
    layers: Annotated[
        str, Parameter(group=_WHAT, help="head, last:N (stages and the head), stage:NAME (from there on), or all.")
    ] = "last:2",
    start: Annotated[
        Literal["probe", "random"], Parameter(group=_WHAT, help="The head begins as a linear probe's, or random.")
    ] = "probe",
    epochs: Annotated[int, Parameter(group=_HOW, help="How often each photograph is seen.")] = 10,
    batch: Annotated[int, Parameter(group=_HOW, help="Photographs of a step, of all processes together.")] = 32,
    rate: Annotated[
        float | None,
        Parameter(group=_HOW, help="Learning rate of the last stage; default: 3e-5 from a probe, 3e-4 from random."),
    ] = None,
    head_rate: Annotated[float, Parameter(group=_HOW, help="The head's rate, as a multiple of it.")] = 1.0,
    decay: Annotated[float, Parameter(group=_HOW, help="Each stage below has this share of the rate above.")] = 0.8,
    optimiser: Annotated[Literal["adamw", "sgd"], Parameter(group=_HOW, help="SGD has momentum 0.9.")] = "adamw",
    weight_decay: Annotated[float, Parameter(group=_HOW, help="Of weights; biases and norms have none.")] = 1e-2,
    warmup: Annotated[
        float, Parameter(group=_HOW, help="Share of the steps in which rates rise; then a cosine to 0.")
    ] = 0.1,
    augment: Annotated[
        Literal["none", "light", "strong"], Parameter(group=_HOW, help="Random parts, mirrored, in other light.")
    ] = "light",
    norms: Annotated[
        Literal["frozen", "train"], Parameter(group=_HOW, help="Statistics of the trained batch norms.")
    ] = "frozen",
    smoothing: Annotated[float, Parameter(group=_HOW, help="Label smoothing, from 0.")] = 0.0,
    balanced: Balanced = True,
    ema: Annotated[float, Parameter(group=_HOW, help="Keep an average of the weights with this decay; 0: none.")] = 0.0,
    patience: Annotated[
        int, Parameter(group=_HOW, help="Epochs without a lower mean of three held-out losses until it ends; 0: never.")
    ] = 5,
    precision: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        Parameter(group=_HOW, help="auto: half precision on GPUs that have it."),
    ] = "auto",
    size: Size = None,
    skip_bad: SkipBad = False,
    seed: Annotated[int, Parameter(help="Of order, augmentation, and what is held out where there is no val.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the network and its report.")] = Path(
        "phosphene-finetune"
    ),
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        Parameter(
            group=OUTPUT, negative="", show_default=False, help="Go on where a run with these options was ended."
        ),
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Teach a network new classes thoroughly: train its last stages, or all of it, beginning from a linear probe.

    Writes a network that every command takes (`--net phosphene-finetune`), a report, and a record of the run. Ctrl-C keeps
    what it has learned; `torchrun --nproc-per-node N -m phosphene finetune ...` uses several processes or GPUs.
    """
    source, said = source or Source(), said or Said()
    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "layers": layers, "start": start, "epochs": epochs,
        "batch": batch, "rate": rate, "head_rate": head_rate, "decay": decay, "optimiser": optimiser,
        "weight_decay": weight_decay, "warmup": warmup, "augment": augment, "norms": norms, "smoothing": smoothing,
        "balanced": balanced, "ema": ema, "patience": patience, "precision": precision, "size": size, "skip_bad": skip_bad,
        "seed": seed,
    }  # fmt: skip
    outcome = _train("finetune", folder, parameters, source, said, out, overwrite, resume)
    _epochs(outcome.facts, said)
    _print(outcome.facts, out, said)


def _train(
    verb: str,
    folder: Path,
    parameters: dict[str, Any],
    source: Source,
    said: Said,
    out: Path,
    overwrite: bool,
    resume: bool = False,
) -> Outcome:
    if not folder.is_dir():
        raise ImageError(f"'{folder}' is no folder: give one that holds a folder of photographs for each class")
    from phosphene.jobs import job
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import relay

    run = Run(out, verb, parameters, said)
    resume = resume or (verb == "finetune" and _restarted(run))
    with run.reserved(overwrite, resume):
        workshop = Workshop(source.device)
        extra: dict[str, Any] = {}
        if verb == "finetune":
            extra = {"save": run.save, "resume": run.state() if resume and processes.first() else None}
        made = job(verb, workshop, {**parameters, **extra})
        outcome: Outcome = terminal.run(made if resume else relay(made, run.begun), said, workshop)
        processes.leave()
        written = run.finished(outcome, workshop, lambda made, given: _page(verb, made, given), itemgetter("accuracy"))
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why.removeprefix(f'{path} ')}", said)
    facts = {name: value for name, value in outcome.facts.items() if name != "predictions"}
    terminal.facts({"command": verb, "written": [str(path) for path in written], **facts}, said)
    return outcome


def _page(verb: str, outcome: Outcome, parameters: dict[str, Any]) -> str:
    from phosphene.report.training import page

    return page(verb, outcome, parameters)


def _restarted(run: Run) -> bool:
    """Whether torchrun has begun again after a process had failed, and there is a state to go on from."""
    from phosphene.cli.runs import STATE

    return processes.restarted() and (run.folder / STATE).is_file()


def _depths(facts: Mapping[str, Any]) -> None:
    rows = [
        (
            row["layer"] + (" *" if row["layer"] == facts["chosen"] else ""), str(row["width"]),
            "-" if row["cross_validated"] is None else f"{row['cross_validated']:.1%}", f"{row['accuracy']['mean']:.1%}",
            f"{row['accuracy']['low']:.1%} to {row['accuracy']['high']:.1%}", f"{row['balanced_accuracy']['mean']:.1%}",
            f"{row['strength']:g}",
        )
        for row in facts["stages"]
    ]  # fmt: skip
    header = ("after layer", "numbers", "cross-validated", "held out", "95% interval", "balanced", "C")
    terminal.table(header, rows, title=f"{facts['net']}: a linear classifier on each stage (* the one that is kept)")


def _epochs(facts: Mapping[str, Any], said: Said) -> None:
    for step in facts["repairs"]:
        terminal.warn(
            f"the loss was no number at step {step}: went back to the last good state, at half the rate", said
        )
    if said.quiet or said.json:
        return
    rows = [
        (
            str(row["epoch"]), f"{row['train_loss']:.4f}", f"{row['train_accuracy']:.1%}", f"{row['val_loss']:.4f}",
            f"{row['val_accuracy']:.1%}", f"{row['rate']:.2e}", f"{row['images_per_second']:.1f}",
        )
        for row in facts["epochs"]
    ]  # fmt: skip
    header = ("epoch", "loss", "right", "held-out loss", "held out", "rate", "images / s")
    terminal.table(header, rows, title=f"{facts['net']}: {facts['trained_numbers']:,} numbers trained")
    if facts["stopped"]:
        more = "; --resume goes on from there" if facts["stopped"] == BY_HAND and facts["steps"] else ""
        terminal.say(f"ended early: {facts['stopped']}{more}", said)


def _print(facts: Mapping[str, Any], out: Path, said: Said) -> None:
    from phosphene.cli.runs import PAGE
    from phosphene.jobs.lessons import told

    for line in told(facts):
        terminal.say(line, said)
    terminal.say(f"the network: --net {out}   the report: {out / PAGE}", said)
