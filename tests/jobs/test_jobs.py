"""The jobs as functions: parameters in, pictures and facts out."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import skimage
import torch
from torch import Tensor

from phosphene import explain, images, observe
from phosphene.errors import LabelError, PhospheneError
from phosphene.jobs import VERBS, function_of, job
from phosphene.jobs.command import command_line, defaults
from phosphene.jobs.outcome import Outcome, Picture
from phosphene.jobs.predict import predict
from phosphene.jobs.workshop import Workshop, check_seed
from phosphene.models import Network
from phosphene.progress import Event, Started, Step, run
from phosphene.synthesize import Settings

SQUEEZE = {"net": "squeezenet1_1"}


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> str:
    from skimage import data

    path = tmp_path_factory.mktemp("photo") / "cat.png"
    return str(images.save(torch.from_numpy(data.chelsea()).permute(2, 0, 1) / 255, path))


@pytest.fixture(scope="module")
def workshop() -> Workshop:
    return Workshop("cpu")


@pytest.fixture
def seen(squeezenet: Network, photo: str) -> Tensor:
    return squeezenet.preprocess(images.read(photo))


@pytest.fixture
def photos_of_two_classes(tmp_path: Path) -> Path:
    """A folder with scikit-image's cat and cup of coffee."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("chelsea.png", "coffee.png"):
        shutil.copyfile(Path(skimage.__file__).parent / "data" / name, folder / name)
    return folder


@pytest.fixture
def three_photos(photos_of_two_classes: Path) -> Path:
    """The cat, the cup of coffee, and an astronaut: as few as make a map."""
    shutil.copyfile(Path(skimage.__file__).parent / "data" / "astronaut.png", photos_of_two_classes / "astronaut.png")
    return photos_of_two_classes


ARGUMENTS: dict[str, dict[str, Any]] = {
    "activations": {"layers": ["conv1", "fire9"], "channels": 4},
    "advise": {"size": 64},
    "attack": {"attacks": ["fgsm"]},
    "cue-conflict": {"steps": 1, "size": 128},
    "dream": {"layers": ["fire3"], "steps": 1, "octaves": 2, "size": 96},
    "embed": {"method": "pca"},
    "explain": {},
    "filters": {},
    "finetune": {"layers": "head", "epochs": 1, "batch": 4, "size": 64},
    "fool": {"target": "tiger"},
    "harden": {"net": "trades_cnn", "size": 32, "epochs": 1, "batch": 2, "hold": 3, "tested": 2},
    "invert": {"layers": ["conv1"], "steps": 2},
    "judge-explanations": {"methods": ["saliency"], "images": 2, "mosaics": 2, "steps": 1},
    "patches": {"layer": "features.2", "units": ["2"]},
    "probe": {"size": 64},
    "randomise": {"steps": 1, "methods": ["saliency"]},
    "robustness": {"eps": [1 / 255], "steps": 2, "others": [], "checks": False},
    "patch": {"folder": "sample:all", "steps": 1},
    "shape-bias": {},
    "style": {"style_layers": ["conv1"], "content_layers": ["fire3"], "steps": 1, "size": 96},
    "texture": {"style_layers": ["conv1"], "steps": 1, "sample": 96},
    "universal": {"folder": "sample:all", "passes": 1},
    "visualize": {"classes": ["tiger", "3"], "steps": 2, "size": 64},
}


MAIN = {
    "attack": "accuracy",
    "judge-explanations": "judge",
    "advise": "table",
    "probe": "depth",
    "finetune": "curves",
    "harden": "curves",
}
LEARNING = ("advise", "probe", "finetune")


def cut_up(photo: Path, folder: Path) -> None:
    """Four pieces of a photograph, which itself is gone."""
    picture = images.read(photo)[0]
    folder.mkdir()
    for place in range(4):
        images.save(picture[:, 50 * place : 50 * place + 90, 30:120], folder / f"{place}.png")
    photo.unlink()


@pytest.mark.parametrize("verb", VERBS)
def test_jobs_make_pictures(workshop: Workshop, photo: str, three_photos: Path, verb: str, tmp_path: Path) -> None:
    parameters = {**SQUEEZE, **ARGUMENTS[verb]}
    if verb in ("judge-explanations", "patches", "embed", "shape-bias", "attack", "robustness", "harden", *LEARNING):
        parameters["folder"] = str(three_photos)
    elif verb not in ("filters", "visualize", "patch", "universal"):
        parameters["image"] = photo
    if verb == "cue-conflict":
        parameters["styles"] = str(three_photos / "coffee.png")
    if verb == "shape-bias":  # files say what they show
        names = ("cat1-dog1.png", "dog1-car1.png", "car1-cat1.png")
        for name, path in zip(names, sorted(three_photos.iterdir()), strict=True):
            path.rename(path.with_name(name))
    if verb in (*LEARNING, "harden"):  # a folder for each class
        for path in sorted(three_photos.iterdir()):
            cut_up(path, three_photos / path.stem)
    events: list[Event] = []
    outcome = run(job(verb, workshop.fresh(), parameters), events.append)
    assert isinstance(events[0], Started)
    steps: list[int] = []  # of the part that started last
    for event in events:
        steps = [] if isinstance(event, Started) else [*steps, event.done] if isinstance(event, Step) else steps
        assert steps == sorted(steps)
    assert steps
    assert outcome.pictures[0].name == MAIN.get(verb, verb)
    names = [picture.name for picture in outcome.pictures]
    assert len(set(names)) == len(names)
    for picture in outcome.pictures:
        assert picture.image.ndim == 3 and picture.image.shape[0] == 3
        assert picture.image.min() >= 0 and picture.image.max() <= 1 and picture.image.std() > 0.001
        assert len(picture.alt) > 5
        assert outcome.picture(picture.name) is picture
    assert outcome.facts["net"] == parameters["net"]
    assert list(tmp_path.iterdir()) == [three_photos]


def test_predict_is_what_the_network_predicts(workshop: Workshop, photo: str, squeezenet: Network) -> None:
    outcome = run(predict(workshop, images=[photo, photo], **SQUEEZE, top=3))
    assert outcome.pictures == ()
    (wanted,) = squeezenet.predict(images.read(photo), 3)
    for row in outcome.facts["predictions"]:
        assert tuple(found["index"] for found in row["classes"]) == wanted.indices
        assert tuple(found["probability"] for found in row["classes"]) == pytest.approx(wanted.probabilities)
        assert [found["synset"] for found in row["classes"]] == [squeezenet.labels.synset(i) for i in wanted.indices]


def test_explain_shows_what_the_methods_find(workshop: Workshop, photo: str, squeezenet: Network, seen: Tensor) -> None:
    outcome = run(job("explain", workshop, {**SQUEEZE, "image": photo, "classes": ["tabby"], "layer": "fire5"}))
    saliency = explain.saliency(squeezenet, seen, 281)
    wanted = images.sequential(saliency.maps, percentile=99.5).images[0]
    torch.testing.assert_close(outcome.picture("saliency").image, wanted)
    cam = explain.grad_cam(squeezenet, seen, 281, "fire5")
    torch.testing.assert_close(outcome.picture("grad-cam").image, images.overlay(seen, cam.maps)[0])
    guided = explain.guided_backprop(squeezenet, seen, 281).gradient
    assert guided is not None
    picture = outcome.picture("guided-backprop").image
    assert torch.equal(picture > 0.5, (guided[0] > 0) & (picture != 0.5))
    scores = [row["scores"][0] for row in outcome.facts["methods"]]
    assert scores == pytest.approx([float(squeezenet.logits(seen)[0, 281])] * len(scores), abs=1e-3)


def test_filters_tell_which_tile_is_which(workshop: Workshop, squeezenet: Network) -> None:
    outcome = run(job("filters", workshop, SQUEEZE))
    found = observe.filters(squeezenet)
    assert sorted(outcome.facts["order"]) == list(range(64)) and outcome.facts["shape"] == [64, 3, 3, 3]
    grey = found.weights.mean(1, keepdim=True)
    colour = (found.weights - grey).square().sum((1, 2, 3)) / found.weights.square().sum((1, 2, 3))
    assert colour[outcome.facts["order"]].diff().max() <= 1e-6


def test_fool_tells_the_truth_about_its_pictures(workshop: Workshop, photo: str, squeezenet: Network) -> None:
    outcome = run(job("fool", workshop, {**SQUEEZE, "image": photo, "target": "tiger"}))
    facts = outcome.facts
    original, fooled = outcome.picture("original").image, outcome.picture("fooled").image
    assert facts["l2"] == pytest.approx(float((fooled - original).norm()))
    assert facts["linf"] == pytest.approx(float((fooled - original).abs().max()))
    assert facts["changed"] == pytest.approx(float((fooled != original).float().mean()))
    assert facts["after"]["name"] == "tiger" == facts["read_back"]["name"]
    assert facts["before"]["index"] == squeezenet.predict(original[None], 1)[0].indices[0]
    assert facts["noise"]["index"] == facts["before"]["index"]  # the same size in no direction does nothing
    gained = ((outcome.picture("difference-10x").image - 0.5) - 10 * (outcome.picture("difference").image - 0.5)).abs()
    assert (gained < 0.05).float().mean() > 0.9
    with pytest.raises(LabelError, match="already sees"):
        run(job("fool", workshop, {**SQUEEZE, "image": photo, "target": facts["before"]["name"]}))


def test_the_defaults_of_visualize_are_the_techniques() -> None:
    usual = Settings()
    found = defaults("visualize")
    assert {name: found[name] for name in Settings.__dataclass_fields__} == usual.__dict__


@pytest.mark.parametrize("verb", VERBS)
def test_every_parameter_fits_into_json_and_a_command(verb: str) -> None:
    import json

    assert json.loads(json.dumps(defaults(verb))) is not None
    assert command_line(verb, defaults(verb)) == f"phosphene {verb}"
    assert set(defaults(verb)) <= set(inspect.signature(function_of(verb)).parameters) - {
        "keep",
        "save",
        "resume",
    }  # no options


@pytest.mark.parametrize("verb", VERBS)
def test_all_jobs_take_a_network_the_same_way(verb: str) -> None:
    parameters = inspect.signature(function_of(verb)).parameters
    assert next(iter(parameters)) == "workshop"
    assert all(p.kind is p.KEYWORD_ONLY for name, p in parameters.items() if name != "workshop")
    assert {"net", "weights", "labels"} <= set(parameters)


def test_a_picture_that_is_not_there() -> None:
    outcome = Outcome((Picture("a", torch.zeros(3, 4, 4), "nothing"),))
    with pytest.raises(KeyError, match="b"):
        outcome.picture("b")


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1])
def test_seeds_that_torch_can_not_take(seed: int) -> None:
    with pytest.raises(PhospheneError, match="a seed is"):
        check_seed(seed)
    check_seed(2**63 - 1)
    torch.Generator().manual_seed(2**63 - 1)
    torch.Generator().manual_seed(-(2**63))
