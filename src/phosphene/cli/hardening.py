"""`harden`: train a network to stand against small changes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from phosphene import processes
from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source
from phosphene.cli.radius import radius
from phosphene.cli.runs import PAGE, STATE, Run
from phosphene.progress import BY_HAND

if TYPE_CHECKING:
    from phosphene.jobs.outcome import Outcome

_HOW = Group("How it is trained", sort_key=5)
_JUDGE = Group("How it is judged", sort_key=6)


def harden(
    folder: Annotated[
        Path,
        Parameter(
            help="MNIST's or Fashion-MNIST's files, CIFAR-10's, or a folder of pictures for each class; or mnist,"
            " fashion-mnist, cifar-10, which are fetched."
        ),
    ],
    *,
    net: Net = "trades_cnn",
    method: Annotated[
        Literal["pgd", "fast", "free", "trades", "atta"],
        Parameter(
            group=_HOW, help="How pictures are attacked while it learns; atta: one step an epoch, and it is enough."
        ),
    ] = "atta",
    eps: Annotated[
        str | None,
        Parameter(
            group=_HOW,
            help="The radius that it is to stand in Linf, such as 0.3; default: MNIST 0.3, Fashion-MNIST 0.1, else 8/255.",
        ),
    ] = None,
    steps: Annotated[
        int | None, Parameter(group=_HOW, help="Of the attack in training; default: pgd 40, trades 10, others 1.")
    ] = None,
    step: Annotated[str | None, Parameter(group=_HOW, help="How long one is; default: what suits the method.")] = None,
    replays: Annotated[int, Parameter(group=_HOW, help="free: times that a batch comes in turn.")] = 5,
    beta: Annotated[float, Parameter(group=_HOW, help="trades: weight of standing against that of being right.")] = 1.0,
    ramp: Annotated[float, Parameter(group=_HOW, help="Epochs in which eps grows from 0.")] = 1.0,
    epochs: Annotated[int, Parameter(group=_HOW, help="Times that each picture is seen.")] = 15,
    batch: Annotated[int, Parameter(group=_HOW, help="Pictures of a step, of all processes together.")] = 100,
    rate: Annotated[float, Parameter(group=_HOW, help="The highest learning rate.")] = 2e-3,
    optimiser: Annotated[Literal["adam", "sgd"], Parameter(group=_HOW, help="sgd has momentum 0.9.")] = "adam",
    weight_decay: Annotated[float, Parameter(group=_HOW, help="Of weights; biases and norms have none.")] = 0.0,
    warmup: Annotated[
        float, Parameter(group=_HOW, help="Share of the steps in which the rate rises; then a cosine to 0.")
    ] = 0.3,
    augment: Annotated[
        Literal["none", "shift", "shift-flip"], Parameter(group=_HOW, help="How pictures are moved.")
    ] = "none",
    ema: Annotated[
        float, Parameter(group=_HOW, help="Keep an average of the weights with this decay; 0: none.")
    ] = 0.999,
    hold: Annotated[int, Parameter(group=_HOW, help="Pictures that are held out, to choose the best epoch by.")] = 1000,
    patience: Annotated[
        int, Parameter(group=_HOW, help="Epochs without a better accuracy under attack until it ends; 0: never.")
    ] = 0,
    guard: Annotated[
        bool, Parameter(group=_HOW, help="Notice when it learns to answer one attack only, and mend it.")
    ] = True,
    size: Annotated[int | None, Parameter(group=_HOW, help="Side of the pictures; default: their own.")] = None,
    judge: Annotated[
        Literal["pgd", "autoattack"],
        Parameter(group=_JUDGE, help="The attack on test pictures; autoattack is the number to publish."),
    ] = "pgd",
    tested: Annotated[int, Parameter(group=_JUDGE, help="So many test pictures are attacked.")] = 1000,
    seed: Annotated[int, Parameter(help="Of first weights, order, starts and what is held out.")] = 0,
    out: Annotated[Path, Parameter(group=OUTPUT, help="Folder for the network and its report.")] = Path(
        "phosphene-harden"
    ),
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a run that exists.")
    ] = False,
    resume: Annotated[
        bool,
        Parameter(
            group=OUTPUT, negative="", show_default=False, help="Go on where a run with these options was ended."
        ),
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Train a network to stand against small changes: on pictures that are attacked a moment before they are learned from.

    `--net`: madry_cnn, trades_cnn, wong_cnn or preact_resnet18, made anew for these pictures, or a network that has learned
    already. Writes a network that every command takes (`--net phosphene-harden`), a report, and a record of the run. Ctrl-C
    keeps the best so far; `torchrun --nproc-per-node N -m phosphene harden ...` uses several processes or GPUs.
    """
    source, said = source or Source(), said or Said()
    from phosphene.jobs import job
    from phosphene.jobs.workshop import Workshop
    from phosphene.progress import relay

    parameters = {
        "folder": str(folder), "net": net, **source.parameters(), "method": method,
        "eps": None if eps is None else radius(eps), "steps": steps,
        "step": None if step is None else radius(step), "replays": replays, "beta": beta, "ramp": ramp, "epochs": epochs,
        "batch": batch, "rate": rate, "optimiser": optimiser, "weight_decay": weight_decay, "warmup": warmup,
        "augment": augment, "ema": ema, "hold": hold, "patience": patience, "guard": guard, "size": size, "judge": judge,
        "tested": tested, "seed": seed,
    }  # fmt: skip
    run = Run(out, "harden", parameters, said, sheets=("curves", "robustness"))
    resume = resume or (processes.restarted() and (out / STATE).is_file())
    with run.reserved(overwrite, resume):
        workshop = Workshop(source.device)
        extra = {"save": run.save, "resume": run.state() if resume and processes.first() else None}
        made = job("harden", workshop, {**parameters, **extra})
        outcome: Outcome = terminal.run(made if resume else relay(made, run.begun), said, workshop)
        processes.leave()
        written = run.finished(outcome, workshop, _page, _accuracy)
    _tell(outcome.facts, out, said)
    terminal.facts({"command": "harden", "written": [str(path) for path in written], **outcome.facts}, said)


def _page(outcome: Outcome, parameters: dict[str, Any]) -> str:
    from phosphene.report.hardening import page

    return page(outcome, parameters)


def _accuracy(facts: Mapping[str, Any]) -> dict[str, Any]:
    return facts["test"]


def _tell(facts: Mapping[str, Any], out: Path, said: Said) -> None:
    for step in facts["repairs"]:
        terminal.warn(
            f"the loss was no number at step {step}: went back to the last good state, at half the rate", said
        )
    for one in facts["mended"]:
        terminal.warn(
            f"{one['why']} at step {one['step']}: the network had learned to answer its own attack only; went back, and on"
            " with one more step and half the rate",
            said,
        )
    for one in facts["findings"]:
        if not one["passed"]:
            terminal.warn(f"GRADIENT MASKING, check {one['name']}: {one['words']}", said)
    if said.quiet or said.json:
        return
    rows = [
        (str(row["epoch"]), f"{row['train_loss']:.4f}", f"{row['clean']:.1%}", f"{row['robust']:.1%}", f"{row['rate']:.2e}",
         f"{row['images_per_second']:.1f}")
        for row in facts["epochs"]
    ]  # fmt: skip
    header = ("epoch", "loss", "held out", "held out, attacked", "rate", "images / s")
    terminal.table(header, rows, title=f"{facts['net']} on {facts['data']}, {facts['gradients']:g} gradients a picture")
    if facts["stopped"]:
        more = "; --resume goes on from there" if facts["stopped"] == BY_HAND and facts["steps"] else ""
        terminal.say(f"ended early: {facts['stopped']}{more}", said)
    test = facts["test"]
    terminal.say(
        f"test pictures seen rightly: {test['clean']['mean']:.2%} as they are, {test['robust']['mean']:.2%} under"
        f" {test['judge']} (95%: {test['robust']['low']:.2%} to {test['robust']['high']:.2%}),"
        f" {test['noise']['mean']:.2%} under noise of that size",
        said,
    )
    terminal.say(f"the network: --net {out}   the report: {out / PAGE}", said)
