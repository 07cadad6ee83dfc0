"""`embed`: a folder of photographs as a map on which the network's likes lie together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from phosphene import images as pictures
from phosphene.errors import PhospheneError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.thumbnails import Thumbnails, colours_by, colours_of, dotted, framed, scattered, tiled
from phosphene.jobs.workshop import Collection, Workshop, check_seed
from phosphene.models import Network
from phosphene.observe.embedding import directions, fitting_perplexity, pca, tsne
from phosphene.observe.features import features
from phosphene.observe.lattice import assign
from phosphene.observe.trust import VOTERS, Neighbours, accuracy, nearest, preservation, trustworthiness
from phosphene.progress import Finished, Job, Started, run

TITLES = {"tsne": "t-SNE", "pca": "PCA"}
NEIGHBOURS = 10
DRAWN = 3000
"""Thumbnails in a picture at most: of more images a sample is drawn."""

_LEAST = 3  # images that make a map


def embed(
    workshop: Workshop,
    *,
    folder: str,
    net: str = "efficientnet_lite0",
    weights: str | None = None,
    labels: str | None = None,
    layer: str | None = None,
    method: str = "tsne",
    perplexity: float = 30.0,
    neighbours: int | None = None,
    query: str | None = None,
    seed: int = 0,
) -> Job[Outcome]:
    """Pictures: `embed` (thumbnails on the map), `grid`, `points`, and `neighbours` for a `query`.

    Features are compared by their direction (cosine distance). No `neighbours`: 10, or what there is.
    """
    check_seed(seed)
    if method not in TITLES:
        raise PhospheneError(f"no map by '{method}': {', '.join(TITLES)} are there")
    fitting_perplexity(perplexity, _LEAST)
    network = workshop.network(net, weights, labels)
    collection = workshop.images(folder, network)
    photo = None if query is None else network.preprocess(workshop.image(query))
    asked = _check_count(neighbours, len(collection))
    thumbnails = Thumbnails(collection)
    found = yield from features(network, thumbnails, layer)
    count = _check_count(neighbours, len(found.places)) or asked
    paths = [collection.paths[place] for place in found.places]
    folk = _Folk(
        found.vectors, [_name(path, workshop.find(folder)) for path in paths], _classes(paths, workshop.find(folder))
    )
    unit = directions(found.vectors.numpy())
    maps, used, shares = {}, None, pca(unit, 3)
    if method == "tsne":
        made = yield from tsne(unit, perplexity=perplexity, seed=seed)
        maps["tsne"], used = made.points, made.perplexity
    maps["pca"] = shares.points[:, :2]
    yield Started("neighbours and grid", None, "map")
    near = nearest(unit, count)
    near = Neighbours(near.places, near.distances**2 / 2)  # of unit vectors: 1 - cosine
    facts: dict[str, Any] = {
        "net": net, "layer": found.source, "method": method, "images": len(paths), "dimensions": unit.shape[1],
        "perplexity": used, "perplexity_asked": perplexity if used is not None else None,
        "variance": float(shares.shares[:2].sum()), "neighbours": count, "distance": "cosine",
        "trust": _trust(unit, maps, near, folk.classes),
        "skipped": {str(collection.paths[place]): why for place, why in found.skipped.items()},
    }  # fmt: skip
    drawn = _drawn(len(paths), seed)
    cells = np.full((len(paths), 2), np.nan)
    cells[drawn] = assign(maps[method][drawn])
    small = torch.stack([thumbnails.small[place] for place in found.places])
    facts["drawn"] = len(drawn)
    facts["points"] = folk.rows(maps[method])
    made_pictures = _pictures(facts, small, maps[method], cells, drawn, folk, shares.points)
    if photo is not None and query is not None:
        own = _place_of(workshop.find(query), paths)
        picture, facts["query"] = _beside(
            network, photo, query, layer, own, unit, collection, found.places, folk, count
        )
        made_pictures.append(picture)
    yield Finished("neighbours and grid")
    arrays = {
        "features": found.vectors,
        **{name: torch.from_numpy(points) for name, points in maps.items()},
        "grid": torch.from_numpy(cells),
        "neighbours": torch.from_numpy(near.places),
        "distances": torch.from_numpy(near.distances),
        "thumbnails": small,
    }
    return Outcome(tuple(made_pictures), facts, arrays, _versions())


@dataclass(frozen=True, eq=False)
class _Folk:
    """The images of a map: their features, names, and classes (None where the folder tells none)."""

    vectors: Tensor
    names: list[str]
    classes: list[str] | None

    def rows(self, points: np.ndarray) -> list[dict[str, Any]]:
        kinds: Sequence[str | None] = self.classes or [None] * len(self.names)
        return [
            {"name": name, "class": kind, "x": x, "y": y}
            for name, kind, (x, y) in zip(self.names, kinds, points.tolist(), strict=True)
        ]


def _check_count(neighbours: int | None, images: int) -> int:
    """How many neighbours are looked for; the default is lowered for few images."""
    if images < _LEAST:
        raise PhospheneError(
            f"a map needs at least {_LEAST} images, and there {'is' if images == 1 else 'are'} {images}"
        )
    if neighbours is None:
        return min(NEIGHBOURS, images - 1)
    if not 1 <= neighbours < images:
        raise PhospheneError(f"{neighbours} neighbours of one of {images} images: give 1 to {images - 1}")
    return neighbours


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _classes(paths: Sequence[Path], folder: Path) -> list[str] | None:
    """The folder that holds each image, where there are at least two inside `folder`."""
    inside = {path.parent.name for path in paths if path.parent != folder}
    if len(inside) < 2:
        return None
    return [path.parent.name if path.parent != folder else folder.resolve().name for path in paths]


def _drawn(count: int, seed: int) -> np.ndarray:
    """The images that have a thumbnail in the pictures: all, or a sample."""
    if count <= DRAWN:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed % 2**64).choice(count, DRAWN, replace=False))


def _trust(
    unit: np.ndarray, maps: Mapping[str, np.ndarray], near: Neighbours, classes: Sequence[str] | None
) -> dict[str, Any]:
    """What each map keeps of the features' neighbourhoods, and what chance would."""
    total, count = near.places.shape
    fair = min(count, (total - 1) // 2)
    found: dict[str, Any] = {"chance": count / (total - 1), "maps": {}}
    voters = min(VOTERS, total - 1)
    if classes is not None:
        found["voters"] = voters
        found["largest_class"] = max(Counter(classes).values()) / total
        found["accuracy"] = accuracy(nearest(unit, voters).places, classes)
    for name, points in maps.items():
        here = nearest(points, max(count, voters)).places
        found["maps"][name] = {
            "preservation": preservation(near.places, here[:, :count]),
            "trustworthiness": trustworthiness(unit, here[:, :fair]),
            "accuracy": None if classes is None else accuracy(here[:, :voters], classes),
        }
    return found


def told(facts: Mapping[str, Any]) -> list[str]:
    """What the facts say of the map, in sentences: for captions, the terminal and the page."""
    trust, method = facts["trust"], facts["method"]
    mine = trust["maps"][method]
    words = [
        f"{TITLES[method]} of {facts['images']} images by {facts['net']}: {facts['layer']}, {facts['dimensions']} numbers,"
        " compared by their direction (cosine)."
    ]
    if facts["perplexity"] is not None:
        words.append(f"Perplexity {facts['perplexity']:g}{_lowered(facts)}.")
    words.append(f"Two principal components keep {facts['variance']:.1%} of the variance.")
    words.append(
        f"Of the {facts['neighbours']} nearest of an image, {mine['preservation']:.1%} are among its nearest in the map"
        f" ({trust['chance']:.1%} by chance); trustworthiness {mine['trustworthiness']:.3f}."
    )
    if "accuracy" in trust:
        words.append(
            f"The {trust['voters']} nearest name the class of {trust['accuracy']:.1%} of the images by features,"
            f" {mine['accuracy']:.1%} in the map; {trust['largest_class']:.1%} are of the largest class."
        )
    if facts["drawn"] < facts["images"]:
        words.append(f"Thumbnails are of {facts['drawn']} images, drawn at random.")
    return words


def _lowered(facts: Mapping[str, Any]) -> str:
    asked, used = facts["perplexity_asked"], facts["perplexity"]
    return "" if used == asked else f", lowered from {asked:g}, as there are only {facts['images']} images"


def _pictures(
    facts: Mapping[str, Any], small: Tensor, points: np.ndarray, cells: np.ndarray, drawn: np.ndarray, folk: _Folk,
    components: np.ndarray,
) -> list[Picture]:  # fmt: skip
    legend = None if folk.classes is None else colours_of(folk.classes)
    colours = None if legend is None or folk.classes is None else [legend[kind] for kind in folk.classes]
    borders = None if colours is None else [colours[place] for place in drawn]
    note = " ".join(told(facts))
    how, few = TITLES[facts["method"]], small[torch.from_numpy(drawn)]
    title = f"What {facts['net']} takes for alike"
    spread = scattered(few, points[drawn], borders)
    grid = tiled(few, cells[drawn].astype(int), borders)
    hues = "" if colours else " Colours are the first three principal components, as red, green and blue."
    moved = f"{note} Pictures that would hide one another are moved apart a little."
    filled = f"{note} Each picture has the cell that lets all together move least from the map."
    alt = f"{facts['images']} images where {how} of the features of {facts['net']} puts them"
    return [
        Picture("embed", framed(spread, title, moved, legend), alt, moved),
        Picture("grid", framed(grid, f"{title}: a grid", filled, legend), f"{alt}, in a grid without gaps", filled),
        Picture(
            "points", framed(dotted(points, colours or colours_by(components)), f"{title}: every image a point", note + hues, legend),
            f"{alt}, as points", note + hues,
        ),
    ]  # fmt: skip


def _place_of(query: Path, paths: Sequence[Path]) -> int | None:
    """Which image of the folder the query is itself, if it is one of them."""
    return next((place for place, path in enumerate(paths) if path.samefile(query)), None)


def _beside(
    network: Network, photo: Tensor, query: str, layer: str | None, own: int | None, unit: np.ndarray,
    collection: Collection, places: Sequence[int], folk: _Folk, count: int,
) -> tuple[Picture, dict[str, Any]]:  # fmt: skip
    """The query and the images nearest to it, itself left out."""
    vector = directions(run(features(network, [photo[0]], layer)).vectors.numpy())[0]
    distances = np.square(unit - vector).sum(1) / 2
    order = [place for place in distances.argsort(kind="stable").tolist() if place != own][:count]
    kinds: Sequence[str | None] = folk.classes or [None] * len(folk.names)
    panels = [pictures.Panel(photo[0].cpu(), "the query", Path(query).name)]
    panels += [
        pictures.Panel(collection[places[place]].cpu(), f"{rank}: {distances[place]:.3f}", folk.names[place])
        for rank, place in enumerate(order, start=1)
    ]  # fmt: skip
    note = (
        f"The {len(order)} of {len(folk.names)} images whose features are nearest, by {network.name}; cosine distances"
        " (0: the same direction, 1: nothing in common)."
    )
    columns = min(len(panels), 6 if len(panels) > 8 else 4)
    sheet = pictures.sheet(panels, columns=columns, title="Nearest neighbours", footnote=note)
    rows = [{"name": folk.names[place], "class": kinds[place], "distance": float(distances[place])} for place in order]
    alt = f"{Path(query).name} and the {len(order)} images that {network.name} takes for most alike"
    return Picture("neighbours", sheet, alt, note), {"image": query, "neighbours": rows}


def _versions() -> dict[str, Any]:
    """The libraries that decide where points lie; a recipe lists those that touch pixels by itself."""
    import scipy
    import sklearn

    return {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__}
