"""`robustness`: accuracy against eps, transfer to other networks, and whether these numbers can be believed."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from phosphene import processes
from phosphene.attacks import Norm, curve, masking, noisy, transfer
from phosphene.attacks import checks as attack_checks
from phosphene.attacks.named import check, named
from phosphene.attacks.transfer import same_classes
from phosphene.attacks.victim import gives_probabilities
from phosphene.errors import ImageError, NetworkError, PhospheneError
from phosphene.jobs.attacked import share
from phosphene.jobs.labelled import Labelled, labelled, photograph
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.workshop import Workshop, check_seed, code_file
from phosphene.models import Network
from phosphene.models.bundled import BUNDLED
from phosphene.progress import Job, Started, Step, relay
from phosphene.recipe import hash_file
from phosphene.report.attack_plots import curve_plot, transfer_plot

TOGETHER = 16
"""Photographs that are attacked together, see `jobs.attack`."""

RADII: dict[str, tuple[float, ...]] = {
    "linf": tuple(levels / 255 for levels in (0.125, 0.25, 0.5, 1, 2, 4, 8)),
    "l2": (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0),
}
"""The radii where none are given: from where hardly any network notices to where none that isn't hardened stands."""

TRANSFER: dict[str, float] = {"linf": 8 / 255, "l2": 4.0}
"""The radius of what is shown to other networks."""

SHOWN = 48
"""Photographs for the transfer matrix, at most."""

CHECKED = 32
"""Photographs for the checks for gradient masking, at most."""

Row = dict[str, Any]
"""A part of the result: `key`, and the numbers of some photographs."""

Keep = Callable[[Sequence[Row]], None]


@dataclass(frozen=True, eq=False)
class _Work:
    """What is measured on which photographs."""

    network: Network
    found: Labelled
    hashes: Sequence[str]
    eps: tuple[float, ...]
    norm: Norm
    attack: str
    steps: int | None
    seed: int
    probabilities: bool

    def key(self, part: str, places: Sequence[int]) -> str:
        """What tells a row from all others: the part, and the photographs and what is true of them."""
        told = f"{[(self.hashes[place], self.found.labels[place]) for place in places]}"
        return f"{part}:{_short(told)}"


def _short(told: str) -> str:
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def robustness(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    eps: Sequence[float] = (),
    norm: Norm = "linf",
    attack: str = "pgd",
    steps: int | None = None,
    others: Sequence[str] | None = None,
    transfer_eps: float | None = None,
    checks: bool = True,
    truth: str = "auto",
    images: int = 100,
    seed: int = 0,
    known: Mapping[str, Row] | None = None,
    keep: Keep | None = None,
) -> Job[Outcome]:
    """Pictures: `robustness` (the curve), and `transfer` where there are other networks.

    Facts: `curve` and `noise`, at eps 0 and each of `eps`: `mean`, `low`, `high`, `count`; `half`, the eps at which half of
    what was right has fallen; `transfer`: `names`, `rate`, `count`, `control`, of rows and columns; `findings`, see
    `attacks.masking`, and `masked`; `photographs`, with the number of the radius at which each `falls`, see `attacks.Curve`.

    Args:
        workshop: gives networks and photographs.
        folder, net, weights, labels: what is attacked.
        eps: radii in units of [0, 1]; none: `RADII`.
        norm: `linf` or `l2`.
        attack: of the curve.
        steps: of it; None: its own number.
        others: networks for the transfer matrix; None: the bundled ones with the same classes.
        transfer_eps: the radius there; None: 8/255, or 4 in l2.
        checks: whether to look for gradient masking.
        truth: where the true classes come from, see `labelled`.
        images: so many, evenly spread; 0: all.
        seed: decides everything random.
        known: rows of an earlier run, by key.
        keep: is handed rows as they are made.

    Raises:
        PhospheneError: see `attacks.curve`, `attacks.transfer` and `labelled`.
    """
    check_seed(seed)
    network = workshop.network(net, weights, labels)
    network.need_classifier("robustness")
    radii = tuple(sorted(eps)) or RADII.get(norm, ())
    check(named(attack), eps=max(radii, default=0.0), norm=norm, steps=steps)
    if transfer_eps is not None:
        attack_checks.visible(transfer_eps, norm)
    rivals = _rivals(workshop, network, net, others)
    told = [(name, workshop.networks[name], workshop.inputs.get(code_file(name) or "")) for name in rivals]
    found = labelled(workshop, folder, network, truth).first(images)
    hashes = [hash_file(path) for path in found.paths]
    probabilities = gives_probabilities(network)
    work = _Work(network, found, hashes, radii, norm, attack, steps, seed, probabilities)
    rows = yield from _curve_rows(work, known or {}, keep)
    right = [row for row in rows if "skipped" not in row and row["falls"] > 0]
    across = yield from _transfer_rows(work, rivals, str(told), transfer_eps, right, known or {}, keep)
    processes.leave()
    found_out = (yield from _findings(work, right, known or {}, keep)) if checks else None
    return _outcome(work, net, rows, across, found_out)


def _rivals(workshop: Workshop, network: Network, net: str, others: Sequence[str] | None) -> dict[str, Network]:
    """The networks of the transfer matrix, this one first; only itself where there is no other."""
    names = [name for name in BUNDLED if name != net] if others is None else list(dict.fromkeys(others))
    if net in names:
        raise NetworkError(f"'{net}' is the network itself: name others to be compared with")
    loaded = {name: workshop.network(name) for name in names}
    if others is None:
        loaded = {name: one for name, one in loaded.items() if list(one.labels) == list(network.labels)}
    for one in loaded.values():
        one.need_classifier("robustness")
    same_classes({net: network, **loaded})
    return {net: network, **loaded}


# -- the curve ----------------------------------------------------------------------------------------------------------


def _curve_rows(work: _Work, known: Mapping[str, Row], keep: Keep | None) -> Job[list[Row]]:
    """A row for each photograph, in order; several processes share them."""
    total = len(work.found.paths)
    yield Started(f"{work.attack} on {work.network.name}", total, "image")
    rows: dict[int, Row] = {}
    for chunk in processes.mine(total, TOGETHER):
        keys = {place: work.key("curve", [place]) for place in chunk}
        if all(key in known for key in keys.values()):
            rows |= {place: known[key] | _placed(work, place) for place, key in keys.items()}
        else:
            made = yield from relay(_curve_chunk(work, chunk, keys), lambda _, at=chunk.start: Step(at))
            if keep is not None and any("skipped" not in row for row in made.values()):
                keep(list(made.values()))
            rows |= made
        yield Step(chunk.stop)
    rows = processes.merged(rows)
    if all("skipped" in row for row in rows.values()):
        raise PhospheneError(f"none of the {total} photographs could be read: {rows[0]['skipped']}")
    return list(rows.values())


def _curve_chunk(work: _Work, chunk: range, keys: Mapping[int, str]) -> Job[dict[int, Row]]:
    rows: dict[int, Row] = {}
    photos: dict[int, Tensor] = {}
    for place in chunk:
        rows[place] = {"key": keys[place], **_placed(work, place)}
        try:
            photos[place] = photograph(work.network, work.found.paths[place])
        except ImageError as problem:
            rows[place]["skipped"] = str(problem)
    if not photos:
        return rows
    batch = torch.stack(list(photos.values()))
    truth = [work.found.labels[place] for place in photos]
    if work.found.truth == "predicted":
        truth = [seen.indices[0] for seen in work.network.predict(batch, 1)]
    made = yield from curve(
        work.network, batch, [int(one or 0) for one in truth], eps=work.eps, norm=work.norm, attack=work.attack,
        steps=work.steps, seed=work.seed, probabilities=work.probabilities,
    )  # fmt: skip
    labels = made.labels.cpu()
    shaken = torch.stack([_seen(work, _noise(work, batch, one)) == labels for one in work.eps], 1)
    for at, place in enumerate(photos):
        rows[place] |= {
            "label": int(labels[at]),
            "name": work.network.labels[int(labels[at])],
            "falls": int(made.falls[at]),
            "noise": shaken[at].tolist(),
            "forwards": int(made.forwards[at]),
            "backwards": int(made.backwards[at]),
        }
    return rows


def _placed(work: _Work, place: int) -> Row:
    """What depends on the folder: equal files in two places share all the rest."""
    return {"place": place, "image": work.found.shown(place)}


def _noise(work: _Work, images: Tensor, eps: float) -> Tensor:
    return noisy(images, eps, work.norm, seed=work.seed, quantize=False)


def _seen(work: _Work, images: Tensor) -> Tensor:
    return torch.tensor([found.indices[0] for found in work.network.predict(images, 1)])


# -- other networks -----------------------------------------------------------------------------------------------------


def _transfer_rows(
    work: _Work,
    rivals: Mapping[str, Network],
    identity: str,
    eps: float | None,
    right: Sequence[Row],
    known: Mapping[str, Row],
    keep: Keep | None,
) -> Job[list[Row]]:
    """A row for each few photographs, those that the network sees rightly."""
    if len(rivals) < 2 or not right:
        return []
    chosen = _spread(right, SHOWN)
    yield Started(f"transfer between {len(rivals)} networks", len(chosen), "image")
    radius = TRANSFER[work.norm] if eps is None else eps
    sure = [name for name, rival in rivals.items() if gives_probabilities(rival)]
    rows: dict[int, Row] = {}
    for chunk in processes.mine(len(chosen), TOGETHER):
        some = [chosen[at] for at in chunk]
        key = work.key(f"transfer:{_short(f'{radius} {identity}')}", [row["place"] for row in some])
        if key not in known:
            batch = torch.stack([photograph(work.network, work.found.paths[row["place"]]) for row in some])
            made = yield from relay(
                transfer(
                    rivals,
                    batch,
                    [row["label"] for row in some],
                    eps=radius,
                    norm=work.norm,
                    seed=work.seed,
                    probabilities=sure,
                ),
                lambda _, at=chunk.start: Step(at),
            )
            counts = {name: getattr(made, name).tolist() for name in ("right", "success", "count", "misread", "shaken")}
            row = {"key": key, "names": list(made.names), "eps": radius, **counts}
            if keep is not None:
                keep([row])
            rows[chunk.start] = row
        else:
            rows[chunk.start] = known[key]
        yield Step(chunk.stop)
    return list(processes.merged(rows).values())


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    count = min(most, len(rows))
    return [rows[at * len(rows) // count] for at in range(count)]


def _added(rows: Sequence[Row]) -> dict[str, Any] | None:
    """All photographs together: `rate` [S][T] and `control` [T], None where there was nothing to be misread."""
    if not rows:
        return None
    total = {name: sum(torch.tensor(row[name]) for row in rows) for name in ("right", "count", "misread", "shaken")}
    total = {name: torch.as_tensor(value) for name, value in total.items()}
    return {
        "names": rows[0]["names"],
        "eps": rows[0]["eps"],
        "rate": [[_rate(m, c) for m, c in zip(*pair, strict=True)] for pair in zip(
            total["misread"].tolist(), total["count"].tolist(), strict=True)],
        "count": total["count"].tolist(),
        "control": [_rate(m, c) for m, c in zip(total["shaken"].tolist(), total["right"].tolist(), strict=True)],
    }  # fmt: skip


def _rate(some: int, of: int) -> float | None:
    return some / of if of else None


# -- can it be believed? --------------------------------------------------------------------------------------------------


def _findings(work: _Work, right: Sequence[Row], known: Mapping[str, Row], keep: Keep | None) -> Job[Row | None]:
    """What the checks for gradient masking have seen."""
    if not right:
        return None
    chosen = _spread(right, CHECKED)
    key = work.key("masking", [row["place"] for row in chosen])
    if key not in known:
        batch = torch.stack([photograph(work.network, work.found.paths[row["place"]]) for row in chosen])
        found = yield from masking(
            work.network, batch, [row["label"] for row in chosen], eps=max(work.eps), norm=work.norm, seed=work.seed,
            probabilities=work.probabilities,
        )  # fmt: skip
        row = {"key": key, "findings": [asdict(one) for one in found.findings]}
        if keep is not None:
            keep([row])
        return row
    return known[key]


# -- the result ---------------------------------------------------------------------------------------------------------


def _outcome(work: _Work, net: str, rows: Sequence[Row], parts: Sequence[Row], checked: Row | None) -> Outcome:
    across, findings = _added(parts), [] if checked is None else checked["findings"]
    told = [row for row in rows if "skipped" not in row]
    levels = range(len(work.eps) + 1)
    falls = [share(sum(row["falls"] > level for row in told), len(told)) for level in levels]
    noise = [share(sum(_shaken(row, level) for row in told), len(told)) for level in levels]
    facts = {
        "net": net,
        "truth": work.found.truth,
        "probabilities": work.probabilities,
        "images": len(told),
        "eps": [0.0, *work.eps],
        "norm": work.norm,
        "attack": work.attack,
        "curve": falls,
        "noise": noise,
        "half": half(work.eps, [one["mean"] for one in falls]),
        "transfer": across,
        "findings": findings,
        "masked": any(not one["passed"] for one in findings),
        "photographs": told,
        "rows": [*rows, *parts, *([] if checked is None else [checked])],
        "skipped": {row["image"]: row["skipped"] for row in rows if "skipped" in row},
    }
    series = {work.attack: falls, "noise of the same size": noise}
    alt = f"Accuracy of {net} against eps under {work.attack}, and under noise of the same size"
    plot = curve_plot(facts["eps"], series, norm=work.norm, chance=1 / len(work.network.labels))
    pictures = [Picture("robustness", plot, alt)]
    if across is not None:
        alt = f"Who is fooled by whose images: {', '.join(across['names'])}"
        pictures.append(Picture("transfer", transfer_plot(across["names"], across["rate"], across["control"]), alt))
    return Outcome(tuple(pictures), facts)


def _shaken(row: Row, level: int) -> bool:
    """Whether a photograph is right under noise of radius number `level`, from 1; 0: as it is."""
    return row["falls"] > 0 and (level == 0 or row["noise"][level - 1])


def half(eps: Sequence[float], accuracy: Sequence[float]) -> float | None:
    """The radius at which half of what was right has fallen, between two radii by their logarithms; None: beyond the largest,
    or nothing was right.

    Args:
        eps: radii, ascending.
        accuracy: at 0, and at each of them.
    """
    if not accuracy[0]:
        return None
    wanted = accuracy[0] / 2
    for place, value in enumerate(accuracy[1:]):
        if value <= wanted:
            above = accuracy[place]
            if place == 0 or above == value:
                return eps[place]
            part = (above - wanted) / (above - value)
            return math.exp(math.log(eps[place - 1]) * (1 - part) + math.log(eps[place]) * part)
    return None
