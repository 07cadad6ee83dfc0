"""`visualize`, `dream` and `invert` as a person runs them: which pictures, what they show, what is told, what is kept."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import phosphene
from phosphene import images, observe, recipe
from phosphene.models import Network
from phosphene.progress import run as run_job
from phosphene.synthesize import measure

SMALL = ("--net", "nets.py:small")
STILL = ("--jitter", "0", "--rotate", "0", "--scale", "0")
VISUALIZE = ("visualize", *SMALL, "--size", "48")
PLAIN = ("dream", "cat.png", *SMALL, "--layer", "3")
DREAM = (*PLAIN, "--size", "96", "--octaves", "2", "--steps", "3")
INVERT = ("invert", "cat.png", *SMALL)

MORE_NETS = """
import os, signal
from torch import nn

class Busy(nn.Module):
    # Says in a file how often it has run; where the file `stop-at` names that number, it presses Ctrl-C.
    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        self.count += 1
        if self.count > 40:
            open("busy", "w").close()
        if os.path.exists("stop-at"):
            with open("stop-at") as file:
                numbers = file.read().split()
            for _ in range(numbers.count(str(self.count))):
                signal.raise_signal(signal.SIGINT)
        return x

def busy():
    module = net(nn.ReLU)
    return nn.Sequential(Busy(), *module)

def dead():
    module = net(nn.ReLU)
    with torch.no_grad():
        module[0].bias[2:5] = -99
    return module

class Nothing(nn.Module):
    def forward(self, x):
        return x[:, :0]

class Hollow(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.none = net(nn.ReLU), Nothing()

    def forward(self, x):
        return self.body(x) + self.none(x).sum()

def hollow():
    return Hollow()

def deep():
    halves = [each for _ in range(5) for each in (nn.Conv2d(4, 4, 1), nn.MaxPool2d(2))]
    return nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.ReLU(), *halves, nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )

class Cliff(nn.Module):
    # Gives no number for a picture that is far from even.
    def forward(self, x):
        far = x.detach().flatten(1).std(1) > 0.6
        return x * torch.where(far, float("nan"), 1.0)[:, None, None, None]

def cliff():
    return nn.Sequential(Cliff(), *net(nn.ReLU))

def silent():
    module = net(nn.ReLU)
    with torch.no_grad():
        module[2].bias.fill_(-99)
    return module
"""


@pytest.fixture(autouse=True)
def more_nets(nets: Path) -> None:
    with open(nets, "a", encoding="utf-8") as file:
        file.write(MORE_NETS)


@pytest.fixture
def small(here: Path) -> Network:
    return phosphene.load("nets.py:small", device="cpu")


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def channels(network: Network, path: str | Path, layer: str) -> Tensor:
    """The mean of each channel of a layer for a picture in a file, `[C]`."""
    return network.activations(images.read(path), layer)[0].flatten(1).mean(1)


# -- visualize: what is asked for -------------------------------------------------------------------------------


def test_a_list_of_classes_is_a_gallery(run: Any, here: Path) -> None:
    names = [f"thing {letter}" for letter in "abcdefghij"]
    (here / "names.txt").write_text("\n".join(names))
    words = ("visualize", *SMALL, "--labels", "names.txt", "--size", "40", "--steps", "2", "--json")
    found = run(*words, "--class", "2-5,thing j,4").json
    assert [row["target"] for row in found["targets"]] == [names[place] for place in (2, 3, 4, 5, 9)]
    assert [Path(path).name for path in found["pictures"]] == [
        "nets.py-small-visualize.png",
        *(f"nets.py-small-visualize-thing-{letter}.png" for letter in "cdefj"),
    ]
    every = run(*words, "--class", "all", "--out", "all").json
    assert [row["index"] for row in every["targets"]] == list(range(10))
    for before, after in zip(found["pictures"][1:], [every["pictures"][place + 1] for place in (2, 3, 4, 5, 9)]):
        np.testing.assert_allclose(pixels(before), pixels(after), atol=1)  # the company changes nothing


def test_more_steps_score_higher(run: Any, small: Network) -> None:
    scores = {}
    for steps in (1, 40):
        words = (*VISUALIZE, "--class", "0-2", "--steps", str(steps), "--out", str(steps), *STILL, "--json")
        found = run(*words).json
        scores[steps] = [row["score"] for row in found["targets"]]
        for row, path in zip(found["targets"], found["pictures"][1:], strict=True):
            logits = small.logits(images.read(path))[0]  # the file itself has that score
            assert float(logits[row["index"]]) == pytest.approx(row["score"], abs=2e-3)
            assert row["probability"] == pytest.approx(float(logits.softmax(0)[row["index"]]), abs=1e-3)
            assert row["top1"] == (int(logits.argmax()) == row["index"]) and row["steps"] == steps
    assert all(after > before + 0.01 for before, after in zip(scores[1], scores[40], strict=True))


@pytest.mark.parametrize(
    ("words", "counts"), [(("--per-layer", "3"), (3, 3)), ((), (8, 9)), (("--per-layer", "12"), (8, 12))]
)
def test_some_of_every_layer(run: Any, words: tuple[str, ...], counts: tuple[int, int]) -> None:
    found = run(*VISUALIZE, "--layers", "all", *words, "--steps", "20", "--json").json
    wanted = [
        f"{layer}:{place * channels // count}"
        for (layer, channels), count in zip((("1", 8), ("3", 16)), counts, strict=True)
        for place in range(count)
    ]
    assert [row["target"] for row in found["targets"]] == wanted
    names = [Path(path).name.removeprefix("nets.py-small-visualize") for path in found["pictures"]]
    assert names == [".png", "-1.png", "-3.png"]
    gap, side = 4, 48
    columns = int(np.ceil(np.sqrt(counts[0])))
    grid = pixels(found["pictures"][1])
    assert grid.shape[1] == columns * side + (columns - 1) * gap
    tiles = [grid[:side, column * (side + gap) :][:, :side] for column in range(2)]
    heard = [not row.get("silent") for row in found["targets"][:2]]
    assert any(heard) and not np.array_equal(tiles[0], tiles[1])
    assert [tile.std((0, 1)).max() > 1 for tile in tiles] == heard


def test_all_channels_of_a_layer(run: Any, small: Network) -> None:
    found = run(*VISUALIZE, "--layer", "0", "--units", "all", "--steps", "20", *STILL, "--json").json
    assert [row["target"] for row in found["targets"]] == [f"0:{channel}" for channel in range(8)]
    for channel, (row, path) in enumerate(zip(found["targets"], found["pictures"][1:], strict=True)):
        means = channels(small, path, "0")
        assert float(means[channel]) == pytest.approx(row["score"], abs=2e-3)
        others = [float(channels(small, other, "0")[channel]) for other in found["pictures"][1:] if other != path]
        assert row["score"] > max(others) - 2e-3  # nothing excites a channel as its own picture does


def test_a_neuron_and_a_channel_named_twice(run: Any) -> None:
    found = run(*VISUALIZE, "--layer", "1", "--unit", "3,1:2:4,3", "--steps", "1", "--json").json
    assert [row["target"] for row in found["targets"]] == ["1:3", "1:1:2,4"]


@pytest.mark.parametrize(
    ("text", "weights"),
    [("0.5*12+7", {12: 0.5, 7: 1}), ("12-7", {12: 1, 7: -1}), ("-3", {3: -1}), ("2+2-5", {2: 2, 5: -1})],
)
def test_a_combination_of_channels(run: Any, small: Network, text: str, weights: dict[int, float]) -> None:
    words = (*VISUALIZE, "--layer", "2", f"--unit={text}", *STILL, "--json")
    found = run(*words, "--steps", "15").json
    (row,) = found["targets"]
    assert row["target"] == f"2:{text}"
    means = channels(small, found["pictures"][1], "2")
    value = sum(weight * float(means[channel]) for channel, weight in weights.items())
    assert value == pytest.approx(row["score"], abs=5e-3)
    first = run(*words, "--steps", "1", "--out", "first").json["targets"][0]
    assert row["score"] > first["score"] + 0.01


def test_a_direction_from_a_file(run: Any, here: Path) -> None:
    vector = np.zeros(16)
    vector[12], vector[7] = 0.5, 1
    np.save("w.npy", vector)
    np.save("two.npy", np.stack([vector, -vector]))
    words = (*VISUALIZE, "--layer", "2", "--steps", "6", "--json")
    named = run(*words, "--unit", "0.5*12+7", "--out", "named").json
    found = run(*words, "--direction", "w.npy", "--out", "filed").json
    assert found["targets"][0]["target"] == "2:w" and found["pictures"][1] == "filed/nets.py-small-visualize-2-w.png"
    assert np.array_equal(pixels(named["pictures"][1]), pixels(found["pictures"][1]))
    assert recipe.read(found["pictures"][1]).inputs.keys() == {"nets.py", "w.npy"}
    assert run("rerun", found["pictures"][1], "--check", "--run-code").out == "the same bytes\n"
    both = run(*words, "--direction", "two.npy", "--out", "both").json
    assert [row["target"] for row in both["targets"]] == ["2:two-0", "2:two-1"]
    np.save("w.npy", -vector)
    assert "'w.npy' is not the file" in run("rerun", found["pictures"][1], "--check", "--run-code").err


def test_several_pictures_of_one_unit_differ(run: Any, small: Network) -> None:
    alike = {}
    for diversity in ("0", "50"):
        words = (
            *VISUALIZE,
            "--layer",
            "2",
            "--unit",
            "4,9",
            "--several",
            "3",
            "--diversity",
            diversity,
            "--noise",
            "0.3",
        )
        found = run(*words, "--steps", "60", "--out", diversity, *STILL, "--json").json
        assert [row["target"] for row in found["targets"]] == ["2:4"] * 3 + ["2:9"] * 3
        names = [Path(path).stem.removeprefix("nets.py-small-visualize-") for path in found["pictures"][1:]]
        assert names == ["2-4", "2-4-2", "2-4-3", "2-9", "2-9-2", "2-9-3"]
        alike[diversity] = 0.0
        for group in (found["pictures"][1:4], found["pictures"][4:]):
            flat = torch.cat([small.activations(images.read(path), "2").flatten(2) for path in group])
            gram = torch.nn.functional.normalize((flat @ flat.mT).flatten(1), dim=1)
            cosines = gram @ gram.T
            alike[diversity] += float(cosines.sum() - cosines.trace()) / 12
            assert len({pixels(path).tobytes() for path in group}) == 3
    assert alike["50"] < alike["0"] - 0.01


def test_photographs_tell_what_is_natural(run: Any, photos: Path, small: Network) -> None:
    for place in range(6, 10):
        Image.open(photos / "photo3.png").rotate(30 * place).save(photos / f"photo{place}.png")
    known = run_job(measure(small, [small.preprocess(images.read(path))[0] for path in sorted(photos.rglob("*.png"))]))
    distances = {}
    for weight in ("0", "0.1"):
        words = (*VISUALIZE, "--class", "all", "--steps", "60", "--rate", "0.05", "--natural", weight, *STILL)
        found = run(*words, *(("--like", "photos") if weight != "0" else ()), "--out", weight, "--json").json
        seen = small.record(torch.cat([images.read(path) for path in found["pictures"][1:]]), list(known.layers))
        distances[weight] = known.distance(seen).tolist()
    assert min(distances["0"]) > 10 and max(distances["0.1"]) < 4  # that of a photograph is 2
    assert recipe.read(found["pictures"][1]).inputs.keys() == {"nets.py", "photos"}
    assert run("rerun", found["pictures"][1], "--check", "--run-code").out == "the same bytes\n"
    assert "--like photos" in run("recipe", found["pictures"][1]).out.splitlines()[0]


def test_natural_patches_stand_beside_units(run: Any, photos: Path, small: Network) -> None:
    words = (*VISUALIZE, "--steps", "2", "--patches", "photos", "--json")
    alone = run(*VISUALIZE, "--layer", "3", "--unit", "2,5", "--steps", "2", "--json", "--out", "alone").json
    found = run(*words, "--layer", "3", "--unit", "2,5").json
    paths = sorted(photos.rglob("*.png"))
    batch = torch.cat([small.preprocess(images.read(path)) for path in paths])
    peaks = small.activations(batch, "3").flatten(2).amax(2)
    for channel, row in zip((2, 5), found["targets"], strict=True):
        best = [str(paths[place].relative_to(Path.cwd())) for place in peaks[:, channel].argsort(descending=True)]
        shown = row["patches"]
        assert len(shown) == 4 and set(shown) <= set(map(str, (path.relative_to(Path.cwd()) for path in paths)))
        assert shown[0] == best[0]
    sheet, plain = pixels(found["pictures"][0]), pixels(alone["pictures"][0])
    assert sheet.shape[1] > 1.5 * plain.shape[1]  # twice the panels in a row
    assert run("rerun", found["pictures"][0], "--check", "--run-code").out == "the same bytes\n"
    layered = run(*words, "--layers", "all", "--per-layer", "2", "--out", "layers").json
    assert [Path(path).stem.removeprefix("nets.py-small-visualize-") for path in layered["pictures"][1:]] == [
        "1", "1-patches", "3", "3-patches",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layer", "3", "--unit", "2", "--patches", "gone"), "gone does not exist"),
        (("--layer", "3", "--unit", "2", "--patches", "empty"), "empty holds no image files"),
        (("--layer", "3", "--unit", "2-3", "--patches", "photos"), "--patches shows what excites channels"),
        (("--class", "3", "--patches", "photos"), "--patches shows what excites channels: give --layer and --unit"),
    ],
)
def test_patches_that_can_not_be_shown_are_refused_before_the_work(
    run: Any, photos: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("empty").mkdir()
    monkeypatch.setattr("phosphene.synthesize.ascent._gradient", lambda *_: pytest.fail("it has begun"))
    said = run(*VISUALIZE, *words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err, said.err


def test_silent_units_are_told_and_shown_as_what_they_began_with(run: Any) -> None:
    words = (
        "visualize",
        "--net",
        "nets.py:dead",
        "--layer",
        "1",
        "--units",
        "all",
        "--size",
        "40",
        "--steps",
        "100",
        "--l2",
        "0",
    )
    said = run(*words, "--json")
    found = said.json
    assert [row["target"] for row in found["targets"] if row.get("silent")] == ["1:2", "1:3", "1:4"]
    assert said.err == ("phosphene: silent, so there is nothing to see: 1:2, 1:3, 1:4; the activation never rose\n")
    for row, path in zip(found["targets"], found["pictures"][1:], strict=True):
        assert (pixels(path).std((0, 1)).max() < 0.5) == bool(row.get("silent"))
        assert row["score"] == 0 if row.get("silent") else row["score"] > 0, row
    assert run(*words, "-q", "--overwrite").err == ""
    many = run("visualize", "--net", "nets.py:silent", "--layer", "3", "--units", "all", "--size", "40", "--steps", "2")
    assert "3:0, 3:1, 3:2, 3:3, 3:4 and 11 others; the activation never rose" in many.err


def test_pictures_of_any_aspect(run: Any) -> None:
    found = run("visualize", *SMALL, "--class", "1", "--steps", "1", "--size", "80x40", "--json").json
    with Image.open(found["pictures"][1]) as picture:
        assert picture.size == (80, 40)


# -- dream ------------------------------------------------------------------------------------------------------


def test_a_dream_is_as_large_as_its_photograph_and_has_more_energy(run: Any, small: Network) -> None:
    photo = pixels("cat.png")
    found = run("dream", "cat.png", *SMALL, "--layer", "3", "--octaves", "2", "--steps", "4", "--json").json
    assert found["pictures"] == ["cat-dream.png", "cat-dream-beside.png"]
    dreamt = pixels("cat-dream.png")
    assert dreamt.shape == photo.shape and 1 < np.abs(dreamt - photo).mean() < 60
    assert found["octaves"][-1] == list(photo.shape[:2])
    energies = [
        float(small.activations(images.read(path), "3").square().sum()) for path in ("cat.png", "cat-dream.png")
    ]
    assert energies[1] > 1.2 * energies[0]
    assert found["energy"][1] > found["energy"][0]


def test_a_dream_of_chosen_channels_amplifies_these(run: Any, small: Network) -> None:
    run(*DREAM[:-1], "8", "--channels", "3,7", "--out", "dream.png")
    run(*DREAM[:-1], "8", "--channels", "1", "--out", "other.png")
    few, other = (
        small.activations(images.read(path), "3")[0].square().sum((1, 2)) for path in ("dream.png", "other.png")
    )
    assert float(few[3] + few[7]) > float(other[3] + other[7])
    assert recipe.read("dream.png").parameters["channels"] == ["3", "7"]


@pytest.mark.parametrize("size", [(300, 70), (1200, 900)])
def test_a_guide_of_another_size(run: Any, here: Path, small: Network, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size).save("guide.png")
    run(*DREAM, "--out", "free.png")
    found = run(*DREAM, "--guide", "guide.png", "--out", "guided.png", "--json").json
    assert pixels("guided.png").shape == pixels("free.png").shape
    assert not np.array_equal(pixels("guided.png"), pixels("free.png"))
    made = recipe.read("guided.png")
    assert made.inputs["guide.png"] == recipe.hash_file("guide.png") and found["layers"] == {"3": []}
    assert run("rerun", "guided.png", "--check", "--run-code").out == "the same bytes\n"


def frames_of(path: str | Path) -> list[np.ndarray]:
    if str(path).endswith(".mp4"):
        import av

        with av.open(str(path)) as film:
            return [frame.to_ndarray(format="rgb24").astype(int) for frame in film.decode(video=0)]
    with Image.open(path) as film:
        found = []
        for place in range(getattr(film, "n_frames", 1)):
            film.seek(place)
            found.append(np.asarray(film.convert("RGB")).astype(int))
        return found


@pytest.mark.parametrize("film", ["mp4", "webp"])
def test_a_zoom_is_a_film_and_its_last_frame(run: Any, film: str) -> None:
    if film == "mp4":
        pytest.importorskip("av")
    said = run(*DREAM, "--zoom", "4", "--film", film, "--fps", "8", "--out", "made")
    path, still = Path("made") / f"cat-dream.{film}", Path("made/cat-dream.png")
    assert said.out == f"wrote {path}: 4 frames, 0.5 s\nwrote {still}, its last frame\n" and said.err == ""
    assert sorted(os.listdir("made")) == sorted([path.name, f"{path.name}.json", still.name, f"{still.name}.json"])
    last, frames = pixels(still), frames_of(path)
    assert len(frames) == 4 and {frame.shape for frame in frames} == {(64, 96, 3)} == {last.shape}
    assert np.abs(frames[-1] - last).mean() < 8  # but for the film's compression
    assert np.abs(frames[0] - last).mean() > np.abs(frames[-2] - last).mean() > np.abs(frames[-1] - last).mean()
    beside = recipe.Recipe.from_json(path.with_name(f"{path.name}.json").read_text())
    assert beside.notes.pop("film") == {"frames": 4, "fps": 8}
    assert beside == recipe.read(still) and beside.parameters["zoom"] == 4 and "keep" not in beside.parameters
    if film == "webp":
        with Image.open(path) as picture:
            picture.load()
            assert picture.info["duration"] == 125
    assert run("rerun", still, "--check", "--run-code").out == "the same bytes\n"


@pytest.mark.parametrize("film", ["mp4", "webp"])
def test_a_film_has_its_recipe_beside_it_and_only_its_last_frame_is_made_again(run: Any, film: str) -> None:
    if film == "mp4":
        pytest.importorskip("av")
    run(*DREAM, "--zoom", "2", "--out", f"fall.{film}")
    told = run("recipe", f"fall.{film}")
    assert told.out.splitlines()[0] == (
        "phosphene dream cat.png --layer 3 --net nets.py:small --octaves 2 --size 96 --steps 3 --zoom 2"
    )
    before = Path(f"fall.{film}").read_bytes()
    said = run("rerun", f"fall.{film}", "--run-code")
    assert said.code == 2 and said.err == (
        f"phosphene: 'fall.{film}' is a film, of which the last frame can be made again: give 'fall.png'\n"
    )
    assert sorted(path.name for path in Path().glob("fall*")) == sorted(
        [f"fall.{film}", f"fall.{film}.json", "fall.png", "fall.png.json"]
    )
    run(*told.out.splitlines()[0].split()[1:], "--out", f"again.{film}")  # the command makes the film again
    assert Path(f"again.{film}").read_bytes() == before


def test_a_zoom_into_a_file_of_its_own(run: Any) -> None:
    found = run(*DREAM, "--zoom", "2", "--out", "fall.webp", "--json").json  # its ending counts more than --film
    assert (found["film"], found["frames"], found["pictures"]) == ("fall.webp", 2, ["fall.png"])
    assert len(frames_of("fall.webp")) == 2
    said = run(*DREAM, "--zoom", "2", "--out", "fall.webp")
    assert said.code == 2 and "'fall.webp' exists and is kept: give --overwrite" in said.err
    assert run(*DREAM, "--zoom", "3", "--out", "fall.webp", "--overwrite").code == 0
    assert len(frames_of("fall.webp")) == 3


def test_the_first_frame_is_the_dream(run: Any) -> None:
    run(*DREAM, "--out", "dream.png")
    run(*DREAM, "--zoom", "2", "--out", "fall.webp")
    assert np.abs(frames_of("fall.webp")[0] - pixels("dream.png")).mean() < 8


def test_a_zoom_keeps_the_photograph(run: Any, here: Path) -> None:
    before = (here / "cat.png").read_bytes()
    Image.open("cat.png").save("dog.webp")
    for words in (("cat.png", "--out", "cat.webp"), ("dog.webp", "--out", "dog.webp")):
        said = run("dream", words[0], *SMALL, "--layer", "3", "--zoom", "2", *words[1:], "--overwrite")
        assert said.code == 2 and "is the photograph itself, which is kept" in said.err
    assert (here / "cat.png").read_bytes() == before


def test_a_zoom_without_pyav_says_so_before_the_work(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)  # `import av` fails
    before = sorted(here.iterdir())
    with monkeypatch.context() as patch:
        module = importlib.import_module("phosphene.synthesize.dream")  # the package has a function of that name
        patch.setattr(module, "_step", lambda *_: pytest.fail("it has begun"))
        for out in ((), ("--out", "x.mp4"), ("--out", "new/deeper")):
            said = run(*DREAM, "--zoom", "2", *out)
            assert (said.code, said.out) == (2, "") and said.err == (
                "phosphene: an MP4 needs PyAV, which is not installed: pip install 'phosphene[film]', or give --film webp\n"
            )
    assert sorted(here.iterdir()) == before
    assert run(*DREAM, "--zoom", "2", "--film", "webp").code == 0


# -- invert -----------------------------------------------------------------------------------------------------


def test_every_layer_has_its_error_and_its_class(run: Any, small: Network) -> None:
    said = run(*INVERT, "--steps", "4", "--layers", "0,1,2,3")
    assert said.code == 0
    table = said.out.splitlines()
    (header,) = [line for line in table if "relative error" in line]
    assert re.split(r"\s{2,}", header.strip()) == [
        "layer", "relative error", "seen by nets.py:small", "probability", "as before"
    ]  # fmt: skip
    rows = {line.split()[0]: line for line in table if re.match(r"\s+\d\s", line)}
    found = run(*INVERT, "--steps", "4", "--layers", "0,1,2,3", "--json", "--out", "json").json
    photo = small.preprocess(images.read("cat.png"))
    own = small.predict(photo, 1)[0]
    assert found["photograph"] == {"index": own.indices[0], "name": own.names[0]} and found["judge"] == "nets.py:small"
    assert [row["layer"] for row in found["layers"]] == list(rows) == ["0", "1", "2", "3"]
    for row, path in zip(found["layers"], found["pictures"][1:], strict=True):
        assert f"{row['error']:.4f}" in rows[row["layer"]] and row["seen"]["name"] in rows[row["layer"]]
        assert f"{row['seen']['probability']:.1%}" in rows[row["layer"]]
        assert rows[row["layer"]].rstrip().endswith("yes" if row["recognised"] else "no")
        wanted, made = (small.activations(image, row["layer"]) for image in (photo, images.read(path)))
        error = float((made - wanted).square().sum() / wanted.square().sum())
        assert row["error"] == pytest.approx(error, rel=0.05, abs=2e-3)  # the file has rounded values
        assert row["recognised"] == (row["seen"]["index"] == own.indices[0]) and row["steps"] == 4


def test_layers_where_none_are_named_and_more_steps_remember_more(run: Any, small: Network) -> None:
    errors = {}
    for steps in ("2", "40"):
        found = run(*INVERT, "--steps", steps, "--out", steps, "--json").json
        assert [row["layer"] for row in found["layers"]] == observe.landmarks(small) == ["1", "3"]
        assert [Path(path).name for path in found["pictures"]] == [
            "cat-invert.png", "cat-invert-1.png", "cat-invert-3.png"
        ]  # fmt: skip
        errors[steps] = [row["error"] for row in found["layers"]]
    assert all(after < before / 2 for before, after in zip(errors["2"], errors["40"], strict=True))


def test_a_network_without_classes_has_another_one_judge(run: Any, efficientnet: Network) -> None:
    said = run("invert", "cat.png", "--net", "nets.py:features", "--layer", "1", "--steps", "2")
    assert "seen by efficientnet_lite0" in said.out
    found = run(
        "invert", "cat.png", "--net", "nets.py:features", "--layer", "1", "--steps", "2", "--out", "n", "--json"
    )
    (seen,) = efficientnet.predict(images.read("n/cat-invert-1.png"), 1)
    assert found.json["layers"][0]["seen"]["index"] == seen.indices[0]


def test_quiet_prints_no_table(run: Any) -> None:
    assert run(*INVERT, "--steps", "1", "-q") == type(run("--version"))(0, "", "")


# -- Ctrl-C -----------------------------------------------------------------------------------------------------

BUSY = ("--net", "nets.py:busy")
LONG = {
    "visualize": ("visualize", *BUSY, "--layer", "1", "--unit", "1,2", "--size", "40", "--steps", "90000"),
    "dream": ("dream", "cat.png", *BUSY, "--layer", "4", "--size", "80", "--octaves", "2", "--steps", "45000"),
    "invert": ("invert", "cat.png", *BUSY, "--layers", "2,4", "--steps", "90000"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("verb", LONG)
def test_ctrl_c_keeps_the_picture_so_far(run: Any, here: Path, verb: str) -> None:
    def listening() -> None:  # a test run in the background may have been told to ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    words = [sys.executable, "-m", "phosphene", *LONG[verb], "--out", "made"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listening, env=env
    )
    try:
        while not (here / "busy").exists() and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    lines = err.splitlines()
    assert lines[0] == "phosphene: stopping after this step and keeping what there is; Ctrl-C again leaves at once"
    told = re.search(r"stopped early, .*?after (?:step )?(\d+)", lines[1])
    assert told and lines[1].endswith("; the recipe says so, too") and len(lines) == 2
    pictures = sorted(Path("made").glob("*.png"))
    assert len(pictures) >= 2 and f"wrote {pictures[0]}" in out
    (here / "busy").unlink()
    for picture in pictures:
        kept = recipe.read(picture)
        assert kept.notes["stopped_at_step"] == int(told[1]) > 5
        assert kept.notes["stopped_after_event"] >= int(told[1])
        assert pixels(picture).std() > 3
    assert run("rerun", pictures[-1], "--run-code").out.endswith(": the same bytes\n")
    assert (here / "made" / f"{pictures[-1].stem}-again.png").read_bytes() == pictures[-1].read_bytes()


def stop_at(*counts: int) -> None:
    Path("stop-at").write_text(" ".join(map(str, counts)))


def test_ctrl_c_at_the_second_layer_keeps_the_first(run: Any, here: Path) -> None:
    words = ("invert", "cat.png", *BUSY, "--layers", "2,4", "--steps", "30")
    whole = run(*words, "--out", "whole", "--json").json
    runs = next(count for count in range(31, 200) if _stopped_in(run, words, count) == "4")
    found = json.loads(Path("found.json").read_text())
    assert [row["layer"] for row in found["layers"]] == ["2", "4"] and "2 of 2 layers" in found["stopped"], runs
    assert found["layers"][0]["error"] == whole["layers"][0]["error"]
    assert found["layers"][1]["steps"] < 30


def _stopped_in(run: Any, words: tuple[str, ...], count: int) -> str | None:
    """The layer in which Ctrl-C at the network's pass number `count` ends it; None: in none. Leaves `found.json`."""
    stop_at(count)
    said = run(*words, "--out", f"out{count}", "--json")
    Path("stop-at").unlink()
    if said.code != 130 or not said.out:
        return None
    Path("found.json").write_text(said.out)
    told = re.search(r"at (\d) after step", json.loads(said.out)["stopped"])
    return told[1] if told else None


def test_ctrl_c_twice_leaves_at_once_and_nothing(run: Any, here: Path) -> None:
    words = ("visualize", *BUSY, "--layer", "1", "--unit", "1", "--size", "40", "--steps", "300")
    stop_at(60)
    assert run(*words, "--out", "made").code == 130 and len(list(Path("made").glob("*.png"))) == 2
    (here / "stop-at").write_text("60 60")  # both within one step
    said = run(*words, "--out", "twice")
    assert said.code == 130 and not Path("twice").exists()
    assert said.err.splitlines()[-1] == "phosphene: interrupted; nothing half-written was kept"


def test_ctrl_c_in_a_zoom_keeps_the_film_so_far(run: Any, here: Path) -> None:
    words = (
        "dream",
        "cat.png",
        *BUSY,
        "--layer",
        "4",
        "--size",
        "80",
        "--octaves",
        "1",
        "--steps",
        "3",
        "--zoom",
        "90",
    )
    stop_at(30)
    said = run(*words, "--out", "fall.webp")
    assert said.code == 130
    count = int(re.findall(r"wrote fall.webp: (\d+) frames", said.out)[0])
    assert 2 < count < 90 and len(frames_of("fall.webp")) == count
    assert said.err.splitlines()[-1] == f"phosphene: stopped early, after frame {count}; the recipe says so, too"
    assert recipe.read("fall.png").notes["stopped_at_frame"] == count
    Path("stop-at").unlink()
    assert run("rerun", "fall.png", "--check", "--run-code").out == "the same bytes\n"


def test_ctrl_c_in_the_first_of_several_layers(run: Any, here: Path, photos: Path) -> None:
    words = ("visualize", *BUSY, "--layers", "2,4", "--per-layer", "2", "--size", "40", "--steps", "40")
    stop_at(30)
    said = run(*words, "--patches", "photos", "--json")
    assert said.code == 130
    assert [row["target"] for row in said.json["targets"]] == ["2:0", "2:4"]  # there is nothing of the other layer
    steps = {row["steps"] for row in said.json["targets"]}
    assert len(steps) == 1 and 2 < steps.pop() < 40
    assert said.json["stopped"].endswith("; 2 of 4") and "patches" not in said.json["targets"][0]
    Path("stop-at").unlink()
    for path in said.json["pictures"]:
        assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"


def test_a_picture_that_diverged_says_so_in_its_recipe(run: Any) -> None:
    words = ("visualize", "--net", "nets.py:cliff", "--layer", "1", "--unit", "6", "--size", "40", "--canvas", "pixel")
    found = run(*words, "--rate", "1", "--steps", "30", *STILL, "--json").json
    for path in found["pictures"]:
        restarts = recipe.read(path).notes["restarts"]
        assert restarts and restarts[0]["image"] == 0 and all(0 < restart["step"] <= 30 for restart in restarts)
        rates = [restart["rate"] for restart in restarts]
        assert rates[0] == 0.5 and all(after == before / 2 for before, after in itertools.pairwise(rates))
        assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"
    calm = run(*words, "--rate", "0.001", "--steps", "5", *STILL, "--json", "--out", "calm").json
    assert "restarts" not in recipe.read(calm["pictures"][0]).notes


# -- bad input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("visualize", "--net", "nets.py:deep", "--layer", "12", "--unit", "1", "--size", "80"),
            "layer '12' of nets.py:deep can't look at pictures of 80 x 80 pixels: it needs at least 96",
        ),
        (
            ("visualize", "--net", "nets.py:deep", "--class", "1", "--size", "200x95"),
            "nets.py:deep can't look at pictures of 200 x 95 pixels: it needs at least 96",
        ),
        (
            ("dream", "cat.png", "--net", "nets.py:deep", "--layer", "12", "--size", "90"),
            "a picture of 90 x 60 pixels is too small for 12 of nets.py:deep: its shorter side needs 96 pixels",
        ),
        (
            ("dream", "cat.png", "--net", "nets.py:deep", "--layer", "12", "--window", "64", "--overlap", "16"),
            "windows of 64 pixels are too small for 12 of nets.py:deep, which needs 96",
        ),
        (("visualize", "--net", "nets.py:hollow", "--layer", "none", "--units", "all"), "has no channels"),
        (("visualize", "--net", "nets.py:hollow", "--layer", "none", "--unit", "0"), "there is no unit 0"),
        (("visualize", "--net", "nets.py:hollow", "--layer", "none", "--per-layer", "2"), "has no channels"),
        (("dream", "cat.png", "--net", "nets.py:hollow", "--layer", "none"), "'none' has no channels"),
        (
            ("invert", "cat.png", "--net", "nets.py:hollow", "--layer", "none"),
            "none of nets.py:hollow say nothing about this photograph: there is nothing to invert",
        ),
        (
            ("invert", "cat.png", "--net", "nets.py:silent", "--layer", "3"),
            "3 of nets.py:silent say nothing about this photograph",
        ),
        (("invert", "cat.png", *SMALL, "--layer", "conv9"), "has no layer 'conv9'"),
        (("invert", "cat.png", *SMALL, "--layers", "1,conv9"), "has no layer 'conv9'"),
        (("invert", "cat.png", *SMALL, "--steps", "0"), "steps start at 1, got 0"),
        (("invert", "cat.png", *SMALL, "--scales", "9"), "1 to 8 scales, got 9"),
        (("invert", "cat.png", *SMALL, "--rate", "0"), "a rate is positive"),
        (("invert", "cat.png", *SMALL, "--tv=-1"), "tv lies between"),
        ((*VISUALIZE, "--layer", "2", "--unit", "12-"), "'12-' is no unit of '2'"),
        ((*VISUALIZE, "--layer", "2", "--unit", "0.5*"), "'0.5*' is no unit of '2'"),
        ((*VISUALIZE, "--layer", "2", "--unit", "3+99"), "has units 0 to 15"),
        ((*VISUALIZE, "--layer", "2", "--unit", "3-3"), "not all zero"),
        ((*VISUALIZE, "--layers", "1,2", "--unit", "3"), "give --per-layer N"),
        ((*VISUALIZE, "--layers", "1,2"), "or give --per-layer N"),
        ((*VISUALIZE, "--layer", "2", "--per-layer", "0"), "units per layer start at 1, got 0"),
        ((*VISUALIZE, "--layer", "2", "--per-layer", "2", "--unit", "3"), "give --per-layer N"),
        ((*VISUALIZE, "--class", "3", "--per-layer", "2"), "--per-layer is for layers"),
        ((*VISUALIZE, "--class", "8-12"), "the 10 classes are 0 to 9"),
        ((*VISUALIZE, "--class", "3", "--several", "0"), "at least 1, got 0"),
        ((*VISUALIZE, "--class", "3", "--crop", "0"), "crop is a share"),
        ((*VISUALIZE, "--class", "3", "--grain=-1"), "grain can't be negative"),
        ((*VISUALIZE, "--class", "3", "--tv", "nan"), "tv can't be negative"),
        ((*VISUALIZE, "--class", "3", "--beta", "0"), "beta is positive"),
        ((*VISUALIZE, "--class", "3", "--natural", "5"), "is not known: give photographs with --like FOLDER"),
        ((*VISUALIZE, "--class", "3", "--natural=-1"), "natural can't be negative"),
        ((*VISUALIZE, "--class", "3", "--like", "."), "at least 8 photographs, but only 2 can be read"),
        ((*VISUALIZE, "--class", "3", "--like", "gone"), "gone does not exist"),
        ((*VISUALIZE, "--class", "3", "--like", ".", "--natural", "0"), "--class with it"),
        ((*VISUALIZE, "--layer", "2", "--unit", "3", "--like", "."), "--class with it"),
        ((*VISUALIZE, "--layer", "2", "--unit", "3", "--natural", "5"), "natural is for classes"),
        ((*VISUALIZE, "--layer", "2", "--unit", "3", "--contrast", "1"), "contrast is for classes"),
        ((*VISUALIZE, "--class", "3", "--canvas", "pixel", "--decay", "2"), "decay is of a spectrum"),
        (("visualize", *SMALL, "--class", "3", "--size", "40x"), "WIDTHxHEIGHT, got '40x'"),
        (("visualize", *SMALL, "--class", "3", "--size", "40x9000"), "32 to 2048 pixels wide, got 40x9000"),
        ((*VISUALIZE, "--layer", "2", "--direction", "gone.npy"), "there is no file 'gone.npy'"),
        ((*VISUALIZE, "--layer", "2", "--direction", "cat.png"), "'cat.png' holds no direction"),
        ((*VISUALIZE, "--layer", "2", "--direction", "five.npy"), "has 16 channels, and a direction of it as many"),
        ((*VISUALIZE, "--layer", "2", "--direction", "nan.npy"), "finite weights that are not all zero"),
        ((*VISUALIZE, "--layer", "2", "--direction", "words.npy"), "holds no direction"),
        ((*VISUALIZE, "--layer", "2", "--direction", "pickle.npy"), "holds no direction"),
        ((*VISUALIZE, "--layers", "1,2", "--direction", "five.npy"), "a direction is of one layer"),
        ((*VISUALIZE, "--direction", "five.npy"), "a unit needs both"),
        ((*DREAM, "--guide", "gone.png"), "gone.png does not exist"),
        ((*DREAM, "--guide", "thin.png"), "is too small for 3 of nets.py:small: its shorter side needs 7 pixels"),
        (
            ("dream", "thin.png", *SMALL, "--layer", "3"),
            "a picture of 4 x 600 pixels is too small for 3 of nets.py:small",
        ),
        ((*PLAIN, "--channels", "16"), "has units 0 to 15"),
        ((*PLAIN, "--channels", "x"), "are numbers such as 3,17, got 'x'"),
        (("dream", "cat.png", *SMALL, "--layers", "1,3", "--channels", "2"), "channels of one layer, please"),
        (("dream", "cat.png", *SMALL, "--layer", "6"), "layer '6' gives no map"),
        (("dream", "cat.png", *SMALL, "--layer", "conv9"), "has no layer 'conv9'"),
        ((*PLAIN, "--octaves", "0"), "octaves of a dream lies between 1 and 32, got 0"),
        ((*PLAIN, "--ratio", "1"), "ratio of a dream lies between"),
        ((*PLAIN, "--rate", "nan"), "rate of a dream lies between"),
        ((*PLAIN, "--overlap", "400"), "can't share 400: at most half"),
        ((*PLAIN, "--size", "9"), "a size is 32 to 20000 pixels, got 9"),
        ((*PLAIN, "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
        ((*DREAM, "--zoom", "1"), "a zoom has at least 2 frames"),
        ((*DREAM, "--zoom=-4"), "a zoom has at least 2 frames"),
        ((*DREAM, "--zoom", "3", "--factor", "1"), "a factor above 1"),
        ((*DREAM, "--zoom", "3", "--fps", "0"), "1 to 120 frames a second, got 0"),
        ((*DREAM, "--zoom", "3", "--out", "x.gif"), "a film is written as .mp4 or .webp, not as '.gif'"),
        ((*DREAM, "--zoom", "3", "--out", "x.png"), "a film is written as .mp4 or .webp, not as '.png'"),
        ((*DREAM, "--out", "x.mp4"), "can't be written as .mp4"),
        ((*DREAM, "--zoom", "3", "--out", "nets.py/deep"), "can't make the folder 'nets.py/deep'"),
        ((*DREAM, "--zoom", "3", "--film", "gif"), '"gif"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Any, here: Path, words: tuple[str, ...], message: str) -> None:
    np.save("five.npy", np.ones(5))
    np.save("nan.npy", np.full(16, np.nan))
    np.save("words.npy", np.array(["a"] * 16))
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    Image.new("RGB", (4, 600)).save("thin.png")
    before = sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts)
    said = run(*words)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err, said.err
    assert sorted(path for path in here.rglob("*") if "__pycache__" not in path.parts) == before


def test_the_least_size_that_is_told_is_enough(run: Any) -> None:
    words = ("--net", "nets.py:deep", "--layer", "12", "--steps", "1", "--size")
    assert run("visualize", "--unit", "1", *words, "96").code == 0
    assert run("dream", "cat.png", *words, "144").code == 0
    assert pixels("cat-dream.png").shape[:2] == (96, 144)


def test_a_layer_that_is_silent_for_a_photograph_is_told(run: Any) -> None:
    words = ("dream", "cat.png", "--net", "nets.py:silent", "--layer", "3", "--octaves", "1", "--steps", "2")
    said = run(*words)
    assert said.code == 0
    assert said.err == "phosphene: 3 is silent for this photograph, so there was nothing to amplify\n"
    assert np.array_equal(pixels("cat-dream.png"), pixels("cat.png"))
    assert run(*words, "-q", "--overwrite").err == ""
