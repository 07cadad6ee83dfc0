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
from phosphene import processes
from phosphene.errors import PhospheneError
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.thumbnails import Thumbnails, colours_by, colours_of, dotted, framed, scattered, tiled
from phosphene.jobs.workshop import Collection, Workshop, check_seed
from phosphene.models import Network
from phosphene.observe.embedding import Projection, check_count, directions, fitting_perplexity, pca, tsne
from phosphene.observe.features import Features, features
from phosphene.observe.lattice import assign
from phosphene.observe.trust import VOTERS, Neighbours, accuracy, nearest, preservation, trustworthiness
from phosphene.progress import Job, Started, Step, run

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
    _check_count(neighbours, len(collection))
    if method == "tsne":
        check_count(len(collection))
    thumbnails = Thumbnails(collection)
    found = yield from features(network, thumbnails, layer)
    thumbnails.small = processes.merged(thumbnails.small)
    processes.leave()
    folk = _folk(found, collection, workshop.find(folder), _check_count(neighbours, len(found.places)))
    maps = yield from _maps(folk.unit, method, perplexity, seed)
    yield Started("neighbours, grid and pictures", 3, "part")
    facts = {"net": net, "layer": found.source, "perplexity_asked": perplexity, **_facts(folk, maps)}
    facts["skipped"] = {str(collection.paths[place]): why for place, why in found.skipped.items()}
    yield Step(1)
    drawn = _drawn(len(folk.names), seed)
    facts["drawn"] = len(drawn)
    cells = np.full((len(folk.names), 2), np.nan)
    cells[drawn] = assign(maps.main[drawn])
    yield Step(2)
    small = torch.stack([thumbnails.small[place] for place in found.places])
    made = _pictures(facts, small, maps, cells, drawn, folk)
    if query is not None and photo is not None:
        asked = run(features(network, [photo[0]], layer)).vectors.numpy()
        picture, facts["query"] = _beside(
            photo[0], query, asked, _place_of(workshop.find(query), folk.paths), folk, network
        )
        made.append(picture)
    yield Step(3)
    arrays = {"features": found.vectors, "thumbnails": small}
    numbers = {**maps.points, "grid": cells, "neighbours": folk.near.places, "distances": folk.near.distances}
    return Outcome(
        tuple(made), facts, {**arrays, **{key: torch.from_numpy(value) for key, value in numbers.items()}}, _versions()
    )


@dataclass(frozen=True, eq=False)
class _Folk:
    """The images of a map.

    Attributes:
        paths: their files.
        names: these, seen from the folder.
        classes: of each; None where the folder tells none.
        unit: their features by direction, `[N, D]`.
        near: the nearest others of each, with cosine distances.
    """

    paths: list[Path]
    names: list[str]
    classes: list[str] | None
    unit: np.ndarray
    near: Neighbours

    @property
    def kinds(self) -> Sequence[str | None]:
        """The class of each, or None for each."""
        return self.classes or [None] * len(self.names)


@dataclass(frozen=True, eq=False)
class _Maps:
    """Places by each method, `points[method] [N, 2]`: `method` is the one that was asked for.

    Beside them the first three principal components, and t-SNE's perplexity (None without it).
    """

    method: str
    points: dict[str, np.ndarray]
    components: Projection
    perplexity: float | None

    @property
    def main(self) -> np.ndarray:
        """The map that was asked for."""
        return self.points[self.method]


def _folk(found: Features, collection: Collection, folder: Path, count: int) -> _Folk:
    paths = [collection.paths[place] for place in found.places]
    unit = directions(found.vectors.numpy())
    near = nearest(unit, count)
    cosine = near.distances**2 / 2  # of vectors of length 1
    names = [path.relative_to(folder).as_posix() for path in paths]
    return _Folk(paths, names, _classes(paths, folder), unit, Neighbours(near.places, cosine))


def _maps(unit: np.ndarray, method: str, perplexity: float, seed: int) -> Job[_Maps]:
    components, used = pca(unit, 3), None
    points = {"pca": components.points[:, :2]}
    if method == "tsne":
        made = yield from tsne(unit, perplexity=perplexity, seed=seed)
        points, used = {"tsne": made.points, **points}, made.perplexity
    return _Maps(method, points, components, used)


def _facts(folk: _Folk, maps: _Maps) -> dict[str, Any]:
    rows = zip(folk.names, folk.kinds, maps.main.tolist(), strict=True)
    return {
        "method": maps.method, "images": len(folk.names), "dimensions": folk.unit.shape[1],
        "perplexity": maps.perplexity, "variance": float(maps.components.shares[:2].sum()),
        "neighbours": folk.near.places.shape[1], "distance": "cosine", "trust": _trust(folk, maps.points),
        "points": [{"name": name, "class": kind, "x": x, "y": y} for name, kind, (x, y) in rows],
    }  # fmt: skip


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


def _trust(folk: _Folk, maps: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What each map keeps of the features' neighbourhoods, and what chance would."""
    near, unit, classes = folk.near, folk.unit, folk.classes
    total, count = near.places.shape
    fair = min(count, (total - 1) // 2)  # of few images all are neighbours, which tells nothing
    found: dict[str, Any] = {"neighbours": fair, "chance": fair / (total - 1), "maps": {}}
    voters = min(VOTERS, total - 1)
    if classes is not None:
        found["voters"] = voters
        found["largest_class"] = max(Counter(classes).values()) / total
        found["accuracy"] = accuracy(nearest(unit, voters).places, classes)
    for name, points in maps.items():
        here = nearest(points, max(fair, voters)).places
        found["maps"][name] = {
            "preservation": preservation(near.places[:, :fair], here[:, :fair]),
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
        f"Of the {trust['neighbours']} nearest of an image, {mine['preservation']:.1%} are among its nearest in the map"
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
    facts: Mapping[str, Any], small: Tensor, maps: _Maps, cells: np.ndarray, drawn: np.ndarray, folk: _Folk
) -> list[Picture]:
    legend = None if folk.classes is None else colours_of(folk.classes)
    colours = None if legend is None or folk.classes is None else [legend[kind] for kind in folk.classes]
    borders = None if colours is None else [colours[place] for place in drawn]
    note = " ".join(told(facts))
    how, few = TITLES[facts["method"]], small[torch.from_numpy(drawn)]
    title = f"What {facts['net']} takes for alike"
    over = scattered(few, maps.main[drawn], borders)
    grid = tiled(few, cells[drawn].astype(int), borders)
    dots = dotted(maps.main, colours or colours_by(maps.components.points))
    hues = "" if colours else " Colours are the first three principal components, as red, green and blue."
    moved = f"{note} Pictures that would hide one another are moved apart a little."
    filled = f"{note} Each picture has the cell that lets all together move least from the map."
    alt = f"{facts['images']} images where {how} of the features of {facts['net']} puts them"
    return [
        Picture("embed", framed(over, title, moved, legend), alt, moved),
        Picture("grid", framed(grid, f"{title}: a grid", filled, legend), f"{alt}, in a grid without gaps", filled),
        Picture("points", framed(dots, f"{title}: points", note + hues, legend), f"{alt}, as points", note + hues),
    ]  # fmt: skip


def _place_of(query: Path, paths: Sequence[Path]) -> int | None:
    """Which image of the folder the query is itself, if it is one of them."""
    return next((place for place, path in enumerate(paths) if path.samefile(query)), None)


def _beside(
    photo: Tensor, query: str, features: np.ndarray, own: int | None, folk: _Folk, network: Network
) -> tuple[Picture, dict[str, Any]]:
    """The query and the images nearest to it, itself left out."""
    distances = np.square(folk.unit - directions(features)[0]).sum(1) / 2
    order = [place for place in distances.argsort(kind="stable").tolist() if place != own]
    order = order[: folk.near.places.shape[1]]
    panels = [pictures.Panel(photo.cpu(), "the query", Path(query).name)]
    for rank, place in enumerate(order, start=1):
        image = network.preprocess(pictures.read(folk.paths[place]))[0]
        panels.append(pictures.Panel(image, f"{rank}: {distances[place]:.3f}", folk.names[place]))
    note = (
        f"The {len(order)} of {len(folk.names)} images whose features are nearest, by {network.name}; cosine distances"
        " (0: the same direction, 1: nothing in common)."
    )
    columns = min(len(panels), 6 if len(panels) > 8 else 4)
    sheet = pictures.sheet(panels, columns=columns, title="Nearest neighbours", footnote=note)
    rows = [{"name": folk.names[p], "class": folk.kinds[p], "distance": float(distances[p])} for p in order]
    alt = f"{Path(query).name} and the {len(order)} images that {network.name} takes for most alike"
    return Picture("neighbours", sheet, alt, note), {"image": query, "neighbours": rows}


def _versions() -> dict[str, Any]:
    """The libraries that decide where points lie; a recipe lists those that touch pixels by itself."""
    import scipy
    import sklearn

    return {"scikit-learn": sklearn.__version__, "scipy": scipy.__version__}
