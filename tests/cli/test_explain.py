"""`explain` in detail: sheets and files, classes, scores, seeds, and what a folder of explanations keeps."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import phosphene
from phosphene import explain, images, recipe
from phosphene.explain import LogProbability
from phosphene.jobs.explain import USUAL

NET = ("--net", "nets.py:small")
QUICK = ("--method", "saliency,grad-cam,guided-backprop")


@pytest.fixture
def network(nets: Path) -> phosphene.Network:
    return phosphene.load("nets.py:small", device="cpu")


@pytest.fixture
def photo(network: phosphene.Network) -> Tensor:
    return network.preprocess(images.read("cat.png"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


# -- one picture --------------------------------------------------------------------------------------------------------


def test_a_picture_gives_a_sheet_and_a_file_for_each_usual_method_each_with_its_recipe(run: Any, nets: Path) -> None:
    found = run("explain", "cat.png", *NET, "--out", "made", "--json").json
    names = ["cat-explain.png", *(f"cat-explain-{name}.png" for name in USUAL)]
    assert found["pictures"] == [f"made/{name}" for name in names]
    assert sorted(os.listdir("made")) == sorted([*names, *(f"{name}.json" for name in names)])
    for name, part in zip(names, ["explain", *USUAL], strict=True):
        written = recipe.read(f"made/{name}")
        assert (written.verb, written.picture) == ("explain", part)
        assert written.inputs.keys() == {"cat.png", "nets.py"} and written.parameters["seed"] == 0
        assert images.read_note(f"made/{name}") == Path(f"made/{name}.json").read_text().rstrip("\n")
    assert [row["method"] for row in found["methods"]] == list(USUAL) and found["refused"] == {}


def test_the_sheet_ends_in_the_legend_of_the_kinds_that_are_on_it(run: Any, nets: Path) -> None:
    for methods, kinds in (("grad-cam", ["overlay"]), ("lrp,saliency,gradient", ["diverging", "sequential"])):
        run("explain", "cat.png", *NET, "--method", methods, "--out", "x.png", "--overwrite")
        sheet = pixels("x.png")
        strip = (images.legend(kinds, sheet.shape[1]).permute(1, 2, 0) * 255).round().numpy()
        assert np.array_equal(sheet[-len(strip) :], strip), methods


@pytest.mark.parametrize("method", ["gradient", "integrated-gradients", "guided-backprop", "saliency"])
def test_the_clip_that_is_told_is_the_percentile_of_the_map(
    run: Any, network: phosphene.Network, photo: Tensor, method: str
) -> None:
    (row,) = run("explain", "cat.png", *NET, "--method", method, "--class", "4", "--json").json["methods"]
    options = {"tolerance": 0.01} if method == "integrated-gradients" else {}
    attribution = explain.METHODS[method](network, photo, [4], **options)
    values = attribution.gradient if method == "guided-backprop" else attribution.maps
    assert values is not None
    wanted = float(np.percentile(values.abs().numpy(), 99.5, method="inverted_cdf"))
    assert row["clip"] == pytest.approx(wanted, rel=1e-5) and row["scores"] == pytest.approx(
        [float(network.logits(photo)[0, 4])], rel=1e-5
    )


def test_classes_are_rows_of_one_sheet_with_one_clip(run: Any, network: phosphene.Network, photo: Tensor) -> None:
    words = ("--method", "gradient,lrp", "--class", "3,7,3")
    found = run("explain", "cat.png", *NET, *words, "--json").json
    assert [text.partition(" (")[0] for text in found["targets"]] == ["class 3", "class 7"]
    assert pixels("cat-explain.png").shape[1] == 3 * 280 + 2 * 16 + 2 * 24  # the photograph and two methods
    one = run("explain", "cat.png", *NET, "--method", "gradient,lrp", "--class", "3", "--out", "one", "--json").json
    assert len(pixels("cat-explain.png")) > 1.7 * len(pixels("one/cat-explain.png"))
    maps = explain.gradient(network, photo, [[3, 7]]).maps[0]
    clip = found["methods"][0]["clip"]
    for row, name in enumerate(("3", "7")):
        wanted = (images.diverging(maps[row : row + 1], limit=clip).images[0] * 255).round()
        shown = torch.from_numpy(pixels(f"cat-explain-gradient-class-{name}.png").copy()).permute(2, 0, 1)
        assert (shown - wanted).abs().max() <= 1
    assert found["methods"][0]["clip"] != one["methods"][0]["clip"]


def test_classes_of_one_name_get_files_of_their_own(run: Any, here: Path, nets: Path) -> None:
    names = ["crane (bird)", "crane (machine)", "a b", "a-b", "A b", *"efghi"]
    (here / "names.txt").write_text("\n".join(names))
    words = ("--labels", "names.txt", "--method", "gradient", "--class", "0,1,2,3,4")
    found = run("explain", "cat.png", *NET, *words, "--json").json
    parts = ["crane-bird", "crane-machine", "a-b", "a-b-2", "A-b-3"]
    assert found["pictures"][1:] == [f"cat-explain-gradient-{part}.png" for part in parts]
    assert len({Path(path).read_bytes() for path in found["pictures"]}) == 6
    assert all(run("rerun", path, "--check", "--run-code").code == 0 for path in found["pictures"])


def test_log_probabilities_are_explained_when_asked_for(run: Any, network: phosphene.Network, photo: Tensor) -> None:
    words = ("--method", "gradient", "--class", "2,5", "--json")
    logit, other = (
        run("explain", "cat.png", *NET, *words, "--score", score, "--out", score).json["methods"][0]
        for score in ("logit", "log-probability")
    )
    logits = network.logits(photo)[0]
    assert logit["scores"] == pytest.approx(logits[[2, 5]].tolist(), rel=1e-5)
    assert other["scores"] == pytest.approx(logits.log_softmax(0)[[2, 5]].tolist(), rel=1e-5)
    maps = explain.gradient(network, photo, LogProbability([[2, 5]])).maps
    rank = -(-995 * maps.numel() // 1000)
    assert other["clip"] == pytest.approx(float(maps.abs().flatten().kthvalue(rank).values), rel=1e-5)


def test_a_seed_changes_what_is_random_and_nothing_else(run: Any, nets: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        run("explain", "cat.png", *NET, "--method", "smoothgrad,gradient", "--seed", seed, "--out", name)
    assert files(Path("a")) == files(Path("b"))
    shown = {m: [pixels(f"{name}/cat-explain-{m}.png") for name in "ac"] for m in ("smoothgrad", "gradient")}
    same = {m: np.array_equal(one, other) for m, (one, other) in shown.items()}
    assert same == {"smoothgrad": False, "gradient": True}
    assert recipe.read("c/cat-explain-gradient.png").parameters["seed"] == 2


def test_all_methods_with_plus_signs_in_their_names(run: Any, nets: Path) -> None:
    found = run("explain", "cat.png", *NET, "--method", "all", "--class", "1", "--json").json
    assert found["pictures"][1:] == [f"cat-explain-{name}.png" for name in explain.METHODS]
    assert Path("cat-explain-grad-cam++.png").is_file() and Path("cat-explain-grad-cam.png").is_file()
    assert run("rerun", "cat-explain-rise.png", "--check", "--run-code").out == "the same bytes\n"


def test_the_list_of_methods_says_which_need_relus(run: Any) -> None:
    rows = {row["name"]: row for row in run("explain", "--method", "list", "--json").json["methods"]}
    assert {name for name, row in rows.items() if row["networks"] == "ReLU networks"} == {
        "guided-backprop", "deconvnet", "guided-grad-cam", "lrp",
    }  # fmt: skip
    said = run("explain", "--method", "list")
    assert all(name in said.out and row["paper"] in said.out for name, row in rows.items())
    assert run("explain", "--method", "list", "-q").out == ""


# -- several pictures ---------------------------------------------------------------------------------------------------


def test_several_pictures_go_into_a_folder_of_their_own(
    run: Any, photos: Path, network: phosphene.Network, photo: Tensor
) -> None:
    given = ("cat.png", "photos/photo2.png")
    words = ("--method", "grad-cam++,gradient", "--class", "3,7")
    found = run("explain", *given, *NET, *words, "--json").json
    assert found["command"] == "explain" and found["page"] == "phosphene-explain/index.html" and found["skipped"] == {}
    folder = Path("phosphene-explain")
    rows = [json.loads(line) for line in (folder / "explain.jsonl").read_text().splitlines()]
    assert rows == found["images"] and [row["image"] for row in rows] == list(given)
    parts = [f"{m}-class-{c}" for c in (3, 7) for m in ("grad-cam++", "gradient")]
    assert [made["file"] for made in rows[0]["pictures"]] == [
        "pictures/cat.png",
        *(f"pictures/cat--{p}.png" for p in parts),
    ]
    for row in rows:
        seen = network.preprocess(images.read(row["image"]))
        with np.load(folder / row["maps"]) as maps:
            for name, function in (("grad-cam++", explain.grad_cam_plus_plus), ("gradient", explain.gradient)):
                assert maps[name].shape == (2, 224, 224) and maps[name].dtype == np.float32
                assert np.array_equal(maps[name], function(network, seen, [[3, 7]]).maps[0].numpy())
    for made in rows[1]["pictures"]:
        assert recipe.read(folder / made["file"]).picture == made["name"]
        assert run("rerun", folder / made["file"], "--check", "--run-code").code == 0


def test_a_folder_without_images_or_with_none_that_can_be_read_leaves_nothing(run: Any, here: Path, nets: Path) -> None:
    (here / "torn").mkdir()
    for name in ("a.jpg", "b.png"):
        (here / "torn" / name).write_bytes(b"\x89PN")
    (here / "empty").mkdir()
    before = files(here)
    for folder, message in (("torn", "none of the 2 images could be used: torn/a.jpg"), ("empty", "no image files")):
        said = run("explain", folder, *NET, *QUICK)
        assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1 and message in said.err
    shutil.rmtree("__pycache__", ignore_errors=True)
    assert files(here) == before and not (here / "phosphene-explain").exists()


@pytest.mark.parametrize("out", ["plain.txt", "plain", "x.png"])
def test_many_pictures_do_not_fit_into_one_file(run: Any, photos: Path, out: str) -> None:
    for name in ("plain.txt", "plain"):
        Path(name).write_text("mine")
    said = run("explain", "photos", *NET, *QUICK, "--out", out)
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
    assert Path("plain.txt").read_text() == Path("plain").read_text() == "mine" and not Path("x.png").exists()


def test_what_is_left_out_is_told_unless_all_is_quiet(run: Any, photos: Path) -> None:
    words = ("explain", "photos", "--net", "nets.py:silu", "--out", "out")
    said = run(*words)
    lines = said.err.splitlines()
    assert said.code == 0 and len(lines) == 2
    assert "left out guided-backprop" in lines[0] and "left out photos/torn.jpg" in lines[1]
    assert "6 images, 0 of them made before: out/index.html" in said.out
    assert run(*words, "-q") == type(said)(0, "", "")
    found = run(*words, "--json").json
    assert list(found["skipped"]) == ["photos/torn.jpg"]
    assert all(list(row["refused"]) == ["guided-backprop"] for row in found["images"])


def test_names_that_could_be_taken_for_one_another_are_kept_apart(run: Any, here: Path, nets: Path) -> None:
    folder = here / "in"
    (folder / "sub").mkdir(parents=True)
    for place, name in enumerate(("cat.png", "cat-saliency.png", "cat-2.png", "sub/cat.jpg", "sub/Cat.png", "c++.png")):
        Image.effect_noise((90 + place, 80), 40 + 20 * place).convert("RGB").save(folder / name)
    rows = run("explain", "in", *NET, *QUICK, "--out", "out", "--json").json["images"]
    made = [file for row in rows for file in (row["maps"], *(picture["file"] for picture in row["pictures"]))]
    assert len({file.casefold() for file in made}) == len(made) == 6 * 5
    for row in rows:
        for picture in row["pictures"]:
            written = recipe.read(Path("out") / picture["file"])
            assert (written.parameters["image"], written.picture) == (row["image"], picture["name"])


def test_what_is_gone_is_made_again_and_nothing_else(run: Any, photos: Path) -> None:
    words = ("explain", "photos", *NET, *QUICK, "--out", "out")
    run(*words)
    before = files(Path("out"))
    times = {path: path.stat().st_mtime_ns for path in Path("out").glob("*/*")}
    (Path("out") / "pictures" / "photo3--grad-cam.png").unlink()
    (Path("out") / "maps" / "photo4.npz").unlink()
    assert "6 images, 4 of them made before" in run(*words).out
    assert files(Path("out")) == before
    changed = {
        path.name.partition("--")[0].partition(".")[0] for path in times if path.stat().st_mtime_ns != times[path]
    }
    assert changed == {"photo3", "photo4"}


def test_a_photograph_that_changed_is_not_mixed_with_what_was_made_of_it(run: Any, photos: Path) -> None:
    words = ("explain", "photos", *NET, *QUICK, "--out", "out")
    run(*words)
    before = files(Path("out"))
    Image.new("RGB", (60, 60), (200, 30, 0)).save("photos/photo2.png")
    said = run(*words)
    assert said.code == 2 and "holds 'photo2' made in another way" in said.err and files(Path("out")) == before
    assert "6 images, 5 of them made before" in run(*words, "--overwrite").out
    assert files(Path("out")).keys() == before.keys() and files(Path("out")) != before


def test_a_part_of_the_images_leaves_the_others_in_the_list(run: Any, photos: Path) -> None:
    run("explain", "photos", *NET, *QUICK, "--out", "out")
    listed = Path("out/explain.jsonl").read_text().splitlines()
    said = run("explain", "photos/photo3.png", "photos/photo5.png", *NET, *QUICK, "--out", "out")
    assert said.code == 0 and "2 images, 2 of them made before" in said.out
    assert sorted(Path("out/explain.jsonl").read_text().splitlines()) == sorted(listed)
    assert "6 images, 6 of them made before" in run("explain", "photos", *NET, *QUICK, "--out", "out").out


@pytest.mark.parametrize("place", [0, 1, 4])
def test_ctrl_c_between_images_and_a_torn_list_lose_nothing(
    run: Any, photos: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    words = ("explain", "photos", *NET, *QUICK, "--out")
    run(*words, "whole")
    read = images.read

    def interrupted(path: Any) -> Tensor:
        if Path(path) == sorted(photos.rglob("*.png"))[place].relative_to(Path.cwd()):
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr("phosphene.images.read", interrupted)
        said = run(*words, "out")
    assert said.code == 130 and said.err == "phosphene: interrupted; nothing half-written was kept\n"
    listed = Path("out/explain.jsonl")
    assert (len(listed.read_text().splitlines()) if listed.exists() else 0) == place
    if place:
        whole = listed.read_bytes()
        listed.write_bytes(whole[:-40])  # the last line was not written to its end
    assert f"6 images, {max(place - 1, 0)} of them made before" in run(*words, "out").out
    assert files(Path("out")) == files(Path("whole"))


def test_weights_that_are_nan_stop_a_folder_and_leave_nothing(
    run: Any, photos: Path, network: phosphene.Network
) -> None:
    from safetensors.torch import save_file

    state = network.module.state_dict()
    state["6.bias"][4] = torch.nan
    save_file(state, "nan.safetensors")
    said = run("explain", "photos", *NET, "--weights", "nan.safetensors", *QUICK, "--out", "out")
    assert said.code == 2 and said.err.count("\n") == 1 and "NaN" in said.err and "'6'" in said.err
    assert not Path("out").exists()


@pytest.mark.parametrize("method", ["guided-backprop", "deconvnet"])
def test_a_rule_that_was_asked_for_names_the_module_and_the_methods_that_work(
    run: Any, nets: Path, method: str
) -> None:
    said = run("explain", "cat.png", "--net", "nets.py:silu", "--method", f"saliency,{method}")
    assert said.code == 2 and said.err.count("\n") == 1 and not list(Path().glob("cat-explain*"))
    assert "module '1' of nets.py:silu" in said.err and "saliency" in said.err and "integrated-gradients" in said.err
