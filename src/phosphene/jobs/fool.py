"""`fool`: change a photograph a little until the network sees another class: one, each of several, or any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from phosphene import images as pictures
from phosphene.attacks import Norm, noisy
from phosphene.errors import LabelError, PhospheneError
from phosphene.jobs import fool_parts as parts
from phosphene.jobs.equation import Term, coefficient, direction, equation
from phosphene.jobs.fool_parts import Plan, told
from phosphene.jobs.fool_targets import fool_targets
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Job


def fool(
    workshop: Workshop,
    *,
    image: str,
    target: str | None = None,
    all_targets: bool = False,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    attack: str | None = None,
    norm: Norm | None = None,
    eps: float | None = None,
    confidence: float = parts.CONFIDENCE,
    steps: int | None = None,
    others: Sequence[str] = (),
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures of one target, or none: `fool` (the sheet), `original`, `fooled`, `difference`, `difference-10x`, `equation`.

    Of several: `fool` (the sheet), `targets` (how much each takes), `original`, and `fooled-NAME` of those on the sheet. The
    facts say how much it took and how sure the network is; for several, in a row for each. `others`: networks that are shown
    the result of one target, too; an attack that can then goes on after success, since only what is sure fools others.
    """
    network = workshop.network(net, weights, labels)
    network.need_classifier("fool")
    check_seed(seed)
    photo = pictures.quantize(network.preprocess(workshop.image(image)))
    before = parts.seen_in(network, photo)
    goals = _goals(network, net, before, target, all_targets)
    chosen = parts.plan(attack, norm, eps, steps, confidence, seed, aimed=bool(goals), sure=bool(others))
    if others and (all_targets or len(goals) > 1):
        raise PhospheneError("--others are shown one result: give one --target with it, or none")
    rivals = {name: workshop.network(name) for name in dict.fromkeys(others)}
    for rival in rivals.values():
        rival.need_classifier("fool")
    if all_targets or len(goals) > 1:
        return (yield from fool_targets(network, net, photo, before, goals, chosen))
    return (yield from _one(network, net, photo, before, goals, chosen, rivals))


def _goals(network: Network, net: str, before: Mapping[str, Any], target: str | None, every: bool) -> list[int]:
    """The classes to reach, none for any. A whole name counts first: it may have a comma in it."""
    if every:
        if target is not None:
            raise PhospheneError("--all-targets are all other classes: leave --target away")
        if len(network.labels) < 2:
            raise LabelError(f"{net} has one class: there is no other to be seen instead")
        return [index for index in range(len(network.labels)) if index != before["index"]]
    if target is None:
        return []
    names = [target] if target in network.labels or "," not in target else [name.strip() for name in target.split(",")]
    goals = list(dict.fromkeys(network.classes(names)))
    if before["index"] in goals:
        raise LabelError(f"{net} already sees '{before['name']}': give another class as the target")
    return goals


def _one(
    network: Network,
    net: str,
    photo: Tensor,
    before: dict[str, Any],
    goals: list[int],
    chosen: Plan,
    rivals: Mapping[str, Network],
) -> Job[Outcome]:
    found = yield from parts.change(network, photo, before["index"], goals or None, chosen)
    original, fooled = found.original, found.images[0]
    after = parts.seen_in(network, found.images.to(photo))
    l2, linf = float(found.l2[0]), float(found.linf[0])
    size = parts.size_of(l2, linf)
    made = _pictures(original, fooled, before, after, size)
    titles = (told(before), told(after), "difference", "10x difference")
    done = "fooled in" if found.success[0] else "not fooled in"
    captions = ("original", f"{done} {found.effort(0)}", "0 is grey", "0 is grey")
    panels = [pictures.Panel(p.image, t, c) for p, t, c in zip(made, titles, captions, strict=True)]
    sheet = pictures.sheet(panels, columns=4, side=280, footnote=f"{net}: {size}")
    alt = f"A photograph seen as {told(before)}, a copy that looks the same seen as {told(after)}, and the difference"
    way, amount = direction(original, fooled)
    by_itself = parts.seen_in(network, way[None].to(photo))
    formula = _equation(original, way, fooled, amount, before, by_itself, after, chosen)
    noise = _noisy(photo, l2, linf, chosen)
    facts = {
        "net": net,
        "before": before,
        "after": after,
        "target": _target(network, found.images, goals),
        **chosen.facts(),
        **found.facts(0),
        "changed": float((fooled != original).float().mean()),
        "read_back": parts.seen_in(network, pictures.decode(pictures.encode(fooled)).to(photo)),
        "noise": parts.seen_in(network, noise),
        "direction": by_itself,
        "others": {name: _shown(rival, photo, found.images, noise) for name, rival in rivals.items()},
    }
    return Outcome((Picture("fool", sheet, alt, size), *made, formula), facts)


def _shown(rival: Network, photo: Tensor, fooled: Tensor, noise: Tensor) -> dict[str, Any]:
    """What another network sees in the photograph, in the result, and in noise of the same size."""
    images = {"before": photo, "after": fooled, "noise": noise}
    return {name: parts.seen_in(rival, image.to(rival.mean)) for name, image in images.items()}


def _pictures(
    original: Tensor, fooled: Tensor, before: dict[str, Any], after: dict[str, Any], size: str
) -> tuple[Picture, ...]:
    """The slide's four."""
    return (
        Picture("original", original, f"The photograph, seen as {told(before)}", told(before)),
        Picture("fooled", fooled, f"The changed photograph, seen as {told(after)}", told(after)),
        Picture("difference", pictures.difference(original, fooled), "Their difference", f"difference, {size}"),
        Picture("difference-10x", pictures.difference(original, fooled, gain=10), "Ten times it", "10x difference"),
    )


def _equation(
    original: Tensor,
    way: Tensor,
    fooled: Tensor,
    amount: float,
    before: dict[str, Any],
    by_itself: dict[str, Any],
    after: dict[str, Any],
    chosen: Plan,
) -> Picture:
    """The slide's equation."""
    sign = chosen.attack == "fgsm" and chosen.norm == "linf"
    terms = (
        Term(original, f"“{before['name']}”", _sure(before)),
        Term(way, "sign(∇ₓJ)" if sign else "the change, enlarged", f"by itself “{by_itself['name']}”", exact=True),
        Term(fooled, f"“{after['name']}”", _sure(after)),
    )
    kind = "the sign of the gradient" if sign else "the change"
    alt = f"{told(before)}, plus {coefficient(amount)} times {kind}, is {told(after)}"
    caption = f"{before['name']} + {coefficient(amount)} × {kind} = {after['name']}"
    return Picture("equation", equation(*terms, amount), alt, caption)


def _sure(seen: dict[str, Any]) -> str:
    return f"{seen['probability']:.1%} confidence"


def _target(network: Network, images: Tensor, goals: list[int]) -> dict[str, Any] | None:
    """The class that was to be reached, and its probability in the result; None where any would do."""
    if not goals:
        return None
    chance = float(parts.probabilities(network, images)[0, goals[0]])
    return {"index": goals[0], "name": network.labels[goals[0]], "probability": chance}


def _noisy(image: Tensor, l2: float, linf: float, chosen: Plan) -> Tensor:
    """The control: the image under noise of the same size, random signs for an attack in linf."""
    if chosen.norm == "linf" and chosen.attack != parts.FOOLING:
        return noisy(image, linf, "linf", seed=chosen.seed)
    return noisy(image, l2, "l2", seed=chosen.seed)
