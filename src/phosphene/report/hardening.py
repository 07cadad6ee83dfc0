"""The page of a hardened network: how it was trained, how far it stands, and whether that can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Outcome
from phosphene.recipe import versions
from phosphene.report.attack_plots import radius_text
from phosphene.report.page import Page, Section, Table, render
from phosphene.report.robustness import checks_table, signs
from phosphene.report.stage import figure

IDEAS = {
    "pgd": "each picture is attacked by many small steps before it is learned from (Madry et al. 2018)",
    "fast": "each picture is attacked by one long step from a random point (Wong et al. 2020)",
    "free": "the same backward pass moves weights and pictures, and each batch comes several times (Shafahi et al. 2019)",
    "trades": "the loss on the picture, and how far the answer moves under attack, are weighed (Zhang et al. 2019)",
    "atta": "the attack on each picture goes on where it ended an epoch ago, so that one step is enough (Zheng et al. 2020)",
}


def page(outcome: Outcome, parameters: Mapping[str, Any]) -> str:
    """The page as one HTML document, which needs no other file."""
    facts = outcome.facts
    command = command_line("harden", dict(parameters))
    names = [picture.name for picture in outcome.pictures]
    sections = [_training(outcome, command)] if "curves" in names else []
    sections.append(_standing(outcome, command))
    if facts["findings"]:
        sections.append(_believed(facts, command))
    test = facts["test"]
    return render(
        Page(
            title="Hardened",
            lead=f"`{facts['net']}` on {facts['data']}, trained to stand against changes of up to"
            f" {radius_text(facts['settings']['eps'])}: {IDEAS[facts['settings']['method']]}.",
            hero=figure(outcome.pictures[0], lossless=True),
            facts=(
                (f"Right under {test['judge']}", f"{test['robust']['mean']:.1%}"),
                ("Right as they are", f"{test['clean']['mean']:.1%}"),
                ("Gradients a picture cost", f"{facts['gradients']:,.0f}"),
                ("Signs of masked gradients", signs(facts)),
            ),
            sections=tuple(sections),
            footer=tuple(versions().items()),
        )
    )


def _training(outcome: Outcome, command: str) -> Section:
    facts = outcome.facts
    rows = tuple(
        (str(row["epoch"]), f"{row['train_loss']:.3f}", f"{row['clean']:.1%}", f"{row['robust']:.1%}", f"{row['eps']:.3g}",
         f"{row['rate']:.1e}")
        for row in facts["epochs"]
    )  # fmt: skip
    mended = "; ".join(f"step {one['step']}: {one['why']}" for one in facts["mended"])
    return Section(
        key="training", title="The training", slide="Adversarial Robust Training", command=command,
        seconds=facts["seconds"],
        formula=(r"\min_{\theta} \sum_i \max_{\|\epsilon_i\| \le \delta} J(\theta, \mathbf{x}_i + \epsilon_i, y_i)",),
        figures=(figure(outcome.picture("curves"), wide=True, lossless=True),),
        tables=(Table(("epoch", "loss", "as they are", "attacked", "eps", "rate"), rows, "Of held-out pictures."),),
        words=(
            f"The average of the weights after epoch {facts['best']} is kept: under attack, it was best on the"
            f" {facts['pictures']['held_out']:,} pictures that were held out.",
        ) if facts["best"] else (),
        note=f"The guard went back and mended: {mended}." if mended else "",
    )  # fmt: skip


def _standing(outcome: Outcome, command: str) -> Section:
    facts = outcome.facts
    test = facts["test"]
    rows = tuple((name, f"{one['mean']:.2%}", f"{one['low']:.2%} to {one['high']:.2%}") for name, one in (
        ("as they are", test["clean"]), (f"under {test['judge']}", test["robust"]),
        ("under noise of that size", test["noise"]),
    ))  # fmt: skip
    return Section(
        key="standing", title="How far it stands", slide="Adversarial Robust Training", command=command, seconds=0,
        figures=(figure(outcome.picture("robustness"), wide=True, lossless=True),),
        tables=(Table(("test pictures", "right", "95% interval"), rows),),
        words=("The test pictures had no part in training or choosing. Beyond the eps that it was trained for, it falls.",),
    )  # fmt: skip


def _believed(facts: Mapping[str, Any], command: str) -> Section:
    return Section(
        key="masking", title="Can it be believed?", slide="", command=command, seconds=0,
        words=("A network can also learn to hide its gradients. These checks look for that.",),
        tables=(checks_table(facts),),
        note="At least one check failed: evaluate with `--judge autoattack`, and don't report the number above."
        if facts["masked"] else "",
    )  # fmt: skip
