"""`models`, `models get`, `layers`, `predict`: what there is, and what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from phosphene.cli import terminal
from phosphene.cli.options import OUTPUT, Net, Said, Source, split

if TYPE_CHECKING:
    from phosphene.jobs.workshop import Workshop
    from phosphene.models import Network
    from phosphene.progress import Job


def models(*, said: Said | None = None) -> None:
    """List the networks that Phosphene knows by itself: where their weights come from, under which licence."""
    said = said or Said()
    from phosphene.models import cache, provenance
    from phosphene.models.status import where

    rows = [{"name": row.name, "here": where(row.name), "source": row.source, "licence": row.licence,
             "citation": row.citation, "sha256": row.sha256} for row in provenance.TABLE]  # fmt: skip
    if said.json:
        return terminal.facts({"models": rows, "folders": [str(place) for place in cache.places()]}, said)
    if not said.quiet:
        terminal.table(
            ("network", "weights", "from", "licence"),
            [
                (str(r["name"]), _home(str(r["here"])), str(r["source"]).partition(":")[0], str(r["licence"]))
                for r in rows
            ],
        )
        terminal.say("Weights are also looked for in " + _home(", ".join(map(str, cache.places()))), said)
        terminal.say("Hashes, papers and full sources: phosphene models --json", said)
        terminal.say("Fetch ahead of time: phosphene models get vgg16 resnet18 timm:NAME", said)
    return None


def _home(text: str) -> str:
    return text.replace(str(Path.home()), "~")


def models_get(
    names: Annotated[list[str], Parameter(negative="", help="vgg16, any torchvision name, or timm:NAME.")],
    *,
    force: Annotated[
        bool, Parameter(negative="", show_default=False, help="Fetch again what is already here.")
    ] = False,
    said: Said | None = None,
) -> None:
    """Fetch weights ahead of time, verified by their hash, into the cache."""
    said = said or Said()
    from phosphene.models import fetch

    rows = []
    for name in split(names):
        found = terminal.run(fetch.get(name, force=force), said)
        rows.append({"name": name, "path": str(found.path), "source": found.source, "bytes": found.bytes,
                     "sha256": found.sha256, "already": found.already})  # fmt: skip
        what = "is already here" if found.already else f"fetched from {found.source} ({found.bytes / 1e6:.1f} MB)"
        terminal.say(f"{name} {what}: {found.path}", said)
    terminal.facts({"models": rows}, said)


def layers(
    net: Net = "efficientnet_lite0",
    *,
    all_: Annotated[
        bool,
        Parameter(name="--all", negative="", show_default=False, help="Also blocks, not only their leaves."),
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """List the layers of a network in the order in which they run: names, kinds, output shapes."""
    source, said = source or Source(), said or Said()
    from phosphene.jobs.workshop import Workshop

    workshop = Workshop(source.device)
    network = terminal.run(_load(workshop, net, source), said, workshop)
    shown = [layer for layer in network.layers() if (all_ or layer.leaf) and layer.kind != "Identity"]
    rows = [
        {"name": layer.name, "alias": layer.alias, "kind": layer.kind, "shape": list(layer.shape),
         "parameters": layer.parameters, "calls": layer.calls}
        for layer in shown
    ]  # fmt: skip
    terminal.facts({"net": net, "input_size": list(network.input_size), "layers": rows}, said)
    if not (said.json or said.quiet):
        aliases = any(layer.alias for layer in shown)
        header = ("layer", *(["also"] if aliases else []), "kind", "output", "parameters", "runs")
        terminal.table(
            header,
            [
                (layer.name, *([layer.alias or ""] if aliases else []), layer.kind,
                 " x ".join(map(str, layer.shape)), f"{layer.parameters:,}", str(layer.calls))
                for layer in shown
            ],
        )  # fmt: skip


def _load(workshop: Workshop, net: str, source: Source) -> Job[Network]:
    """Loading as a job, so that a download shows its progress."""
    yield from ()
    return workshop.network(net, **source.parameters())


def predict(
    image: Annotated[list[Path], Parameter(negative="", help="Pictures, or folders of them.")],
    *,
    net: Net = "efficientnet_lite0",
    top: Annotated[int, Parameter(help="How many classes to show.")] = 5,
    csv: Annotated[Path | None, Parameter(group=OUTPUT, help="Also write a table into this file.")] = None,
    overwrite: Annotated[
        bool, Parameter(group=OUTPUT, negative="", show_default=False, help="Replace a table that exists.")
    ] = False,
    source: Source | None = None,
    said: Said | None = None,
) -> None:
    """Say what a network sees in each picture: its most probable classes.

    In folders, pictures that can't be read are left out and told. Another picture that can't be read is an error.
    """
    source, said = source or Source(), said or Said()
    from phosphene import images
    from phosphene.cli import predictions
    from phosphene.errors import PhospheneError
    from phosphene.jobs.predict import predict as job
    from phosphene.jobs.workshop import Workshop

    if top < 1:
        raise PhospheneError(f"--top starts at 1, got {top}")
    paths = [str(path) for path in images.find(image)]
    spare = set(paths) - {str(path) for path in image}
    if csv is not None:
        predictions.check(csv, overwrite, [*paths, *filter(None, source.parameters().values())])
    workshop = Workshop(source.device)
    made = job(workshop, images=paths, net=net, top=top, spare=spare, **source.parameters())
    outcome = terminal.run(made, said, workshop)
    if csv is not None:
        predictions.write(csv, outcome.facts["predictions"], overwrite)
    for path, why in outcome.facts["skipped"].items():
        terminal.warn(f"left out {path}: {why}", said)
    terminal.facts(outcome.facts, said)
    if not (said.json or said.quiet):
        for row in outcome.facts["predictions"]:
            terminal.table(
                ("class", "probability", "", "index", "synset"),
                [
                    (c["name"], f"{c['probability']:.1%}", "█" * round(c["probability"] * 24), str(c["index"]),
                     c["synset"] or "")
                    for c in row["classes"]
                ],
                title=row["image"],
            )  # fmt: skip
    if csv is not None:
        terminal.say(f"wrote {csv}", said)
