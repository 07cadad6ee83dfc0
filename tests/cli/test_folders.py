"""`explain` on folders, `patches`, `randomise`, `judge-explanations`: what they write, keep, resume and refuse."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import phosphene
from phosphene import explain, images, recipe
from phosphene.images.save import write_whole
from phosphene.names import file_names

NET = ("--net", "nets.py:small")
QUICK = ("--method", "saliency,grad-cam,guided-backprop")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def numbers(folder: Path) -> dict[str, bytes]:
    """All files but the list, whose order tells how it was made."""
    return {name: data for name, data in files(folder).items() if not name.endswith(".jsonl")}


# -- explain ------------------------------------------------------------------------------------------------------------


def test_one_picture_gives_a_sheet_and_a_file_for_each_method_and_class(run: Any, nets: Path) -> None:
    said = run("explain", "cat.png", *NET, "--method", "grad-cam,grad-cam++,gradient", "--class", "3,7", "--json")
    assert said.code == 0
    names = {Path(path).name for path in said.json["pictures"]}
    parts = {f"cat-explain-{m}-class-{c}.png" for m in ("grad-cam", "grad-cam++", "gradient") for c in (3, 7)}
    assert names == {"cat-explain.png", *parts}
    network = phosphene.load("nets.py:small", device="cpu")
    photo = network.preprocess(images.read("cat.png"))
    maps = explain.gradient(network, photo, [[3, 7]]).maps
    clip = next(row["clip"] for row in said.json["methods"] if row["method"] == "gradient")
    rank = -(-995 * maps.numel() // 1000)
    assert clip == pytest.approx(float(maps.abs().flatten().kthvalue(rank).values), rel=1e-3)  # one for both classes
    assert recipe.read("cat-explain-gradient-class-3.png").parameters["classes"] == ["3", "7"]
    assert run("rerun", "cat-explain-grad-cam++-class-7.png", "--check", "--run-code").code == 0


def test_methods_are_listed_without_a_picture(run: Any) -> None:
    listed = run("explain", "--method", "list", "--json").json["methods"]
    assert [row["name"] for row in listed] == list(explain.METHODS)


def test_a_network_that_cannot_have_a_usual_method_is_explained_without_it_and_told(run: Any, nets: Path) -> None:
    said = run("explain", "cat.png", "--net", "nets.py:silu")
    assert said.code == 0
    assert "left out guided-backprop: guided backpropagation has no rule for Silu (module '1' of" in said.err
    assert not Path("cat-explain-guided-backprop.png").exists() and Path("cat-explain-lrp.png").exists()


def test_a_folder_gives_a_page_pictures_and_the_raw_maps(run: Any, photos: Path) -> None:
    said = run("explain", "photos", *NET, *QUICK, "--out", "out")
    assert said.code == 0 and "left out photos/torn.jpg" in said.err
    found = files(Path("out"))
    sheets = {f"pictures/{name}.png" for name in ("photo1", "photo1-2", "photo2", "photo3", "photo4", "photo5")}
    assert sheets <= set(found) and len([name for name in found if name.endswith(".png")]) == 6 * 4
    rows = [json.loads(line) for line in Path("out/explain.jsonl").read_text().splitlines()]
    assert rows[0]["image"] == "photos/more/photo1.png"
    network = phosphene.load("nets.py:small", device="cpu")
    for row in rows:
        photo = network.preprocess(images.read(row["image"]))
        seen = network.predict(photo, 1)[0].indices[0]
        with np.load(Path("out") / row["maps"]) as maps:
            assert set(maps.files) == {"saliency", "grad-cam", "guided-backprop"}
            wanted = explain.saliency(network, photo, seen).maps
            assert np.allclose(maps["saliency"], wanted.numpy(), rtol=1e-5, atol=1e-8)
    page = found["index.html"].decode()
    assert all(f'src="pictures/{row["name"]}.png"' in page for row in rows)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_a_second_run_keeps_all_and_other_options_are_refused(run: Any, photos: Path) -> None:
    assert run("explain", "photos", *NET, *QUICK, "--out", "out").code == 0
    before = files(Path("out"))
    times = {path: path.stat().st_mtime_ns for path in Path("out/pictures").iterdir()}
    said = run("explain", "photos", *NET, *QUICK, "--out", "out")
    assert said.code == 0 and "6 images, 6 of them made before" in said.out
    assert files(Path("out")) == before
    assert {path: path.stat().st_mtime_ns for path in Path("out/pictures").iterdir()} == times
    said = run("explain", "photos", *NET, "--method", "saliency", "--out", "out")
    assert said.code == 2 and "give --overwrite" in said.err and files(Path("out")) == before
    assert run("explain", "photos", *NET, "--method", "saliency", "--out", "out", "--overwrite").code == 0


def test_an_interrupted_run_goes_on_to_the_same_files(run: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("explain", "photos", *NET, *QUICK, "--out", "whole").code == 0
    calls = 0

    def torn(path: Path, data: bytes, *, overwrite: bool = True) -> None:
        nonlocal calls
        calls += path.suffix == ".npz"
        if calls == 3:
            raise KeyboardInterrupt
        write_whole(path, data, overwrite=overwrite)

    with monkeypatch.context() as patch:
        patch.setattr(import_module("phosphene.images.save"), "write_whole", torn)
        assert run("explain", "photos", *NET, *QUICK, "--out", "out").code == 130
    with open("out/explain.jsonl", "a", encoding="utf-8") as file:
        file.write('{"name": "photo4", "rec')  # as a kill may leave it
    said = run("explain", "photos", *NET, *QUICK, "--out", "out")
    assert said.code == 0 and "6 images, 2 of them made before" in said.out
    assert numbers(Path("out")) == numbers(Path("whole"))


def test_a_picture_of_a_folder_is_made_again_byte_for_byte(run: Any, photos: Path) -> None:
    assert run("explain", "photos", *NET, "--method", "grad-cam", "--out", "out").code == 0
    assert run("rerun", "out/pictures/photo3--grad-cam.png", "--check", "--run-code").code == 0


def test_two_images_of_one_name_have_two_names() -> None:
    assert file_names(["x", "x", "y", "x-2", "X", "a--b", "a b"]) == ["x", "x-2", "y", "x-2-2", "X-3", "a-b", "a-b-2"]


# -- patches ------------------------------------------------------------------------------------------------------------


def test_patches_name_the_images_and_boxes_and_are_made_again(run: Any, photos: Path) -> None:
    said = run("patches", "photos", *NET, "--layer", "1", "--units", "0,5", "--count", "4", "--out", "p", "--json")
    assert said.code == 0 and "left out photos/torn.jpg" in said.err
    assert [row["unit"] for row in said.json["units"]] == [0, 5]
    network = phosphene.load("nets.py:small", device="cpu")
    for row in said.json["units"]:
        values = [patch["value"] for patch in row["patches"]]
        assert values == sorted(values, reverse=True) and len(values) == 4
        for patch in row["patches"]:
            photo = network.preprocess(images.read(patch["image"]))
            channel = network.record(photo, ["1"])["1"][0, row["unit"]]
            assert float(channel.max()) == pytest.approx(patch["value"], rel=1e-5)
            y, x = patch["position"]
            assert patch["box"] == [2 * y, 2 * x, 2 * y + 3, 2 * x + 3]  # a 3x3 convolution of stride 2
    assert run("rerun", "p/nets.py-small-patches.png", "--check", "--run-code").code == 0


# -- randomise and judge ------------------------------------------------------------------------------------------------


def test_randomise_tells_how_like_the_maps_stay(run: Any, nets: Path) -> None:
    said = run("randomise", "cat.png", *NET, "--method", "saliency,grad-cam", "--steps", "2", "--json")
    assert said.code == 0
    steps = said.json["steps"]
    assert [(row["method"], row["layer"]) for row in steps] == [
        ("saliency", "2"), ("grad-cam", "2"), ("saliency", "0"), ("grad-cam", "0"),
    ]  # fmt: skip
    assert all(-1 <= row["rank"] < 0.95 and row["ssim"] < 0.95 for row in steps)
    assert run("rerun", "cat-randomise.png", "--check", "--run-code").code == 0


JUDGE = ("judge-explanations", "photos", *NET, "--images", "4", "--mosaics", "3", "--steps", "2")
BRIGHT = ("judge-explanations", "photos", "--net", "nets.py:bright", *JUDGE[4:], "--method", "gradient,grad-cam")


def test_a_judgement_writes_a_table_plots_and_a_page_and_goes_on_where_it_stopped(run: Any, two_classes: None) -> None:
    said = run(*BRIGHT, "--out", "whole", "--json")
    assert said.code == 0, said.err
    assert {Path(path).name for path in said.json["written"]} == {
        "judge.png", "randomisation.png", "table.csv", "index.html",
    }  # fmt: skip
    lines = Path("whole/table.csv").read_text().splitlines()
    assert lines[0] == "method,check,mean,low,high,count"
    assert {line.split(",")[0] for line in lines[1:]} == {"gradient", "grad-cam", "centre", "random"}
    assert said.json["methods"]["centre"]["focus"]["mean"] == pytest.approx(0.25)
    records = Path("whole/records.jsonl").read_text().splitlines()
    Path("part").mkdir()
    Path("part/records.jsonl").write_text("\n".join(records[:20]) + "\n" + records[20][:17])  # torn by a kill
    said = run(*BRIGHT, "--out", "part")
    assert said.code == 0 and "19 of these measurements were made before" in said.out
    assert Path("part/table.csv").read_text() == Path("whole/table.csv").read_text()
    page = Path("whole/index.html").read_text()
    assert "default-src 'none'" in page and 'src="http' not in page


def test_a_judgement_keeps_measurements_of_another_kind(run: Any, two_classes: None) -> None:
    assert run(*BRIGHT, "--check", "insertion", "--out", "out").code == 0
    before = files(Path("out"))
    said = run(*BRIGHT, "--check", "insertion", "--seed", "1", "--out", "out")
    assert said.code == 2 and "measurements of another kind" in said.err and files(Path("out")) == before
    assert run(*BRIGHT, "--check", "insertion", "--seed", "1", "--out", "out", "--overwrite").code == 0
    assert run(*BRIGHT, "--check", "deletion", "--seed", "1", "--out", "out").code == 0  # the same plan, asked for more


# -- bad input ----------------------------------------------------------------------------------------------------------

BAD = [
    (("explain", "cat.png", *NET, "--method", "salency"), "unknown method 'salency'; did you mean saliency"),
    (("explain", "cat.png", *NET, "--method", "grad-cam", "--layer", "6"), "the nearest that has one is '3'"),
    (("explain", "cat.png", *NET, "--method", "saliency", "--layer", "3"), "--layer is for grad-cam"),
    (("explain", "cat.png", *NET, "--unit", "2:16"), "units 0 to 15"),
    (("explain", "cat.png", *NET, "--unit", "2:3", "--class", "1"), "not both"),
    (("explain", "cat.png", *NET, "--class", "1,70"), "70"),
    (("explain", "cat.png", "--net", "nets.py:silu", "--method", "guided-backprop"), "(module '1' of nets.py:silu)"),
    (("explain", "cat.png", *NET, "--method", "lrp", "--score", "log-probability"), "no rule for LogSoftmax"),
    (("explain",), "there is no picture to explain"),
    (("explain", "empty", *NET), "holds no image files"),
    (("explain", "photos", *NET, "--out", "cat.png"), "give --out a folder"),
    (("patches", "cat.png", *NET, "--layer", "1"), "is no folder"),
    (("patches", "empty", *NET, "--layer", "1"), "holds no image files"),
    (("patches", "photos", *NET, "--layer", "11"), "has no layer '11'"),
    (("patches", "photos", *NET, "--layer", "1", "--units", "8"), "units 0 to 7"),
    (("patches", "photos", *NET, "--layer", "1", "--units", "x"), "channel numbers such as 3,17"),
    (("patches", "photos", *NET, "--layer", "1", "--count", "0"), "at least one of each"),
    (("randomise", "cat.png", *NET, "--steps", "0"), "at least 1"),
    (("randomise", "cat.png", *NET, "--method", "x"), "unknown method 'x'"),
    ((*JUDGE, "--check", "focuss"), "unknown check 'focuss'; did you mean focus"),
    ((*JUDGE, "--method", "gradcam"), "unknown method 'gradcam'; did you mean grad-cam"),
    (("judge-explanations", "photos", *NET, "--images", "0"), "at least one"),
    ((*JUDGE, "--out", "cat.png"), "needs a folder"),
    (("judge-explanations", "cat.png", *NET), "is no folder"),
    (("judge-explanations", "one", *NET), "all of these are of one"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "message"), BAD)
def test_bad_input_is_one_line_and_leaves_nothing(run: Any, photos: Path, words: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("one").mkdir()
    shutil.copyfile("cat.png", "one/a.png")
    shutil.copyfile("cat.png", "one/b.png")
    before = set(Path().rglob("*"))
    said = run(*words)
    assert said.code == 2 and said.out == ""
    assert said.err.startswith("phosphene: ") and said.err.count("\n") == 1 and message in said.err
    assert {path for path in set(Path().rglob("*")) - before if "__pycache__" not in path.parts} == set()


@pytest.mark.parametrize("method", ["gradient", "grad-cam", "occlusion", "lrp", "integrated-gradients"])
def test_weights_that_are_nan_are_named(run: Any, nets: Path, method: str) -> None:
    from safetensors.torch import save_file

    state = phosphene.load("nets.py:small", device="cpu").module.state_dict()
    state["2.weight"][3, 2, 1, 1] = torch.nan
    save_file(state, "nan.safetensors")
    said = run("explain", "cat.png", *NET, "--weights", "nan.safetensors", "--class", "1", "--method", method)
    assert said.code == 2 and "the weight of layer '2'" in said.err and said.err.count("\n") == 1
