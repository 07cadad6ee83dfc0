"""The page of a network's robustness: the curve, who fools whom, and whether the numbers can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phosphene.attacks import ATTACKS
from phosphene.jobs.command import command_line
from phosphene.jobs.outcome import Outcome
from phosphene.recipe import versions
from phosphene.report.attack_plots import radius_text
from phosphene.report.page import Page, Section, Table, render
from phosphene.report.stage import figure

CHECKS = {
    "zero-gradients": "gradients that vanish",
    "random-outputs": "random answers",
    "slope": "the loss rises as the gradient says",
    "uphill": "the gradient leads uphill",
    "more-steps": "more steps don't do worse",
    "whole-range": "without a limit, everything falls",
    "black-box": "attacks without gradients find no more",
}
"""What each check of `attacks.masking` looks at, in words."""


def page(outcome: Outcome, parameters: Mapping[str, Any]) -> str:
    """The page as one HTML document, which needs no other file."""
    facts = outcome.facts
    command = command_line("robustness", dict(parameters))
    sections = [_curve(outcome, command)]
    if facts["findings"]:
        sections.append(_believed(facts, command))
    if facts["transfer"] is not None:
        sections.append(_across(outcome, command))
    return render(
        Page(
            title="How much it takes",
            lead=f"`{facts['net']}` on {facts['images']} photographs of `{parameters['folder']}`: how small a change fools"
            " it, whether others are fooled along with it, and whether these numbers can be believed.",
            hero=figure(outcome.pictures[0], lossless=True),
            facts=(
                ("Right without an attack", f"{facts['curve'][0]['mean']:.1%}"),
                (f"Right at {radius_text(facts['eps'][-1], facts['norm'])}", _last(facts)),
                ("Half of it falls by", half_text(facts)),
                ("Signs of masked gradients", signs(facts)),
            ),
            sections=tuple(sections),
            footer=tuple(versions().items()),
        )
    )


def doubt(facts: Mapping[str, Any]) -> str:
    """What masked gradients mean for the curve."""
    attack = facts["attack"]
    if not ATTACKS[attack].gradients:
        return f"this network's gradients are masked; {attack}, which made the curve, needs none, but may find less"
    if attack == "autoattack":
        return (
            "this network's gradients are masked: of AutoAttack only Square sees anything, and the truth may be lower"
        )
    return "these accuracies are too good to be true, and nothing to report: attacks by gradients are blind to this network"


def half_text(facts: Mapping[str, Any]) -> str:
    """The eps at which half of what was right has fallen, in words."""
    if not facts["curve"][0]["count"]:
        return "nothing was right"
    if facts["half"] is None:
        return f"more than {radius_text(facts['eps'][-1], facts['norm'])}"
    if facts["half"] == facts["eps"][1]:
        return f"less than {radius_text(facts['half'], facts['norm'])}"
    levels = facts["half"] * 255
    return (
        f"{facts['half']:.2g} in L2"
        if facts["norm"] == "l2"
        else f"{levels:.2g}/255"
        if levels < 99.5
        else f"{levels:.0f}/255"
    )


def _last(facts: Mapping[str, Any]) -> str:
    return f"{facts['curve'][-1]['mean']:.1%}" + (", not to be believed" if facts["masked"] else "")


def signs(facts: Mapping[str, Any]) -> str:
    """How many checks failed, in words."""
    if not facts["findings"]:
        return "not looked for"
    failed = sum(not one["passed"] for one in facts["findings"])
    return f"{failed} of {len(facts['findings'])} checks shout" if failed else "none"


def _curve(outcome: Outcome, command: str) -> Section:
    facts = outcome.facts
    rows = tuple(
        (_radius(eps, facts), _share(attacked), _share(shaken))
        for eps, attacked, shaken in zip(facts["eps"], facts["curve"], facts["noise"], strict=True)
    )
    return Section(
        key="curve", title="Accuracy against eps", slide="Adversarial Examples", command=command, seconds=0,
        formula=(r"\mathbf{x}' = \mathbf{x} + \delta,\quad \|\delta\|_p \le \varepsilon",),
        figures=(figure(outcome.pictures[0], wide=True, lossless=True),),
        words=(
            f"A photograph stands at an eps if {facts['attack']} finds no change of that size that fools the network. Balls"
            " are nested: who has fallen at one eps has fallen at all larger ones. The band is the 95% interval (Wilson) of a"
            f" share of {facts['images']} photographs.",
            "The dashed line is the control: random noise of the same size. The distance between the lines is what the"
            " *direction* of a change is worth.",
        ),
        tables=(Table(("eps", f"right under {facts['attack']}", "right under noise"), rows),),
        note=f"*{doubt(facts)}*" if facts["masked"] else "",
    )  # fmt: skip


def _believed(facts: Mapping[str, Any], command: str) -> Section:
    return Section(
        key="masking", title="Can it be believed?", slide="", command=command, seconds=0,
        words=(
            "A network can look robust because attacks by gradients can't see where to go: gradients that vanish, that are"
            " random, or that point nowhere. Such a network falls to whoever attacks it in another way (Athalye, Carlini &"
            " Wagner 2018; Carlini et al. 2019).",
        ),
        tables=(checks_table(facts),),
        note="At least one check failed. Attack with Square, or give attacks a differentiable stand-in for what masks."
        if facts["masked"] else "",
    )  # fmt: skip


def _across(outcome: Outcome, command: str) -> Section:
    facts = outcome.facts["transfer"]
    return Section(
        key="transfer", title="Malicious examples generalise", slide="Adversarial Examples: across architectures",
        command=command, seconds=0,
        figures=(figure(outcome.picture("transfer"), lossless=True),),
        words=(
            f"A change of at most {radius_text(facts['eps'], outcome.facts['norm'])} is made against the network of each row"
            " (momentum, and on after success), and shown to the network of each column. Counted are photographs that"
            f" `{outcome.facts['net']}` and both of these see rightly before ({min(min(row) for row in facts['count'])} or"
            " more). The diagonal is the attack's own"
            " success; the rest is what generalises; the last row is noise of the same size.",
        ),
    )  # fmt: skip


def checks_table(facts: Mapping[str, Any]) -> Table:
    """What each check for masked gradients has seen."""
    rows = tuple(
        (str(CHECKS.get(one["name"], one["name"])), _verdict(one), str(one["words"])) for one in facts["findings"]
    )
    return Table(("check", "", "what was seen"), rows)


def _verdict(one: Mapping[str, Any]) -> str:
    if one["value"] is None and one["passed"]:
        return "not checked"
    return "passed" if one["passed"] else "FAILED"


def _radius(eps: float, facts: Mapping[str, Any]) -> str:
    return "0 (no attack)" if eps == 0 else radius_text(eps, facts["norm"])


def _share(found: Mapping[str, float]) -> str:
    return f"{found['mean']:.1%} ({found['low']:.1%} to {found['high']:.1%})"
