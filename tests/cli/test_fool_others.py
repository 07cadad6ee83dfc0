"""`phosphene fool --others`: what fooled one network, shown to others; and recipes that name somebody's code there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import colours
import pytest
import torch
from safetensors.torch import save_file

import phosphene
from phosphene import images, recipe
from phosphene.attacks import noisy

BENT = ("--net", "nets.py:bent")
PGD = ("--attack", "pgd", "--eps", "9/255")
MARK = Path("code-was-run")


@pytest.fixture(autouse=True)
def photo(here: Path) -> None:
    """red.png, whose red is 9 grey levels above its green; nets.py; and rival.py, which leaves a mark when it runs."""
    (here / "nets.py").write_text(colours.NETS)
    (here / "rival.py").write_text(
        "from pathlib import Path\n"
        + colours.NETS
        + f"\ndef net():\n    Path({str(here / MARK)!r}).touch()\n    return other()\n"
    )
    colours.photograph(here / "red.png", "red", 9, seed=1)


@pytest.fixture
def fool(run: Any) -> Any:
    return lambda *words: run("fool", "red.png", *BENT, *words)


def top(net: str, image: Any) -> dict[str, Any]:
    found = phosphene.load(net, device="cpu").predict(image, 1)[0]
    return {
        "index": found.indices[0],
        "name": found.names[0],
        "probability": pytest.approx(found.probabilities[0], abs=1e-5),
    }


# -- what is shown ------------------------------------------------------------------------------------------------------


def test_the_facts_are_what_the_others_see_in_the_files(fool: Any) -> None:
    rivals = ["nets.py:other", "nets.py:big", "nets.py:named", "nets.py:grey"]  # other sizes, names and colours, too
    said = fool(*PGD, "--others", ",".join(rivals), "--seed", "3", "--json")
    assert (said.code, said.err) == (0, "")
    found = said.json
    assert list(found["others"]) == rivals
    original, fooled = images.read("red-fool-original.png"), images.read("red-fool-fooled.png")
    noise = noisy(original, found["linf"], "linf", seed=3)
    for net in rivals:
        assert found["others"][net] == {
            "before": top(net, original), "after": top(net, fooled), "noise": top(net, noise)
        }  # fmt: skip
    assert found["noise"] == top("nets.py:bent", noise)
    assert (
        found["others"]["nets.py:other"]["after"]["name"] != "red" == found["others"]["nets.py:other"]["noise"]["name"]
    )
    assert found["others"]["nets.py:named"]["before"]["name"] == "left"


def test_the_table(fool: Any) -> None:
    said = fool(*PGD, "--others", "nets.py:other,nets.py:named", "--others", "nets.py:other")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    header = next(line for line in lines if "shown to" in line)
    titles = [one.strip() for one in header.split("  ") if one.strip()]
    assert titles == ["shown to", "the photograph", "the result", "noise of the same size"]
    rows = [line.split() for line in lines if line.split()[:1] in (["nets.py:other"], ["nets.py:named"])]
    assert [row[0] for row in rows] == ["nets.py:other", "nets.py:named"]  # one of them was given twice
    assert rows[0][1] == "red" and rows[0][3] != "red" and rows[1][1] == "left"


def test_whether_others_are_fooled_decides_nothing(fool: Any) -> None:
    said = fool("--others", "nets.py:mean")  # DeepFool ends just across the boundary
    assert said.code == 0 and "nets.py:mean" in said.out
    assert fool(*PGD, "--others", "nets.py:mean", "-q", "--out", "quiet").out == ""
    found = fool("--attack", "pgd", "--eps", "1/255", "--others", "nets.py:mean", "--json", "--out", "not")
    assert found.code == 1 and found.json["others"]["nets.py:mean"]["after"]["name"] == "red"


def test_without_others_there_are_none(fool: Any, run: Any) -> None:
    found = fool(*PGD, "--json").json
    assert found["others"] == {} and "others" not in run("recipe", "red-fool.png").out.splitlines()[0]
    assert recipe.read("red-fool.png").parameters["others"] == []
    plain = fool(*PGD, "--out", "plain").out
    assert "shown to" not in plain


@pytest.mark.parametrize("name", ["pgd", "bim", "mi-fgsm", "ni-fgsm"])
def test_an_attack_that_can_goes_on_after_success(fool: Any, name: str) -> None:
    words = ("--attack", name, "--eps", "12/255", "--steps", "15", "--json")
    alone, shown = fool(*words, "--out", "a").json, fool(*words, "--others", "nets.py:other", "--out", "b").json
    assert alone["success"] and shown["success"] and shown["backwards"] == 15 > alone["backwards"]
    network = phosphene.load("nets.py:bent", device="cpu")

    def lead(folder: str) -> float:
        logits = network.logits(images.read(Path(folder, "red-fool-fooled.png")))[0]
        return float(logits[1:].max() - logits[0])

    assert lead("b") > 1.5 * lead("a") > 0


@pytest.mark.parametrize(
    "words", [(), ("--target", "green"), ("--attack", "fgsm", "--eps", "8/255"), ("--norm", "linf")]
)
def test_an_attack_that_cannot_is_what_it_was(fool: Any, words: tuple[str, ...]) -> None:
    alone = fool(*words, "--out", "a", "--json").json
    shown = fool(*words, "--others", "nets.py:other", "--out", "b", "--json").json
    assert {key: alone[key] for key in ("l2", "linf", "backwards", "steps", "after")} == {
        key: shown[key] for key in ("l2", "linf", "backwards", "steps", "after")
    }
    assert torch.equal(images.read("a/red-fool-fooled.png"), images.read("b/red-fool-fooled.png"))


def test_bundled_networks(run: Any) -> None:
    words = (
        "cat.png",
        "--net",
        "squeezenet1_1",
        "--attack",
        "mi-fgsm",
        "--eps",
        "8/255",
        "--others",
        "efficientnet_lite0",
    )
    found = run("fool", *words, "--json").json
    (seen,) = found["others"].values()
    (row,) = run("predict", "cat-fool-fooled.png", "--json", "--net", "efficientnet_lite0").json["predictions"]
    assert row["classes"][0]["name"] == seen["after"]["name"]
    assert row["classes"][0]["probability"] == pytest.approx(seen["after"]["probability"], abs=1e-5)
    assert run("rerun", "cat-fool-fooled.png", "--check").out == "the same bytes\n"  # nobody's code: no --run-code
    assert set(recipe.read("cat-fool.png").networks) == {"squeezenet1_1", "efficientnet_lite0"}


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--others", "nets.py:other", "--all-targets"), "give one --target with it"),
        (("--others", "nets.py:other", "--target", "green,blue"), "give one --target with it"),
        (("--others", "efficientnet_lite9"), "efficientnet_lite0"),
        (("--others", "nets.py:gone"), "gone"),
        (("--others", "gone.py:net"), "gone.py"),
        (("--others", "plain.py:features"), "fool needs a network that classifies; plain.py:features gives"),
        (("--others", "nets.py:other", "--target", "red"), "already sees 'red'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_others_are_one_line_and_change_nothing(
    fool: Any, here: Path, words: tuple[str, ...], message: str
) -> None:
    Path("plain.py").write_text("from torch import nn\n\ndef features():\n    return nn.Conv2d(3, 4, 3)\n")
    before = sorted(path for path in here.iterdir() if path.name != "__pycache__")
    said = fool(*words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("phosphene: ") and said.err.count("\n") == 1 and message in said.err
    assert sorted(path for path in here.iterdir() if path.name != "__pycache__") == before


# -- recipes ------------------------------------------------------------------------------------------------------------


def test_made_again_byte_for_byte(fool: Any, run: Any) -> None:
    assert fool(*PGD, "--others", "nets.py:other,rival.py:net", "--seed", "2", "-q").code == 0
    found = recipe.read("red-fool.png")
    assert set(found.inputs) == {"red.png", "nets.py", "rival.py"}
    assert set(found.networks) == {"nets.py:bent", "nets.py:other", "rival.py:net"}
    line = run("recipe", "red-fool.png").out.splitlines()[0]
    assert "--others nets.py:other,rival.py:net" in line
    for picture in sorted(Path().glob("red-fool*.png")):
        assert run("rerun", picture, "--check", "--run-code").out == "the same bytes\n", picture
    said = run(*line.split()[1:], "--out", "again")
    assert said.code == 0 and Path("again/red-fool.png").read_bytes() == Path("red-fool.png").read_bytes()


def test_two_runs_write_the_same_bytes(fool: Any) -> None:
    for folder in ("a", "b"):
        assert fool(*PGD, "--others", "nets.py:other", "--out", folder).code == 0
    one, two = ({path.name: path.read_bytes() for path in Path(folder).iterdir()} for folder in ("a", "b"))
    assert one == two and len(one) == 12


@pytest.fixture
def made(run: Any) -> Path:
    """A picture of the bundled network, which was shown to rival.py; it has not been run since."""
    words = ("cat.png", "--net", "squeezenet1_1", "--attack", "fgsm", "--eps", "2/255", "--others", "rival.py:net")
    assert run("fool", *words, "-q").code == 0 and MARK.exists()
    MARK.unlink()
    return Path("cat-fool.png")


def test_somebodys_code_among_the_others_is_not_run_without_being_asked_for(run: Any, made: Path) -> None:
    said = run("rerun", made, "--check")
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1
    assert "this recipe runs the Python file 'rival.py': give --run-code if you trust it" in said.err
    assert not MARK.exists()
    assert run("rerun", made, "--check", "--run-code").out == "the same bytes\n" and MARK.exists()


def tampered(made: Path, **parameters: Any) -> Path:
    """The picture with a recipe that says something else."""
    told = json.loads(recipe.beside(made).read_text())
    told["parameters"] |= parameters
    images.save(images.read(made)[0], "sent.png", note=json.dumps(told))
    return Path("sent.png")


@pytest.mark.parametrize(
    "others",
    [
        ["squeezenet1_1", "rival.py:net"],
        ["rival.py:net", "rival.py:net"],
        ["./rival.py:net"],
        [["rival.py:net"]],
        "rival.py:net",
        {"rival.py:net": None},
    ],
    ids=str,
)
def test_no_recipe_runs_code_without_being_asked_for(run: Any, made: Path, others: Any) -> None:
    said = run("rerun", tampered(made, others=others), "--check")
    assert not MARK.exists()
    assert (said.code, said.out) == (2, "") and said.err.count("\n") == 1


def test_nor_does_one_of_robustness(run: Any, made: Path) -> None:
    Path("photos").mkdir()
    shutil.copyfile("cat.png", "photos/cat.png")
    words = ("photos", "--net", "squeezenet1_1", "--eps", "2/255", "--steps", "1", "--no-checks", "--others", "none")
    assert run("robustness", *words, "--out", "out", "-q").code == 0
    run("rerun", tampered(Path("out/robustness.png"), others={"rival.py:net": None}), "--check")
    assert not MARK.exists()


def test_the_record_keeps_the_weights_that_were_attacked(run: Any) -> None:
    Path("plain.py").write_text(
        "import torch\nfrom torch import nn\n\ndef net():\n    torch.manual_seed(0)\n    return nn.Sequential("
        "nn.Conv2d(3, 8, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))\n"
    )
    state = phosphene.load("plain.py:net", device="cpu").module.state_dict()
    save_file({name: value * 1.25 for name, value in state.items()}, "other.safetensors")
    words = ("red.png", "--net", "plain.py:net", "--weights", "other.safetensors", "--attack", "fgsm", "--eps", "8/255")
    for folder, others in (("alone", ()), ("shown", ("--others", "plain.py:net"))):
        assert run("fool", *words, *others, "-q", "--out", folder).err == ""
    alone, shown = (recipe.read(f"{folder}/red-fool.png").networks for folder in ("alone", "shown"))
    assert len(alone) == 1 and set(alone.values()) <= set(shown.values())
