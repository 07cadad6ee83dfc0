"""Judgements against the metrics called by hand, interrupted runs, and the Focus figures of the bundled networks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toys import SIZE, Act, network, pictures, small

from phosphene.errors import ImageError, NetworkError, PhospheneError
from phosphene.explain import METHODS, LogProbability
from phosphene.explain.judge import BETTER, CHECKS, PERTURBING, Judgement, Plan, Record, judge
from phosphene.explain.metrics.baselines import BASELINES
from phosphene.explain.metrics.confidence import confidence
from phosphene.explain.metrics.focus import choose_mosaics, focus, mosaic_image
from phosphene.explain.metrics.perturbation import deletion, insertion
from phosphene.explain.metrics.randomisation import cascade, likeness
from phosphene.explain.metrics.statistics import interval
from phosphene.images import files, read
from phosphene.models import Network, Preprocess
from phosphene.progress import Event, Started, Step, run

Key = tuple[str, str, int, str]


class Collection:
    """Images in memory; `asked` notes which are read."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked = images, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        self.asked.append(place)
        return self.images[place]


class Photographs:
    """Files that are read when they are needed."""

    def __init__(self, folder: Path, net: Network) -> None:
        self.paths, self.net = files.find(folder), net

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        return self.net.preprocess(read(self.paths[place]))[0]


def balanced(net: Network, images: Tensor) -> Network:
    """With biases under which it sees several classes in these images."""
    last = [module for module in net.module.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.sub_(net.logits(images).mean(0)).mul_(200)
        last.weight.mul_(200)  # or its probabilities are all about the same
    assert len({row.indices[0] for row in net.predict(images, 1)}) >= 3
    return net


def scene(count: int = 13, module: nn.Module | None = None) -> tuple[Network, Collection]:
    """A network and images of at least three of its classes."""
    net, images = small() if module is None else network(module), pictures(count)
    images = (images * torch.rand(count, 3, 1, 1)).clamp(0, 1)
    return balanced(net, images), Collection(images)


def keys(records: Sequence[Record]) -> list[Key]:
    return [(record.method, record.check, record.item, record.layer) for record in records]


def maps_of(method: str, net: Network, image: Tensor, label: int, number: int, plan: Plan) -> tuple[Tensor, Any]:
    """One image `[1, 3, H, W]` alone."""
    if method in BASELINES:
        return BASELINES[method](image, number, plan.seed), None
    options = {"seed": plan.seed} if METHODS[method].random else {}
    found = METHODS[method](net, image, LogProbability(label) if plan.score == "log-probability" else label, **options)
    return found.maps, found.error


def by_hand(net: Network, collection: Collection, plan: Plan) -> dict[Key, float]:
    """All numbers of a plan, image by image."""
    every, total = collection.images, len(collection)
    seen = [int(net.logits(image[None]).argmax()) for image in every]
    count, found = min(plan.images, total), {}
    chosen = [i * total // count for i in range(count)]
    for method in plan.methods:
        for i, place in enumerate(chosen):
            image, label, number = every[place, None], seen[place], chosen[i // 8 * 8] + i % 8  # noise is by batch
            maps, error = maps_of(method, net, image, label, number, plan)
            shown = confidence(net, image, label, maps)
            numbers = {
                "insertion": insertion(net, image, label, maps).auc, "deletion": deletion(net, image, label, maps).auc,
                "drop": shown.drop, "increase": shown.increase,
            }  # fmt: skip
            numbers |= {} if error is None else {"completeness": error}
            found |= {(method, check, place, ""): float(value) for check, value in numbers.items()}
        game = [i * total // min(4 * plan.mosaics, total) for i in range(min(4 * plan.mosaics, total))]
        for i, mosaic in enumerate(choose_mosaics([seen[place] for place in game], plan.mosaics, seed=plan.seed)):
            image = mosaic_image(torch.stack([every[game[k]] for k in mosaic.images]))[None]
            label = seen[game[mosaic.images[mosaic.quarter]]]
            maps, _ = maps_of(method, net, image, label, i, plan)
            found[method, "focus", i, ""] = float(focus(maps, [mosaic.quarter]))
    few = chosen[:8]
    for layer, twin in cascade(net, every[few], steps=plan.steps, seed=plan.seed):
        for method in [name for name in plan.methods if name in METHODS]:
            for place in few:
                one, other = (maps_of(method, n, every[place, None], seen[place], 0, plan)[0][0] for n in (net, twin))
                if not other.any():  # a dead class, whose maps are left out
                    continue
                alike = likeness(one, other)
                found[method, "ssim", place, layer], found[method, "rank", place, layer] = alike.ssim, alike.rank
    return {key: value for key, value in found.items() if check_of(key) in plan.checks}


def check_of(key: Key) -> str:
    return "randomisation" if key[1] in ("ssim", "rank") else key[1]


def counted(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The calls of these methods from now on."""
    calls: list[str] = []
    for name in names:

        def counting(*args: Any, own: Any = METHODS[name].run, called: str = name, **options: Any) -> Any:
            calls.append(called)
            return own(*args, **options)

        monkeypatch.setitem(METHODS, name, replace(METHODS[name], run=counting))
    return calls


# -- the numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        Plan(("gradient", "smoothgrad", "lrp", "grad-cam", "centre", "random"), images=11, mosaics=5, steps=2, seed=4),
        Plan(("integrated-gradients", "random"), images=99, mosaics=2, steps=99),
        Plan(("random", "lrp"), ("focus", "completeness"), images=3, mosaics=3),
        Plan(("saliency", "centre"), ("increase", "deletion"), images=2),
        Plan(("gradient", "integrated-gradients"), images=3, mosaics=2, steps=2, score="log-probability"),
    ],
)
def test_each_number_is_what_the_metric_says_when_it_is_called_by_hand(plan: Plan) -> None:
    net, collection = scene()
    found = run(judge(net, collection, plan))
    wanted = by_hand(net, collection, plan)
    assert found.refused == {}
    assert len(found.records) == len(wanted) and set(keys(found.records)) == set(wanted)
    for record, key in zip(found.records, keys(found.records), strict=True):
        assert record.value == pytest.approx(wanted[key], abs=1e-6), key


def test_images_are_spread_evenly_and_no_others_are_read() -> None:
    net, collection = scene(13)
    for images, wanted in ((1, [0]), (4, [0, 3, 6, 9]), (13, list(range(13))), (50, list(range(13)))):
        collection.asked.clear()
        found = run(judge(net, collection, Plan(("centre",), ("drop",), images=images)))
        assert [record.item for record in found.records] == wanted
        assert set(collection.asked) == set(wanted)
    collection.asked.clear()
    run(judge(net, collection, Plan(("centre",), ("focus",), images=1, mosaics=1)))
    assert set(collection.asked) <= {0, 3, 6, 9}


def test_a_seed_fixes_every_number_and_another_changes_those_that_are_drawn() -> None:
    net, collection = scene()
    plan = Plan(("gradient", "smoothgrad", "random"), images=2, mosaics=4, steps=2, seed=1)
    one = run(judge(net, collection, plan))
    torch.manual_seed(77)
    random.seed(77)
    assert run(judge(net, collection, plan)) == one
    other = {key: r.value for r in run(judge(net, collection, replace(plan, seed=2))).records for key in keys([r])}
    before = {key: r.value for r in one.records for key in keys([r])}
    assert set(other) == set(before)
    same = {key for key, value in before.items() if other[key] == value and key[1] not in ("drop", "increase")}
    assert {key for key in same if check_of(key) != "randomisation"} == {
        ("gradient", check, item, "") for check in ("insertion", "deletion") for item in (0, 6)
    }
    assert before != other and not {key for key in same if key[1] == "rank"}


def test_the_network_is_left_as_it_was() -> None:
    net, collection = scene()
    net.module.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run(judge(net, collection, Plan(("gradient", "lrp"), images=2, mosaics=1, steps=2)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(child.training for child in net.module.modules())


# -- interrupted runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [
    Plan(("gradient", "lrp", "random"), images=9, mosaics=3, steps=2),
    Plan(("lrp", "gradient"), ("randomisation",), images=2, steps=2),
])  # fmt: skip
def test_a_run_that_goes_on_from_any_record_gives_the_same_records_and_measures_none_twice(plan: Plan) -> None:
    net, collection = scene()
    whole = run(judge(net, collection, plan)).records
    assert len(set(keys(whole))) == len(whole)
    cuts = range(len(whole) + 1) if len(whole) < 40 else {0, 1, 5, 8, 9, 40, 83, len(whole) - 30, len(whole) - 1}
    for cut in cuts:
        kept: list[Record] = []
        again = run(judge(net, collection, plan, known=whole[:cut], keep=kept.extend)).records
        assert again == whole, cut
        assert tuple(kept) == whole[cut:], cut


def test_known_records_are_believed_and_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net, collection = scene()
    plan = Plan(("gradient", "lrp"), images=3, mosaics=2, steps=2)
    whole = run(judge(net, collection, plan)).records
    calls = counted(monkeypatch, "gradient", "lrp")
    kept: list[Record] = []
    lies = [replace(record, value=record.value + 7) for record in whole]
    assert run(judge(net, collection, plan, known=lies, keep=kept.extend)).records == tuple(lies)
    assert not calls and not kept
    run(judge(net, collection, plan, known=[record for record in whole if record.method == "lrp"]))
    assert set(calls) == {"gradient"}


def test_known_records_in_another_order_and_of_other_plans_do_no_harm() -> None:
    net, collection = scene()
    plan = Plan(("gradient", "lrp"), images=3, mosaics=2, steps=2)
    whole = run(judge(net, collection, plan)).records
    known = [record for place, record in enumerate(whole) if place % 3][::-1] + [Record("rise", "drop", 2, 0.5)]
    again = run(judge(net, collection, plan, known=known)).records
    assert again[: len(known)] == tuple(known)
    assert {(key, r.value) for r in again for key in keys([r])} == {
        *((key, r.value) for r in whole for key in keys([r])), (("rise", "drop", 2, ""), 0.5),
    }  # fmt: skip


def test_what_is_measured_is_told_step_by_step_so_that_little_is_lost() -> None:
    net, collection = scene()
    plan = Plan(("gradient", "centre"), images=10, mosaics=3, steps=2)
    told: list[Sequence[Record]] = []
    job = judge(net, collection, plan, keep=told.append)
    while len(told) < 2:
        next(job)
    job.close()
    assert [len(part) for part in told] == [8 * 4, 8 * 4]  # a batch by one method
    whole: list[Sequence[Record]] = []
    found = run(judge(net, collection, plan, keep=whole.append))
    assert tuple(record for part in whole for record in part) == found.records
    assert all(part and len({record.method for record in part}) == 1 for part in whole)


def test_progress_goes_to_the_end_of_each_part() -> None:
    net, collection = scene()
    events: list[Event] = []
    run(judge(net, collection, Plan(("gradient", "random"), images=9, mosaics=3, steps=2)), events.append)
    parts = [place for place, event in enumerate(events) if isinstance(event, Started)]
    assert [events[place].total for place in parts] == [12, 18, 6, 2]  # type: ignore[union-attr]
    for begin, end in zip(parts, [*parts[1:], len(events)]):
        done = [event.done for event in events[begin + 1 : end] if isinstance(event, Step)]
        assert done == sorted(done) and done[-1] == events[begin].total  # type: ignore[union-attr]


# -- what a network can't have --------------------------------------------------------------------------------------------


def test_methods_that_a_network_cannot_have_are_refused_and_nothing_else_is_lost() -> None:
    net, collection = scene(module=Act(nn.SiLU()))
    names = ("gradient", "guided-backprop", "lrp", "deconvnet", "grad-cam", "guided-grad-cam", "centre")
    plan = Plan(names, images=3, mosaics=2, steps=2)
    found = run(judge(net, collection, plan))
    assert set(found.refused) == {"guided-backprop", "deconvnet", "guided-grad-cam"}
    for why in found.refused.values():
        assert "has no rule for Silu (module 'block.2' of net)" in why
    left = tuple(name for name in names if name not in found.refused)
    assert found.records == run(judge(net, collection, replace(plan, methods=left))).records
    again = run(judge(net, collection, plan, known=found.records[:11]))
    assert (again.records, again.refused) == (found.records, found.refused)


def test_backward_rules_are_refused_where_log_probabilities_are_explained() -> None:
    net, collection = scene()
    plan = Plan(("gradient", "lrp", "guided-backprop"), images=2, mosaics=1, steps=1)
    assert run(judge(net, collection, plan)).refused == {}
    found = run(judge(net, collection, replace(plan, score="log-probability")))
    assert set(found.refused) == {"lrp", "guided-backprop"} and {r.method for r in found.records} == {"gradient"}
    assert all("has no rule for LogSoftmax" in why for why in found.refused.values())


@pytest.mark.parametrize("check", CHECKS)
def test_a_refusal_is_told_whichever_check_meets_it_first(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, collection = scene(module=Act(nn.SiLU()))
    calls = counted(monkeypatch, "guided-backprop", "gradient")
    found = run(judge(net, collection, Plan(("guided-backprop", "gradient"), (check,), images=9, mosaics=3, steps=2)))
    assert set(found.refused) == (set() if check == "completeness" else {"guided-backprop"})
    assert calls.count("guided-backprop") == (check != "completeness")  # once is enough
    assert {r.method for r in found.records} == (set() if check == "completeness" else {"gradient"})


def test_a_network_without_a_map_has_no_cams() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))
    net, collection = scene(module=module)
    found = run(judge(net, collection, Plan(("gradient", "grad-cam"), ("drop", "randomisation"), images=2, steps=1)))
    assert found.refused == {"grad-cam": "net has no layer with a spatial map"}
    assert keys(found.records) == [
        *(("gradient", "drop", item, "") for item in (0, 6)),
        *(("gradient", check, item, "1") for item in (0, 6) for check in ("ssim", "rank")),
    ]


# -- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("grad_cam",)}, r"unknown method 'grad_cam'; did you mean .*grad-cam.* \(there are .*random\)"),
        ({"methods": ("gradient", "center")}, "unknown method 'center'; did you mean centre"),
        ({"checks": ("deletions",)}, r"unknown check 'deletions'; did you mean deletion.* \(there are insertion, "),
        ({"checks": ("ssim",)}, "unknown check 'ssim'"),
        ({"score": "probability"}, "no score 'probability': explain a class's logit or its log-probability"),
        *(({key: ()}, "at least one method, check, image, mosaic and step") for key in ("methods", "checks")),
        *(({key: 0}, "at least one method, check, image, mosaic and step") for key in ("images", "mosaics", "steps")),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_error_lines(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PhospheneError, match=message):
        Plan(**{"methods": ("gradient",), **options})


def test_images_of_one_class_are_an_error_line_before_anything_costly(monkeypatch: pytest.MonkeyPatch) -> None:
    net, collection = scene()
    last: Any = net.module.get_submodule("fc")
    last.bias.data[1] += 1e6
    calls, kept = counted(monkeypatch, "gradient"), []
    with pytest.raises(PhospheneError, match="mosaics need images of at least two classes"):
        run(judge(net, collection, Plan(("gradient",)), keep=kept.extend))
    assert not calls and not kept
    others = tuple(check for check in CHECKS if check != "focus")
    assert run(judge(net, collection, Plan(("gradient",), others, images=2, steps=1))).records


def test_no_images_and_networks_that_do_not_classify_are_error_lines() -> None:
    net, _ = scene()
    with pytest.raises(PhospheneError, match="there are no images to judge explanations on"):
        run(judge(net, Collection(torch.zeros(0, 3, SIZE, SIZE)), Plan(("gradient",))))
    ready = Preprocess((SIZE, SIZE), SIZE)
    features = Network(nn.Conv2d(3, 4, 3), name="f", labels=None, preprocess=ready)
    with pytest.raises(NetworkError, match="judging explanations needs a network that classifies"):
        run(judge(features, Collection(torch.rand(2, 3, SIZE, SIZE)), Plan(("gradient",))))


# -- summaries ------------------------------------------------------------------------------------------------------------


RECORDS = (
    Record("lrp", "drop", 0, 0.25), Record("lrp", "drop", 3, 0.75), Record("lrp", "rank", 0, 0.5, "b"),
    Record("lrp", "rank", 3, 0.1, "b"), Record("lrp", "rank", 0, -0.2, "a"), Record("lrp", "rank", 3, 0.0, "a"),
    Record("lrp", "ssim", 0, 0.9, "b"), Record("rise", "rank", 0, 1.0, "b"), Record("centre", "focus", 0, 0.3),
)  # fmt: skip


def test_the_table_has_means_with_intervals_over_images() -> None:
    table = Judgement(RECORDS).table(seed=3)
    assert {method: list(row) for method, row in table.items()} == {
        "lrp": ["drop", "rank", "ssim"], "rise": ["rank"], "centre": ["focus"],
    }  # fmt: skip
    assert table["lrp"]["drop"] == interval([0.25, 0.75], seed=3)
    assert (table["lrp"]["drop"].mean, table["lrp"]["drop"].count) == (0.5, 2)
    rank = table["lrp"]["rank"]
    assert rank == interval([0.5, 0.1, -0.2, 0.0], seed=3) and rank.low < 0.1 < rank.high
    alone = table["centre"]["focus"]
    assert (alone.low, alone.mean, alone.high, alone.count) == (0.3, 0.3, 0.3, 1)
    assert Judgement(()).table() == {}


def test_the_cascade_has_a_mean_for_each_layer_from_the_last_to_the_first() -> None:
    judgement = Judgement(RECORDS)
    rank = judgement.cascade("rank")
    assert rank == {"lrp": {"b": pytest.approx(0.3), "a": pytest.approx(-0.1)}, "rise": {"b": 1.0}}
    assert list(rank["lrp"]) == ["b", "a"]
    assert judgement.cascade("ssim") == {"lrp": {"b": 0.9}}
    assert judgement.cascade("drop") == judgement.cascade("focus") == {}
    net, collection = scene()
    found = run(judge(net, collection, Plan(("gradient",), ("randomisation",), images=3, steps=5))).cascade("rank")
    layers = [layer for layer, _ in cascade(net, collection.images[:2], steps=5)]
    assert list(found["gradient"]) == layers and layers[-1] == "conv"


def test_of_every_check_it_is_said_which_way_is_better() -> None:
    assert set(BETTER) == {*PERTURBING, "focus", "ssim", "rank"} and set(BETTER.values()) == {"high", "low"}
    assert {name for name, better in BETTER.items() if better == "high"} == {"insertion", "increase", "focus"}


# -- photographs ------------------------------------------------------------------------------------------------------------


@pytest.mark.shared
def test_grad_cam_points_at_the_right_quarter_more_than_noise_does(squeezenet: Network, shared: Path) -> None:
    photographs = Photographs(shared / "data" / "imagenet_samples", squeezenet)
    plan = Plan(("grad-cam", "random", "centre"), ("focus",), images=1, mosaics=12)
    table = run(judge(squeezenet, photographs, plan)).table()
    found = {method: row["focus"] for method, row in table.items()}
    assert found["random"].mean == pytest.approx(0.25, abs=0.002) == found["centre"].mean
    assert found["grad-cam"].low > 0.35 and found["grad-cam"].mean > 0.4
    assert found["grad-cam"].count == 12


@pytest.mark.shared
@pytest.mark.slow
def test_the_focus_of_grad_cam_on_100_mosaics(bundled_network: Network, shared: Path) -> None:
    """Measured: 0.79 and 0.81 (EfficientNet-Lite0), 0.50 and 0.69 (SqueezeNet), of scores and of log-probabilities."""
    net = bundled_network
    photographs = Photographs(shared / "data" / "imagenet_samples", net)
    images = torch.stack([photographs[i * len(photographs) // 400] for i in range(400)])
    seen = [row.indices[0] for row in net.predict(images, 1)]
    mosaics, means = choose_mosaics(seen, 100), {}
    for score in ("logit", "log-probability"):
        plan = Plan(("grad-cam",), ("focus",), images=1, mosaics=100, score=score)
        found = run(judge(net, Collection(images), plan))
        means[score] = found.table()["grad-cam"]["focus"].mean
        for mosaic, record in list(zip(mosaics, found.records, strict=True))[::25]:
            image, label = mosaic_image(images[list(mosaic.images)])[None], seen[mosaic.images[mosaic.quarter]]
            maps, _ = maps_of("grad-cam", net, image, label, 0, plan)
            assert record.value == pytest.approx(float(focus(maps, [mosaic.quarter])), abs=1e-3)
    if net.name == "efficientnet_lite0":
        assert means["logit"] >= 0.75 and means["log-probability"] >= 0.77
    else:  # whose scores of different classes rise together
        assert means["logit"] == pytest.approx(0.5, abs=0.04) and means["log-probability"] >= 0.66


class Torn:
    """A collection in which some images can't be read."""

    def __init__(self, images: Any, bad: set[int]) -> None:
        self.images, self.bad = images, bad

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> Tensor:
        if place in self.bad:
            raise ImageError(f"{place} is damaged")
        return self.images[place]


def test_images_that_cannot_be_read_are_left_out_and_told() -> None:
    net, collection = scene()
    plan = Plan(("gradient", "random"), ("insertion", "focus"), images=6, mosaics=3)
    chosen = [i * len(collection) // 6 for i in range(6)]
    bad = {chosen[1], chosen[4]}
    found = run(judge(net, Torn(collection, bad), plan))
    assert found.skipped == {place: f"{place} is damaged" for place in bad}
    assert {r.item for r in found.records if r.check == "insertion"} == set(chosen) - bad
    assert sum(r.check == "focus" for r in found.records) == 2 * 3
    with pytest.raises(PhospheneError, match="no image can be read: 0 is damaged"):
        run(judge(net, Torn(collection, set(range(len(collection)))), plan))
