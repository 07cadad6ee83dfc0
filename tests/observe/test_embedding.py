"""Features, maps, the grid and its figures, against slow and obvious references."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from phosphene.errors import ImageError, LayerError, NetworkError, PhospheneError
from phosphene.images import files, read
from phosphene.models import Labels, Network, Preprocess, load
from phosphene.observe import embedding, lattice, trust
from phosphene.observe.features import Features, features, vector
from phosphene.progress import Event, Started, Step, run

SIZE = (16, 20)


def network(*end: nn.Module, labels: bool = True) -> Network:
    end = end or (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    module = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(inplace=True), *end)
    known = Labels.generic(4) if labels else None
    return Network(module, name="net", labels=known, preprocess=Preprocess(SIZE, 16))


def cloud(count: int = 60, wide: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, wide)) * np.linspace(3, 0.5, wide)


def clusters(each: int = 20, count: int = 3, wide: int = 12) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(1)
    centres = generator.normal(size=(count, wide)) * 6
    points = np.concatenate([centre + generator.normal(size=(each, wide)) for centre in centres])
    return points, [f"class {place}" for place in range(count) for _ in range(each)]


def seek(net: Network, pictures: Any, layer: str | None = None) -> Features:
    return run(features(net, pictures, layer))


def brute_nearest(points: np.ndarray, row: int) -> list[int]:
    others = [place for place in range(len(points)) if place != row]
    return sorted(others, key=lambda place: (((points[row] - points[place]) ** 2).sum(), place))


# -- features -------------------------------------------------------------------------------------------------------------


def test_features_are_what_the_classifier_is_given() -> None:
    net, pictures = network(), list(torch.rand(11, 3, *SIZE))
    found = seek(net, pictures)
    wanted = net.record(torch.stack(pictures), ["5"])["5"]
    torch.testing.assert_close(found.vectors, wanted)
    assert found.source == "what '6' is given" and found.places == tuple(range(11)) and not found.skipped


@pytest.mark.parametrize("end", [(nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (nn.BatchNorm2d(5),)])
def test_a_map_is_averaged_and_a_normalisation_is_no_classifier(end: tuple[nn.Module, ...]) -> None:
    net, pictures = network(*end), list(torch.rand(3, 3, *SIZE))
    layer = "3" if len(end) == 3 else "1"
    wanted = net.record(torch.stack(pictures), [layer])[layer].mean((2, 3))
    torch.testing.assert_close(seek(net, pictures).vectors, wanted)


def test_a_network_without_classes_gives_its_last_map_averaged() -> None:
    net, pictures = network(nn.Identity(), labels=False), list(torch.rand(3, 3, *SIZE))
    found = seek(net, pictures)
    torch.testing.assert_close(found.vectors, net(torch.stack(pictures)).mean((2, 3)))
    assert found.source == "the last map, averaged"


def test_fc7_is_taken_after_its_relu() -> None:
    class VGG(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.MaxPool2d(4))
            self.pool = nn.AdaptiveAvgPool2d(2)
            self.classifier = nn.Sequential(
                nn.Linear(16, 9),
                nn.ReLU(True),
                nn.Dropout(),
                nn.Linear(9, 7),
                nn.ReLU(True),
                nn.Dropout(),
                nn.Linear(7, 4),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(self.pool(self.features(x)).flatten(1))

    net = Network(VGG(), name="vgg", labels=Labels.generic(4), preprocess=Preprocess(SIZE, 16))
    pictures = list(torch.rand(4, 3, *SIZE))
    before = net.record(torch.stack(pictures), ["classifier.3"])["classifier.3"]
    assert (before < 0).any()
    found = seek(net, pictures)
    torch.testing.assert_close(found.vectors, before.relu())
    assert found.source == "fc7 after its ReLU"
    torch.testing.assert_close(seek(net, pictures, "fc7").vectors, before)


def test_any_layer_can_be_asked_for() -> None:
    net, pictures = network(), list(torch.rand(3, 3, *SIZE))
    found = seek(net, pictures, "0")
    torch.testing.assert_close(found.vectors, net.record(torch.stack(pictures), ["0"])["0"].mean((2, 3)))
    assert found.source == "0"
    with pytest.raises(LayerError, match="net has no layer '9'"):
        seek(net, pictures, "9")


def test_tokens_are_averaged_over_their_sequence() -> None:
    tokens = torch.rand(2, 5, 3)
    torch.testing.assert_close(vector(tokens), tokens.mean(1))


def test_a_network_without_weights_asks_for_a_layer() -> None:
    net = Network(nn.Flatten(), name="none", labels=Labels.generic(3), preprocess=Preprocess((1, 1), 1))
    with pytest.raises(LayerError, match="none has no layer with weights: name one"):
        seek(net, [torch.rand(3, 1, 1)])


class Lot:
    """Pictures that are counted; some are broken, some black."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> Tensor:
        if place in self.broken:
            raise ImageError(f"picture {place} is broken")
        return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(place))


def test_images_that_can_not_be_read_are_left_out_and_the_events_count_all() -> None:
    events: list[Event] = []
    found = run(features(network(), Lot(21, (0, 9))), events.append)
    assert found.skipped == {0: "picture 0 is broken", 9: "picture 9 is broken"}
    assert found.places == tuple(place for place in range(21) if place not in (0, 9))
    assert events[0] == Started("features", 21, "image") and events[-1] == Step(21)
    with pytest.raises(PhospheneError, match="none of the 2 images can be read: picture 0 is broken"):
        seek(network(), Lot(2, (0, 1)))
    with pytest.raises(PhospheneError, match="no images"):
        seek(network(), [])


def test_nan_is_told_for_one_image_and_refused_for_all() -> None:
    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x.amax((1, 2, 3), keepdim=True) < 0, torch.nan, 1.0) * x

    inner = nn.Sequential(Odd(), *list(network().module.children()))
    net = Network(inner, name="odd", labels=Labels.generic(4), preprocess=Preprocess(SIZE, 16))
    pictures = [*torch.rand(2, 3, *SIZE), torch.zeros(3, *SIZE)]
    found = seek(net, pictures)
    assert found.places == (0, 1) and found.skipped == {2: "odd gives NaN or infinity for this image"}
    with pytest.raises(NetworkError, match="odd gives NaN or infinity for this image: they begin in layer '0'"):
        seek(net, pictures[2:])


# -- PCA ------------------------------------------------------------------------------------------------------------------


def test_pca_is_the_eigen_decomposition_of_the_covariance() -> None:
    points = cloud()
    values, vectors = np.linalg.eigh(np.cov(points.T))
    order = values.argsort()[::-1]
    vectors = vectors[:, order] * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(12)])[order]
    found = embedding.pca(points, 3)
    np.testing.assert_allclose(found.points, (points - points.mean(0)) @ vectors[:, :3], atol=1e-9)
    np.testing.assert_allclose(found.shares, values[order][:3] / values.sum())


@pytest.mark.parametrize(("count", "wide"), [(60, 1), (2, 12), (5, 3)])
def test_pca_of_few_numbers_or_points_is_filled_with_zeros(count: int, wide: int) -> None:
    found = embedding.pca(cloud(count, wide), 4)
    least = min(wide, count)
    assert found.points.shape == (count, 4) and not found.points[:, least:].any()
    assert found.shares.sum() == pytest.approx(1)


def test_equal_points_have_no_variance_to_share() -> None:
    found = embedding.pca(np.ones((5, 3)))
    assert not found.points.any() and not found.shares.any()


def test_the_large_solver_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = embedding.pca(cloud(), 3)
    monkeypatch.setattr(embedding, "_SMALL", 1)
    np.testing.assert_allclose(embedding.pca(cloud(), 3).points, exact.points, atol=1e-9)


def test_directions_have_length_one_and_zero_stays_zero() -> None:
    points = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(embedding.directions(points), [[0.6, 0.8], [0, 0]])


# -- t-SNE ----------------------------------------------------------------------------------------------------------------


def test_clusters_are_apart_and_the_same_seed_gives_the_same_map() -> None:
    points, classes = clusters()
    one, again = (run(embedding.tsne(points, seed=3)) for _ in range(2))
    assert np.array_equal(one.points, again.points) and one.points.shape == (60, 2)
    assert one.perplexity == pytest.approx(59 / 3)
    assert trust.accuracy(trust.nearest(one.points, 5).places, classes) == 1
    other = run(embedding.tsne(points, seed=4))
    assert not np.array_equal(one.points, other.points)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_points_have_a_map(count: int) -> None:
    found = run(embedding.tsne(cloud(count)))
    assert np.isfinite(found.points).all() and found.perplexity == max(1, (count - 1) / 3)
    assert len(np.unique(found.points, axis=0)) == count


def test_duplicates_have_a_map() -> None:
    for points in (np.ones((12, 4)), np.repeat(cloud(4, 5), 5, 0)):
        found = run(embedding.tsne(points)).points
        assert np.isfinite(found).all() and len(np.unique(found, axis=0)) > 4


def test_a_single_number_for_each_point_is_enough() -> None:
    assert np.isfinite(run(embedding.tsne(cloud(20, 1))).points).all()


def test_perplexity_fits() -> None:
    assert embedding.fitting_perplexity(30, 500) == 30
    assert embedding.fitting_perplexity(30, 31) == 10
    assert embedding.fitting_perplexity(400, 3) == 1
    for wrong in (0, -3, 0.5, float("nan"), float("inf")):
        with pytest.raises(PhospheneError, match=r"perplexity .* is out of range"):
            embedding.fitting_perplexity(wrong, 100)


def test_bad_points_are_an_error_line() -> None:
    with pytest.raises(PhospheneError, match="needs at least 3 images, got 2"):
        run(embedding.tsne(cloud(2)))
    with pytest.raises(PhospheneError, match="NaN or infinity"):
        embedding.pca(np.array([[1.0, np.nan], [0, 0]]))


def test_very_many_points_are_mapped_by_opentsne(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openTSNE")
    monkeypatch.setattr(embedding, "LARGE", 50)
    points, classes = clusters(30)
    events: list[Event] = []
    one, again = (run(embedding.tsne(points), events.append) for _ in range(2))
    assert np.array_equal(one.points, again.points)
    assert trust.accuracy(trust.nearest(one.points, 5).places, classes) == 1
    assert Step(750) in events


def test_without_opentsne_a_line_tells_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LARGE", 50)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PhospheneError, match=r"needs openTSNE: pip install 'phosphene\[tsne\]'"):
        run(embedding.tsne(cloud(60)))


# -- neighbours and trust -------------------------------------------------------------------------------------------------


def test_neighbours_are_those_of_brute_force() -> None:
    points = cloud(30, 4)
    found = trust.nearest(points, 6)
    for row in range(30):
        wanted = brute_nearest(points, row)[:6]
        assert found.places[row].tolist() == wanted
        np.testing.assert_allclose(found.distances[row], [np.linalg.norm(points[row] - points[p]) for p in wanted])


def test_duplicates_are_at_distance_zero_in_order() -> None:
    found = trust.nearest(np.array([[1.0, 2], [5, 5], [1, 2], [1, 2]]), 2)
    assert found.places.tolist() == [[2, 3], [0, 2], [0, 3], [0, 2]]
    assert not found.distances[[0, 2, 3]].any()


def test_parts_give_the_same_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    points, flat = cloud(40), cloud(40, 2, 5)
    here = trust.nearest(flat, 5).places
    whole = trust.nearest(points, 5).places, trust.trustworthiness(points, here)
    monkeypatch.setattr(trust, "_CHUNK", 100)
    assert np.array_equal(trust.nearest(points, 5).places, whole[0])
    assert trust.trustworthiness(points, here) == whole[1]


@pytest.mark.parametrize("count", [0, 4, 9])
def test_so_many_neighbours_there_are_not(count: int) -> None:
    with pytest.raises(PhospheneError, match=f"{count} neighbours among 4 images: there are 3 others"):
        trust.nearest(cloud(4), count)


def test_preservation_is_the_share_of_common_neighbours() -> None:
    points, flat = cloud(25), cloud(25, 2, 3)
    wanted = np.mean([
        len(set(brute_nearest(points, row)[:4]) & set(brute_nearest(flat, row)[:4])) / 4 for row in range(25)
    ])  # fmt: skip
    there, here = trust.nearest(points, 4).places, trust.nearest(flat, 4).places
    assert trust.preservation(there, here) == pytest.approx(wanted)
    assert trust.preservation(there, there) == 1


def test_trustworthiness_is_its_definition_and_scikit_learns() -> None:
    from sklearn.manifold import trustworthiness

    points, flat, count = cloud(25), cloud(25, 2, 3), 4
    excess = 0
    for row in range(25):
        order = brute_nearest(points, row)
        excess += sum(max(0, order.index(other) + 1 - count) for other in brute_nearest(flat, row)[:count])
    wanted = 1 - 2 / (25 * count * (2 * 25 - 3 * count - 1)) * excess
    found = trust.trustworthiness(points, trust.nearest(flat, count).places)
    assert found == pytest.approx(wanted) == pytest.approx(trustworthiness(points, flat, n_neighbors=count))
    assert trust.trustworthiness(points, trust.nearest(points, count).places) == 1
    with pytest.raises(PhospheneError, match="not defined for 13 neighbours"):
        trust.trustworthiness(points, trust.nearest(points, 13).places)


def test_accuracy_is_a_vote_of_the_others() -> None:
    points = cloud(40, 3)
    classes = ["a" if row[0] + row[1] > 0 else "b" for row in points]
    hits = 0
    for row in range(40):
        votes = [classes[place] for place in brute_nearest(points, row)[:5]]
        hits += Counter(votes).most_common(1)[0][0] == classes[row]
    assert trust.accuracy(trust.nearest(points, 5).places, classes) == hits / 40
    ties = np.array([[1, 2], [0, 2], [0, 1]])  # one vote each: the nearest's counts
    assert trust.accuracy(ties, ["a", "a", "b"]) == 2 / 3


# -- the grid -------------------------------------------------------------------------------------------------------------


def test_grids_have_the_fewest_empty_cells() -> None:
    assert [lattice.shape(count) for count in (1, 2, 3, 7, 12, 397, 500)] == [
        (1, 1), (1, 2), (2, 2), (2, 4), (3, 4), (19, 21), (20, 25),
    ]  # fmt: skip
    for count in range(1, 400):
        rows, columns = lattice.shape(count)
        assert rows <= columns <= 2 * rows
        least = min(
            r * c - count for r in range(1, 30) for c in range(r, 2 * r + 1) if r * c >= count and (r - 1) * c < count
        )
        assert rows * columns - count == least
        cells = lattice.cells(count)
        assert len(np.unique(cells, axis=0)) == count and (cells.max(0) < (columns, rows)).all()
    with pytest.raises(PhospheneError, match="at least one point"):
        lattice.shape(0)


def test_empty_cells_are_at_both_ends_of_the_last_row() -> None:
    assert lattice.cells(397)[-19:, 0].tolist() == list(range(1, 20)) and (lattice.cells(397)[-19:, 1] == 18).all()


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7])
def test_the_assignment_is_the_best_of_all(count: int) -> None:
    for seed in range(3):
        points = cloud(count, 2, seed)
        cells = lattice.cells(count)
        stretched = lattice.stretch(points) * np.maximum(cells.max(0), 1)
        found = lattice.assign(points)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, cells.tolist()))
        best = min(((stretched - cells[list(order)]) ** 2).sum() for order in itertools.permutations(range(count)))
        assert ((stretched - found) ** 2).sum() == pytest.approx(best)


def test_up_in_the_map_is_up_in_the_grid() -> None:
    points = np.array([[x, y] for y in (1.0, 0.0) for x in (0.0, 0.4, 1.0)])
    assert lattice.assign(points).tolist() == [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1]]


def test_equal_points_have_cells_of_their_own() -> None:
    assert len(np.unique(lattice.assign(np.zeros((10, 2))), axis=0)) == 10


def test_squares_that_hide_one_another_part_and_others_stay() -> None:
    alone = np.array([[0.0, 0], [50, 0], [0, 50]])
    assert np.array_equal(lattice.parted(alone, 10), alone)
    crowd = np.random.default_rng(0).normal(size=(80, 2)) * 30
    moved = lattice.parted(crowd, 10)

    def hidden(points: np.ndarray) -> float:
        gaps = np.abs(points[:, None] - points[None])
        return float(np.clip(10 - gaps, 0, None).prod(2)[np.triu_indices(80, 1)].sum())

    assert hidden(moved) < 0.15 * hidden(crowd)
    assert np.linalg.norm(moved - crowd, axis=1).mean() < 15
    same = lattice.parted(np.zeros((4, 2)), 10)
    assert len(np.unique(same.round(3), axis=0)) == 4 and np.array_equal(same, lattice.parted(np.zeros((4, 2)), 10))


# -- photographs ----------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_the_neighbours_of_ants_and_bees_are_ants_and_bees(efficientnet: Network, shared: Path) -> None:
    paths = files.find(shared / "data" / "hymenoptera" / "val")
    classes = [path.parent.name for path in paths]

    class Folder(Lot):
        def __getitem__(self, place: int) -> Tensor:
            return efficientnet.preprocess(read(paths[place]))[0]

    found = embedding.directions(seek(efficientnet, Folder(len(paths))).vectors.numpy())
    assert found.shape == (len(paths), 1280)
    assert trust.accuracy(trust.nearest(found, 5).places, classes) >= 0.9


@pytest.mark.shared
def test_vgg16_without_a_classifier_has_features(shared: Path, monkeypatch: pytest.MonkeyPatch, photos: Tensor) -> None:
    monkeypatch.setenv("PHOSPHENE_WEIGHTS", str(shared / "weights"))
    net = load("vgg16", device="cpu")
    assert not net.classifies
    assert seek(net, list(photos)).vectors.shape == (2, 512)
