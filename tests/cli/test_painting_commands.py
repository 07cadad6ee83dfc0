"""`style` and `texture` as a person runs them: which pictures, what is told, what is kept, what is refused."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from phosphene import images, recipe
from phosphene.images import palette

TINY = ("--net", "nets.py:busy", "--canvas", "fourier", "--scales", "1")
STYLE = ("style", "photo.png", "stripes.png", *TINY)
TEXTURE = ("texture", "stripes.png", *TINY)
SQUEEZE = ("--net", "squeezenet1_1", "--style-layer", "conv1,features.4", "--content-layer", "fire3", "--scales", "1")
SKETCH = ("--steps", "3", "--json")
SAME = "the same bytes\n"

NETS = """
import os, signal

class Busy(nn.Module):
    # Where the file `stop-at` names how often it has run, it presses Ctrl-C.
    def __init__(self):
        super().__init__()
        self.count = 0

    def forward(self, x):
        self.count += 1
        if os.path.exists("stop-at"):
            with open("stop-at") as file:
                numbers = file.read().split()
            for _ in range(numbers.count(str(self.count))):
                signal.raise_signal(signal.SIGINT)
        return x

def busy():
    torch.manual_seed(0)
    return nn.Sequential(
        Busy(), nn.Conv2d(3, 12, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(12, 16, 3, padding=1), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )

def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 10))
"""


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def save(path: str, values: np.ndarray) -> None:
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture(autouse=True)
def pictures(here: Path, nets: Path) -> None:
    """A photograph of 96 x 72, stripes and checks, masks."""
    with open(nets, "a", encoding="utf-8") as file:
        file.write(NETS)
    with Image.open("cat.png") as cat:
        cat.convert("RGB").resize((96, 72)).save("photo.png")
    y, x = np.mgrid[:80, :100]
    red, blue = np.array([230, 60, 40]), np.array([30, 60, 200])
    save("stripes.png", np.where(((x + 3 * np.sin(y / 6)) % 12 < 6)[..., None], red, 40))
    save("checks.png", np.where(((x // 8 + y // 8) % 2 == 0)[..., None], blue, 220))
    left = np.zeros((72, 96))
    left[:, :48] = 255
    save("left.png", left)
    save("right.png", 255 - left)
    save("black.png", 0 * left)
    save("small-mask.png", left[:40, :40])


def stop_at(count: int | None) -> None:
    Path("stop-at").write_text(str(count)) if count is not None else Path("stop-at").unlink()


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# -- style ------------------------------------------------------------------------------------------------------


def test_a_style_and_what_lies_beside_it_with_recipes_that_make_them_again(run: Any) -> None:
    said = run(*STYLE, "--steps", "12", "--out", "made")
    path, beside = Path("made/photo-style.png"), Path("made/photo-style-beside.png")
    assert said.code == 0 and said.err == ""
    assert said.out.startswith(f"wrote {path}\nwrote {beside}\n")
    assert names("made") == sorted([f"{file.name}{end}" for file in (path, beside) for end in ("", ".json")])
    assert pixels(path).shape == (72, 96, 3) and pixels(beside).shape[1] > 3 * 200
    assert 2 < np.abs(pixels(path) - pixels("photo.png")).mean() < 120
    kept = recipe.read(path)
    assert kept.verb == "style" and kept.picture == "style" and recipe.read(beside).picture == "beside"
    assert kept.inputs == {name: recipe.hash_file(name) for name in ("photo.png", "stripes.png", "nets.py")}
    assert "save" not in kept.parameters and "resume" not in kept.parameters
    for made in (path, beside):
        assert run("rerun", made, "--check", "--run-code").out == SAME
    line = run("recipe", path).out.splitlines()[0]
    assert line == "phosphene style photo.png stripes.png --canvas fourier --net nets.py:busy --scales 1 --steps 12"
    run(*line.split()[1:], "--out", "again.png", "-q")
    assert Path("again.png").read_bytes() == path.read_bytes()


def test_losses_are_told_and_fall(run: Any) -> None:
    found = run(*STYLE, "--steps", "40", "--out", "a", "--json").json
    assert list(found["style_losses"]) == list(found["layer_weights"]) and found["styles"] == ["stripes"]
    for before, now in found["style_losses"].values():
        assert now < 0.5 * before
    for grey, now in found["content_losses"].values():
        assert 0 < now < 3 * grey
    assert (found["steps"], found["sizes"]) == (40, [[72, 96]])
    table = run(*STYLE, "--steps", "40", "--out", "b").out
    for layer, (before, now) in found["style_losses"].items():
        (row,) = [line for line in table.splitlines() if f"style {layer} " in line]
        assert re.split(r"\s{2,}", row.strip())[1:] == [f"{before:.4g}", f"{now:.4g}", f"{now / before:.2%}"]
    assert run(*STYLE, "--steps", "2", "--out", "c", "-q").out == ""


def test_pixels_of_a_network_of_ones_own_move_too(run: Any) -> None:
    words = ("style", "photo.png", "stripes.png", "--net", "nets.py:busy", "--scales", "1", "--steps", "60", "--json")
    losses = {}
    for optimiser in ("adam", "lbfgs"):
        found = run(*words, "--canvas", "pixel", "--optimiser", optimiser, "--out", optimiser).json
        losses[optimiser] = found["totals"][0][1]
    assert losses["adam"] < 10 and losses["lbfgs"] < losses["adam"]


def test_without_a_style_it_is_the_bundled_painting(run: Any) -> None:
    found = run("style", "photo.png", *SQUEEZE, *SKETCH, "--out", "a").json
    assert found["styles"] == ["painting"]
    named = run("style", "photo.png", "sample:painting", *SQUEEZE, *SKETCH, "--out", "b").json
    assert np.array_equal(pixels(found["pictures"][0]), pixels(named["pictures"][0]))
    assert recipe.read(found["pictures"][0]).inputs.keys() == {"photo.png", "sample:painting"}
    assert run("rerun", found["pictures"][0], "--check").out == SAME


def test_a_sample_is_an_input_like_any_other(run: Any) -> None:
    found = run("style", "sample:chelsea", "sample:coffee", *SQUEEZE, *SKETCH, "--size", "96").json
    assert found["pictures"][0] == "chelsea-style.png" and found["styles"] == ["coffee"]
    assert run("rerun", "chelsea-style.png", "--check").out == SAME
    for words in (("style", "photo.png", "sample:bricks"), ("texture", "sample:bricks"), ("dream", "sample:bricks")):
        said = run(*words)
        assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
        assert "there is no sample 'sample:bricks'; did you mean brick" in said.err and "sample:gravel" in said.err


@pytest.mark.parametrize("verb", ["activations", "explain", "fool", "dream", "invert", "predict"])
def test_other_commands_take_samples(run: Any, verb: str) -> None:
    more = {
        "activations": ("--layer", "2"), "explain": ("--method", "saliency"), "fool": ("--target", "3"),
        "dream": ("--layer", "2", "--steps", "1", "--octaves", "1", "--size", "64"),
        "invert": ("--layer", "2", "--steps", "1"),
    }.get(verb, ())  # fmt: skip
    said = run(verb, "sample:chelsea", "--net", "nets.py:busy", *more, "--json")
    assert said.code == 0 or verb == "fool", said.err  # a net of chance may not be fooled
    again = () if verb == "predict" else ("--overwrite",)
    wanted = run(verb, "cat.png", "--net", "nets.py:busy", *more, "--json", *again).json
    if verb == "predict":
        assert said.json["predictions"][0]["classes"] == wanted["predictions"][0]["classes"]
        return
    for one, other in zip(said.json["pictures"], wanted["pictures"], strict=True):
        assert "chelsea" in one and np.array_equal(pixels(one), pixels(other))


def test_shares_decide_between_several_styles(run: Any) -> None:
    words = ("style", "photo.png", "stripes.png", "checks.png", *TINY, "--steps", "40", "--style-weight", "500", "-q")
    alone = {}
    for name in ("stripes", "checks"):
        run("style", "photo.png", f"{name}.png", *TINY, *words[-5:], "--out", f"{name}-alone.png")
        alone[name] = pixels(f"{name}-alone.png")
    red = {}
    for shares in ("1,0", "3,1", "1,1", "0,2"):
        run(*words, "--shares", shares, "--out", f"{shares}.png")
        red[shares] = float((pixels(f"{shares}.png")[..., 0] - pixels(f"{shares}.png")[..., 2]).mean())
    assert np.array_equal(pixels("1,0.png"), alone["stripes"]) and np.array_equal(pixels("0,2.png"), alone["checks"])
    assert red["1,0"] > red["3,1"] > red["1,1"] > red["0,2"]
    run(*words, "--out", "usual.png")
    assert np.array_equal(pixels("usual.png"), pixels("1,1.png"))
    assert recipe.read("3,1.png").parameters["shares"] == ["3", "1"]
    assert run("rerun", "3,1.png", "--check", "--run-code").out == SAME


def test_styles_of_the_same_file_name_are_two_styles(run: Any) -> None:
    for folder, name in (("a", "stripes.png"), ("b", "checks.png")):
        Path(folder).mkdir()
        Path(folder, "wall.png").write_bytes(Path(name).read_bytes())
    words = (*TINY, "--steps", "5", "-q", "--shares", "1,1")
    run("style", "photo.png", "stripes.png", "checks.png", *words, "--out", "wanted.png")
    assert run("style", "photo.png", "a/wall.png", "b/wall.png", *words, "--out", "made.png").err == ""
    assert np.array_equal(pixels("made.png"), pixels("wanted.png"))


def test_masks_say_where_each_style_belongs(run: Any) -> None:
    words = ("style", "photo.png", "stripes.png", "checks.png", *TINY, "--steps", "40", "--style-weight", "500", "-q")
    for name, masks in (("one", "left.png right.png"), ("two", "right.png left.png")):
        first, second = masks.split()
        said = run(*words, "--mask", first, "--mask", second, "--out", f"{name}.png")
        assert said.code == 0, said.err
    red = {name: pixels(f"{name}.png")[..., 0] - pixels(f"{name}.png")[..., 2] for name in ("one", "two")}
    assert red["one"][:, :40].mean() > red["one"][:, 56:].mean() + 20
    assert red["two"][:, 56:].mean() > red["two"][:, :40].mean() + 20
    assert {"left.png", "right.png"} < set(recipe.read("one.png").inputs)
    assert run("rerun", "one.png", "--check", "--run-code").out == SAME


def test_each_style_has_its_picture_and_all_a_sheet(run: Any) -> None:
    words = ("style", "photo.png", "stripes.png", "checks.png", *TINY, "--steps", "6", "--json")
    found = run(*words, "--each", "--out", "each").json
    assert [Path(path).name for path in found["pictures"]] == [
        "photo-style.png", "photo-style-photo-in-stripes.png", "photo-style-photo-in-checks.png"
    ]  # fmt: skip
    assert [(row["content"], row["style"], row["steps"]) for row in found["pictures_made"]] == [
        ("photo", "stripes", 6), ("photo", "checks", 6)
    ]  # fmt: skip
    for name, path, row in zip(("stripes", "checks"), found["pictures"][1:], found["pictures_made"], strict=True):
        alone = run("style", "photo.png", f"{name}.png", *TINY, "--steps", "6", "--json", "--out", f"{name}-1.png").json
        assert np.array_equal(pixels(path), pixels(f"{name}-1.png")) and row["style_losses"] == alone["style_losses"]
        assert run("rerun", path, "--check", "--run-code").out == SAME
    assert run("rerun", found["pictures"][0], "--check", "--run-code").out == SAME
    more = run(*words[:-3], "--steps", "1", "--json", "--contents", "cat.png", "--size", "64", "--out", "more").json
    made = [(row["content"], row["style"]) for row in more["pictures_made"]]
    assert made == [(content, style) for content in ("photo", "cat") for style in ("stripes", "checks")]
    assert pixels(more["pictures"][0]).shape[0] > 2.5 * 200


def test_the_matrix_has_content_layers_by_style_layers(run: Any) -> None:
    words = ("--matrix", "--style-layer", "2,5", "--content-layer", "2,5", "--steps", "1", "--json")
    found = run(*STYLE, *words).json
    assert found["pictures"] == ["photo-style.png"]
    assert (found["content_layers"], found["style_layers"]) == (["2", "5"], ["2", "5"])
    height, width = pixels("photo-style.png").shape[:2]
    assert 3 * 240 < width < 3 * 240 + 100 and 3 * 170 < height < 3 * 240 + 200
    assert run("rerun", "photo-style.png", "--check", "--run-code").out == SAME


def test_luminance_keeps_the_colours_of_the_photograph(run: Any) -> None:
    words = (*STYLE, "--steps", "20", "--style-weight", "200", "-q")
    chroma = {}
    for colours in ("style", "luminance"):
        run(*words, "--colours", colours, "--out", f"{colours}.png")
        photo, made = images.read("photo.png"), images.read(f"{colours}.png")
        inside = ((made > 0.02) & (made < 0.98)).all(1)[0]  # elsewhere colours were clipped
        away = [image - palette.luminance(image) for image in (photo, made)]
        chroma[colours] = float((away[0] - away[1]).abs()[0, :, inside].mean())
        assert float(inside.float().mean()) > 0.5
    assert chroma["luminance"] < 0.006 < 0.03 < chroma["style"]
    assert np.abs(pixels("luminance.png") - pixels("photo.png")).mean() > 2


def test_snapshots_are_pictures_of_the_way(run: Any) -> None:
    found = run(*STYLE, "--steps", "6", "--snapshots", "2", "--json", "--out", "made").json
    steps = ["0002", "0004", "0006"]
    assert [Path(path).name for path in found["pictures"]] == [
        "photo-style.png", "photo-style-beside.png", *(f"photo-style-step-{step}.png" for step in steps)
    ]  # fmt: skip
    shown = [pixels(path) for path in found["pictures"][2:]]
    far = [np.abs(one - pixels("photo.png")).mean() for one in shown]
    assert {one.shape for one in shown} == {(72, 96, 3)} and 0 < far[0] < far[1] < far[2]
    assert run("rerun", found["pictures"][3], "--check", "--run-code").out == SAME


@pytest.mark.parametrize(("words", "size"), [(STYLE, (96, 72)), (TEXTURE, (100, 80))])
def test_a_film_of_the_painting(run: Any, words: tuple[str, ...], size: tuple[int, int]) -> None:
    found = run(*words, "--steps", "20", "--film", "webp", "--fps", "5", "--json", "--out", "film.webp").json
    assert (found["film"], found["pictures"]) == ("film.webp", ["film.png"]) and found["frames"] == 4
    with Image.open("film.webp") as film:
        assert (film.size, film.n_frames) == (size, 4)  # type: ignore[attr-defined]
        frames = []
        for place in range(4):
            film.seek(place)
            frames.append(np.asarray(film.convert("RGB")).astype(int))
    assert all(np.abs(one - other).mean() > 0.2 for one, other in itertools.pairwise(frames))
    assert run("rerun", "film.png", "--check", "--run-code").out == SAME


# -- Ctrl-C, and going on ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [STYLE, TEXTURE], ids=["style", "texture"])
@pytest.mark.parametrize("scale", [0, 1])
def test_what_ctrl_c_ended_goes_on_to_the_same_bytes(run: Any, words: tuple[str, ...], scale: int) -> None:
    words = (*words[:-1], "2", "--steps", "20")
    run(*words, "--out", "whole/made.png", "-q")
    stop_at(36 if scale else 18)
    said = run(*words, "--out", "made.png")
    assert said.code == 130 and said.out.startswith("wrote made.png\n")
    told = re.findall(r"stopped early, after step (\d+)", said.err)
    notes = recipe.read("made.png").notes
    assert len(told) == 1 and int(told[0]) == notes["stopped_at_step"] == notes["stopped_after_event"] - 1
    assert 20 * scale < notes["stopped_at_step"] < 20 + 20 * scale
    left = Path(".made.png.unfinished")
    assert left.is_file() and Path("made.png").read_bytes() != Path("whole/made.png").read_bytes()
    stop_at(None)
    assert run("rerun", "made.png", "--check", "--run-code").out == SAME
    before = Path("made.png").read_bytes(), left.read_bytes()
    other = run(*words, "--tv", "1", "--out", "made.png", "--resume")
    assert (other.code, other.out, other.err.count("\n")) == (2, "", 1)
    assert "'.made.png.unfinished' was left by a run with other options, pictures or versions" in other.err
    assert (Path("made.png").read_bytes(), left.read_bytes()) == before
    done = run(*words, "--out", "made.png", "--resume")
    assert (done.code, done.err) == (0, "") and not left.exists()
    assert Path("made.png").read_bytes() == Path("whole/made.png").read_bytes()
    assert Path("made.png.json").read_bytes() == Path("whole/made.png.json").read_bytes()


def test_what_was_ended_twice_says_so_in_its_recipe(run: Any) -> None:
    words = (*STYLE[:-1], "2", "--steps", "20")
    run(*words, "--out", "whole/made.png", "-q")
    stop_at(18)
    assert run(*words, "--out", "made.png").code == 130
    first = recipe.read("made.png").notes["stopped_at_step"]
    stop_at(36)
    assert run(*words, "--out", "made.png", "--resume").code == 130
    stop_at(None)
    assert recipe.read("made.png").notes["stopped_at_step"] > first + 5
    assert run("rerun", "made.png", "--check", "--run-code").out == SAME
    assert run(*words, "--out", "made.png", "--resume").code == 0
    assert Path("made.png").read_bytes() == Path("whole/made.png").read_bytes()


def test_facts_of_a_resumed_run_are_those_of_the_whole(run: Any) -> None:
    words = (*STYLE[:-1], "2", "--steps", "20", "--json")
    whole = run(*words, "--out", "whole.png").json
    stop_at(36)
    assert run(*words, "--out", "made.png").code == 130
    stop_at(None)
    found = run(*words, "--out", "made.png", "--resume").json
    assert found.pop("pictures") == ["made.png"] and whole.pop("pictures") == ["whole.png"]
    assert found == whole


def test_another_photograph_is_no_job_to_go_on_with(run: Any) -> None:
    words = (*STYLE, "--steps", "20", "--out", "made.png")
    stop_at(18)
    assert run(*words).code == 130
    stop_at(None)
    photo = Path("photo.png").read_bytes()
    Path("photo.png").write_bytes(Path("checks.png").read_bytes())
    said = run(*words, "--resume")
    assert said.code == 2 and "was left by a run with other options, pictures or versions" in said.err
    Path("photo.png").write_bytes(photo)
    Path(".made.png.unfinished").write_bytes(b"torn")
    said = run(*words, "--resume")
    assert (said.code, said.err.count("\n")) == (2, 1) and "'.made.png.unfinished' can't be read" in said.err


def test_another_network_of_that_name_is_no_job_to_go_on_with(run: Any, nets: Path) -> None:
    words = (*STYLE, "--steps", "20", "--out", "made.png")
    stop_at(18)
    assert run(*words).code == 130
    stop_at(None)
    nets.write_text(nets.read_text().replace("manual_seed(0)", "manual_seed(1)"))
    said = run(*words, "--resume")
    assert said.code == 2 and "was left by a run with other options, pictures or versions" in said.err


def test_what_ended_at_once_goes_on_from_where_it_was_written_last(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phosphene.cli.checkpoint.EVERY", 0.0)
    words = (*STYLE, "--steps", "20", "-q")
    run(*words, "--out", "whole.png")
    assert not Path(".whole.png.unfinished").exists()
    Path("stop-at").write_text("18 18")  # both within one step
    assert run(*words, "--out", "made.png").code == 130
    stop_at(None)
    assert not Path("made.png").exists() and Path(".made.png.unfinished").is_file()
    done = run(*words, "--out", "made.png", "--resume")
    assert (done.code, done.err) == (0, "") and not Path(".made.png.unfinished").exists()
    assert Path("made.png").read_bytes() == Path("whole.png").read_bytes()


def test_ctrl_c_on_a_matrix_leaves_nothing(run: Any) -> None:
    stop_at(40)
    said = run(*STYLE, "--matrix", "--style-layer", "2,5", "--steps", "30", "--out", "made")
    assert said.code == 130 and said.out == "" and "nothing half-written was kept" in said.err
    assert not Path("made").exists()


def test_ctrl_c_on_a_sheet_keeps_the_pictures_so_far(run: Any) -> None:
    words = ("style", "photo.png", "stripes.png", "checks.png", *TINY, "--steps", "30", "--each", "--json")
    stop_at(20)
    said = run(*words, "--out", "made")
    assert said.code == 130 and said.json["stopped"] == "stopped early; 1 of 2 pictures, the last unfinished"
    assert [(row["style"], row["steps"] < 30) for row in said.json["pictures_made"]] == [("stripes", True)]
    stop_at(None)
    assert not list(Path("made").glob(".*"))
    for path in said.json["pictures"]:
        assert run("rerun", path, "--check", "--run-code").out == SAME


# -- texture ----------------------------------------------------------------------------------------------------


def test_a_texture_of_any_size_nearer_to_the_sample_than_noise(run: Any) -> None:
    found = run(*TEXTURE, "--size", "128x96", "--steps", "40", "--json").json
    assert found["pictures"] == ["stripes-texture.png", "stripes-texture-beside.png"]
    assert pixels("stripes-texture.png").shape == (96, 128, 3) and found["sizes"] == [[96, 128]]
    assert found["content_losses"] == {} and list(found["distance"]) == list(found["style_losses"])
    for layer, (noise, now) in found["style_losses"].items():
        assert now < 0.3 * noise and found["distance"][layer] == pytest.approx(now / noise)
    for path in found["pictures"]:
        assert run("rerun", path, "--check", "--run-code").out == SAME
    run(*TEXTURE, "--steps", "1", "--seed", "1", "--out", "one.png", "-q")
    run(*TEXTURE, "--steps", "1", "--seed", "2", "--out", "two.png", "-q")
    assert pixels("one.png").shape == (80, 100, 3) and not np.array_equal(pixels("one.png"), pixels("two.png"))
    run(*TEXTURE, "--steps", "1", "--sample", "50", "--size", "40", "--out", "square.png", "-q")
    assert pixels("square.png").shape == (40, 40, 3)


def _seam(path: str) -> float:
    """The jump across the wrapped edges as a share of the usual difference of neighbours, as a mean over both axes."""
    image = pixels(path)
    found = []
    for axis in (0, 1):
        jumps = np.abs(image - np.roll(image, 1, axis)).mean(tuple(each for each in range(3) if each != axis))
        found.append(jumps[0] / np.median(jumps[1:]))
    return float(np.mean(found))


def test_tiles_have_no_seams(run: Any) -> None:
    blobs = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(3))
    images.save(images.resize(blobs, (96, 96))[0].clamp(0, 1), "blobs.png")
    net = ("--net", "nets.py:busy", "--canvas", "pixel", "--optimiser", "adam", "--rate", "0.05")
    words = ("texture", "blobs.png", *net, "--style-layer", "2,5", "--steps", "120", "-q")
    run(*words, "--tile", "--out", "tile.png")
    run(*words, "--out", "plain.png")
    assert _seam("tile.png") < 1.25
    assert _seam("plain.png") > 1.5
    assert run("rerun", "tile.png", "--check", "--run-code").out == SAME


def test_the_figure_has_a_texture_for_each_depth(run: Any) -> None:
    found = run(*TEXTURE, "--figure", "--style-layer", "2,5", "--steps", "12", "--json").json
    assert [Path(path).stem for path in found["pictures"]] == ["stripes-texture"] + [
        f"stripes-texture-to-{layer}" for layer in "25"
    ]
    assert found["layers"] == ["2", "5"] and [row["to"] for row in found["textures"]] == ["2", "5"]
    assert [list(row["style_losses"]) for row in found["textures"]] == [["2"], ["2", "5"]]
    run(*TEXTURE, "--style-layer", "2", "--steps", "12", "--out", "alone.png", "-q")
    assert np.array_equal(pixels("alone.png"), pixels(found["pictures"][1]))
    for path in found["pictures"]:
        assert run("rerun", path, "--check", "--run-code").out == SAME


# -- bad input --------------------------------------------------------------------------------------------------

TWO = ("style", "photo.png", "stripes.png", "checks.png", *TINY)
REACH = "the style is 96 x 72 pixels there, but one place of layer 'features.9' sees 126 x 126"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*TWO, "--mask", "left.png"), "each style needs a mask of its own: 2 styles, 1 masks"),
        ((*TWO, "--mask", "left.png", "--mask", "black.png"), "mask 2 is all black: white is where its style belongs"),
        (
            (*TWO, "--mask", "left.png", "--mask", "small-mask.png"),
            "mask 2 is 40 x 40 pixels, the content 96 x 72: make them equal",
        ),
        ((*TWO, "--mask", "left.png", "--mask", "gone.png"), "gone.png does not exist"),
        ((*TWO, "--shares", "1"), "2 styles need as many weights, got 1"),
        ((*TWO, "--shares", "0,0"), "the weights of the styles are all 0: give one of them more"),
        ((*TWO, "--shares", "1,nan"), "weights of the styles are numbers from 0 up, got 1, nan"),
        ((*TWO, "--shares=-1,2"), "weights of the styles are numbers from 0 up, got -1, 2"),
        ((*TWO, "--shares", "1,x"), "weights of the styles are numbers by comma, got '1,x'"),
        ((*STYLE, "--style-layer", "2,5", "--layer-weights", "0,0"), "the layer weights are all 0"),
        (
            (*STYLE, "--style-layer", "2,5", "--layer-weights", "nan,1"),
            "layer weights are numbers from 0 up, got nan, 1",
        ),
        ((*STYLE, "--style-layer", "2,5", "--layer-weights", "1"), "2 style layers need as many weights, got 1"),
        ((*TEXTURE, "--style-layer", "2,5", "--layer-weights=1,-1"), "layer weights are numbers from 0 up, got 1, -1"),
        ((*STYLE, "--content-weight", "0", "--style-weight", "0"), "both 0: nothing would move the picture"),
        ((*STYLE, "--style-weight", "nan"), "a style weight is a number from 0 up, got nan"),
        ((*STYLE, "--content-weight=-1"), "a content weight is a number from 0 up, got -1"),
        ((*STYLE, "--style-weight", "inf"), "a style weight is a number from 0 up, got inf"),
        ((*STYLE, "--tv", "nan"), "a tv is a number from 0 up, got nan"),
        (("style", "photo.png", *SQUEEZE, "--style-layer", "conv11"), "did you mean conv1"),
        (("style", "photo.png", *SQUEEZE, "--content-layer", "fire33"), "did you mean fire3"),
        (("texture", "photo.png", "--style-layer", "conv11"), "did you mean conv1"),
        ((*STYLE, "--style-layer", "8"), "layer '8' gives no map, so it knows no texture: name an earlier one"),
        ((*STYLE, "--content-layer", "8"), "layer '8' gives no map"),
        ((*TEXTURE, "--style-layer", "8"), "layer '8' gives no map"),
        (
            ("style", "photo.png", "stripes.png", "--net", "nets.py:linear"),
            "nets.py:linear has no layer with a spatial map",
        ),
        (("texture", "stripes.png", "--net", "nets.py:linear"), "nets.py:linear has no layer with a spatial map"),
        (("style", "photo.png", "photo.png", "--size", "96"), REACH),
        (("texture", "photo.png"), REACH),
        (("texture", "photo.png", "--figure"), REACH),
        (
            (*STYLE, "--resume"),
            "nothing to resume: there is no '.photo-style.png.unfinished'; leave --resume out to begin",
        ),
        ((*TEXTURE, "--resume", "--out", "new/made.png"), "nothing to resume: there is no 'new/.made.png.unfinished'"),
        ((*TWO, "--each", "--resume"), "a sheet of several pictures can't be resumed"),
        ((*STYLE, "--matrix", "--resume"), "a sheet of several pictures can't be resumed"),
        ((*STYLE, "--film", "webp", "--resume"), "a film is of one picture, from its beginning, without snapshots"),
        ((*TWO, "--each", "--film", "webp"), "a film is of one picture"),
        ((*STYLE, "--film", "webp", "--snapshots", "2"), "a film is of one picture"),
        ((*STYLE, "--fps", "9"), "--fps is for films: give --film with it"),
        ((*TWO, "--each", "--matrix"), "a sheet of pictures or a matrix of layers: one at a time"),
        ((*TWO, "--each", "--shares", "1,2"), "are for a single picture"),
        ((*TWO, "--each", "--begin", "left.png"), "are for a single picture"),
        ((*STYLE, "--snapshots=-1"), "from 1 up, got -1"),
        ((*STYLE, "--begin", "gone.png"), "gone.png does not exist"),
        ((*STYLE, "--contents", "gone.png"), "gone.png does not exist"),
        ((*STYLE, "--steps", "0"), "steps start at 1, got 0"),
        ((*STYLE, "--history", "0"), "L-BFGS remembers 1 to 1000 steps, got 0"),
        ((*STYLE, "--rate", "0"), "a rate lies above 0 and at most at 100, got 0"),
        ((*STYLE, "--style-scale", "0"), "a style scale lies between 0.05 and 20, got 0"),
        ((*STYLE, "--block", "20"), "a block has at least 64 pixels a side"),
        ((*STYLE, "--size", "20"), "a size is 32 to 20000 pixels, got 20"),
        ((*STYLE[:-1], "9"), "a picture has 1 to 8 scales, got 9"),
        ((*STYLE, "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
        ((*STYLE, "--optimiser", "sgd"), "sgd"),
        ((*TEXTURE, "--size", "40x"), "a size is a number of pixels or WIDTHxHEIGHT, got '40x'"),
        ((*TEXTURE, "--size", "40x9"), "the sides of a texture have 32 to 20000 pixels, got 40 x 9"),
        ((*TEXTURE, "--size", "40x40x40"), "WIDTHxHEIGHT"),
        ((*TEXTURE, "--figure", "--tile"), "for a single texture, not for the figure"),
        ((*TEXTURE, "--figure", "--snapshots", "2"), "for a single texture, not for the figure"),
        ((*STYLE, "--out", "photo.png", "--overwrite"), "'photo.png' is the photograph itself, which is kept"),
        pytest.param((*STYLE, "--out", "stripes.png", "--overwrite"), "'stripes.png' is"),
        pytest.param((*TWO, "--matrix"), "a matrix is of one style"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_one_line_and_leaves_nothing(run: Any, here: Path, words: tuple[str, ...], message: str) -> None:
    def listing() -> dict[Path, bytes | None]:
        files = (path for path in here.rglob("*") if "__pycache__" not in path.parts)
        return {path: path.read_bytes() if path.is_file() else None for path in files}

    before = listing()
    steps = () if "--steps" in words else ("--steps", "2")
    said = run(*words, *steps)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err, said.err
    assert listing() == before


def test_a_picture_that_exists_is_kept(run: Any) -> None:
    run(*STYLE, *SKETCH, "--out", "made")
    before = Path("made/photo-style.png").read_bytes()
    said = run(*STYLE, "--steps", "2", "--out", "made")
    assert said.code == 2 and "'made/photo-style-beside.png' exists and is kept: give --overwrite" in said.err
    assert Path("made/photo-style.png").read_bytes() == before
    assert run(*STYLE, "--steps", "2", "--out", "made", "--overwrite", "-q").code == 0
    assert Path("made/photo-style.png").read_bytes() != before
