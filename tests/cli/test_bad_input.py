"""Bad input: one line on stderr that says what was wrong and what would be right, exit code 2, nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from phosphene.jobs import VERBS

SQUEEZE = ("--net", "squeezenet1_1")
IMAGE_COMMANDS = {
    "predict": (),
    "activations": (),
    "explain": (),
    "fool": ("--target", "tiger"),
    "dream": (),
    "invert": (),
    "style": (),
    "texture": (),
    "tour": (),
}


def one_bit_png(width: int, height: int) -> bytes:
    """A black picture of any size, in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    data = b"".join([packer.compress(row) for _ in range(height)]) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def inputs(here: Path, nets: Path, cat: Path) -> None:
    whole = cat.read_bytes()
    (here / "empty.png").write_bytes(b"")
    (here / "half.png").write_bytes(whole[: len(whole) // 2])
    (here / "text.jpg").write_text("This is no picture.")
    (here / "folder").mkdir()
    Image.new("RGB", (1, 1)).save(here / "dot.png")
    (here / "huge.png").write_bytes(one_bit_png(30_000, 30_000))
    (here / "thin.png").write_bytes(one_bit_png(5000, 1))
    (here / "empty.txt").write_text("\n\n")
    (here / "three.txt").write_text("a\nb\nc\n")
    (here / "binary.txt").write_bytes(b"\xff\xfe\x00\x81" * 9)
    (here / "plain.txt").write_text("a file")
    with open("evil.pth", "wb") as file:
        pickle.dump(_Evil(), file)
    torch.save({"classifier.1.weight": torch.zeros(7, 3), "other": torch.zeros(2)}, "misfit.pth")


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran-the-pickle",)


@pytest.fixture
def refused(run: Any, here: Path) -> Any:
    """Run the words; they must be refused in one line, and change nothing. Returns the line."""

    def listing() -> dict[str, bytes | None]:
        skip = ("huge.png", "__pycache__")
        files = [path for path in here.rglob("*") if not set(skip) & set(path.parts)]
        return {str(path): path.read_bytes() if path.is_file() else None for path in files}

    def check(*words: str) -> str:
        before = listing()
        said = run(*words)
        assert said.code == 2
        assert said.out == ""
        lines = said.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("phosphene: ") and "Traceback" not in said.err
        assert listing() == before
        return lines[0].removeprefix("phosphene: ")

    return check


# -- the photograph ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", IMAGE_COMMANDS)
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.png", "does not exist"),
        ("empty.png", "is empty"),
        ("half.png", "is cut short or damaged"),
        ("text.jpg", "is not an image"),
        ("folder", "folder"),
        ("dot.png", "1 x 1"),
        ("thin.png", "5000 x 1"),
        ("huge.png", "30000 x 30000"),
        ("https://example.org/cat.jpg", "does not download images"),
    ],
)
def test_a_bad_picture(refused: Any, command: str, file: str, message: str) -> None:
    out = () if command == "predict" else ("--out", "new/deeper")
    assert message in refused(command, file, *IMAGE_COMMANDS[command], *SQUEEZE, *out)


def test_one_bad_picture_among_good_ones(refused: Any) -> None:
    assert "half.png" in refused("predict", "cat.png", "half.png", *SQUEEZE)


# -- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [*VERBS, "predict", "layers", "tour"])
def test_an_unknown_network(refused: Any, verb: str) -> None:
    words = {
        "fool": ("cat.png", "--target", "3"), "visualize": ("--class", "3"), "filters": (), "layers": (),
        "patches": ("folder", "--layer", "1"), "judge-explanations": ("folder",), "embed": ("folder",),
        "shape-bias": ("folder",), "cue-conflict": ("folder", "folder"), "probe": ("folder",), "finetune": ("folder",),
        "advise": ("folder",), "attack": ("folder",), "robustness": ("folder",),
        "universal": ("folder",), "harden": ("folder",), "patch": ("folder",),
    }  # fmt: skip
    line = refused(verb, *words.get(verb, ("cat.png",)), "--net", "resnet81")
    assert "unknown network 'resnet81'" in line and "did you mean resnet18" in line


@pytest.mark.parametrize(
    ("net", "message"),
    [
        ("resnet18", "the weights of 'resnet18' are not on this machine (looked for"),
        ("timm:nosuchnet", "nosuchnet"),
        ("gone.py:net", "there is no file 'gone.py'"),
        ("nets.py:nothing", "has no function 'nothing'"),
        ("nets.py:number", "returned a int; a torch.nn.Module"),
        ("nets.py:features", "predict needs a network that classifies"),
    ],
)
def test_a_network_that_can_not_be_had(refused: Any, net: str, message: str) -> None:
    assert message in refused("predict", "cat.png", "--net", net)


def test_offline_names_what_would_work(refused: Any) -> None:
    line = refused("predict", "cat.png", "--net", "vgg19")
    assert "phosphene models get vgg19" in line and "efficientnet_lite0, squeezenet1_1" in line
    assert "PHOSPHENE_WEIGHTS" in line and ".nothing" in line


def test_models_get_of_an_unknown_name(refused: Any) -> None:
    assert "unknown network 'resnet81'; did you mean" in refused("models", "get", "resnet81")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.pth", "there is no weights file"),
        ("empty.png", "empty.png is empty"),
        ("cat.png", "neither a safetensors file nor a torch state dict"),
        ("folder", "is a folder"),
        ("evil.pth", "is a pickle that would run code"),
    ],
)
def test_bad_weights(refused: Any, file: str, message: str) -> None:
    assert message in refused("predict", "cat.png", *SQUEEZE, "--weights", file)


def test_weights_that_do_not_fit_are_listed(refused: Any) -> None:
    line = refused("predict", "cat.png", *SQUEEZE, "--weights", "misfit.pth")
    assert "misfit.pth" in line and "features.0.weight" in line and "other" in line


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gone.txt", "can't read the labels 'gone.txt': No such file"),
        ("empty.txt", "the labels file 'empty.txt' is empty"),
        ("binary.txt", "no text in UTF-8"),
        ("three.txt", "has 10 classes, but 3 labels were given"),
    ],
)
def test_bad_labels(refused: Any, file: str, message: str) -> None:
    assert message in refused("predict", "cat.png", "--net", "nets.py:small", "--labels", file)


def test_a_device_that_is_not_there(refused: Any) -> None:
    if not torch.cuda.is_available():
        assert "no 'cuda' device for PyTorch: choose cpu" in refused("predict", "cat.png", "--device", "cuda")
    assert '"tpu"' in refused("predict", "cat.png", "--device", "tpu")


# -- classes, layers, units -------------------------------------------------------------------------------------

EXPLAIN = ("explain", "cat.png", *SQUEEZE)
VISUALIZE = ("visualize", "--steps", "1")
FOOL = ("fool", "cat.png", *SQUEEZE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*EXPLAIN, "--class", "tigger"), "no class is called 'tigger'; did you mean tiger"),
        ((*EXPLAIN, "--class", "1000"), "the 1000 classes are 0 to 999"),
        ((*EXPLAIN, "--class=-1"), "the 1000 classes are 0 to 999"),
        ((*EXPLAIN, "--class", "crane"), "may mean 2 classes: 134 crane (bird), 517 crane (machine)"),
        ((*EXPLAIN, "--class", ""), "no class is called ''"),
        ((*EXPLAIN, "--method", "grad_cam"), "unknown method 'grad_cam'; did you mean grad-cam"),
        ((*EXPLAIN, "--layer", "fire99"), "has no layer 'fire99'; did you mean fire9"),
        ((*EXPLAIN, "--layer", "fire9", "--method", "saliency"), "--layer is for grad-cam"),
        ((*EXPLAIN, "--unit", "fire2:128"), "has units 0 to 127: there is no unit 128"),
        ((*EXPLAIN, "--unit", "fire2:-1"), "has units 0 to 127"),
        ((*EXPLAIN, "--unit", "fire2:0:99,0"), "is a map of 55x55"),
        ((*EXPLAIN, "--unit", "7"), "write layer:channel"),
        ((*EXPLAIN, "--unit", "fire2:3", "--class", "3"), "not both"),
        (
            (*EXPLAIN, "--unit", "conv1:3", "--method", "grad-cam"),
            "no layer with a spatial map runs before 'conv1'",
        ),
        (("activations", "cat.png", *SQUEEZE, "--layer", "conv1,fire10"), "has no layer 'fire10'; did you mean fire"),
        (("activations", "cat.png", *SQUEEZE, "--channels", "0"), "channels start at 1, got 0"),
        (("filters", *SQUEEZE, "--layer", "fire2"), "which has no filters"),
        (("filters", *SQUEEZE, "--layer", "fire2/squeeze1x1"), "has no layer"),
        (("filters", *SQUEEZE, "--layer", "features.3.squeeze"), "act on 64 features, not on the image"),
        (("predict", "cat.png", "--top", "0"), "--top starts at 1, got 0"),
        ((*VISUALIZE, "--class", "tigger"), "did you mean tiger"),
        (VISUALIZE, "either --class NAME, or --layer L with --unit U"),
        ((*VISUALIZE, "--class", "3", "--layer", "fire2", "--unit", "1"), "either --class NAME, or --layer L"),
        ((*VISUALIZE, "--layer", "fire2"), "a unit needs both"),
        ((*VISUALIZE, "--unit", "3"), "a unit needs both"),
        ((*VISUALIZE, "--layer", "fire2", "--unit", "128"), "has units 0 to 127"),
        ((*VISUALIZE, "--layer", "fire2", "--unit", "x"), "no unit"),
        ((*VISUALIZE, "--layer", "fire2", "--unit", "1:40:40", "--size", "64"), "is a map of 15x15 at this size"),
        ((*VISUALIZE, "--class", "3", "--size", "31"), "32 to 2048 pixels wide, got 31"),
        ((*VISUALIZE, "--class", "3", "--size", "99999"), "32 to 2048 pixels wide"),
        ((*VISUALIZE, "--class", "3", "--seed", "1" * 30), "a seed is a number of up to 18 digits"),
        (("visualize", "--class", "3", "--net", "nets.py:flat", "--size", "64"), "can't look at pictures of 64 x 64"),
        (("visualize", "--class", "3", "--net", "nets.py:features"), "needs a network that classifies"),
        (("visualize", "--class", "3", "--steps", "0"), "steps start at 1, got 0"),
        (("visualize", "--class", "3", "--steps=-5"), "steps start at 1, got -5"),
        ((*VISUALIZE, "--class", "3", "--rate", "0"), "a rate is positive"),
        ((*VISUALIZE, "--class", "3", "--rate", "nan"), "a rate is positive"),
        ((*VISUALIZE, "--class", "3", "--l2=-1"), "l2 can't be negative"),
        ((*VISUALIZE, "--class", "3", "--canvas", "pixel", "--blur", "nan"), "blur can't be negative"),
        ((*VISUALIZE, "--class", "3", "--canvas", "pixel", "--clip-norm", "1"), "clip_norm is a share"),
        ((*VISUALIZE, "--class", "3", "--blur", "1"), "blur works on pixels: give --canvas pixel with it"),
        ((*VISUALIZE, "--class", "3", "--rotate", "inf"), "rotate can't be negative, nor above 360: got inf"),
        ((*VISUALIZE, "--class", "3", "--scale", "1"), "scale lies between 0 and 1"),
        ((*VISUALIZE, "--class", "3", "--canvas", "oil"), '"oil"'),
        ((*FOOL, "--target", "tigger"), "did you mean tiger"),
        ((*FOOL, "--target", "3", "--steps", "0"), "steps start at 1, got 0"),
        ((*FOOL, "--target", "3", "--steps=-1"), "steps start at 1, got -1"),
        ((*FOOL, "--target", "3", "--confidence", "0"), "a confidence lies between 0 and 1"),
        ((*FOOL, "--target", "3", "--confidence", "1"), "a confidence lies between 0 and 1"),
        ((*FOOL, "--target", "3", "--confidence", "nan"), "a confidence lies between 0 and 1"),
        ((*FOOL, "--target", "3", "--out", "x.jpg"), "a JPEG changes pixels"),
        ((*FOOL, "--target", "3", "--out", "x.JPEG"), "a JPEG changes pixels"),
        (("fool", "cat.png", "--net", "nets.py:features", "--target", "3"), "needs a network that classifies"),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_bad_options(refused: Any, words: tuple[str, ...], message: str) -> None:
    assert message in refused(*words)


def test_fooling_to_what_it_sees_already(run: Any, refused: Any) -> None:
    (row,) = run("predict", "cat.png", *SQUEEZE, "--json").json["predictions"]
    best = row["classes"][0]
    assert f"already sees '{best['name']}'" in refused(*FOOL, "--target", best["name"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("explane", "cat.png"), "explane"),
        (("explain", "cat.png", "--clas", "3"), "--clas"),
        (("predict",), "requires an argument"),
        (("fool",), "requires an argument"),
        (("rerun",), "requires an argument"),
        (("models", "get"), "requires an argument"),
        (("predict", "cat.png", "--top", "many"), "--top"),
        (("explain", "cat.png", "dog.png"), "dog.png"),
        (("visualize", "--class", "3", "--steps"), "--steps"),
    ],
)
def test_bad_command_lines(refused: Any, words: tuple[str, ...], message: str) -> None:
    assert message in refused(*words)


# -- where it should go -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["plain.txt/deeper", "plain.txt/deeper/a.png", "/proc/nowhere/a.png"])
@pytest.mark.parametrize("words", [("filters", *SQUEEZE), ("tour", "cat.png", *SQUEEZE)], ids=["filters", "tour"])
def test_folders_that_can_not_be_made(refused: Any, words: tuple[str, ...], out: str) -> None:
    line = refused(*words, "--out", out)
    assert "can't make the folder" in line or "is a file" in line


def test_a_folder_that_can_not_be_written(refused: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    assert "can't write into the folder 'folder'" in refused("filters", *SQUEEZE, "--out", "folder")


@pytest.mark.parametrize("suffix", [".gif", ".bmp", ".pdf", ".json"])
def test_formats_that_are_not_written(refused: Any, suffix: str) -> None:
    assert f"can't be written as {suffix}" in refused("filters", *SQUEEZE, "--out", f"x{suffix}")


def test_what_exists_is_kept(run: Any, here: Path, refused: Any) -> None:
    (here / "a.png").write_bytes(b"mine")
    for out in ("a.png", "./a.png"):
        assert "'a.png' exists and is kept: give --overwrite" in refused("filters", *SQUEEZE, "--out", out)
    assert run("filters", *SQUEEZE, "--out", "a.png", "--overwrite").code == 0
    assert (here / "a.png").read_bytes() != b"mine"


def test_parts_that_exist_are_kept(here: Path, refused: Any) -> None:
    (here / "cat-explain-saliency.png").write_bytes(b"mine")
    line = refused("explain", "cat.png", *SQUEEZE, "--method", "saliency")
    assert "'cat-explain-saliency.png' exists and is kept" in line


def test_a_json_of_somebody_else_is_kept(here: Path, refused: Any) -> None:
    (here / "cats.png.json").write_text('{"mine": 1}')
    assert "'cats.png.json' exists and is no recipe" in refused("filters", *SQUEEZE, "--out", "cats.png")
    assert "is no recipe" in refused("filters", *SQUEEZE, "--out", "cats.png", "--overwrite")


def test_the_photograph_is_kept(refused: Any) -> None:
    for out in ("cat.png", "folder/../cat.png"):
        line = refused("explain", "cat.png", *SQUEEZE, "--out", out, "--overwrite")
        assert "is the photograph itself" in line


def test_tours_need_a_folder_of_their_own(here: Path, refused: Any) -> None:
    assert "'plain.txt' is a file" in refused("tour", "cat.png", "--out", "plain.txt")
    (here / "folder" / "index.html").write_text("mine")
    assert "'folder/index.html' exists and is kept" in refused("tour", "cat.png", "--out", "folder")
    (here / "folder" / "index.html").unlink()
    (here / "folder" / "pictures").mkdir()
    assert "'folder/pictures' exists and is kept" in refused("tour", "cat.png", "--out", "folder")


@pytest.mark.parametrize("net", ["nets.py:features", "resnet81"])
def test_a_tour_without_a_usable_network_leaves_nothing(refused: Any, net: str) -> None:
    line = refused("tour", "--net", net, "--out", "lecture")
    assert "the tour needs a network that classifies" in line or "unknown network" in line


# -- recipes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["recipe", "rerun"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("cat.png", "carries no recipe, and there is no cat.png.json beside it"),
        ("gone.png", "does not exist"),
        ("folder", "is a folder"),
        ("text.jpg", "is not an image"),
        ("three.json", "holds no recipe"),
        ("bytes.json", "is not a text"),
        ("list.json", "holds no recipe"),
    ],
)
def test_pictures_without_a_recipe(here: Path, refused: Any, command: str, file: str, message: str) -> None:
    (here / "three.json").write_text("3")
    (here / "list.json").write_text('{"verb": "fool", "parameters": [1], "picture": "fool"}')
    (here / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert message in refused(command, file)


def test_recipes_of_another_world(here: Path, refused: Any) -> None:
    (here / "cat.png.json").write_text('{"verb": "workshop", "parameters": {}, "picture": "x"}')
    assert "this version has no command 'workshop'" in refused("recipe", "cat.png")
    assert "no command 'workshop' makes pictures" in refused("rerun", "cat.png")
    (here / "cat.png.json").write_text('{"verb": "filters", "parameters": {"shiny": true}, "picture": "x"}')
    assert "other options than this version has" in refused("rerun", "cat.png")
    (here / "cat.png.json").write_text('{"verb": "filters", "parameters": {"net": "squeezenet1_1"}, "picture": "x"}')
    assert "'filters' makes no picture 'x'" in refused("rerun", "cat.png")


def test_rerun_into_another_format(run: Any, refused: Any) -> None:
    run("filters", *SQUEEZE, "--out", "f.png")
    assert "the same bytes need the same format" in refused("rerun", "f.png", "--out", "g.jpg")


def test_rerun_of_the_json_alone(run: Any, refused: Any) -> None:
    run("filters", *SQUEEZE, "--out", "f.png")
    assert "'f.png.json' is no picture" in refused("rerun", "f.png.json", "--check")


def test_rerun_when_the_photograph_changed_or_is_gone(run: Any, here: Path, refused: Any) -> None:
    run("explain", "cat.png", *SQUEEZE, "--method", "saliency", "--out", "made/a.png")
    Image.new("RGB", (50, 50)).save("cat.png")
    assert "'cat.png' is not the file that the picture was made from" in refused("rerun", "made/a.png")
    (here / "cat.png").unlink()
    assert "'cat.png' is gone, and no cat.png lies beside" in refused("rerun", "made/a.png")


# -- Ctrl-C -----------------------------------------------------------------------------------------------------


def test_ctrl_c(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    before = set(here.rglob("*"))
    for place in ("phosphene.synthesize.ascent._gradient", "phosphene.images.save"):
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            said = run("visualize", "--class", "3", "--steps", "2", "--size", "32", "--out", "new/x.png")
        assert said.code == 130
        assert said.err == "phosphene: interrupted; nothing half-written was kept\n"
        assert said.out == ""
        assert set(here.rglob("*")) == before


def test_ctrl_c_in_a_tour(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    before = set(here.rglob("*"))
    monkeypatch.setattr("phosphene.jobs.filters.filters", interrupted)
    assert run("tour", *SQUEEZE, "--out", "lecture").code == 130
    assert set(here.rglob("*")) == before


def test_a_write_that_fails_half_way_leaves_no_part(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    said = run("filters", *SQUEEZE, "--out", "new/x.png")
    assert said.code == 2 and "No space left on device" in said.err
    assert not (here / "new").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_a_process_of_its_own(here: Path) -> None:
    import signal

    words = [sys.executable, "-m", "phosphene", "visualize", "--class", "3", "--steps", "100000", "--out", "new"]

    def listening() -> None:  # a test run in the background may have been told to ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=listening)
    try:
        while not (here / "new").exists() and process.poll() is None:  # made just before the work begins
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # A shell shows 130 for both: Python ends itself by the signal where that came in the middle of an `exec`.
    assert process.returncode in (130, -signal.SIGINT)
    assert err == "phosphene: interrupted; nothing half-written was kept\n" and out == ""
    assert not (here / "new").exists()


def test_the_pickle_never_ran(run: Any, here: Path) -> None:
    shutil.copyfile("evil.pth", "evil.pt")
    for file in ("evil.pth", "evil.pt"):
        assert run("predict", "cat.png", *SQUEEZE, "--weights", file).code == 2
    assert not (here / "ran-the-pickle").exists()
