"""Every command as a user runs it."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from phosphene import __version__, images
from phosphene.cli import (
    advising,
    app,
    attacking,
    bias,
    cues,
    embedding,
    fooling,
    for_all,
    hardening,
    judging,
    learning,
    moving,
    network,
    painting,
    recipes,
    robustness,
    see,
)
from phosphene.cli import tour as touring
from phosphene.jobs import VERBS, command, function_of, job
from phosphene.jobs.explain import USUAL
from phosphene.jobs.workshop import Workshop
from phosphene.models import Network

COMMANDS = {
    "tour": touring.tour,
    "predict": network.predict,
    "layers": network.layers,
    "models": network.models,
    "filters": see.filters,
    "activations": see.activations,
    "explain": see.explain,
    "patches": see.patches,
    "embed": embedding.embed,
    "randomise": judging.randomise,
    "shape-bias": bias.shape_bias,
    "cue-conflict": cues.cue_conflict,
    "judge-explanations": judging.judge_explanations,
    "visualize": moving.visualize,
    "dream": moving.dream,
    "invert": moving.invert,
    "style": painting.style,
    "texture": painting.texture,
    "fool": fooling.fool,
    "attack": attacking.attack,
    "robustness": robustness.robustness,
    "universal": for_all.universal,
    "harden": hardening.harden,
    "patch": for_all.patch,
    "probe": learning.probe,
    "finetune": learning.finetune,
    "advise": advising.advise,
    "recipe": recipes.recipe,
    "rerun": recipes.rerun,
}
SQUEEZE = ("--net", "squeezenet1_1")


def check_picture(path: Path, least: int = 64) -> np.ndarray:
    """It opens, it is not tiny, it is not one colour."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert min(pixels.shape[:2]) >= least
    assert pixels.std() > 3
    return pixels


# -- help, version, completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*COMMANDS, "models get"])
def test_help_of_every_command(run: Any, name: str) -> None:
    said = run(*name.split(), "--help")
    assert said.code == 0
    assert f"phosphene {name}" in said.out
    assert "--quiet" in said.out and "--json" in said.out
    assert said.err == ""


def test_help_names_every_command(run: Any) -> None:
    said = run("--help")
    assert all(name in said.out for name in COMMANDS)
    assert "--install-completion" in said.out and "Teach it something new" in said.out


def test_version(run: Any) -> None:
    assert run("--version").out.strip() == f"phosphene {__version__}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: Any) -> None:
    script = app.generate_completion(shell=shell)
    assert all(name in script for name in COMMANDS)
    if shell == "bash" and (bash := shutil.which("bash")):
        subprocess.run([bash, "-n"], input=script, text=True, check=True)


def test_install_completion_writes_a_script(tmp_path: Path) -> None:
    env = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data"), "SHELL": "/bin/bash"}
    words = [sys.executable, "-m", "phosphene", "--install-completion", "--shell", "bash"]
    done = subprocess.run(words, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert any("visualize" in file.read_text() for file in tmp_path.rglob("*") if file.is_file())


@pytest.mark.parametrize("word", ["--help", "--version", "explain --help", "finetune --help", "bogus", "finetune gone"])
def test_talking_about_itself_imports_no_torch(word: str) -> None:
    code = (
        "import sys\nfrom phosphene.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'torchvision', 'timm', 'numpy', 'PIL'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *word.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- options mean the same everywhere ---------------------------------------------------------------------------


def options(name: str) -> dict[str, Any]:
    """Option -> its type, of one command."""
    collection = app[name].assemble_argument_collection(parse_docstring=False)
    return {flag: argument.hint for argument in collection for flag in argument.names if argument.parse}


def test_shared_options_are_the_same() -> None:
    all_options = {name: options(name) for name in COMMANDS}
    for name, own in all_options.items():
        assert {"--quiet", "-q", "--json"} <= set(own), name
    for name in (*VERBS, "predict", "layers", "tour"):
        assert {"--net", "--weights", "--labels", "--device"} <= set(all_options[name]), name
    for name in (*VERBS, "tour", "rerun"):
        assert {"--out", "--overwrite"} <= set(all_options[name]), name
    for flag in ("--net", "--weights", "--labels", "--device", "--overwrite", "--quiet", "--json", "--seed", "--steps"):
        kinds = {_kind(own[flag]) for own in all_options.values() if flag in own}
        assert len(kinds) == 1, flag


def _kind(hint: Any) -> Any:
    """The type of an option, whether or not it may be left to the command."""
    return (
        next((one for one in get_args(hint) if one is not type(None)), hint) if type(None) in get_args(hint) else hint
    )


def test_no_option_has_a_negative_twin_but_what_is_on_by_itself() -> None:
    twins = {(name, f) for name in COMMANDS for f in options(name) if f.startswith(("--no-", "--empty-"))}
    assert twins == {
        ("probe", "--no-balanced"),
        ("finetune", "--no-balanced"),
        ("robustness", "--no-checks"),
        ("harden", "--no-guard"),
    }


@pytest.mark.parametrize("verb", [*VERBS, "predict"])
def test_defaults_are_the_jobs(verb: str) -> None:
    theirs = command.defaults(verb)
    renamed = {"class": "classes", "method": "methods", "layer": "layer", "check": "checks"}
    if verb == "randomise":
        renamed["class"] = "class_name"
    if verb in ("patches", "harden"):
        del renamed["method"]
    if verb == "embed":
        del renamed["method"]
    if verb in ("activations", "visualize", "dream", "invert", "probe"):
        renamed["layer"] = "layers"
    renamed |= {"visualize": {"unit": "units"}, "dream": {"channel": "channels"}}.get(verb, {})
    if verb in ("style", "texture"):
        renamed |= {name: f"{name}s" for name in ("share", "mask", "content_layer", "style_layer")}
    for name, parameter in inspect.signature(COMMANDS[verb]).parameters.items():
        if (
            name in ("source", "output", "said", "out", "overwrite", "image", "folder", "film", "fps", "csv", "resume")
            or parameter.default is inspect.Parameter.empty
            or name == "attack_"  # None is pgd
            or (verb == "cue-conflict" and name in ("pairs", "same", "seed"))  # of the set, not of one stimulus
        ):
            continue
        own = renamed.get(name.rstrip("_"), name)
        default = theirs[own]
        empty = default == () and parameter.default is None
        assert empty or parameter.default == default, name


@pytest.mark.parametrize(
    "verb",
    [
        verb
        for verb in VERBS
        if verb
        not in (
            "judge-explanations",
            "embed",
            "cue-conflict",
            "probe",
            "finetune",
            "advise",
            "attack",
            "robustness",
            "harden",
        )
    ],
)
def test_the_command_line_hands_over_every_option(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("phosphene.cli.output.make", lambda verb, parameters, *rest, **more: seen.update(parameters))
    needed = {"image": Path("x.png"), "content": Path("x.png"), "target": "3", "folder": Path(), "layer": "1"}
    function = COMMANDS[verb]
    if verb in ("universal", "patch"):
        needed["folder"] = Path("sample:all")  # a result in the current folder may not lie among the photographs
    if verb == "explain":
        needed["image"] = (Path("x.png"),)  # type: ignore[assignment]
        del needed["layer"]
    if verb not in ("activations",):
        with pytest.raises(AttributeError):  # `make` gave no outcome to talk about
            wanted = inspect.signature(function).parameters
            function(**{key: value for key, value in needed.items() if key in wanted})
    else:
        wanted = inspect.signature(function).parameters
        function(**{key: value for key, value in needed.items() if key in wanted})
    function = function_of(verb)
    assert set(seen) == set(inspect.signature(function).parameters) - {"workshop", "keep", "save", "resume"}


@pytest.mark.parametrize("verb", ["probe", "finetune"])
def test_the_command_line_hands_over_how_to_learn(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(verb: str, folder: Path, parameters: dict[str, Any], *_: Any) -> None:
        seen.update(parameters)
        raise AttributeError

    monkeypatch.setattr("phosphene.cli.learning._train", train)
    with pytest.raises(AttributeError):
        COMMANDS[verb](Path("photos"))
    assert set(seen) == set(inspect.signature(function_of(verb)).parameters) - {"workshop", "save", "resume"}
    assert command.command_line(verb, seen) == f"phosphene {verb} photos"


def test_unknown_job_and_options() -> None:
    with pytest.raises(ValueError, match="no command 'workshop' makes pictures"):
        job("workshop", Workshop("cpu"), {})
    with pytest.raises(ValueError, match="other options than this version has"):
        job("filters", Workshop("cpu"), {"shiny": True})


# -- networks ---------------------------------------------------------------------------------------------------


def test_models(run: Any) -> None:
    rows = {row["name"]: row for row in run("models", "--json").json["models"]}
    assert rows["efficientnet_lite0"]["here"] == rows["squeezenet1_1"]["here"] == "bundled"
    assert all(row["licence"] for row in rows.values())
    said = run("models")
    assert "efficientnet_lite0" in said.out and "vgg16" in said.out


def test_models_get_of_a_bundled_name(run: Any) -> None:
    (row,) = run("models", "get", "squeezenet1_1", "--json").json["models"]
    assert row["already"] is True
    assert Path(row["path"]).is_file()
    assert "already here" in run("models", "get", "squeezenet1_1").out


def test_layers(run: Any) -> None:
    found = run("layers", *SQUEEZE, "--json").json
    assert found["input_size"] == [224, 224]
    first = found["layers"][0]
    assert (first["name"], first["alias"], first["kind"], first["shape"]) == (
        "features.0",
        "conv1",
        "Conv2d",
        [64, 111, 111],
    )
    assert first["parameters"] == 64 * 3 * 9 + 64
    leaves = {layer["name"] for layer in found["layers"]}
    everything = {layer["name"] for layer in run("layers", *SQUEEZE, "--all", "--json").json["layers"]}
    assert leaves < everything and "features.3" in everything - leaves
    table = run("layers", *SQUEEZE).out
    assert "features.3.squeeze" in table and "64 x 111 x 111" in table


# -- predict ----------------------------------------------------------------------------------------------------


def test_predict(run: Any, here: Path) -> None:
    (row,) = run("predict", "cat.png", "--top", "3", "--json").json["predictions"]
    assert row["image"] == "cat.png"
    chances = [found["probability"] for found in row["classes"]]
    assert len(chances) == 3 and chances == sorted(chances, reverse=True) and sum(chances) <= 1
    assert "cat" in row["classes"][0]["name"] or row["classes"][0]["name"] == "tabby"
    assert row["classes"][0]["synset"].startswith("n")
    table = run("predict", "cat.png")
    assert row["classes"][0]["name"] in table.out and "%" in table.out


def test_predict_a_folder_and_more_classes_than_there_are(run: Any, here: Path, nets: Path) -> None:
    (here / "photos" / "deeper").mkdir(parents=True)
    shutil.copyfile("cat.png", "photos/b.png")
    shutil.copyfile("cat.png", "photos/deeper/a.PNG")
    (here / "photos" / "notes.txt").write_text("no picture")
    found = run("predict", "photos", "cat.png", "--net", "nets.py:small", "--top", "99", "--json").json["predictions"]
    assert [row["image"] for row in found] == ["photos/b.png", "photos/deeper/a.PNG", "cat.png"]
    assert all(len(row["classes"]) == 10 for row in found)
    assert found[0]["classes"] == found[1]["classes"] == found[2]["classes"]


def test_labels_of_ones_own(run: Any, here: Path, nets: Path) -> None:
    names = [f"thing {letter}" for letter in "abcdefghij"]
    (here / "names.txt").write_text("\ufeff" + "\n".join(names) + "\n\n", encoding="utf-8")
    words = ("--net", "nets.py:small", "--labels", "names.txt", "--top", "10", "--json")
    (row,) = run("predict", "cat.png", *words).json["predictions"]
    assert sorted(found["name"] for found in row["classes"]) == names


# -- pictures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", ["efficientnet_lite0", "squeezenet1_1"])
def test_filters(run: Any, net: str) -> None:
    said = run("filters", "--net", net, "--out", "made")
    path = Path("made") / f"{net}-filters.png"
    assert said.out == f"wrote {path}\n"
    check_picture(path, 200)
    assert sorted(os.listdir("made")) == [f"{net}-filters.png", f"{net}-filters.png.json"]


def test_gabor_functions_are_told_in_a_table(run: Any, nets: Path) -> None:
    said = run("filters", "--net", "nets.py:small", "--gabor")
    found = run("filters", "--net", "nets.py:small", "--gabor", "--json", "--out", "json").json
    assert [Path(path).name for path in found["pictures"]] == [
        "nets.py-small-filters.png", "nets.py-small-filters-gabor.png", "nets.py-small-filters-gabor-summary.png"
    ]  # fmt: skip
    fits = found["gabor"]
    rows = [line.split() for line in said.out.splitlines() if line.split()[:1] and line.split()[0].isdigit()]
    assert [int(row[0]) for row in rows] == [row["filter"] for row in fits["filters"]]
    assert sorted(int(row[0]) for row in rows) == list(range(8))
    for printed, row in zip(rows, fits["filters"], strict=True):
        assert printed[1:] == [
            f"{row['orientation']:.1f}", f"{row['frequency']:.3f}", f"{row['wavelength']:.2f}", f"{row['phase']:.1f}",
            f"{row['explained']:.1%}",
        ]  # fmt: skip
    assert said.out.splitlines()[-1].startswith(
        f"nets.py:small: a Gabor function explains {fits['mean']:.1%} of a filter on average"
    )
    assert f"{fits['above']} of 8 filters lie above 95% of the noise" in said.out
    assert run("filters", "--net", "nets.py:small", "--gabor", "-q", "--overwrite").out == ""
    for path in found["pictures"]:
        check_picture(Path(path))
        assert run("rerun", path, "--check", "--run-code").out == "the same bytes\n"


def test_filters_of_several_networks_side_by_side(run: Any, nets: Path) -> None:
    said = run("filters", "--net", "squeezenet1_1,resnet18,nets.py:small", "--out", "both.png")
    assert said.code == 0 and said.out == "wrote both.png\n"
    assert said.err.startswith("phosphene: left out resnet18: the weights of 'resnet18' are not on this machine")
    assert said.err.count("\n") == 1
    run("filters", "--net", "squeezenet1_1", "--out", "one.png")
    assert check_picture(Path("both.png")).shape[1] > check_picture(Path("one.png")).shape[1]
    assert "give --run-code if you trust it" in run("rerun", "both.png", "--check").err
    assert run("rerun", "both.png", "--check", "--run-code").out == "the same bytes\n"
    refused = run("filters", "--net", "resnet18,alexnet", "--out", "none.png")
    assert refused.code == 2 and "the weights of 'resnet18'" in refused.err and not Path("none.png").exists()


def test_activations(run: Any) -> None:
    layers = ["conv1", "fire9"]
    found = run("activations", "cat.png", *SQUEEZE, "--layer", "conv1,fire9", "--channels", "4", "--json").json
    assert found["pictures"] == ["cat-activations.png", *(f"cat-activations-{name}.png" for name in [*layers, "strip"])]
    assert [row["layer"] for row in found["layers"]] == layers
    assert [len(row["strongest"]) for row in found["layers"]] == [4, 4]
    assert found["layers"][0]["channels"] == 64 and found["layers"][0]["size"] == [111, 111]
    for path in found["pictures"]:
        check_picture(Path(path))


def test_a_layer_named_twice_is_shown_once(run: Any) -> None:
    said = run("activations", "cat.png", *SQUEEZE, "--layer", "conv1", "--layer", "conv1", "--json")
    assert [Path(path).name for path in said.json["pictures"]] == [
        "cat-activations.png", "cat-activations-conv1.png", "cat-activations-strip.png"
    ]  # fmt: skip


def test_explain_with_the_usual_methods(run: Any) -> None:
    found = run("explain", "cat.png", *SQUEEZE, "--class", "tabby", "--json").json
    names = list(USUAL)
    assert found["pictures"] == ["cat-explain.png", *(f"cat-explain-{name}.png" for name in names)]
    assert found["target"].startswith("tabby (")
    pictures = [check_picture(Path(path)) for path in found["pictures"]]
    assert [picture.shape for picture in pictures[1:]] == [(224, 224, 3)] * len(USUAL)
    assert not np.array_equal(pictures[1], pictures[2])


@pytest.mark.parametrize("given", ["tabby", "281", "n02123045", "tabby cat"])
def test_explain_by_name_index_synset_and_alias(run: Any, given: str) -> None:
    found = run("explain", "cat.png", *SQUEEZE, "--method", "grad-cam", "--class", given, "--json").json
    assert found["target"].startswith("tabby (")
    assert [row["method"] for row in found["methods"]] == ["grad-cam"]


def test_explain_a_unit(run: Any, squeezenet: Network) -> None:
    chosen = ("--method", "saliency,guided-backprop")
    found = run("explain", "cat.png", *SQUEEZE, "--unit", "fire2:3", *chosen, "--json").json
    assert found["target"] == "unit fire2:3"
    assert [row["method"] for row in found["methods"]] == ["saliency", "guided-backprop"]
    photo = squeezenet.preprocess(images.read("cat.png"))
    row, column = divmod(int(squeezenet.activations(photo, "fire2")[0, 3].argmax()), 55)
    unit = f"fire2:3:{row},{column}"  # the same neuron, by its place
    one = run("explain", "cat.png", *SQUEEZE, "--unit", unit, *chosen, "--out", "one", "--json").json
    assert one["methods"] == found["methods"]
    saliency = np.asarray(Image.open("one/cat-explain-saliency.png").convert("RGB")).astype(int)
    guided = np.asarray(Image.open("one/cat-explain-guided-backprop.png").convert("RGB")).astype(int)
    rows, columns = np.nonzero((saliency - saliency[0, 0]).any(2))
    assert 5 <= np.ptp(rows) + 1 <= 19 and 5 <= np.ptp(columns) + 1 <= 19  # its receptive field
    assert len(np.unique(guided)) > 3 and not (guided - guided[0, 0])[0].any()  # shades, not black and white


def test_explain_into_one_file(run: Any) -> None:
    run("explain", "cat.png", *SQUEEZE, "--method", "saliency,grad-cam", "--out", "new/one.png")
    assert sorted(os.listdir("new")) == ["one.png", "one.png.json"]
    check_picture(Path("new/one.png"))


@pytest.mark.parametrize("canvas", ["pixel", "fourier"])
def test_visualize_classes(run: Any, canvas: str) -> None:
    words = ("visualize", "--class", "black swan,station wagon", "--canvas", canvas, "--steps", "3", "--size", "64")
    found = run(*words, "--json").json
    names = ["black-swan", "beach-wagon"]
    assert found["pictures"][1:] == [f"squeezenet1_1-visualize-{name}.png" for name in names]
    assert [row["index"] for row in found["targets"]] == [100, 436]
    assert all(0 <= row["probability"] <= 1 for row in found["targets"])
    assert np.asarray(Image.open(found["pictures"][1])).shape == (64, 64, 3)
    check_picture(Path(found["pictures"][0]))


def test_visualize_units(run: Any) -> None:
    words = ("visualize", "--layer", "fire4", "--unit", "7,9:3:4", "--steps", "2", "--size", "64", "--json")
    found = run(*words).json
    assert [row["target"] for row in found["targets"]] == ["fire4:7", "fire4:9:3,4"]
    assert all(Path(path).is_file() for path in found["pictures"])


def test_the_same_class_twice_is_one_picture(run: Any) -> None:
    found = run("visualize", "--class", "100,black swan,n01860187", "--steps", "1", "--size", "32", "--json").json
    assert len(found["targets"]) == 1 and len(found["pictures"]) == 2


def test_classes_of_the_same_letters_get_files_of_their_own(run: Any, here: Path, nets: Path) -> None:
    (here / "names.txt").write_text("C++\nC--\n" + "\n".join("cdefghij"))
    words = ("visualize", "--net", "nets.py:small", "--labels", "names.txt", "--class", "C++", "--class", "C--")
    found = run(*words, "--steps", "1", "--json").json
    assert len(set(found["pictures"])) == 3


def test_fool(run: Any) -> None:
    said = run("fool", "cat.png", *SQUEEZE, "--target", "black swan", "--json")
    found = said.json
    assert found["success"] is True
    assert found["before"]["index"] != 100
    assert found["after"]["index"] == found["read_back"]["index"] == found["target"]["index"] == 100
    assert found["read_back"]["probability"] == pytest.approx(found["after"]["probability"], abs=1e-5)
    assert found["target"]["probability"] >= 0.5
    assert 0 < found["l2"] < 4 and 1 <= found["steps"] <= 200
    names = ["original", "fooled", "difference", "difference-10x", "equation"]
    assert found["pictures"] == ["cat-fool.png", *(f"cat-fool-{name}.png" for name in names)]
    # The file itself fools it, through `predict`.
    (row,) = run("predict", "cat-fool-fooled.png", *SQUEEZE, "--json").json["predictions"]
    assert row["classes"][0]["index"] == 100
    fooled, original = (np.asarray(Image.open(f"cat-fool-{name}.png")).astype(float) for name in ("fooled", "original"))
    assert np.linalg.norm((fooled - original) / 255) == pytest.approx(found["l2"], rel=1e-4)


def test_fool_into_one_file_writes_the_fooled_picture(run: Any) -> None:
    said = run("fool", "cat.png", *SQUEEZE, "--target", "tiger", "--out", "tiger.png")
    assert "sees tiger" in said.out
    assert np.asarray(Image.open("tiger.png")).shape == (224, 224, 3)
    (row,) = run("predict", "tiger.png", *SQUEEZE, "--json").json["predictions"]
    assert row["classes"][0]["name"] == "tiger"


def test_fool_says_when_it_gave_up(run: Any) -> None:
    said = run("fool", "cat.png", *SQUEEZE, "--target", "tiger", "--steps", "1", "--confidence", "0.999")
    assert said.code == 1
    assert "not fooled within 1 steps" in said.out


# -- what is printed --------------------------------------------------------------------------------------------

CHEAP = [
    ("models",),
    ("models", "get", "squeezenet1_1"),
    ("layers", *SQUEEZE),
    ("predict", "cat.png", *SQUEEZE),
    ("filters", *SQUEEZE),
    ("activations", "cat.png", *SQUEEZE, "--layer", "conv1"),
    ("explain", "cat.png", *SQUEEZE, "--method", "saliency"),
    ("visualize", "--class", "3", "--steps", "1", "--size", "32"),
    ("dream", "cat.png", "--steps", "1", "--octaves", "1", "--size", "96", "--layer", "fire3"),
    ("invert", "cat.png", "--steps", "1", "--layer", "conv1"),
    ("fool", "cat.png", *SQUEEZE, "--target", "tiger"),
]


@pytest.mark.parametrize("words", CHEAP, ids=lambda words: " ".join(words[:2]))
def test_quiet_prints_nothing_and_json_prints_json(run: Any, words: tuple[str, ...]) -> None:
    said = run(*words, "-q")
    assert (said.code, said.out, said.err) == (0, "", "")
    extra = ("--overwrite",) if words[0] in VERBS else ()
    said = run(*words, "--json", *extra)
    assert said.code == 0 and said.err == ""
    assert isinstance(said.json, dict) and said.json


def test_recipe_and_rerun_can_be_quiet_and_speak_json(run: Any) -> None:
    run("filters", *SQUEEZE, "--out", "f.png")
    assert run("recipe", "f.png", "--quiet").out == ""
    assert run("recipe", "f.png", "--json").json["verb"] == "filters"
    assert run("rerun", "f.png", "--quiet").out == ""
    found = run("rerun", "f.png", "--overwrite", "--json").json
    assert found["same_bytes"] is True and found["out"] == "f-again.png"


# -- real processes ---------------------------------------------------------------------------------------------


def phosphene(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "phosphene", *words], capture_output=True, text=True, encoding="utf-8", **options
    )


def test_in_a_process_of_its_own(here: Path) -> None:
    done = phosphene("explain", "cat.png", *SQUEEZE, "--method", "grad-cam", "--json")
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["pictures"] == ["cat-explain.png", "cat-explain-grad-cam.png"]
    check_picture(here / "cat-explain.png")


def test_a_terminal_without_unicode(here: Path) -> None:
    done = phosphene("predict", "cat.png", *SQUEEZE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "%" in done.stdout


def test_an_error_in_a_process_of_its_own(here: Path) -> None:
    done = phosphene("explain", "gone.png")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "phosphene: gone.png does not exist: check the path\n"


def test_a_closed_pipe_is_no_traceback(here: Path) -> None:
    words = f"{sys.executable} -m phosphene layers --net squeezenet1_1 | head -n 1"
    done = subprocess.run(words, shell=True, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
